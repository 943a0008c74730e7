"""Fifty installed plugins: all are listed, and none is imported. How soon: `python -m tests.benchmarks listing`."""

from __future__ import annotations

import json
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
COMMAND = """
import json, sys
from hubcore.cli import main
main(["list"], standalone_mode=False)
print(json.dumps(list(sys.modules)))
"""
HEAVY = ("torch", "numpy", "soundfile", "soxr", "huggingface_hub", "safetensors", "tqdm")


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
    heavy = (*HEAVY, "click")
    assert not [name for name in modules if name.startswith(("many_", "hubcore_")) or name.partition(".")[0] in heavy]


def test_the_command_lists_every_name_and_imports_no_plugin(site: Path) -> None:
    printed = run(site, "-c", COMMAND)
    shown = {line.split()[0] for line in printed.splitlines() if line.startswith("  many_")}
    assert shown == {f"many_{number}_card_{card}" for number in range(COUNT) for card in range(CARDS)} | {
        f"many_{number}" for number in range(COUNT)
    }
    modules = json.loads(printed.splitlines()[-1])
    assert not [name for name in modules if name.startswith(("many_", "hubcore_")) or name.partition(".")[0] in HEAVY]
