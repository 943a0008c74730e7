"""Parts of speech encoders on packed frames, for every family and for third parties. Imports no torch until used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore.nn.alibi import Alibi as Alibi
    from hubcore.nn.attention import FrameBias as FrameBias
    from hubcore.nn.attention import GatedSelfAttention as GatedSelfAttention
    from hubcore.nn.attention import MultiHeadAttention as MultiHeadAttention
    from hubcore.nn.attention import RelativePositionBias as RelativePositionBias
    from hubcore.nn.attention import SelfAttention as SelfAttention
    from hubcore.nn.attention import attend as attend
    from hubcore.nn.conformer import ConformerBlock as ConformerBlock
    from hubcore.nn.conformer import ConformerConv as ConformerConv
    from hubcore.nn.conformer import build_conformer as build_conformer
    from hubcore.nn.conformer_config import ConformerConfig as ConformerConfig
    from hubcore.nn.conv import ConvExtractor as ConvExtractor
    from hubcore.nn.conv import FrameConv as FrameConv
    from hubcore.nn.conv import plain_features as plain_features
    from hubcore.nn.encoder_upstream import ConformerUpstream as ConformerUpstream
    from hubcore.nn.encoder_upstream import EncoderUpstream as EncoderUpstream
    from hubcore.nn.encoder_upstream import SpeechEncoderUpstream as SpeechEncoderUpstream
    from hubcore.nn.filterbank import Filterbank as Filterbank
    from hubcore.nn.filterbank import LogMelWindow as LogMelWindow
    from hubcore.nn.filterbank_config import FilterbankConfig as FilterbankConfig
    from hubcore.nn.packed import conv_same as conv_same
    from hubcore.nn.packed import conv_strided as conv_strided
    from hubcore.nn.packed import group_norm as group_norm
    from hubcore.nn.packed import run_recurrent as run_recurrent
    from hubcore.nn.positions import BatchNormPositionalConv as BatchNormPositionalConv
    from hubcore.nn.positions import PositionalConv as PositionalConv
    from hubcore.nn.positions import StackedPositionalConv as StackedPositionalConv
    from hubcore.nn.products import linear as linear
    from hubcore.nn.products import run_linear as run_linear
    from hubcore.nn.relative import RelativeAttention as RelativeAttention
    from hubcore.nn.relative import RelativeKeyAttention as RelativeKeyAttention
    from hubcore.nn.relative import RelativePositions as RelativePositions
    from hubcore.nn.relative import RotaryAttention as RotaryAttention
    from hubcore.nn.relative import RotaryPositions as RotaryPositions
    from hubcore.nn.relative import by_distance as by_distance
    from hubcore.nn.speech_encoder import SpeechEncoder as SpeechEncoder
    from hubcore.nn.speech_encoder import build_blocks as build_blocks
    from hubcore.nn.speech_encoder import build_encoder as build_encoder
    from hubcore.nn.speech_encoder import build_extractor as build_extractor
    from hubcore.nn.speech_encoder import build_feature_norm as build_feature_norm
    from hubcore.nn.speech_encoder import build_projection as build_projection
    from hubcore.nn.speech_encoder import build_speech_encoder as build_speech_encoder
    from hubcore.nn.speech_encoder import build_waveform_encoder as build_waveform_encoder
    from hubcore.nn.speech_encoder_config import BlocksConfig as BlocksConfig
    from hubcore.nn.speech_encoder_config import SpeechEncoderConfig as SpeechEncoderConfig
    from hubcore.nn.speech_encoder_config import WaveformEncoderConfig as WaveformEncoderConfig
    from hubcore.nn.transformer import Block as Block
    from hubcore.nn.transformer import Blocks as Blocks
    from hubcore.nn.transformer import Encoder as Encoder
    from hubcore.nn.transformer import FeedForward as FeedForward

__getattr__, __dir__ = lazy_exports(__name__)
