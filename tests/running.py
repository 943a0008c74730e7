"""hubcore in this process as its command line, and in a fresh interpreter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner, Result

from hubcore.cli import main
from tests.paths import REPOSITORY


def command(*arguments: object) -> Result:
    """`hubcore arguments`, in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="hubcore")


def heed_signals() -> None:
    """For `preexec_fn`: a child of a process that ignores signals, as in the background of a script, would ignore them too."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)


def python(
    *arguments: object, code: int | None = 0, cwd: Path = REPOSITORY, site: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`python arguments` in a fresh interpreter that finds what this one finds, and first what is in `site`.

    Args:
        arguments: of the interpreter; a script comes after "-c".
        code: the exit status that it must have; None for any.
        cwd: the folder that it runs in.
        site: a folder of installed packages.
        environment: variables that it has beside those of this process.
    """
    path = os.pathsep.join(os.path.abspath(folder) for folder in filter(None, [site, *sys.path]))
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, **environment},
        check=False,
        timeout=300,
    )
    assert code is None or done.returncode == code, done.stdout + done.stderr
    return done


def imported(script: str, site: Path | None = None) -> set[str]:
    """The modules that a fresh interpreter has imported when `script` has run; what that prints is among them, by lines."""
    return set(python("-c", f"{script}\nimport sys; print('\\n', *sys.modules, sep='\\n')", site=site).stdout.splitlines())
