"""Configs, indices and records get the care of the checkpoint they stand beside: bounded, regular files, our errors."""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from hubcore.checkpoints.formats.plain import plain
from hubcore.checkpoints.formats.records import Opaque
from hubcore.checkpoints.formats.tensor_ref import StorageRef, TensorRef
from hubcore.checkpoints.layouts import open_checkpoint
from hubcore.checkpoints.runs import read_state
from hubcore.errors import CheckpointError, CheckpointLayoutError, UnsafeCheckpointError
from hubcore_wav2vec2 import Wav2Vec2Upstream
from tests.faults.fuzz_configs import run
from tests.gold import gold_file
from tests.paths import DATA

pytestmark = pytest.mark.slow

SECONDS, BYTES = 5.0, 200 << 20


@contextmanager
def cheap_and_ours(error: type[Exception] = CheckpointError) -> Iterator[None]:
    """What happens inside ends with one of our errors, soon and in little memory."""
    began = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(error):
            yield
        assert tracemalloc.get_traced_memory()[1] < BYTES
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < SECONDS


HOSTILE_VALUES: dict[str, dict[str, Any]] = {
    "blocks without end": {"num_layers": 10_000},
    "more blocks than there are": {"num_layers": 900},
    "a width beyond all memory": {"dim": 2**62},
    "an inner width beyond all memory": {"ffn_dim": 2**62},
    "widths whose product is": {"ffn_dim": 65536, "dim": 65536},
    "channels beyond all memory": {"conv_layers": [[2**31, 10, 5]]},
    "a hundred thousand convolutions": {"conv_layers": [[8, 3, 2]] * 100_000},
    "truth for a number": {"conv_layers": [[True, True, True]]},
    "a rate that no recording has": {"sample_rate": 30_000_000},
    "an epsilon below zero": {"normalize_eps": -1.0},
    "text for a number": {"num_layers": "four"},
    "nothing for a number": {"num_heads": None},
    "a list for a number": {"dim": [96]},
    "a number for a list": {"conv_layers": 7},
    "a field that no config has": {"extra": 1},
}


@pytest.mark.parametrize("values", HOSTILE_VALUES.values(), ids=HOSTILE_VALUES)
def test_a_config_in_our_own_file_is_bounded_before_anything_is_built(values: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    upstream = Wav2Vec2Upstream.from_checkpoint("wav2vec2_tiny_prompts")
    upstream.save_checkpoint(path)
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["hubcore"])
    about["config"].update(values)
    save_file(upstream.state_dict(), path, metadata={"hubcore": json.dumps(about)})
    with cheap_and_ours():
        Wav2Vec2Upstream.from_checkpoint(path)


FAIRSEQ_VALUES: dict[str, Any] = {
    "a product of products": {"conv_feature_layers": "[(1,1,1)]*64*64*64*64*20"},
    "a sum of sums": {"conv_feature_layers": "+".join(["[(1,1,1)]*64"] * 200)},
    "signs without end": {"conv_feature_layers": "-" * 9990 + "1"},
    "blocks without end": {"encoder_layers": 10**9},
    "a width as text": {"encoder_embed_dim": "1e9"},
    "infinity for a dropout": {"dropout": float("inf")},
}


@pytest.mark.parametrize("values", FAIRSEQ_VALUES.values(), ids=FAIRSEQ_VALUES)
def test_a_config_of_fairseq_is_bounded_while_it_is_read(values: dict[str, Any], tmp_path: Path) -> None:
    whole = torch.load(gold_file("fairseq_tiny_w2v2_groupnorm.pt"), weights_only=False)
    whole["cfg"]["model"].update(values)
    torch.save(whole, tmp_path / "model.pt")
    with cheap_and_ours():
        Wav2Vec2Upstream.from_checkpoint(tmp_path / "model.pt")


