"""Where the tests' data lies."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
DATA = Path(__file__).parent / "data"
GOLD = DATA / "gold"
SPEECH = DATA / "speech"
