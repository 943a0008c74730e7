"""`OfaWav2Vec2Upstream`: OFA wav2vec 2.0 behind the uniform call, and `upsample`, back to a fixed rate.

Shapes: `B` batch, `T` samples, `F` frames, `D` dim.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from hubcore.checkpoints import Reader
from hubcore.errors import OptionError
from hubcore.nn.encoder_upstream import EncoderUpstream
from hubcore.nn.padded import PaddedWavs
from hubcore.panels import Panel
from hubcore.protocol import UpstreamOutput
from hubcore.ragged import Packed, frame_mask, pad_packed
from hubcore.strategy import few_calls, numbers_on, upload
from hubcore_ofa_wav2vec2.checkpoint import READER
from hubcore_ofa_wav2vec2.config import CONFIGS, DEFAULT_LAMBD, OfaWav2Vec2Config
from hubcore_ofa_wav2vec2.lambd import LOWEST, check_lambd, lambd_for_mass
from hubcore_ofa_wav2vec2.model import Compressed, OfaWav2Vec2Model, build_model

KeptTail = Literal["drop", "keep"]
AnyOfaWav2Vec2 = TypeVar("AnyOfaWav2Vec2", bound="OfaWav2Vec2Upstream")


class OfaWav2Vec2Upstream(EncoderUpstream):
    """wav2vec 2.0 at any frame rate from one set of weights (Once-for-All; Chen, Meng, Lee 2023).

    `lambd` slides the mean frame period from 20 ms (0) to what the predicted alpha gives (1, about 90 ms for the published
    checkpoint). Nothing is ever drawn at random: without a choice it is 0.5. Hidden states are those of wav2vec 2.0, over
    compressed frames. An utterance gives `floor(sum of mixed alpha)` frames, and one if that is none.

    `out.extras` holds `alpha` `(B, F0)` and `mixed_alpha` `(B, F0)`, F0 being convolutional frames, zero beyond
    `conv_lengths` `(B,)`; `lambd` `(B,)`; and `mean_frame_period_ms` `(B,)`. `out.frame_times()` is where alpha was spent:
    the frames of an utterance follow each other without gap or overlap.

    Example:
        >>> import torch
        >>> from hubcore_ofa_wav2vec2 import OfaWav2Vec2Upstream
        >>> model = OfaWav2Vec2Upstream.from_checkpoint("ofa_wav2vec2_tiny_prompts", lambd=0.0)
        >>> wavs = [torch.randn(16000), torch.randn(8000)]
        >>> model(wavs).lengths.tolist()
        [49, 24]
        >>> model(wavs, frame_period_ms=40).lengths.tolist()
        [24, 12]
    """

    config_class: ClassVar[type[OfaWav2Vec2Config]] = OfaWav2Vec2Config
    configs: ClassVar[Mapping[str, OfaWav2Vec2Config]] = CONFIGS
    reader: ClassVar[Reader[OfaWav2Vec2Config, OfaWav2Vec2Model]] = READER
    build_model = staticmethod(build_model)
    config: OfaWav2Vec2Config
    model: OfaWav2Vec2Model

    def __init__(
        self,
        config: OfaWav2Vec2Config,
        model: OfaWav2Vec2Model | None = None,
        *,
        lambd: float | Sequence[float] | Tensor | None = None,
        frame_period_ms: float | None = None,
        tail: KeptTail = "drop",
    ) -> None:
        """An upstream with fresh weights, or around a `model` that was built elsewhere with the same shapes.

        Args:
            config: the shape.
            model: what runs.
            lambd: the lambda of a call that passes none: 0 is 20 ms a frame, 1 about 90 ms; 0.5 if None.
            frame_period_ms: the mean frame period of each utterance instead, in milliseconds.
            tail: what happens to alpha left at the end: "drop", as the original, or "keep" as one more frame from 0.5 on.

        Raises:
            OptionError: both of lambd and frame_period_ms, or an impossible value.
        """
        super().__init__(config, model)
        if self.model.mixing != config.mixing:
            raise OptionError(
                f"the model has mixing={self.model.mixing}, but its config says {config.mixing}. Both must agree. "
                "Build the model from this config."
            )
        if tail not in get_args(KeptTail):
            raise OptionError(f"tail is {tail!r}. It must be 'drop' or 'keep'.")
        self.tail = tail
        self._lambd: Any = None
        self._frame_period_ms: float | None = None
        self._warned = False
        if lambd is not None and frame_period_ms is not None:
            raise OptionError(_BOTH)
        if lambd is not None:
            self.lambd = lambd
        if frame_period_ms is not None:
            self.frame_period_ms = frame_period_ms

    def __setattr__(self, name: str, value: Any) -> None:
        # torch would take a module or a parameter for itself, and the property would never hear of it.
        if name in ("lambd", "frame_period_ms") and isinstance(value, nn.Module | nn.Parameter):
            raise OptionError(
                f"{name} is a {type(value).__name__}. A default is a number that stays; one that is trained changes at every "
                "step. Pass its value at each call: model(wavs, lambd=adaptive())."
            )
        super().__setattr__(name, value)

    @property
    def lambd(self) -> Any:
        """The lambda used where a call says nothing: what was set, or 0.5; None while a frame period is set."""
        if self._frame_period_ms is not None or not self.config.mixing:
            return None
        return DEFAULT_LAMBD if self._lambd is None else self._lambd

    @lambd.setter
    def lambd(self, value: Any) -> None:
        if value is not None:
            checked = self._check_lambd(value, None, torch.device("cpu"))
            if not checked.requires_grad:  # plain numbers: an extraction records them, and compares them with what it recorded
                value = checked.tolist()
        self._lambd, self._frame_period_ms = value, None

    @property
    def frame_period_ms(self) -> float | None:
        """The mean frame period, in ms, that each utterance is brought to where a call says nothing; None if lambda rules."""
        return self._frame_period_ms

    @frame_period_ms.setter
    def frame_period_ms(self, value: float | None) -> None:
        if value is not None:
            self._frames_per_output(value)
            value = float(value)
        self._frame_period_ms = value

    @property
    def mean_frame_stride(self) -> int | None:
        """Samples from one frame to the next on average, where a frame period is set."""
        period = self._frame_period_ms
        return None if period is None else max(1, round(period * self.sample_rate / 1000))

    @property
    def options(self) -> dict[str, Any]:
        """The present choice of frame rate and tail, and of layers where one was made."""
        lambd = self.lambd
        if isinstance(lambd, Tensor):
            lambd = lambd.detach().tolist()
        return {**super().options, "lambd": lambd, "frame_period_ms": self._frame_period_ms, "tail": self.tail}

    @classmethod
    def from_file(
        cls: type[AnyOfaWav2Vec2],
        path: str | Path,
        *,
        config: OfaWav2Vec2Config | str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        lambd: float | Sequence[float] | Tensor | None = None,
        frame_period_ms: float | None = None,
        tail: KeptTail = "drop",
        keep_layers: Sequence[int] | None = None,
        dropout: float | None = None,
        attention_dropout: float | None = None,
        activation_dropout: float | None = None,
    ) -> AnyOfaWav2Vec2:
        """See `UpstreamBase.from_checkpoint`, for a local file.

        Lambda, frame period and tail are the constructor's; the rest is as in `SpeechEncoderUpstream.from_file`.
        """
        changes = {"dropout": dropout, "attention_dropout": attention_dropout, "activation_dropout": activation_dropout}
        build = partial(cls, lambd=lambd, frame_period_ms=frame_period_ms, tail=tail)
        return cls.read_file(path, config, changes, device, dtype, keep_layers, build=build)

    def forward(
        self,
        wavs: Sequence[Tensor] | Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        layers: Sequence[int] | None = None,
        lambd: float | Sequence[float] | Tensor | None = None,
        frame_period_ms: float | None = None,
    ) -> UpstreamOutput:
        """The hidden states of a batch of waveforms; see `hubcore.Upstream.forward`.

        Args:
            wavs: 1-D float tensors at 16 kHz, or one `(B, T)` tensor.
            lengths: `(B,)` samples of each row, with a `(B, T)` tensor.
            layers: indices into `layer_names`; all if None.
            lambd: a number, one for each utterance, or a tensor of either form, whose gradient is kept.
            frame_period_ms: a mean frame period instead, for which each utterance's lambda is found.

        Raises:
            AudioError: a waveform cannot be used.
            OptionError: a layer does not exist, or lambda is impossible, or this checkpoint has none.
        """
        rows = self.check_input(wavs, lengths)
        chosen = self.check_layers(layers)
        if lambd is not None and frame_period_ms is not None:
            raise OptionError(_BOTH)
        if frame_period_ms is None and lambd is None:
            frame_period_ms, lambd = self._frame_period_ms, self.lambd
        if lambd is not None:
            lambd = self._check_lambd(lambd, len(rows), rows[0].device).expand(len(rows))
        per_output = None if frame_period_ms is None else self._frames_per_output(frame_period_ms)
        result = self.model.compress(rows, chosen, lambd=lambd, frames_per_output=per_output, tail=self.tail)
        if per_output is not None and result.lambd is not None:
            self._warn_outside(result.lambd)
        return self._output(result, chosen)

    def padded(self, wavs: Tensor, lengths: Tensor, layers: Sequence[int]) -> tuple[list[Tensor], Tensor]:
        """See `EncoderUpstream.padded`; at the lambda or the frame period that is set, one for all utterances."""
        lambd, period = self.lambd, self._frame_period_ms
        if isinstance(lambd, Tensor | list):
            raise OptionError("lambd has one number for each utterance, and a graph for other programs one for all. Set that.")
        states, counts = self.model.compress_padded(
            PaddedWavs(wavs, lengths),
            layers,
            lambd=lambd,
            frames_per_output=None if period is None else self._frames_per_output(period),
            tail=self.tail,
        )
        return [counts.apart(counts.zeroed(state)) for state in states], counts.lengths

    @property
    def panel_variants(self) -> tuple[Mapping[str, Any], ...]:
        """The lambdas of the slider of `hubcore view`; see `hubcore.panels`."""
        return tuple({"lambd": step / 10} for step in range(11)) if self.config.mixing else ()

    def panels(self, wav: Tensor, variants: Sequence[Mapping[str, Any]]) -> Iterator[Panel]:
        """Panels for `hubcore plot`; see `hubcore.panels`."""
        from hubcore_ofa_wav2vec2.panels import draw_frames

        return draw_frames(self, wav, variants)

    def find_lambd(self, batches: Iterable[Sequence[Tensor]], *, frame_period_ms: float) -> float:
        """The one lambda at which a whole corpus has a mean frame period; runs the extractor only.

        Args:
            batches: batches of waveforms, read once.
            frame_period_ms: the period in ms.

        Raises:
            OptionError: an impossible period, or no waveforms.

        Example:
            >>> model = OfaWav2Vec2Upstream.from_checkpoint("ofa_wav2vec2_tiny_prompts")
            >>> 0 < model.find_lambd([[torch.randn(32000)]], frame_period_ms=30) < 1
            True
        """
        per_output = self._frames_per_output(frame_period_ms)
        mass, frames, utterances = 0.0, 0, 0
        with torch.no_grad():
            for wavs in batches:
                sums, counts = self.model.alpha_sums(self.check_input(wavs))
                mass, frames, utterances = mass + float(sums.sum()), frames + sum(counts), utterances + len(counts)
        if not frames:
            raise OptionError("the corpus has no waveforms. A lambda is found from what alpha is on them. Pass at least one.")
        wanted = frames / per_output
        if per_output > 1 and self.tail == "drop":
            wanted = min(wanted + utterances / 2, frames)  # each utterance drops half an output on average
        found = lambd_for_mass(*(torch.tensor(float(x), dtype=torch.float64) for x in (wanted, mass, frames)))
        return float(found)

    def _check_lambd(self, value: Any, count: int | None, device: torch.device) -> Tensor:
        if not self.config.mixing:
            raise OptionError(
                "this checkpoint was trained without mixing (mixup=False), so lambda has no meaning for it: its alpha fires as "
                "it is. Leave lambd and frame_period_ms out."
            )
        # Numbers are looked at before they are sent.
        lambd = check_lambd(value, count, device if isinstance(value, Tensor) else torch.device("cpu"))
        self._warn_outside(lambd)
        return lambd if isinstance(value, Tensor) else upload(lambd.numpy(), device)

    def _warn_outside(self, lambd: Tensor) -> None:
        """Warns, once, of a lambda that training never drew."""
        low, high = self.config.lambd_range
        known = lambd.detach().reshape(-1)
        if not self._warned and not few_calls(known.device) and bool(((known < low) | (known > high)).any()):
            self._warned = True
            outside = next(x for x in known.tolist() if not low <= x <= high)
            warnings.warn(
                f"lambda {outside:g} is outside the {low:g} to {high:g} that this checkpoint was trained for. It works as the "
                "mixing rule says, but the features were never trained at that rate. (Said once.)",
                UserWarning,
                stacklevel=_levels_to_caller(),
            )

    def _frames_per_output(self, period: Any) -> float:
        """A frame period in convolutional frames."""
        if not self.config.mixing:
            self._check_lambd(0.0, 1, torch.device("cpu"))
        if not isinstance(period, numbers.Real) or isinstance(period, bool) or not math.isfinite(period) or period <= 0:
            raise OptionError(f"frame_period_ms is {period!r}. It must be a number of milliseconds above 0, such as 45.")
        frames = float(period) * self.sample_rate / (1000 * self.model.extractor.stride)
        if frames * (1 - LOWEST) < 1:
            raise OptionError(
                f"frame_period_ms is {period!r}. It is in milliseconds, and at least a sixteenth of a convolutional frame, "
                "which is 20. 45 is usual."
            )
        return frames

    def _output(self, result: Compressed, layers: tuple[int, ...]) -> UpstreamOutput:
        stride = self.model.extractor.stride
        device = result.states[0].device
        lengths, frames = numbers_on(device, result.lengths), numbers_on(device, result.frames)
        seconds = result.spans.detach() * (stride / self.sample_rate)
        period = 1000 * stride / self.sample_rate
        extras = {
            "alpha": pad_packed(result.alpha[:, None], result.frames)[..., 0],
            "mixed_alpha": pad_packed(result.mixed_alpha[:, None], result.frames)[..., 0],
            "conv_lengths": frames,
            "mean_frame_period_ms": period * frames.to(torch.float32) / lengths,
        }
        if result.lambd is not None:
            extras["lambd"] = result.lambd
        return self.make_output(
            Packed(result.states, result.lengths), lengths, layers, pad_packed(seconds, result.lengths), extras
        )


def _levels_to_caller() -> int:
    """For `warnings.warn`: how far up the first frame is that belongs neither to hubcore nor to torch."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and str(frame.f_globals.get("__name__")).partition(".")[0].startswith(("hubcore", "torch")):
        level, frame = level + 1, frame.f_back
    return level


