"""Checkpoints are whole or not there: full disks, damage, what is kept, and what a half-written one does to nobody."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hubcore.checkpoints import open_checkpoint
from hubcore.checkpoints.runs import newest_model, read_state, run_card, run_checkpoints
from hubcore.errors import CheckpointError, RegistryError
from hubcore.pretrain import pretrain, read_recipe
from hubcore.pretrain.checkpoints import (
    Found,
    newest_checkpoint,
    optimizer_tensors,
    prune,
    restore,
    sweep,
    write_checkpoint,
)
from hubcore.pretrain.metrics import read_rows
from tests.hubcore.pretrain.conftest import Lab
from tests.hubcore.pretrain.toy_objective import SMALL


def write(run: Path, update: int, value: float = 0.0) -> Path:
    model = {"model.weight": torch.full((3,), value)}
    moments = {"model.weight/exp_avg": torch.zeros(3)}
    return write_checkpoint(run, update, model=model, config=SMALL, upstream="Toy", optimizer=moments, state={"epoch": 0})


def updates(run: Path) -> list[int]:
    return [update for update, _ in run_checkpoints(run)]


def test_a_checkpoint_has_three_files_and_no_pickle(tmp_path: Path) -> None:
    path = write(tmp_path, 7)
    assert sorted(file.name for file in path.iterdir()) == ["model.safetensors", "optimizer.safetensors", "state.json"]
    assert read_state(path)["update"] == 7
    assert not [*tmp_path.rglob(".*")]
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.layout == "hubcore safetensors" and list(checkpoint.tensors) == ["model.weight"]


@pytest.mark.parametrize(
    ("last", "every", "kept"),
    [(3, 0, [7, 8, 9]), (1, 0, [9]), (1, 4, [4, 8, 9]), (20, 0, [1, 2, 3, 4, 5, 6, 7, 8, 9])],
)
def test_the_newest_and_the_multiples_are_kept(tmp_path: Path, last: int, every: int, kept: list[int]) -> None:
    for update in range(1, 10):
        write(tmp_path, update)
    deleted = prune(tmp_path, keep_last=last, keep_every=every)
    assert updates(tmp_path) == kept and len(deleted) == 9 - len(kept)


def test_a_damaged_one_is_no_reason_to_delete_a_whole_one(tmp_path: Path) -> None:
    for update in (1, 2, 3):
        write(tmp_path, update)
    (tmp_path / "checkpoints/update_00000003/state.json").write_text("{")
    prune(tmp_path, keep_last=1, keep_every=0)
    assert updates(tmp_path) == [2, 3]


def spoil_state(path: Path) -> None:
    (path / "state.json").write_text("{")


def cut(path: Path) -> None:
    with open(path / "model.safetensors", "r+b") as file:
        file.truncate(40)


def flip(path: Path) -> None:
    data = bytearray((path / "optimizer.safetensors").read_bytes())
    data[-1] ^= 1
    (path / "optimizer.safetensors").write_bytes(data)


def remove(path: Path) -> None:
    (path / "model.safetensors").unlink()


def no_sizes(path: Path) -> None:
    (path / "state.json").write_text('{"files": 3}')


def another_version(path: Path) -> None:
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**state, "format": 99}))


@pytest.mark.parametrize("damage", [spoil_state, cut, flip, remove, no_sizes, another_version])
def test_the_one_before_a_damaged_one_is_taken(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, 1)
    damage(write(tmp_path, 2))
    found = newest_checkpoint(tmp_path)
    assert found is not None and found.update == 1
    assert "update_00000002" in caplog.text and "The checkpoint before it is taken." in caplog.text
    shutil.rmtree(tmp_path / "checkpoints/update_00000001")
    with pytest.raises(CheckpointError, match=r"no checkpoint of .* is whole; it has 1\."):
        newest_checkpoint(tmp_path)


def test_loading_a_run_steps_over_what_is_not_whole(tmp_path: Path) -> None:
    first = write(tmp_path, 1, 1.0)
    cut(write(tmp_path, 2, 2.0))
    assert newest_model(tmp_path) == first / "model.safetensors"
    shutil.rmtree(first)
    with pytest.raises(CheckpointError, match=r"is a run without a whole checkpoint: .*update_00000002.* were written"):
        open_checkpoint(tmp_path)
    assert newest_model(tmp_path / "checkpoints") is None


def test_a_damaged_one_makes_way_when_its_update_comes_again(tmp_path: Path) -> None:
    flip(write(tmp_path, 1, 1.0))
    path = write(tmp_path, 1, 2.0)
    found = newest_checkpoint(tmp_path)
    assert found is not None and found.path == path and not [*(tmp_path / "checkpoints").glob(".*")]


@pytest.mark.parametrize("call", range(1, 12))
def test_a_full_disk_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """The disk is full from the `call`-th call of fsync or rename on."""
    write(tmp_path, 1, 1.0)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    left = [call]

    def full(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] <= 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return function(*args, **kwargs)

        return run

    with monkeypatch.context() as patch:
        for name in ("fsync", "rename", "replace"):
            patch.setattr(os, name, full(getattr(os, name)))
        try:
            write(tmp_path, 2, 2.0)
            assert left[0] > 0
        except CheckpointError as error:
            assert left[0] <= 0
            assert "update 2 could not be written" in str(error) and "No space left on device" in str(error)
            assert "it resumes" in str(error)
    assert {path: path.read_bytes() for path in before} == before
    assert not [*(tmp_path / "checkpoints").glob(".*")], "a failed one leaves nothing half"
    found = newest_checkpoint(tmp_path)
    assert found is not None and found.update in (1, 2)


@pytest.mark.slow
def test_a_run_on_a_full_disk_stops_and_goes_on_later(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = read_recipe(str(lab.recipe()))
    pretrain(recipe, lab.folder / "undisturbed")
    real = os.replace

    def full(source: Path, target: Path) -> None:
        if "update_00000008" in str(target):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        outcome = pretrain(recipe, lab.folder / "run")
    assert (outcome.status, outcome.update) == ("stopped", 8)
    assert "could not be written" in outcome.message and "No space left on device" in outcome.message
    assert updates(lab.folder / "run") == [4]
    assert pretrain(recipe, lab.folder / "run").status == "finished"
    same = [(lab.folder / name / "metrics.jsonl").read_bytes() for name in ("undisturbed", "run")]
    assert same[0] == same[1]


@pytest.mark.slow
def test_metrics_that_are_shorter_than_the_checkpoint_knows_are_an_error(lab: Lab) -> None:
    recipe = read_recipe(str(lab.recipe()))
    pretrain(recipe, lab.folder / "run")
    (lab.folder / "run/metrics.jsonl").write_text("")
    with pytest.raises(CheckpointError, match="fewer than the"):
        pretrain(recipe, lab.folder / "run")


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_of_a_run_is_made_again(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    recipe = read_recipe(str(lab.recipe()))
    pretrain(recipe, lab.folder / "run")
    wanted = (lab.folder / "run/metrics.jsonl").read_bytes()
    flip(lab.folder / "run/checkpoints/update_00000012")
    assert pretrain(recipe, lab.folder / "run").status == "finished"
    assert "is damaged" in caplog.text
    assert (lab.folder / "run/metrics.jsonl").read_bytes() == wanted
    found = newest_checkpoint(lab.folder / "run")
    assert found is not None and found.update == 12
    assert len(read_rows(lab.folder / "run/timing.jsonl")) == wanted.count(b"\n")


def test_what_the_killed_left_is_swept(tmp_path: Path) -> None:
    write(tmp_path, 1)
    for name in (".update_00000002.ab.part", ".update_00000000.cd.old"):
        (tmp_path / "checkpoints" / name).mkdir()
    assert updates(tmp_path) == [1]
    sweep(tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["update_00000001"]


def test_an_optimizer_comes_back_bit_for_bit(tmp_path: Path) -> None:
    def made() -> tuple[nn.Module, torch.optim.Optimizer, dict[torch.Tensor, str]]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        return model, optimizer, {parameter: name for name, parameter in model.named_parameters()}

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()

    model, optimizer, names = made()
    step(model, optimizer)
    moments = optimizer_tensors(optimizer, names)
    assert sorted(moments)[:3] == ["0.bias/exp_avg", "0.bias/exp_avg_sq", "0.bias/step"]
    path = write_checkpoint(tmp_path, 1, model=model.state_dict(), config=SMALL, upstream="X", optimizer=moments, state={})
    other, another, other_names = made()
    restore(Found(path, 1, read_state(path)), other, another, other_names)
    for _ in range(3):
        step(model, optimizer)
        step(other, another)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    with pytest.raises(CheckpointError, match="does not fit this model"):
        restore(Found(path, 1, read_state(path)), nn.Linear(1, 1), another, other_names)


def test_a_run_without_a_proper_card_says_so(tmp_path: Path) -> None:
    write(tmp_path, 1)
    assert run_card(tmp_path) is None
    (tmp_path / "card.yaml").write_text("version: 1\nupstreams: {}\n")
    with pytest.raises(RegistryError, match="has 0 cards"):
        run_card(tmp_path)
