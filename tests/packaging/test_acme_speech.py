"""A company's own plugin, as a wheel in a fresh environment beside hubcore's: found, loaded, checked, uninstalled, gone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.packaging.conftest import Environment, build_wheel

SOURCE = Path(__file__).parent / "acme_speech"
NAMES = {"acme_bands", "acme_bands_call_centre", "acme_best", "acme_peaks", "acme_peaks_loud"}
SAVE = """
import torch
from acme_speech.bands import CONFIGS, AcmeBandsUpstream
torch.manual_seed(0)
AcmeBandsUpstream(CONFIGS["eight"]).save_checkpoint("call_centre.safetensors")
"""
CONFORM = """
import torch
from hubcore import Upstream, hub
from hubcore.testing import check_upstream
for name in ("acme_best", "acme_peaks_loud", "acme_peaks"):
    upstream = hub.load(name)
    assert isinstance(upstream, Upstream)
    check_upstream(upstream).raise_failures()
    print(name, type(upstream).__module__, upstream.card and upstream.card.distribution)
loud, plain = hub.load("acme_peaks_loud"), hub.load("acme_peaks")
wav = torch.linspace(-0.5, 0.5, 1600)
assert torch.allclose(loud([wav]).last_hidden_state, 10 * plain([wav]).last_hidden_state)
"""
LISTED = "import json, sys; from hubcore import hub; print(json.dumps([hub.list(), sorted(sys.modules)]))"


@pytest.fixture(scope="module")
def environment(new_environment: Callable[[], Environment]) -> Environment:
    return new_environment()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source") / "acme_speech"
    shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("__pycache__"))
    return build_wheel(source, tmp_path_factory.mktemp("acme-wheel"))


def listed(environment: Environment, folder: Path) -> tuple[set[str], set[str]]:
    """The names of `hub.list()` in a fresh interpreter, and the modules that it imported."""
    names, modules = json.loads(environment.run(f"python -c '{LISTED}'", folder).stdout)
    return set(names), set(modules)


def test_from_wheel_to_gone(environment: Environment, wheel: Path, tmp_path: Path) -> None:
    run = environment.run
    before, _ = listed(environment, tmp_path)
    assert not before & NAMES

    run(f"pip install --no-deps {wheel}", tmp_path)
    where = "import importlib.metadata as m, hubcore; print(hubcore.__file__, m.distribution('hubcore').locate_file(''))"
    for path in run(f'python -c "{where}"', tmp_path).stdout.split():
        assert Path(path).is_relative_to(environment.root), "another hubcore than the built one would be tested"

    names, modules = listed(environment, tmp_path)
    assert names == before | NAMES
    assert not [module for module in modules if module.partition(".")[0] in ("torch", "acme_speech")]
    table = run("hubcore list", tmp_path).stdout
    assert "acme_speech.bands:AcmeBandsUpstream" in table and "for telephone speech" in table
    assert "proprietary" in run("hubcore info acme_best", tmp_path).stdout

    # Without the file server, everything else is checked, and the table says what was not and how to change it.
    report = run("hubcore plugin check Acme_Speech", tmp_path).stdout
    assert "acme_bands_call_centre" in report and "hubcore fetch acme_bands_call_centre" in report
    assert "acme_bands (fresh weights, config eight)" in report
    assert report.splitlines()[-1] == "acme-speech 2.1.0: nothing is wrong; 1 not checked"

    store = tmp_path / "store"
    store.mkdir()
    (store / "save.py").write_text(SAVE)
    run("python save.py", store)
    (tmp_path / "conform.py").write_text(CONFORM)
    assert run("python conform.py", tmp_path, ACME_STORE=store).stdout.splitlines() == [
        "acme_best acme_speech.bands acme-speech",
        "acme_peaks_loud acme_speech.peaks acme-speech",
        "acme_peaks acme_speech.peaks None",
    ]
    done = json.loads(run("hubcore plugin check acme-speech --json", tmp_path, ACME_STORE=store).stdout)
    assert done["ok"] and {step["result"] for step in done["steps"]} == {"ok"}
    assert [step["name"] for step in done["steps"] if step["what"] == "conformance"] == [
        "acme_bands_call_centre",
        "acme_peaks",
        "acme_peaks_loud",
    ]

    run("pip uninstall --yes acme-speech", tmp_path)
    assert listed(environment, tmp_path)[0] == before
    gone = run("hubcore info acme_best", tmp_path, ok=False)
    assert gone.returncode == 2 and "no upstream is called 'acme_best'" in gone.stderr
    unknown = run("hubcore plugin check acme-speech", tmp_path, ok=False)
    assert unknown.returncode == 2 and "no installed distribution is called 'acme-speech'" in unknown.stderr
