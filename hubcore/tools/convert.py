"""`convert`: a checkpoint of any layout as hubcore's own file, proven equal before it appears."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hubcore.card import Card
from hubcore.checkpoints.report import LoadReport
from hubcore.checkpoints.weights import why_refused
from hubcore.errors import (
    CheckpointError,
    CheckpointLayoutError,
    HubcoreError,
    MissingWeightsError,
    OptionError,
    PluginError,
    UnavailableUpstreamError,
)
from hubcore.files import write_whole
from hubcore.loading import import_class
from hubcore.options import parse, reads_files
from hubcore.registry.names import Family, current_registry
from hubcore.sources.resolve import fetch, find_checkpoint
from hubcore.sources.stamps import hash_file
from hubcore.text import error_text
from hubcore.tools.verify import fixed_clip

_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Conversion:
    """Result of a conversion.

    Example:
        >>> import tempfile
        >>> made = convert("wav2vec2_tiny_prompts", Path(tempfile.mkdtemp()) / "mine.safetensors")
        >>> made.upstream, made.weights, made.layers
        ('wav2vec2', 82, 5)
    """

    path: Path
    """The new file."""
    sha256: str
    """64 hex digits of it."""
    bytes: int
    upstream: str
    """The family whose class read and wrote it."""
    class_path: str
    """`module:Class`."""
    weights: int
    """Tensors that were compared, every bit of them."""
    layers: int
    """Hidden states of the fixed clip that were."""
    report: LoadReport | None
    """Use of every tensor of the source."""


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    upstream: str | None = None,
    config: str | None = None,
    options: Sequence[str] = (),
    force: bool = False,
) -> Conversion:
    """Reads a checkpoint, writes it as hubcore's own, and lets it appear only if it gives the same weights and features.

    Args:
        source: whatever `resolve` takes: a file of any layout, a folder, a URI, a registered name.
        out: the new file, ending in `.safetensors`, in a folder that exists.
        upstream: the family, or a name of it. If None, the card's where `source` is a name; else every installed family is
            tried; each refuses what is not its own.
        config: a named config, for a file that has none; one that has its own is checked against it.
        options: further options of the class, each as `name=value`, which the class types.
        force: whether an existing file may be replaced.

    Raises:
        OptionError: `out` cannot be written, or exists already.
        CheckpointError: the source cannot be read, or the copy is not equal. Nothing is left behind then.
        UnknownUpstreamError: no such family.
        DownloadError: the source cannot be obtained.
    """
    out = Path(out)
    check_target(out, force)
    found = find_checkpoint(source)
    path = fetch(found)
    if isinstance(found, Card):
        upstream = upstream or found.name
        config = config or found.options.get("config") or found.config
    given = (path, config, options)
    family, original = _read(_family(upstream), *given) if upstream else read_with_any(*given)
    with write_checked(out, force) as temporary:
        original.save_checkpoint(temporary)
        _, copy = _read(family, temporary, None, options)
        weights, layers = check_equal(path, original, copy)
        digest, size = hash_file(temporary), temporary.stat().st_size
    report = getattr(original, "load_report", None)
    return Conversion(out, digest, size, family.name, family.target, weights, layers, report)


def check_target(out: Path, force: bool, suffix: str = _SUFFIX) -> None:
    """Refuses a target before the source is read for nothing; without a suffix it is a folder, which must be new.

    Raises:
        OptionError: it cannot be written, or exists already.
    """
    if suffix and out.suffix != suffix:
        raise OptionError(f"{out} does not end in {suffix}. That is what is written. Give it that ending.")
    if not suffix and os.path.lexists(out):
        raise OptionError(f"{out} exists already. Nothing was changed. Choose the name of a new folder.")
    if out.is_dir() or not out.parent.is_dir():
        reason = "it is a folder" if out.is_dir() else f"there is no folder {out.parent}"
        raise OptionError(f"{out} cannot be written: {reason}. It must be a file in a folder that exists. Choose another name.")
    if not force and os.path.lexists(out):
        raise _occupied(out)


def _occupied(out: Path) -> OptionError:
    return OptionError(f"{out} exists already. Nothing was changed. Choose another name, or replace it with --force.")


def _family(name: str) -> Family:
    entry = current_registry().find(name)
    if entry.family is None or entry.family.missing:
        raise UnavailableUpstreamError(f"{name!r} cannot run here: {entry.unavailable}. `hubcore doctor` shows more.")
    return entry.family


def _read(family: Family, path: Path, config: str | None, options: Sequence[str]) -> tuple[Family, Any]:
    cls = import_class(family)
    lacking = [method for method in ("from_checkpoint", "save_checkpoint", "state_dict") if not hasattr(cls, method)]
    if lacking:
        raise PluginError(
            f"{family.target} of {family.distribution} has no {' and no '.join(lacking)}, so it cannot convert a file.",
            fix="Its authors can inherit hubcore.UpstreamBase, which has them.",
        )
    named = {"config": config} if config else {}
    return family, cls.from_checkpoint(path, **{**named, **parse(cls, options, with_weights=True)})


def read_with_any(path: Path, config: str | None, options: Sequence[str] = ()) -> tuple[Family, Any]:
    """The family that reads a file, and what it read; every other one refuses a file that is not its own."""
    found: list[tuple[Family, Any]] = []
    refusals: dict[str, Exception] = {}
    for family in _readers():
        try:
            found.append(_read(family, path, config, options))
        except HubcoreError as error:
            if isinstance(error, CheckpointError) and not isinstance(error, CheckpointLayoutError | MissingWeightsError):
                raise  # damaged or unsafe, whoever reads it
            refusals[family.name] = error
        except Exception as error:  # a broken plugin must not keep the others from being tried
            refusals[family.name] = PluginError(error_text(error))
    if not found:
        lines = "".join(f"\n  {line}" for line in why_refused(refusals))
        raise CheckpointLayoutError(
            f"no installed family reads {path}:{lines or ' none is installed'}\n"
            "Name its family with --upstream; a file without a config needs --config too."
        )
    if len(found) > 1:
        names = " and ".join(family.name for family, _ in found)
        raise CheckpointLayoutError(
            f"{path} can be read as {names}; nothing in the file says which one it is.", fix="Choose one with --upstream."
        )
    return found[0]


def _readers() -> Iterable[Family]:
    """The installed families that read checkpoints, each once, by name; those of signal transforms do not."""
    families = {entry.family for entry in current_registry().entries if entry.family and not entry.family.missing}
    for family in sorted(families, key=lambda family: (family.name, family.distribution)):
        try:
            cls = import_class(family)
        except PluginError:
            continue  # `hubcore doctor` and --upstream tell about it
        if reads_files(cls):
            yield family


def check_equal(path: Path, original: nn.Module, copy: nn.Module) -> tuple[int, int]:
    """Compares two models bit by bit; returns the numbers of weights and hidden states compared.

    Raises:
        CheckpointError: one of them is not equal in every bit.
    """
    what = _unequal_weight(original.state_dict(), copy.state_dict())
    if what is None:
        what, layers = _unequal_feature(_settled(original), _settled(copy))
    if what is not None:
        raise CheckpointError(
            f"{path} was not converted: read back, {what}. Nothing was written.",
            fix=f"Tell the authors of {type(original).__name__}.",
        )
    return len(original.state_dict()), layers


def _unequal_weight(wanted: dict[str, Tensor], got: dict[str, Tensor]) -> str | None:
    if wanted.keys() != got.keys():
        return f"the weights {', '.join(sorted(wanted.keys() ^ got.keys())[:5])} are in one of the two only"
    return next((f"the weight {name} differs" for name in wanted if not _same_bits(wanted[name], got[name])), None)


def _unequal_feature(original: Any, copy: Any) -> tuple[str | None, int]:
    wav = fixed_clip(original.sample_rate)
    with torch.no_grad():
        wanted, got = original([wav]), copy([wav])
    if wanted.layer_names != got.layer_names or not torch.equal(wanted.lengths, got.lengths):
        return "the layers or the number of frames differ", 0
    for name, one, other in zip(wanted.layer_names, wanted.hidden_states, got.hidden_states, strict=True):
        if not _same_bits(one, other):
            return f"the features of the fixed clip differ in {name}", 0
    return None, len(wanted.hidden_states)


def _settled(upstream: nn.Module) -> nn.Module:
    """The upstream with each weight in memory of torch's own, one like the other.

    Matrix products may add in another order where memory is aligned otherwise, as it is inside a file.
    """
    for tensor in (*upstream.parameters(), *upstream.buffers()):
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    return upstream.eval()


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """True if two tensors are equal in every bit, NaN and the sign of zero included."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(*(tensor.detach().contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)))


@contextlib.contextmanager
def write_checked(out: Path, force: bool, *, folder: bool = False) -> Iterator[Path]:
    """A temporary path that gets its name if the block ends well; without `force` never in place of another file."""
    try:
        with write_whole(out, replace=force and not folder, folder=folder) as temporary:
            yield temporary
    except FileExistsError as error:
        raise _occupied(out) from error
    except OSError as error:
        raise CheckpointError(
            f"{out} could not be written ({error.strerror or error}). Nothing was changed there.",
            fix="Check that the folder may be written to and has space.",
        ) from error
