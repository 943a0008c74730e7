"""Which config a checkpoint to start from has: OFA's own, or plain wav2vec 2.0's."""

from __future__ import annotations

from hubcore.checkpoints import Checkpoint
from hubcore_ofa_wav2vec2.checkpoint import read_ofa_config
from hubcore_wav2vec2.checkpoint import read_config
from hubcore_wav2vec2.config import Wav2Vec2Config


def parse_any(checkpoint: Checkpoint, notes: list[str]) -> Wav2Vec2Config:
    """The config of a checkpoint with or without a CIF module, in our terms."""
    ours = checkpoint.layout.startswith("hubcore") and "alpha_kernel" in checkpoint.config
    if ours or checkpoint.config.get("subsample") == "cif":
        return read_ofa_config(checkpoint, notes)
    return read_config(checkpoint, notes)
