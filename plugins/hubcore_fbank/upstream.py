"""`FbankUpstream`: waveforms to log mel energies, cepstra or spectra, for a whole batch at once.

Shapes: `B` batch, `T` samples, `F` frames, `D` columns, `N` samples of a frame, `K` frequency bins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hubcore.protocol import UpstreamOutput
from hubcore.ragged import pack_on_grid, regular_frame_times
from hubcore.upstream import UpstreamBase, check_config
from hubcore_fbank.components import (
    cepstral_matrix,
    deltas,
    lifter,
    mel_filters,
    mel_filters_in_hertz,
    mirror_edges,
    normalize_columns,
    power_spectrum,
    shape_frames,
    window_function,
)
from hubcore_fbank.config import CONFIGS, FbankConfig

# On a CPU, so many frames and what is computed from them stay in the cache, which halves the time and bounds the memory
# for long recordings; a GPU wants as much as fits.
_FRAMES_AT_ONCE = {"cpu": 512}
_FRAMES_AT_ONCE_ELSEWHERE = 1 << 16


class FbankUpstream(UpstreamBase):
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

    config_class: ClassVar[type[Any] | None] = FbankConfig
    configs: ClassVar[Mapping[str, Any]] = CONFIGS

    def __init__(self, config: FbankConfig) -> None:
        check_config(type(self), config)
        shape = config.upstream_shape
        super().__init__(
            layer_names=shape.layer_names,
            hidden_sizes=shape.hidden_sizes,
            frame_stride=shape.frame_stride,
            receptive_field=config.frame_length,
            min_samples=config.min_samples,
            sample_rate=shape.sample_rate,
        )
        self.config = config
        self._constants: dict[tuple[torch.device, torch.dtype], _Constants] = {}

    def forward(
        self,
        wavs: Sequence[Tensor] | Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        layers: Sequence[int] | None = None,
    ) -> UpstreamOutput:
        """The features of a batch of waveforms; see `hubcore.Upstream.forward`.

        Args:
            wavs: 1-D float tensors at `sample_rate`, full scale 1.0, or one `(B, T)` tensor.
            lengths: `(B,)` samples of each row, with a `(B, T)` tensor.
            layers: there is only index 0 (or -1); None means the same.

        Raises:
            AudioError: a waveform cannot be used; the message names the item.
            OptionError: a layer does not exist.
        """
        wavs = self.check_input(wavs, lengths)
        layers = self.check_layers(layers)
        dtype = wavs[0].dtype
        device = wavs[0].device.type
        # Autocast would take the mel product to half precision, where quiet energies underflow to 0.
        with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
            if dtype.itemsize < 4:
                wavs = [wav.float() for wav in wavs]
            features = [self.over_time(frames) for frames in self.frame_features(wavs)]
        # Without ragged.pad_packed, which would first need them end to end: one copy less, none for a single utterance.
        state = pad_sequence(features, batch_first=True) if len(features) > 1 else features[0][None]
        state = state.to(dtype)  # (B, F, D)
        counts = torch.tensor([len(rows) for rows in features], device=state.device)
        times = regular_frame_times(
            counts,
            state.shape[1],
            stride=self.config.frame_shift,
            span=self.config.frame_length,
            sample_rate=self.sample_rate,
            offset=self.config.first_frame,
        )
        return self.make_output([state for _ in layers], counts, layers, times)

    def frame_features(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """What depends on single frames only, `(F, base_dim)` for each waveform: everything but derivatives and CMVN."""
        config = self.config
        counts = [config.num_frames(len(wav)) for wav in wavs]
        if not config.snip_edges:
            wavs = [self._mirror(wav, count) for wav, count in zip(wavs, counts, strict=True)]
        signal, starts = pack_on_grid(wavs, config.frame_shift)
        if config.input_scale != 1.0:
            signal = signal * config.input_scale
        # Windows that straddle two utterances are computed too, and never used: fewer than three for each utterance.
        windows = signal.unfold(0, config.frame_length, config.frame_shift)  # (all windows, N), a view
        at_once = _FRAMES_AT_ONCE.get(signal.device.type, _FRAMES_AT_ONCE_ELSEWHERE)
        packed = torch.cat([self._compute(part) for part in torch.split(windows, at_once)])
        ends = [*starts[1:], len(packed)]
        sizes = [n for start, end, count in zip(starts, ends, counts, strict=True) for n in (count, end - start - count)]
        return list(torch.split(packed, sizes)[::2])

    def over_time(self, features: Tensor) -> Tensor:
        """`(F, D)` from the `(F, base_dim)` of one utterance: derivatives appended, columns normalised."""
        orders = [features]
        for _ in range(self.config.delta_order):
            orders.append(deltas(orders[-1], self.config.delta_window))
        features = torch.cat(orders, dim=1) if len(orders) > 1 else features
        return normalize_columns(features, self.config.cmvn_epsilon) if self.config.cmvn else features

    def _mirror(self, wav: Tensor, count: int) -> Tensor:
        config = self.config
        left = -config.first_frame
        right = (count - 1) * config.frame_shift + config.frame_length - left - len(wav)
        return mirror_edges(wav, left, max(right, 0), repeat_end=not config.center)

    def _compute(self, frames: Tensor) -> Tensor:
        """`(F, base_dim)` features of frames `(F, N)`."""
        config, constants = self.config, self._constants_for(frames)
        if config.dither:
            frames = frames + torch.randn_like(frames) * config.dither
        if config.remove_dc_offset:
            frames = frames - frames.mean(dim=1, keepdim=True)
        shaped = shape_frames(frames, constants.window, config.preemphasis, config.num_fft)
        spectrum = power_spectrum(shaped) if config.power == 2 else torch.fft.rfft(shaped).abs()  # (F, K)
        energies = spectrum if constants.filters is None else spectrum @ constants.filters
        features = self._log(energies, config.log_floor) if config.use_log else energies
        if constants.cepstra is not None:
            features = features @ constants.cepstra
        if constants.lifter is not None:
            features = features * constants.lifter
        if config.use_energy:
            energy = self._log_energy(frames if config.raw_energy else shaped)
            features = torch.cat([energy, features if config.kind == "fbank" else features[:, 1:]], dim=1)
        return features

    def _log_energy(self, frames: Tensor) -> Tensor:
        energy = frames.square().sum(dim=1, keepdim=True)
        return self._log(energy, max(self.config.log_floor, self.config.energy_floor))

    def _log(self, energies: Tensor, floor: float) -> Tensor:
        if self.config.log_offset:
            energies = energies + self.config.log_offset
        return energies.clamp(min=floor).log()

    def _constants_for(self, frames: Tensor) -> _Constants:
        key = (frames.device, frames.dtype)
        if key not in self._constants:
            # Made in inference mode they would be unusable in a later call that needs gradients.
            with torch.inference_mode(False):
                self._constants[key] = _constants(self.config, frames.device, frames.dtype)
        return self._constants[key]


class _Constants(NamedTuple):
    """What a config says in tensors of one device and dtype."""

    window: Tensor
    filters: Tensor | None
    cepstra: Tensor | None
    lifter: Tensor | None


def _constants(config: FbankConfig, device: torch.device, dtype: torch.dtype) -> _Constants:
    filters = cepstra = factors = None
    if config.kind != "spectrogram":
        build = mel_filters if config.mel_triangles == "mel" else mel_filters_in_hertz
        edges = (config.low_freq_hz, config.highest_hz)
        filters = build(config.num_mel_bins, config.num_fft, config.sample_rate, *edges, dtype).to(device)
    if config.kind == "mfcc":
        cepstra = cepstral_matrix(config.num_mel_bins, config.num_ceps, dtype).to(device)
        if config.cepstral_lifter:
            factors = lifter(config.num_ceps, config.cepstral_lifter, dtype).to(device)
    window = window_function(config.window, config.frame_length, dtype).to(device)
    return _Constants(window, filters, cepstra, factors)
