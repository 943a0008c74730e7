"""The examples in docstrings run, and every public class and function has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

from tests.paths import PLUGINS

pytestmark = pytest.mark.slow

PACKAGES = ("hubcore", *PLUGINS)
PUBLIC = (
    *PACKAGES,
    "hubcore.hub",
    "hubcore.checkpoints",
    "hubcore.corpus",
    "hubcore.extract",
    "hubcore.features",
    "hubcore.nn",
    "hubcore.probes",
    "hubcore.testing",
    "hubcore.units",
)
"""Modules whose `__all__` is a promise."""
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

_RECORD = "a record of plain fields, made by the function whose example shows it"
_NETWORK = "its answer depends on the machine and on what was downloaded"
WITHOUT_EXAMPLE = {
    "hubcore.checkpoints.layouts.Checkpoint": _RECORD,
    "hubcore.checkpoints.layouts.TensorInfo": _RECORD,
    "hubcore.checkpoints.weights.Loaded": _RECORD,
    "hubcore.checkpoints.weights.encoder_values": "a step of Reader, which has one",
    "hubcore.checkpoints.names.Turn": _RECORD,
    "hubcore.checkpoints.native.write_native": "UpstreamBase.save_checkpoint, its only caller, has one",
    "hubcore.extract.settings.Settings": _RECORD,
    "hubcore.extract.batches.Failure": _RECORD,
    "hubcore.corpus.utterance.Source": "a protocol; File, which keeps it, has one",
    "hubcore.extract.batches.Measured": _RECORD,
    "hubcore.extract.run.Summary": _RECORD,
    "hubcore.extract.run.Forecast": _RECORD,
    "hubcore.extract.writers.FeatureWriter": "a protocol; NpyWriter, which keeps it, has one",
    "hubcore.features.dataset.FeatureBatch": _RECORD,
    "hubcore.features.dataset.FeatureItem": _RECORD,
    "hubcore.features.exports.to_datasets": "it would fill the cache of datasets",
    "hubcore.features.folder.FeatureFolder": "open, which makes it, has one",
    "hubcore.features.folder.Features": _RECORD,
    "hubcore.units.applying.Applied": _RECORD,
    "hubcore.units.fitting.Fitted": _RECORD,
    "hubcore.hub.fetch": _NETWORK,
    "hubcore.probes.report.LayerReport": _RECORD,
    "hubcore.probes.report.Report": _RECORD,
    "hubcore.probes.run.train_probes": "load, which reads what it writes, has one",
    "hubcore.probes.saved.Prediction": _RECORD,
    "hubcore.probes.saved.Probe": "load, which makes it, has one",
    "hubcore.testing.report.CheckResult": _RECORD,
    "hubcore.units.scoring.Score": _RECORD,
    "hubcore_ofa_wav2vec2.cif.CifOutput": _RECORD,
    "hubcore_ofa_wav2vec2.cif.Fired": _RECORD,
}
"""Public objects whose docstring shows no example, and why none is needed."""


def module_names() -> list[str]:
    names = []
    for package in PACKAGES:
        path = importlib.import_module(package).__path__
        names += [package, *(info.name for info in pkgutil.walk_packages(path, f"{package}."))]
    return sorted(names)


@pytest.mark.parametrize("name", module_names())
def test_the_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HUBCORE_OFFLINE", "1")
    module = importlib.import_module(name)
    said: list[str] = []
    attempted = failed = 0
    for test in doctest.DocTestFinder(exclude_empty=True).find(module):
        result = doctest.DocTestRunner(optionflags=FLAGS, verbose=False).run(test, out=said.append)
        attempted, failed = attempted + result.attempted, failed + result.failed
    assert not failed, "".join(said)
    assert bool(attempted) == (">>> " in inspect.getsource(module)), f"{name} has examples where they are not found"


def public_objects() -> dict[str, object]:
    """Classes and functions in the `__all__` of the public modules, each once, by the module that defines it."""
    found: dict[str, object] = {}
    for name in PUBLIC:
        module = importlib.import_module(name)
        for attribute in module.__all__:
            value = getattr(module, attribute)
            if inspect.isclass(value) or inspect.isroutine(value):
                found[f"{value.__module__}.{attribute}"] = value
    return found


def test_public_objects_have_an_example_or_a_reason() -> None:
    objects = public_objects()
    assert len(objects) > 40
    undocumented = sorted(name for name, value in objects.items() if not inspect.getdoc(value))
    assert not undocumented
    without = {name for name, value in objects.items() if ">>> " not in (value.__doc__ or "")}
    assert without - set(WITHOUT_EXAMPLE) == set(), "these have neither an example nor a reason"
    assert set(WITHOUT_EXAMPLE) - without == set(), "these have an example now, or are gone: take them off the list"
