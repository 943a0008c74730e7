"""`VERSION`: hubcore's version, for modules that write it into files."""

from __future__ import annotations

VERSION = "0.1.0"
