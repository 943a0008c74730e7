"""Acme's speech upstreams. Importing the package imports nothing else."""

from __future__ import annotations

__version__ = "2.1.0"
