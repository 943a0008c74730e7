"""The cache: damage, folders that cannot be used, read-only layers, and the commands that look after it."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hubcore import hub
from hubcore.card import Source
from hubcore.cli.cache import command as cache_command
from hubcore.cli.fetch import command as fetch_command
from hubcore.cli.registry import command as registry_command
from hubcore.errors import ChecksumError, DownloadError, HubcoreError, OfflineError, RegistryError
from hubcore.registry import names as registry
from hubcore.registry.reading import read_registry
from hubcore.sources import resolve as sources
from hubcore.sources import stamps
from hubcore.sources.hub.cache import hf_cache_dir
from hubcore.sources.locks import taking_turns
from hubcore.sources.pins import pin_path, read_pin, record_pin
from tests.faults.cases import Case, Cases
from tests.faults.http_server import BODY, SHA256, Answer
from tests.faults.lab import Lab, a_lab
from tests.faults.test_hugging_face import NAME, HubLab, a_hub_lab

cases = Cases()
pytest_generate_tests = cases.generate
OTHER = BODY[::-1]
KEPT = [f"files/sha256-{SHA256}"]


def test_case(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with a_lab(tmp_path, monkeypatch, caplog) as lab:
        case.run(lab)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Lab]:
    with a_lab(tmp_path, monkeypatch, caplog) as made:
        yield made


@pytest.fixture
def hub_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[HubLab]:
    with a_hub_lab(tmp_path, monkeypatch, caplog) as made:
        yield made


def run(command: object, *arguments: object, code: int = 0) -> Result:
    """Runs a command of the command line; an error that hubcore raises becomes exit code 1 here, and the output its text."""
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])  # type: ignore[arg-type]
    if result.exception is not None and not isinstance(result.exception, SystemExit | HubcoreError):
        raise result.exception
    assert result.exit_code == code, (result.output, result.exception)
    return result


@cases("a cached file is cut by something else", "its stamp no longer fits, so it is hashed, and fetched again")
def case_cached_file_cut(lab: Lab) -> None:
    url = lab.server.answers(Answer())
    for sha256 in (SHA256, None):
        lab.server.log.clear()
        lab.get(url, sha256)
        os.truncate(lab.stored, 1000)
        assert lab.get(url, sha256) == BODY and "is damaged" in lab.caplog.text
        assert lab.server.log[-1].range is None and lab.stored.read_bytes() == BODY


@cases("a bit of a cached file flips and its time is set back", "`hubcore cache verify` finds it; so does the next load")
def case_cached_file_flipped_bit(lab: Lab) -> None:
    url = lab.server.answers(Answer())
    lab.get(url)
    before = lab.stored.stat()
    with lab.stored.open("rb+") as file:
        file.write(bytes([BODY[0] ^ 1]))
    os.utime(lab.stored, ns=(before.st_atime_ns, before.st_mtime_ns))
    result = run(cache_command, "verify", code=1)
    assert "damaged" in result.output and "1 file read, 1 damaged" in result.output
    assert lab.get(url) == BODY
    assert "1 file read, 0 damaged" in run(cache_command, "verify").output


@cases("the cache cannot be written", "cached files are used; a missing file is an error that names `HUBCORE_CACHE`")
def case_read_only_cache(lab: Lab) -> None:
    url, other = lab.server.answers(Answer()), lab.server.answers(Answer(OTHER), path="/other")
    lab.get(url)
    before = lab.files("")
    real_open, real_mkdir = os.open, os.mkdir

    def refuse(path: object, flags: int = 0, *rest: int, **named: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and str(path).startswith(str(lab.cache)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real_open(path, flags, *rest, **named)  # type: ignore[arg-type]

    def refuse_folder(path: object, *rest: int) -> None:
        if str(path).startswith(str(lab.cache)) and not Path(str(path)).exists():
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        real_mkdir(path, *rest)  # type: ignore[arg-type]

    lab.monkeypatch.setattr("os.open", refuse)
    lab.monkeypatch.setattr("os.mkdir", refuse_folder)
    assert lab.get(url) == BODY
    with pytest.raises(DownloadError, match=r"Read-only file system.*Set HUBCORE_CACHE"):
        lab.get(other, None)
    assert lab.files("") == before and len(lab.server.log) == 1


@cases("the cache is a file, a loop of links, or somebody else's", "a clear error, nothing is followed")
def case_impossible_cache(lab: Lab) -> None:
    url = lab.server.answers(Answer())
    root = lab.cache.parent
    (root / "file").write_bytes(b"mine")
    (root / "loop").symlink_to("loop")
    for name in ("file", "loop"):
        lab.cache = root / name
        with pytest.raises(DownloadError, match=r"cannot be used.*HUBCORE_CACHE"):
            lab.get(url)
    assert (root / "file").read_bytes() == b"mine"
    lab.cache = root / "cache"
    target = root / "elsewhere"
    target.write_bytes(BODY)
    lab.stored.parent.mkdir(parents=True)
    lab.stored.symlink_to(target)
    with pytest.raises(DownloadError, match=r"is a symbolic link.*not followed"):
        lab.get(url)
    lab.stored.unlink()
    lab.stored.mkdir()
    with pytest.raises(DownloadError, match="is a folder"):
        lab.get(url)
    lab.stored.rmdir()

    def refuse(path: object, *_: object, **__: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with pytest.MonkeyPatch.context() as patch, pytest.raises(DownloadError, match=r"Permission denied.*HUBCORE_CACHE"):
        patch.setattr("hubcore.sources.https.parts.os.open", refuse)
        lab.get(url)
    assert lab.server.log == [] and target.read_bytes() == BODY


# Layers, copies, stamps -----------------------------------------------------------------------------------------------


def test_a_second_use_reads_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    url = lab.server.answers(Answer())
    lab.get(url)
    monkeypatch.setattr("hubcore.sources.stamps.hash_file", lambda path: pytest.fail("it was read"))
    assert lab.get(url) == BODY


def test_read_only_layers_are_used_and_not_written(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned, unpinned = lab.server.answers(Answer()), lab.server.answers(Answer(OTHER), path="/other")
    lab.get(pinned)
    lab.get(unpinned, None)
    layer = lab.cache.rename(tmp_path / "layer")
    before = sorted((path, path.stat().st_mtime_ns) for path in layer.rglob("*"))
    monkeypatch.setenv("HUBCORE_CACHE_READONLY", f"{tmp_path / 'none'}{os.pathsep}{layer}")
    assert lab.get(pinned, offline=True) == BODY and lab.get(unpinned, None, offline=True) == OTHER
    assert lab.files() == [] and sorted((path, path.stat().st_mtime_ns) for path in layer.rglob("*")) == before
    (layer / "files" / f"sha256-{SHA256}").write_bytes(b"damaged")
    assert lab.get(pinned) == BODY and lab.files() == KEPT
    output = run(cache_command, "path").output
    assert str(layer) in output and "read-only" in output
    assert [item["writable"] for item in json.loads(run(cache_command, "ls", "--json").output)].count(False) == 2


def cards_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Path:
    path = tmp_path / "cards.yaml"
    path.write_text(text)
    monkeypatch.setenv("HUBCORE_REGISTRY", str(path))
    registry.refresh()
    return path


def card(name: str, *lines: str) -> str:
    return f"  {name}:\n    upstream: wav2vec2\n    license: MIT\n    sources:\n" + "".join(
        f"      - {line}\n" for line in lines
    )


def test_fetch_to_makes_a_cache_for_machines_without_a_network(
    hub_lab: HubLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = hub_lab.server.answers(Answer(OTHER))
    text = "version: 1\nupstreams:\n" + card("by_hub", f"uri: {hub_lab.uri}") + card("by_url", f"uri: '{url}'")
    cards_file(tmp_path, monkeypatch, text.replace("http://", "https://"))
    text = text.replace("uri: 'https", "uri: 'http")
    # A card may not name http, so the one of this machine is given as an address.
    target = tmp_path / "copy"
    result = run(fetch_command, "by_hub", url, f"hf://org/repo@main/{'config.json'}", "fbank", "--to", target)
    assert (
        str(target / "hub") in result.output and str(target / "files") in result.output and "needs no weights" in result.output
    )
    asked = len(hub_lab.server.log)
    monkeypatch.setenv("HUBCORE_CACHE", str(target))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("HUBCORE_OFFLINE", "1")
    found = hub.fetch("by_hub")
    assert found is not None and found.read_bytes() == BODY and found.is_relative_to(target)
    assert sources.resolve(url).read_bytes() == OTHER
    assert sources.resolve("hf://org/repo@main/config.json").read_bytes() == b"{}"
    with pytest.raises(OfflineError, match=r"`hubcore fetch hf://org/repo@main/none\.pt`"):
        sources.resolve("hf://org/repo@main/none.pt")
    assert len(hub_lab.server.log) == asked
    monkeypatch.setenv("HUBCORE_CACHE", str(tmp_path / "other"))
    monkeypatch.setenv("HUBCORE_CACHE_READONLY", str(target))
    assert sources.resolve(url).read_bytes() == OTHER
    found = hub.fetch("by_hub")
    assert found is not None and found.is_relative_to(target)


def test_a_whole_model_is_copied_too(hub_lab: HubLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(fetch_command, "hf://org/repo", "--to", tmp_path / "copy")
    monkeypatch.setenv("HUBCORE_CACHE", str(tmp_path / "copy"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("HUBCORE_OFFLINE", "1")
    folder = sources.resolve("hf://org/repo")
    assert folder.is_relative_to(tmp_path / "copy") and (folder / NAME).read_bytes() == BODY


# Commands -------------------------------------------------------------------------------------------------------------


def test_ls_names_what_is_there(hub_lab: HubLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(cache_command, "ls").output == "0 files, 0 B\n"
    cards_file(tmp_path, monkeypatch, "version: 1\nupstreams:\n" + card("by_hub", f"uri: {hub_lab.uri}"))
    url = hub_lab.server.answers(Answer(OTHER))
    hub.fetch("by_hub")
    hub_lab.get(url, None)
    hub_lab.leave_part(url, BODY[:1000])
    output = run(cache_command, "ls").output
    assert "by_hub" in output and SHA256[:12] in output and "2 files, 585.9 KiB" in output and "1 partial" in output
    rows = json.loads(run(cache_command, "ls", "--json").output)
    assert {(*row["names"], *row["uris"]) for row in rows} == {("by_hub", hub_lab.uri), (url,)}
    assert "2 files read, 0 damaged" in run(cache_command, "verify").output
    assert "1 file read" in run(cache_command, "verify", "by_hub").output
    assert isinstance(run(cache_command, "verify", "nothing", code=1).exception, HubcoreError)
    hub_lab.blob.write_bytes(OTHER)
    assert "the hub says" in run(cache_command, "verify", "by_hub", code=1).output


def test_rm_removes_files_and_forgets_pins(hub_lab: HubLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cards_file(tmp_path, monkeypatch, "version: 1\nupstreams:\n" + card("by_hub", f"uri: {hub_lab.uri}"))
    url = hub_lab.server.answers(Answer(), Answer(OTHER))
    hub_lab.get(url, None)
    hub.fetch("by_hub")
    assert read_pin(url) and read_pin(hub_lab.uri)
    assert "removed" in run(cache_command, "rm", url, "by_hub").output
    assert read_pin(url) is None and read_pin(hub_lab.uri) is None and hub_lab.kept() == [] and hub_lab.files() == []
    assert hub_lab.get(url, None) == OTHER  # now it is accepted
    run(cache_command, "rm", "sha256-" + Path(hub_lab.files("files")[0]).name[7:19])
    assert hub_lab.files() == []
    error = run(cache_command, "rm", "nothing", code=1).exception
    assert "nothing is not in the cache" in str(error)


def test_gc_removes_what_killed_downloads_left(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf"))
    url = lab.server.answers(Answer())
    lab.get(url)
    alive = lab.leave_part(lab.server.url("/alive"), BODY, sidecar="")
    dead = lab.leave_part(url, BODY[:1000])
    orphan = hf_cache_dir() / "models--a--b" / "blobs" / "aa.1234.incomplete"
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"part")
    gone = tmp_path / "gone"
    gone.write_bytes(b"x")
    stamps.file_sha256(gone)
    gone.unlink()
    assert run(cache_command, "gc").output.count("removed") == 1  # the stamp; the others are young
    old = time.time() - 90_000
    for path in (alive, dead, orphan):
        os.utime(path, (old, old))
    with taking_turns(lab.server.url("/alive"), lab.cache):
        assert run(cache_command, "gc", "--dry-run").output.count("would remove") == 3
        assert dead.exists()
        output = run(cache_command, "gc").output
        assert output.count("removed") == 3 and not dead.exists() and not orphan.exists() and alive.exists()
    assert lab.files("parts") == [alive.relative_to(lab.cache).as_posix()] and lab.get(url) == BODY
    assert run(cache_command, "gc").output.count("removed") == 1 and not alive.exists()


# Pins in cards --------------------------------------------------------------------------------------------------------

CARDS = """\
version: 1
upstreams:
  flow:
    upstream: wav2vec2
    license: MIT
    sources:
      - {uri: model.pt, sha256: null, size: null}
      - {uri: "other.pt", size: 3}
      - {uri: absent.pt}
  block:
    license: unknown
    upstream: wav2vec2
    sources:
      - uri: model.pt
        sha256: ~
        size:
      - uri: 'other.pt'
