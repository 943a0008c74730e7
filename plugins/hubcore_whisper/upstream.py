"""`WhisperUpstream`: the encoder of Whisper behind the uniform call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args

import torch
from torch import Tensor

from hubcore.checkpoints import Reader
from hubcore.errors import AudioError, OptionError
from hubcore.nn.encoder_upstream import SpeechEncoderUpstream
from hubcore.nn.padded import PaddedWavs
from hubcore.protocol import UpstreamOutput
from hubcore.ragged import Packed
from hubcore.streaming import CHUNK_SECONDS, Chunk
from hubcore_whisper.checkpoint import READER
from hubcore_whisper.config import CONFIGS, WhisperConfig
from hubcore_whisper.model import WhisperEncoder

Long = Literal["error", "chunk"]
AnyWhisper = TypeVar("AnyWhisper", bound="WhisperUpstream")


class WhisperUpstream(SpeechEncoderUpstream):
    """The encoder of Whisper (Radford et al. 2023): the input of every block, then the encoder's output.

    Hidden state 0 (`input`) is the convolutions' frames with positions. Hidden state k (`block_k`) is the output of block k,
    counted from 1; the last includes the final layer norm. These are transformers' `hidden_states`.

    **Every utterance is padded to 30 s by itself**, as the original does: silence up to there is part of the function that
    was trained. The frames of the silence are left out of the result: `n` samples give `ceil(n / 320)` frames. "Alone" means
    padded to 30 s, and a batch changes nothing. Two options depart from that, and are recorded by extractions:

    - `long="chunk"` cuts audio beyond 30 s into windows of 30 s, each encoded by itself. It is an `AudioError` otherwise.
    - `pad=False` pads an utterance to a whole frame only. That is much faster, but gives other numbers than the original: the
      blocks attend to the silence. Compare such features with each other only.

    `out.extras` holds `windows` `(B,)`, the windows of each utterance, and `pad`.

    Example:
        >>> import torch
        >>> from hubcore_whisper import WhisperUpstream
        >>> model = WhisperUpstream.from_config("tiny", dim=96, num_layers=2)
        >>> out = model([torch.randn(16000), torch.randn(8000)])
        >>> [tuple(h.shape) for h in out.hidden_states], out.lengths.tolist()
        ([(2, 50, 96), (2, 50, 96), (2, 50, 96)], [50, 25])
    """

    config_class: ClassVar[type[WhisperConfig]] = WhisperConfig
    configs: ClassVar[Mapping[str, WhisperConfig]] = CONFIGS
    reader: ClassVar[Reader[WhisperConfig, WhisperEncoder]] = READER
    build_model = WhisperEncoder
    config: WhisperConfig
    model: WhisperEncoder

    def __init__(
        self, config: WhisperConfig, model: WhisperEncoder | None = None, *, long: Long = "error", pad: bool = True
    ) -> None:
        """An upstream with fresh weights, or around a `model` that was built elsewhere from the same config.

        Args:
            config: the shape.
            model: the encoder.
            long: what happens to audio beyond 30 s: "error", or "chunk" to encode windows of 30 s one by one.
            pad: False pads utterances to a whole frame only, instead of 30 s: much faster, other numbers.

        Raises:
            OptionError: an impossible value.
        """
        super().__init__(config, model)
        self.long, self.pad = _checked(long, pad)

    @property
    def most_samples(self) -> int:  # type: ignore[override]
        """Most samples that `padded` takes: one window."""
        return self.config.window_samples

    @property
    def options(self) -> dict[str, Any]:
        """The choices for long audio and for padding, and of layers where one was made."""
        return {**super().options, "long": self.long, "pad": self.pad}

    @classmethod
    def from_file(
        cls: type[AnyWhisper],
        path: str | Path,
        *,
        config: WhisperConfig | str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        long: Long = "error",
        pad: bool = True,
        dropout: float | None = None,
        attention_dropout: float | None = None,
        activation_dropout: float | None = None,
        keep_layers: Sequence[int] | None = None,
    ) -> AnyWhisper:
        """See `SpeechEncoderUpstream.from_file`; `long` and `pad` are the constructor's."""
        changes = {"dropout": dropout, "attention_dropout": attention_dropout, "activation_dropout": activation_dropout}
        return cls.read_file(path, config, changes, device, dtype, keep_layers, build=partial(cls, long=long, pad=pad))

    def forward(
        self,
        wavs: Sequence[Tensor] | Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        layers: Sequence[int] | None = None,
        long: Long | None = None,
        pad: bool | None = None,
    ) -> UpstreamOutput:
        """The hidden states of a batch of waveforms; see `hubcore.Upstream.forward`.

        Args:
            wavs: 1-D float tensors at 16 kHz, or one `(B, T)` tensor.
            lengths: `(B,)` samples of each row, with a `(B, T)` tensor.
            layers: indices into `layer_names`; all if None.
            long: as in the constructor, for this call.
            pad: as in the constructor, for this call.

        Raises:
            AudioError: a waveform cannot be used, or is longer than 30 s.
            OptionError: a layer does not exist, or an impossible value.
        """
        rows = self.check_input(wavs, lengths)
        chosen = self.check_layers(layers)
        long, pad = _checked(self.long if long is None else long, self.pad if pad is None else pad)
        window = self.config.window_samples
        for index, row in enumerate(rows):
            if len(row) > window and long == "error":
                lasts, hears = (f"{count} samples ({count / self.sample_rate:.1f} s)" for count in (len(row), window))
                what = f"item {index} has {lasts}. Whisper hears {hears} at most."
                raise AudioError(what, "Cut it, or pass long='chunk' to encode windows of that length one by one.")
        states, counts = self.model(rows, chosen, pad=pad)
        samples = [len(row) for row in rows]
        windows = torch.tensor([-(-count // window) for count in samples], device=rows[0].device)
        return self.timed_output(Packed(states, counts), counts, chosen, samples, {"windows": windows, "pad": pad})

    def stream(
        self,
        wav: Tensor,
        *,
        layers: Sequence[int] | None = None,
        chunk_seconds: float = CHUNK_SECONDS,
        overlap_seconds: float | None = None,
        **call_options: Any,
    ) -> Iterator[Chunk]:
        """Chunks of 30 s, as the checkpoint was trained on: the numbers of `long="chunk"`. See `UpstreamBase.stream`.

        Raises:
            OptionError: other chunks, or an overlap, were asked for.
        """
        window = self.config.window_samples
        if chunk_seconds * self.sample_rate != window or overlap_seconds:
            what = "Whisper has chunks of its own, of 30 s without an overlap."
            raise OptionError(what, fix="Pass chunk_seconds=30 and overlap_seconds=0, or leave them out.")
        for first in range(0, len(wav), window):
            out = self([wav[first : first + window]], layers=layers, **call_options)
            states = tuple(state[0] for state in out.hidden_states)
            yield Chunk(first // self.config.frame_stride, states, out.frame_times()[0] + first / self.sample_rate)

    def padded(self, wavs: Tensor, lengths: Tensor, layers: Sequence[int]) -> tuple[list[Tensor], Tensor]:
        """See `EncoderUpstream.padded`; for waveforms of one window, with the constructor's choice of `pad`."""
        if self.long != "error":
            raise OptionError("a graph for other programs encodes one window of 30 s. Load the model with long='error'.")
        states, counts = self.model(PaddedWavs(wavs, lengths), layers, pad=self.pad)
        return [counts.apart(counts.zeroed(state)) for state in states], counts.lengths


def _checked(long: Any, pad: Any) -> tuple[Long, bool]:
    if long not in get_args(Long):
        raise OptionError(f"long is {long!r}. It must be 'error' or 'chunk'.")
    if not isinstance(pad, bool):
        raise OptionError(f"pad is {pad!r}. It must be True or False.")
    return long, pad
