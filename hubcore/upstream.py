"""`UpstreamBase`: what most families share. A family writes `__init__` and `forward`; nothing is hidden in between.

A third-party class may inherit it or only satisfy `hubcore.Upstream`. Shapes: `B` batch, `T` samples, `F` frames, `D` dim.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from hubcore.card import Card
from hubcore.checkpoints.report import LoadReport
from hubcore.errors import AudioError, CheckpointLayoutError, OptionError
from hubcore.layer_sum import LayerSum
from hubcore.loading import load_checkpoint
from hubcore.options import check_options, option_names, pop_attributes, set_attributes, unknown_option
from hubcore.protocol import UpstreamOutput
from hubcore.ragged import Packed, check_wavs, layer_indices
from hubcore.sources.resolve import find_checkpoint
from hubcore.strategy import few_calls, send
from hubcore.streaming import CHUNK_SECONDS, Chunk, stream_windows
from hubcore.text import listed

AnyUpstream = TypeVar("AnyUpstream", bound="UpstreamBase")


class UpstreamBase(nn.Module):
    """A convenient base of `hubcore.Upstream`: input checks, layer selection, output, loading, saving.

    A subclass sets the attributes of the contract in `__init__` and writes `forward`:

    Example:
        >>> import torch
        >>> from hubcore import UpstreamBase
        >>> from hubcore.ragged import pad_packed, regular_frame_times
        >>> class LoudnessUpstream(UpstreamBase):
        ...     def __init__(self):
        ...         super().__init__(layer_names=("loudness",), hidden_sizes=(1,), frame_stride=160, receptive_field=160)
        ...     def forward(self, wavs, lengths=None, *, layers=None):
        ...         wavs = self.check_input(wavs, lengths)
        ...         layers = self.check_layers(layers)
        ...         frames = [w[: len(w) // 160 * 160].view(-1, 160).square().mean(1, keepdim=True) for w in wavs]
        ...         state = pad_packed(torch.cat(frames), [len(f) for f in frames])
        ...         counts = torch.tensor([len(f) for f in frames], device=state.device)
        ...         times = regular_frame_times(counts, state.shape[1], stride=160, span=160, sample_rate=16000)
        ...         return self.make_output([state for _ in layers], counts, layers, times)
        >>> LoudnessUpstream()([torch.zeros(16000)]).last_hidden_state.shape
        torch.Size([1, 100, 1])
    """

    config_class: ClassVar[type[Any] | None] = None
    """The family's config, a frozen dataclass."""
    configs: ClassVar[Mapping[str, Any]] = {}
    """The family's named configs (`CONFIGS`)."""

    _version: int = 1
    """Version of the names and shapes in `state_dict()`, which `load_state_dict` compares. A family raises it when it changes
    one. It is torch's own attribute, and torch writes it into every state dict."""
    _call_options: ClassVar[tuple[str, ...] | None] = None
    """The names that `forward` takes; None if it takes any."""

    def __init__(
        self,
        *,
        layer_names: Sequence[str],
        hidden_sizes: Sequence[int],
        frame_stride: int | None,
        receptive_field: int,
        min_samples: int | None = None,
        num_layers: int | None = None,
        sample_rate: int = 16000,
    ) -> None:
        """Attributes of the contract; `min_samples` defaults to `receptive_field`, `num_layers` to one per state but one."""
        super().__init__()
        self.sample_rate = sample_rate
        self.layer_names = tuple(layer_names)
        self.hidden_sizes = tuple(hidden_sizes)
        self.num_layers = len(self.layer_names) - 1 if num_layers is None else num_layers
        self.frame_stride = frame_stride
        self.receptive_field = receptive_field
        self.min_samples = receptive_field if min_samples is None else min_samples
        self.card: Card | None = None
        self.load_report: LoadReport | None = None
        self._default_layers: tuple[int, ...] | None = None

    # Building -------------------------------------------------------------------------------------------------------

    @classmethod
    def from_config(cls: type[AnyUpstream], config: Any = None, **options: Any) -> AnyUpstream:
        """A fresh upstream from a config or a named one, with any field of the config overridden by keyword.

        Args:
            config: a `config_class`, one of the names in `configs`, or None for the first of those.
            **options: fields of the config, keywords of the class itself, `layers` for `default_layers`, and
                `gradient_checkpointing` where the class has it; an unknown one is an error.

        Raises:
            OptionError: no such named config, or no such option.

        Example:
            >>> from hubcore_fbank import FbankUpstream
            >>> FbankUpstream.from_config("fbank", num_mel_bins=40).hidden_sizes
            (120,)
        """
        check_options(cls, options, with_weights=False)
        config = named_config(cls, next(iter(cls.configs.values()), None) if config is None else config)
        fields = {field.name for field in dataclasses.fields(cls.config_class)} if cls.config_class else set()
        declared = option_names(cls, with_weights=False, declared=True) or fields
        attributes = pop_attributes(cls, options, declared)
        changed = {name: value for name, value in options.items() if name in fields}
        if changed:
            config = dataclasses.replace(config, **changed)
        kept = {name: value for name, value in options.items() if name not in fields}
        construct: Callable[..., AnyUpstream] = cls
        upstream = construct(config, **kept) if cls.config_class else construct(**kept)
        set_attributes(upstream, attributes)
        return upstream

    @classmethod
    def from_checkpoint(
        cls: type[AnyUpstream],
        source: str | Path,
        *,
        config: Any = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> AnyUpstream:
        """An upstream with the weights and the architecture of a checkpoint, in eval mode.

        Args:
            source: a path (file or Hugging Face directory), `https://...`, `hf://org/repo[@revision][/file]`, or a
                registered name, whose card's options hold too. A path that exists wins over a name.
            config: a config or the name of one, for a file that does not carry its own; one that does is checked against it.
            device: where the weights go; the CPU if None.
            dtype: their type, such as `torch.float16`; float32 if None.
            **options: keywords of the class's `from_file`, `layers` for `default_layers`, and `gradient_checkpointing` where
                the class has it; an unknown one is an error.

        Raises:
            CheckpointError: the file is damaged, unsafe, of another layout or family, or lacks weights.
            DownloadError: the file could not be obtained.
            OptionError: no such option.
        """
        given = options if config is None else {"config": config, **options}
        upstream: AnyUpstream = load_checkpoint(cls, find_checkpoint(source), given, device=device, dtype=dtype)
        return upstream

    @classmethod
    def from_file(cls: type[AnyUpstream], path: str | Path, *, config: Any = None) -> AnyUpstream:
        """`from_checkpoint` for a local file. A family with weights writes this one, with its own options."""
        raise OptionError(
            f"{cls.__name__} computes its features without weights. There is no checkpoint to load. "
            f"Use {cls.__name__}.from_config(name), the names being {', '.join(cls.configs)}."
        )

    def save_checkpoint(self, path: str | Path) -> None:
        """Writes weights and config as one safetensors file that `from_checkpoint` and `hub.load` read back.

        The file appears whole or not at all.

        Raises:
            OptionError: the class has no weights to save, or has parameters that its config does not give (adapters, say), so
                that `from_checkpoint` could not read the file.

        Example:
            >>> import tempfile, pathlib
            >>> from hubcore_wav2vec2 import Wav2Vec2Upstream
            >>> model = Wav2Vec2Upstream.from_checkpoint("wav2vec2_tiny_prompts")
            >>> path = pathlib.Path(tempfile.mkdtemp()) / "mine.safetensors"
            >>> model.save_checkpoint(path)
            >>> Wav2Vec2Upstream.from_checkpoint(path).config == model.config
            True
        """
        from hubcore.checkpoints.meta import without_memory
        from hubcore.checkpoints.native import write_native

        state = self.state_dict()
        if not state:
            raise OptionError(f"{type(self).__name__} has no weights. There is nothing to save; keep its config instead.")
        config = getattr(self, "config", None)
        if self.config_class is not None and isinstance(config, self.config_class):
            with without_memory():
                fresh: Mapping[str, Tensor] = type(self).from_config(config).state_dict()
            changed = sorted(state.keys() ^ fresh.keys()) or [name for name in state if state[name].shape != fresh[name].shape]
            if changed:
                raise _not_restorable(self, changed)
        write_native(path, state, config=config, upstream=type(self).__name__)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, local_metadata: Mapping[str, Any], *args: Any
    ) -> None:
        written = local_metadata.get("version", self._version)
        if written != self._version:
            raise CheckpointLayoutError(
                f"this state dict of {type(self).__name__} is of layout {written}, and here it has layout {self._version}.",
                "Load it with the hubcore that wrote it, save it there with save_checkpoint, and turn that file into another "
                "system's layout with `hubcore export`: every version reads those.",
            )
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    @property
    def default_layers(self) -> tuple[int, ...] | None:
        """The layers that a call without `layers=` returns; all of them if None.

        A card or a caller sets them with the option `layers`. `layer_names`, `hidden_sizes` and `num_layers` still
        describe the whole model, so that an index means the same layer everywhere; `output.layers` says which were returned.

        Example:
            >>> from hubcore import hub
            >>> model = hub.load("wav2vec2_tiny_prompts", layers=[2, -1])
            >>> model.default_layers, model.options, len(model.layer_names)
            ((2, 4), {'layers': [2, 4]}, 5)
            >>> model([torch.zeros(16000)]).layers, model([torch.zeros(16000)], layers=[0]).layers
            ((2, 4), (0,))
        """
        return self._default_layers

    @default_layers.setter
    def default_layers(self, layers: Sequence[int] | None) -> None:
        self._default_layers = None if layers is None else self.check_layers(layers)

    @property
    def options(self) -> dict[str, Any]:
        """Options that `forward` uses where a call gives none, as plain data; an extraction records them. A family may add."""
        return {} if self._default_layers is None else {"layers": [*self._default_layers]}

    # Running --------------------------------------------------------------------------------------------------------

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        parameters = inspect.signature(cls.forward).parameters.values()
        hidden = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        cls._call_options = None if hidden else tuple(parameter.name for parameter in parameters)[1:]

    def __call__(self, *args: Any, **options: Any) -> UpstreamOutput:
        """`forward`, with the hooks of `nn.Module`; an option that it does not take is an `OptionError`."""
        if self._call_options is not None:
            for name in options:
                if name not in self._call_options:
                    raise unknown_option(type(self), name, self._call_options)
        output: UpstreamOutput = super().__call__(*args, **options)
        return output

    def stream(
        self,
        wav: Tensor,
        *,
        layers: Sequence[int] | None = None,
        chunk_seconds: float = CHUNK_SECONDS,
        overlap_seconds: float | None = None,
        **call_options: Any,
    ) -> Iterator[Chunk]:
        """The hidden states of one long waveform `(T,)`, chunk by chunk, in memory that does not grow with its hidden states.

        Args:
            wav: as for a call.
            layers: as for a call.
            chunk_seconds: the longest chunk.
            overlap_seconds: audio before and behind a chunk that is computed with it, and cut off again; 5 if None.
            **call_options: keywords of `forward`.

        Raises:
            AudioError: the waveform cannot be used.
            OptionError: a layer or an option does not exist, a length is impossible, or the frame rate is not constant.

        Example:
            >>> from hubcore import hub
            >>> model = hub.load("wav2vec2_tiny_prompts")
            >>> [chunk.first_frame for chunk in model.stream(torch.randn(80000), layers=[4], chunk_seconds=2)]
            [0, 83, 166]
        """
        lengths: dict[str, Any] = {"chunk_seconds": chunk_seconds, "overlap_seconds": overlap_seconds}
        return stream_windows(self, wav, layers=layers, **lengths, **call_options)

    def check_input(self, wavs: Sequence[Tensor] | Tensor, lengths: Tensor | Sequence[int] | None = None) -> list[Tensor]:
        """The batch as valid 1-D waveforms on the device and in the dtype of the weights, or float32 where that is wider.

        Waveforms on the CPU may be given to a model on a GPU. They are checked before they are sent, so that nothing waits for
        the GPU, and sent while it still computes an earlier batch. Statistics of a waveform are worth 32 bits; a
        half-precision model narrows them once they are taken. The errors are those of `hubcore.ragged.check_wavs`.
        """
        rows = check_wavs(wavs, lengths, min_samples=self.min_samples, sample_rate=self.sample_rate)
        weight = next(self.parameters(), None)
        if weight is None:
            return rows
        dtype = torch.promote_types(weight.dtype, torch.float32)
        if weight.device != rows[0].device:
            if rows[0].device.type == "cpu" and few_calls(weight.device):
                return send(rows, weight.device, dtype)
            raise AudioError(
                f"item 0 is on {rows[0].device}, but the weights are on {weight.device}. Both must be on one device: "
                f"use wav.to({str(weight.device)!r}) or model.to({str(rows[0].device)!r})."
            )
        return [row.to(dtype) for row in rows]

    def check_layers(self, layers: Sequence[int] | None) -> tuple[int, ...]:
        """`layers` as non-negative indices into `layer_names`, in the order given; `default_layers`, else all, if None.

        A `LayerSum`, by which `Featurizer.extract` asks for a weighted sum, stays one.

        Raises:
            OptionError: empty, not integers, or out of range.
        """
        if isinstance(layers, LayerSum):
            return layers
        layers = self._default_layers if layers is None else layers
        if layers is None:
            return tuple(range(len(self.layer_names)))
        return layer_indices(layers, self.layer_names, type(self).__name__)

    def make_output(
        self,
        hidden_states: Sequence[Tensor] | Packed,
        lengths: Tensor,
        layers: Sequence[int],
        times: Tensor,
        extras: Mapping[str, Any] | None = None,
    ) -> UpstreamOutput:
        """The output for hidden states `(B, F, D)` of the layers `layers`, `lengths` `(B,)`, `times` `(B, F, 2)`.

        Hidden states that are `Packed` are padded when they are read.
        """
        states: Any = hidden_states if isinstance(hidden_states, Packed) else tuple(hidden_states)
        if isinstance(states, Packed) and torch.compiler.is_compiling():  # a graph gives tensors, and nothing for later
            states = states.padded()
        names = tuple(self.layer_names[i] for i in layers)
        if isinstance(layers, LayerSum):
            total = states[0] if layers.added else layers.sum_of(states)
            states = Packed([total], states.counts) if isinstance(states, Packed) else (total,)
            layers.answered = True
            layers, names = (max(layers),), ("weighted_sum",)
        return UpstreamOutput(
            hidden_states=states,
            lengths=lengths,
            layers=tuple(layers),
            layer_names=names,
            times=times,
            extras=dict(extras or {}),
        )


def _not_restorable(upstream: UpstreamBase, names: Sequence[str]) -> OptionError:
    return OptionError(
        f"{type(upstream).__name__} has other weights than its config describes: {listed(names)}. from_checkpoint could not "
        "read such a file. Merge adapters into the weights first, or save state_dict() yourself."
    )


def named_config(cls: type[UpstreamBase], config: Any) -> Any:
    """`config` itself, or the one of the family's that it names.

    Raises:
        OptionError: no such name.
    """
    if isinstance(config, str):
        if config not in cls.configs:
            raise OptionError(
                f"{cls.__name__} has no config called {config!r}. It has {', '.join(cls.configs)}. "
                "Use one of these, or pass a config object."
            )
        return cls.configs[config]
    return config


def check_config(cls: type[UpstreamBase], config: Any) -> None:
    """Raises `OptionError` unless `config` is of the family's config class."""
    if cls.config_class is not None and not isinstance(config, cls.config_class):
        raise OptionError(
            f"{cls.__name__} was given {config!r:.60}. It must be a {cls.config_class.__name__}. "
            f"{cls.__name__}.from_config(name) takes a name: {', '.join(cls.configs)}."
        )