"""


def test_registry_pin_writes_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "cards.yaml"
    path.write_text(CARDS)
    (tmp_path / "model.pt").write_bytes(BODY)
    (tmp_path / "other.pt").write_bytes(b"abc")
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    output = run(registry_command, "pin", path).output
    assert "7 values written" in output and "1 source not here, see --fetch" in output
    flow, block = [card.sources for card in read_registry(path)[0]]
    assert block == (Source("model.pt", SHA256, 300000), Source("other.pt", abc, 3))
    assert flow == (*block, Source("absent.pt"))
    assert run(registry_command, "pin", path).output.startswith("0 values")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["cards.yaml", "model.pt", "other.pt"]


def test_registry_pin_takes_names_and_refuses_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "cards.yaml"
    path.write_text(CARDS)
    (tmp_path / "model.pt").write_bytes(BODY)
    assert "2 values" in run(registry_command, "pin", path, "block", "--out", tmp_path / "out.yaml").output
    assert path.read_text() == CARDS and read_registry(tmp_path / "out.yaml")[0][0].sources[0].sha256 is None
    assert "nothing" in str(run(registry_command, "pin", path, "nothing", code=1).exception)
    assert "absent.pt does not exist" in run(registry_command, "pin", path, "--fetch", code=1).output
    path.write_text(f"# My cards.\n{CARDS}")
    assert "has comments" in str(run(registry_command, "pin", path, code=1).exception)
    path.write_text(CARDS.replace("license: MIT", "licence: MIT"))
    assert isinstance(run(registry_command, "pin", path, code=1).exception, RegistryError)


def test_registry_pin_uses_what_was_downloaded(hub_lab: HubLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = cards_file(tmp_path, monkeypatch, "version: 1\nupstreams:\n" + card("by_hub", f"uri: {hub_lab.uri}"))
    assert "0 values" in run(registry_command, "pin", path).output and hub_lab.hub.log == []
    assert "2 values" in run(registry_command, "pin", path, "--fetch").output
    registry.refresh()
    assert read_registry(path)[0][0].sources == (Source(hub_lab.uri, SHA256, len(BODY)),)
    hub_lab.hub.add("org/repo", {NAME: OTHER}, (NAME,), commit="d" * 40)
    hub_lab.blob.unlink()
    with pytest.raises(ChecksumError, match="must have"):
        hub.fetch("by_hub")


def test_of_two_first_downloads_at_once_one_pin_holds(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    record_pin("https://example.org/a", SHA256, 1)
    # The other process made its pin after this one had looked.
    monkeypatch.setattr("hubcore.sources.pins.read_pin", lambda *_: None)
    record_pin("https://example.org/a", SHA256, 1)
    with pytest.raises(ChecksumError, match="at its first download"):
        record_pin("https://example.org/a", "0" * 64, 1)
    assert len(lab.files("pins")) == 1


def test_a_damaged_pin_is_passed_over_with_a_warning(lab: Lab) -> None:
    url = lab.server.answers(Answer())
    lab.get(url, None)
    pin_path(url, lab.cache).write_text("{")
    assert lab.get(url, None) == BODY and "is damaged" in lab.caplog.text
    pin = read_pin(url)
    assert pin is not None and pin.sha256 == SHA256
