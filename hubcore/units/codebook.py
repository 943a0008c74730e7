"""`Codebook`: centroids, and what they are centroids of; `load` reads one from a file, an address or a card.

A codebook is a safetensors file: `centroids` `(K, D)`, `mean` and `scale` `(D,)` where features are standardised, and in its
header the record of the features it was made from. Another upstream, checkpoint, layer, option or rate is refused.

Shapes: `F` frames, `D` dim, `K` centroids.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from hubcore.card import Card
from hubcore.checkpoints.formats.safetensors_file import SafetensorsFile
from hubcore.errors import CheckpointError, OptionError
from hubcore.extract.record import Record
from hubcore.extract.settings import settings_for
from hubcore.files import parse_json, write_whole
from hubcore.nn.encoder_upstream import EncoderUpstream
from hubcore.protocol import Upstream, UpstreamOutput
from hubcore.sources.resolve import fetch, fetch_source, find_checkpoint
from hubcore.text import listed, printable
from hubcore.units.kmeans import nearest

_AGAIN = "Make it with `hubcore units fit`."
_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


class Codebook(nn.Module):
    """Centroids of one layer of one upstream; called with an output of it, the units of each utterance.

    Example:
        >>> from hubcore import hub
        >>> model = hub.load("wav2vec2_tiny_prompts")
        >>> codebook = Codebook(torch.randn(5, 96), record_of(model, 2))
        >>> out = model([torch.randn(16000), torch.randn(8000)])
        >>> [tuple(units.shape) for units in codebook(out)]
        [(49,), (24,)]
    """

    centroids: Tensor
    """`(K, D)` float32."""
    mean: Tensor | None
    """`(D,)`, taken off each frame before it is compared; None for features as they are."""
    scale: Tensor | None
    """`(D,)`, by which it is divided then."""

    def __init__(
        self,
        centroids: Tensor,
        record: Record,
        *,
        final_norm: bool | None = None,
        mean: Tensor | None = None,
        scale: Tensor | None = None,
        fitted: Mapping[str, Any] = _NO_OPTIONS,
    ) -> None:
        """From centroids `(K, D)` and the record of features of one layer; see `record_of`.

        Args:
            centroids: any floating-point type.
            record: of the features that they are centroids of.
            final_norm: whether the layer includes the encoder's final norm; None if that is not known.
            mean: `(D,)` with `scale`, for features that are standardised.
            scale: `(D,)`.
            fitted: plain data about how they were found.

        Raises:
            ValueError: the shapes do not fit each other, or a number is not finite.
        """
        super().__init__()
        tensors = {"centroids": centroids, "mean": mean, "scale": scale}
        for name, tensor in tensors.items():
            wanted = 2 if name == "centroids" else 1
            if tensor is not None and not (tensor.ndim == wanted and tensor.numel() and tensor.is_floating_point()):
                raise ValueError(f"its {name} have the shape {tuple(tensor.shape)} and the type {tensor.dtype}")
            if tensor is not None and (tensor.shape[-1] != centroids.shape[1] or not tensor.isfinite().all()):
                raise ValueError(f"its {name} are of another width, or not finite")
            self.register_buffer(name, None if tensor is None else tensor.detach().float().clone())
        if (mean is None) != (scale is None) or (scale is not None and float(scale.min()) <= 0):
            raise ValueError("its mean and scale do not belong together")
        if len(record.layer_names) != 1 or len(record.settings["layers"]) != 1:
            raise ValueError(f"its record has the layers {listed(record.layer_names)}, not one")
        self.record, self.final_norm, self.fitted = record, final_norm, dict(fitted)

    @property
    def layer(self) -> int:
        """The index of the layer into the upstream's `layer_names`."""
        return int(self.record.settings["layers"][0])

    @property
    def layer_name(self) -> str:
        """The name of the layer, such as `block_9`."""
        return self.record.layer_names[0]

    @property
    def normalize(self) -> str:
        """`none`, or `standard` if features are standardised."""
        return "none" if self.mean is None else "standard"

    def sha256(self) -> str:
        """The SHA-256 of the centroids, which tells codebooks of the same features apart."""
        held = [tensor for tensor in (self.centroids, self.mean, self.scale) if tensor is not None]
        return hashlib.sha256(b"".join(tensor.cpu().contiguous().numpy().tobytes() for tensor in held)).hexdigest()

    def extra_repr(self) -> str:
        """Number of centroids and what they are of."""
        return f"{len(self.centroids)} centroids of {self.layer_name} of {self.record.settings['upstream']}"

    # Units ----------------------------------------------------------------------------------------------------------

    def forward(self, out: UpstreamOutput) -> list[Tensor]:
        """The units of each utterance, int64 `(F_i,)`, over its real frames only.

        Raises:
            CheckpointError: the output has not this layer, or another width or rate.
        """
        return [self.assign(frames) for frames in self._frames(out)]

    def soft(self, out: UpstreamOutput, *, temperature: float = 1.0) -> list[Tensor]:
        """The probability of each centroid for each frame, `(F_i, K)`: the softmax of -distance^2 / temperature.

        Gradients reach the output. The lower the temperature, the nearer to the units themselves.

        Raises:
            CheckpointError: see `forward`.
            OptionError: the temperature is not above 0.

        Example:
            >>> from hubcore import hub
            >>> model = hub.load("wav2vec2_tiny_prompts")
            >>> codebook, out = Codebook(torch.randn(5, 96), record_of(model, 2)), model([torch.randn(16000)])
            >>> soft = codebook.soft(out, temperature=0.01)[0]
            >>> tuple(soft.shape), bool((soft.argmax(1) == codebook(out)[0]).all())
            ((49, 5), True)
        """
        if not temperature > 0:
            raise OptionError(f"temperature is {temperature}. It must be above 0.", fix="1 is the distance as it is.")
        return [(-self.distances(frames) / temperature).softmax(1) for frames in self._frames(out)]

    def assign(self, frames: Tensor) -> Tensor:
        """The units `(F,)` of frames `(F, D)` of this layer, of any floating-point type."""
        return nearest(self.normalized(frames), self.centroids)[0]

    def distances(self, frames: Tensor) -> Tensor:
        """Squared Euclidean distances `(F, K)` of frames `(F, D)` from all centroids; differentiable."""
        frames = self.normalized(frames)
        products = frames @ self.centroids.T
        return frames.square().sum(1, keepdim=True) - 2 * products + self.centroids.square().sum(1)

    def normalized(self, frames: Tensor) -> Tensor:
        """Frames `(F, D)` as they are compared: float32, standardised if that is part of the codebook."""
        frames = frames.to(self.centroids.dtype)
        return frames if self.mean is None or self.scale is None else (frames - self.mean) / self.scale

    def _frames(self, out: UpstreamOutput) -> list[Tensor]:
        """The real frames `(F_i, D)` of each utterance."""
        if self.layer not in out.layers or out.layer_names[out.layers.index(self.layer)] != self.layer_name:
            there = ", ".join(f"{index} ({name})" for index, name in zip(out.layers, out.layer_names, strict=True))
            raise self._refusal([f"layer is {self.layer} ({self.layer_name}) there and {there} here"])
        place = out.layers.index(self.layer)
        frames = [states[place] for states in out.unpad()]
        self._check_rate(out)
        if frames and frames[0].shape[1] != self.centroids.shape[1]:
            raise self._refusal([f"width is {self.centroids.shape[1]} there and {frames[0].shape[1]} here"])
        return frames

    def _check_rate(self, out: UpstreamOutput) -> None:
        stride, rate = self.record.settings["frame_stride"], self.record.settings["sample_rate"]
        item = int(out.lengths.argmax()) if len(out.lengths) else 0
        if stride is None or not len(out.lengths) or int(out.lengths[item]) < 4:
            return
        starts = out.frame_times()[item, 1:3, 0]  # not the first, which padding may have moved
        samples = round(float(starts[1] - starts[0]) * rate)
        if samples != stride:
            raise self._refusal([f"frame_stride is {stride} there and {samples} here"])

    # What it may be used with ---------------------------------------------------------------------------------------

    def check(self, upstream: Upstream, call_options: Mapping[str, Any] = _NO_OPTIONS) -> None:
        """Raises `CheckpointError`, naming what differs, unless an upstream gives what these are centroids of.

        Args:
            upstream: any.
            call_options: keywords of its calls, such as `lambd`.

        Example:
            >>> from hubcore import hub
            >>> codebook = Codebook(torch.randn(5, 96), record_of(hub.load("wav2vec2_tiny_prompts"), 2))
            >>> codebook.check(hub.load("wav2vec2_tiny_prompts"))
            >>> codebook.check(hub.load("fbank"))
            Traceback (most recent call last):
            hubcore.errors.CheckpointError: this codebook is of other features: ...
        """
        if self.layer >= len(upstream.layer_names):
            raise self._refusal([f"layer is {self.layer} ({self.layer_name}) there, and {type(upstream).__name__} has it not"])
        self.check_record(record_of(upstream, self.layer, call_options), final_norm_in(upstream, self.layer))

    def check_record(self, record: Record, final_norm: bool | None = None) -> None:
        """Raises `CheckpointError`, naming what differs, unless features with this record are what these are centroids of."""
        found = list(self.record.other_upstream(record.settings))
        there, here = (list(zip(each.settings["layers"], each.layer_names, strict=True)) for each in (self.record, record))
        if there[0] not in here or record.settings["mix"] or record.settings["pool"]:
            named = ", ".join(f"{index} ({name})" for index, name in here)
            made = f", {'mixed' if record.settings['mix'] else 'pooled'}," if not here[1:] and there == here else ""
            found.append(f"layer is {self.layer} ({self.layer_name}) there and {named}{made} here")
        if None not in (final_norm, self.final_norm) and final_norm != self.final_norm:
            found.append(
                f"the final norm is {'' if self.final_norm else 'not '}in it there, and {'' if final_norm else 'not '}here"
            )
        if found:
            raise self._refusal(found)

    def _refusal(self, differences: list[str]) -> CheckpointError:
        made = self.record.settings["upstream"]
        what = f"this codebook is of other features: {'; '.join(differences)}."
        return CheckpointError(what, f"It is for {self.layer_name} of {made}, loaded with the same checkpoint and options.")

    # Files ----------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the codebook to a safetensors file, whole or not at all. The same codebook gives the same bytes.

        Raises:
            CheckpointError: the file system refuses.

        Example:
            >>> import tempfile
            >>> from hubcore import hub
            >>> path = Path(tempfile.mkdtemp()) / "codebook.safetensors"
            >>> Codebook(torch.randn(5, 240), record_of(hub.load("fbank"), 0)).save(path)
            >>> load(path).layer_name
            'features'
        """
        about = {"record": self.record.plain(), "final_norm": self.final_norm, "fitted": self.fitted}
        tensors = {"centroids": self.centroids, "mean": self.mean, "scale": self.scale}
        held = {name: tensor.cpu().contiguous() for name, tensor in tensors.items() if tensor is not None}
        try:
            with write_whole(path) as temporary:
                save_file(held, temporary, metadata={"hubcore_codebook": json.dumps(about, sort_keys=True)})
        except (OSError, SafetensorError) as error:
            what = f"{printable(path)} could not be written ({error}). Nothing was changed there."
            raise CheckpointError(what, fix="Check that the folder exists, may be written to, and has space.") from error


def load(
    source: str | os.PathLike[str],
    *,
    layer: int | str | None = None,
    clusters: int | None = None,
    upstream: Upstream | None = None,
) -> Codebook:
    """A codebook from a file, an address, or the card of a checkpoint that has some.

    Args:
        source: a path, `https://...` or `hf://org/repo[@revision]/file`, or a name of `hubcore list` whose card has codebooks.
        layer: which of a card's, by index or name; of another source it is checked.
        clusters: which of a card's that are of one layer.
        upstream: the one that it is to be used with; see `Codebook.check`.

    Raises:
        CheckpointError: the file is no codebook, or of other features; no such file, or the card has no such codebook.
        DownloadError: it cannot be fetched, or is not the file that the card promises.

    Example:
        >>> load("wav2vec2_tiny_prompts", layer=9)
        Traceback (most recent call last):
        hubcore.errors.CheckpointError: the card 'wav2vec2_tiny_prompts' has no codebook...
    """
    found = find_checkpoint(source)
    path = _of_card(found, layer, clusters) if isinstance(found, Card) else fetch(found)
    codebook = read_codebook(path)
    if layer not in (None, codebook.layer, codebook.layer_name, str(codebook.layer)):
        raise codebook._refusal([f"layer is {codebook.layer} ({codebook.layer_name}) there and {layer} here"])
    if upstream is not None:
        codebook.check(upstream)
    return codebook


def _of_card(card: Card, layer: int | str | None, clusters: int | None) -> Path:
    """The local file of one of a card's codebooks."""
    fitting = [one for one in card.codebooks if str(layer) in ("None", str(one.layer)) and clusters in (None, one.clusters)]
    if len(fitting) != 1:
        asked = "" if layer is None else f" of layer {layer}" + (f" with {clusters} centroids" if clusters else "")
        what = f"the card {card.name!r} has {'several codebooks' if fitting else 'no codebook'}{asked}."
        named = [f"layer {one.layer}" + (f", {one.clusters} centroids" if one.clusters else "") for one in card.codebooks]
        raise CheckpointError(what, fix=f"It has: {'; '.join(named)}." if named else _AGAIN)
    return fetch_source(fitting[0].source, card)


