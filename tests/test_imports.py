"""Who may import whom: the checkout keeps the rules of pyproject.toml, and each rule is red once one import breaks it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import REPOSITORY

FORBIDDEN = {
    "plugins": [
        ("hubcore/card.py", "import hubcore_fbank"),
        ("plugins/hubcore_fbank/config.py", "def late():\n    import hubcore_wav2vec2.config"),
        ("plugins/hubcore_toy/config.py", "from hubcore_fbank import CONFIGS"),  # a plugin that pyproject.toml does not name
    ],
    "layers": [("hubcore/card.py", "from hubcore import hub"), ("hubcore/newcomer.py", "import hubcore.card")],
    "parts": [("hubcore/nn/attention.py", "import hubcore.protocol")],
    "front": [("hubcore/errors.py", "from hubcore import UpstreamBase")],
    "circles": [("plugins/hubcore_toy/config.py", "import hubcore_toy.upstream")],
}
"""Rule -> files and the import in each that breaks it."""


def check(folder: Path) -> tuple[int, str]:
    """Exit code and output of the check, on a line each."""
    run = [sys.executable, str(REPOSITORY / "tests" / "import_rules.py"), str(folder)]
    done = subprocess.run(run, cwd=folder, capture_output=True, text=True, env={"COLUMNS": "300"}, timeout=60)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python files of this checkout, with one more plugin."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("hubcore", "plugins"):
        for path in (REPOSITORY / name).rglob("*.py"):
            target = folder / path.relative_to(REPOSITORY)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    shutil.copyfile(REPOSITORY / "pyproject.toml", folder / "pyproject.toml")
    toy = folder / "plugins" / "hubcore_toy"
    toy.mkdir()
    (toy / "__init__.py").write_text("from hubcore import hub\n")
    (toy / "config.py").write_text("import torch\n")
    (toy / "upstream.py").write_text("import hubcore_toy.config\n")
    return folder


def test_this_checkout_keeps_the_rules():
    code, output = check(REPOSITORY)
    assert code == 0, output


def test_a_further_plugin_keeps_them_without_being_named(copy):
    code, output = check(copy)
    assert code == 0, output


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "file", "line"), [(rule, *broken) for rule in FORBIDDEN for broken in FORBIDDEN[rule]])
def test_one_forbidden_import_breaks_its_rule(copy, rule, file, line):
    path = copy / file
    before = path.read_bytes() if path.exists() else None
    try:
        path.write_bytes((before or b"") + f"\n{line}\n".encode())
        code, output = check(copy)
    finally:
        path.unlink() if before is None else path.write_bytes(before)
    name = dict(re.findall(r'id = "(\w+)"\nname = "(.*)"', (REPOSITORY / "pyproject.toml").read_text()))[rule]
    assert code == 1 and f"{name} BROKEN" in output, output
