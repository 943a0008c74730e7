"""Whisper keeps the whole contract, padded to its window, in several windows, and unpadded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hubcore.testing import parametrize_with_checks
from hubcore_whisper import WhisperConfig, WhisperUpstream

SMALL = WhisperConfig(num_mel_bins=16, dim=16, num_layers=2, num_heads=2, ffn_dim=32, positions=150, dropout=0.1)


def one_window() -> WhisperUpstream:
    return WhisperUpstream(SMALL)


def chunks() -> WhisperUpstream:
    return WhisperUpstream(replace(SMALL, positions=10), long="chunk")


def unpadded() -> WhisperUpstream:
    return WhisperUpstream(SMALL, pad=False)


@parametrize_with_checks([one_window, chunks, unpadded])
def test_contract(upstream: Any, check: Any) -> None:
    check(upstream)
