"""Makes the bundled checkpoint `wav2vec2_tiny_untrained`: random weights from a fixed seed, the same bytes every time.

python plugins/wav2vec2/hubcore_wav2vec2/bundled/make_tiny.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from hubcore import UpstreamBase
from hubcore_wav2vec2 import CONFIGS, Wav2Vec2Upstream

SEED = 20061477


def randomize(upstream: UpstreamBase, seed: int) -> None:
    """Draws every weight from a seed, norms and biases too: no layer is a silent identity, no test passes by accident."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in sorted(upstream.named_parameters()):
            noise = torch.randn(weight.shape, generator=generator)
            if ("norm" in name and name.endswith("weight")) or name.endswith("weight_g"):
                weight.copy_(1 + 0.1 * noise)
            elif name.endswith("bias"):
                weight.copy_(0.05 * noise)
            else:
                fan_in = weight[0].numel()
                weight.copy_(noise * (2 / fan_in) ** 0.5 if "convs" in name else noise * fan_in**-0.5)


def make(path: Path) -> None:
    """Writes the checkpoint to `path`."""
    upstream = Wav2Vec2Upstream(CONFIGS["tiny"])
    randomize(upstream, SEED)
    upstream.save_checkpoint(path)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("wav2vec2_tiny_untrained.safetensors")
    make(target)
    sys.stdout.write(f"{target}: {target.stat().st_size} bytes\n")
