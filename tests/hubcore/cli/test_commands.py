"""The commands, run in this process and as a process of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest
import soundfile
import torch

import hubcore
from hubcore import hooks, hub
from hubcore.cli import main, table
from hubcore.cli.group import COMMANDS
from hubcore.errors import AudioError, DownloadError
from hubcore.extract import ROW_KEYS, NpyWriter, find_writer
from hubcore.extract.work import Worker
from hubcore.findings import Finding
from hubcore.registry.names import Registry, current_registry
from hubcore.sources.pins import record_pin
from tests.paths import REPOSITORY
from tests.running import command, python

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[2] / "data"
CALL = [sys.executable, "-c", "from hubcore.cli import main; main(prog_name='hubcore')"]


@pytest.fixture(autouse=True)
def own_registry_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HUBCORE_REGISTRY", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HUBCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HUBCORE_OFFLINE", "1")


call = command


process = partial(python, *CALL[1:], code=None)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """The ten clips, and eight files that cannot be used."""
    root = tmp_path / "audio"
    root.mkdir()
    for path in (DATA / "speech").glob("*.flac"):
        (root / path.name).write_bytes(path.read_bytes())
    whole = (root / "en_1.flac").read_bytes()
    (root / "truncated.flac").write_bytes(whole[: len(whole) // 2])
    (root / "corrupt.flac").write_bytes(whole[:20000] + bytes(500) + whole[20500:])
    wav = (DATA / "gold" / "u1.wav").read_bytes()
    (root / "truncated.wav").write_bytes(wav[:-5000])
    (root / "empty.wav").touch()
    (root / "text.mp3").write_text("<html>404</html>" * 100)
    soundfile.write(root / "nan.wav", np.full(16000, np.nan), 16000, subtype="FLOAT")
    soundfile.write(root / "short.wav", np.zeros(100), 16000)
    soundfile.write(root / "no_samples.wav", np.zeros(0), 16000)
    return root


BAD = {"truncated.flac", "corrupt.flac", "truncated.wav", "empty.wav", "text.mp3", "nan.wav", "short.wav", "no_samples.wav"}


# The group ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    result = call(name, "--help")
    assert result.exit_code == 0
    assert f"Example:\n    hubcore {name}" in result.output


def test_help_lists_every_command_with_an_example() -> None:
    result = call("--help")
    assert result.exit_code == 0 and "Example:\n" in result.output
    commands = [line.split()[0] for line in result.output.partition("Commands:\n")[2].splitlines() if line.startswith("  ")]
    assert commands[: len(COMMANDS)] == list(COMMANDS)


def test_version() -> None:
    result = call("--version")
    assert (result.exit_code, result.output) == (0, f"hubcore {hubcore.__version__}\n")


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["--nonsense"], ["extract"], ["extract", "x.wav"], ["info"], ["fetch"], ["list", "--extra"],
     ["extract", "x", "-u", "fbank", "-o", "y", "--dtype", "int8"],
     ["extract", "x", "-u", "fbank", "-o", "y", "--batch-seconds", "0"]],
)  # fmt: skip
def test_bad_usage_is_exit_code_2(arguments: list[str]) -> None:
    result = call(*arguments)
    assert result.exit_code == 2 and "Usage: hubcore" in result.output


def test_an_error_is_one_line_and_debug_shows_the_traceback() -> None:
    plain = call("info", "fbnk")
    assert plain.exit_code == 2
    assert plain.output.startswith("hubcore: error: no upstream is called 'fbnk'. The nearest names are fbank")
    assert len(plain.output.splitlines()) == 1
    debug = call("--debug", "info", "fbnk")
    assert debug.exit_code == 2
    assert "Traceback (most recent call last)" in debug.output and plain.output in debug.output
    assert call("info", "fbnk", "--debug").output == debug.output == call("info", "--debug", "fbnk").output
    assert "--debug" in call("info", "--help").output


def test_plugins_add_commands_and_cannot_replace_built_in_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = {"greet": click.Command("greet", callback=lambda: click.echo("hello")), "list": click.Command("list")}
    monkeypatch.setattr(hooks.Hooks, "commands", lambda self, reserved: theirs)
    monkeypatch.setattr(main, "commands", {})
    assert call("greet").output == "hello\n"
    assert "fbank" in call("list").output
    assert call("--help").output.count("  list ") == 1


PLUGIN = """
import click
from hubcore import hookimpl
from pathlib import Path
calls = []

