"""From a checkpoint to a model with weights: `Reader`, what a family says once about its files.

A reader opens a file, reads its config, builds the model without memory, finds every weight by the family's table of names,
and only then reads tensors. Nothing is left random and nothing of an encoder is ignored: a weight that is missing is an error,
and so is a tensor that has no place in the model, unless the table calls it a head.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from hubcore.checkpoints import espnet, fairseq, transformers
from hubcore.checkpoints.layouts import ESPNET, HUGGING_FACE, NATIVE, PLAIN, Checkpoint, Layout, open_checkpoint
from hubcore.checkpoints.meta import without_memory
from hubcore.checkpoints.names import OURS, Names, Turn
from hubcore.checkpoints.report import LoadReport
from hubcore.errors import CheckpointLayoutError, MissingWeightsError, nearest_names
from hubcore.sources.stamps import read_stamp
from hubcore.text import listed, plural

Config = TypeVar("Config", bound=Any)
Model = TypeVar("Model", bound=nn.Module)
Parse = Callable[[Checkpoint, list[str]], Mapping[str, Any]]
"""Reads the values of a config, by our names, from an open checkpoint; adds to the list what had to be assumed."""


class Loaded(NamedTuple, Generic[Config, Model]):
    """Result of a reader: the model, its config and the load report."""

    config: Config
    model: Model
    report: LoadReport


def encoder_values(checkpoint: Checkpoint, notes: list[str]) -> dict[str, Any]:
    """Values of a wav2vec-2.0-shaped encoder's config, from the config of any system; see `Reader.parse`."""
    if checkpoint.layout == HUGGING_FACE:
        return transformers.encoder_values(checkpoint, notes)
    if checkpoint.layout == ESPNET:
        return espnet.encoder_values(checkpoint, notes)
    return fairseq.encoder_values(checkpoint, notes)


class ForeignCheckpointError(CheckpointLayoutError):
    """A checkpoint has none of a family's names, or calls itself another's; `found` is what it has instead."""

    def __init__(self, message: str, found: str) -> None:
        self.found = found
        super().__init__(message)