def read_codebook(path: str | os.PathLike[str]) -> Codebook:
    """The codebook in a file, read as data.

    Raises:
        CheckpointError: it is damaged, or no codebook.
    """
    with SafetensorsFile(path) as file:
        name = printable(path)
        if "hubcore_codebook" not in file.metadata or not {"centroids"} <= set(file.names) <= {"centroids", "mean", "scale"}:
            raise CheckpointError(f"{name} is no codebook: it has {listed(file.names)}.", fix=_AGAIN)
        tensors = file.read_many(file.refs, dtype=torch.float32)
        try:
            about = parse_json(file.metadata["hubcore_codebook"])
            record, final_norm, fitted = Record.parse(about["record"]), about["final_norm"], dict(about["fitted"])
            if type(final_norm) not in (bool, type(None)):
                raise ValueError("its final norm is neither true nor false")
            return Codebook(**tensors, record=record, final_norm=final_norm, fitted=fitted)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{name} is a damaged codebook ({error}).", fix=_AGAIN) from error


def record_of(
    upstream: Upstream, layer: int | str, call_options: Mapping[str, Any] = _NO_OPTIONS, name: str | None = None
) -> Record:
    """The record of one layer of an upstream, as a codebook has it.

    Args:
        upstream: any, in eval mode.
        layer: its index or its name.
        call_options: keywords of its calls.
        name: of the upstream; its card's, or its class's, if None.

    Raises:
        OptionError: no such layer, or several.

    Example:
        >>> from hubcore import hub
        >>> record_of(hub.load("fbank"), 0).layer_names
        ('features',)
    """
    settings = settings_for(upstream, layer, "float32", name, "npy", call_options)
    if settings.stacked:
        raise OptionError(f"the layer is {layer!r}. Units are of one.", fix="Name it by its index, such as 9.")
    return Record.of(upstream, settings)


def final_norm_in(upstream: Upstream, layer: int) -> bool | None:
    """True if a layer of an upstream includes the final norm of its encoder; None where that is not known.

    Example:
        >>> from hubcore import hub
        >>> final_norm_in(hub.load("wav2vec2_tiny_prompts"), 4)  # it is post-norm: there is none
        False
    """
    if not isinstance(upstream, EncoderUpstream):
        return None
    included = bool(getattr(getattr(upstream.model, "encoder", None), "final_norm", True))
    return layer == upstream.num_layers and bool(upstream.after_blocks) and included
