"""Every upstream of this repository that needs no download keeps the whole contract."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hubcore import hub
from hubcore.registry.names import current_registry
from hubcore.testing import parametrize_with_checks
from hubcore_hubert import HubertConfig, HubertUpstream
from hubcore_ofa_wav2vec2 import OfaWav2Vec2Upstream
from hubcore_wav2vec2 import CONFIGS, Wav2Vec2Upstream

SMALL = replace(CONFIGS["tiny"], num_layers=2, dropout=0.1, attention_dropout=0.1, activation_dropout=0.1)
# Softmax does not see what is added to all scores of a query alike, so a key bias has no influence but through rounding.
KEY_BIAS = "softmax is blind to a constant added to all keys' scores, so the true gradient of the key bias is zero"


def group_norm_post_norm() -> Wav2Vec2Upstream:
    return Wav2Vec2Upstream(SMALL)


def layer_norm_pre_norm_normalize() -> Wav2Vec2Upstream:
    return Wav2Vec2Upstream(replace(SMALL, conv_norm="layer", conv_bias=True, pre_norm=True, normalize=True))


def as_many_blocks_as_convolutions() -> Wav2Vec2Upstream:
    convolutions = ((32, 10, 5), (32, 8, 4))
    return Wav2Vec2Upstream(replace(SMALL, conv_layers=convolutions, input_projection=False, dim=32, pos_conv_kernel=9))


def hubert_base_style() -> HubertUpstream:
    return HubertUpstream(HubertConfig(**vars(SMALL)))


def hubert_batch_norm_positions() -> HubertUpstream:
    return HubertUpstream(HubertConfig(**{**vars(SMALL), "pos_conv_norm": "batch", "feature_norm": False}))


def hubert_large_style() -> HubertUpstream:
    changes = {"conv_norm": "layer", "pre_norm": True, "normalize": True}
    return HubertUpstream(HubertConfig(**{**vars(SMALL), **changes}))


def ofa_at(lambd: float) -> OfaWav2Vec2Upstream:
    return hub.load("ofa_wav2vec2_tiny_prompts", lambd=lambd)


def ofa_at_0() -> OfaWav2Vec2Upstream:
    return ofa_at(0.0)


def ofa_at_1() -> OfaWav2Vec2Upstream:
    return ofa_at(1.0)


def registered(family: str) -> list[str]:
    """The names of a family that need neither a download nor a checkpoint of the caller's."""
    cards = [entry.card for entry in current_registry().entries if entry.card and entry.card.upstream == family]
    needless = [card.name for card in cards if card.license == "none needed"]
    bundled = [card.name for card in cards if any(source.uri.startswith("package://") for source in card.sources)]
    return needless + bundled


def test_every_registered_family_is_checked_below() -> None:
    assert {entry.family.name for entry in current_registry().entries if entry.family} == {
        "fbank",
        "hubert",
        "ofa_wav2vec2",
        "wav2vec2",
    }
    assert len(registered("fbank")) == 6


@parametrize_with_checks(registered("fbank"))
def test_signal_upstream(upstream: Any, check: Any) -> None:
    check(upstream)


@parametrize_with_checks(
    [
        *registered("wav2vec2"),
        group_norm_post_norm,
        layer_norm_pre_norm_normalize,
        as_many_blocks_as_convolutions,
    ],
    exempt={"gradients_nonzero:*.k_proj.bias": KEY_BIAS},
)
def test_wav2vec2(upstream: Any, check: Any) -> None:
    check(upstream)


@parametrize_with_checks(
    [hubert_base_style, hubert_batch_norm_positions, hubert_large_style],
    exempt={"gradients_nonzero:*.k_proj.bias": KEY_BIAS},
)
def test_hubert(upstream: Any, check: Any) -> None:
    check(upstream)


@parametrize_with_checks([*registered("ofa_wav2vec2"), ofa_at_1], exempt={"gradients_nonzero:*.k_proj.bias": KEY_BIAS})
def test_ofa_wav2vec2(upstream: Any, check: Any) -> None:
    check(upstream)


@parametrize_with_checks(
    [ofa_at_0],
    exempt={
        "gradients_nonzero:*.k_proj.bias": KEY_BIAS,
        "gradients_nonzero:*alpha_predictor*": "at lambda 0 every weight is 1 whatever alpha is, so alpha has no influence",
    },
)
def test_ofa_wav2vec2_at_lambda_0(upstream: Any, check: Any) -> None:
    check(upstream)
