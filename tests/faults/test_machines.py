"""Machines: file systems without sync or locks, closed streams, other locales, signals, defaults that other code has set."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
import torch

from hubcore import files, hub
from hubcore.audio import load_audio
from hubcore.card import Source
from hubcore.checkpoints import open_checkpoint
from hubcore.corpus import read_manifest
from hubcore.errors import DownloadError, ExtractionError, HubcoreError
from hubcore.extract import extract
from hubcore.pretrain import pretrain, read_recipe
from hubcore.pretrain.curves import read_curves
from hubcore.pretrain.loop import _Signals
from hubcore.pretrain.processes import Processes
from hubcore.registry.reading import read_registry
from hubcore.sources.https import addresses, transfer
from hubcore.sources.hub import hugging_face
from hubcore.tools.convert import convert
from hubcore.tools.export import export
from hubcore_wav2vec2 import Wav2Vec2Upstream
from tests.faults.http_server import BODY, SHA256, Answer, wait_until
from tests.faults.lab import a_lab
from tests.hubcore.pretrain.conftest import Lab as Runs
from tests.paths import REPOSITORY, SPEECH
from tests.running import command, heed_signals, python

pytestmark = pytest.mark.slow

CLIP = SPEECH / "en_1.flac"
TINY = "wav2vec2_tiny_prompts"


# Disks without sync ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=["EINVAL", "EBADF", "ENOTSUP"])
def no_sync(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(descriptor: int) -> None:
        raise OSError(getattr(errno, request.param), "refused")

    monkeypatch.setattr(files, "_said", [])
    monkeypatch.setattr(os, "fsync", refuse)
    yield


@pytest.mark.slow
@pytest.mark.usefixtures("no_sync")
def test_everything_is_written_where_nothing_can_be_synced(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    folder = runs.folder
    outcome = pretrain(read_recipe(str(runs.recipe()), ["optimization.max_updates=4"]), folder / "run")
    upstream = hub.load(TINY)
    upstream.save_checkpoint(folder / "mine.safetensors")
    convert(str(folder / "mine.safetensors"), folder / "converted.safetensors")
    export(folder / "mine.safetensors", folder / "hf", format="hf")
    extract([CLIP], hub.load("fbank"), folder / "out")
    assert outcome.status == "finished" and (folder / "run/checkpoints/update_00000004/state.json").is_file()
    for made in ("mine.safetensors", "converted.safetensors", "hf"):
        assert hub.load("wav2vec2", checkpoint=folder / made).layer_names == upstream.layer_names
    assert (folder / "out/features/en_1.npy").is_file()
    assert len([record for record in caplog.records if "cannot be synced" in record.getMessage()]) == 1


# Disks without locks --------------------------------------------------------------------------------------------------


def enolck(descriptor: int, operation: int) -> None:
    raise OSError(errno.ENOLCK, "no locks available")


LOCKS = {"refused": enolck, "does nothing": lambda *_: None}


@pytest.fixture(params=LOCKS)
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", LOCKS[request.param])
    monkeypatch.setattr(files, "_SETTLE", 0.01)


def another_holder(folder: Path, *, host: str = "node7", pid: int = 12, silent: float = 0.0) -> Path:
    """The lock file of another process."""
    folder.mkdir(exist_ok=True)
    path = folder / ".hubcore.lock"
    path.write_text(json.dumps({"host": host, "pid": pid, "since": "2026-01-02 03:04:05"}))
    os.utime(path, (time.time() - silent,) * 2)
    return path


@pytest.mark.usefixtures("no_locks")
def test_two_extractions_into_one_folder_do_not_both_run_where_the_system_has_no_locks(tmp_path: Path) -> None:
    inner: list[str] = []

    def meanwhile(*_: object) -> None:
        with pytest.raises(ExtractionError) as caught:
            extract([CLIP], hub.load("fbank"), tmp_path / "out")
        inner.append(str(caught.value))

    extract([CLIP], hub.load("fbank"), tmp_path / "out", report=meanwhile)
    assert len(inner) == 2
    assert f"another extraction (process {os.getpid()} on {socket.gethostname()} since 20" in inner[0]
    assert "--force-unlock" in inner[0]
    assert sorted(os.listdir(tmp_path / "out")) == ["features", "manifest.jsonl", "plan.jsonl", "run.json"]


def test_a_folder_held_by_another_machine_is_refused_until_it_is_silent(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    lock = another_holder(folder)
    with pytest.raises(BlockingIOError, match="process 12 on node7 since 2026-01-02 03:04:05"):
        files.hold(folder)
    with files.hold(folder, force=True), pytest.raises(BlockingIOError, match=str(os.getpid())):
        files.hold(folder, force=True)  # a process of this machine that lives is not to be ignored
    assert not lock.exists()
    another_holder(folder, silent=files.SILENT + 5)
    with files.hold(folder):
        assert json.loads(lock.read_text())["host"] == socket.gethostname()


@pytest.mark.parametrize("locks", [True, False])
def test_the_lock_of_a_dead_process_of_this_machine_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    if not locks:
        monkeypatch.setattr(fcntl, "flock", enolck)
        monkeypatch.setattr(files, "_SETTLE", 0.01)
    another_holder(tmp_path, host=socket.gethostname(), pid=gone.pid)
    with files.hold(tmp_path):
        pass
    another_holder(tmp_path).write_bytes(b"{torn")  # no process can be told from it, so its age decides
    with pytest.raises(BlockingIOError, match="unknown"):
        files.hold(tmp_path)


def test_a_holder_shows_that_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_BEAT", 0.01)
    with files.hold(tmp_path):
        lock = tmp_path / ".hubcore.lock"
        os.utime(lock, (0, 0))
        wait_until(lambda: lock.stat().st_mtime > 1)


def test_two_runs_do_not_train_in_one_folder_where_another_machine_s_locks_are_not_seen(runs: Runs) -> None:
    another_holder(runs.folder / "run")
    arguments = runs.arguments("optimization.max_updates=1")
    refused = command(*arguments)
    assert refused.exit_code == 2 and "is in use by another run (process 12 on node7" in refused.output
    assert command(*arguments, "--force-unlock").exit_code == 0


def test_rows_that_two_runs_wrote_are_read_once(tmp_path: Path, runs: Runs) -> None:
    out = tmp_path / "out"
    other = another_holder(out)
    arguments = ["extract", CLIP, "-u", "fbank", "-o", out]
    assert command(*arguments).exit_code == 2
    assert command(*arguments, "--force-unlock").exit_code == 0 and not other.exists()
    manifest = out / "manifest.jsonl"
    rows = manifest.read_bytes()
    manifest.write_bytes(rows * 3)
    assert command(*arguments).exit_code == 0 and manifest.read_bytes() == rows
    run = tmp_path / "run"
    pretrain(read_recipe(str(runs.recipe()), ["optimization.max_updates=3"]), run)
    once = read_curves(run).series
    metrics = run / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes() * 2)
    assert read_curves(run).series == once and once["loss"][0] == [1, 2, 3]


# Streams that are closed, or no files ---------------------------------------------------------------------------------


class OnlyWrite:
    """A stream as loggers put one in the place of standard error."""

    def write(self, text: str) -> int:
        return len(text)


@pytest.mark.parametrize("stream", [None, OnlyWrite(), "closed"])
def test_a_download_needs_no_standard_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stream: object
) -> None:
    if stream == "closed":
        stream = open(os.devnull, "w")  # noqa: SIM115 - to be found closed
        stream.close()
    with a_lab(tmp_path, monkeypatch, caplog) as lab:
        url = lab.server.answers(Answer())
        monkeypatch.setattr(sys, "stderr", stream)
        assert lab.get(url) == BODY


COMMANDS = """
import sys
from hubcore.cli import main
extract = ["extract", sys.argv[1], "-u", "fbank", "-o", sys.argv[2]]
for arguments, code in (["list"], 0), (["info", "nonsense"], 2), (extract, 0):
    try:
        main(arguments)
    except SystemExit as end:
        assert end.code == code, arguments
    except BaseException as error:
        open(sys.argv[2] + ".txt", "a").write(repr(error))
        raise
