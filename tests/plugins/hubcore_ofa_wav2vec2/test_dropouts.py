"""The dropouts of a checkpoint can be replaced when it is loaded, as for wav2vec 2.0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from hubcore import hub
from hubcore.errors import OptionError
from hubcore_ofa_wav2vec2 import OfaWav2Vec2Upstream
from hubcore_wav2vec2 import Wav2Vec2Upstream

FIELDS = ("dropout", "attention_dropout", "activation_dropout")


@pytest.mark.parametrize("field", FIELDS)
def test_a_dropout_replaces_the_files_and_nothing_else(field: str) -> None:
    plain: Any = hub.load("ofa_wav2vec2_tiny_prompts")
    model: Any = hub.load("ofa_wav2vec2_tiny_prompts", **{field: 0.25})
    assert {name: getattr(model.config, name) for name in FIELDS} == {
        name: 0.25 if name == field else getattr(plain.config, name) for name in FIELDS
    }
    assert model.config.lambd_range == plain.config.lambd_range


def test_they_reach_the_modules() -> None:
    model: Any = hub.load("ofa_wav2vec2_tiny_prompts", dropout=0.25)
    twin: Any = hub.load("wav2vec2_tiny_prompts", dropout=0.25)

    def rates(upstream: Any) -> set[float]:
        return {getattr(module, "p") for module in upstream.modules() if hasattr(module, "p")}  # noqa: B009

    assert 0.25 in rates(twin) and 0.25 in rates(model)


def test_an_impossible_dropout_is_an_error() -> None:
    with pytest.raises(OptionError, match="dropout must be a number from 0 to below 1"):
        hub.load("ofa_wav2vec2_tiny_prompts", dropout=1.0)


@pytest.mark.parametrize("cls", [Wav2Vec2Upstream, OfaWav2Vec2Upstream])
def test_they_hold_for_a_file_without_a_config_too(cls: Any, tmp_path: Path) -> None:
    family = "ofa_wav2vec2" if cls is OfaWav2Vec2Upstream else "wav2vec2"
    save_file(hub.load(f"{family}_tiny_prompts").state_dict(), tmp_path / "bare.safetensors")
    model = cls.from_checkpoint(tmp_path / "bare.safetensors", config="tiny", dropout=0.25)
    assert model.config.dropout == 0.25 and model.config.attention_dropout == cls.configs["tiny"].attention_dropout
