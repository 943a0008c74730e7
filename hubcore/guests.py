"""`as_guest`: the one way to run a plugin's code, so that it harms nothing but itself. Imports no torch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

from hubcore.errors import PluginError
from hubcore.text import error_text, logger

_log = logger("plugins")
_OURS = ("HUBCORE_", "HF_")
"""Variables that hubcore reads begin like these."""


def ended(error: BaseException) -> BaseException:
    """An exception as it is, or a `PluginError` for one that would end the program, such as SystemExit.

    Example:
        >>> print(ended(SystemExit(3)), ended(KeyError("a")))
        it ended with SystemExit: 3. Update its distribution. 'a'
    """
    return (
        error
        if isinstance(error, Exception)
        else PluginError(f"it ended with {error_text(error)}.", "Update its distribution.")
    )


@contextlib.contextmanager
def as_guest(fault: Callable[[BaseException], BaseException | None] = ended) -> Iterator[None]:
    """Runs a plugin's code; the working folder and hubcore's variables are afterwards as they were.

    Args:
        fault: gets whatever is raised, except for a KeyboardInterrupt, and gives what to raise instead; None to continue.

    Example:
        >>> with as_guest():
        ...     os.environ["HUBCORE_TODAY"] = "1"
        >>> "HUBCORE_TODAY" in os.environ
        False
    """
    folder, variables = _folder(), _variables()
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        told = fault(error)
        if told is error:
            raise
        if told is not None:
            raise told from error
    finally:
        now = _variables()
        for name in {name for name, _ in now.items() ^ variables.items()}:
            os.environ.pop(name, None)
            os.environ.update({name: variables[name]} if name in variables else {})
            _log.warning("a plugin changed the variable %s; it was changed back. Set it before the start", name)
        if folder is not None and _folder() != folder:
            os.chdir(folder)
            _log.warning("a plugin changed the working folder; it was changed back to %s", folder)


def _folder() -> str | None:
    """The working folder; None if it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return None


def _variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(_OURS)}