@pytest.mark.parametrize("wrong", ["text", [1, 2], 7, True, 0.5], ids=str)
@pytest.mark.parametrize("place", ["cfg", "cfg.model", "cfg.task", "model", "args"])
def test_a_part_of_another_type_is_a_layout_error(place: str, wrong: object, tmp_path: Path) -> None:
    whole = torch.load(gold_file("fairseq_tiny_w2v2_groupnorm.pt"), weights_only=False)
    if place == "args":
        del whole["cfg"]
    outer, _, inner = place.rpartition(".")
    (whole[outer] if outer else whole)[inner] = wrong
    torch.save(whole, tmp_path / "model.pt")
    if place == "cfg.task":  # the architecture is in cfg.model; what task would say is noted as missing
        assert any("normalised" in note for note in Wav2Vec2Upstream.from_checkpoint(tmp_path / "model.pt").load_report.notes)
        return
    with cheap_and_ours(CheckpointLayoutError):
        Wav2Vec2Upstream.from_checkpoint(tmp_path / "model.pt")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of transformers whose files a test then replaces."""
    made = tmp_path / "model"
    made.mkdir()
    for file in (DATA / "gold2/hf_hubert_base").iterdir():
        (made / file.name).write_bytes(file.read_bytes())
    return made


DEEP = "[" * 100_000 + "]" * 100_000
HOSTILE_JSON = {
    "deep": '{"a": ' + DEEP + "}",
    "large": '{"a": "' + "x" * (2 << 20) + '"}',
    "many lists": '{"a": [' + ",".join(["[]"] * 600_000) + "]}",
    "NaN": '{"hidden_size": NaN}',
    "infinity": '{"layer_norm_eps": 1e999}',
    "a key twice": '{"hidden_size": 32, "hidden_size": 33}',
    "no object": "[1]",
    "not text": "\udcff",
}


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("text", HOSTILE_JSON.values(), ids=HOSTILE_JSON)
def test_a_config_beside_the_weights_is_bounded(text: str, name: str, folder: Path) -> None:
    (folder / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    with cheap_and_ours():
        open_checkpoint(folder)


@pytest.mark.parametrize("target", ["/dev/zero", "/proc/self/mem", "pipe"])
def test_a_config_that_is_no_regular_file_is_refused_at_once(target: str, folder: Path) -> None:
    (folder / "config.json").unlink()
    if target == "pipe":
        os.mkfifo(folder / "config.json")
        (folder / "config.yaml").symlink_to(folder / "config.json")
        (folder / "preprocessor_config.json").unlink()
        (folder / "preprocessor_config.json").symlink_to("/dev/zero")
        return  # `is_file` says no: the folder has no config, and the pipe is never opened
    (folder / "config.json").symlink_to(target)
    if target == "/dev/zero":
        with open_checkpoint(folder) as checkpoint:  # a device is no file, so the folder has no config
            assert checkpoint.config == {}
        return
    with cheap_and_ours():
        open_checkpoint(folder)


@pytest.mark.parametrize("shard", ["", ".", "..", "../model.safetensors", "x" * 5000 + ".safetensors", "config.json", "inner"])
def test_an_index_names_weight_files_beside_it_and_nothing_else(shard: str, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "inner").mkdir()
    (folder / "inner" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": ".."}}))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with cheap_and_ours():
        open_checkpoint(folder)


def test_an_index_of_a_million_names_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    text = '{"weight_map": {' + ",".join(f'"a{k}": "b.safetensors"' for k in range(1_000_000)) + "}}"
    (folder / "model.safetensors.index.json").write_text(text)
    with cheap_and_ours():
        open_checkpoint(folder)


STATES = {
    "deep": '{"files": ' + DEEP + "}",
    "infinity": '{"files": {"model.safetensors": {"size": Infinity}}}',
    "a size beyond numbers": '{"files": {"model.safetensors": {"size": 1e400}}}',
    "an absolute path": '{"files": {"/dev/zero": {"size": 0, "sha256": ""}}}',
    "a path out of the folder": '{"files": {"../x": {"size": 0, "sha256": ""}}}',
    "large": '{"files": {}, "a": "' + "x" * (64 << 20) + '"}',
    "no object": "[]",
    "sizes that are no numbers": '{"files": {"model.safetensors": {"size": [1]}}}',
}


@pytest.mark.parametrize("text", STATES.values(), ids=STATES)
def test_the_state_of_a_run_is_bounded_and_names_its_own_files(text: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "state.json").write_text(text)
    with cheap_and_ours():
        read_state(tmp_path)


def test_paths_that_share_their_parts_are_charged_for() -> None:
    parts = tuple("x" * 50 for _ in range(500))
    tree = [Opaque("pathlib", "PosixPath", args=parts) for _ in range(500)]
    with cheap_and_ours(UnsafeCheckpointError):
        plain(tree)


@pytest.mark.slow
def test_random_changes_of_the_configs_of_every_layout_are_loaded_or_refused_by_our_errors() -> None:
    found = run(mutations=200, seed=7)
    assert found.wrong == [] and found.loaded > 20 and found.refused["CheckpointLayoutError"] > 20


GEOMETRIES = {
    "a zero hides sizes beyond memory": ((0, 2**47, 2**47), (1, 1, 1)),
    "a stride beyond memory at a size of one": ((1, 2), (2**63, 1)),
    "a size beyond memory beside a zero": ((0, 2**70), (1, 1)),
    "an offset's worth of digits": ((1,), (10**200,)),
}


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_every_size_and_stride_of_a_tensor_can_be_counted(geometry: tuple[Any, Any]) -> None:
    with pytest.raises(UnsafeCheckpointError):
        TensorRef(StorageRef("0", torch.float32, 4), 0, *geometry, torch.float32)
