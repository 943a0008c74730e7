"""On a padded batch every upstream computes what it computes on packed frames, whatever stands in the padding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hubcore.errors import OptionError
from hubcore.nn import group_norm
from hubcore.nn.encoder_upstream import EncoderUpstream
from hubcore.nn.padded import Padded
from hubcore.nn.speech_encoder_config import SpeechEncoderConfig
from hubcore_fbank import FbankUpstream
from tests.small_upstreams import FAMILIES, VARIANTS


def padded(wavs: list[Tensor]) -> tuple[Tensor, Tensor]:
    """One tensor with noise behind the shorter waveforms, and their lengths."""
    batch = torch.randn(len(wavs), max(map(len, wavs)))
    for row, wav in zip(batch, wavs, strict=True):
        row[: len(wav)] = wav
    return batch, torch.tensor([len(wav) for wav in wavs])


@torch.no_grad()
@pytest.mark.parametrize("name", [*FAMILIES, *VARIANTS])
def test_a_padded_batch_gives_the_numbers_of_packed_frames(name: str) -> None:
    upstream = {**FAMILIES, **VARIANTS}[name]()
    generator = torch.Generator().manual_seed(1)
    wavs = [0.1 * torch.randn(n, generator=generator) for n in (4000, upstream.min_samples, 2321)]
    layers = list(range(len(upstream.layer_names)))
    wanted = upstream(wavs)
    states, frames = upstream.padded(*padded(wavs), layers)
    assert frames.tolist() == wanted.lengths.tolist()
    for state, theirs in zip(states, wanted.hidden_states, strict=True):
        assert state.shape == theirs.shape
        assert (state - theirs).abs().max() <= 3e-5
        assert (state[~wanted.mask] == 0).all()


def test_group_norm_counts_an_utterance_s_own_rows_only() -> None:
    norm = nn.GroupNorm(2, 8)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(7, 8)
    rows = torch.full((8, 8), 1e3)
    rows[:3], rows[4:] = x[:3], x[3:]
    got = group_norm(rows, Padded(torch.tensor([3, 4]), 4), norm)
    assert torch.allclose(got[[0, 1, 2, 4, 5, 6, 7]], group_norm(x, [3, 4], norm), atol=1e-5)


class Single(nn.Module):
    """A model that takes utterances apart, as a third party's may."""

    num_layers = 1

    def forward(self, wavs: list[Tensor], layers: list[int]) -> tuple[list[Tensor], list[int]]:
        frames = [wav[: len(wav) // 320 * 320].view(-1, 320) for wav in wavs]
        return [torch.cat(frames)], [len(rows) for rows in frames]


class SingleUpstream(EncoderUpstream):
    config_class = SpeechEncoderConfig
    build_model = staticmethod(lambda config: Single())


def test_a_model_that_takes_utterances_apart_says_so() -> None:
    with pytest.raises(OptionError, match=r"asks for single waveforms, which a graph .* parts of hubcore.nn"):
        SingleUpstream(SpeechEncoderConfig(dim=320, num_heads=4, num_layers=1)).padded(
            torch.zeros(1, 800), torch.tensor([800]), [0]
        )
    with pytest.raises(OptionError, match="dither is noise"):
        FbankUpstream.from_config("fbank", dither=1.0).padded(torch.zeros(1, 800), torch.tensor([800]), [0])
