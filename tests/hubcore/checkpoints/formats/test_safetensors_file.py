"""Safetensors files: what the format's own reader reads, and a header that is checked further than it does."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hubcore.checkpoints.formats.safetensors_file import SafetensorsFile
from hubcore.checkpoints.formats.tensor_ref import StorageRef, TensorRef
from hubcore.checkpoints.layouts import open_checkpoint
from hubcore.errors import CheckpointError, UnsafeCheckpointError
from tests.hubcore.checkpoints.hostile_pieces import safetensors_bytes

DTYPES = [
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool, torch.complex64,
]  # fmt: skip


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    made = {f"type.{dtype}": torch.tensor([[0, 1, 1], [1, 0, 0]]).to(dtype) for dtype in DTYPES}
    return made | {"scalar": torch.tensor(2.5), "empty": torch.empty(0, 3), "large": torch.randn(300, 400)}


def test_everything_is_what_safetensors_reads(tmp_path: Path) -> None:
    path = tmp_path / "all.safetensors"
    save_file(weights(), path, {"config": '{"a": 1}'})
    theirs = load_file(path)
    with SafetensorsFile(path) as file:
        ours = file.read_many(file.refs)
        assert file.metadata == {"config": '{"a": 1}'}
        assert set(file.names) == set(theirs)
        one = file.read(file.refs["large"])
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype and ours[name].shape == tensor.shape
        assert torch.equal(ours[name].view(torch.uint8), tensor.view(torch.uint8)) if tensor.dim() else ours[name] == tensor
    assert torch.equal(one, theirs["large"])


def test_floats_are_converted_on_demand(tmp_path: Path) -> None:
    save_file({"half": torch.ones(3).half(), "count": torch.tensor([1])}, tmp_path / "a.safetensors")
    with SafetensorsFile(tmp_path / "a.safetensors") as file:
        read = file.read_many(file.refs, dtype=torch.float32)
    assert (read["half"].dtype, read["count"].dtype) == (torch.float32, torch.int64)


def test_no_metadata_and_no_tensors(tmp_path: Path) -> None:
    (tmp_path / "none.safetensors").write_bytes(safetensors_bytes({}, b""))
    with SafetensorsFile(tmp_path / "none.safetensors") as file:
        assert (file.names, file.metadata, file.read_many({})) == ((), {}, {})


def test_references_of_another_file(tmp_path: Path) -> None:
    save_file({"a": torch.ones(3)}, tmp_path / "a.safetensors")
    with SafetensorsFile(tmp_path / "a.safetensors") as file, pytest.raises(CheckpointError, match="not one of this file's"):
        file.read(TensorRef(StorageRef("b", torch.float32, 3), 0, (3,), (1,), torch.float32))
    with SafetensorsFile(tmp_path / "a.safetensors") as file, pytest.raises(CheckpointError, match="not one of this file's"):
        file.read(TensorRef(StorageRef("a", torch.float32, 9), 0, (9,), (1,), torch.float32))


def test_closed(tmp_path: Path) -> None:
    save_file({"a": torch.ones(3)}, tmp_path / "a.safetensors")
    file = SafetensorsFile(tmp_path / "a.safetensors")
    file.close()
    with pytest.raises(CheckpointError, match="Keep the file open"):
        file.read(file.refs["a"])


def entry(dtype: object = "F32", shape: object = (2, 3), offsets: object = (0, 24)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


GOOD = {"a": entry()}
BAD_HEADERS: dict[str, object] = {
    "duplicate name": b'{"a": %s, "a": %s}' % ((json.dumps(entry()).encode(),) * 2),
    "duplicate field": b'{"a": {"dtype": "F32", "dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}',
    "empty name": {"": entry()},
    "parent in name": {"../../etc/x": entry()},
    "parent inside name": {"a/../x": entry()},
    "backslashed parent": {"a\\..\\x": entry()},
    "absolute name": {"/etc/x": entry()},
    "drive in name": {"C:x": entry()},
    "control character in name": {"a\u0000b": entry()},
    "newline in name": {"a\nb": entry()},
    "surrogate in name": b'{"\\ud800": %s}' % json.dumps(entry()).encode(),
    "long name": {"a" * 2000: entry()},
    "unknown type": {"a": entry("F128")},
    "type is a number": {"a": entry(7)},
    "8-bit float": {"a": entry("F8_E4M3", [24])},
    "negative size": {"a": entry(shape=[-2, -3])},
    "fractional size": {"a": entry(shape=[2.0, 3])},
    "size is true": {"a": entry(shape=[True, 6])},
    "size is text": {"a": entry(shape=["2", 3])},
    "shape is a number": {"a": entry(shape=6)},
    "huge size": {"a": entry(shape=[1 << 62, 1 << 62])},
    "product overflows to the right size": {"a": entry(shape=[1 << 32, 1 << 32, 6])},
    "rank 100000": {"a": entry(shape=[1] * 100_000)},
    "too few elements": {"a": entry(shape=[5])},
    "too many elements": {"a": entry(shape=[7])},
    "offsets swapped": {"a": entry(offsets=[24, 0])},
    "negative offset": {"a": entry(offsets=[-1, 23])},
    "three offsets": {"a": entry(offsets=[0, 24, 24])},
    "one offset": {"a": entry(offsets=[0])},
    "offset is null": {"a": entry(offsets=[None, 24])},
    "offsets beyond the file": {"a": entry(shape=[2, 6], offsets=[0, 48])},
    "hole at the start": {"a": entry(shape=[5], offsets=[4, 24])},
    "hole at the end": {"a": entry(shape=[5], offsets=[0, 20])},
    "hole in the middle": {"a": entry(shape=[2], offsets=[0, 8]), "b": entry(shape=[3], offsets=[12, 24])},
    "overlap": {"a": entry(shape=[4], offsets=[0, 16]), "b": entry(shape=[4], offsets=[8, 24])},
    "same bytes twice": {"a": entry(), "b": entry()},
    "inside an element": {"a": entry(shape=[6], offsets=[0, 23])},
    "missing field": {"a": {"dtype": "F32", "shape": [2, 3]}},
    "extra field": {"a": entry() | {"more": 1}},
    "entry is a list": {"a": [1]},
    "entry is null": {"a": None},
    "metadata is a number": GOOD | {"__metadata__": 7},
    "metadata is nested": GOOD | {"__metadata__": {"a": {"b": "c"}}},
    "header is a list": b"[]",
    "header is a number": b"7",
    "header is empty": b"",
    "not JSON": b"{nothing}",
    "not UTF-8": b'{"\xff": 1}',
    "leading space": b" " + json.dumps(GOOD).encode(),
    "not a number": b'{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 24]}}',
    "infinite": b'{"a": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, 24]}}',
    "number of 5000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "deep dicts": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
}
BAD_FILES = {
    "empty": b"",
    "seven bytes": bytes(7),
    "only a length": struct.pack("<Q", 2),
    "length of 2 to 63": safetensors_bytes(GOOD, length=1 << 63),
    "length of 99 MB": safetensors_bytes(GOOD, length=99_000_000),
    "length beyond the file": safetensors_bytes(GOOD, length=10_000),
    "length too short": safetensors_bytes(GOOD, length=20),
    "length zero": safetensors_bytes(GOOD, length=0),
    "trailing byte": safetensors_bytes(GOOD, bytes(25)),
    "one byte missing": safetensors_bytes(GOOD, bytes(23)),
    "no data": safetensors_bytes(GOOD, b""),
    "a zip archive": b"PK\x03\x04" + bytes(100),
    "a web page": b"<!doctype html><html></html>",
}


def test_the_header_that_the_bad_ones_are_made_from_is_read(tmp_path: Path) -> None:
    path = tmp_path / "good.safetensors"
    path.write_bytes(safetensors_bytes(GOOD))
    with SafetensorsFile(path) as file:
        assert file.read(file.refs["a"]).tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("label", BAD_HEADERS)
def test_bad_headers_are_refused(tmp_path: Path, label: str) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(safetensors_bytes(BAD_HEADERS[label]))
    with pytest.raises(CheckpointError, match=r"bad\.safetensors"):
        SafetensorsFile(path)


def test_a_git_lfs_pointer_is_named_with_the_command_that_fetches_the_file(tmp_path: Path) -> None:
    for name in ("model.safetensors", "model.bin", "config.json"):
        (tmp_path / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
        with pytest.raises(CheckpointError, match=rf"{name}.* is a git-lfs pointer\. .*run `git lfs pull`\.$"):
            open_checkpoint(tmp_path / name if name != "config.json" else tmp_path)
        (tmp_path / "model.bin").write_bytes(b"")
        (tmp_path / "model.safetensors").write_bytes(safetensors_bytes(GOOD))


@pytest.mark.parametrize("label", BAD_FILES)
def test_bad_files_are_refused(tmp_path: Path, label: str) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(BAD_FILES[label])
    with pytest.raises(CheckpointError, match=r"bad\.safetensors"):
        SafetensorsFile(path)


def test_booleans_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "bool.safetensors"
    path.write_bytes(safetensors_bytes({"a": entry("BOOL", [4], [0, 4])}, b"\0\1\2\1"))
    with SafetensorsFile(path) as file, pytest.raises(CheckpointError, match="neither 0 nor 1"):
        file.read(file.refs["a"])


def test_contradictions_are_called_unsafe(tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(safetensors_bytes(BAD_HEADERS["duplicate name"]))
    with pytest.raises(UnsafeCheckpointError, match="same name twice"):
        SafetensorsFile(path)
