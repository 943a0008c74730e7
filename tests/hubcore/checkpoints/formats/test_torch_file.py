"""Files of torch.save: what is read is bit for bit what torch reads, ties and strides included, and nothing more is read."""

from __future__ import annotations

import argparse
import collections
import os
import pickle
import threading
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hubcore.checkpoints.formats.file_bytes import CheckpointBytes
from hubcore.checkpoints.formats.pickle_reader import GlobalName, Opaque, StorageRef, TensorRef, read_pickle
from hubcore.checkpoints.formats.torch_file import TorchFile
from hubcore.errors import CheckpointError, UnsafeCheckpointError
from tests.hubcore.checkpoints import hostile_pieces as build

GOLD = Path(__file__).parents[3] / "data" / "gold"
FORMATS = [(protocol, zipped) for protocol in (2, 3, 4, 5) for zipped in (True, False)]
DTYPES = [
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.uint8, torch.bool, torch.complex64, torch.complex128, torch.uint16, torch.uint32, torch.uint64,
]  # fmt: skip


def save(value: object, path: Path, protocol: int = 2, zipped: bool = True) -> Path:
    torch.save(value, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    return path


def loaded(file: TorchFile, node: Any) -> Any:
    """The node with every tensor read, all at once."""
    refs: dict[str, TensorRef] = {}

    def collect(value: Any) -> Any:
        if isinstance(value, TensorRef):
            refs[str(len(refs))] = value
            return len(refs) - 1, "a tensor"
        if isinstance(value, dict):
            return {key: collect(item) for key, item in value.items()}
        return type(value)(collect(item) for item in value) if isinstance(value, (list, tuple)) else value

    shape = collect(node)
    tensors = file.read_many(refs)

    def place(value: Any) -> Any:
        if isinstance(value, tuple) and value[1:] == ("a tensor",):
            return tensors[str(value[0])]
        if isinstance(value, dict):
            return {key: place(item) for key, item in value.items()}
        return type(value)(place(item) for item in value) if isinstance(value, (list, tuple)) else value

    return place(shape)


def assert_same(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, torch.Tensor):
        assert isinstance(ours, torch.Tensor)
        assert (ours.dtype, ours.shape, ours.stride()) == (theirs.dtype, theirs.shape, theirs.stride())
        assert (
            ours.numpy().tobytes() == theirs.detach().numpy().tobytes()
            if theirs.dtype != torch.bfloat16
            else ours.equal(theirs)
        )
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            assert_same(ours[key], theirs[key])
    elif isinstance(theirs, (list, tuple)):
        assert type(ours) in (list, tuple) and len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    else:
        assert type(ours) is type(theirs)
        assert ours == theirs


def a_bit_of_everything() -> dict[str, Any]:
    torch.manual_seed(0)
    base = torch.randn(6, 5)
    state: collections.OrderedDict[str, torch.Tensor] = collections.OrderedDict()
    state["a"] = base
    state["tied"] = base
    state["transposed"] = base.t()
    state["row"] = base[2]
    state["steps"] = base[::2, 1::2]
    state["scalar"] = torch.tensor(3.5)
    state["empty"] = torch.empty(0, 4)
    state["parameter"] = torch.nn.Parameter(torch.randn(3))
    state["nan"] = torch.tensor([float("nan"), float("inf"), -0.0])
    state._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    counts: collections.defaultdict[int, Any] = collections.defaultdict(dict)
    counts[3] = {"step": 7}
    return {
        "model": state,
        "state": {0: {"exp_avg": torch.ones(2)}, 140233000111222: {"step": 1}},
        "counts": counts,
        "plain": [
            None,
            True,
            False,
            0,
            -1,
            255,
            256,
            65536,
            2**31,
            -(2**40),
            2**70,
            0.1,
            "é\n",
            b"\x00\xff",
            b"",
            (),
            (1,),
            (1, 2, 3, 4),
        ],
        "long": list(range(3000)),
        "size": torch.Size((2, 3)),
    }


@pytest.mark.parametrize(("protocol", "zipped"), FORMATS)
def test_everything_is_what_torch_reads(tmp_path: Path, protocol: int, zipped: bool) -> None:
    saved = a_bit_of_everything()
    path = save(saved, tmp_path / "all.pt", protocol, zipped)
    theirs = torch.load(path, weights_only=False)
    with TorchFile(path) as file:
        ours = loaded(file, file.tree)
    theirs["size"] = tuple(theirs["size"])
    assert_same(ours, theirs)
    model = ours["model"]
    assert model["a"].data_ptr() == model["tied"].data_ptr() == model["transposed"].data_ptr()
    assert model["row"].data_ptr() == model["a"][2].data_ptr()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_type_of_number(tmp_path: Path, dtype: torch.dtype, zipped: bool) -> None:
    values = torch.tensor([[0, 1, 1], [0, 0, 1]]).to(dtype)
    path = save([values, values[1:]], tmp_path / "type.pt", zipped=zipped)
    with TorchFile(path) as file:
        assert_same(loaded(file, file.tree), [values, values[1:]])


def test_floats_are_converted_on_demand_and_stay_tied(tmp_path: Path) -> None:
    half = torch.randn(4, 4).half()
    path = save({"a": half, "b": half.t(), "count": torch.tensor(3), "wide": torch.randn(2).double()}, tmp_path / "half.pt")
    with TorchFile(path) as file:
        read = file.read_many(file.tree, dtype=torch.float32)
        with pytest.raises(CheckpointError, match="floating-point"):
            file.read(file.tree["a"], dtype=torch.int32)
    assert {name: tensor.dtype for name, tensor in read.items()} == {
        "a": torch.float32, "b": torch.float32, "count": torch.int64, "wide": torch.float32
    }  # fmt: skip
    assert torch.equal(read["a"], half.float()) and read["b"].stride() == (1, 4)
    assert read["a"].data_ptr() == read["b"].data_ptr()


@pytest.mark.skipif(not hasattr(torch.serialization, "set_crc32_options"), reason="this torch always writes checksums")
def test_saved_without_checksums(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        path = save({"a": torch.arange(10)}, tmp_path / "plain.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert {record.CRC for record in zipfile.ZipFile(path).infolist()} == {0}
    with TorchFile(path) as file:
        assert file.read(file.tree["a"]).tolist() == list(range(10))


def test_repacked_by_another_program(tmp_path: Path) -> None:
    path = save({"a": torch.arange(10)}, tmp_path / "one.pt")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(tmp_path / "two.pt", "w") as target:
        for record in source.infolist():
            target.writestr(record.filename, source.read(record))
    with TorchFile(tmp_path / "two.pt") as file:
        assert file.read(file.tree["a"]).tolist() == list(range(10))


@pytest.mark.parametrize("zipped", [True, False])
def test_only_what_is_asked_for_is_read(tmp_path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = {"model": {"w": torch.randn(1000, 100)}, "optimizer": [torch.randn(1000, 1000), torch.randn(1000, 1000)]}
    path = save(saved, tmp_path / "big.pt", zipped=zipped)
    read = 0
    original = CheckpointBytes.read_into

    def counted(self: CheckpointBytes, target: memoryview, offset: int) -> None:
        nonlocal read
        read += len(target)
        original(self, target, offset)

    monkeypatch.setattr(CheckpointBytes, "read_into", counted)
    with TorchFile(path) as file:
        assert read < (10_000 if zipped else 1_100_000)
        read = 0
        weight = file.read(file.tree["model"]["w"])
    assert 400_000 <= read <= 401_000
    assert torch.equal(weight, saved["model"]["w"])  # type: ignore[call-overload]


def test_a_small_slice_does_not_keep_its_storage(tmp_path: Path) -> None:
    base = torch.randn(1000, 100)
    path = save({"first": base[0], "last": base[-1], "again": base[0]}, tmp_path / "slices.pt")
    with TorchFile(path) as file:
        one = file.read(file.tree["last"])
        both = file.read_many(file.tree)
    assert one.untyped_storage().nbytes() == 400
    assert torch.equal(one, base[-1])
    assert sum(tensor.untyped_storage().nbytes() for tensor in both.values()) <= 1200
    assert torch.equal(both["first"], base[0]) and both["first"].data_ptr() == both["again"].data_ptr()


def test_memory_is_its_own(tmp_path: Path) -> None:
    path = save({"a": torch.zeros(5)}, tmp_path / "own.pt")
    with TorchFile(path) as file:
        first, second = file.read(file.tree["a"]), file.read(file.tree["a"])
    first += 1
    assert second.tolist() == [0] * 5
    assert first.tolist() == [1] * 5
    first.resize_(2)


@pytest.mark.parametrize("where", [0, 1, -1])
def test_a_flipped_bit_is_found(tmp_path: Path, where: int) -> None:
    path = save({"a": torch.zeros(300_000)}, tmp_path / "flip.pt")
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        record = archive.getinfo("flip/data/0")
    start = data.index(bytes(1000), record.header_offset)
    data[start + where * 599_999 if where >= 0 else start + 1_199_000] ^= 1
    path.write_bytes(data)
    with TorchFile(path) as file, pytest.raises(CheckpointError, match=r"flip\.pt.*CRC-32.*Fetch it again"):
        file.read(file.tree["a"])


def test_a_slice_of_a_damaged_storage_is_refused(tmp_path: Path) -> None:
    base = torch.arange(1000)
    path = save({"middle": base[400:500]}, tmp_path / "flip.pt")
    data = bytearray(path.read_bytes())
    data[data.index(base.numpy().tobytes()) + 10] ^= 1
    path.write_bytes(data)
    with TorchFile(path) as file, pytest.raises(CheckpointError, match="CRC-32"):
        file.read(file.tree["middle"])


def test_unknown_classes_are_records(tmp_path: Path) -> None:
    path = save({"args": argparse.Namespace(lr=0.5), "type": dict, "names": {"b", "a"}}, tmp_path / "args.pt")
    with TorchFile(path) as file:
        args = file.tree["args"]
        assert isinstance(args, Opaque) and args.dotted == "argparse.Namespace" and args.state == {"lr": 0.5}
        assert repr(args) == "<record of argparse.Namespace>"
        assert file.tree["type"] == GlobalName("__builtin__", "dict")
        assert sorted(file.tree["names"].args[0]) == ["a", "b"]
        assert not callable(args) and not callable(file.tree["type"])


class _Stubs(pickle.Unpickler):
    """The oracle for files that name classes of packages that are not installed here."""

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] in ("fairseq", "omegaconf"):
            return type(name, (), {"__module__": module})
        return super().find_class(module, name)


@pytest.mark.parametrize("path", sorted(GOLD.glob("*.pt")), ids=lambda path: path.stem)
def test_published_layouts(path: Path) -> None:
    module = types.SimpleNamespace(Unpickler=_Stubs, load=pickle.load, __name__="stubs")
    theirs = torch.load(path, weights_only=False, pickle_module=module)
    compared = 0
    with TorchFile(path) as file:
        for key, value in theirs.items():
            if key in ("model", "model_weight", "last_optimizer_state", "optimizer_history", "extra_state"):
                assert_same(loaded(file, file.tree[key]), value)
                compared += 1
        assert list(file.tree) == list(theirs)
    assert compared >= 1


def test_the_gold_files_are_here() -> None:
    assert len(sorted(GOLD.glob("*.pt"))) >= 8


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<html>Sign in</html>", "HTML page.*Fetch it again"),
        (b"version https://git-lfs.github.com/spec/v1\n", r"git-lfs pointer.*run `git lfs pull`\."),
        (b"/annex/objects/SHA256E-s3--00.pt\n", "git-annex pointer.*git annex get"),
        (b"", "empty.*Fetch it again"),
        (b"\x1f\x8b\x08\x00", "gzip.*gunzip"),
        (b"\x10\0\0\0\0\0\0\0{}", "safetensors.*Fetch it again"),
        (b"PK\x03\x04", "zip archive.*Fetch it again"),
    ],
)
def test_the_reason_is_said(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"file\.pt.*{reason}"):
        TorchFile(tmp_path / "file.pt")


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: os.mkfifo(path)])
def test_paths_that_are_no_files(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "odd.pt")
    answers: list[BaseException] = []

    def attempt() -> None:
        try:
            TorchFile(tmp_path / "odd.pt")
        except CheckpointError as error:
            answers.append(error)

    # In a thread, because opening a pipe the wrong way never returns.
    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(5)
    assert len(answers) == 1 and "odd.pt" in str(answers[0])


