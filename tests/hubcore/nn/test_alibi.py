"""ALiBi is the paper's, towards both sides, and does not change with padding."""

from __future__ import annotations

import math

import pytest
import torch

from hubcore.nn import Alibi, attend
from hubcore.nn.alibi import alibi_slopes


def slopes_by_the_papers_words(heads: int) -> list[float]:
    """A geometric sequence that starts at its own ratio, 2^(-8 / heads); else as the docstring of `alibi_slopes` says."""
    if math.log2(heads).is_integer():
        ratio = 2 ** (-8 / heads)
        return [ratio ** (k + 1) for k in range(heads)]
    below = 2 ** math.floor(math.log2(heads))
    return slopes_by_the_papers_words(below) + slopes_by_the_papers_words(2 * below)[::2][: heads - below]


@pytest.mark.parametrize("heads", [1, 2, 3, 6, 12, 16, 20])
def test_slopes_of_any_number_of_heads(heads: int) -> None:
    assert alibi_slopes(heads) == pytest.approx(slopes_by_the_papers_words(heads), rel=1e-12)


def test_a_scale_below_zero_is_zero() -> None:
    alibi = Alibi(2, scales=(2, 2))
    alibi.scale.data = torch.tensor([[1.0, -1.0], [0.5, 2.0]])
    distances = alibi.distances(2, extra=1, device="cpu")
    assert [alibi(distances, layer)[:, 1, 2].tolist() for layer in (0, 1)] == [[-0.0625, 0.0], [-0.03125, -0.0078125]]
    assert not alibi(distances, 0)[:, 0].any() and not alibi(distances, 0)[:, :, 0].any()


def test_half_precision_keeps_long_distances() -> None:
    alibi = Alibi(2, scales=(1, 2)).bfloat16()
    bias = alibi(alibi.distances(1001, extra=0, device="cpu"), 0)
    assert bias.dtype == torch.float32 and bias[0, 0, -1] == -1000 * 2**-4


def test_attention_with_it_is_that_of_padded_rows_with_a_mask() -> None:
    torch.manual_seed(0)
    counts, extra, heads = [3, 9, 1], 2, 6
    alibi = Alibi(heads, scales=(3, heads)).double()
    torch.nn.init.uniform_(alibi.scale, 0.5, 2)
    rows = [torch.randn(count + extra, 12, dtype=torch.float64) for count in counts]
    packed = torch.cat(rows)
    bias = alibi(alibi.distances(max(counts), extra, "cpu"), layer=1)
    got = attend(packed, packed, packed, [len(row) for row in rows], heads, bias).split([len(row) for row in rows])

    frames = max(counts) + extra
    padded = (
        torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).unflatten(2, (heads, -1)).transpose(1, 2)
    )  # (B, H, F, D / H)
    scores = padded @ padded.transpose(2, 3) / math.sqrt(12 // heads)
    for head, slope in enumerate(alibi_slopes(heads)):
        for i in range(extra, frames):
            for j in range(extra, frames):
                scores[:, head, i, j] -= slope * abs(i - j) * alibi.scale[1, head].item()
    for row, mine in enumerate(got):
        weights = scores[row, :, :, : len(mine)].softmax(-1)
        wanted = (weights @ padded[row, :, : len(mine)]).transpose(0, 1).flatten(1)[: len(mine)]
        assert torch.allclose(mine, wanted)
