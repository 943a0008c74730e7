"""`FbankUpstream`: waveforms to log mel energies, cepstra or spectra, for a whole batch at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from hubcore.nn.encoder_upstream import EncoderUpstream
from hubcore.nn.filterbank import Filterbank
from hubcore_fbank.config import CONFIGS, FbankConfig


class FbankUpstream(EncoderUpstream):
    """Signal features with one hidden state and no weights: Kaldi-compatible ones, or the centred STFT's.

    Features are computed on the device of the waveforms and in their dtype (float16 and bfloat16 in float32, then
    rounded), and gradients reach the waveforms. An utterance's features are the same in every batch: frames, mirror
    images, derivatives and CMVN use its own samples only, and their number depends on the number of samples alone.

    Trailing zeros are audio. s3prl's `mel` and `linear` take zeros at the end of a waveform for padding, so that silence
    appended to an utterance disappears there, and a batch-mate changes the last frames; here neither happens.

    `hidden_states` is one `(B, F, D)` tensor, named `features`. `frame_times()` of a `center` or mirrored frame reaches
    beyond the waveform where the frame does: with `center`, frame f starts half a frame before `f * frame_shift`.

    Example:
        >>> import torch
        >>> upstream = FbankUpstream.from_config("fbank")
        >>> out = upstream([torch.randn(16000), torch.randn(8000)])
        >>> tuple(out.last_hidden_state.shape), out.lengths.tolist()
        ((2, 98, 240), [98, 48])
        >>> FbankUpstream(CONFIGS["mel"]).hidden_sizes
        (80,)
    """

    config_class: ClassVar[type[FbankConfig]] = FbankConfig
    configs: ClassVar[Mapping[str, FbankConfig]] = CONFIGS
    build_model = Filterbank
    clip_times = False
    config: FbankConfig
    model: Filterbank
