"""Hostile and damaged checkpoints through the doors that users use: `hub.load` and the command line.

Each is refused with a `CheckpointError`, within its time, and leaves nothing behind. That nothing in them runs is watched
by an audit hook: it sees every import, every opened file, every started process, every compiled text.
"""

from __future__ import annotations

import importlib
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from hubcore import hub
from hubcore.cli import main
from hubcore.errors import CheckpointError
from tests.gold import WAV2VEC2_FILES, gold_file
from tests.hubcore.checkpoints.hostile_files import hostile_files, parametrize_names
from tests.hubcore.checkpoints.watching import suspicious, watching
from tests.paths import PLUGINS, SPEECH

pytestmark = pytest.mark.slow

pytest_generate_tests = parametrize_names
SECONDS = 3.0
DAMAGES = 12  # of each kind, for each of the gold files


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    hub.load("wav2vec2", checkpoint=gold_file(next(iter(WAV2VEC2_FILES))))  # whatever is imported on first use
    for plugin in PLUGINS:  # an error looks at the families for one that reads such a file
        importlib.import_module(f"{plugin}.upstream")
    return dict(hostile_files(tmp_path_factory.mktemp("hostile")))


def test_hub_load_refuses_it(name: str, files: dict[str, Path]) -> None:
    before = sorted(path.name for path in files[name].parent.iterdir())
    began = time.process_time()
    with watching() as events, pytest.raises(CheckpointError) as caught:
        hub.load("wav2vec2", checkpoint=files[name])
    assert time.process_time() - began < SECONDS
    assert suspicious(events) == []
    assert len(str(caught.value)) < 4000
    assert sorted(path.name for path in files[name].parent.iterdir()) == before


def test_the_command_line_refuses_each_and_writes_nothing(files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "features"
    for name, path in files.items():
        arguments = ["extract", str(SPEECH / "en_2.flac"), "-u", "wav2vec2", "-c", str(path), "-o", str(out)]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 2, f"{name}: {result.output}"
        assert result.output.startswith("hubcore: error: "), f"{name}: {result.output}"
        assert not out.exists(), name


def damaged(data: bytes, random_: random.Random) -> Iterator[tuple[str, bytes]]:
    for _ in range(DAMAGES):
        at = random_.randrange(len(data))
        yield f"bit {at} flipped", data[:at] + bytes([data[at] ^ (1 << random_.randrange(8))]) + data[at + 1 :]
        cut = random_.randrange(len(data))
        yield f"cut at {cut}", data[:cut]
        yield f"a hole at {at}", data[:at] + bytes(64) + data[at + 64 :]
        yield f"bytes lost at {at}", data[:at] + data[at + 1 + random_.randrange(300) :]


@pytest.mark.parametrize("file", WAV2VEC2_FILES)
def test_a_real_file_that_was_damaged_is_refused_or_unharmed(file: str, tmp_path: Path) -> None:
    data = gold_file(file).read_bytes()
    wanted = hub.load("wav2vec2", checkpoint=gold_file(file)).state_dict()
    refused = 0
    for what, mutated in damaged(data, random.Random(file)):
        if mutated == data:
            continue
        path = tmp_path / "damaged.pt"
        path.write_bytes(mutated)
        try:
            got = hub.load("wav2vec2", checkpoint=path).state_dict()
        except CheckpointError as error:
            assert "damaged.pt" in str(error), what
            refused += 1
        else:  # the damage fell into alignment bytes or into what is not read, such as the optimizer's state
            assert all(torch.equal(got[name], weight) for name, weight in wanted.items()), what
    assert refused > 2 * DAMAGES
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.pt"]
