"""A checkpoint file or folder as `hubcore info FILE` shows it; only its header is read."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hubcore.checkpoints.layouts import open_checkpoint
from hubcore.checkpoints.weights import why_refused
from hubcore.errors import CheckpointError, OptionError, PluginError
from hubcore.loading import import_class
from hubcore.registry.names import current_registry
from hubcore.text import labelled


@dataclass(frozen=True)
class FileInfo:
    """A checkpoint's layout, family, config and tensors.

    Example:
        >>> from hubcore.sources.resolve import resolve
        >>> info = describe_file(resolve("wav2vec2_tiny_prompts"))
        >>> info.layout, info.family, info.parameters
        ('hubcore safetensors', 'wav2vec2', 557216)
    """

    path: str
    """The file or folder."""
    layout: str
    """The layout that was recognised."""
    kind: str | None
    """Family as the file calls it."""
    tensors: int
    """Tensors in the file."""
    family: str | None = None
    """The family that reads it; None if no installed family does."""
    config: dict[str, Any] = field(default_factory=dict)
    """The config by that family's names."""
    parameters: int = 0
    """Numbers in the weights that are used."""
    ignored: tuple[str, ...] = ()
    """Heads and whatever else is left aside."""
    notes: tuple[str, ...] = ()
    """Assumptions where the file says nothing, and conversions."""
    reasons: tuple[str, ...] = ()
    """Why the installed families do not read it."""

    def __str__(self) -> str:
        rows = [("file", self.path), ("layout", self.layout), ("calls itself", self.kind or "nothing")]
        rows += [("family", self.family or "none that is installed reads it"), ("tensors", str(self.tensors))]
        if self.family:
            rows += [("parameters", f"{self.parameters:,}"), ("ignored", ", ".join(self.ignored) or "nothing")]
            rows += [("config", ", ".join(f"{name}={value!r}" for name, value in self.config.items()))]
            rows += [("load it with", f"hub.load({self.family!r}, checkpoint={self.path!r})")]
        rows += [("note", note) for note in self.notes] + [("reason", reason) for reason in self.reasons]
        return labelled(rows)


def describe_file(path: str | Path) -> FileInfo:
    """Describes a checkpoint and the installed family that reads it; nothing is written and no tensor is read.

    Raises:
        CheckpointError: it is damaged or unsafe, or laid out like nothing that an installed family knows.
    """
    families = {entry.family for entry in current_registry().entries if entry.family and not entry.family.missing}
    refusals: dict[str, Exception] = {}
    info: FileInfo | None = None
    failure: CheckpointError | None = None
    for family in sorted(families, key=lambda family: family.name):
        try:
            reader = getattr(import_class(family), "reader", None)
        except PluginError as error:
            refusals[family.name] = error
            continue
        if reader is None:
            continue
        try:
            with open_checkpoint(path, reader.layouts) as checkpoint:
                info = info or FileInfo(str(path), checkpoint.layout, checkpoint.kind, len(checkpoint.tensors))
                plan = reader.plan(checkpoint)
                used = [checkpoint.tensors[name] for name in plan.report.used]
                return dataclasses.replace(
                    info,
                    layout=checkpoint.layout,
                    kind=checkpoint.kind,
                    tensors=len(checkpoint.tensors),
                    family=family.name,
                    config=dataclasses.asdict(plan.config),
                    parameters=sum(math.prod(tensor.shape) for tensor in used),
                    ignored=plan.report.ignored,
                    notes=(*plan.report.notes, *plan.report.converted),
                )
        except (CheckpointError, OptionError) as error:
            failure = error if isinstance(error, CheckpointError) else failure
            refusals[family.name] = error
    if info is None:
        raise failure or CheckpointError(f"no installed family reads {path}.", "`hubcore list` shows what is installed.")
    return dataclasses.replace(info, reasons=tuple(why_refused(refusals)))