@hookimpl
def hubcore_commands(cli):
    calls.append(1)

    @cli.command()
    def greet():
        click.echo(f"asked {len(calls)} times")
        raise hubcore.errors.OptionError("no greeting. None is known. Learn one.")

import hubcore.errors

class TextWriter:
    def __init__(self, folder):
        self.folder = folder

    def write(self, utterance, features):
        if utterance == "odd":
            raise RuntimeError("odd indeed")
        (self.folder / f"{utterance}.txt").write_text(str(features.tolist()))
        return f"{utterance}.txt"

    def holds(self, file, shape, dtype):
        return (self.folder / file).is_file()

    def close(self):
        (self.folder / "closed").touch()

class Broken(TextWriter):
    def __init__(self, folder):
        raise RuntimeError("no libtext here")

class Mute(TextWriter):
    def write(self, utterance, features):
        return None

@hookimpl
def hubcore_feature_writers():
    return {"txt": TextWriter, "broken": Broken, "mute": Mute, "npy": TextWriter, "halt": str, "odd": 3}
"""


@pytest.fixture
def plugin(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "commands", {})
    install("acme-text", entry_points="[hubcore]\nacme = acme_text\n", files={"acme_text.py": PLUGIN})


@pytest.mark.usefixtures("plugin")
def test_a_plugin_is_asked_for_its_commands_once() -> None:
    assert "greet" in call("--help").output
    result = call("greet")
    assert result.output == "asked 1 times\nhubcore: error: no greeting. None is known. Learn one.\n"
    assert "Traceback" in call("greet", "--debug").output


def test_plugins_are_not_asked_for_a_built_in_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks.Hooks, "commands", lambda self, reserved: pytest.fail("asked"))
    assert call("list").exit_code == 0


# list, info, fetch, doctor --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("typed", "meant"), [("lst", "list"), ("xtract", "extract"), ("segmnt", "segment")])
def test_a_misspelt_command_suggests_the_nearest(typed: str, meant: str) -> None:
    result = call(typed)
    assert result.exit_code == 2 and f"No such command '{typed}'. The nearest are {meant}" in result.output


def test_one_of_a_thing_is_not_many(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "a.wav", np.zeros(1), 16000)
    failed = call("extract", tmp_path / "in", "-u", "fbank", "-o", tmp_path / "out").output
    assert "has 1 sample (0.1 ms)" in failed
    soundfile.write(tmp_path / "b.wav", np.random.default_rng(0).normal(0, 0.1, 16000), 16000)
    assert "1 utterance, " in call("extract", tmp_path / "b.wav", "-u", "fbank", "-o", tmp_path / "one").output
    with pytest.raises(AudioError, match=r"item 0 has 1 sample \("):
        hub.load("fbank")([torch.zeros(1)])


def test_no_message_leaves_the_plural_to_the_reader() -> None:
    sources = [path for folder in ("hubcore", "plugins") for path in (REPOSITORY / folder).rglob("*.py")]
    assert not [path for path in sources if re.search(r"[a-z]{3}\((s|es)\) ", path.read_text())]


def test_docs_lists_and_prints_the_pages_that_messages_name() -> None:
    listed = call("docs").output
    assert {"quickstart", "families/hubert"} <= {line.split()[0] for line in listed.splitlines()}
    assert call("docs", "quickstart").output == (REPOSITORY / "docs/quickstart.md").read_text()
    assert call("docs", "docs/registry.md").output.startswith("# ")
    missing = call("docs", "quickstrat")
    assert missing.exit_code == 2 and "The nearest are quickstart." in missing.output
    for folder in ("hubcore", "plugins"):
        for path in (REPOSITORY / folder).rglob("*"):
            if path.suffix in (".py", ".in", ".md", ".yaml"):
                assert not re.search(r"docs/\w+\.md", path.read_text()), f"{path} names a folder that a wheel lacks"
                for page in re.findall(r"`hubcore docs ([\w/]+)`", path.read_text()):
                    assert (REPOSITORY / "docs" / f"{page}.md").is_file(), (path, page)


def test_list_groups_names_by_family_and_says_what_is_here() -> None:
    lines = call("list").output.splitlines()
    assert lines[0].split() == ["name", "size", "params", "lang", "licence", "cached", "note"]
    assert lines.index("fbank (hubcore_fbank.upstream:FbankUpstream)") < lines.index(next(x for x in lines if " linear " in x))
    cells = {line.split()[0]: line.split() for line in lines if line.startswith("  ")}
    assert cells.keys() == {entry.name for entry in current_registry().entries}
    assert cells["wav2vec2_base_960"][1:8] == ["906.5", "MiB", "94.4", "M", "en", "MIT", "no"]
    assert cells["fbank"][1:4] == ["-"] * 3 and "yes" in cells["wav2vec2_tiny_prompts"]


def test_list_fits_into_100_columns_and_says_languages_shortly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(table, "sys", SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: True)))
    lines = call("list").output.splitlines()
    assert max(len(line) for line in lines) <= 100
    cells = {line.split()[0]: line for line in lines if line.startswith("  ")}
    for name, languages in (
        ("wav2vec2_base_960", "  en  "),
        ("wav2vec2_tiny_prompts", "  en +4  "),
        ("xls_r_2b", "  many  "),
        ("wav2vec2_large_voxpopuli_100k", "  many  "),
        ("fbank", "  -  "),
    ):
        assert languages in cells[name]


def test_list_never_cuts_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(table, "sys", SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: True)))
    lines = call("list").output.splitlines()
    assert {entry.name for entry in current_registry().entries} == {x.split()[0] for x in lines if x.startswith("  ")}
    assert any(line.endswith("...") for line in lines)


def test_list_filters_by_pattern_by_family_and_by_what_is_here() -> None:
    def names(*filters: str) -> set[str]:
        return {row["name"] for row in json.loads(call("list", "--json", *filters).output)}

    assert names("xls_r_*b", "wav2vec2") == {"xls_r_1b", "xls_r_2b", "wav2vec2_base_960"}
    assert names("--family", "fbank", "m*") == {"mel", "mfcc"}
    assert {"wav2vec2_tiny_prompts", "fbank"} < names("--cached") and "xls_r_2b" not in names("--cached")
    assert "The nearest are wav2vec2" in call("list", "wav2vec3").output and call("list", "--family", "hubret").exit_code == 2


def test_list_filters_by_licence_language_and_size() -> None:
    def names(*filters: str) -> set[str]:
        return {row["name"] for row in json.loads(call("list", "--json", *filters).output)}

    rows = {row["name"]: row for row in json.loads(call("list", "--json").output)}
    cards = {entry.name: entry.card for entry in current_registry().entries if entry.card}
    assert names("--license", "mit") == {name for name, row in rows.items() if row["license"] == "MIT"}
    assert (
        names("--license", "CC-by-nc*")
        == {name for name in rows if (rows[name]["license"] or "").startswith("CC-BY-NC")}
        != set()
    )
    allowed = names("--commercial-ok")
    assert {"wav2vec2_base_960", "fbank", "wav2vec2_tiny_prompts"} < allowed == {n for n, c in cards.items() if c.commercial_ok}
    assert "mhubert_147" not in allowed and "cvhubert" not in allowed
    chinese = names("--language", "ZH", "--family", "hubert")
    assert {"chinese_hubert_base", "mhubert_147"} <= chinese and "hubert_base" not in chinese
    small = names("--max-params", "100M", "--family", "wav2vec2")
    assert "wav2vec2_base_960" in small and not {"xls_r_300m", "wav2vec2_custom"} & small
    assert "fbank" in names("--max-params", "1k")
    assert names("--max-params", "0.4B", "--language", "en", "--commercial-ok", "wav2vec2_large_9*") == {
        name for name in rows if name.startswith("wav2vec2_large_9")
    }


def test_filters_that_nothing_can_match_say_so() -> None:
    assert "The nearest are mit." in call("list", "--license", "mitt").output
    assert "'chinese' is no code of a language" in call("list", "--language", "chinese").output
    wrong = call("list", "--max-params", "many")
    assert wrong.exit_code == 2 and "'many' is no number such as" in wrong.output
    assert "nothing matches all of these filters" in call("list", "--license", "mit", "--family", "fbank").output


def test_a_cached_file_and_a_whole_model_on_the_hub_are_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HUBCORE_CACHE", str(tmp_path))
    snapshot = tmp_path / "hub" / "models--TencentGameMate--chinese-hubert-base"
    commit = "1" * 40
    for file, size in (("config.json", 2), ("pytorch_model.bin", 40)):
        path = snapshot / "snapshots" / commit / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
    (snapshot / "refs").mkdir()
    (snapshot / "refs" / "main").write_text(commit)
    pinned = current_registry().find("cvhubert").card.sources[0].uri
    record_pin(pinned, "a" * 64, 7)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / f"sha256-{'a' * 64}").write_bytes(bytes(7))
    rows = {row["name"]: row for row in json.loads(call("list", "--json", "--family", "hubert").output)}
    assert (rows["chinese_hubert_base"]["cached"], rows["chinese_hubert_base"]["size"]) == (True, 42)
    assert (rows["cvhubert"]["cached"], rows["cvhubert"]["size"]) == (True, 7)
    assert rows["hubert_base"]["cached"] is False and rows["hubert_base"]["size"] > 10**9


def test_list_json_is_the_same_for_programs() -> None:
    rows = {row["name"]: row for row in json.loads(call("list", "--json").output)}
    assert rows["wav2vec2_base_960"]["aliases"] == ["wav2vec2"]
    assert rows["wav2vec2_base_960"]["class"] == "hubcore_wav2vec2.upstream:Wav2Vec2Upstream"
    assert rows["fbank"]["available"] is True and rows["fbank"]["duplicate_of"] is None
    assert {name for row in rows.values() for name in (row["name"], *row["aliases"])} == set(hub.list())


def test_list_marks_what_is_unavailable_or_contested(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    user = tmp_path / "user.yaml"
    card = "  {name}: {{upstream: {family}, license: MIT}}\n"
    user.write_text(
        "version: 1\nupstreams:\n" + card.format(name="fbank", family="fbank") + card.format(name="whale", family="whale")
    )
    monkeypatch.setenv("HUBCORE_REGISTRY", str(user))
    result = call("list")
    assert result.exit_code == 0
    lines = {line.split()[0]: line for line in result.output.splitlines() if line.startswith("  ")}
    assert "duplicate: claimed by hubcore and user" in lines["hubcore:fbank"]
    assert "duplicate: claimed by hubcore and user" in lines["user:fbank"]
    assert "unavailable: no distribution that is installed and enabled provides the family 'whale'" in lines["whale"]
    assert "mfcc" in lines
    doctor = call("doctor")
    assert doctor.exit_code == 1
    assert "fbank is claimed by hubcore and user. Use hubcore:fbank or user:fbank" in doctor.output
    assert "whale" in doctor.output


def test_info_shows_class_and_line() -> None:
    text = call("info", "fbank").output
    assert "hubcore_fbank.upstream:FbankUpstream" in text and "upstream.py:" in text
    data = json.loads(call("info", "fbank", "--json").output)
    assert data["name"] == "fbank" and data["class_path"] == "hubcore_fbank.upstream:FbankUpstream"


def test_fetch_says_where_a_file_is() -> None:
    result = call("fetch", "fbank", "wav2vec2_tiny_prompts")
    assert result.exit_code == 0
    fbank, tiny = result.output.splitlines()
    assert fbank == "fbank: needs no weights"
    assert Path(tiny.partition(": ")[2]).is_file()


def test_fetch_goes_on_after_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fetch(name: str) -> Path | None:
        if name == "bad":
            raise DownloadError("bad cannot be had. It is gone. Ask for it.")
        return None

    monkeypatch.setattr(hub, "fetch", fetch)
    result = call("fetch", "bad", "fbank")
    assert result.exit_code == 1
    assert "hubcore: error: bad: bad cannot be had." in result.output and "fbank: needs no weights" in result.output
    assert "1 of 2 could not be fetched" in result.output
    assert call("fetch", "bad").exit_code == 2


def test_doctor_finds_nothing_wrong_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("hubcore.registry.names.current_registry", lambda: Registry(entries=current_registry().entries))
    result = call("doctor")
    assert result.exit_code == 0, result.output
    for expected in ("hubcore", "torch", "libsndfile", str(tmp_path / "cache"), "offline", "no problem found"):
        assert expected in result.output


def test_doctor_names_what_is_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = Registry(problems=[Finding("its metadata cannot be read.", "Reinstall it.", owner="acme-speech")])
    monkeypatch.setattr("hubcore.registry.names.current_registry", lambda: broken)
    (tmp_path / "file").touch()
    monkeypatch.setenv("HUBCORE_CACHE", str(tmp_path / "file"))
    result = call("doctor")
    assert result.exit_code == 1
    assert "- acme-speech: its metadata cannot be read. Reinstall it." in result.output
    assert "cannot be written. Set HUBCORE_CACHE" in result.output


# extract --------------------------------------------------------------------------------------------------------------


def test_extract_ends_with_a_table_and_totals(tmp_path: Path) -> None:
    result = call("extract", DATA / "speech", "-u", "fbank", "-o", tmp_path / "out", "--layers", "last")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    header = lines.index(next(line for line in lines if line.startswith("file ")))
    assert lines[header].split() == ["file", "seconds", "frames", "layers", "width", "batch", "speed"]
    assert lines[header + 2].split()[:5] == ["features/en_1.npy", "2.95", "293", "0", "240"]
    assert len(lines) - header == 13
    assert lines[-1].startswith(f"10 written to {tmp_path / 'out'}, 0 done before, 0 failed; 30.0 s of audio, 2979 frames, in ")
    assert lines[-1].endswith(" x real time)")
    assert np.load(tmp_path / "out" / "features" / "es_1.npy").shape == (364, 240)


def test_extract_gives_features_for_every_name_and_tells_what_it_leaves_out(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (tmp_path / "blob").write_bytes((DATA / "speech/en_1.flac").read_bytes())
    for name in ("one.flac", "two.flac"):
        (corpus / name).symlink_to("../blob")
    for number in range(20):
        (corpus / f"gone{number:02}.flac").symlink_to("../missing")
    (corpus / "song.m4a").touch()
    for number, paths in enumerate(([corpus], sorted(corpus.glob("*.flac")))):
        out = tmp_path / f"out{number}"
        result = call("extract", *paths, "-u", "fbank", "-o", out)
        assert result.exit_code == 1 and "2 written" in result.stdout and "20 failed" in result.stdout
        assert all(f"gone{number:02}.flac is a link to ../missing" in result.stderr for number in range(20))
        assert sorted(path.name for path in (out / "features").iterdir()) == ["one.npy", "two.npy"]
        assert ("1 file in" in result.stderr and "song.m4a" in result.stderr) == (number == 0)


@pytest.mark.slow
def test_extract_lists_bad_files_and_computes_the_others(corpus: Path, tmp_path: Path) -> None:
    out, clean = tmp_path / "out", tmp_path / "clean"
    result = call("extract", corpus, "--upstream", "fbank", "--out", out)
    assert result.exit_code == 1
    assert "10 written" in result.stdout and "8 failed" in result.stdout
    failed = [line for line in result.stderr.splitlines() if line.startswith("failed: ")]
    assert {Path(line.split()[1].rstrip(":")).name for line in failed} == BAD
    assert "Traceback" not in result.stderr
    failures = [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]
    assert {Path(row["source"]).name for row in failures} == BAD
    assert call("extract", DATA / "speech", "-u", "fbank", "-o", clean).exit_code == 0
    written = sorted(path.name for path in (out / "features").iterdir())
    assert written == sorted(path.with_suffix(".npy").name for path in (DATA / "speech").glob("*.flac"))
    for name in written:
        assert (out / "features" / name).read_bytes() == (clean / "features" / name).read_bytes()
    assert sorted(path.name for path in out.iterdir()) == [
        "failures.jsonl",
        "features",
        "manifest.jsonl",
        "plan.jsonl",
        "run.json",
    ]


@pytest.mark.slow
def test_extract_json_is_the_manifest_and_the_failures(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = call("extract", corpus, "-u", "fbank", "-o", out, "--json")
    assert (result.exit_code, result.stderr) == (1, "")
    data = json.loads(result.stdout)
    assert data["written"] == [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert all(tuple(row) == ROW_KEYS for row in data["written"])
    assert {Path(failure["source"]).name for failure in data["failed"]} == BAD
    assert data["skipped"] == 0 and data["audio_seconds"] == pytest.approx(29.99, abs=0.1) and data["speed"] > 0


def test_extract_goes_on_where_it_stopped(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("extract", corpus, "-u", "fbank", "-o", out, "--json")
    first = json.loads(call(*arguments).output)
    manifest = (out / "manifest.jsonl").read_bytes().splitlines(keepends=True)
    (out / "manifest.jsonl").write_bytes(b"".join(manifest[:6]) + manifest[6][:30])
    again = json.loads(call(*arguments).output)
    assert (len(first["written"]), len(again["written"]), again["skipped"]) == (10, 4, 6)
    assert (out / "manifest.jsonl").read_bytes() == b"".join(manifest)
    assert len(json.loads(call(*arguments).output)["failed"]) == 8


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gone.wav", "-u", "fbank"], "gone.wav does not exist"),
        (["n" * 5000, "-u", "fbank"], "cannot be reached: File name too long"),
        (["-u", "fbank", "--format", "h5"], "Formats known here are ark, hdf5, lhotse, npy, parquet, safetensors, webdataset."),
        (["-u", "fbnk"], "no upstream is called 'fbnk'"),
        (["-u", "fbank", "--layers", "7"], "layer 7"),
        (["-u", "wav2vec2_base_960", "-c", "gone.pt"], "gone.pt"),
        (["-u", "fbank", "--device", "nonsense"], "'nonsense' cannot be used here"),
    ],
)
def test_extract_with_bad_input_is_exit_code_2(tmp_path: Path, arguments: list[str], said: str) -> None:
    result = call("extract", DATA / "gold" / "u0.wav", "-o", tmp_path / "out", *arguments)
    assert result.exit_code == 2 and said in result.output and "Traceback" not in result.output
    assert not list(tmp_path.glob("out/features/*"))


@pytest.mark.usefixtures("plugin")
def test_a_plugin_brings_a_format(tmp_path: Path) -> None:
    out = tmp_path / "out"
    soundfile.write(tmp_path / "odd.wav", np.zeros(800), 16000)
    inputs = (DATA / "gold" / "u0.wav", tmp_path / "odd.wav")
    arguments = ("extract", *inputs, "-u", "fbank", "-o", out, "--layers", "last")
    result = call(*arguments, "--format", "txt")
    assert result.exit_code == 1 and "1 written" in result.output and "odd.wav: RuntimeError: odd indeed" in result.output
    (row,) = (json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines())
    assert (row["format"], row["file"]) == ("txt", "u0.txt")
    assert len(json.loads((out / "u0.txt").read_text())) == row["frames"] and (out / "closed").exists()
    assert "1 done before" in call(*arguments, "--format", "txt").output
    assert "1 done before" in call(*arguments).output, "a folder keeps its format"
    assert "format is 'txt' there and 'npy' here" in call(*arguments, "--format", "npy").output


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("tzt", 2, "there is no format called 'tzt'. Formats known here are ark, broken, hdf5, lhotse, mute, npy,"),
        (
            "broken",
            2,
            "acme_text.Broken, the writer of the format 'broken', cannot be made: RuntimeError: no libtext here.",
        ),
        ("mute", 1, "Mute.write gave None, not the file's path"),
        ("halt", 2, "plugin acme-text:acme: the format 'halt' cannot be used. It lacks write, holds, close."),
    ],
)
def test_a_format_that_is_not_there_or_broken(tmp_path: Path, name: str, code: int, said: str) -> None:
    result = call("extract", DATA / "gold" / "u0.wav", "-u", "fbank", "-o", tmp_path / "out", "--format", name)
    assert result.exit_code == code and said in result.output and "Traceback" not in result.output


@pytest.mark.usefixtures("plugin")
def test_the_built_in_format_is_no_plugins_to_replace(tmp_path: Path) -> None:
    assert call("extract", DATA / "gold" / "u0.wav", "-u", "fbank", "-o", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out" / "features" / "u0.npy").is_file()
    assert find_writer("npy") is NpyWriter and find_writer("txt").__name__ == "TextWriter"
    problems = [problem.text for problem in hooks.current_hooks().problems]
    assert "the format 'npy' is hubcore's own already. Give it a new name." in problems


@pytest.mark.slow
def test_extract_says_what_it_resampled(tmp_path: Path) -> None:
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", np.sin(np.arange(16000) / 9)[:, None].repeat(2, 1), 8000)
    result = process("extract", tmp_path, "-u", "fbank", "-o", tmp_path / "out")
    assert result.returncode == 0
    assert result.stderr.count("hubcore: resampling 8000 Hz to 16000 Hz") == 1
    assert result.stderr.count("hubcore: averaging 2 channels to one") == 1


def test_extract_interrupted_exits_130_and_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("extract", DATA / "speech", "-u", "fbank", "-o", tmp_path / "out", "--batch-seconds", "7")
    compute, calls = Worker._compute, []

    def interrupted(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return compute(*given)

    monkeypatch.setattr(Worker, "_compute", interrupted)
    result = call(*arguments)
    assert result.exit_code == 130 and "Traceback" not in result.output
    assert "run the same command again" in result.output
    monkeypatch.undo()
    result = call(*arguments)
    assert result.exit_code == 0 and "7 written" in result.output and "3 done before" in result.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda one: one.name)
def test_a_signal_that_ends_a_command_leaves_no_half_written_file(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()

    def ended(*_: Any) -> None:
        assert len(list(folder.iterdir())) == 1, "the temporary file"
        os.kill(os.getpid(), number)
        pytest.fail("the signal was not seen")

    monkeypatch.setattr("hubcore.tools.export.check_equal", ended)
    before = signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    try:
        result = call("export", "wav2vec2_tiny_prompts", folder / "a.pt", "--format", "fairseq")
    finally:
        signal.signal(number, before)
    assert result.exit_code == 128 + number and "interrupted" in result.output
    assert not list(folder.iterdir())


@pytest.mark.slow
def test_extract_takes_any_file_name(tmp_path: Path) -> None:
    names = ["ünï 日本.wav", os.fsdecode(b"caf\xe9.wav"), os.fsdecode(b"bad\xff.wav")]
    try:
        for name in names:
            (tmp_path / name).write_bytes((DATA / "gold" / "u0.wav").read_bytes() if "bad" not in name else b"")
    except (OSError, UnicodeError):
        pytest.skip("this file system does not take such a name")
    result = process("extract", tmp_path, "-u", "fbank", "-o", tmp_path / "out")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "2 written" in result.stdout and "1 failed" in result.stdout


def test_a_long_table_is_cut(tmp_path: Path) -> None:
    for index in range(45):
        soundfile.write(tmp_path / f"{index:02}.wav", np.zeros(800), 16000)
    result = call("extract", tmp_path, "-u", "fbank", "-o", tmp_path / "out")
    assert "... and 5 more, all of them in manifest.jsonl" in result.output and "45 written" in result.output
    assert result.output.count(".npy") == 40


@pytest.mark.slow
def test_a_bar_is_drawn_only_on_a_terminal(tmp_path: Path) -> None:
    pty, fcntl, termios = (pytest.importorskip(name) for name in ("pty", "fcntl", "termios"))
    assert "h of audio" not in process("extract", DATA / "speech", "-u", "fbank", "-o", tmp_path / "1").stderr
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    done = subprocess.run(
        [*CALL, "extract", str(DATA / "speech"), "-u", "fbank", "-o", str(tmp_path / "2")],
        stdout=subprocess.PIPE,
        stderr=child,
        timeout=120,
    )
    os.close(child)
    drawn = b""
    try:
        while block := os.read(parent, 65536):
            drawn += block
    except OSError:
        pass
    os.close(parent)
    assert done.returncode == 0 and b"10 utterances" in drawn and b"0.00/0.01 h of audio" in drawn
    assert b"10 written" in done.stdout and b"h of audio" not in done.stdout
