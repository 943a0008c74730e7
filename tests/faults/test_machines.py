"""Machines: file systems without sync or locks, closed streams, other locales, signals, defaults that other code has set."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hubcore import files, hub
from hubcore.extract import extract
from hubcore.pretrain import pretrain, read_recipe
from hubcore.tools.convert import convert
from hubcore.tools.export import export
from tests.faults.http_server import BODY, Answer
from tests.faults.lab import a_lab
from tests.hubcore.pretrain.conftest import Lab
from tests.hubcore.pretrain.conftest import lab as lab
from tests.paths import REPOSITORY, SPEECH

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
def test_everything_is_written_where_nothing_can_be_synced(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    folder = lab.folder
    outcome = pretrain(read_recipe(str(lab.recipe()), ["optimization.max_updates=4"]), folder / "run")
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
for arguments, code in (["list"], 0), (["info", "nonsense"], 2), (["extract", sys.argv[1], "-u", "fbank", "-o", sys.argv[2]], 0):
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
