"""`Probe`: a trained head with all that it was trained on; `load` reads one, as data only.

Shapes: `L` layers, `F` frames, `D` dim, `C` outputs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from hubcore.checkpoints.formats.safetensors_file import SafetensorsFile
from hubcore.errors import CheckpointError, CheckpointLayoutError, OptionError
from hubcore.extract.record import Record
from hubcore.extract.reduce import POOLS, mixed, pooled
from hubcore.extract.settings import settings_for
from hubcore.features.folder import FeatureFolder
from hubcore.fields import build
from hubcore.files import parse_json, write_whole
from hubcore.options import option_names
from hubcore.probes.heads import Head, HeadShape, best_path
from hubcore.probes.inputs import layered
from hubcore.probes.labels import TASKS, TOKENS
from hubcore.protocol import Upstream
from hubcore.text import printable

_KEY = "hubcore_probe"


class Prediction(NamedTuple):
    """The answer of a probe for an utterance."""

    value: str | float
    """The class, the number, or the text."""
    probabilities: Mapping[str, float] | None
    """Of each class; None for other tasks."""


@dataclass(eq=False)
class Probe:
    """A trained probe: called with waveforms, it computes the features that it was trained on, and answers.

    `load` gives one.
    """

    head: Head
    """The weights."""
    record: Record
    """The record of the features: upstream, checkpoint, options, layers."""
    places: tuple[int, ...]
    """Places of the layers that it reads, among those of the record."""
    task: str
    """`classify`, `regress` or `ctc`."""
    labels: tuple[str, ...]
    """Classes, or tokens without the blank; none for `regress`."""
    pool: str | None
    """The pooling of frames; None for `ctc`."""
    tokens: str | None
    """`characters` or `phones` of `ctc`."""
    scale: tuple[float, float]
    """Mean and deviation of the numbers of `regress`."""
    scores: Mapping[str, Any]
    """Measures, as the report has them."""
    upstream: Upstream | None = None
    """The upstream; `hub.load` of the record's name if None."""

    def __call__(self, wavs: Sequence[Tensor]) -> list[Prediction]:
        """An answer for each waveform, a 1-D float tensor at the upstream's sample rate.

        Raises:
            OptionError: the upstream is another one than that of the features; the message names what differs.
            AudioError: a waveform cannot be used.
        """
        if self.upstream is None:
            self.upstream = _load_upstream(self.record)
        upstream: Any = self.upstream
        settings = self.record.settings
        calls = _call_options(upstream, settings["options"])
        here = settings_for(upstream, [0], "float32", settings["upstream"] if upstream.card is None else None, "npy", calls)
        self._check(Record.of(upstream, here).settings, dict(enumerate(upstream.layer_names)), "the upstream")
        device = self.head.mean.device
        with torch.inference_mode():
            outs = upstream(wavs, layers=settings["layers"], **calls).unpad()
            states = [[state.float().to(device) for state in one] for one in outs]
            if settings["mix"] is not None:
                states = [[mixed(one, settings["mix"])] for one in states]
            return [self._answer(torch.stack([self._pooled(one[place]) for place in self.places])) for one in states]

    def from_features(self, folder: FeatureFolder) -> dict[str, Prediction]:
        """An answer for each utterance of a folder, opened by `hubcore.features.open`.

        Raises:
            OptionError: its features are of another upstream, or other layers; the message names what differs.
        """
        settings = folder.record.settings
        names = dict(zip(settings["layers"], folder.layer_names, strict=True))
        mine, more = self.record.settings["mix"], list[str]()
        if settings["mix"] != mine:
            more.append(f"mix is {mine!r} there and {settings['mix']!r} here")
        if settings["pool"] not in (None, self.pool):
            more.append(f"pool is {self.pool!r} there and {settings['pool']!r} here")
        self._check(settings, names, printable(folder.folder), more)
        with torch.inference_mode():
            return {name: self._answer(self._held(folder, one.array)) for name, one in folder.items()}

    def _held(self, folder: FeatureFolder, array: Any) -> Tensor:
        """`(L, D)` or `(L, F, D)` of an array of a folder, whose layers may be others, or more."""
        theirs, ours = folder.record.settings["layers"], self.record.settings["layers"]
        mix = folder.record.settings["mix"] is not None
        states = layered(folder, array, self.places if mix else [theirs.index(ours[place]) for place in self.places])
        states = states.to(self.head.mean.device)
        return states if folder.record.settings["pool"] else torch.stack([self._pooled(one) for one in states])

    def _pooled(self, state: Tensor) -> Tensor:
        return state if self.pool is None else pooled(state, self.pool)

    def _answer(self, states: Tensor) -> Prediction:
        output = self.head(states[None])[0].float().cpu()
        if self.task == "regress":
            mean, std = self.scale
            return Prediction(float(output[0]) * std + mean, None)
        if self.task == "classify":
            found = output.softmax(-1).tolist()
            return Prediction(self.labels[int(output.argmax())], dict(zip(self.labels, found, strict=True)))
        text = [self.labels[token - 1] for token in best_path(output)]
        return Prediction(("" if self.tokens == "characters" else " ").join(text), None)

    def _check(self, theirs: Mapping[str, Any], names: Mapping[int, str], who: str, more: Sequence[str] = ()) -> None:
        """Raises `OptionError` if features of such settings, with such layers, are not those that the probe was trained on."""
        mine, found = self.record.settings, self.record.other_upstream(theirs)
        for place, (layer, name) in enumerate(zip(mine["layers"], self.record.layer_names, strict=True)):
            if (mine["mix"] or place in self.places) and names.get(layer) != name:
                found.append(f"layer {layer} is {name!r} there and {names.get(layer, 'not there')!r} here")
        found += more
        if found:
            what = f"the probe was trained on features of {mine['upstream']}, and {who} has others: {'; '.join(found)}."
            raise OptionError(what, fix="Use the upstream, checkpoint, options and layers that it was trained with.")


