"""Checks that run a plugin's code: its classes, cards, upstreams, objectives and hooks."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

from hubcore import hub
from hubcore.card import Card
from hubcore.describe import locate
from hubcore.doctor.examination import FIX, NOWHERE, Examination, Place, file_of
from hubcore.doctor.installed import CARDS, own_entries
from hubcore.errors import HubcoreError, OptionError, PluginError
from hubcore.hooks import Hooks
from hubcore.registry.names import (
    HOOKS_GROUP,
    OBJECTIVES_GROUP,
    UPSTREAMS_GROUP,
    Entry,
    Family,
    Registry,
    current_registry,
    target_of,
)
from hubcore.text import listed

TORCH_SECONDS = 120.0
"""Longest time for torch's own import."""
KIT_SECONDS = 1800.0
"""Longest time for the conformance kit."""
NOBODYS_URI = "hubcore-doctor://nothing/file"
"""An address of an unknown scheme, for which `hubcore_fetch` must return None."""
_REMOTE = re.compile(r"(?!package://)[\w+.-]+://")


def run(job: Mapping[str, Any]) -> None:
    """Examines one part of a plugin after the other, in the process that `hubcore.doctor.process` started, then ends it."""
    exam = Examination(job)
    check_listing(exam)
    exam.stage("importing torch", TORCH_SECONDS)
    with contextlib.suppress(Exception):  # whoever needs it then says that it is broken
        importlib.import_module("torch")  # now, so that no plugin is blamed for the time that it takes
    for index, (group, name, value) in enumerate(job["parts"]):
        if index >= job["first"]:
            exam.say(part=index)
            CHECKS[group](exam, EntryPoint(name=name, value=value, group=group))
    exam.say(stage="finished")
    exam.leave(0)


def check_listing(exam: Examination) -> None:
    """Checks that listing names, the first step of the process, has imported nothing of the plugin."""
    with exam.step("listing", "hub.list()") as seen:
        hub.list()
        suspects = exam.plugin.packages() | ({"torch"} if exam.job["conformance"] else set())
        imported = sorted(name for name in sys.modules if name.partition(".")[0] in suspects)
        if imported:
            what = f"hub.list() imports {listed(imported, 3)}, although listing reads names only."
            exam.finding(what, "Take it out of the .pth file, or of whatever runs when Python starts.", exam.plugin.place())
        seen.append("imports neither torch nor this distribution")


def check_family(exam: Examination, point: EntryPoint) -> None:
    """A class, and every upstream of it."""
    target, cls, place = target_of(point), None, NOWHERE
    wanted = (point.name, target, exam.plugin.distribution)
    families = (entry.family for entry in current_registry().entries if entry.family)
    family = next(family for family in families if (family.name, family.target, family.distribution) == wanted)
    with exam.step("class", target) as seen:
        module = exam.imported(point)
        if module is not None:
            file, line = locate(family)
            place = (file, line) if file else (file_of(module), None)
            cls = _class(exam, family, module, place)
            seen.append(f"{place[0]}, line {place[1]}")
    if cls is None:
        return
    conformance, built = exam.job["conformance"], False
    for entry in current_registry().entries:
        if entry.family == family and (entry.owner == family.distribution or (entry.owner == "user" and not conformance)):
            built |= _check_entry(exam, entry, cls, place)
    if conformance and not built:
        _check_fresh(exam, family, cls, place)


def _class(exam: Examination, family: Family, module: ModuleType, place: Place) -> type[Any] | None:
    cls = getattr(module, family.class_name, module)
    if not isinstance(cls, type):
        problem = "is not there" if cls is module else f"is a {type(cls).__name__}, not a class"
        exam.finding(f"{family.target} {problem}.", "Correct the entry point, or put the class where it says.", place)
        return None
    faults = [*_signature_faults(cls)]
    if faults:
        what = f"{family.target} {'; '.join(faults)}. So it is no upstream."
        exam.finding(what, "Write def forward(self, wavs, lengths=None, *, layers=None), and __call__.", place)
    return cls if callable(getattr(cls, "forward", None)) else None