def test_a_path_with_a_nul() -> None:
    with pytest.raises(CheckpointError, match="cannot be opened"):
        TorchFile("a\0b.pt")


def test_cut_short_while_open(tmp_path: Path) -> None:
    path = save({"a": torch.zeros(100_000)}, tmp_path / "cut.pt")
    with TorchFile(path) as file:
        os.truncate(path, 10_000)
        with pytest.raises(CheckpointError, match="cut short"):
            file.read(file.tree["a"])


def test_replaced_while_open(tmp_path: Path) -> None:
    path = save({"a": torch.zeros(3)}, tmp_path / "file.pt")
    with TorchFile(path) as file:
        os.replace(save({"a": torch.ones(3)}, tmp_path / "other.pt"), path)
        assert file.read(file.tree["a"]).tolist() == [0, 0, 0]


def test_closed(tmp_path: Path) -> None:
    file = TorchFile(save({"a": torch.zeros(3)}, tmp_path / "file.pt"))
    file.close()
    with pytest.raises(CheckpointError, match="Keep the file open"):
        file.read(file.tree["a"])


def test_references_of_another_file(tmp_path: Path) -> None:
    with TorchFile(save({"a": torch.zeros(3)}, tmp_path / "file.pt")) as file:
        with pytest.raises(CheckpointError, match="not one of this file's"):
            file.read(TensorRef(StorageRef("7", torch.float32, 3), 0, (3,), (1,), torch.float32))
        with pytest.raises(CheckpointError, match="not one of this file's"):
            file.read(TensorRef(StorageRef("0", torch.float32, 9), 0, (9,), (1,), torch.float32))


