"""`hubcore plugin check`: each kind of fault gives a finding with file, line, cause and remedy; sound plugins give none."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest

from hubcore.doctor.diagnosis import check_plugin
from hubcore.doctor.installed import find_plugin
from hubcore.doctor.report import PluginReport
from hubcore.errors import OptionError
from hubcore.findings import Finding
from hubcore.scaffold.new import new_plugin
from tests.conftest import Installer
from tests.hubcore.cli.test_doctor import NO_TORCH
from tests.running import command

pytestmark = pytest.mark.slow

GOOD = """
import torch
from hubcore import UpstreamBase
from hubcore.ragged import pad_packed, regular_frame_times


class LoudUpstream(UpstreamBase):
    def __init__(self, gain=1.0):
        super().__init__(layer_names=("loud",), hidden_sizes=(1,), frame_stride=160, receptive_field=160)
        self.gain = gain

    def forward(self, wavs, lengths=None, *, layers=None):
        rows = self.check_input(wavs, lengths)
        layers = self.check_layers(layers)
        frames = [self.gain * row.unfold(0, 160, 160).square().mean(1, keepdim=True) for row in rows]
        counts = torch.tensor([len(frame) for frame in frames], device=rows[0].device)
        state = pad_packed(torch.cat(frames), counts.tolist())
        times = regular_frame_times(counts, state.shape[1], stride=160, span=160, sample_rate=16000)
        return self.make_output([state for _ in layers], counts, layers, times)
