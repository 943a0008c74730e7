"""`FbankUpstream`: waveforms to log mel energies, cepstra or spectra, for a whole batch at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hubcore.nn.encoder_upstream import EncoderUpstream
from hubcore.nn.filterbank import Filterbank
from hubcore.protocol import UpstreamOutput
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
    config: FbankConfig
    model: Filterbank

    def forward(
        self,
        wavs: Sequence[Tensor] | Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        layers: Sequence[int] | None = None,
    ) -> UpstreamOutput:
        """The features of a batch of waveforms; see `hubcore.Upstream.forward`. There is only layer 0 (or -1)."""
        rows = self.check_input(wavs, lengths)
        chosen = self.check_layers(layers)
        features = self.model.features(rows)
        # Padded without being packed first: one copy less, none for a single utterance.
        state = pad_sequence(features, batch_first=True) if len(features) > 1 else features[0][None]  # (B, F, D)
        return self.timed_output([state for _ in chosen], [len(frames) for frames in features], chosen)