def test_a_window_beyond_its_storage_cannot_be_made() -> None:
    storage = StorageRef("0", torch.float32, 6)
    assert TensorRef(storage, 1, (2, 2), (3, 1), torch.float32).end == 6
    for offset, shape, stride in ((2, (2, 2), (3, 1)), (0, (7,), (0,)), (-1, (1,), (1,)), (0, (2,), (-1,)), (0, (2, 3), (1,))):
        with pytest.raises(UnsafeCheckpointError):
            TensorRef(storage, offset, shape, stride, torch.float32)


def test_legacy_structures_larger_than_the_first_look(tmp_path: Path) -> None:
    saved = {"words": [f"word {k} " + "x" * 100 for k in range(12_000)], "a": torch.arange(3)}
    with TorchFile(save(saved, tmp_path / "long.pt", zipped=False)) as file:
        assert file.tree["words"] == saved["words"]
        assert file.read(file.tree["a"]).tolist() == [0, 1, 2]


def test_a_lone_pickle() -> None:
    def no_ids(pid: object) -> object:
        raise AssertionError(pid)

    value = {"a": [1, (2.5, None)], "b": b"x"}
    for protocol in (2, 3, 4, 5):
        assert read_pickle(memoryview(pickle.dumps(value, protocol)), persistent_load=no_ids) == value
    with pytest.raises(UnsafeCheckpointError, match="follow the end"):
        read_pickle(pickle.dumps(value, 2) + b"\0", persistent_load=no_ids)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"]q\x00h\x00a", "contains itself"),
        (b"]q\x00h\x00\x85a", "contains itself"),
        (b"]" * 150 + b"a" * 149, "nested more than 100 deep"),
        (
            b"]q\x00"
            + b"0"
            + b"".join(b"(" + bytes([104, k]) * 10 + b"tq" + bytes([k + 1]) + b"0" for k in range(8))
            + b"h\x08",
            "unfolds",
        ),
        (b"N" + b"\x85" * 90 + b"q\x00" + b"\x85" * 5 + b"0](h\x00h\x00e" + b"\x85" * 20, "deep"),
        (b"(" * 1_001 + b"N", "nested more than 1000 deep"),
        (b"X\x00\x00\x10\x01" + b"a" * (17 << 20), "a text of"),
    ],
)
def test_limits_are_named(body: bytes, reason: str) -> None:
    with pytest.raises(UnsafeCheckpointError, match=reason):
        read_pickle(b"\x80\x02" + body + b".", persistent_load=lambda pid: pid)


def test_a_lone_pickle_has_a_limit_too() -> None:
    with pytest.raises(UnsafeCheckpointError, match="more than 33554432 bytes"):
        read_pickle(b"\x80\x02N" + b"0N" * (16 << 20) + b".", persistent_load=lambda pid: pid)


def test_sharing_is_not_nesting() -> None:
    shared = [1, 2]
    value = {"a": shared, "b": (shared, [shared] * 1000), "c": {"d": shared}}
    assert read_pickle(pickle.dumps(value, 2), persistent_load=lambda pid: pid) == value


def test_messages_have_three_beats(tmp_path: Path) -> None:
    (tmp_path / "evil.pt").write_bytes(build.zipped(build.entry(build.tensor(None, 0, (9,), (1,)))))
    with pytest.raises(UnsafeCheckpointError) as caught:
        TorchFile(tmp_path / "evil.pt")
    message = str(caught.value)
    assert "evil.pt" in message and "leaves its storage" in message
    assert "plain data" in message and "safetensors copy" in message
