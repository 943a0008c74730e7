"""The product quantiser of targets: one entry from each codebook, chosen by Gumbel softmax (section 3 of the paper).

Shapes: `M` masked frames, `C` channels, `G` codebooks, `V` entries of each, `Q` width of a quantised target.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Quantized:
    """Some frames, quantised."""

    vectors: Tensor
    """`(M, Q)`; in train mode the gradient goes straight through to the logits."""
    codes: Tensor
    """`(M, G)` int64, the entry taken from each codebook."""
    code_perplexity: Tensor
    """Scalar: entries in use, all codebooks together, counting choices without noise."""
    prob_perplexity: Tensor
    """Scalar with a gradient: the same of the mean probabilities, `G * V` at best."""


class GumbelQuantizer(nn.Module):
    """Chooses an entry of each of `G` codebooks for every frame, `(M, C)` to `(M, Q)`.

    Args:
        dim: `C`.
        groups: `G`.
        entries: `V`.
        out_dim: `Q`.

    Example:
        >>> quantizer = GumbelQuantizer(8, groups=2, entries=4, out_dim=6).eval()
        >>> quantizer(torch.zeros(3, 8)).codes.shape
        torch.Size([3, 2])
    """

    def __init__(self, dim: int, *, groups: int, entries: int, out_dim: int) -> None:
        super().__init__()
        self.codebook = nn.Parameter(torch.empty(groups, entries, out_dim // groups))
        self.logits = nn.Linear(dim, groups * entries)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Entries uniform from 0 to 1, logits of unit normal weights. fairseq: `GumbelVectorQuantizer`."""
        nn.init.uniform_(self.codebook)
        nn.init.normal_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)

    def forward(self, frames: Tensor, *, temperature: float = 1.0, noise: Tensor | None = None) -> Quantized:
        """Frames `(M, C)` quantised.

        Args:
            frames: what to quantise; without any frame the perplexities are 0.
            temperature: of the softmax whose gradient is used, in train mode.
            noise: `(M, G, V)` Gumbel noise of train mode; in eval mode there is none, the likeliest entry is taken.
        """
        groups, entries, _ = self.codebook.shape
        with torch.autocast(frames.device.type, enabled=False):
            logits = functional.linear(frames.to(self.logits.weight.dtype), self.logits.weight, self.logits.bias).unflatten(
                1, (groups, entries)
            )  # (M, G, V)
            likeliest = functional.one_hot(logits.argmax(-1), entries).to(logits.dtype)
            code_perplexity = _perplexity(likeliest.detach())
            prob_perplexity = _perplexity(logits.softmax(-1))
            group = torch.arange(groups, device=frames.device)
            if not self.training:
                codes = logits.argmax(-1)  # (M, G)
                return Quantized(self.codebook[group, codes].flatten(1), codes, code_perplexity, prob_perplexity)
            soft = ((logits if noise is None else logits + noise) / temperature).softmax(-1)
            codes = soft.argmax(-1)
            # The difference is exactly 0, so that equal codes give equal vectors; its gradient is that of the soft choice.
            through = torch.einsum("mgv,gvd->mgd", soft - soft.detach(), self.codebook.detach())
            vectors = self.codebook[group, codes] + through
        return Quantized(vectors.flatten(1), codes, code_perplexity, prob_perplexity)


def _perplexity(choices: Tensor) -> Tensor:
    """Exp of the entropy of the mean choice `(M, G, V)`, summed over codebooks."""
    if choices.shape[0] == 0:
        return choices.sum()
    mean = choices.mean(0)
    return torch.exp(-(mean * torch.log(mean + 1e-7)).sum(-1)).sum()


def gumbel_noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Gumbel noise of a shape, from a CPU generator.

    Example:
        >>> gumbel_noise((2, 3), torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3])
    """
    return -torch.empty(shape).exponential_(generator=generator).log()
