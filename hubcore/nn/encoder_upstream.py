"""`EncoderUpstream`: a model on packed frames behind the uniform call. A family adds its config, its model, its reader.

Shapes: `B` batch, `T` samples, `F` frames, `N` packed frames of all utterances, `D` dim.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from hubcore.card import UpstreamShape
from hubcore.checkpoints import Reader, open_checkpoint
from hubcore.errors import OptionError
from hubcore.nn.padded import PaddedWavs
from hubcore.nn.speech_encoder import build_speech_encoder
from hubcore.nn.transformer import Blocks, Encoder
from hubcore.options import unknown_option
from hubcore.protocol import UpstreamOutput
from hubcore.ragged import Packed, regular_frame_times
from hubcore.strategy import numbers_on
from hubcore.streaming import CHUNK_SECONDS, Chunk, in_frames, windows
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


AnyEncoder = TypeVar("AnyEncoder", bound="EncoderUpstream")


class UnreadBlock(nn.Module):
    """Stands for a block that `layers=` at load did not need, and that was not read; it has no weights."""


def _unread(what: str, deepest: int) -> OptionError:
    return OptionError(
        f"{what} is not available: the model was loaded with layers= up to {deepest}, and the blocks above were not read.",
        "Load it again without layers=, or with a higher one.",
    )


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
    reader: ClassVar[Reader[Any, Any]]
    """Reads the family's checkpoints."""
    most_samples: int | None = None
    """Most samples of an utterance that `padded` takes; None for any number."""

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
            num_layers=getattr(config, "num_layers", None),  # fewer than the hidden states, where heads follow the blocks
            sample_rate=shape.sample_rate,
        )
        self.config = config
        self.model = type(self).build_model(config) if model is None else model
        if self.num_layers != self._num_layers:
            raise OptionError(
                f"the model has {self.num_layers} blocks, but its config says {self._num_layers}. Both must agree. "
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
        """One name for each hidden state; none for the blocks that were cut off the model."""
        return self._layer_names[: self.num_layers + 1] + self._layer_names[self._num_layers + 1 :]

    @layer_names.setter
    def layer_names(self, names: Sequence[str]) -> None:
        self._layer_names = tuple(names)
        self._num_layers = len(names) - 1

    @property
    def hidden_sizes(self) -> tuple[int, ...]:
        """The width `D` of each hidden state."""
        return self._hidden_sizes[: self.num_layers + 1] + self._hidden_sizes[self._num_layers + 1 :]

    @hidden_sizes.setter
    def hidden_sizes(self, sizes: Sequence[int]) -> None:
        self._hidden_sizes = tuple(sizes)

    # Loading --------------------------------------------------------------------------------------------------------

    @classmethod
    def read_file(
        cls: type[AnyEncoder],
        path: str | Path,
        config: Any,
        changes: Mapping[str, Any],
        device: torch.device | str | None,
        dtype: torch.dtype | None,
        keep_layers: Sequence[int] | None = None,
        *,
        build: Callable[[Any, Any], AnyEncoder] | None = None,
    ) -> AnyEncoder:
        """Reads a file for the `from_file` of a family.

        Args:
            path: the file or folder.
            config: a config or the name of one, for a file without.
            changes: fields that replace those of the file's config, unless they are None.
            device: where the weights go.
            dtype: their type.
            keep_layers: blocks above the highest of these are not read.
            build: makes the upstream of a config and a model, where the constructor has options.
        """
        with open_checkpoint(path, cls.reader.layouts) as checkpoint:
            plan = cls.reader.plan(checkpoint, named_config(cls, config), changes)
            upstream = (build or cls)(plan.config, plan.model)
            if keep_layers is not None:
                upstream.leave_out_blocks(above=max(upstream.check_layers(keep_layers)))
            upstream.load_report = plan.fill(checkpoint, device, dtype).report
        return upstream.eval()

    # Blocks that were not read --------------------------------------------------------------------------------------

    @property
    def present_layers(self) -> int:
        """Number of hidden states, from the first on, whose blocks are there: all, unless `layers=` at load needed fewer."""
        absent = (index for index, block in enumerate(self.blocks) if isinstance(block, UnreadBlock))
        return next(absent, len(self.layer_names) - 1) + 1

    def leave_out_blocks(self, above: int) -> None:
        """Takes the blocks above hidden state `above` out of the model; names and number of layers stay.

        Example:
            >>> from hubcore import hub
            >>> model = hub.load("wav2vec2_tiny_prompts", layers=[2])
            >>> len(model.layer_names), model.present_layers
            (5, 3)
        """
        for index in range(above, len(self.blocks)):
            self.blocks[index] = UnreadBlock()

    def check_layers(self, layers: Sequence[int] | None) -> tuple[int, ...]:
        """See `UpstreamBase.check_layers`; a layer whose blocks were not read is an `OptionError` too."""
        chosen = super().check_layers(layers)
        if max(chosen) >= self.present_layers:
            raise _unread(f"layer {max(chosen)} of {type(self).__name__}", self.present_layers - 1)
        return chosen

    def save_checkpoint(self, path: str | Path) -> None:
        """See `UpstreamBase.save_checkpoint`; a model without some of its blocks cannot be saved."""
        if self.present_layers < len(self.layer_names):
            raise _unread(f"a whole {type(self).__name__}", self.present_layers - 1)
        super().save_checkpoint(path)

    # Fine-tuning ----------------------------------------------------------------------------------------------------

    @property
    def extractor(self) -> nn.Module | None:
        """The convolutional front of the model; None if it has none. A family that keeps it elsewhere overrides this."""
        return getattr(self.model, "extractor", None)

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks from input to output; empty if the model has none. A family that keeps them elsewhere overrides this."""
        return getattr(getattr(self.model, "encoder", None), "blocks", Blocks())

    @property
    def after_blocks(self) -> tuple[nn.Module, ...]:
        """Modules that run after the last block, such as the final norm of pre-norm models."""
        encoder = getattr(self.model, "encoder", None)
        return (encoder.norm,) if isinstance(encoder, Encoder) and encoder.pre_norm else ()

    def layer_groups(self) -> list[dict[str, Any]]:
        """Parameter groups by depth, from input to output, such as every optimizer of torch takes.

        `input` holds everything before the blocks, `block_k` block k, `output` what follows the last block. A parameter that
        blocks share belongs to the first of them. Each parameter is in one group, and no group is empty.

        Example:
            >>> from hubcore import hub
            >>> groups = hub.load("wav2vec2_tiny_prompts").layer_groups()
            >>> [group["name"] for group in groups]
            ['input', 'block_1', 'block_2', 'block_3', 'block_4']
            >>> rates = [1e-4 * 0.9**depth for depth in reversed(range(len(groups)))]  # layer-wise learning-rate decay
            >>> optimizer = torch.optim.AdamW([{**group, "lr": lr} for group, lr in zip(groups, rates)])
        """
        parts = {f"block_{k}": [*block.parameters()] for k, block in enumerate(self.blocks, start=1)}
        parts["output"] = [parameter for module in self.after_blocks for parameter in module.parameters()]
        seen = {parameter for inside in parts.values() for parameter in inside}
        groups = [{"name": "input", "params": [parameter for parameter in self.parameters() if parameter not in seen]}]
        for name, inside in parts.items():
            groups.append({"name": name, "params": [parameter for parameter in inside if parameter in seen]})
            seen.difference_update(inside)
        return [group for group in groups if group["params"]]

    def freeze_extractor(self: AnyEncoder) -> AnyEncoder:
        """Takes the convolutional front out of training, and returns the upstream. transformers: `freeze_feature_encoder`.

        Its parameters require no gradient from then on, so that no graph of it is kept in memory.

        Raises:
            OptionError: the model has no such part.

        Example:
            >>> from hubcore import hub
            >>> model = hub.load("wav2vec2_tiny_prompts", train=True).freeze_extractor()
            >>> {name.split(".")[1] for name, parameter in model.named_parameters() if not parameter.requires_grad}
            {'extractor'}
        """
        if self.extractor is None:
            raise OptionError(f"{type(self).__name__} has no convolutional extractor. There is nothing to freeze.")
        self.extractor.requires_grad_(False)
        return self

    @property
    def gradient_checkpointing(self) -> bool:
        """True if blocks in train mode keep only their inputs and run again in the backward pass: less memory, more time.

        It may be set at any time, or with `hub.load(..., gradient_checkpointing=True)`. Outputs and gradients stay the same.

        Example:
            >>> from hubcore import hub
            >>> model = hub.load("wav2vec2_tiny_prompts", train=True, gradient_checkpointing=True)
            >>> model.gradient_checkpointing
            True
        """
        return isinstance(self.blocks, Blocks) and self.blocks.gradient_checkpointing

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, value: bool) -> None:
        if not isinstance(value, bool):
            raise OptionError(f"gradient_checkpointing is {value!r}. It must be True or False.")
        if not isinstance(self.blocks, Blocks) or not len(self.blocks):
            raise unknown_option(type(self), "gradient_checkpointing", ())
        self.blocks.gradient_checkpointing = value

    # Running --------------------------------------------------------------------------------------------------------

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
        return self.timed_output(Packed(states, counts), counts, chosen, [len(row) for row in rows])

    def stream(
        self,
        wav: Tensor,
        *,
        layers: Sequence[int] | None = None,
        chunk_seconds: float = CHUNK_SECONDS,
        overlap_seconds: float | None = None,
        **call_options: Any,
    ) -> Iterator[Chunk]:
        """See `UpstreamBase.stream`.

        A model that has `in_parts`, `num_frames` and `encode` gives its features in parts, with the statistics of the whole
        waveform; only what follows them is computed in windows.
        """
        if not hasattr(self.model, "in_parts"):
            lengths: dict[str, Any] = {"chunk_seconds": chunk_seconds, "overlap_seconds": overlap_seconds}
            yield from super().stream(wav, layers=layers, **lengths, **call_options)
            return
        for name in call_options:
            raise unknown_option(type(self), name, ("layers", "chunk_seconds", "overlap_seconds"))
        chunk, overlap = in_frames(self, chunk_seconds, overlap_seconds)
        (row,), chosen, model = self.check_input([wav]), self.check_layers(layers), cast("Any", self.model)
        parts, stride, base, there = model.in_parts(row), cast("int", self.frame_stride), 0, 0
        held: list[Tensor] = []
        for low, first, end, high in windows(model.num_frames(len(row)), chunk, overlap):
            while there < high:
                held.append(next(parts))
                there += len(held[-1])
            features = torch.cat(held)[low - base :]
            held, base = [features], low
            states = model.encode(features[: high - low], [high - low], chosen)
            begins = torch.arange(first, end, device=row.device, dtype=torch.float64) * stride + self.config.first_sample
            times = torch.stack([begins, begins + self.receptive_field], dim=-1) / self.sample_rate
            yield Chunk(first, tuple(state[first - low : end - low] for state in states), times)

    def padded(self, wavs: Tensor, lengths: Tensor, layers: Sequence[int]) -> tuple[list[Tensor], Tensor]:
        """`forward` in the form that is traced for other programs: one graph for any batch, nothing checked.

        Args:
            wavs: `(B, T)` samples; those beyond a length do not matter.
            lengths: `(B,)` samples of each row.
            layers: indices into `layer_names`, not negative.

        Returns:
            The hidden states `(B, F, D)`, 0 beyond the frames of each, and those, `(B,)`.

        Raises:
            OptionError: the model uses single utterances where the parts of `hubcore.nn` can do without.

        Example:
            >>> from hubcore import hub
            >>> (state,), frames = hub.load("wav2vec2_tiny_prompts").padded(torch.randn(2, 800), torch.tensor([400, 800]), [4])
            >>> state.shape, frames.tolist()
            (torch.Size([2, 2, 96]), [1, 2])
        """
        states, counts = self.model(PaddedWavs(wavs, lengths), layers)
        return [counts.apart(counts.zeroed(state)) for state in states], counts.lengths

    def timed_output(
        self,
        states: Sequence[Tensor] | Packed,
        counts: Sequence[int],
        layers: Sequence[int],
        samples: Sequence[int] | None = None,
        extras: Mapping[str, Any] | None = None,
    ) -> UpstreamOutput:
        """The output for hidden states `(B, F, D)`, with the times of frames at a constant stride.

        Args:
            states: hidden states of the layers `layers`; `Packed` ones are padded when they are read.
            counts: frames of each utterance.
            layers: indices into `layer_names`.
            samples: samples of each utterance, at whose ends times stop; if None they reach as far as the frames do.
            extras: tensors that only this family gives.
        """
        if self.frame_stride is None:
            raise OptionError(f"{type(self).__name__} has no constant frame stride. Its forward must say when each frame was.")
        frames = numbers_on(states[0].device, counts)
        times = regular_frame_times(
            frames,
            max(counts),
            stride=self.frame_stride,
            span=self.receptive_field,
            sample_rate=self.sample_rate,
            offset=self.config.first_sample,
        )
        if samples is not None:
            ends = numbers_on(times.device, samples).to(times.dtype) / self.sample_rate
            times = times.clamp(min=0).minimum(ends[:, None, None])
        return self.make_output(states, frames, layers, times, extras)


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

    build_model: Callable[..., nn.Module] = staticmethod(build_speech_encoder)

    @classmethod
    def from_file(
        cls: type[AnySpeechEncoder],
        path: str | Path,
        *,
        config: Any = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        keep_layers: Sequence[int] | None = None,
        dropout: float | None = None,
        attention_dropout: float | None = None,
        activation_dropout: float | None = None,
    ) -> AnySpeechEncoder:
        """See `UpstreamBase.from_checkpoint`, for a local file.

        The dropouts replace the file's. Blocks above the highest of `keep_layers` are not read.
        """
        changes = {"dropout": dropout, "attention_dropout": attention_dropout, "activation_dropout": activation_dropout}
        return cls.read_file(path, config, changes, device, dtype, keep_layers)


AnySpeechEncoder = TypeVar("AnySpeechEncoder", bound=SpeechEncoderUpstream)


class ConformerUpstream(SpeechEncoderUpstream):
    """An upstream around an encoder of conformer blocks, whose convolution has a dropout of its own.

    Example:
        >>> from hubcore.options import option_names
        >>> class AcmeUpstream(ConformerUpstream):
        ...     pass
        >>> "conv_dropout" in option_names(AcmeUpstream, with_weights=True)
        True
    """

    @classmethod
    def from_file(
        cls: type[AnyConformer],
        path: str | Path,
        *,
        config: Any = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        keep_layers: Sequence[int] | None = None,
        dropout: float | None = None,
        attention_dropout: float | None = None,
        activation_dropout: float | None = None,
        conv_dropout: float | None = None,
    ) -> AnyConformer:
        """See `SpeechEncoderUpstream.from_file`."""
        changes = {
            "dropout": dropout,
            "attention_dropout": attention_dropout,
            "activation_dropout": activation_dropout,
            "conv_dropout": conv_dropout,
        }
        return cls.read_file(path, config, changes, device, dtype, keep_layers)


AnyConformer = TypeVar("AnyConformer", bound=ConformerUpstream)
