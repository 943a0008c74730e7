"""Tables that align and fit."""

from __future__ import annotations

import os

import pytest

from hubcore.cli.table import format_table
from hubcore.text import format_bytes, format_duration, printable


def test_columns_are_aligned_and_none_is_a_dash() -> None:
    table = format_table(["name", "frames"], [["a", 1], ["long name", None]], width=80, right=["frames"])
    assert table.splitlines() == ["name       frames", "---------  ------", "a               1", "long name       -"]


@pytest.mark.parametrize("width", [30, 40, 60])
def test_the_widest_column_is_cut_where_it_is_too_wide(width: int) -> None:
    lines = format_table(["a", "b"], [["short", "x" * 100], ["y" * 50, "z"]], width=width).splitlines()
    assert max(map(len, lines)) == width
    assert "..." in lines[2] and "..." in lines[3]


def test_a_narrow_terminal_still_shows_every_column() -> None:
    lines = format_table(["a", "b", "c"], [["x" * 30] * 3], width=5).splitlines()
    assert lines[2] == "  ".join(["xxxxx..."] * 3)


def test_nothing_is_cut_where_output_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert "x" * 500 in format_table(["a"], [["x" * 500]])


def test_wide_characters_take_two_columns() -> None:
    lines = format_table(["name", "n"], [["日本", 1], ["abcd", 2]], width=80).splitlines()
    assert lines[2:] == ["日本  1", "abcd  2"]
    assert format_table(["name"], [["日本語日本語日本語"]], width=10).splitlines()[2] == "日本語..."


def test_line_breaks_and_bytes_that_are_no_text_are_tamed() -> None:
    table = format_table(["name"], [["a\nb"], [os.fsdecode(b"caf\xe9")]], width=80)
    assert "a b" in table
    table.encode("utf-8")
    assert printable(os.fsdecode(b"caf\xe9")) == "caf\\udce9"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0 s"), (59.94, "59.9 s"), (60, "1:00"), (3599.6, "1:00:00"), (7325, "2:02:05")]
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 * 2**40, "5.0 TiB"), (2**52, "4096.0 TiB")]
)
def test_byte_counts(count: int, text: str) -> None:
    assert format_bytes(count) == text
