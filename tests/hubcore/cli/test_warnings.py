"""Python warnings on the command line: one line each, without the file and line of code that Python prints."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from click.testing import CliRunner

from hubcore.cli import main
from tests.paths import SPEECH

CLIP = str(sorted(SPEECH.glob("*.flac"))[0])


@pytest.mark.filterwarnings("always::UserWarning")
def test_a_lambda_beyond_what_was_trained_is_one_line(tmp_path: Path) -> None:
    arguments = ["extract", CLIP, "-u", "ofa_wav2vec2_tiny_prompts", "-O", "lambd=1.5", "-o", str(tmp_path / "out")]
    shown = warnings.showwarning
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stderr.splitlines() if "lambda" in line]
    assert len(lines) == 1 and lines[0].startswith("hubcore: warning: lambda 1.5 is outside the 0 to 1 that this checkpoint")
    assert "UserWarning" not in result.stderr and "warnings.warn" not in result.stderr
    assert warnings.showwarning is shown, "the command line must leave Python's own way as it was"
