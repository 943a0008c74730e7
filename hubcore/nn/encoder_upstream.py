"""`EncoderUpstream`: a model on packed frames behind the uniform call. A family adds its config, its model, its reader.

Shapes: `B` batch, `T` samples, `F` frames, `N` packed frames of all utterances, `D` dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor, nn

from hubcore.card import UpstreamShape
from hubcore.checkpoints import Reader
from hubcore.errors import OptionError
from hubcore.nn.speech_encoder import build_speech_encoder
from hubcore.protocol import UpstreamOutput
from hubcore.ragged import pad_packed, regular_frame_times
from hubcore.upstream import UpstreamBase, check_config, named_config


class EncoderConfig(Protocol):
    """Fields that `EncoderUpstream` needs of a family's config; `SpeechEncoderConfig` has them all."""

    @property
    def upstream_shape(self) -> UpstreamShape:
        """Names and widths of the hidden states, frame stride, sample rate."""
        ...

    @property
    def receptive_field(self) -> int:
        """Samples that one frame is computed from, before any context of blocks."""
        ...

    @property
    def min_samples(self) -> int:
        """Fewest samples that give a frame."""
        ...

    @property
    def first_sample(self) -> int:
        """The sample at which frame 0 starts; below 0 where padded convolutions reach before the utterance."""
        ...


class EncoderUpstream(UpstreamBase):
    """An upstream around `model(wavs, layers) -> ([(N, D) for each layer], [frames of each utterance])`.

    It checks the batch, pads the hidden states, and tells when each frame was. A subclass names its config class, its
    configs and its builder, and writes `from_file`.

    Example:
        >>> import torch
        >>> from hubcore.nn import EncoderUpstream, SpeechEncoderConfig, build_speech_encoder
        >>> class AcmeUpstream(EncoderUpstream):
        ...     config_class = SpeechEncoderConfig
        ...     build_model = staticmethod(build_speech_encoder)
        >>> out = AcmeUpstream(SpeechEncoderConfig(dim=96, num_layers=2))([torch.randn(16000), torch.randn(8000)])
        >>> [tuple(state.shape) for state in out.hidden_states], out.lengths.tolist()
        ([(2, 49, 96), (2, 49, 96), (2, 49, 96)], [49, 24])
    """

    build_model: Callable[..., nn.Module]
    """Makes the model of a config, with fresh weights."""

    def __init__(self, config: EncoderConfig, model: nn.Module | None = None) -> None:
        """An upstream with fresh weights, or around a `model` that was built elsewhere from the same config."""
        check_config(type(self), config)
        shape = config.upstream_shape
        super().__init__(
            layer_names=shape.layer_names,
            hidden_sizes=shape.hidden_sizes,
            frame_stride=shape.frame_stride,
            receptive_field=config.receptive_field,
            min_samples=config.min_samples,
            sample_rate=shape.sample_rate,
        )
        self.config = config
        self.model = type(self).build_model(config) if model is None else model
        if self.num_layers != len(shape.layer_names) - 1:
            raise OptionError(
                f"the model has {self.num_layers} blocks, but its config says {len(shape.layer_names) - 1}. Both must agree. "
                "Build the model from this config, or pass the config that it was built from."
            )

    @property
    def num_layers(self) -> int:
        """Number of blocks: those of the model, also where it was cut."""
        return getattr(getattr(self, "model", None), "num_layers", self._num_layers)

    @num_layers.setter
    def num_layers(self, count: int) -> None:
        self._num_layers = count

    @property
    def layer_names(self) -> tuple[str, ...]:
        """One name for each hidden state."""
        return self._layer_names[: self.num_layers + 1]

    @layer_names.setter
    def layer_names(self, names: Sequence[str]) -> None:
        self._layer_names = tuple(names)
        self._num_layers = len(names) - 1

    @property
    def hidden_sizes(self) -> tuple[int, ...]:
        """The width `D` of each hidden state."""
        return self._hidden_sizes[: self.num_layers + 1]

    @hidden_sizes.setter
    def hidden_sizes(self, sizes: Sequence[int]) -> None:
        self._hidden_sizes = tuple(sizes)

    def forward(
        self,
        wavs: Sequence[Tensor] | Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        layers: Sequence[int] | None = None,
    ) -> UpstreamOutput:
        """The hidden states of a batch of waveforms; see `hubcore.Upstream.forward`."""
        rows = self.check_input(wavs, lengths)
        chosen = self.check_layers(layers)
        states, counts = self.model(rows, chosen)
        padded = [pad_packed(state, counts) for state in states]  # (B, F, D) each
        return self.timed_output(padded, counts, chosen, [len(row) for row in rows])

    def timed_output(
        self, states: Sequence[Tensor], counts: Sequence[int], layers: Sequence[int], samples: Sequence[int] | None = None
    ) -> UpstreamOutput:
        """The output for hidden states `(B, F, D)`, with the times of frames at a constant stride.

        Args:
            states: hidden states of the layers `layers`.
            counts: frames of each utterance.
            layers: indices into `layer_names`.
            samples: samples of each utterance, at whose ends times stop; if None they reach as far as the frames do.
        """
        if self.frame_stride is None:
            raise OptionError(f"{type(self).__name__} has no constant frame stride. Its forward must say when each frame was.")
        frames = torch.tensor(counts, dtype=torch.int64, device=states[0].device)
        times = regular_frame_times(
            frames,
            states[0].shape[1],
            stride=self.frame_stride,
            span=self.receptive_field,
            sample_rate=self.sample_rate,
            offset=self.config.first_sample,
        )
        if samples is not None:
            ends = torch.tensor(samples, dtype=times.dtype, device=times.device) / self.sample_rate
            times = times.clamp(min=0).minimum(ends[:, None, None])
        return self.make_output(states, frames, layers, times)


class SpeechEncoderUpstream(EncoderUpstream):
    """An upstream around a `SpeechEncoder`: wav2vec 2.0, HuBERT and other families of that shape.

    A family names its `config_class`, its `configs` and its `reader`.

    Example:
        >>> from hubcore.nn import SpeechEncoderConfig
        >>> class AcmeUpstream(SpeechEncoderUpstream):
        ...     config_class = SpeechEncoderConfig
        >>> AcmeUpstream(SpeechEncoderConfig(dim=96, num_layers=2)).hidden_sizes
        (96, 96, 96)
    """

    build_model = staticmethod(build_speech_encoder)
    reader: ClassVar[Reader[Any, Any]]
    """Reads the family's checkpoints."""

    @classmethod
    def from_file(
        cls: type[AnySpeechEncoder],
        path: str | Path,
        *,
        config: Any = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        dropout: float | None = None,
        attention_dropout: float | None = None,
        activation_dropout: float | None = None,
    ) -> AnySpeechEncoder:
        """See `UpstreamBase.from_checkpoint`, for a local file; the dropouts replace the file's."""
        changes = {"dropout": dropout, "attention_dropout": attention_dropout, "activation_dropout": activation_dropout}
        loaded = cls.reader.read(path, named_config(cls, config), changes=changes, device=device, dtype=dtype)
        upstream = cls(loaded.config, loaded.model)
        upstream.load_report = loaded.report
        return upstream.eval()


AnySpeechEncoder = TypeVar("AnySpeechEncoder", bound=SpeechEncoderUpstream)
