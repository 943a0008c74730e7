"""`transformers`, imported when the first name of it is asked for: that takes seconds, and only slow tests need it."""

from __future__ import annotations

import warnings
from typing import Any

import pytest


class _Transformers:
    def __getattr__(self, name: str) -> Any:
        with warnings.catch_warnings():  # what its own imports warn about is not ours to repair
            warnings.simplefilter("ignore")
            return getattr(pytest.importorskip("transformers", reason="the test extra installs transformers"), name)


transformers: Any = _Transformers()
