"""The part of `check_plugin` that runs the plugin: its classes, and the conformance kit on whatever can be built here."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import inspect
import os
import re
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hubcore import hub
from hubcore.card import Card
from hubcore.describe import locate
from hubcore.doctor.distribution import packages_of
from hubcore.doctor.report import Finding, PluginReport
from hubcore.errors import HubcoreError, OptionError, PluginError, nearest_names
from hubcore.loading import import_class
from hubcore.registry.names import TARGET, UPSTREAMS_GROUP, Entry, Family, canonical, current_registry, target_of
from hubcore.registry.reading import NAME
from hubcore.sources.resolve import find_cached
from hubcore.text import error_text

_REMOTE = re.compile(r"(?!package://)[\w+.-]+://")
CONTRACT = "docs/conformance.md of hubcore says what each check proves"


def check_upstreams(report: PluginReport, points: list[importlib.metadata.EntryPoint], exempt: Mapping[str, str]) -> None:
    """Adds to `report` what its classes, and its upstreams under the conformance kit, give.

    Raises:
        OptionError: an exemption that is none.
    """
    upstreams = _Upstreams(report, points, exempt)
    with _offline():
        upstreams.check()


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Offline mode for a while: a check must not start a download of gigabytes."""
    before = os.environ.get("HUBCORE_OFFLINE")
    os.environ["HUBCORE_OFFLINE"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HUBCORE_OFFLINE"]
        else:
            os.environ["HUBCORE_OFFLINE"] = before


class _Upstreams:
    """The classes and the names of one distribution."""

    def __init__(self, report: PluginReport, points: list[importlib.metadata.EntryPoint], exempt: Mapping[str, str]) -> None:
        from hubcore.testing.exemptions import Exemptions

        self.report = report
        self.roots = [Path(root) for package in packages_of(report, points) for root in _roots(package)]
        self.families = [
            Family(point.name, target_of(point), report.distribution, report.version)
            for point in points
            if point.group == UPSTREAMS_GROUP and NAME.fullmatch(point.name) and TARGET.fullmatch(target_of(point))
        ]
        key = canonical(report.distribution)
        self.entries = [entry for entry in current_registry().entries if canonical(entry.owner) == key]
        names = {entry.name for entry in self.entries}
        self.exempt: dict[str, dict[str, str]] = {}
        for text, reason in exempt.items():
            name, slash, check = text.rpartition("/")
            if slash and name not in names:
                raise OptionError(
                    f"an exemption is for {name!r}. {report.distribution} has {', '.join(sorted(names))}. Name one."
                )
            Exemptions.parse({check: reason})
            self.exempt.setdefault(name if slash else "", {})[check] = reason

    def check(self) -> None:
        """Every class, then every name; a family of which no name could be tried, with fresh weights."""
        classes = {family.name: self._class(family) for family in self.families}
        tried = {entry.family.name for entry in self.entries if self._name(entry) and entry.family}
        for family in self.families:
            cls = classes[family.name]
            if cls is not None and family.name not in tried:
                self._fresh(family, cls)

    def _class(self, family: Family) -> type[Any] | None:
        """The family's class, and whether it can be called as the contract says."""
        try:
            cls = import_class(family)
        except PluginError as error:
            place = self._where(error) or _class_place(family)
            self.report.add("class", family.target, [Finding.of(str(error), place)], "")
            return None
        try:
            faults = [*_signature_faults(cls)]
        except Exception as error:  # a metaclass may answer with anything
            self.report.add("class", family.target, [self._failure(f"{family.target} cannot be examined", error, "")], "")
            return None
        findings = [Finding.of(cause, _class_place(family), remedy) for cause, remedy in faults]
        self.report.add("class", family.target, findings, _class_place(family))
        return cls

    def _name(self, entry: Entry) -> bool:
        """Builds and checks what a name means; whether that was tried."""
        card, family = entry.card, entry.family
        place = f"{card.file}, line {card.line}" if card else _class_place(family) if family else ""
        if family is None:
            wanted = card.upstream if card else entry.name
            near = nearest_names(wanted, [e.family.name for e in current_registry().entries if e.family])
            cause = f"{entry.name!r} is of the family {wanted!r}, which no installed distribution provides."
            hint = f" The nearest families are {', '.join(near)}." if near else ""
            remedy = "Correct its `upstream`, or let the distribution depend on the one that provides it."
            finding = Finding.of(cause + hint, place, remedy)
            self.report.add("conformance", entry.name, [finding], "")
            return False
        if family.missing:
            self.report.skip("conformance", entry.name, family.missing)
            return False
        if card is not None and _must_be_fetched(card):
            self.report.skip("conformance", entry.name, f"its checkpoint is not here: `hubcore fetch {entry.name}` gets it")
            return False
        if (card is None or not card.sources) and _reads_checkpoints(family):
            if card is not None:
                why = f"the card names no sources; hub.load({entry.name!r}, checkpoint=...) takes one of the caller's"
                self.report.skip("conformance", entry.name, why)
            return False
        try:
            upstream = hub.load(f"{entry.owner}:{entry.name}" if entry.name in current_registry().duplicates() else entry.name)
        except (Exception, SystemExit) as error:
            self.report.add("conformance", entry.name, [self._failure(f"{entry.name!r} cannot be loaded", error, place)], "")
            return True
        self._conformance(entry.name, upstream, family)
        return True

    def _fresh(self, family: Family, cls: type[Any]) -> None:
        """The conformance kit on fresh weights, of the smallest named config there is."""
        configs = getattr(cls, "configs", {})
        config = "tiny" if "tiny" in configs else next(iter(configs), None)
        title = f"{family.name} (fresh weights{f', config {config}' if config else ''})"
        if not hasattr(cls, "from_config"):
            self.report.skip(
                "conformance", family.name, "its class has no from_config, so it needs a checkpoint that is not here"
            )
            return
        try:
            upstream = cls.from_config(config).eval()
        except (Exception, SystemExit) as error:
            failure = self._failure(f"{family.target}.from_config({config!r}) fails", error, _class_place(family))
            self.report.add("conformance", title, [failure], "")
            return
        self._conformance(title, upstream, family)

    def _conformance(self, title: str, upstream: Any, family: Family) -> None:
        from hubcore.protocol import missing_parts
        from hubcore.testing import CHECKS, check_upstream

        lacking = missing_parts(upstream)
        if lacking:
            remedy = f"Set {'them' if len(lacking) > 1 else 'it'} in __init__, or inherit hubcore.UpstreamBase."
            cause = f"{type(upstream).__name__} lacks {', '.join(lacking)} of the contract."
            self.report.add("conformance", title, [Finding.of(cause, _class_place(family), remedy)], "")
            return
        exempt = {**self.exempt.get("", {}), **self.exempt.get(title, {})}
        try:
            result = check_upstream(upstream, exempt)
        except SystemExit as error:
            failure = self._failure(f"{title!r} ends the program when it is called", error, _class_place(family))
            self.report.add("conformance", title, [failure], "")
            return
        findings = []
        for failed in result.failures:
            rule = (inspect.getdoc(CHECKS[failed.name]) or "").partition("\n")[0]
            cause = f"{title!r} fails the check {failed.name}: {failed.detail.rstrip('.')}."
            findings.append(Finding.of(cause, _class_place(family), f"The contract: {rule} Mend forward; {CONTRACT}."))
        seconds = sum(check.seconds for check in result.results)
        passed = sum(check.outcome == "passed" for check in result.results)
        spared = len(result.results) - passed - len(findings)
        detail = f"{passed} checks passed{f', {spared} exempt' if spared else ''}, {seconds:.1f} s"
        self.report.add("conformance", title, findings, detail)

    def _failure(self, what: str, error: BaseException, place: str) -> Finding:
        own = self._where(error) or place
        if isinstance(error, HubcoreError):
            return Finding.of(f"{what}: {error}", own)
        return Finding.of(f"{what}: {error_text(error).rstrip('.')}.", own, "Mend it there.")

    def _where(self, error: BaseException) -> str:
        """The file and the line in the distribution's own code that an error came from; empty if from none of it."""
        place = ""
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, SyntaxError) and cause.filename and self._owns(cause.filename):
                place = f"{cause.filename}, line {cause.lineno}"
            for frame in traceback.extract_tb(cause.__traceback__):
                if self._owns(frame.filename):
                    place = f"{frame.filename}, line {frame.lineno}"
            cause = cause.__cause__
        return place

    def _owns(self, file: str) -> bool:
        return any(Path(file).is_relative_to(root) for root in self.roots)


