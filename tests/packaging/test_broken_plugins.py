"""Broken plugins, installed by pip: each harms its own names only, and `hubcore doctor` says what is wrong with it."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hubcore import hooks, hub
from hubcore.errors import DuplicateUpstreamError
from hubcore.extract import extract
from hubcore.registry import names as registry
from tests.packaging.broken_plugins.cases import CASES, HEALTHY, UNAVAILABLE, Case
from tests.packaging.broken_plugins.distribution import Distribution, installed_files, pip_install
from tests.paths import SPEECH
from tests.running import python

WAV = SPEECH / "en_1.flac"
DOCTOR = ("-m", "hubcore", "doctor")
by_case = pytest.mark.parametrize("name", CASES)
Use = Callable[..., Path]


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed every broken distribution and the healthy one."""
    wheels = tmp_path_factory.mktemp("wheels")
    site = tmp_path_factory.mktemp("everything")
    distributions = [HEALTHY, *(case.distribution for case in CASES.values())]
    pip_install([distribution.write_wheel(wheels) for distribution in distributions], site)
    assert pip_list(site) == {distribution.name for distribution in distributions}
    spoil(site, [case for case in CASES.values() if not case.stops_torch])
    return site


def pip_list(site: Path) -> set[str]:
    return {row["name"] for row in json.loads(python("-m", "pip", "list", "--path", site, "--format", "json").stdout)}


def spoil(site: Path, cases: Iterable[Case]) -> None:
    """Does to installed distributions what their cases say."""
    for case in cases:
        if case.spoil:
            case.spoil(next(site.glob(f"{case.distribution.package}-*.dist-info")))


