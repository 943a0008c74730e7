"""Hostile and damaged files: nothing in them runs, and they cost next to nothing to refuse."""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hubcore.checkpoints.formats.pickle_reader import TensorRef
from hubcore.checkpoints.formats.plain import plain
from hubcore.checkpoints.formats.safetensors_file import SafetensorsFile
from hubcore.checkpoints.formats.torch_file import TorchFile
from hubcore.errors import CheckpointError, UnsafeCheckpointError
from tests.hubcore.checkpoints import hostile_pieces as build
from tests.hubcore.checkpoints.hostile_files import contents, hostile_files

NAMES = [name for name, _ in contents(Path("unused"))]
SECONDS = 1.5  # of processor time, twice what the slowest file takes with the watch on
MUTATIONS = int(os.environ.get("HUBCORE_FUZZ_MUTATIONS", "1000"))

# What the interpreter may do while a checkpoint is read; an import or a started process is not among it.
HARMLESS_EVENTS = frozenset(("builtins.id", "object.__getattr__", "sys._getframe"))
_watched: list[tuple[str, tuple[object, ...]]] | None = None


def _watch(event: str, args: tuple[object, ...]) -> None:
    if _watched is not None and event not in HARMLESS_EVENTS:
        _watched.append((event, args))


@pytest.fixture(scope="module", autouse=True)
def _audit_hook() -> None:
    # A hook cannot be taken out again; outside the tests of this module it returns at once.
    sys.addaudithook(_watch)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return dict(hostile_files(tmp_path_factory.mktemp("hostile")))


