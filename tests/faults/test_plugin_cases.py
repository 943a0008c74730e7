"""Plugins that are broken, hostile, installed twice, or go away."""

from __future__ import annotations

import builtins
import sys
import threading
import time
from pathlib import Path

import pytest

from hubcore import hub
from hubcore.errors import DuplicateUpstreamError, PluginError, UnavailableUpstreamError, UnknownUpstreamError
from hubcore.hooks import current_hooks
from hubcore.registry import names as registry
from hubcore.registry.names import build_registry, current_registry
from tests.conftest import Installer
from tests.faults.cases import Case, Cases
from tests.running import command

pytestmark = pytest.mark.slow

cases = Cases()
pytest_generate_tests = cases.generate
TESTS = "tests/hubcore/registry/test_names.py::"
BROKEN = f"{TESTS}test_a_broken_plugin_harms_only_its_own_name"
ODD = f"{TESTS}test_an_impossible_entry_point_is_a_problem"
ERROR = "listed; loading it is a `PluginError` with its distribution and version; everything else works"
POINT = "[hubcore.upstreams]\n{name} = {name}_mod:X\n"
GOOD = "from hubcore_fbank import FbankUpstream\nclass X(FbankUpstream):\n    pass\n"


def test_case(case: Case, install: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case.run(install, tmp_path, monkeypatch)


def broken(name: str, fault: str, test: str = "") -> None:
    cases.tested_by(name, fault, ERROR, f"{BROKEN}[{test or name.replace('_', ' ')}]")


def plugin(install: Installer, name: str, code: str = GOOD, **options: str) -> Path:
    """A distribution with one family of its own name."""
    return install(name, entry_points=POINT.format(name=name), files={f"{name}_mod.py": code}, **options)


broken("broken_import", "a plugin that imports what is not there", "import error")
broken("syntax_error", "a plugin with a syntax error")
broken("system_exit", "a plugin that raises SystemExit while it is imported")
broken("generator_exit", "a plugin that raises GeneratorExit while it is imported")
broken("recursion_error", "a plugin that raises RecursionError while it is imported")
broken("memory_error", "a plugin that raises MemoryError while it is imported")
broken("unprintable_error", "a plugin whose error cannot be printed")
broken("attribute_missing", "an entry point that names a class that is not in its module")
broken("not_a_class", "an entry point that names something that is no class")
cases.tested_by(
    "impossible_name",
    "an entry point with an impossible name (`../../x`, upper case)",
    "not listed; `hubcore doctor` names the distribution",
    f"{ODD}[../../x = a:B]",
    f"{ODD}[Upper = a:B]",
)
cases.tested_by(
    "impossible_target",
    "an entry point with an impossible target (a call, no class)",
    "not listed; `hubcore doctor` names the distribution",
    f"{ODD}[x = os.system('true')]",
    f"{ODD}[x = a]",
    f"{ODD}[x = a:b:c]",
)


def metadata(root: Path, data: bytes | None) -> None:
    """Replaces a distribution's METADATA, or removes it."""
    path = next(root.glob("*.dist-info")) / "METADATA"
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    registry.refresh()


def reported(root: Path) -> list[str]:
    """Problems about a distribution, none about others; everything else is listed."""
    assert {"fbank", "good"} < set(hub.list())
    problems = current_registry().problems
    assert all(str(root) in problem.owner for problem in problems)
    return [problem.text for problem in problems]


HOSTILE = """
class Meta(type):
    def __getattribute__(cls, name): raise ValueError("hostile")
    def __instancecheck__(cls, instance): raise ValueError("hostile")
    def __subclasscheck__(cls, other): raise ValueError("hostile")
class X(metaclass=Meta): pass
"""


@cases(
    "a class whose metaclass raises at every attribute, `isinstance` and `issubclass`",
    "listed; loading it is a `PluginError`; everything else works",
)
def case_hostile_metaclass(install: Installer, folder: Path, patch: pytest.MonkeyPatch) -> None:
    plugin(install, "broken", HOSTILE)
    assert {"broken", "fbank"} < set(hub.list())
    with pytest.raises(PluginError, match="broken"):
        hub.load("broken")
    assert type(hub.load("fbank")).__name__ == "FbankUpstream"


STEPPED_OVER = "stepped over; `hubcore doctor` names its folder"


@cases("an `entry_points.txt` of some other distribution that is binary", STEPPED_OVER, slow=True)
def case_binary_entry_points(install: Installer, folder: Path, patch: pytest.MonkeyPatch) -> None:
    plugin(install, "good")
    root = install("garbled", entry_points=b"\xff\xfe\x00binary")
    assert "its metadata cannot be read (UnicodeDecodeError" in reported(root)[0]
    assert "garbled" in command("doctor").output


@cases("an `entry_points.txt` of some other distribution that is malformed", STEPPED_OVER)
def case_malformed_entry_points(install: Installer, folder: Path, patch: pytest.MonkeyPatch) -> None:
    plugin(install, "good")
    root = install("garbled", entry_points="[hubcore.upstreams]\nno equals sign\n")
    assert "its metadata cannot be read" in reported(root)[0]


@cases("a distribution without METADATA, or without a name or version in it", STEPPED_OVER)
def case_no_metadata(install: Installer, folder: Path, patch: pytest.MonkeyPatch) -> None:
    plugin(install, "good")
    root = plugin(install, "nameless")
    for data in (None, b"", b"Metadata-Version: 2.1\nName: nameless\n", b"Version: 1\n"):
        metadata(root, data)
        assert "Reinstall that distribution" in reported(root)[0] and "nameless" not in hub.list()
        (next(root.glob("*.dist-info")) / "METADATA").touch()


@cases("a METADATA file that is binary", STEPPED_OVER)
def case_binary_metadata(install: Installer, folder: Path, patch: pytest.MonkeyPatch) -> None:
    plugin(install, "good")
    root = plugin(install, "garbled")
    metadata(root, b"\xff\xfe\x00\x01")
    assert "its metadata cannot be read (UnicodeDecodeError" in reported(root)[0]


cases.tested_by(
    "two_owners",
    "one name in two distributions",
    "listed; using it is an error that names both, and `distribution:name` picks one",
    f"{TESTS}test_two_owners_of_one_name_are_an_error_only_when_it_is_used",
)
cases.tested_by(
    "built_in_name",
    "a plugin that claims a built-in name",
    "an error that names both, never the plugin's class silently; `hubcore:name` picks the built-in one",
    f"{TESTS}test_a_built_in_name_can_be_contested_but_not_taken",
)


@cases("one distribution twice on `sys.path`, also in two versions", "the first one counts, as for imports; no conflict")
def case_installed_twice(install: Installer, folder: Path, patch: pytest.MonkeyPatch) -> None:
    old = install("acme", entry_points=POINT.format(name="acme"), files={"acme_mod.py": "raise ValueError\n"}, version="1.0")
    patch.syspath_prepend(str(old))
    registry.refresh()
    assert len([entry for entry in current_registry().entries if entry.name == "acme"]) == 1
    new = old.rename(folder / "older")  # the same name again needs its folder
    patch.syspath_prepend(str(new))
    install("acme", entry_points=POINT.format(name="acme"), files={"acme_mod.py": GOOD}, version="2.0")
    (entry,) = [entry for entry in current_registry().entries if entry.name == "acme"]
    assert entry.family is not None and entry.family.version == "2.0" and current_registry().duplicates() == {}
    assert type(hub.load("acme")).__name__ == "X"


@cases("Ctrl-C while a plugin is imported", "KeyboardInterrupt passes through; the next load tries again")
def case_interrupted_import(install: Installer, folder: Path, patch: pytest.MonkeyPatch) -> None:
    root = plugin(install, "slow", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        hub.load("slow")
    (root / "slow_mod.py").write_text("# mended\n" + GOOD)
    assert type(hub.load("slow")).__name__ == "X"
    install("hooked", entry_points="[hubcore]\nhooked = hooked_mod\n", files={"hooked_mod.py": "raise KeyboardInterrupt\n"})
    with pytest.raises(KeyboardInterrupt):
        current_hooks()


cases.tested_by(
    "listing_imports_nothing",
    "listing the names",
    "imports no plugin and no torch",
    "tests/test_import_budget.py::test_it_imports_none_of_these",
)


@cases(
    "50 or 1,000 installed distributions",
    "listing them takes less than 50 ms and 400 ms more than without them, once per process",
    slow=True,
)
def case_many_distributions(install: Installer, folder: Path, patch: pytest.MonkeyPatch) -> None:
    def seconds(count: int) -> float:
        root = folder / str(count)
        for number in range(count):
            info = root / f"dist_{number}-1.0.dist-info"
            info.mkdir(parents=True)
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: dist-{number}\nVersion: 1.0\n")
            points = f"[hubcore.upstreams]\nfamily_{number} = json:X\n" if number % 20 == 0 else "[console_scripts]\nx = a:b\n"
            (info / "entry_points.txt").write_text(points)
        with pytest.MonkeyPatch.context() as path:
            path.syspath_prepend(str(root))
            spent = []
            for _ in range(3):
                began = time.process_time()
                names = [entry.name for entry in build_registry().entries]
                spent.append(time.process_time() - began)
        assert sum(name.startswith("family_") for name in names) == (count + 19) // 20
        return min(spent)

    empty = seconds(0)
    assert seconds(50) - empty < 0.05
    assert seconds(1000) - empty < 0.4
    hub.list()
    patch.setattr(registry, "build_registry", lambda: pytest.fail("read again"))
    hub.list()


@cases("two threads load one plugin at once", "it is imported once, both get its class")
def case_two_threads_import(install: Installer, folder: Path, patch: pytest.MonkeyPatch) -> None:
    code = "import time, builtins\nbuiltins.times_imported = getattr(builtins, 'times_imported', 0) + 1\ntime.sleep(0.2)\n"
    plugin(install, "slow", code + GOOD)
    got: list[type] = []
    gate = threading.Barrier(4)

    def load() -> None:
        gate.wait()
        got.append(type(hub.load("slow")))

    patch.setattr(builtins, "times_imported", 0, raising=False)
    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 4 and len(set(got)) == 1 and builtins.times_imported == 1  # type: ignore[attr-defined]


@cases(
    "a plugin is uninstalled while a process runs",
    "loaded upstreams keep working; a first load is a `PluginError`; after `hub.refresh()` the name is unknown",
)
def case_uninstalled_meanwhile(install: Installer, folder: Path, patch: pytest.MonkeyPatch) -> None:
    roots = [plugin(install, "used"), plugin(install, "unused")]
    used = hub.load("used")
    assert {"used", "unused"} < set(hub.list())
    for root in roots:
        for path in sorted(root.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
    assert type(hub.load("used")) is type(used)
    with pytest.raises(PluginError, match=r"unused_mod:X.*cannot be imported.*unused 1\.0"):
        hub.load("unused")
    hub.refresh()
    assert not {"used", "unused"} & set(hub.list())
    with pytest.raises(UnknownUpstreamError):
        hub.load("used")


HOOK = "from hubcore import hookimpl\n@hookimpl\ndef hubcore_fetch(uri):\n    raise RuntimeError('ran')\n"


@cases(
    "`HUBCORE_DISABLE_PLUGINS` names distributions, or is `*`",
    "none of their names, cards or hooks is used, and nothing of them is imported; hubcore's own stay. An error about such a "
    "name mentions the variable",
)
def case_disabled_plugins(install: Installer, folder: Path, patch: pytest.MonkeyPatch) -> None:
    card = "version: 1\nupstreams:\n  acme_small: {upstream: acme, config: fbank, license: MIT}\n"
    points = (
        "[hubcore.upstreams]\nacme = acme_pkg.mod:X\n[hubcore.registries]\nacme = acme_pkg:cards.yaml\n"
        "[hubcore]\nacme = acme_pkg.hooked\n"
    )
    files = {"acme_pkg/__init__.py": "", "acme_pkg/mod.py": GOOD, "acme_pkg/hooked.py": HOOK, "acme_pkg/cards.yaml": card}
    install("Acme_Speech", entry_points=points, files=files)
    plugin(install, "other")
    plugin(install, "fbank")
    everything = set(hub.list())
    assert {"acme", "acme_small", "other", "fbank"} < everything
    with pytest.raises(DuplicateUpstreamError):
        hub.load("fbank")
    assert any(name.startswith("Acme_Speech:") for name, _ in current_hooks().manager.list_name_plugin())
    for module in [name for name in sys.modules if name.startswith("acme_pkg")]:
        del sys.modules[module]
    patch.setenv("HUBCORE_DISABLE_PLUGINS", " acme-speech, fbank ,nothing")
    assert everything - set(hub.list()) == {"acme", "acme_small", "fbank:fbank", "hubcore:fbank"}
    assert type(hub.load("fbank")).__name__ == "FbankUpstream" and type(hub.load("other")).__name__ == "X"
    assert not any(name.startswith("Acme_Speech:") for name, _ in current_hooks().manager.list_name_plugin())
    assert not any(name.startswith("acme_pkg") for name in sys.modules)
    with pytest.raises(UnknownUpstreamError, match="HUBCORE_DISABLE_PLUGINS turns off acme-speech, fbank, nothing"):
        hub.load("acme_small")
    mine = folder / "mine.yaml"
    mine.write_text("version: 1\nupstreams:\n  mine: {upstream: acme, license: MIT}\n")
    patch.setenv("HUBCORE_REGISTRY", str(mine))
    with pytest.raises(UnavailableUpstreamError, match="HUBCORE_DISABLE_PLUGINS turns off acme-speech"):
        hub.load("mine")
    patch.delenv("HUBCORE_REGISTRY")
    patch.setenv("HUBCORE_DISABLE_PLUGINS", "*")
    assert not {"acme", "other"} & set(hub.list()) and {"fbank", "mfcc", "wav2vec2"} < set(hub.list())
    patch.setenv("HUBCORE_DISABLE_PLUGINS", "hubcore")
    assert set(hub.list()) == everything
    patch.delenv("HUBCORE_DISABLE_PLUGINS")
    assert set(hub.list()) == everything
