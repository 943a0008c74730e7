"""Fixtures of the fault tests that others share."""

from __future__ import annotations

from tests.hubcore.pretrain.conftest import lab as runs

__all__ = ["runs"]