def _signature_faults(cls: type[Any]) -> Iterator[str]:
    """Finds differences between a class's signatures and the contract."""
    for name in ("forward", "__call__"):
        # Not getattr: every class can be called itself, by what its metaclass has.
        if not any(callable(vars(base).get(name)) for base in cls.__mro__):
            yield f"has no {name}"
            return
    parameters = inspect.signature(cls.forward).parameters
    for name in ("wavs", "lengths", "layers"):
        if name not in parameters:
            yield f"takes no {name!r}"
        elif name == "layers" and parameters[name].kind is not inspect.Parameter.KEYWORD_ONLY:
            yield "takes 'layers' by position too, which the contract reserves"
        elif name != "wavs" and parameters[name].default is not None:
            yield f"needs {name!r}, which a caller may leave out"
    for name, parameter in parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            yield f"takes **{name}, which swallows misspelt options"


def check_foreign_card(exam: Examination, point: EntryPoint) -> None:
    """A card of this distribution whose family belongs to another one."""
    entry = next(entry for entry in own_entries(exam.plugin.distribution) if entry.card and entry.name == point.name)
    cls = None
    if entry.family is not None and not entry.family.missing:
        with exam.step("class", entry.family.target):
            cls = getattr(importlib.import_module(entry.family.module), entry.family.class_name)
    _check_entry(exam, entry, cls, NOWHERE)


def _check_entry(exam: Examination, entry: Entry, cls: type[Any] | None, place: Place) -> bool:
    """Checks the card of a name, then builds what it means; whether that could be done here."""
    card = entry.card
    place = (card.file or "", card.line) if card else place
    with exam.step("conformance", entry.name, place) as seen:
        if card is not None and not (entry.family and entry.family.missing):
            _check_card(exam, card, entry, cls, place)
        if exam.found:
            return False
        why_not = _why_not_built(exam, entry, cls)
        if cls is None or why_not is not None:
            if why_not:
                exam.skip(entry.name, why_not)
            return False
        _check_built(exam, entry, place, seen)
    return True


def _check_card(exam: Examination, card: Card, entry: Entry, cls: type[Any] | None, place: Place) -> None:
    """Finds problems of a card, except names that others have too."""
    from hubcore.cards.checking import check_card

    configs, target = getattr(cls, "configs", None), entry.family.target if entry.family else ""
    if card.config and isinstance(configs, Mapping) and configs and card.config not in configs:
        what = f"the card {card.name!r} names the config {card.config!r}, which {target} does not have."
        exam.finding(what, f"It has {', '.join(map(str, configs))}. Correct the card.", place, owner=entry.owner)
    elif card.sources and cls is not None and not callable(getattr(cls, "from_checkpoint", None)):
        what = f"{target} has no from_checkpoint, so it cannot load the weights of its cards."
        exam.finding(what, "Inherit hubcore.UpstreamBase, which has it.", place)
    else:
        names = {card.name, *card.aliases}
        others = [e for e in current_registry().entries if e.owner == entry.owner or not names & {e.name, *e.aliases}]
        for found in check_card(card, Registry(others)):
            exam.finding(found.what, found.fix, (found.file, found.line), owner=entry.owner)


def _why_not_built(exam: Examination, entry: Entry, cls: type[Any] | None) -> str | None:
    """Why an upstream is not built here, "" where that need not be said; None if it is."""
    from hubcore.loading import reads_checkpoints
    from hubcore.sources.resolve import find_cached
    from hubcore.upstream import UpstreamBase

    card = entry.card
    if entry.family is None or cls is None or entry.family.missing:
        return entry.unavailable or ""
    if card is not None and card.sources:
        if not exam.job["conformance"]:
            return "its checkpoint is not loaded"
        if any(not _REMOTE.match(source.uri) or find_cached(source, card) for source in card.sources):
            return None
        return f"its checkpoint is not here: `hubcore fetch {entry.name}` gets it"
    foreign = not issubclass(cls, UpstreamBase) and callable(getattr(cls, "from_checkpoint", None))
    if not reads_checkpoints(cls) and not foreign:
        return None
    return f"the card names no sources; hub.load({entry.name!r}, checkpoint=...) takes one of the caller's" if card else ""


def _check_built(exam: Examination, entry: Entry, place: Place, seen: list[str]) -> None:
    from hubcore.loading import build_upstream

    exam.stage(f"building {entry.name!r}")
    try:
        upstream = build_upstream(entry, None, {})
    except (Exception, SystemExit) as error:
        if not (isinstance(error, OptionError) and entry.card is None):  # a family alone may well need options
            exam.error(f"{entry.name!r} cannot be loaded", error, place)
        return
    _check_conformance(exam, entry.name, upstream, place, seen)


