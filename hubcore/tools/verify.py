"""`verify_entry`: whether a name is what its card says, from its links to the features of a fixed clip.

Shapes: `B` batch, `T` samples, `F` frames, `D` dim.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from hubcore.card import Card, Source
from hubcore.errors import DownloadError, HubcoreError, OfflineError
from hubcore.guests import as_guest
from hubcore.loading import build_upstream, import_class
from hubcore.options import reads_files
from hubcore.protocol import Upstream, UpstreamOutput
from hubcore.registry.names import Entry
from hubcore.sources.folders import cache_dir, is_offline
from hubcore.sources.hub.cache import why_wrong
from hubcore.sources.pins import read_pin
from hubcore.sources.resolve import fetch_card, find_cached
from hubcore.sources.schemes import scheme_of
from hubcore.sources.stamps import hash_file
from hubcore.testing.checks import CHECKS
from hubcore.testing.compare import evaluating, expect_finite, expect_same_utterance, largest_gap
from hubcore.testing.inputs import speech_like
from hubcore.text import error_text

CLIP_SECONDS = 3
MATES_SECONDS = (1, 5)
"""Lengths of the clips that the fixed one is batched with: one that is padded, and one that pads it."""
_SHAPE_CHECKS = ("output_types", "lengths", "frame_times")
"""Checks of the conformance kit that compare an output with what the upstream's attributes promise."""

Checksum = Literal["published", "pinned", "none"]
"""Whose SHA-256 a file was compared with: the card's, that of an earlier download here, or nobody's."""
Verdict = Literal["ok", "failed", "not here", "unavailable"]
"""`not here`: offline, and no copy is cached. `unavailable`: no installed package runs this family, or the card is only for
a user's own weights and names none."""


@dataclasses.dataclass(frozen=True)
class LinkState:
    """One source of a card, at the time it was asked."""

    uri: str
    cached: bool
    """True if an intact copy was cached before anything was fetched."""
    reachable: bool | None
    """None where it was not asked: offline, or no link of a scheme known here."""
    problem: str | None
    """Why it is not reachable."""


@dataclasses.dataclass
class Verification:
    """Results for one name; None for steps that were not reached.

    Example:
        >>> from hubcore.registry.names import current_registry
        >>> found = verify_entry(current_registry().find("wav2vec2_tiny_prompts"))
        >>> found.verdict, found.checksum, found.layers, found.used
        ('ok', 'published', 5, 82)
    """

    name: str
    verdict: Verdict = "ok"
    problems: list[str] = dataclasses.field(default_factory=list)
    """Problems, one sentence or more each."""
    links: list[LinkState] = dataclasses.field(default_factory=list)
    """Every source of the card."""
    class_path: str | None = None
    """`module:Class`."""
    config: str | None = None
    """The card's named config, which the checkpoint's own was compared with."""
    source: str | None = None
    """The URI that the file came from."""
    path: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    """Of every byte of the file, read just now; None for the folder of a whole model."""
    checksum: Checksum | None = None
    layers: int | None = None
    """Hidden states."""
    frames: int | None = None
    """Frames of the fixed clip."""
    used: int | None = None
    """Tensors of the file that became weights."""
    ignored: list[str] | None = None
    """Names of those that are no part of the encoder."""
    batch_difference: float | None = None
    """Largest difference between the clip alone and the clip in a batch, relative to the largest value of its layer."""
    seconds: float | None = None
    """To load the weights and run the clips."""

    def end(self, verdict: Verdict, why: str) -> None:
        """Ends with a verdict, and says why."""
        self.verdict = verdict
        self.problems.append(why)

    @property
    def dead_links(self) -> list[LinkState]:
        """The sources that did not give their file."""
        return [link for link in self.links if link.reachable is False]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return dataclasses.asdict(self)


def fixed_clip(sample_rate: int, *, seconds: int = CLIP_SECONDS, seed: int = 0) -> Tensor:
    """The waveform `(T,)` that everything is tried with: made from a formula, the same on every machine."""
    return speech_like(seconds * sample_rate, seed=seed, sample_rate=sample_rate)


def verify_entry(entry: Entry, name: str | None = None) -> Verification:
    """Fetches, loads and runs what a name stands for, and compares each step with its card; never raises for what it finds.

    The result calls it `name`, such as `owner:name` for a contested one.
    """
    card, family = entry.card, entry.family
    found = Verification(name or entry.name, config=card.config if card else None)
    if card is not None:
        found.links = [_state(source, card) for source in card.sources]
    try:
        if family is None or family.missing:
            found.end("unavailable", f"{entry.unavailable}.")
            return found
        found.class_path = family.target
        if card is not None and card.sources:
            _check_file(found, card)
        elif reads_files(import_class(family)):
            what = "its card names no weights" if card else "it is a family, not a checkpoint"
            found.end("unavailable", f"{what}. `hubcore list --family {family.name}` shows the names that can be verified.")
            return found
        with as_guest():
            _check_features(found, entry)
    except OfflineError as error:
        found.end("not here", str(error))
    except HubcoreError as error:
        found.problems.append(str(error))
    except Exception as error:  # a third party's class may raise anything, and the other names must still be verified
        found.problems.append(error_text(error))
    if found.problems and found.verdict == "ok":
        found.verdict = "failed"
    return found


