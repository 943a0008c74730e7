"""The command line, `hubcore ...`: one file per command, imported when that command is used.

`hubcore list` imports neither torch nor any plugin. Exit codes: 0, 1 for a run in which items failed, 2 for bad usage or
input, 130 after Ctrl-C, 143 after SIGTERM.
"""

from __future__ import annotations

from hubcore.cli.group import main

__all__ = ["main"]