def _check_fresh(exam: Examination, family: Family, cls: type[Any], place: Place) -> None:
    """The conformance kit on fresh weights, of the smallest named config there is."""
    configs = getattr(cls, "configs", {})
    config = "tiny" if "tiny" in configs else next(iter(configs), None)
    if not hasattr(cls, "from_config"):
        exam.skip(family.name, "its class has no from_config, so it needs a checkpoint that is not here")
        return
    title = f"{family.name} (fresh weights{f', config {config}' if config else ''})"
    with exam.step("conformance", title, place) as seen:
        exam.stage(f"{family.target}.from_config({config!r})")
        _check_conformance(exam, title, cls.from_config(config).eval(), place, seen)


def _check_conformance(exam: Examination, title: str, upstream: Any, place: Place, seen: list[str]) -> None:
    """The first check of the conformance kit; if it passes, and that is wanted, the rest of them."""
    from hubcore.testing import CHECKS, check_upstream

    try:
        CHECKS["attributes"](upstream)
    except AssertionError as error:
        what = f"{title!r} fails the check attributes: {str(error).rstrip('.')}."
        exam.finding(what, "Correct the class; `hubcore docs upstream_contract` says what each attribute is.", place)
        return
    seen.append("built")
    if not exam.job["conformance"]:
        return
    exam.stage(f"the conformance kit on {title!r}", KIT_SECONDS)
    exempt = exam.job["exempt"]
    result = check_upstream(upstream, {**exempt.get("", {}), **exempt.get(title, {})})
    for failed in result.failures:
        rule = (inspect.getdoc(CHECKS[failed.name]) or "").partition("\n")[0]
        fix = f"The contract: {rule} Correct forward; `hubcore docs conformance` says what each check proves."
        exam.finding(f"{title!r} fails the check {failed.name}: {failed.detail.rstrip('.')}.", fix, place)
    passed, exempted = (sum(check.outcome == how for check in result.results) for how in ("passed", "exempt"))
    seconds = sum(check.seconds for check in result.results)
    seen.append(f"{passed} checks passed{f', {exempted} exempt' if exempted else ''}, {seconds:.1f} s")


def check_objective(exam: Examination, point: EntryPoint) -> None:
    """Checks a class as `hubcore pretrain` does before it trains it."""
    from hubcore.pretrain.objectives import objective_class

    with exam.step("objective", target_of(point)) as seen:
        module = exam.imported(point)
        if module is not None:
            try:
                objective_class(point.name, target_of(point), FIX)
            except PluginError as error:
                exam.finding(error.what, error.fix, (file_of(module), None), error=error.__cause__)
            seen.append("has what training asks of it")


def check_hooks(exam: Examination, point: EntryPoint) -> None:
    """A module of hooks, each called once."""
    from hubcore.loading import build_upstream

    with exam.step("hooks", point.value) as seen:
        module = exam.imported(point)
        if module is None:
            return
        hooks = Hooks()
        hooks.load(exam.plugin.distribution, "", point)
        for name, call in (("feature_writers", hooks.feature_writers), ("commands", hooks.commands)):
            exam.stage(f"calling hubcore_{name}")
            call()
        exam.stage("calling hubcore_fetch")
        if _takes_nobodys(hooks):
            what = f"its hubcore_fetch takes {NOBODYS_URI!r} for its own, and so everybody's addresses."
            exam.finding(what, "Return None for every scheme but yours.", (file_of(module), None))
        if hooks.manager.hook.hubcore_upstream_loaded.get_hookimpls():
            exam.stage("calling hubcore_upstream_loaded")
            entry = current_registry().find("hubcore:fbank")
            hooks.upstream_loaded(build_upstream(entry, None, {}), entry.card)
        for problem in hooks.problems:
            exam.finding(problem.what, problem.fix or FIX, (problem.file, problem.line), error=problem.error)
        seen.append("loaded and called once; none has failed")


def _takes_nobodys(hooks: Hooks) -> bool:
    """True if a plugin answers for an address of an unknown scheme, which is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return hooks.fetch(NOBODYS_URI, Path(folder), True) is not None
        except PluginError:
            return False  # recorded by the manager
        except HubcoreError:
            return True


CHECKS: Mapping[str, Callable[[Examination, EntryPoint], None]] = {
    UPSTREAMS_GROUP: check_family,
    OBJECTIVES_GROUP: check_objective,
    HOOKS_GROUP: check_hooks,
    CARDS: check_foreign_card,
}
"""By the group of an entry point, what examines it."""