@dataclass(frozen=True)
class Plan(Generic[Config, Model]):
    """Plan of reading: which tensor of a checkpoint becomes which weight of a model. No tensor has been read yet."""

    config: Config
    model: Model
    """The model, without memory behind its weights."""
    rows: Mapping[str, tuple[str, Turn | None]]
    """Our name -> the file's name and what happens to the tensor, in the order of the model's state dict."""
    report: LoadReport

    def fill(
        self, checkpoint: Checkpoint, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Loaded[Config, Model]:
        """The model with its weights; each storage of the file is read once, and cast as it is read.

        Modules that were taken out of the model since it was planned are not read.
        """
        wanted = self.model.state_dict().keys()
        rows = {ours: row for ours, row in self.rows.items() if ours in wanted}
        tensors = checkpoint.read([theirs for theirs, _ in rows.values()], dtype=dtype or torch.float32)
        state: dict[str, Tensor] = {}
        for ours, (theirs, turn) in rows.items():
            state[ours] = (turn.read(tensors[theirs]) if turn else tensors[theirs]).to(device=device)
        self.model.load_state_dict(state, strict=True, assign=True)
        report = self.report
        if len(rows) < len(self.rows):
            note = f"blocks above those that layers= needs were not read: {plural(len(self.rows) - len(rows), 'weight')}"
            report = replace(report, used=tuple(sorted({theirs for theirs, _ in rows.values()})), notes=(*report.notes, note))
        return Loaded(self.config, self.model, report)


@dataclass(frozen=True)
class Reader(Generic[Config, Model]):
    """Everything that a family states about its checkpoints, in one place.

    Example:
        >>> from hubcore_wav2vec2.checkpoint import READER
        >>> from hubcore.sources.resolve import resolve
        >>> config, model, report = READER.read(resolve("wav2vec2_tiny_prompts"))
        >>> config.num_layers, report.layout
        (4, 'hubcore safetensors')
    """

    family: str
    """The family's name in words, for messages."""
    config_class: type[Config]
    """The class of the family's config."""
    build: Callable[[Config], Model]
    """Makes the model that a config describes."""
    names: Names
    """The names of the model's weights in other systems, and of the heads that are ignored."""
    kinds: tuple[str, ...]
    """Names that configs of this family have (fairseq: `_name` or `arch`, transformers: `model_type`, ESPnet: `encoder`), the
    class that `save_checkpoint` names in a file, and a layout that is this family's where the config has no name."""
    parse: Parse = encoder_values
    """Reads a foreign config."""
    infer: Callable[[Checkpoint, list[str]], Mapping[str, Any] | None] | None = None
    """Reads the values of a config from the weights of a file that has none, where they tell enough; None where not."""
    layouts: tuple[Layout, ...] = ()
    """Layouts of files that only this family has."""
    inside: str = "model."
    """Prefix of the model's names in files of `save_checkpoint`; empty if the upstream itself is the model."""
    fit: Callable[[Config, frozenset[str]], Config] | None = None
    """Adapts the config to the weights that are there, by our names; for what no config says."""

    def read(
        self,
        path: str | Path,
        config: Config | None = None,
        *,
        changes: Mapping[str, Any] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Loaded[Config, Model]:
        """The config, the model with its weights, and the report of the checkpoint at `path`.

        Args:
            path: a file or folder.
            config: for a file without a config; one that has its own is checked against it.
            changes: fields of the config that replace the file's, such as a dropout; None leaves one as it is.
            device: where the weights go; the CPU if None.
            dtype: their type; float32 if None.

        Raises:
            CheckpointError: damaged or unsafe.
            CheckpointLayoutError: of another family or layout, or without a config.
            MissingWeightsError: a weight is missing or of another shape than the config says.
        """
        with open_checkpoint(path, self.layouts) as checkpoint:
            return self.plan(checkpoint, config, changes).fill(checkpoint, device, dtype)

    def claims(self, checkpoint: Checkpoint) -> bool:
        """True if an open checkpoint is of this family, as far as its tensors' names and its config tell."""
        try:
            self.find_weights(checkpoint)
        except CheckpointLayoutError:
            return False
        return True

    def plan(
        self, checkpoint: Checkpoint, config: Config | None = None, changes: Mapping[str, Any] | None = None
    ) -> Plan[Config, Model]:
        """Plans the reading of a checkpoint and checks that it has every weight the model needs. See `read`."""
        known = self.find_weights(checkpoint)
        notes: list[str] = []
        changes = {name: value for name, value in (changes or {}).items() if value is not None}
        config = replace(self.read_config(checkpoint, config, notes), **changes)
        if self.fit is not None:
            config = self.fit(config, frozenset(known))
        blocks = {int(number) for name in known for number in re.findall(r"\bblocks\.([0-9]{1,9})\.", name)}
        if getattr(config, "num_layers", 0) > len(blocks) > 0:
            raise _too_few_blocks(checkpoint, config.num_layers, len(blocks))
        try:
            with without_memory():
                model = self.build(config)
        except (RuntimeError, ValueError, TypeError, ArithmeticError) as error:  # sizes whose product no tensor can have
            raise _senseless_config(self, checkpoint, error) from error
        weights = model.state_dict()
        for name in known.keys() & weights.keys():
            if weights[name].is_floating_point() and checkpoint.tensors[known[name][0]].dtype not in _FLOATS:
                raise _not_floating(checkpoint, known[name][0])
        shapes = {name: tuple(value.shape) for name, value in weights.items()}
        used = {known[name][0] for name in shapes if name in known}
        extra = [theirs for theirs, _ in known.values() if theirs not in used]
        if extra:
            raise _no_place(self, checkpoint, extra)
        found = {name: (theirs, _shape(checkpoint, theirs, turn)) for name, (theirs, turn) in known.items()}
        check_names(checkpoint.path, shapes, found)
        rows = {name: known[name] for name in shapes}
        return Plan(config, model, rows, _report(checkpoint, rows, notes))

    def find_weights(self, checkpoint: Checkpoint) -> dict[str, tuple[str, Turn | None]]:
        """Our name -> the file's name and turn, of everything in the encoder.

        Raises:
            CheckpointLayoutError: no encoder of this family, or tensors that have no place in one.
        """
        tensors = _unwrapped(checkpoint.tensors)
        try:
            found = (OURS, self.inside) if checkpoint.layout == NATIVE else self.names.find(tensors)
        except CheckpointLayoutError as error:
            raise CheckpointLayoutError(f"{checkpoint.path} cannot be read: {error}") from error
        if found is None:
            raise _no_encoder(self, checkpoint)
        system, prefix = found
        inside = {name[len(prefix) :]: theirs for name, theirs in tensors.items() if name.startswith(prefix)}
        known = {ours: (inside[theirs], turn) for ours, (theirs, turn) in self.names.read(system, inside).items()}
        # Beside an encoder with a prefix stands whatever somebody built on it; our own files hold nothing unknown anywhere.
        used, whole = {theirs for theirs, _ in known.values()}, checkpoint.tensors if system == OURS else inside.values()
        heads = {name for name in checkpoint.heads if not name.startswith(self.inside)}
        left = [name for name in whole if name not in used and name not in heads]
        if not self._is_ours(checkpoint):
            raise _other_family(self, checkpoint, [name for name in left if not self._is_head(system, prefix, name)])
        left = [name for name in left if not self._is_head(system, prefix, name)]
        if left:
            raise _no_place(self, checkpoint, left)
        return known

    def _is_head(self, system: str, prefix: str, name: str) -> bool:
        name = _WRAPPERS.sub("", name)
        return self.names.is_head(system, name if system == OURS else name[len(prefix) :])

    def _is_ours(self, checkpoint: Checkpoint) -> bool:
        """True if the file calls itself one of `kinds`, or says nothing and its layout allows this family."""
        if checkpoint.layout == NATIVE:
            return checkpoint.kind in self.kinds or checkpoint.kind not in _registered_classes()
        if checkpoint.layout in (layout.name for layout in self.layouts):
            return True
        nameless = (PLAIN, "s3prl converted", *self.kinds)
        return checkpoint.kind in self.kinds or (checkpoint.kind is None and checkpoint.layout in nameless)

    def read_config(self, checkpoint: Checkpoint, asked: Config | None, notes: list[str]) -> Config:
        """The config of an open checkpoint, or the one asked for where it has none; assumptions are added to `notes`."""
        if not checkpoint.config and asked is not None:
            return asked
        try:
            values: Mapping[str, Any] | None
            if not checkpoint.config:
                values = self.infer(checkpoint, notes) if self.infer else None
                if values is None:
                    raise _without_config(checkpoint)
            elif checkpoint.layout == NATIVE:
                _check_fields(checkpoint, self.config_class)
                values = checkpoint.config
            else:
                values = self.parse(checkpoint, notes)
            config = self.config_class(**values)
        except CheckpointLayoutError as error:
            raise CheckpointLayoutError(f"{checkpoint.path} cannot be loaded as {self.family}: {error}") from error
        except Exception as error:  # whatever values a config has
            raise _senseless_config(self, checkpoint, error) from error
        wrong = _differences(asked, config) if asked is not None else []
        if wrong:
            raise CheckpointLayoutError(
                f"{checkpoint.path} is not of the config that was asked for: {'; '.join(wrong)}. Leave config= out to take the "
                "file as it is; where a card asked for it, the card or the file is wrong."
            )
        return config  # type: ignore[no-any-return]


def check_names(
    path: Path,
    needed: Mapping[str, tuple[int, ...]],
    found: Mapping[str, tuple[str, tuple[int, ...]]],
    config: str = "its own config",
) -> None:
    """Raises `MissingWeightsError` unless every needed tensor was found with the right shape.

    `needed` is our name -> the shape that the config asks for, `found` our name -> (the file's name, the shape it will have).
    """
    missing = sorted(set(needed) - set(found))
    if missing:
        near = nearest_names(missing[0], [*found], count=1)
        hint = f" The nearest that it has is {near[0]}." if near else ""
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise MissingWeightsError(
            f"{path} lacks the weight {missing[0]}{more}.{hint} Every tensor of the encoder must be in the file; none is left "
            f"random. Missing: {', '.join(missing[:20])}. The file may be cut, stripped, or of another architecture.",
            missing,
        )
    wrong = [name for name, shape in needed.items() if found[name][1] != shape]
    if wrong:
        told = [f"{found[name][0]} must have shape {needed[name]}, but has {found[name][1]} instead" for name in wrong[:8]]
        raise MissingWeightsError(
            f"{path} does not fit {config}: {'; '.join(told)}. Config and weights must come from one model.", wrong
        )


def why_refused(refusals: Mapping[str, Exception]) -> list[str]:
    """A line for each reason, with the families that gave it; the last for all that know nothing of the file.

    Example:
        >>> foreign = ForeignCheckpointError("...", "has conv.weight")
        >>> why_refused({"a": foreign, "b": ValueError("it is cut off."), "c": foreign})
        ['b: it is cut off.', 'a, c: it is none of theirs, as it has conv.weight.']
    """
    others = {family: error for family, error in refusals.items() if isinstance(error, ForeignCheckpointError)}
    reasons: dict[str, list[str]] = {}
    for family, error in refusals.items():
        if family not in others:
            reasons.setdefault(str(error.__cause__ or error), []).append(family)
    lines = [f"{', '.join(families)}: {reason}" for reason, families in reasons.items()]
    found = next((error.found for error in others.values()), None)
    return [*lines, f"{', '.join(others)}: it is none of theirs, as it {found}."] if found else lines


def _differences(asked: Any, found: Any) -> list[str]:
    """Lists how a file's config differs from the one asked for; a config class may say itself which fields count."""
    if hasattr(asked, "differences"):
        return list(asked.differences(found))
    pairs = [(f.name, getattr(asked, f.name), getattr(found, f.name)) for f in dataclasses.fields(asked)]
    return [f"{name} must be {mine}, but is {theirs} instead" for name, mine, theirs in pairs if mine != theirs]


_WRAPPERS = re.compile(r"(?<![^.])(?:_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.")
"""Parts of names that torch.compile, data parallelism, FSDP and activation checkpointing put in."""


def _unwrapped(names: Iterable[str]) -> dict[str, str]:
    """Names without what wrappers put in -> the names as they are."""
    names = list(names)
    found = {_WRAPPERS.sub("", name): name for name in names}
    return found if len(found) == len(names) else {name: name for name in names}


_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def _shape(checkpoint: Checkpoint, name: str, turn: Turn | None) -> tuple[int, ...]:
    """The shape that a tensor will have once its turn has been taken."""
    shape = checkpoint.tensors[name].shape
    if turn is not None:
        with contextlib.suppress(RuntimeError, IndexError):  # a tensor that cannot be turned has a wrong shape as it is
            return tuple(turn.read(torch.empty(shape, device="meta")).shape)
    return shape


def _report(checkpoint: Checkpoint, rows: Mapping[str, tuple[str, Turn | None]], notes: Sequence[str]) -> LoadReport:
    changed: dict[str, None] = {}
    for theirs, turn in rows.values():
        if turn is not None:
            changed[turn.why] = None
        if checkpoint.tensors[theirs].dtype != torch.float32:
            changed[f"{str(checkpoint.tensors[theirs].dtype).removeprefix('torch.')} weights converted to float32"] = None
    used = {theirs for theirs, _ in rows.values()}
    return LoadReport(
        source=str(checkpoint.path),
        layout=checkpoint.layout,
        used=tuple(sorted(used)),
        ignored=tuple(sorted(set(checkpoint.tensors) - used)),
        converted=tuple(changed),
        notes=tuple(notes),
        sha256=read_stamp(checkpoint.path),
    )


def _check_fields(checkpoint: Checkpoint, config_class: type[Any]) -> None:
    unknown = sorted(set(checkpoint.config) - {field.name for field in dataclasses.fields(config_class)})
    if unknown:
        raise CheckpointLayoutError(
            f"its config is not a {config_class.__name__}: it has {', '.join(unknown)}. Load it with the class of its own "
            "family, or with the version that wrote it."
        )


def _registered_classes() -> dict[str, str]:
    """Class -> family, of every family that is installed."""
    from hubcore.registry.names import current_registry

    families = (entry.family for entry in current_registry().entries)
    return {family.class_name: family.name for family in families if family is not None}


def _reading(kind: str) -> str | None:
    """The family of this distribution whose reader has this kind; other distributions are not imported for a message."""
    from hubcore.registry.names import current_registry

    for family in (entry.family for entry in current_registry().entries):
        if family is not None and family.distribution == "hubcore":
            reader = getattr(getattr(import_module(family.module), family.class_name), "reader", None)
            if isinstance(reader, Reader) and kind in reader.kinds:
                return family.name
    return None


# Messages -------------------------------------------------------------------------------------------------------------


def _advice(checkpoint: Checkpoint) -> str:
    """Advice on how to load a file of another family, if that family is installed."""
    families = _registered_classes()
    kind = re.sub(r"\W", "_", checkpoint.kind or "")
    names = sorted(families.values(), key=len, reverse=True)  # `torchaudio_hubert` and `hubert_ctc` are of `hubert`
    named = next((name for name in names if f"_{name}_" in f"_{kind}_"), None)
    family = families.get(kind) or _reading(checkpoint.kind or checkpoint.layout) or named
    if family is None:
        return "Load it with the class of its own family; `hubcore list` shows what is installed."
    return f"Use hub.load({family!r}, checkpoint={str(checkpoint.path)!r})."


def _no_encoder(reader: Reader[Any, Any], checkpoint: Checkpoint) -> CheckpointLayoutError:
    said = f", and calls itself {checkpoint.kind!r}" if checkpoint.kind else ""
    found = f"has {listed(checkpoint.tensors) if checkpoint.tensors else 'no tensors at all'}{said}"
    return ForeignCheckpointError(
        f"{checkpoint.path} ({checkpoint.layout}) is no {reader.family} checkpoint: it has no "
        f"{reader.names.first(reader.names.systems[0])} under any name known here. It {found}. {_advice(checkpoint)}",
        found,
    )


def _other_family(reader: Reader[Any, Any], checkpoint: Checkpoint, left: Sequence[str]) -> CheckpointLayoutError:
    said = f"calls itself {checkpoint.kind!r}" if checkpoint.kind else f"has a layout ({checkpoint.layout}) of others"
    more = f" It holds {listed(left)}, which {reader.family} has not." if left else ""
    what = f"{checkpoint.path} is no {reader.family} checkpoint: it {said}.{more} {_advice(checkpoint)}"
    return ForeignCheckpointError(what, said)


def _no_place(reader: Reader[Any, Any], checkpoint: Checkpoint, left: Sequence[str]) -> CheckpointLayoutError:
    return CheckpointLayoutError(
        f"{checkpoint.path} holds tensors that have no place in {reader.family}: {listed(left)}. Without them the features "
        "would differ. Load it with the class of its own family; merge adapters (LoRA) into the weights before saving."
    )


def _not_floating(checkpoint: Checkpoint, name: str) -> CheckpointLayoutError:
    kind = str(checkpoint.tensors[name].dtype).removeprefix("torch.")
    return CheckpointLayoutError(
        f"{checkpoint.path} holds {name} as {kind}. Weights must be float16, bfloat16, float32 or float64. A quantised "
        "checkpoint cannot be used: take the original one."
    )


def _too_few_blocks(checkpoint: Checkpoint, wanted: int, there: int) -> MissingWeightsError:
    return MissingWeightsError(
        f"{checkpoint.path} lacks weights: its config says {wanted} blocks, but it holds {there}. The file may be cut, "
        "stripped, or of another architecture."
    )


def _without_config(checkpoint: Checkpoint) -> CheckpointLayoutError:
    return CheckpointLayoutError(
        f"{checkpoint.path} holds weights without a config. The number of heads and whether waveforms are normalised "
        "cannot be seen from weights. Put its config.json beside it, or pass config=, such as config='base'."
    )


def _senseless_config(reader: Reader[Any, Any], checkpoint: Checkpoint, error: Exception) -> CheckpointLayoutError:
    reason = str(error).rstrip(".")
    return CheckpointLayoutError(
        f"the config in {checkpoint.path} makes no sense: {reason}. It must describe a {reader.family} encoder. The file may "
        "be damaged or belong to another family."
    )
