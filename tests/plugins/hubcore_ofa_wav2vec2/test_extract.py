"""Bulk extraction at a variable frame rate: the manifest says which, and when each frame is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hubcore import hub
from hubcore.audio import load_audio
from tests.paths import SPEECH
from tests.running import command

NAME = "ofa_wav2vec2_tiny_prompts"


def extract(out: Path, *options: str) -> tuple[int, str]:
    result = command("extract", str(SPEECH), "-u", NAME, "-o", str(out), "--layers", "last", *options)
    return result.exit_code, result.output


@pytest.mark.parametrize("options", [{"lambd": 0.7}, {"frame_period_ms": 45.0}, {}])
@pytest.mark.slow
def test_the_manifest_records_lambda_and_times(tmp_path: Path, options: dict[str, float]) -> None:
    flags = [word for name, value in options.items() for word in ("-O", f"{name}={value}")]
    code, output = extract(tmp_path / "out", *flags)
    assert code == 0, output
    rows = [json.loads(line) for line in (tmp_path / "out/manifest.jsonl").read_text().splitlines()]
    assert len(rows) == 10
    model = hub.load(NAME, **options)
    for row in rows:
        out = model([load_audio(row["source"])])
        array = np.load(tmp_path / "out" / row["file"])
        assert row["frames"] == len(array) == len(row["frame_times"]) == int(out.lengths)
        assert np.abs(array - out.last_hidden_state[0].detach().numpy()).max() <= 2e-5 * np.abs(array).max()
        assert np.abs(np.array(row["frame_times"]) - out.frame_times()[0].numpy()).max() <= 1e-5
        assert row["lambd"] == pytest.approx(float(out.extras["lambd"]), abs=1e-6)
        assert row["frame_stride"] is None
        assert row["options"] == model.options


def test_another_lambda_needs_another_folder(tmp_path: Path) -> None:
    assert extract(tmp_path / "out", "-O", "lambd=0.7")[0] == 0
    code, output = extract(tmp_path / "out", "-O", "lambd=0.6")
    assert code == 2
    assert "options is" in output
    code, output = extract(tmp_path / "out", "-O", "lambd=0.7")
    assert code == 0
    assert "10 done before" in output


def test_lambda_for_an_upstream_without_one_is_an_error(tmp_path: Path) -> None:
    result = command("extract", str(SPEECH), "-u", "fbank", "-O", "lambd=0.5", "-o", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert "no option called 'lambd'" in result.output
    assert not (tmp_path / "out").exists()
