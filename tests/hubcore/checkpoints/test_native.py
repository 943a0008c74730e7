"""hubcore's own checkpoint is written whole or not at all, and leaves nothing beside it."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open

from hubcore import UpstreamBase
from hubcore.checkpoints import native, write_native
from hubcore.errors import CheckpointError, OptionError
from tests.running import python


@dataclasses.dataclass(frozen=True)
class Config:
    dim: Any = 4


STATE = {"weight": torch.arange(4096.0)}


def test_what_is_written_is_what_was_given(tmp_path: Path) -> None:
    write_native(tmp_path / "a.safetensors", STATE, config=Config(), upstream="Toy")
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert file.metadata()["hubcore"].startswith('{"config": {"dim": 4}')
        assert torch.equal(file.get_tensor("weight"), STATE["weight"])
    assert os.listdir(tmp_path) == ["a.safetensors"]


@pytest.mark.parametrize("umask", [0o077, 0o022, 0o002])
def test_the_umask_decides_who_may_read_it(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_native(tmp_path / "a.safetensors", STATE, config=Config(), upstream="Toy")
    finally:
        os.umask(before)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o666 & ~umask


FULL = """
import resource, sys, torch
from pathlib import Path
from hubcore.checkpoints import write_native
from hubcore.errors import CheckpointError
from tests.hubcore.checkpoints.test_native import Config, STATE
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_native(Path(sys.argv[1]), STATE, config=Config(), upstream="Toy")
except CheckpointError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_full_disk_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    path = tmp_path / "a.safetensors"
    path.write_text("mine")
    done = python("-c", FULL, path)
    assert done.stderr == "" and f"{path} could not be written (" in done.stdout
    assert os.listdir(tmp_path) == ["a.safetensors"] and path.read_text() == "mine"


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (SafetensorError("I/O error"), CheckpointError),
        (OSError("full"), CheckpointError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_whatever_interrupts_it_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: BaseException, seen: type[BaseException]
) -> None:
    def interrupted(tensors: Any, path: Path, **options: Any) -> None:
        Path(path).write_bytes(b"half")
        raise raised

    monkeypatch.setattr(native, "save_file", interrupted)
    with pytest.raises(seen):
        write_native(tmp_path / "a.safetensors", STATE, config=Config(), upstream="Toy")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["gone/a.safetensors", "n" * 300, "."])
def test_a_path_that_cannot_be_written_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="could not be written"):
        write_native(tmp_path / name, STATE, config=Config(), upstream="Toy")
    assert os.listdir(tmp_path) == []


def test_a_long_name_is_written_where_the_file_system_takes_it(tmp_path: Path) -> None:
    write_native(tmp_path / ("n" * 250), STATE, config=Config(), upstream="Toy")
    assert os.listdir(tmp_path) == ["n" * 250]


class Bare(UpstreamBase):
    def __init__(self) -> None:
        super().__init__(layer_names=("x",), hidden_sizes=(1,), frame_stride=160, receptive_field=160)
        self.weight = torch.nn.Parameter(torch.zeros(1))


@pytest.mark.parametrize("config", [None, Config, {"dim": 4}])
def test_an_upstream_without_a_config_says_so(tmp_path: Path, config: Any) -> None:
    upstream = Bare()
    if config is not None:
        upstream.config = config
    with pytest.raises(OptionError, match=r"the config of Bare is .*which cannot be saved.*Set self\.config to a dataclass"):
        upstream.save_checkpoint(tmp_path / "a.safetensors")
    assert os.listdir(tmp_path) == []


def test_a_config_of_other_things_says_so(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"the config of Toy cannot be saved: Object of type complex"):
        write_native(tmp_path / "a.safetensors", STATE, config=Config(dim=1j), upstream="Toy")
