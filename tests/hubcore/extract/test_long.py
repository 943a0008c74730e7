"""Utterances longer than a chunk: every format of features, written as those of one pass are."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from hubcore import features, hub
from hubcore.errors import AudioError, ExtractionError, OptionError
from hubcore.extract import extract
from hubcore.extract import run as running
from hubcore.extract.long import stored
from hubcore.streaming import stream


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audio")
    noise = np.random.default_rng(0).normal(0, 0.1, 16000 * 5)
    soundfile.write(folder / "long.wav", noise, 16000)
    soundfile.write(folder / "short.wav", noise[:9000], 16000)
    return folder


def written(audio: Path, out: Path, name: str = "wav2vec2_tiny_prompts", **options: Any) -> dict[str, Any]:
    """The arrays of a folder, computed in chunks of 1 s whose overlap is the rest, so that they are those of one pass."""
    summary = extract([audio], hub.load(name), out, chunk_seconds=1, overlap_seconds=5, **options)
    assert not summary.failures
    return {name: np.array(one.array) for name, one in features.open(out).items()}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layers": 2, "dtype": "float16"},
        {"layers": "1-2", "format": "safetensors"},
        {"layers": [2, 3], "dtype": "bfloat16", "format": "safetensors"},
        {"mix": "1:0.25,3:0.75"},
        {"pool": "mean", "layers": "last"},
        {"pool": "mean+std"},
        {"pool": "max", "mix": "1,2"},
    ],
    ids=str,
)
def test_a_long_utterance_is_written_as_one_pass_writes_it(audio: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    whole = extract([audio], hub.load("wav2vec2_tiny_prompts"), tmp_path / "whole", **options)
    found = written(audio, tmp_path / "chunks", **options)
    folder = features.open(tmp_path / "whole")
    assert [*found] == [*folder]
    tolerance = {"atol": 2e-5} if "dtype" not in options else {"atol": 2e-3, "rtol": 1e-2}
    for name, array in found.items():
        np.testing.assert_allclose(array.astype(np.float32), folder[name].array.astype(np.float32), **tolerance)
        np.testing.assert_allclose(features.open(tmp_path / "chunks")[name].times, folder[name].times)
    assert [row["shape"] for row in whole.rows] == [[*array.shape] for array in found.values()]
    assert sorted(path.name for path in (tmp_path / "chunks").iterdir()) == sorted(
        path.name for path in (tmp_path / "whole").iterdir()
    )


def test_chunks_are_those_of_stream_and_recorded(audio: Path, tmp_path: Path) -> None:
    model = hub.load("wav2vec2_tiny_prompts")
    (row, short) = extract([audio], model, tmp_path, layers=3, chunk_seconds=2).rows
    wav = torch.from_numpy(soundfile.read(audio / "long.wav", dtype="float32")[0])
    with torch.inference_mode():
        wanted = torch.cat([chunk.hidden_states[0] for chunk in stream(model, wav, layers=[3], chunk_seconds=2)])
    assert np.array_equal(np.load(tmp_path / row["file"]), wanted.numpy())
    assert row["options"] == short["options"] == {"chunk_seconds": 2, "overlap_seconds": None}
    with pytest.raises(ExtractionError, match="options is"):
        extract([audio], model, tmp_path, layers=3)
    with pytest.raises(OptionError, match="no constant rate"):
        extract([audio], hub.load("ofa_wav2vec2_tiny_prompts"), tmp_path / "ofa", chunk_seconds=30)
    assert not (tmp_path / "ofa" / "run.json").exists()


def test_signal_features_of_a_long_file_are_the_same_bits(audio: Path, tmp_path: Path) -> None:
    extract([audio], hub.load("fbank"), tmp_path / "whole")
    found = written(audio, tmp_path / "chunks", "fbank")
    for name, one in features.open(tmp_path / "whole").items():
        assert np.array_equal(found[name], one.array)


def test_numbers_that_a_type_does_not_hold_are_failures(audio: Path, tmp_path: Path) -> None:
    model = hub.load("wav2vec2_tiny_prompts")
    model.model.encoder.norm.weight.data.fill_(1e6)
    summary = extract([audio], model, tmp_path, layers=0, dtype="float16", chunk_seconds=1)
    assert [failure.utterance for failure in summary.failures] == ["long", "short"]
    assert all("beyond the 65504 of float16" in failure.error for failure in summary.failures)
    with pytest.raises(AudioError, match="not finite"):
        stored(torch.tensor([float("nan")]), "float32")


def test_a_whole_pass_over_hours_is_warned_of(
    audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(running, "LONG_SECONDS", 4.0)
    with caplog.at_level(logging.WARNING, "hubcore.extract"):
        extract([audio], hub.load("fbank"), tmp_path / "fbank")
        assert not caplog.messages
        extract([audio], hub.load("wav2vec2_tiny_prompts"), tmp_path / "whole", layers=0)
    assert [message for message in caplog.messages if "--chunk-seconds 30" in message]
