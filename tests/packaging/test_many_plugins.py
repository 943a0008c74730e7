"""Fifty installed plugins: all are listed, none is imported. How long that takes: `python -m tests.benchmarks listing`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.packaging.many_plugins import CARDS, COUNT, install_many

SCRIPT = """
import json, sys
from hubcore import hub
names = hub.list()
print(json.dumps([names, list(sys.modules)]))
"""


def test_fifty_plugins_are_listed_and_none_is_imported(tmp_path: Path) -> None:
    site = install_many(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(site)}, check=True
    )
    names, modules = json.loads(done.stdout)
    mine = {name for name in names if name.startswith("many_")}
    assert len(mine) == COUNT * (1 + 2 * CARDS)
    assert {"many_0", "many_49_card_3", "many_49_alias_3"} < mine
    heavy = ("torch", "numpy", "soundfile", "soxr", "huggingface_hub", "safetensors", "pluggy", "tqdm", "click")
    assert not [name for name in modules if name.startswith(("many_", "hubcore_")) or name.partition(".")[0] in heavy]