def _state(source: Source, card: Card) -> LinkState:
    cached = find_cached(source, card) is not None
    if is_offline() or not scheme_of(source.uri).can_ask:
        return LinkState(source.uri, cached, None, None)
    problem = why_dead(source)
    return LinkState(source.uri, cached, problem is None, problem)


def why_dead(source: Source) -> str | None:
    """The reason for which a link does not give its file now, in a sentence; None if it does.

    A server that announces another size, or the hub another hash, than the source promises counts as dead.
    """
    try:
        scheme_of(source.uri).ask(source, cache_dir())
    except DownloadError as error:
        return str(error)
    return None


def _check_file(found: Verification, card: Card) -> None:
    """Fetches the checkpoint and compares size and SHA-256 of every byte with the card, else with the pin."""
    pins = {source.uri: read_pin(source.uri) for source in card.sources}  # those of before this fetch
    path = fetch_card(card)
    source = _giver(card, path, found.links)
    found.path, found.source = str(path), source.uri if source else None
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        found.bytes, found.checksum = sum(file.stat().st_size for file in files), "none"
        wrong = {file.name: why_wrong(file, None, every_byte=True) for file in files}
        found.problems += [f"{name} is damaged: {what}." for name, what in wrong.items() if what]
        return
    found.bytes, found.sha256 = path.stat().st_size, hash_file(path)
    pin = pins.get(source.uri) if source else None
    published = source.sha256 if source else None
    found.checksum = "published" if published else "pinned" if pin else "none"
    promised = published or (pin.sha256 if pin else None)
    if promised not in (None, found.sha256):
        found.problems.append(
            f"{path} has SHA-256 {found.sha256}, but must have {promised} ({found.checksum}): it was changed on this disk. "
            f"`hubcore cache rm {card.name}` removes it; fetch it again."
        )
    if source and source.size not in (None, found.bytes):
        found.problems.append(f"{path} has {found.bytes} bytes, but must have {source.size}. Fetch it again.")


def _giver(card: Card, path: Path, links: Sequence[LinkState]) -> Source | None:
    """The source that a file came from; of several that share it, one that was cached before, else one that answers."""
    sharing = [(link, source) for link, source in zip(links, card.sources, strict=True) if find_cached(source, card) == path]
    sharing.sort(key=lambda pair: (not pair[0].cached, pair[0].reachable is False))
    return sharing[0][1] if sharing else None


def _check_features(found: Verification, entry: Entry) -> None:
    """Loads the upstream, runs the clip alone and in a batch, and looks at what comes out."""
    began = time.perf_counter()
    upstream = build_upstream(entry, None, {})
    report = getattr(upstream, "load_report", None)
    if report is not None:
        found.used, found.ignored = len(report.used), list(report.ignored)
    found.problems += _class_problem(upstream, entry) + _config_problems(upstream, entry.card)
    alone, found.batch_difference, wrong = compare_features(upstream)
    found.layers, found.frames = len(alone.hidden_states), int(alone.lengths[0])
    found.problems += wrong
    found.seconds = time.perf_counter() - began


def compare_features(upstream: Upstream) -> tuple[UpstreamOutput, float | None, list[str]]:
    """The fixed clip's output alone, its largest relative difference in a batch, and what is wrong with both."""
    wav = fixed_clip(upstream.sample_rate)
    short, long = (fixed_clip(upstream.sample_rate, seconds=n, seed=seed) for seed, n in enumerate(MATES_SECONDS, start=1))
    with evaluating(upstream), torch.no_grad():
        alone, batch = upstream([wav]), upstream([short, wav, long])
    gap = largest_gap(batch, 1, alone, 0)
    try:
        for name in _SHAPE_CHECKS:
            CHECKS[name](upstream)
        expect_finite(alone, what="the fixed clip")
        expect_same_utterance(batch, 1, alone, 0, what="the fixed clip in a batch, compared with alone")
    except AssertionError as error:
        return alone, gap, [str(error)]
    return alone, gap, []


def _class_problem(upstream: object, entry: Entry) -> list[str]:
    family = entry.family
    if family is None or type(upstream) is import_class(family):
        return []
    return [f"it is a {type(upstream).__name__}, but must be a {family.target}. Tell the authors of {family.distribution}."]


def _config_problems(upstream: Any, card: Card | None) -> list[str]:
    """Lists how the config that runs differs from the card's named one, apart from what the card's own options change."""
    configs = getattr(type(upstream), "configs", {})
    actual = getattr(upstream, "config", None)
    if card is None or card.config is None or actual is None or card.config not in configs:
        return []
    promised = configs[card.config]
    if dataclasses.is_dataclass(promised) and not isinstance(promised, type):
        fields = {field.name for field in dataclasses.fields(promised)}
        changed = {name: value for name, value in card.options.items() if name in fields}
        promised = dataclasses.replace(promised, **changed) if changed else promised
    differences = getattr(promised, "differences", None)
    if callable(differences):
        wrong = [str(difference) for difference in differences(actual)]
    else:
        wrong = [] if promised == actual else [f"{actual!r:.200} instead of {promised!r:.200}"]
    return [f"its config is not {card.config!r} as its card says: {'; '.join(wrong)}. Correct the card."] if wrong else []
