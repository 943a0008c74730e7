"""What `info` says of layers, widths and frame rate without torch or weights is what the loaded upstream then has."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from hubcore import hub
from hubcore.card import UpstreamShape
from hubcore.loading import import_class
from hubcore.registry.names import current_registry
from hubcore_wav2vec2 import CONFIGS as WAV2VEC2
from hubcore_wav2vec2 import Wav2Vec2Upstream
from tests.conftest import CardWriter, Installer
from tests.gold import gold_file

BUNDLED = ["wav2vec2_tiny_prompts", "ofa_wav2vec2_tiny_prompts", "fbank", "mfcc", "mel", "linear", "spectrogram"]


def shape_of(upstream: Any) -> UpstreamShape:
    return UpstreamShape(upstream.layer_names, upstream.hidden_sizes, upstream.frame_stride, upstream.sample_rate)


@pytest.mark.parametrize("name", BUNDLED)
def test_info_says_what_the_upstream_has(name: str) -> None:
    assert hub.info(name).shape == shape_of(hub.load(name))


def test_it_is_printed() -> None:
    text = str(hub.info("xls_r_1b"))
    for row in ("layers        49: input, block_1, ..., block_48", "width         1280", "frame stride  320 samples (20 ms)"):
        assert row in text
    assert "sample rate   16000 Hz" in text
    assert "frame stride  depends on the input" in str(hub.info("ofa_wav2vec2"))
    assert "layers        1: features" in str(hub.info("fbank"))
    assert hub.info("fbank").to_dict()["shape"]["hidden_sizes"] == (240,)


def test_a_cards_options_count(cards: CardWriter) -> None:
    cards(
        "small: {upstream: fbank, config: fbank, license: x, options: {num_mel_bins: 40, delta_order: 0, layers: [0]}}",
        "named: {upstream: fbank, license: x, options: {config: mfcc}}",
    )
    for name, width in (("small", 40), ("named", 39)):
        shape = hub.info(name).shape
        assert shape is not None and shape.hidden_sizes == (width,) and shape == shape_of(hub.load(name))


def test_a_cached_file_of_ours_tells_its_own(tmp_path: Path, cards: CardWriter) -> None:
    hub.load("wav2vec2_tiny_prompts").save_checkpoint(tmp_path / "ours.safetensors")
    cards(*(f"{name}: {{upstream: wav2vec2, license: x, sources: [{{uri: {name}.safetensors}}]}}" for name in ("ours", "bare")))
    (tmp_path / "bare.safetensors").write_bytes(b"\xff" * 100)
    assert hub.info("ours").shape == shape_of(hub.load("ours"))
    assert hub.info("bare").shape is None and "layers" not in str(hub.info("bare"))


@pytest.mark.parametrize("kind", ["native", "fairseq"])
def test_a_cached_files_own_dropouts_are_shown_beside_a_named_config(tmp_path: Path, cards: CardWriter, kind: str) -> None:
    if kind == "native":
        config = dataclasses.replace(WAV2VEC2["tiny"], dropout=0.1)
        Wav2Vec2Upstream(config).save_checkpoint(tmp_path / "ours.safetensors")
        cards("ours: {upstream: wav2vec2, config: tiny, license: x, sources: [{uri: ours.safetensors}]}")
    else:
        cards(f"ours: {{upstream: wav2vec2, license: x, sources: [{{uri: {gold_file('fairseq_tiny_w2v2_groupnorm.pt')}}}]}}")
    shown = hub.info("ours").config
    assert shown is not None and shown["dropout"] == 0.1 == hub.load("ours").config.dropout
    assert "dropout=0.1" in str(hub.info("ours"))


def test_where_nothing_is_known_nothing_is_said(cards: CardWriter, install: Installer) -> None:
    cards("far: {upstream: faraway, config: base, license: x}")
    assert hub.info("far").shape is None
    assert hub.info("wav2vec2_custom").shape is None


DATACLASS = "import dataclasses\n@dataclasses.dataclass\nclass C:\n"
CONFIGS = [
    "CONFIGS = {'base': object()}",
    DATACLASS + "    upstream_shape: int = 3\nCONFIGS = {'base': C()}",
    DATACLASS + "    @property\n    def upstream_shape(self): raise SystemError\nCONFIGS = {'base': C()}",
]


@pytest.mark.parametrize("code", CONFIGS)
def test_a_config_of_another_kind_does_not_end_info(cards: CardWriter, install: Installer, code: str) -> None:
    install("odd", entry_points="[hubcore.upstreams]\nodd = odd_mod:X\n", files={"odd_mod.py": f"{code}\nclass X: pass\n"})
    cards("mine: {upstream: odd, config: base, license: x}")
    info = hub.info("mine")
    assert info.shape is None and "class" in str(info)


def family_of(name: str) -> Any:
    family = current_registry().find(name).family
    assert family is not None
    return import_class(family)


OWN = [entry.card for entry in current_registry().entries if entry.owner == "hubcore" and entry.card and entry.family]
FAMILIES = sorted({card.upstream for card in OWN if card.sources})


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_parameters_on_a_card_are_those_of_its_config(family: str) -> None:
    cards = [card for card in OWN if card.upstream == family and card.sources]
    cls, counts = family_of(cards[0].name), {}
    for config in sorted(set(cls.configs) if any(card.config is None for card in cards) else {card.config for card in cards}):
        with torch.device("meta"):
            counts[config] = sum(weight.numel() for weight in cls.from_config(config).parameters())
    for card in cards:
        if card.config is not None:
            assert card.parameters == counts[card.config], card.name
        else:  # the file says its config; what the card says is then one of the published sizes
            assert card.parameters in {None, *counts.values()}, card.name
    assert any(card.parameters for card in cards)


@pytest.mark.parametrize("family", sorted({card.upstream for card in OWN}))
def test_the_frame_stride_on_a_card_is_that_of_its_config(family: str) -> None:
    for card in OWN:
        if card.upstream == family and card.config is not None:
            assert card.frame_stride == family_of(card.name).configs[card.config].upstream_shape.frame_stride, card.name
