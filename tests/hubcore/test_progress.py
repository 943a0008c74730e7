"""The one display of progress."""

from __future__ import annotations

import pytest

from hubcore.progress import Progress, progress_line


def test_a_terminal_gets_a_bar_and_a_file_gets_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hubcore.progress.LINE_EVERY", 0.0)
    said: list[str] = []
    with Progress("B", "model.pt", say=said.append) as progress:
        progress(1 << 20, 2 << 20)
    assert said[0].startswith("model.pt: 1.0 of 2.0 MiB") and capsys.readouterr().err == ""
    with Progress("file") as progress:
        progress(1, 2)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Progress("file", quiet=True) as progress:
        progress(1, 2)
    assert capsys.readouterr().err == ""
    with Progress("utt", "extract", keep=True) as progress:
        progress(1, 3, "1 failed")
        progress(3, 3, "1 failed")
    shown = capsys.readouterr().err
    assert "extract" in shown and "3/3" in shown and "1 failed" in shown


def test_a_line_says_what_is_known() -> None:
    assert progress_line("a", 1 << 20, None, 2 << 20) == "a: 1.0 MiB, 2.0 MiB/s"
    assert progress_line("", 2, 4, 0.0, "name", "x") == "2 of 4 name, 0.0 name/s, x"