"""


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_commands_run_with_closed_streams(tmp_path: Path, closed: str) -> None:
    out = tmp_path / "out"
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", COMMANDS, str(CLIP), str(out)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(shell, env=environment, cwd=REPOSITORY, check=False, timeout=100)
    assert done.returncode == 0, out.with_suffix(".txt").read_text()
    assert (out / "features/en_1.npy").is_file() and (out / "manifest.jsonl").is_file()


# Defaults that other code has set -------------------------------------------------------------------------------------


@pytest.fixture(params=["set_default_device", "with"])
def other_default(request: pytest.FixtureRequest) -> Iterator[None]:
    """The meta device stands for any other than the CPU."""
    if request.param == "with":
        with torch.device("meta"):
            yield
        return
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


@pytest.mark.usefixtures("other_default")
@pytest.mark.parametrize("name", ["fbank", TINY, "ofa_wav2vec2_tiny_prompts"])
@pytest.mark.slow
def test_a_default_device_changes_no_load_and_no_features(name: str) -> None:
    wavs = [load_audio(CLIP), load_audio(CLIP)[:9000]]
    with torch.device("cpu"):
        expected = hub.load(name)(wavs)
    for upstream in (hub.load(name), *([] if name == "fbank" else [Wav2Vec2Upstream.from_checkpoint(TINY)])):
        out = upstream(wavs)
        assert {state.device.type for state in (*out.hidden_states, out.lengths, out.frame_times())} == {"cpu"}
    got = hub.load(name)(wavs)
    assert all(torch.equal(a, b) for a, b in zip(got.hidden_states, expected.hidden_states, strict=True))


@pytest.mark.usefixtures("other_default")
@pytest.mark.slow
def test_a_default_device_changes_no_reading_and_no_training(runs: Runs) -> None:
    assert pretrain(read_recipe(str(runs.recipe()), ["optimization.max_updates=2"]), runs.folder / "run").update == 2
    assert pretrain(read_recipe(str(runs.recipe()), ["optimization.max_updates=3"]), runs.folder / "run").update == 3
    with open_checkpoint(runs.folder / "run") as checkpoint:
        read = checkpoint.read(checkpoint.tensors)
    assert {tensor.device.type for tensor in read.values()} == {"cpu"}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_default_type_changes_no_load_and_no_features(dtype: torch.dtype) -> None:
    wav = load_audio(CLIP)
    expected = hub.load(TINY)([wav]).last_hidden_state
    torch.set_default_dtype(dtype)
    try:
        got = hub.load(TINY)([wav]).last_hidden_state
    finally:
        torch.set_default_dtype(torch.float32)
    assert got.dtype == torch.float32 and torch.equal(got, expected)


# Signals and launchers ------------------------------------------------------------------------------------------------

TWICE = """
import atexit, os, signal, sys, time
import click
from hubcore.cli import main
from hubcore.extract.work import Worker

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)

