"""ALiBi: attention that falls with the distance of two frames (Press et al. 2022), towards both sides.

Shapes: `F` frames of one utterance, `E` frames without a place in time, `H` heads.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hubcore.strategy import few_calls, upload


def alibi_slopes(num_heads: int) -> list[float]:
    """Slopes by which each head's attention falls from one frame to the next (section 3 of the paper).

    For numbers of heads that are no power of two: those of the power below, then every other one of the power above.

    Example:
        >>> alibi_slopes(4), [round(slope, 4) for slope in alibi_slopes(6)[4:]]
        ([0.25, 0.0625, 0.015625, 0.00390625], [0.5, 0.125])
    """
    power = 1 << (num_heads.bit_length() - 1)
    slopes = [2 ** (-8 * (k + 1) / power) for k in range(power)]
    return slopes + [2 ** (-4 * (2 * k + 1) / power) for k in range(num_heads - power)]


class Alibi(nn.Module):
    """The bias of attention: minus the distance of two frames, times a slope and a learned scale.

    It depends on the distance only, so `attend` takes each utterance's corner of the bias of the longest.

    Args:
        num_heads: heads `H`.
        scales: scales over blocks and over heads; 1 where all share one. fairseq: `alibi_scale`.

    Example:
        >>> alibi = Alibi(4, scales=(1, 4))
        >>> alibi(alibi.distances(3, extra=1, device="cpu"), layer=0)[0].detach()
        tensor([[ 0.0000,  0.0000,  0.0000,  0.0000],
                [ 0.0000,  0.0000, -0.2500, -0.5000],
                [ 0.0000, -0.2500,  0.0000, -0.2500],
                [ 0.0000, -0.5000, -0.2500,  0.0000]])
    """

    def __init__(self, num_heads: int, scales: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = nn.Parameter(torch.ones(scales))

    def distances(self, frames: int, extra: int, device: torch.device | str) -> Tensor:
        """`(E + F, E + F)` minus the distances of frames; 0 to and from the `extra` ones at the start."""
        at = torch.arange(frames, device=device)
        return functional.pad(-(at[None] - at[:, None]).abs(), (extra, 0, extra, 0))

    def forward(self, distances: Tensor, layer: int) -> Tensor:
        """The bias `(H, E + F, E + F)` of block `layer`, counted from 0; a scale below 0 counts as 0."""
        scale = self.scale[layer if len(self.scale) > 1 else 0].clamp(min=0)  # (H) or (1)
        scale = scale.to(torch.promote_types(scale.dtype, torch.float32))  # distances need more than 16 bits
        slopes = alibi_slopes(self.num_heads)
        steps = upload(np.array(slopes), scale.device).to(scale) if few_calls(scale.device) else scale.new_tensor(slopes)
        return (steps * scale)[:, None, None] * distances
