"""Filter banks, cepstra and spectra: features that need no weights, as exact and batched as a model's.

`FbankUpstream` computes, `FbankConfig` says what, `CONFIGS` holds the six named ones. Importing this imports no torch;
the class loads when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hubcore_fbank.config import CONFIGS, FbankConfig

if TYPE_CHECKING:
    from hubcore_fbank.upstream import FbankUpstream

__all__ = ["CONFIGS", "FbankConfig", "FbankUpstream"]


def __getattr__(name: str) -> Any:
    if name == "FbankUpstream":
        from hubcore_fbank.upstream import FbankUpstream

        return FbankUpstream
    raise AttributeError(f"module 'hubcore_fbank' has no attribute {name!r}; it has {', '.join(__all__)}")
