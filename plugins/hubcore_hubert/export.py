"""A checkpoint of ours in the names and containers of others; see `hubcore_hubert.pretrain.export`."""

from __future__ import annotations

from hubcore_hubert.pretrain.export import to_fairseq, to_transformers

__all__ = ["to_fairseq", "to_transformers"]
