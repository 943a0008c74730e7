"""`hubcore segment`: its tables, its JSON and its exit codes."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from hubcore.corpus import Manifest, ManifestEntry, build_manifest, write_manifest
from hubcore_ofa_wav2vec2.segments import open_segments
from tests.paths import GOLD, SPEECH
from tests.running import command

call = partial(command, "segment")


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "train.tsv"
    write_manifest(build_manifest(SPEECH, valid_percent=0).train, path)
    return path


def test_the_table_and_going_on(tmp_path: Path, manifest: Path) -> None:
    result = call(manifest, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    headers, _, row, told = result.stdout.splitlines()
    assert headers.split() == ["utterances", "frames", "segments", "mean", "alpha", "mean", "segment", "threshold"]
    assert row.split()[0] == "10" and row.split()[3] == "0.2225" and row.split()[4:6] == ["89.9", "ms"]
    assert told.startswith(f"10 written to {tmp_path / 'out'}, 0 done before, 0 failed")
    again = call(manifest, "--out", tmp_path / "out")
    assert "0 written" in again.stdout and "10 done before" in again.stdout and "real time" not in again.stdout


@pytest.mark.slow
def test_kmeans_is_compared_with_a_reference(tmp_path: Path, manifest: Path) -> None:
    assert call(manifest, "--out", tmp_path / "peaks").exit_code == 0
    arguments = (manifest, "--out", tmp_path / "kmeans", "--method", "kmeans", "--clusters", "20")
    result = call(*arguments, "--reference", tmp_path / "peaks")
    assert result.exit_code == 0, result.output
    headers, _, row = result.stdout.splitlines()[-3:]
    assert headers.split() == ["precision", "recall", "F1", "R-value", "boundaries", "reference", "utterances"]
    told = json.loads(call(*arguments, "--reference", tmp_path / "peaks", "--json").stdout)
    assert [float(cell) for cell in row.split()[:4]] == [
        pytest.approx(told["quality"][name], abs=6e-4) for name in ("precision", "recall", "f1", "r_value")
    ]
    assert 0.4 < told["quality"]["r_value"] < 1 and told["skipped"] == 10 and told["penalty"] > 0
    same = json.loads(call(manifest, "--out", tmp_path / "kmeans", "--method", "kmeans", "--clusters", "20",
                           "--reference", tmp_path / "kmeans", "--json").stdout)  # fmt: skip
    assert same["quality"]["r_value"] == 1


@pytest.mark.slow
def test_an_upstream_and_a_layer(tmp_path: Path, manifest: Path) -> None:
    result = call(manifest, "-o", tmp_path / "out", "--method", "kmeans", "--clusters", "10", "--layer", "1",
                  "--upstream", "wav2vec2_tiny_prompts")  # fmt: skip
    assert result.exit_code == 0, result.output
    settings = json.loads((tmp_path / "out/segments.json").read_text())["settings"]
    assert (settings["upstream"], settings["layer"]) == ("wav2vec2_tiny_prompts", 1)


def test_the_gold_corpus_against_its_own_segments(tmp_path: Path) -> None:
    dataset = GOLD / "ofa_dataset"
    arguments = (dataset / "manifest/aligned.tsv", "--root", dataset / "LibriSpeech", "--reference", dataset / "pseudo")
    result = call(*arguments, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["written"] == 3 and told["quality"]["utterances"] == 3
    assert "dev-clean/100/200/100-200-0000.wav" in open_segments(tmp_path / "out")


def test_a_failed_file_is_exit_code_1(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    good = build_manifest(SPEECH, valid_percent=0).train.entries
    write_manifest(Manifest(SPEECH, (*good, ManifestEntry("gone.flac", 16000))), path)
    result = call(path, "--out", tmp_path / "out")
    assert result.exit_code == 1 and "10 written" in result.stdout and "gone.flac" in result.stderr
    told = json.loads(call(path, "--out", tmp_path / "out", "--json").stdout)
    assert [failed["path"] for failed in told["failed"]] == ["gone.flac"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clusters", "10"], "--clusters was given with --method peaks. Only kmeans has that"),
        (["--method", "kmeans", "--threshold", "1"], "--threshold was given with --method kmeans"),
        (["--mean-alpha", "0"], "--mean-alpha"),
        (["--reference", "nowhere"], "nowhere has no segments"),
        (["--method", "kmeans", "--upstream", "nothing"], "no upstream is called 'nothing'"),
        (["--method", "kmeans", "--layer", "77"], "77"),
    ],
)
def test_bad_usage_is_exit_code_2(tmp_path: Path, manifest: Path, arguments: list[str], message: str) -> None:
    result = call(manifest, "--out", tmp_path / "out", *arguments)
    assert result.exit_code == 2 and message in result.stderr and not (tmp_path / "out").exists()


def test_a_manifest_that_is_malformed_is_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "bad.tsv").write_text("/corpus\na.wav\n")
    result = call(tmp_path / "bad.tsv", "--out", tmp_path / "out")
    assert result.exit_code == 2 and "bad.tsv:2: " in result.stderr


def test_help_has_an_example() -> None:
    assert "hubcore segment lists/train.tsv lists/valid.tsv --out segments/" in call("--help").output
