"""Where the tests' data lies."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
PLUGINS = tuple(sorted(path.name for path in (REPOSITORY / "plugins").glob("hubcore_*")))
"""The packages of this repository's own plugins."""
DATA = Path(__file__).parent / "data"
GOLD = DATA / "gold"
SPEECH = DATA / "speech"