_BOTH = "both lambd and frame_period_ms were given. Each decides the frame rate. Choose one."


def upsample(out: UpstreamOutput, stride: int = 320, sample_rate: int = 16000) -> UpstreamOutput:
    """Compressed frames at a fixed rate again: each is repeated over its own time, for tasks that need 20 ms frames.

    A frame of the result is the compressed frame whose time holds its centre. It ends where the last compressed frame ends:
    what the compression dropped is not made up.

    Args:
        out: an output of `OfaWav2Vec2Upstream`.
        stride: samples between the frames of the result.
        sample_rate: samples per second, in Hz.

    Example:
        >>> import torch
        >>> from hubcore import hub
        >>> out = hub.load("ofa_wav2vec2_tiny_prompts")([torch.randn(32000)], frame_period_ms=40)
        >>> out.lengths.tolist(), 96 <= int(upsample(out).lengths) <= 99
        ([50], True)
    """
    if not isinstance(stride, int) or stride < 1:
        raise OptionError(f"stride is {stride}. It must be at least 1 sample; 320 is 20 ms at 16 kHz.")
    step = stride / sample_rate
    indices = []
    for row, length in zip(out.frame_times(), out.lengths.tolist(), strict=True):
        ends = row[:length, 1].contiguous()
        # The margin keeps an end that rounding put a hair below a boundary from costing a frame.
        count = max(1, math.floor(float(ends[-1]) / step + 1e-6))
        centres = (torch.arange(count, device=ends.device, dtype=ends.dtype) + 0.5) * step
        indices.append(torch.searchsorted(ends, centres, right=True).clamp_max(length - 1))
    counts = torch.tensor([len(index) for index in indices], dtype=torch.int64, device=out.lengths.device)
    longest = int(counts.max())
    padded = torch.stack([torch.nn.functional.pad(index, (0, longest - len(index))) for index in indices])  # (B, F)
    mask = frame_mask(counts, longest)
    rows = torch.arange(len(indices), device=padded.device)[:, None]
    states = tuple(state[rows, padded] * mask[..., None].to(state.dtype) for state in out.hidden_states)
    starts = torch.arange(longest, device=counts.device, dtype=torch.float64) * step
    times = torch.stack([starts, starts + step], dim=-1).expand(len(indices), longest, 2) * mask[..., None]
    extras = {**out.extras, "mean_frame_period_ms": torch.full_like(counts, 1000 * step, dtype=torch.float32)}
    return dataclasses.replace(out, hidden_states=states, lengths=counts, times=times, extras=extras)