"""
FAMILY = "[hubcore.upstreams]\nloud = loud_mod:LoudUpstream\n"
CARDS = "[hubcore.registries]\nloud = loud_cards:cards.yaml\n"
HEAD = "version: 1\nupstreams:\n"


FROM_FILE = "\n    @classmethod\n    def from_file(cls, path, *, config=None):\n        return cls()\n"
SIGNATURE = "self, wavs, lengths=None, *, layers=None"
Faults = Mapping[str, tuple[str, int | None, str]]
"""Name of a family or module -> its code, the line of the finding, and what it says."""


def checked(install: Installer, points: str, files: dict[str, str], *, conformance: bool = False) -> PluginReport:
    install("loud-speech", entry_points=points, files=files)
    return check_plugin("loud-speech", conformance=conformance)


def families(install: Installer, faults: Faults, *, conformance: bool = False) -> list[Finding]:
    """The findings about a distribution with a family for each fault, which must name them in order."""
    points = "".join(f"{name} = {name}_mod:LoudUpstream\n" for name in faults)
    files = {f"{name}_mod.py": code for name, (code, _, _) in faults.items()}
    report = checked(install, f"[hubcore.upstreams]\n{points}", files, conformance=conformance)
    assert len(report.findings) == len(faults) and not report.ok
    for finding, (name, (_, line, what)) in zip(report.findings, faults.items(), strict=True):
        assert what in finding.what and finding.fix, finding
        assert finding.file.endswith(f"{name}_mod.py") and finding.line == line, finding
    return report.findings


def only(report: PluginReport) -> Finding:
    (finding,) = report.findings
    assert finding.what and finding.fix and finding.file
    assert not report.ok and "finding" in {step.result for step in report.steps}
    return finding


def with_cards(install: Installer, cards: str, module: str = GOOD, *, conformance: bool = False) -> PluginReport:
    files = {"loud_mod.py": module, "loud_cards/__init__.py": "", "loud_cards/cards.yaml": HEAD + cards}
    return checked(install, FAMILY + CARDS, files, conformance=conformance)


call = partial(command, "plugin", "check")


def step_of(report: PluginReport, what: str, name: str) -> tuple[str, str]:
    (step,) = [step for step in report.steps if step.what == what and step.name == name]
    return step.result, step.detail


# Sound ones -----------------------------------------------------------------------------------------------------------


def test_a_sound_plugin_in_another_spelling(install: Installer) -> None:
    install("loud-speech", entry_points=FAMILY, files={"loud_mod.py": GOOD})
    result = call("LOUD_Speech")
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("\nloud-speech 1.0: nothing is wrong; 0 not checked\n")
    assert "checks passed" in result.stdout
    assert find_plugin("Loud.Speech").distribution == "loud-speech"


def test_the_scaffold_is_sound(install: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(new_plugin("acoustic", tmp_path)))
    points = "[hubcore.upstreams]\nacoustic = hubcore_acoustic.upstream:AcousticUpstream\n"
    install("hubcore-acoustic", entry_points=points + "[hubcore.registries]\nacoustic = hubcore_acoustic:registry.yaml\n")
    report = check_plugin("hubcore-acoustic")
    assert report.ok and {step.result for step in report.steps} == {"ok"}
    assert [step.what for step in report.steps] == ["entry points", "cards", "names", "listing", "class", "conformance"]


# What is printed ------------------------------------------------------------------------------------------------------


def test_findings_are_printed_with_place_cause_and_remedy_and_as_json(install: Installer) -> None:
    cards = HEAD + "  louder:\n    upstream: loud\n"
    files = {"loud_mod.py": GOOD, "loud_cards/__init__.py": "", "loud_cards/cards.yaml": cards}
    root = install("loud-speech", entry_points=FAMILY + CARDS + "[hubcore]\nloud = loud_nowhere\n", files=files)
    result = call("loud-speech", "--no-conformance")
    assert result.exit_code == 1
    assert f"\n1. {root / 'loud_cards/cards.yaml'}, line 4\n   'louder' has no 'license'." in result.stdout
    assert result.stdout.endswith("loud-speech 1.0: 2 findings; 0 not checked\n")
    report = json.loads(call("loud-speech", "--json", "--no-conformance").stdout)
    assert (report["distribution"], report["version"], report["ok"]) == ("loud-speech", "1.0", False)
    card, hooks = report["findings"]
    assert card["file"].endswith("cards.yaml") and card["line"] == 4
    assert set(hooks) == {"file", "line", "cause", "remedy", "warning"} and "No module named 'loud_nowhere'" in hooks["cause"]
    assert {step["what"] for step in report["steps"]} >= {"entry points", "listing", "conformance", "hooks"}


# Which distribution ---------------------------------------------------------------------------------------------------


def test_an_unknown_distribution_names_the_nearest(install: Installer) -> None:
    install("loud-speech", entry_points=FAMILY, files={"loud_mod.py": GOOD})
    result = call("lout-speech")
    assert result.exit_code == 2
    assert "no installed distribution is called 'lout-speech'. The nearest are loud-speech" in result.stderr
    result = call("loud")
    assert result.exit_code == 2 and "It is the name of an upstream, which loud-speech provides" in result.stderr


def test_one_that_is_turned_off_says_so(install: Installer, monkeypatch: pytest.MonkeyPatch) -> None:
    install("loud-speech", entry_points=FAMILY, files={"loud_mod.py": GOOD})
    for value in ("loud_speech", "*"):
        monkeypatch.setenv("HUBCORE_DISABLE_PLUGINS", value)
        with pytest.raises(OptionError, match="is turned off by HUBCORE_DISABLE_PLUGINS"):
            check_plugin("loud-speech")


def test_metadata_that_cannot_be_read_is_said_to_be_that(install: Installer) -> None:
    install("loud-speech", entry_points=b"[hubcore.upstreams]\nloud = \xff\xfe\n", files={"loud_mod.py": GOOD})
    result = call("loud-speech")
    assert result.exit_code == 2
    assert "the metadata of loud-speech cannot be read (UnicodeDecodeError" in result.stderr and "reinstall it" in result.stderr


# Entry points ---------------------------------------------------------------------------------------------------------


def test_no_entry_point_at_all(install: Installer) -> None:
    finding = only(checked(install, "[console_scripts]\nloud = loud_mod:main\n", {"loud_mod.py": ""}))
    assert "loud-speech has no entry point for hubcore" in finding.what and "'hubcore.upstreams'" in finding.fix


def test_entry_points_that_name_nothing(install: Installer) -> None:
    lost = "[hubcore.registry.names]\nx = loud_cards:cards.yaml\n"
    points = FAMILY + "bad name = loud_mod:LoudUpstream\nother = loud_mod\n" + CARDS + lost
    report = checked(install, points, {"loud_mod.py": "", "torch.py": NO_TORCH})
    findings = [finding for finding in report.findings if finding.file.endswith("entry_points.txt")]
    said = {finding.line: finding.text for finding in findings}
    assert "entry point 'bad name' = 'loud_mod:LoudUpstream' must be name = module:Class" in said[3]
    assert "must be name = module:Class" in said[4]
    assert "names 'loud_cards:cards.yaml', which is not there" in said[6]
    assert "in the group 'hubcore.registry.names', which nothing reads" in said[8] and "'hubcore.registries'" in said[8]


# Classes --------------------------------------------------------------------------------------------------------------


def test_classes_that_cannot_be_imported(install: Installer) -> None:
    install("other", files={"torch.py": NO_TORCH})
    families(
        install,
        {
            "gone": ("import torch\nimport nothing_of_this_name\n", 2, "No module named 'nothing_of_this_name'"),
            "cut": ("x = 1\ny = (\n", 2, "was never closed"),
            "number": ("LoudUpstream = 3\n", None, "is a int, not a class"),
            "other": ("class QuietUpstream:\n    pass\n", None, "other_mod:LoudUpstream is not there"),
            "leaves": ("raise SystemExit(4)\n", 1, "SystemExit: 4"),
            "stops": ("raise KeyboardInterrupt\n", 1, "KeyboardInterrupt"),
        },
    )


def test_a_forward_of_another_form(install: Installer) -> None:
    faults = {
        "few": ("self, wavs, *, layers=None", "takes no 'lengths'"),
        "loose": ("self, wavs, lengths=None, layers=None", "takes 'layers' by position too"),
        "needy": ("self, wavs, lengths, *, layers=None", "needs 'lengths'"),
        "greedy": (f"{SIGNATURE}, **options", "takes **options, which swallows misspelt options"),
    }
    families(install, {name: (GOOD.replace(SIGNATURE, form), 7, what) for name, (form, what) in faults.items()})


def test_a_class_without_a_call(install: Installer) -> None:
    module = "class LoudUpstream:\n    def forward(self, wavs):\n        return wavs\n"
    signature, attributes = checked(install, FAMILY, {"loud_mod.py": module}).findings
    assert "LoudUpstream has no __call__" in signature.what and "lacks sample_rate, num_layers" in attributes.what


def test_upstreams_that_cannot_be_built_point_at_their_own_line(install: Installer) -> None:
    mute = "\n\nclass Mute(Exception):\n    def __str__(self):\n        raise ValueError\n"
    set_gain = "        self.gain = gain\n"
    families(
        install,
        {
            "keyed": (GOOD.replace(set_gain, f"{set_gain}        {{}}['missing']\n"), 11, "KeyError: 'missing'"),
            "mute": (GOOD.replace(set_gain, "        raise Mute\n") + mute, 10, "Mute: its text cannot be shown"),
        },
    )


# Conformance ----------------------------------------------------------------------------------------------------------


def test_a_breach_of_the_contract_names_the_check_the_class_and_the_rule(install: Installer) -> None:
    module = GOOD.replace("for row in rows]\n", "for row in [row - row.mean() * len(rows) for row in rows]]\n")
    report = checked(install, FAMILY, {"loud_mod.py": module}, conformance=True)
    finding = next(f for f in report.findings if "batch_equals_alone" in f.what)
    assert "'loud' fails the check batch_equals_alone" in finding.what and "differs by" in finding.what
    assert finding.fix.startswith("The contract: An utterance has the same frames in a batch as alone")
    assert finding.place.endswith("loud_mod.py, line 7")


def test_exemptions_spare_a_check_with_a_reason(install: Installer) -> None:
    module = GOOD.replace("self.gain * row", "(self.gain + torch.rand(1)) * row")
    failing = {
        f.what.split()[4].rstrip(":") for f in checked(install, FAMILY, {"loud_mod.py": module}, conformance=True).findings
    }
    assert "determinism" in failing
    names = [*(failing - {"determinism"}), "loud/determinism"]  # for all upstreams of the distribution, and for one
    result = call("loud-speech", *(f"--exempt={name}=noise on purpose" for name in names))
    assert result.exit_code == 0 and f"{len(failing)} exempt" in result.stdout
    for wrong in ("determinism", "determinism=", "no_check=why", "nobody/determinism=why"):
        assert call("loud-speech", "--exempt", wrong).exit_code == 2


def test_what_ends_the_process_or_the_call_is_a_finding(install: Installer) -> None:
    ends, rows = "import os; os._exit(0)\n", "        rows = "
    faults: Faults = {
        "imported": (ends + GOOD, 1, "importing imported_mod ends the whole process (exit status 0)"),
        "called": (GOOD.replace(rows, f"        {ends}{rows}"), 13, "on 'called' ends the whole process (exit status 0)"),
        "leaving": (GOOD.replace(rows, f"        raise SystemExit(0)\n{rows}"), 13, "SystemExit: 0"),
    }
    found = families(install, faults, conformance=True)
    assert "hubcore cannot protect you from a plugin that kills the process" in found[0].fix


def test_a_plugin_cannot_keep_the_check_from_ending_or_print_into_it(install: Installer) -> None:
    head = "import sys, threading, time\nprint('noise', flush=True)\nsys.stdout.close()\n"
    head += "threading.Thread(target=time.sleep, args=(60,)).start()\n"
    install("loud-speech", entry_points=FAMILY, files={"loud_mod.py": head + GOOD})
    began = time.monotonic()
    result = call("loud-speech", "--json", "--no-conformance")
    report = json.loads(result.stdout)
    assert result.exit_code == 0 and report["ok"] and time.monotonic() - began < 50
    assert [finding["warning"] for finding in report["findings"]] == [True] and "prints 'noise'" in str(report)


# Cards ----------------------------------------------------------------------------------------------------------------


def test_cards_that_are_wrong(install: Installer) -> None:
    cards = (
        "  louder: {upstream: loud, licence: MIT}\n"
        "  lauder: {upstream: laud, license: MIT}\n"
        "  option: {upstream: loud, license: MIT, options: {gian: 2.0}}\n"
        "  near: {upstream: loud, license: MIT, sources: [{uri: weights/gone.pt}]}\n"
    )
    report = with_cards(install, cards, GOOD + FROM_FILE)
    said = {finding.line: finding for finding in report.findings if finding.file.endswith("cards.yaml")}
    assert len(said) == len(report.findings) == 4
    assert said[3].text.endswith("'louder' has the unknown field 'licence'. Did you mean 'license'?")
    assert "of the family 'laud', which no installed" in said[4].what and "Correct it" in said[4].text
    assert "has no option called 'gian'" in said[5].what and "Correct the card" in said[5].text
    assert "gone.pt does not exist" in said[6].what


def test_cards_that_are_no_yaml(install: Installer) -> None:
    finding = only(checked(install, CARDS, {"loud_cards/__init__.py": "", "loud_cards/cards.yaml": f"{HEAD}  louder: [\n"}))
    assert "not valid YAML" in finding.what and finding.place.endswith("cards.yaml, line 4")


def test_a_card_whose_file_must_be_fetched_is_not_checked(install: Installer) -> None:
    cards = (
        "  far: {upstream: loud, license: MIT, sources: [{uri: 'https://example.org/a.pt'}]}\n"
        "  open: {upstream: loud, license: MIT}\n"
    )
    report = with_cards(install, cards, GOOD + FROM_FILE, conformance=True)
    assert report.ok
    assert step_of(report, "conformance", "far") == ("not checked", "its checkpoint is not here: `hubcore fetch far` gets it")
    assert step_of(report, "conformance", "open")[0] == "not checked"
    # So the class itself is checked, with fresh weights.
    assert step_of(report, "conformance", "loud (fresh weights)")[0] == "ok"


# Names, hooks, listing ------------------------------------------------------------------------------------------------


def test_a_contested_name(install: Installer) -> None:
    install("rival", entry_points="[hubcore.upstreams]\nloud = rival_mod:X\n", files={"rival_mod.py": "class X:\n    pass\n"})
    report = checked(install, FAMILY, {"loud_mod.py": GOOD})
    finding = only(report)
    assert (
        finding.text
        == "loud is claimed by loud-speech and rival. Use loud-speech:loud or rival:loud, or uninstall one of them."
    )
    assert finding.place.endswith("entry_points.txt, line 2")
    assert step_of(report, "conformance", "loud")[0] == "ok"


def test_hooks_that_are_wrong(install: Installer) -> None:
    hook = "from hubcore import hookimpl\n\n@hookimpl\ndef hubcore_"
    hooks = {
        "misspelt": ("fecth(uri):\n    return None\n", "hubcore_fecth, which is no hook"),
        "observer": ("upstream_loaded(upstream):\n    1 / 0\n", "hubcore_upstream_loaded failed"),
        "writers": ("feature_writers():\n    return ['a']\n", "TypeError: it gave ['a'], not a dictionary"),
        "takes": ("fetch(uri):\n    return '/'\n", "its hubcore_fetch takes 'hubcore-doctor://nothing/file' for its own"),
    }
    points = "[hubcore]\n" + "".join(f"{name} = {name}_hooks\n" for name in hooks)
    report = checked(install, points, {f"{name}_hooks.py": hook + code for name, (code, _) in hooks.items()})
    for finding, (name, (_, what)) in zip(report.findings, hooks.items(), strict=True):
        assert what in finding.what and finding.fix and finding.file.endswith(f"{name}_hooks.py")


def test_a_plugin_that_runs_when_python_starts(install: Installer) -> None:
    # A .pth file is read from site folders only; a sitecustomize on the path does the same to the fresh interpreter.
    report = checked(install, FAMILY, {"loud_mod.py": GOOD, "sitecustomize.py": "import loud_mod\n"}, conformance=True)
    finding = only(report)
    assert "hub.list() imports loud_mod, torch" in finding.what and "Take it out of the .pth file" in finding.fix


def test_an_interpreter_that_cannot_list_is_a_finding(install: Installer) -> None:
    report = checked(install, FAMILY, {"loud_mod.py": GOOD, "sitecustomize.py": "import sys\nsys.modules['yaml'] = None\n"})
    assert "starting Python ends the whole process (exit status 1)" in only(report).what
