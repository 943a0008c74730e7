"""Numbers that the original systems gave, and the waveforms they gave them for; see `data/gold/README.md`."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tests.paths import GOLD

WAV2VEC2_FILES = {
    "fairseq_tiny_w2v2_groupnorm.pt": "fairseq_tiny_w2v2_groupnorm.ref.npz",
    "fairseq_tiny_w2v2_groupnorm_dictconfig.pt": "fairseq_tiny_w2v2_groupnorm.ref.npz",
    "fairseq_tiny_w2v2_oldargs.pt": "fairseq_tiny_w2v2_oldargs.ref.npz",
    "fairseq_tiny_w2v2_layernorm.pt": "fairseq_tiny_w2v2_layernorm.ref.npz",
    "fairseq_tiny_w2v2_ctc.pt": "fairseq_tiny_w2v2_ctc.ref.npz",
    "fairseq_tiny_w2v2_ctc_layernorm.pt": "fairseq_tiny_w2v2_ctc_layernorm.ref.npz",
    "fairseq_tiny_w2v2_ctc_oldargs.pt": "fairseq_tiny_w2v2_ctc.ref.npz",
    "s3prl_converted_tiny_w2v2_groupnorm.pt": "fairseq_tiny_w2v2_groupnorm.ref.npz",
}
"""Every checkpoint and the file with what the original computed from it."""


SMALL_HEADS = {
    "final_dim": 24,
    "codebook_dim": 24,
    "codebook_entries": 20,
    "mask_length": 4,
    "num_negatives": 10,
    "dropout_input": 0.0,
    "dropout_features": 0.0,
    "layerdrop": 0.0,
}
"""Options of pre-training for the heads in the small gold checkpoints, without anything that is drawn beside the gold's."""


@functools.cache
def gold_wavs() -> tuple[Tensor, Tensor, Tensor]:
    """The three utterances u0, u1, u2, each `(T,)` at 16 kHz."""
    with np.load(GOLD / "wavs.npz") as arrays:
        u0, u1, u2 = (torch.from_numpy(arrays[f"u{i}"]) for i in range(3))
    return u0, u1, u2


@functools.cache
def gold_arrays(name: str) -> dict[str, Tensor]:
    """All numbers in a reference file."""
    with np.load(GOLD / name) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files if arrays[key].dtype.kind != "U"}


@functools.cache
def gold_texts(name: str) -> dict[str, str]:
    """All texts in a reference file."""
    with np.load(GOLD / name) as arrays:
        return {key: str(arrays[key]) for key in arrays.files if arrays[key].dtype.kind == "U"}


def gold_file(name: str) -> Path:
    """The path of a gold checkpoint."""
    return GOLD / name


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """Largest difference over largest wanted value."""
    assert got.shape == wanted.shape, f"shape {tuple(got.shape)} instead of {tuple(wanted.shape)}"
    return float((got - wanted).abs().max() / wanted.abs().max())
