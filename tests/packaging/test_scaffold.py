"""What `hubcore plugin new` writes is green as it is: installed, tested with warnings as errors, typed, in style, built."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.packaging.conftest import Environment


def test_a_new_plugin_is_green_at_once(new_environment: Callable[[], Environment], tmp_path: Path) -> None:
    environment = new_environment()
    run = environment.run
    run("hubcore plugin new acoustic", tmp_path)
    made = tmp_path / "hubcore-acoustic"
    before = {path.relative_to(made) for path in made.rglob("*") if path.is_file()}

    run("pip install -e '.[test]'", made)
    tested = run("python -W error -m pytest -q -p no:cacheprovider", made).stdout
    assert "passed" in tested and "failed" not in tested
    assert "Success: no issues found" in run(f"python -m mypy --cache-dir {tmp_path / 'cache'}", made).stdout
    for arguments in ("check", "format --check"):
        command = [sys.executable, "-m", "ruff", *arguments.split(), "--no-cache", "."]
        done = subprocess.run(command, cwd=made, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
    after = {path.relative_to(made) for path in made.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert after == before, "running its tests leaves files in a new plugin that its .gitignore does not expect"

    run("pip wheel --no-deps --wheel-dir dist .", made)
    (wheel,) = (made / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"hubcore_acoustic/registry.yaml", "hubcore_acoustic/bundled/untrained.safetensors"} <= set(names)
    assert not [name for name in names if name.startswith("tests/")]
    # Its own editable install is found by path, so that an editor jumps to the file that is edited.
    where = run("python -c 'import hubcore_acoustic as package; print(package.__file__)'", tmp_path).stdout.strip()
    assert where == str(made / "hubcore_acoustic/__init__.py")