def _call_options(upstream: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those options of features that were given to each call, and not to the upstream."""
    own = getattr(upstream, "options", {})
    return {
        name: value for name, value in options.items() if name not in own and name not in ("chunk_seconds", "overlap_seconds")
    }


def _load_upstream(record: Record) -> Upstream:
    """The upstream of a record, by its name and options."""
    from hubcore import hub
    from hubcore.loading import import_class
    from hubcore.registry.names import current_registry

    name = record.settings["upstream"]
    own = record.card is None and record.settings["checkpoint_sha256"] is not None
    if own or name not in current_registry().names():
        what = f"the probe was trained on features of {name}, with a checkpoint that no card here names."
        raise OptionError(what, fix="Load that upstream, and pass it: hubcore.probes.load(path, upstream=model).")
    entry = current_registry().find(name)
    given = {key: value for key, value in record.settings["options"].items() if value is not None}
    if entry.family is not None and not entry.family.missing:
        with_weights = record.settings["checkpoint_sha256"] is not None
        known = option_names(import_class(entry.family), with_weights=with_weights) or ()
        given = {key: value for key, value in given.items() if key in known}
    return hub.load(name, **given)


def write_probe(path: Path, probe: Probe) -> None:
    """Writes a probe as safetensors, whole or not at all.

    Raises:
        CheckpointError: the file cannot be written.
    """
    about = {
        "record": probe.record.plain(),
        "shape": asdict(probe.head.shape),
        **{name: getattr(probe, name) for name in ("places", "task", "labels", "pool", "tokens", "scale", "scores")},
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in probe.head.state_dict().items()}
    try:
        with write_whole(path) as temporary:
            save_file(tensors, temporary, {_KEY: json.dumps(about, sort_keys=True)})
    except (OSError, SafetensorError) as error:
        what = f"the probe {printable(path)} cannot be written ({error}). Nothing was changed there."
        raise CheckpointError(what, fix="Check that the folder may be written to, and has space.") from error


def load(path: str | os.PathLike[str], upstream: Upstream | None = None, *, device: torch.device | str = "cpu") -> Probe:
    """A probe that `hubcore probe` or `train_probes` wrote, ready to be called with waveforms. No code of the file runs.

    Args:
        path: the file.
        upstream: the upstream, in eval mode; if None, the one of the probe's card is loaded at the first call.
        device: where the head computes.

    Raises:
        CheckpointError: the file is damaged, or no probe.

    Example:
        >>> import tempfile
        >>> from hubcore import features, hub, probes
        >>> from hubcore.extract import extract
        >>> from hubcore.testing import speech_like
        >>> import soundfile
        >>> root = Path(tempfile.mkdtemp())
        >>> for number in range(9):
        ...     soundfile.write(root / f"{number}.wav", speech_like(8000).numpy() * (1 + number % 3), 16000)
        >>> _ = extract([root], hub.load("fbank_no_cmvn"), root / "out", pool="mean")
        >>> labels = probes.Labels("classify", {str(number): "abc"[number % 3] for number in range(9)})
        >>> report = probes.train_probes(features.open(root / "out"), labels, root / "probe", recipe=probes.Recipe(seeds=1))
        >>> probe = load(root / "probe" / report.best.file)
        >>> [answer.value for answer in probe([speech_like(8000), speech_like(8000) * 3])]
        ['a', 'c']
    """
    with SafetensorsFile(path) as file:
        try:
            about = parse_json(file.metadata[_KEY])
            probe = _parsed(about)
        except (KeyError, ValueError, TypeError, AttributeError, OptionError) as error:
            what = f"{printable(path)} is no probe that hubcore wrote ({error!r:.200})."
            raise CheckpointLayoutError(what, fix="Pass a file of the --out of `hubcore probe`.") from error
        wanted = {name: tuple(tensor.shape) for name, tensor in probe.head.state_dict().items()}
        if {name: ref.shape for name, ref in file.refs.items()} != wanted:
            what = f"the tensors of {printable(path)} are not those that its header describes."
            raise CheckpointLayoutError(what, fix="Train the probe again.")
        head = Head(probe.head.shape)
        head.load_state_dict(file.read_many(file.refs, dtype=torch.float32))
    head.requires_grad_(False).eval()
    probe.head, probe.upstream = head.to(device), upstream
    return probe


def _parsed(about: Any) -> Probe:
    """The probe of a file's header, with a head without memory. Raises what `load` turns into one error."""
    record, shape = (
        Record.parse(about["record"]),
        build(HeadShape, about["shape"], prefix="shape", where=lambda _: "the header"),
    )
    with torch.device("meta"):
        head = Head(shape)
    places, labels = tuple(about["places"]), tuple(about["labels"])
    mean, std = about["scale"]
    settings = record.settings
    layers, mix = settings["layers"], settings["mix"]
    held = 1 if mix is not None else len(layers)
    outputs = {"classify": len(labels), "regress": 1, "ctc": len(labels) + 1}
    if (
        about["task"] not in TASKS
        or outputs[about["task"]] != shape.outputs
        or not all(isinstance(label, str) for label in labels)
        or len(places) != shape.layers
        or not all(isinstance(place, int) and 0 <= place < held for place in places)
        or about["pool"] not in ((None,) if about["task"] == "ctc" else POOLS)
        or about["tokens"] not in (TOKENS if about["task"] == "ctc" else (None,))
        or len(layers) != len(record.layer_names)
        or not all(type(layer) is int for layer in layers)
        or not (mix is None or (len(mix) == len(layers) and all(isinstance(weight, int | float) for weight in mix)))
        or not isinstance(settings["options"], dict)
        or not isinstance(settings["upstream"], str)
    ):
        raise ValueError("its fields contradict each other")
    return Probe(
        head, record, places, about["task"], labels, about["pool"], about["tokens"], (float(mean), float(std)), about["scores"]
    )