def references(node: object) -> Iterator[TensorRef]:
    if isinstance(node, TensorRef):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from references(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from references(value)


def is_inert(name: str) -> bool:
    # A record that leads back to itself, or a long chain of them, can be opened, but is no configuration.
    return name.startswith("inert-") and name not in ("inert-cycle-record", "inert-deep-records", "inert-deep-states")


def use(path: Path) -> None:
    """Everything a caller does with a file: open it, read its tensors, turn it into plain values, print it."""
    with TorchFile(path) as file:
        for ref in references(file.tree):
            tensor = file.read(ref)
            tensor.flatten()[-1:].tolist()
        str(file.tree)
        plain(file.tree)


def test_there_are_many_distinct_files(files: dict[str, Path]) -> None:
    assert len(files) == len(NAMES) == len(set(NAMES)) >= 300
    assert len({path.read_bytes() for path in files.values()}) == len(files)


def test_the_honest_files_that_the_others_are_made_from_are_read(tmp_path: Path) -> None:
    for content in (build.zipped(build.HONEST_TREE), build.legacy(build.HONEST_LEGACY_TREE)):
        (tmp_path / "honest.pt").write_bytes(content)
        with TorchFile(tmp_path / "honest.pt") as file:
            assert file.read(file.tree["x"]).tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_runs_and_little_is_spent(files: dict[str, Path], name: str) -> None:
    global _watched
    path = files[name]
    _watched = events = []
    started = time.process_time()
    try:
        if is_inert(name):
            use(path)
        else:
            with pytest.raises(CheckpointError, match=f"{path.stem}|^a configuration in it"):
                use(path)
    finally:
        spent = time.process_time() - started
        _watched = None
    opened = {args[0] for event, args in events if event == "open"}
    assert {event for event, _ in events} <= {"open"}
    assert opened <= {str(path)}
    assert list((path.parent / "canary").iterdir()) == []
    assert spent < SECONDS


def test_the_watch_sees_what_an_unpickler_would_do(tmp_path: Path) -> None:
    global _watched
    _watched = events = []
    try:
        pickle.loads(pickle.dumps(Path))
    finally:
        _watched = None
    assert "pickle.find_class" in {event for event, _ in events}


def test_nothing_that_a_file_names_has_changed(files: dict[str, Path]) -> None:
    import argparse
    import shutil

    before = dict(vars(argparse.Namespace)), shutil.rmtree.__defaults__, dict(vars(torch.nn.Parameter))
    for name in ("build-class", "build-defaults", "type-swap-parameter"):
        with pytest.raises(UnsafeCheckpointError):
            use(files[name])
    assert before == (dict(vars(argparse.Namespace)), shutil.rmtree.__defaults__, dict(vars(torch.nn.Parameter)))


CHILD = """
import json, resource, sys
from pathlib import Path
from tests.hubcore.checkpoints.test_hostile import use
from hubcore.errors import CheckpointError

pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + (400 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
outcomes = {}
for path in sorted(Path(sys.argv[1]).glob("*.pt")):
    try:
        use(path)
        outcomes[path.stem] = "read"
    except CheckpointError as error:
        outcomes[path.stem] = "memory" if "memory" in str(error) else "refused"
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start
print(json.dumps({"outcomes": outcomes, "peak": peak}))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="measures memory by /proc")
def test_all_of_them_fit_into_300_megabytes(files: dict[str, Path]) -> None:
    folder = next(iter(files.values())).parent
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path or "." for path in sys.path), OMP_NUM_THREADS="1")
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder)], capture_output=True, text=True, env=environment, timeout=300, check=False
    )
    assert child.returncode == 0, child.stderr
    result = json.loads(child.stdout)
    wrong = {
        name: outcome for name, outcome in result["outcomes"].items() if outcome != ("read" if is_inert(name) else "refused")
    }
    assert wrong == {}
    assert len(result["outcomes"]) == len(files)
    assert result["peak"] < 300_000  # kB


def _seeds(folder: Path) -> list[bytes]:
    """Small honest files of each kind, byte for byte the same in every run."""
    config = {"lr": [0.1, 1e-3], "name": "tiny", "on": True, "table": {0: (1, None), 1: b"bytes"}}
    made = []
    for protocol in (2, 4):
        body = pickle.dumps(config, protocol)[2:-1]
        source = build.storage(legacy=True)
        tensors = build.tensor(source), build.tensor(source, 1, (2,), (3,))
        pairs = b"".join(build.text(key) + value + b"s" for key, value in zip("cab", (body, *tensors), strict=True))
        made.append(build.legacy(build.P2 + b"}" + pairs + b"."))
        weights = {f"layer.{k}.weight": torch.ones(3, k + 1) for k in range(4)}
        torch.save({"model": weights, "cfg": config}, folder / "seed.pt", pickle_protocol=protocol)
        made.append((folder / "seed.pt").read_bytes())
    # Without checksums damage reaches the code behind them.
    made.append(build.archive(*(replace(record, crc=0) for record in build.parts(build.HONEST_TREE))))
    return made


def _mutated(data: bytes, seed: int) -> bytes:
    chance = random.Random(seed)
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5))):
        if not changed:
            break
        at = chance.randrange(len(changed))
        kind = chance.randrange(7)
        if kind == 0:
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            changed[at] = chance.randrange(256)
        elif kind == 2:
            del changed[at : at + chance.randrange(1, 40)]
        elif kind == 3:
            changed[at:at] = chance.randbytes(chance.randrange(1, 10))
        elif kind == 4:
            other = chance.randrange(len(changed))
            changed[at : at + 8] = changed[other : other + 8]
        elif kind == 5:
            changed[at : at + 4] = chance.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\0\0\0\x80"))
        else:
            changed = changed[: at + 1]
    return bytes(changed)


@pytest.mark.parametrize("shard", range(5))
def test_mutated_files_are_read_or_refused(tmp_path: Path, shard: int) -> None:
    data = _seeds(tmp_path)[shard]
    path = tmp_path / "mutated.pt"
    refused = 0
    worst = 0.0
    for seed in range(MUTATIONS // 5):
        if shard == 4 and seed % 2:
            # Only the pickle, so that the archive around it is whole.
            content = build.archive(*(replace(record, crc=0) for record in build.parts(_mutated(build.HONEST_TREE, seed))))
        else:
            content = _mutated(data, seed * 5 + shard)
        path.write_bytes(content)
        started = time.process_time()
        try:
            use(path)
        except CheckpointError:
            refused += 1
        worst = max(worst, time.process_time() - started)
    assert refused > MUTATIONS // 20
    assert worst < SECONDS


def test_mutated_safetensors_files_are_read_or_refused(tmp_path: Path) -> None:
    header = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__": {"k": "v"}}
    data = build.safetensors_bytes(header)
    path = tmp_path / "mutated.safetensors"
    refused = 0
    for seed in range(MUTATIONS // 5):
        path.write_bytes(_mutated(data, seed))
        try:
            with SafetensorsFile(path) as file:
                file.read_many(file.refs)
        except CheckpointError:
            refused += 1
    assert refused > MUTATIONS // 20