echo = click.echo
Worker._compute = lambda *arguments: interrupt()
if sys.argv[3] == "exit":
    atexit.register(interrupt)
else:
    click.echo = lambda text, **options: interrupt() if "interrupted" in text else echo(text, **options)
main(["extract", sys.argv[1], "-u", "fbank", "-o", sys.argv[2]])
"""


@pytest.mark.slow
@pytest.mark.parametrize("where", ["exit", "echo"])
def test_a_second_interrupt_ends_an_extraction_quietly(tmp_path: Path, where: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TWICE, str(CLIP), str(tmp_path / "out"), where],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        preexec_fn=heed_signals,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 130, done.stderr
    assert "what is finished is kept" in done.stderr and "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_a_signal_that_is_ignored_or_handled_by_the_program_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Run:
        signal = None

    def mine(number: int, frame: object) -> None:
        pass

    before = {signal.SIGHUP: signal.SIG_IGN, signal.SIGUSR1: mine, signal.SIGUSR2: signal.SIG_DFL}
    old = {number: signal.signal(number, handler) for number, handler in before.items()}
    try:
        with _Signals(Run()) as _:  # type: ignore[arg-type]
            inside = {number: signal.getsignal(number) for number in before}
        assert {number: signal.getsignal(number) for number in before} == before
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    assert inside[signal.SIGHUP] == signal.SIG_IGN and inside[signal.SIGUSR1] is mine
    assert inside[signal.SIGUSR2] != signal.SIG_DFL


@pytest.mark.parametrize("name", ["PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "WORLD_SIZE"])
def test_processes_that_torchrun_did_not_start_are_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("PMI_RANK", "1")
    monkeypatch.setenv(name, "1")
    Processes("cpu").close()
    monkeypatch.setenv(name, "2")
    with pytest.raises(HubcoreError, match=f"{name} says that 2 processes were started, but not by torchrun.*unset {name}"):
        Processes("cpu")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "module://no_such_backend"])
def test_the_backend_of_a_notebook_does_not_reach_a_picture(tmp_path: Path, backend: str) -> None:
    done = python("-m", "hubcore", "plot", CLIP, "-u", "fbank", "-o", tmp_path / "a.png", MPLBACKEND=backend)
    assert "Traceback" not in done.stderr and (tmp_path / "a.png").stat().st_size > 1000


# Networks that are not there, servers that never come to the point ----------------------------------------------------


@pytest.fixture
def fresh_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_refused", {})


@pytest.mark.usefixtures("fresh_hosts")
def test_the_first_refused_connection_decides_for_a_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[object] = []
    connect = socket.create_connection
    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: asked.append(a[0]) or connect(*a, **k))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening
        dead = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("HF_ENDPOINT", dead)
        with a_lab(tmp_path, monkeypatch, caplog) as lab:
            sources = [Source(f"{dead}/a.pt", SHA256), Source("hf://org/repo/model.pt", SHA256), Source(f"{dead}/b.pt", SHA256)]
            with pytest.raises(DownloadError, match="cannot be reached"):
                lab.fetch(*sources)
            assert len(asked) == 1 and lab.waits == []
            assert lab.fetch(*sources, Source(lab.server.answers(Answer()), SHA256)).read_bytes() == BODY
            assert len(asked) == 2, "a host that is there is asked"
            addresses._refused.clear()
            with pytest.raises(DownloadError, match=r"reach|fetched"):
                lab.fetch(sources[1])
            assert lab.waits == []


def test_a_host_that_goes_away_in_the_middle_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with a_lab(tmp_path, monkeypatch, caplog) as lab:
        url = lab.server.answers(Answer(cut=100_000), Answer())
        connect, calls = socket.create_connection, []

        def sometimes(*arguments: object, **options: object) -> socket.socket:
            calls.append(1)
            if len(calls) == 2:
                raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
            return connect(*arguments, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(socket, "create_connection", sometimes)
        assert lab.get(url) == BODY and len(calls) == 3


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
NEVER = {
    "1xx answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a byte of a header": (b"HTTP/1.1 200 OK\r\nX: ", b"a"),
    "a byte of the status line": (b"", b"H"),
    "a chunk header": (HEAD + b"5;", b"a"),
    "chunks of one byte": (HEAD, b"1;" + b"a" * 1000 + b"\r\na\r\n"),
    "trailers": (HEAD + b"1\r\na\r\n0\r\n", b"X: a\r\n"),
}


@contextlib.contextmanager
def never_ending(first: bytes, more: bytes) -> Iterator[str]:
    """A server that sends `first`, then `more` again and again."""
    stop = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                threading.Thread(target=feed, args=(connection,), daemon=True).start()

    def feed(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.recv(4096)
            connection.sendall(first)
            while not stop.wait(0.005):
                connection.sendall(more)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    finally:
        stop.set()
        server.close()


@pytest.mark.usefixtures("fresh_hosts")
@pytest.mark.parametrize("what", NEVER)
def test_a_server_that_never_comes_to_the_file_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    monkeypatch.setattr(transfer, "RATE_WINDOW", 0.3)
    monkeypatch.setattr(transfer, "SLOWEST", 100_000.0)
    monkeypatch.setattr(transfer, "_TRIES", 2)
    with a_lab(tmp_path, monkeypatch, caplog) as lab, never_ending(*NEVER[what]) as url:
        began = time.monotonic()
        with pytest.raises(DownloadError, match=r"failed 2 times, last because (only \d+ bytes were received|RemoteProtocol)"):
            lab.get(f"{url}/a.pt")
        assert time.monotonic() - began < 10


@pytest.mark.usefixtures("fresh_hosts")
@pytest.mark.parametrize("what", ["1xx answers", "a byte of a header"])
def test_a_hub_that_never_comes_to_an_answer_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    monkeypatch.setattr(hugging_face, "ANSWERED_WITHIN", 0.3)
    with a_lab(tmp_path, monkeypatch, caplog) as lab, never_ending(*NEVER[what]) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        with pytest.raises(DownloadError, match="the hub did not answer within"):
            lab.fetch(Source("hf://org/repo/model.pt", SHA256))


# Locales and line ends ------------------------------------------------------------------------------------------------

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
NAMES = [b"a.wav", b"caf\xc3\xa9.wav", b"\xd1\x8f/\xe6\x97\xa5.wav", b"no utf-8 \xe9.wav"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Files with names in several scripts, and one that is no UTF-8."""
    root = tmp_path / "corpus \u00fc"
    for number, name in enumerate(NAMES):
        path = os.path.join(os.fsencode(root), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            soundfile.write(file, [0.0, 0.1] * (1000 + number), 16000, format="wav")
    return root


IN_ONE_PROCESS = """
import sys
from hubcore.cli import main
command = []
for argument in (*sys.argv[1:], "then"):
    if argument == "then":
        main(command, standalone_mode=False)
        command = []
    else:
        command.append(argument)
"""


@pytest.mark.slow
def test_names_are_the_same_bytes_in_any_locale(tmp_path: Path, corpus: Path) -> None:
    out, listed, rows, lists = ("-u", "fbank", "-o"), tmp_path / "lists", [], []
    commands = ["extract", corpus, *out, tmp_path / "out", "then", "manifest", corpus, "--dest", listed, "--valid-percent", "0"]
    commands += ["then", "extract", listed / "train.tsv", *out, tmp_path / "two"]
    for locale, written in ((ASCII, ["4", "3"]), ({"LC_ALL": "C.UTF-8"}, ["0", "0"]), (ASCII, ["0", "0"])):
        done = python("-c", IN_ONE_PROCESS, *commands, **locale)
        assert re.findall(r"(\d+) written", done.stdout) == written, done.stdout
        rows.append((tmp_path / "out/manifest.jsonl").read_bytes())
        lists.append((listed / "train.tsv").read_bytes())
    assert rows[0].count(b"\n") == 4 and len(set(rows)) == 1
    written = sorted(Path(os.fsdecode(path)).as_posix() for path in (tmp_path / "out/features").rglob("*.npy"))
    assert [os.fsencode(path).rpartition(b"features/")[2] for path in written] == sorted(
        name.replace(b".wav", b".npy") for name in NAMES
    )
    assert len(set(lists)) == 1 and all(name in lists[0] for name in NAMES[:3]) and os.fsencode(corpus) in lists[0]


def test_what_an_ascii_terminal_cannot_show_is_written_out(tmp_path: Path) -> None:
    done = python("-m", "hubcore", "info", "n\u00e4me", code=2, **ASCII)
    assert "Traceback" not in done.stderr and "Error" not in done.stderr


@pytest.mark.parametrize(("mark", "end"), [(b"\xef\xbb\xbf", b"\n"), (b"", b"\r\n"), (b"\xef\xbb\xbf", b"\r\n")])
def test_files_that_windows_wrote_are_read(tmp_path: Path, runs: Runs, mark: bytes, end: bytes) -> None:
    def windows(path: Path) -> Path:
        path.write_bytes(mark + path.read_bytes().replace(b"\n", end))
        return path

    plain = read_manifest(runs.train)
    assert read_manifest(windows(runs.train)) == plain
    cards = tmp_path / "cards.yaml"
    cards.write_text("version: 1\nupstreams:\n  mine:\n    upstream: fbank\n    license: MIT\n    note: two\n      lines\n")
    expected = read_registry(cards)[0][0]
    assert read_registry(windows(cards)) == ([expected], [])
    assert read_recipe(str(windows(runs.recipe()))).upstream == "toy"
