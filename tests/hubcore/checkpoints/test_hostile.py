"""Hostile and damaged files: nothing in them runs, and they cost next to nothing to refuse."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hubcore.checkpoints.formats.pickle_reader import TensorRef
from hubcore.checkpoints.formats.plain import plain
from hubcore.checkpoints.formats.torch_file import TorchFile
from hubcore.errors import CheckpointError, UnsafeCheckpointError
from tests.hubcore.checkpoints import hostile_pieces as build
from tests.hubcore.checkpoints.hostile_files import hostile_files, names, parametrize_names
from tests.hubcore.checkpoints.watching import watching
from tests.running import python

pytestmark = pytest.mark.slow

pytest_generate_tests = parametrize_names
SECONDS = 3.0  # of processor time; the slowest file takes 0.8 with the watch on, and twice that beside other work

# What the interpreter may do while a checkpoint is read; an import or a started process is not among it.
HARMLESS_EVENTS = frozenset(("builtins.id", "object.__getattr__", "sys._getframe"))


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
    assert len(files) == len(names()) == len(set(names())) >= 300
    assert len({path.read_bytes() for path in files.values()}) == len(files)


def test_the_honest_files_that_the_others_are_made_from_are_read(tmp_path: Path) -> None:
    for content in (build.zipped(build.HONEST_TREE), build.legacy(build.HONEST_LEGACY_TREE)):
        (tmp_path / "honest.pt").write_bytes(content)
        with TorchFile(tmp_path / "honest.pt") as file:
            assert file.read(file.tree["x"]).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_nothing_runs_and_little_is_spent(files: dict[str, Path], name: str) -> None:
    path = files[name]
    started = time.process_time()
    with watching() as events:
        if is_inert(name):
            use(path)
        else:
            with pytest.raises(CheckpointError, match=f"{path.stem}|^a configuration in it"):
                use(path)
    spent = time.process_time() - started
    assert {(event, args[0]) for event, args in events if event not in HARMLESS_EVENTS} <= {("open", str(path))}
    assert list((path.parent / "canary").iterdir()) == []
    assert spent < SECONDS


def test_the_watch_sees_what_an_unpickler_would_do(tmp_path: Path) -> None:
    with watching() as events:
        pickle.loads(pickle.dumps(Path))
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
@pytest.mark.slow
def test_all_of_them_fit_into_300_megabytes(files: dict[str, Path]) -> None:
    folder = next(iter(files.values())).parent
    result = json.loads(python("-c", CHILD, folder).stdout)
    wrong = {
        name: outcome for name, outcome in result["outcomes"].items() if outcome != ("read" if is_inert(name) else "refused")
    }
    assert wrong == {}
    assert len(result["outcomes"]) == len(files)
    assert result["peak"] < 300_000  # kB
