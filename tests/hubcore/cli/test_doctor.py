"""`hubcore doctor` and the examination below it, where tests/packaging/test_broken_plugins.py does not look."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from hubcore import hub
from hubcore.doctor import process
from hubcore.doctor.diagnosis import diagnose
from hubcore.doctor.installed import third_parties
from hubcore.registry.names import current_registry
from tests.conftest import Installer
from tests.running import command, imported

pytestmark = pytest.mark.slow

DO_IT_LATER = "Do that where a user asks for it."
GOOD = "from hubcore_fbank import FbankUpstream\nclass X(FbankUpstream):\n    pass\n"


call = partial(command, "doctor")


NO_TORCH = "def get_default_device(): return 'cpu'\n" + "".join(
    f"def {name}(): return 1\n"
    for name in (
        "get_default_dtype",
        "is_grad_enabled",
        "initial_seed",
        "get_num_threads",
        "are_deterministic_algorithms_enabled",
    )
)
"""A `torch.py` for plugins that need none: the import of the real one takes a second of each process."""


def data(*arguments: str) -> Any:
    return json.loads(call("--json", *arguments).stdout)


def family(install: Installer, name: str, code: str, **more: Any) -> Path:
    return install(name, entry_points=f"[hubcore.upstreams]\n{name} = {name}_mod:X\n", files={f"{name}_mod.py": code}, **more)


def hooks(install: Installer, name: str, code: str) -> Path:
    """A distribution with a module of hooks, which needs no torch."""
    files = {f"{name}_mod.py": code, "torch.py": NO_TORCH}
    return install(name, entry_points=f"[hubcore]\n{name} = {name}_mod\n", files=files)


def whats(timeout: float = 20.0) -> list[str]:
    return [finding.text for finding in diagnose(current_registry(), timeout=timeout).findings]


# What it prints -------------------------------------------------------------------------------------------------------


def test_without_plugins_no_process_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_run", lambda job: pytest.fail("a process was started"))
    result = call()
    assert result.exit_code == 0 and "no problem found" in result.stdout
    assert "examining" not in result.output and "import, s" not in result.output


def test_it_imports_neither_torch_nor_a_plugin_itself(install: Installer) -> None:
    root = hooks(install, "hooked", "import torch\n")
    lines = imported("from hubcore.cli import main; main(['doctor'], standalone_mode=False)", site=root)
    assert "hooked (hooks)" in " ".join(lines) and not lines & {"torch", "hooked_mod", "hubcore_fbank"}


def test_json_has_everything(install: Installer) -> None:
    family(install, "acme", GOOD, version="2.5")
    family(install, "sick", "raise ValueError('ill')\n")
    result = call("--json")
    assert result.exit_code == 1
    said = json.loads(result.stdout)
    assert list(said) == ["environment", "plugins", "unavailable", "findings"]
    assert said["environment"]["torch"] == torch.__version__
    acme, sick = said["plugins"]
    assert acme.pop("seconds") >= 0
    assert acme == {"distribution": "acme", "version": "2.5", "brings": "acme (family)", "state": "ok"}
    assert sick["state"] == "broken"
    (finding,) = said["findings"]
    assert list(finding) == ["owner", "what", "version", "entry_point", "file", "traceback", "warning"]
    assert finding["file"].endswith("sick_mod.py, line 1") and finding["traceback"][-1] == "ValueError: ill"


def test_a_warning_alone_is_no_failure(install: Installer) -> None:
    hooks(install, "chatty", "print('hello')\n")
    result = call()
    assert result.exit_code == 0
    assert "problems:" not in result.stdout and "no problem found" not in result.stdout
    assert "warnings:\n- chatty 1.0: importing chatty_mod prints 'hello'" in result.stdout
    assert [row["state"] for row in data()["plugins"]] == ["odd"]


def test_a_stream_that_was_closed_or_taken_away_is_no_crash(install: Installer) -> None:
    hooks(install, "closing", "import sys\nsys.stdout.close()\n")
    hooks(install, "taking", "import sys\nsys.stdout = None\n")
    assert whats() == ["importing taking_mod changes sys.stdout. Other code in the process runs with it too. " + DO_IT_LATER]


def test_a_disabled_plugin_is_not_examined(install: Installer, monkeypatch: pytest.MonkeyPatch) -> None:
    family(install, "sick", "raise ValueError('ill')\n")
    assert [plugin.distribution for plugin in third_parties()] == ["sick"]
    monkeypatch.setenv("HUBCORE_DISABLE_PLUGINS", "sick")
    assert third_parties() == [] and call().exit_code == 0


def test_the_timeout_must_be_possible() -> None:
    assert call("--timeout", "0").exit_code == 2


# Checkpoints that nobody can mean -------------------------------------------------------------------------------------


def test_weights_that_are_odd_are_warnings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = hub.load("wav2vec2_tiny_prompts")
    for name, fill in {"fine": None, "odd": float("nan")}.items():
        if fill is not None:
            next(model.parameters()).data[0] = fill
        model.save_checkpoint(tmp_path / f"{name}.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "fine.safetensors").read_bytes()[:999])
    cards = "".join(
        f"  {name}_card: {{upstream: wav2vec2, license: MIT, sources: [{{uri: {name}.safetensors}}]}}\n"
        for name in ("fine", "odd", "cut", "absent")
    )
    (tmp_path / "cards.yaml").write_text(f"version: 1\nupstreams:\n{cards}")
    monkeypatch.setenv("HUBCORE_REGISTRY", str(tmp_path / "cards.yaml"))
    assert data()["findings"] == []
    result = call("--weights")
    assert result.exit_code == 0
    told = {row["file"].rpartition("/")[2]: row["what"] for row in data("--weights")["findings"]}
    assert set(told) == {"odd.safetensors", "cut.safetensors"}
    assert "the weights of odd_card: NaN or infinity in 1 tensor" in told["odd.safetensors"]
    assert "cut_card cannot be loaded, so its weights were not looked at" in told["cut.safetensors"]


# The examination ------------------------------------------------------------------------------------------------------


def test_what_stands_behind_an_entry_point_that_ends_the_process_is_examined_too(install: Installer) -> None:
    points = "[hubcore.upstreams]\na = a_mod:X\nb = b_mod:X\nc = c_mod:X\nd = d_mod:X\n"
    ends = "import os\nos._exit(0)\n"
    install(
        "several",
        entry_points=points,
        files={
            "torch.py": NO_TORCH,
            "a_mod.py": "raise ValueError('first')\n",
            "b_mod.py": ends,
            "c_mod.py": ends,
            "d_mod.py": "raise ValueError('last')\n",
        },
    )
    first, second, third, last = whats()
    assert "ValueError: first" in first and "ValueError: last" in last
    assert "importing b_mod ends the whole process (exit status 0)" in second
    assert "importing c_mod ends the whole process (exit status 0)" in third


def test_a_plugin_that_turns_the_watchdog_off_is_ended_from_outside(
    install: Installer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_GRACE", 0.5)
    install("other", files={"torch.py": NO_TORCH})
    family(install, "stubborn", "import faulthandler, time\nfaulthandler.cancel_dump_traceback_later()\ntime.sleep(60)\n")
    began = time.monotonic()
    (what,) = whats(timeout=0.5)
    assert "importing stubborn_mod takes longer than 0.5 s, and was ended" in what
    assert time.monotonic() - began < 30


def test_torchs_own_import_is_not_the_plugins_fault(install: Installer) -> None:
    install("other", files={"torch.py": f"import time\ntime.sleep(1)\n{NO_TORCH}"})
    install("hooked", entry_points="[hubcore]\nhooked = hooked_mod\n", files={"hooked_mod.py": "import torch\n"})
    found = diagnose(current_registry(), timeout=3)
    assert found.findings == []
    assert found.plugins[0].seconds < 1


def test_a_plugin_is_examined_offline_without_input_and_on_this_path(install: Installer) -> None:
    code = (
        "import os, sys\n"
        "assert os.environ['HUBCORE_OFFLINE'] == '1', 'online'\n"
        "assert sys.stdin.read() == '', 'input'\n"
        "assert any('site-hooked' in place for place in sys.path), 'path'\n"
    )
    hooks(install, "hooked", code)
    assert whats() == []


def test_only_requirements_without_a_condition_are_missed(install: Installer) -> None:
    root = hooks(install, "acme", "")
    metadata = next(root.glob("*.dist-info")) / "METADATA"
    lines = [
        "numpy>=1",
        "absent-one (>=2)",
        "absent-two; python_version < '3'",
        "absent-three; extra == 'gpu'",
        "Absent_Four[x]>1",
    ]
    metadata.write_text(metadata.read_text() + "".join(f"Requires-Dist: {line}\n" for line in lines))
    hub.refresh()
    one, four = whats()
    assert one.startswith("it requires absent-one (>=2), which is not installed") and "Absent_Four[x]>1" in four


def test_a_class_that_needs_weights_is_not_built(install: Installer) -> None:
    code = (
        "from hubcore import UpstreamBase\n"
        "class X(UpstreamBase):\n"
        "    def __init__(self):\n        raise RuntimeError('built')\n"
        "    @classmethod\n    def from_file(cls, path, *, config=None):\n        raise RuntimeError('read')\n"
        "    def forward(self, wavs, lengths=None, *, layers=None): ...\n"
    )
    card = "version: 1\nupstreams:\n  heavy: {upstream: heavy_family, license: MIT, sources: [{uri: 'https://example.org/x.pt'}]}\n"
    install(
        "heavy",
        entry_points="[hubcore.upstreams]\nheavy_family = heavy_mod:X\n[hubcore.registries]\nheavy = heavy_cards:cards.yaml\n",
        files={"heavy_mod.py": code, "heavy_cards/__init__.py": "", "heavy_cards/cards.yaml": card},
    )
    assert whats() == []


def test_a_class_without_a_loader_cannot_have_cards_with_weights(install: Installer) -> None:
    card = "version: 1\nupstreams:\n  heavy: {upstream: thin, license: MIT, sources: [{uri: 'https://example.org/x.pt'}]}\n"
    install(
        "thin",
        entry_points="[hubcore.upstreams]\nthin = thin_mod:X\n[hubcore.registries]\nthin = thin_cards:cards.yaml\n",
        files={
            "thin_mod.py": "class X:\n    def __init__(self):\n        self.x = 1\n    def forward(self, wavs): ...\n",
            "thin_cards/__init__.py": "",
            "thin_cards/cards.yaml": card,
        },
    )
    assert any("thin_mod:X has no from_checkpoint, so it cannot load the weights of its cards" in what for what in whats())


def test_whatever_an_import_raises_is_a_finding(install: Installer) -> None:
    endings = {"KeyboardInterrupt": "raise KeyboardInterrupt", "GeneratorExit": "raise GeneratorExit", "SystemExit": "exit()"}
    points = "".join(f"{name.lower()} = {name.lower()}_mod:X\n" for name in endings)
    files = {f"{name.lower()}_mod.py": f"{code}\n" for name, code in endings.items()}
    install("odd", entry_points=f"[hubcore.upstreams]\n{points}", files={**files, "torch.py": NO_TORCH})
    for what, name in zip(whats(), endings, strict=True):
        assert what.startswith(f"{name.lower()}_mod cannot be imported: {name}")
