"""Fresh environments, without network: hubcore from its own wheel, what it depends on from the environment of the tests."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.paths import REPOSITORY


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here is slow: each needs wheels that pip installs."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.slow)


def build_wheel(source: Path, out: Path) -> Path:
    """The wheel of a project, built as pip would, but with the tools that are here."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.glob("*.whl")
    return wheel


@dataclass(frozen=True)
class Environment:
    """A virtual environment of its own, and a home for what programs in it keep."""

    root: Path
    home: Path

    @property
    def python(self) -> Path:
        return self.root / "bin/python"

    def run(self, command: str, cwd: Path, *, ok: bool = True, **variables: str | Path) -> subprocess.CompletedProcess[str]:
        """A shell command as somebody types it who has activated the environment."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_", "HUBCORE_", "HF_"))}
        environment = kept | {
            "PATH": f"{self.root / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "VIRTUAL_ENV": str(self.root),
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "HUBCORE_CACHE": str(self.home / "cache"),
            "HF_HOME": str(self.home / "hf"),
            "HUBCORE_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            # pip finds everything here. The 0 is right: pip takes the variable for the negated option's value.
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            **{name: str(value) for name, value in variables.items()},
        }
        done = subprocess.run(
            command, shell=True, capture_output=True, text=True, cwd=cwd, env=environment, timeout=120, check=False
        )
        assert not ok or done.returncode == 0, f"`{command}` ends with {done.returncode}\n{done.stdout}{done.stderr}"
        return done


@pytest.fixture(scope="session")
def hubcore_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(REPOSITORY, tmp_path_factory.mktemp("hubcore-wheel"))


@pytest.fixture(scope="session")
def new_environment(hubcore_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Environment]:
    """Makes a virtual environment with the built hubcore in it."""

    def make() -> Environment:
        top = tmp_path_factory.mktemp("environment")
        environment = Environment(top / "venv", top / "home")
        environment.home.mkdir()
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment.root)], check=True)
        pip = [sys.executable, "-m", "pip", "--python", str(environment.python), "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--quiet", "--no-index", "--no-deps", str(hubcore_wheel)], check=True)
        # Behind the environment's own packages, and as a plain folder: what .pth files in there name, such as the checkout
        # of an editable install, stays out.
        sites = dict.fromkeys(sysconfig.get_paths()[name] for name in ("purelib", "platlib"))
        (site,) = environment.root.glob("lib/python*/site-packages")
        (site / "zz_dependencies.pth").write_text("".join(f"{path}\n" for path in sites))
        for tool in ("pip", "pytest"):
            script = environment.root / "bin" / tool
            script.write_text(f'#!/bin/sh\nexec "{environment.python}" -m {tool} "$@"\n')
            script.chmod(0o755)
        return environment

    return make
