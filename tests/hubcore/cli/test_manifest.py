"""`hubcore manifest`: its table, its JSON and its exit codes."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from tests.paths import SPEECH
from tests.running import command

call = partial(command, "manifest")


def test_lists_of_real_speech(tmp_path: Path) -> None:
    result = call(SPEECH, "--dest", tmp_path, "--valid-percent", "0.3")
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()[2:]]
    assert [row[0] for row in rows] == [str(tmp_path / "train.tsv"), str(tmp_path / "valid.tsv")]
    assert sum(int(row[1]) for row in rows) == 10
    again = tmp_path / "again"
    assert call(SPEECH, "--dest", again, "--valid-percent", "0.3", "--workers", "3").exit_code == 0
    for name in ("train.tsv", "valid.tsv"):
        assert (again / name).read_bytes() == (tmp_path / name).read_bytes()


def test_json_has_everything(tmp_path: Path) -> None:
    result = call(SPEECH, "--dest", tmp_path, "--valid-percent", "0", "--min-seconds", "2.5", "--json")
    told = json.loads(result.stdout)
    assert told["root"] == str(SPEECH) and list(told["files"]) == ["train.tsv"]
    assert told["counts"]["train"] + told["counts"]["too_short"] == 10 and told["counts"]["too_short"] > 0
    lines = (tmp_path / "train.tsv").read_text().splitlines()[1:]
    assert told["seconds"]["train.tsv"] == pytest.approx(sum(int(line.split("\t")[1]) for line in lines) / 16000, abs=1e-3)


def test_files_that_fail_are_told_and_the_exit_code_is_1(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "good.flac").write_bytes((SPEECH / "en_1.flac").read_bytes())
    (corpus / "bad.flac").write_bytes(b"fLaC")
    result = call(corpus, "--dest", tmp_path / "lists")
    assert result.exit_code == 1
    assert "1 file that cannot be used" in result.stderr and "bad.flac" in result.stderr
    assert (tmp_path / "lists/unreadable.tsv").read_text().startswith("bad.flac\t")
    assert "good.flac" in (tmp_path / "lists/train.tsv").read_text()


def test_files_of_another_rate_are_told(tmp_path: Path) -> None:
    result = call(SPEECH, "--dest", tmp_path, "--sample-rate", "8000")
    assert result.exit_code == 1 and "10 files that are not of 8000 Hz" in result.stderr
    assert len((tmp_path / "other_rate.tsv").read_text().splitlines()) == 10


def test_an_empty_list_for_validation_is_told(tmp_path: Path) -> None:
    result = call(SPEECH, "--dest", tmp_path, "--valid-percent", "0.0001")
    assert result.exit_code == 0 and "no file fell to validation" in result.stderr
    assert (tmp_path / "valid.tsv").read_text() == f"{SPEECH}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ext", "txt"], "must be one of"),
        (["--valid-percent", "2"], "from 0 to 1"),
        (["--path-must-contain", "zz"], "zz"),
    ],
)
def test_bad_usage_is_exit_code_2(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = call(SPEECH, "--dest", tmp_path / "lists", *arguments)
    assert result.exit_code == 2 and message in result.stderr and not (tmp_path / "lists").exists()


def test_help_has_an_example() -> None:
    assert "hubcore manifest recordings/ --dest lists/" in call("--help").output