def _roots(package: str) -> Iterator[str]:
    try:
        spec = importlib.util.find_spec(package)
    except Exception:  # the finder of some other distribution's editable install may be broken
        return
    if spec is not None:
        yield from spec.submodule_search_locations or ([spec.origin] if spec.origin else [])


def _class_place(family: Family) -> str:
    file, line = locate(family)
    return f"{file}, line {line}" if line else file or ""


def _signature_faults(cls: type[Any]) -> Iterator[tuple[str, str]]:
    """Cause and remedy of everything that keeps a class from being called as the contract says."""
    remedy = "Write def forward(self, wavs, lengths=None, *, layers=None)."
    for name in ("forward", "__call__"):
        # Not getattr: every class can be called itself, by what its metaclass has.
        if not any(callable(vars(base).get(name)) for base in cls.__mro__):
            both = remedy if name == "forward" else "Write __call__ = forward, or inherit torch.nn.Module."
            yield f"{cls.__name__} has no {name}, so that it cannot be called with waveforms.", both
            return
    try:
        parameters = inspect.signature(cls.forward).parameters
    except (TypeError, ValueError):
        return  # it is written in C, or hides its signature: the conformance kit calls it
    for name in ("wavs", "lengths", "layers"):
        if name not in parameters:
            yield f"{cls.__name__}.forward takes no {name!r}.", remedy
        elif name == "layers" and parameters[name].kind is not inspect.Parameter.KEYWORD_ONLY:
            yield f"{cls.__name__}.forward takes 'layers' by position too, which the contract reserves.", remedy
        elif name != "wavs" and parameters[name].default is not None:
            yield f"{cls.__name__}.forward needs {name!r}, which a caller may leave out.", remedy
    swallow = [name for name, parameter in parameters.items() if parameter.kind is inspect.Parameter.VAR_KEYWORD]
    if swallow:
        yield f"{cls.__name__}.forward takes **{swallow[0]}, which swallows misspelt options.", "Name every option it knows."


def _must_be_fetched(card: Card) -> bool:
    """Whether no source of a card is here, and at least one is somewhere else."""
    remote = [source for source in card.sources if _REMOTE.match(source.uri)]
    return len(remote) == len(card.sources) > 0 and not any(find_cached(source, card) for source in card.sources)


def _reads_checkpoints(family: Family) -> bool:
    """Whether the class reads checkpoints, so that a name without a card means no particular weights."""
    from hubcore.upstream import UpstreamBase

    try:
        cls = import_class(family)
    except PluginError:
        return True  # reported with the class already
    if not issubclass(cls, UpstreamBase):
        return hasattr(cls, "from_checkpoint")
    return any("from_file" in vars(base) for base in cls.__mro__ if base is not UpstreamBase)
