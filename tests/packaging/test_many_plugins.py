"""Fifty installed plugins: all are listed soon, and none is imported. How soon: `python -m tests.benchmarks listing`."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from tests.packaging.many_plugins import CARDS, COUNT, install_many
from tests.running import python

SCRIPT = """
import json, sys
from hubcore import hub
names = hub.list()
print(json.dumps([names, list(sys.modules)]))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_many(tmp_path_factory.mktemp("many"))


def run(site: Path, *arguments: str) -> str:
    return python(*arguments, site=site).stdout


def test_fifty_plugins_are_listed_and_none_is_imported(site: Path) -> None:
    names, modules = json.loads(run(site, "-c", SCRIPT))
    mine = {name for name in names if name.startswith("many_")}
    assert len(mine) == COUNT * (1 + 2 * CARDS)
    assert {"many_0", "many_49_card_3", "many_49_alias_3"} < mine
    heavy = ("torch", "numpy", "soundfile", "soxr", "huggingface_hub", "safetensors", "tqdm", "click")
    assert not [name for name in modules if name.startswith(("many_", "hubcore_")) or name.partition(".")[0] in heavy]


def test_the_command_takes_less_than_half_a_second(site: Path) -> None:
    def seconds() -> float:
        """Processor time of children so far, which does not depend on what else runs on this machine."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    spent = []
    for _ in range(5):
        before = seconds()
        assert "many_49_card_3" in run(site, "-m", "hubcore", "list")
        spent.append(seconds() - before)
    assert min(spent) < 0.5
