"""`SpeechEncoder` and its builders, and `EncoderUpstream` around models of any kind."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from hubcore.card import UpstreamShape
from hubcore.errors import OptionError
from hubcore.nn import EncoderUpstream, SpeechEncoderConfig, build_encoder, build_speech_encoder

CONFIG = SpeechEncoderConfig(conv_layers=((8, 10, 5), (8, 8, 8), (8, 8, 8)), dim=16, num_heads=2, num_layers=2, ffn_dim=32)


class ToyUpstream(EncoderUpstream):
    config_class = SpeechEncoderConfig
    build_model = staticmethod(build_speech_encoder)


def test_attention_can_be_swapped_and_parts_left_out() -> None:
    class MeanAttention(nn.Module):
        def forward(self, x: Tensor, counts: list[int]) -> Tensor:
            return torch.cat([part.mean(0, keepdim=True).expand_as(part) for part in x.split(counts)])

    encoder = build_encoder(CONFIG, attention=MeanAttention)
    upstream = ToyUpstream(CONFIG, build_speech_encoder(CONFIG, encoder))
    wavs = [torch.randn(4000), torch.randn(2000)]
    batch, alone = upstream(wavs).last_hidden_state, upstream(wavs[1:]).last_hidden_state
    torch.testing.assert_close(batch[1:, : alone.shape[1]], alone)

    bare = replace(CONFIG, feature_norm=False, dim=8, pos_conv_groups=8, input_projection=False)
    assert not [name for name, _ in build_speech_encoder(bare).named_parameters() if name.startswith(("feature_", "proj"))]
    batch_norm = replace(CONFIG, pos_conv_norm="batch")
    assert "encoder.pos_conv.norm.running_mean" in build_speech_encoder(batch_norm).state_dict()


def test_a_model_of_another_size_is_refused() -> None:
    other = replace(CONFIG, num_layers=3)
    with pytest.raises(OptionError, match="3 blocks, but its config says 2"):
        ToyUpstream(CONFIG, build_speech_encoder(other))


@pytest.mark.parametrize("strides", [(65536, 65536, 65536), (5, 8, 65536)])  # of frames that are long; that are far apart
def test_convolutions_of_which_no_recording_is_long_enough_are_refused(strides: tuple[int, ...]) -> None:
    with pytest.raises(OptionError, match=r"conv_layers must be with frames of at most 960000 samples \(60 s\)"):
        replace(CONFIG, conv_layers=tuple((8, 8, stride) for stride in strides))


@dataclass(frozen=True)
class PaddedConfig:
    """A model whose frames are centred, so that the first reaches before the utterance and the last beyond it."""

    receptive_field: ClassVar[int] = 40
    min_samples: ClassVar[int] = 1
    first_sample: ClassVar[int] = -20
    upstream_shape: ClassVar[UpstreamShape] = UpstreamShape(("encoder", "context"), (3, 5), 10, 1000)


class PaddedModel(nn.Module):
    def forward(self, wavs: list[Tensor], layers: list[int]) -> tuple[list[Tensor], list[int]]:
        counts = [len(wav) // 10 + 1 for wav in wavs]
        return [torch.ones(sum(counts), (3, 5)[layer]) for layer in layers], counts


class PaddedUpstream(EncoderUpstream):
    config_class = PaddedConfig
    build_model = staticmethod(lambda config: PaddedModel())


def test_times_end_where_the_utterance_does() -> None:
    out = PaddedUpstream(PaddedConfig())([torch.randn(35), torch.randn(15)])
    assert [tuple(state.shape) for state in out.hidden_states] == [(2, 4, 3), (2, 4, 5)]
    assert out.lengths.tolist() == [4, 2] and (out.hidden_states[1][1, 2:] == 0).all()
    milliseconds = (1000 * out.frame_times()).round().int().tolist()
    assert milliseconds == [[[0, 20], [0, 30], [0, 35], [10, 35]], [[0, 15], [0, 15], [0, 0], [0, 0]]]
