"""Makes the bundled checkpoint `ofa_wav2vec2_tiny_untrained`: random weights from a fixed seed, the same bytes every time.

python plugins/ofa_wav2vec2/hubcore_ofa_wav2vec2/bundled/make_tiny.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from hubcore_ofa_wav2vec2 import CONFIGS, OfaWav2Vec2Upstream
from hubcore_wav2vec2.bundled.make_tiny import randomize

SEED = 221102332


def make(path: Path) -> None:
    """Writes the checkpoint to `path`; its mean alpha on speech is about 0.17, so that lambda 1 merges six frames into one."""
    upstream = OfaWav2Vec2Upstream(CONFIGS["tiny"])
    randomize(upstream, SEED)
    torch.nn.init.constant_(upstream.get_parameter("model.alpha_predictor.linear.bias"), -1.6)
    upstream.save_checkpoint(path)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("ofa_wav2vec2_tiny_untrained.safetensors")
    make(target)
    sys.stdout.write(f"{target}: {target.stat().st_size} bytes\n")