@pytest.fixture(scope="module")
def doctor(everything: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `hubcore doctor --json` says where all of them are installed at once."""
    done = run(everything, tmp_path_factory.mktemp("home"), *DOCTOR, "--json", "--timeout", "6")
    assert done.returncode == 1, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture
def use(everything: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Use]:
    """Puts some of the distributions, and no other, on the path of this process."""
    site = tmp_path / "site"

    def run(*distributions: Distribution) -> Path:
        for distribution in distributions:
            for file in installed_files(everything, distribution):
                if (everything / file).is_file():  # unless the case has taken it away
                    (site / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(everything / file, site / file)
        monkeypatch.syspath_prepend(str(site))
        registry.refresh()
        hooks.refresh()
        return site

    yield run
    for module in modules_below(site):
        del sys.modules[module]


def modules_below(site: Path) -> list[str]:
    return [name for name, module in sys.modules.items() if str(getattr(module, "__file__", "")).startswith(str(site))]


def run(site: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python(*arguments, site=site, cwd=home, code=None, HUBCORE_CACHE=str(home), XDG_CONFIG_HOME=str(home))


def features(name: str, folder: Path) -> np.ndarray[Any, Any]:
    summary = extract([WAV], hub.load(name), folder / name)
    assert (len(summary.rows), len(summary.failures)) == (1, 0)
    return np.asarray(np.load(folder / name / f"features/{WAV.stem}.npy"))


# Each alone -----------------------------------------------------------------------------------------------------------


@by_case
def test_every_other_upstream_stays_listed_and_loadable(name: str, use: Use, tmp_path: Path) -> None:
    case, ours = CASES[name], set(hub.list())
    site = use(case.distribution, HEALTHY)
    spoil(site, [case] if case.stops_torch else [])
    assert ours | {"healthy", "healthy_mfcc"} <= set(hub.list())
    assert modules_below(site) == [], "listing imported a plugin"
    assert type(hub.load("healthy")).__name__ == "HealthyUpstream"
    assert np.array_equal(features("healthy_mfcc", tmp_path), features("mfcc", tmp_path))
    if case.loads:
        wanted, error, text = case.loads
        with pytest.raises(error, match=text):
            hub.load(wanted)
    assert features("mfcc", tmp_path / "again").shape[-1] == 39


def test_doctor_names_the_cause_of_each_and_nothing_else(doctor: dict[str, Any]) -> None:
    assert [row for row in doctor["findings"] if "healthy" in row["owner"]] == []
    states = {row["distribution"]: row["state"] for row in doctor["plugins"]}
    assert states["healthy-plugin"] == "ok" and states["broken-slow"] == "odd" and states["broken-hangs"] == "broken"
    wrong = []
    for name, case in CASES.items():  # in one test, as one run of doctor is for all of them
        try:
            if not case.stops_torch:
                check_cause(name, case, doctor)
        except (AssertionError, ValueError) as error:
            wrong.append(f"{name}: {error}")
    assert not wrong, "\n".join(wrong)


def check_cause(name: str, case: Case, doctor: dict[str, Any]) -> None:
    """Asserts that a run of doctor says what is wrong with a case."""
    if case.file == UNAVAILABLE:
        (why,) = [row["why"] for row in doctor["unavailable"] if row["name"] == name]
        assert case.says in why
        return
    if name == "unknown_family":
        (row,) = [row for row in doctor["unavailable"] if row["name"] == "orphan_card"]
        assert case.says in row["why"] and row["from"].endswith("broken_unknown_family/cards.yaml, line 3")
        return
    found = [row for row in doctor["findings"] if case.says in row["what"] and about(case, row)]
    assert found, "\n".join(str(row) for row in doctor["findings"] if about(case, row))
    (finding,) = found
    assert finding["file"].endswith(case.file), finding["file"]
    assert case.traceback in "\n".join(finding["traceback"]), finding["traceback"]
    assert finding["warning"] is case.warning
    assert finding["version"] == ("1.0" if finding["owner"].startswith("broken-") else "")
    assert not [line for line in finding["traceback"] if "importlib" in line or "plugin_probe" in line], finding["traceback"]


def about(case: Case, finding: dict[str, Any]) -> bool:
    owner = finding["owner"]
    return (
        owner == case.distribution.name or case.distribution.package in owner or (not owner and "claimed by" in finding["what"])
    )


# All at once ----------------------------------------------------------------------------------------------------------


def test_listing_all_of_them_imports_none(everything: Path, tmp_path: Path) -> None:
    code = (
        "import json, sys\nfrom hubcore import hub\nnames = hub.list()\n"
        "print(json.dumps([names, {name: str(getattr(m, '__file__', '')) for name, m in sys.modules.items()}]))"
    )
    names, modules = json.loads(run(everything, tmp_path, "-c", code).stdout)
    assert {"healthy", "hubcore:fbank", "broken-rival-one:contested", "crashes", "wav2vec2"} < set(names)
    assert "torch" not in modules
    assert not [name for name, file in modules.items() if file.startswith(str(everything))]
    assert not [name for name in modules if name.startswith(("broken_", "healthy_", "hubcore_"))]


def test_doctor_prints_each_finding_with_its_place(everything: Path, tmp_path: Path) -> None:
    root = tmp_path / "one"
    for distribution in (CASES["import_error"].distribution, HEALTHY):
        pip_install([distribution.write_wheel(tmp_path)], root)
    done = run(root, tmp_path, *DOCTOR)
    assert done.returncode == 1 and "examining 2 plugins" in done.stderr
    file = root / "broken_import_error/upstream.py"
    wanted = (
        "problems:\n"
        "- broken-import-error 1.0: broken_import_error.upstream cannot be imported: ModuleNotFoundError: No module named "
        "'nothing_of_this_name'. Fix or update that distribution; nothing else is harmed.\n"
        "    entry point: import_error = broken_import_error.upstream:X (hubcore.upstreams)\n"
        f"    file: {file}, line 3\n"
        "    Traceback (most recent call last):\n"
        f'      File "{file}", line 3, in <module>\n'
        "        import nothing_of_this_name\n"
        "    ModuleNotFoundError: No module named 'nothing_of_this_name'\n"
    )
    assert wanted in done.stdout
    assert "healthy-plugin       1.0" in done.stdout


def test_what_ends_the_process_does_so_when_it_is_used_and_not_before(everything: Path, tmp_path: Path) -> None:
    code = "import sys\nfrom hubcore import hub\nhub.load('mfcc')\nprint(len(hub.list()), flush=True)\nhub.load('exits')"
    done = run(everything, tmp_path, "-c", code)
    assert int(done.stdout) > 50 and done.returncode == 3


def test_metadata_that_stops_torch_is_named_and_stepped_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["garbled_points"]
    site = tmp_path / "site"
    pip_install([case.distribution.write_wheel(tmp_path), HEALTHY.write_wheel(tmp_path)], site)
    spoil(site, [case])
    done = run(site, tmp_path, *DOCTOR, "--json")
    said = json.loads(done.stdout)
    assert done.returncode == 1 and {row["state"] for row in said["plugins"]} == {"ok"}, "the healthy one is not blamed"
    whole, metadata = said["findings"]
    assert case.says in metadata["what"] and metadata["file"].endswith(case.file)
    assert "torch looks for backends there" in whole["what"] and "TORCH_DEVICE_BACKEND_AUTOLOAD=0" in whole["what"]
    monkeypatch.setenv("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
    code = "from hubcore import hub; print(type(hub.load('mfcc')).__name__, type(hub.load('healthy')).__name__)"
    assert run(site, tmp_path, "-c", code).stdout.split() == ["FbankUpstream", "HealthyUpstream"]


def test_an_owner_chooses_among_two(use: Use) -> None:
    use(CASES["taken_name"].distribution, CASES["rival_one"].distribution, CASES["rival_two"].distribution)
    for name, modules in {
        "fbank": {"hubcore": "hubcore_fbank.upstream", "broken-taken-name": "broken_taken_name.upstream"},
        "contested": {f"broken-rival-{n}": f"broken_rival_{n}.upstream" for n in ("one", "two")},
    }.items():
        with pytest.raises(DuplicateUpstreamError) as caught:
            hub.load(name)
        assert set(caught.value.owners) == set(modules) and all(owner in str(caught.value) for owner in modules)
        for choice in caught.value.choices:
            assert type(hub.load(choice)).__module__ == modules[choice.partition(":")[0]]
    assert type(hub.load("mfcc")).__module__ == "hubcore_fbank.upstream", "only the contested names are touched"


# The fixtures are what they seem to be --------------------------------------------------------------------------------


def test_the_source_trees_build_and_install_alike(everything: Path, tmp_path: Path) -> None:
    chosen = [HEALTHY, *(CASES[name].distribution for name in ("syntax_error", "yaml_field", "missing_extra"))]
    trees = [distribution.write_source(tmp_path / distribution.package) for distribution in chosen]
    site = tmp_path / "site"
    pip_install(trees, site, "--no-build-isolation")
    for distribution in chosen:
        ours, built = (set(installed_files(root, distribution)) for root in (everything, site))
        # A source tree has an address that pip notes; a wheel by its path has one too.
        assert ours == built
        for file in ours:
            if not file.parent.name.endswith(".dist-info"):
                assert (everything / file).read_bytes() == (site / file).read_bytes(), file
        assert facts(everything, distribution) == facts(site, distribution)


def facts(site: Path, distribution: Distribution) -> tuple[object, ...]:
    found = importlib.metadata.Distribution.at(next(site.glob(f"{distribution.package}-*.dist-info")))
    points = sorted((point.group, point.name, point.value) for point in found.entry_points)
    requires = sorted(text.replace(" ", "").replace('"', "'") for text in found.requires or ())
    return found.metadata["Name"], found.version, points, requires


def test_each_case_is_a_distribution_of_its_own() -> None:
    assert len({case.distribution.name for case in CASES.values()}) == len(CASES) >= 40
