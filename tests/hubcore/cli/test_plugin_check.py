"""`hubcore plugin check`: each kind of fault gives a finding with file, line, cause and remedy; sound plugins give none."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hubcore.cli import main
from hubcore.doctor import Finding, PluginReport, check_plugin
from hubcore.errors import OptionError
from hubcore.scaffold import new_plugin
from tests.conftest import Installer

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


def checked(install: Installer, points: str, files: dict[str, str], **options: Any) -> PluginReport:
    install("loud-speech", entry_points=points, files=files)
    return check_plugin("loud-speech", **options)


def only(report: PluginReport) -> Finding:
    (finding,) = report.findings
    assert finding.cause and finding.remedy and finding.file
    assert not report.ok and "finding" in {step.result for step in report.steps}
    return finding


def with_cards(install: Installer, cards: str, module: str = GOOD) -> PluginReport:
    files = {"loud_mod.py": module, "loud_cards/__init__.py": "", "loud_cards/cards.yaml": HEAD + cards}
    return checked(install, FAMILY + CARDS, files)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["plugin", "check", *arguments], prog_name="hubcore")


def step_of(report: PluginReport, what: str, name: str) -> tuple[str, str]:
    (step,) = [step for step in report.steps if step.what == what and step.name == name]
    return step.result, step.detail


# Sound ones -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["loud-speech", "Loud_Speech", "LOUD.SPEECH"])
def test_a_sound_plugin_in_any_spelling(spelling: str, install: Installer) -> None:
    install("loud-speech", entry_points=FAMILY, files={"loud_mod.py": GOOD})
    result = call(spelling)
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("\nloud-speech 1.0: nothing is wrong; 0 not checked\n")
    assert "checks passed" in result.stdout


def test_the_scaffold_is_sound(install: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(new_plugin("acoustic", tmp_path)))
    points = "[hubcore.upstreams]\nacoustic = hubcore_acoustic.upstream:AcousticUpstream\n"
    install("hubcore-acoustic", entry_points=points + "[hubcore.registries]\nacoustic = hubcore_acoustic:registry.yaml\n")
    report = check_plugin("hubcore-acoustic")
    assert report.ok and {step.result for step in report.steps} == {"ok"}
    assert [step.what for step in report.steps] == ["entry points", "listing", "cards", "names", "class", "conformance"]


def test_json_is_the_report(install: Installer) -> None:
    install("loud-speech", entry_points=FAMILY + "[hubcore]\nloud = loud_nowhere\n", files={"loud_mod.py": GOOD})
    result = call("loud-speech", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert (report["distribution"], report["version"], report["ok"]) == ("loud-speech", "1.0", False)
    (finding,) = report["findings"]
    assert set(finding) == {"file", "line", "cause", "remedy"} and "No module named 'loud_nowhere'" in finding["cause"]
    assert {step["what"] for step in report["steps"]} >= {"entry points", "listing", "conformance", "hooks"}


def test_findings_are_printed_with_place_cause_and_remedy(install: Installer) -> None:
    files = {
        "loud_mod.py": GOOD,
        "loud_cards/__init__.py": "",
        "loud_cards/cards.yaml": HEAD + "  louder:\n    upstream: loud\n",
    }
    root = install("loud-speech", entry_points=FAMILY + CARDS, files=files)
    result = call("loud-speech")
    assert result.exit_code == 1
    assert f"\n1. {root / 'loud_cards/cards.yaml'}, line 4\n   'louder' has no 'license'." in result.stdout
    assert result.stdout.endswith("loud-speech 1.0: 1 finding; 0 not checked\n")


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
    assert "loud-speech has no entry point for hubcore" in finding.cause and "'hubcore.upstreams'" in finding.remedy


def test_a_misspelt_group(install: Installer) -> None:
    finding = only(checked(install, FAMILY + "[hubcore.registry.names]\nx = loud_cards:cards.yaml\n", {"loud_mod.py": GOOD}))
    assert "in the group 'hubcore.registry.names', which nothing reads" in finding.cause
    assert "'hubcore.registries'" in finding.remedy and finding.line == 4 and finding.file
    assert finding.file.endswith("entry_points.txt")


@pytest.mark.parametrize(
    ("points", "line", "cause"),
    [
        (FAMILY + "bad name = loud_mod:LoudUpstream\n", 3, "entry point 'bad name' = 'loud_mod:LoudUpstream' must be name"),
        (FAMILY + "other = loud_mod\n", 3, "must be name = module:Class"),
        (FAMILY + CARDS, 4, "names 'loud_cards:cards.yaml', which is not there"),
    ],
)
def test_an_entry_point_that_names_nothing(points: str, line: int, cause: str, install: Installer) -> None:
    finding = only(checked(install, points, {"loud_mod.py": GOOD}))
    assert cause in finding.cause and finding.line == line


# Classes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "line", "cause"),
    [
        ("import torch\nimport nothing_of_this_name\n", 2, "No module named 'nothing_of_this_name'"),
        ("x = 1\ny = (\n", 2, "was never closed"),
        ("LoudUpstream = 3\n", None, "is a int, not a class"),
        ("class QuietUpstream:\n    pass\n", None, "has no attribute 'LoudUpstream'"),
        ("raise SystemExit(4)\n", 1, "SystemExit: 4"),
    ],
)
def test_a_class_that_cannot_be_imported(module: str, line: int | None, cause: str, install: Installer) -> None:
    finding = only(checked(install, FAMILY, {"loud_mod.py": module}))
    assert cause in finding.cause and finding.line == line and finding.file
    assert finding.file.endswith("loud_mod.py")


@pytest.mark.parametrize(
    ("signature", "cause"),
    [
        ("self, wavs, *, layers=None", "takes no 'lengths'"),
        ("self, wavs, lengths=None, layers=None", "takes 'layers' by position too"),
        ("self, wavs, lengths, *, layers=None", "needs 'lengths'"),
        ("self, wavs, lengths=None, *, layers=None, **options", "takes **options, which swallows misspelt options"),
    ],
)
def test_a_forward_of_another_form(signature: str, cause: str, install: Installer) -> None:
    module = GOOD.replace("self, wavs, lengths=None, *, layers=None", signature)
    report = checked(install, FAMILY, {"loud_mod.py": module})
    (finding,) = [finding for finding in report.findings if cause in finding.cause]
    assert finding.line == 7 and finding.remedy


def test_a_class_without_a_call(install: Installer) -> None:
    report = checked(
        install, FAMILY, {"loud_mod.py": "class LoudUpstream:\n    def forward(self, wavs):\n        return wavs\n"}
    )
    assert "LoudUpstream has no __call__, so that it cannot be called" in report.findings[0].cause
    assert any("lacks sample_rate, num_layers" in finding.cause for finding in report.findings)


# Conformance ----------------------------------------------------------------------------------------------------------


def test_a_breach_of_the_contract_names_the_check_the_class_and_the_rule(install: Installer) -> None:
    module = GOOD.replace("for row in rows]\n", "for row in [row - row.mean() * len(rows) for row in rows]]\n")
    report = checked(install, FAMILY, {"loud_mod.py": module})
    finding = next(f for f in report.findings if "batch_equals_alone" in f.cause)
    assert "'loud' fails the check batch_equals_alone" in finding.cause and "differs by" in finding.cause
    assert finding.remedy.startswith("The contract: An utterance has the same frames in a batch as alone")
    assert finding.file and finding.file.endswith("loud_mod.py") and finding.line == 7


def test_exemptions_spare_a_check_with_a_reason(install: Installer) -> None:
    module = GOOD.replace("self.gain * row", "(self.gain + torch.rand(1)) * row")
    install("loud-speech", entry_points=FAMILY, files={"loud_mod.py": module})
    failing = {finding.cause.split()[4].rstrip(":") for finding in check_plugin("loud-speech").findings}
    assert "determinism" in failing
    assert check_plugin("loud-speech", dict.fromkeys(failing, "noise on purpose")).ok
    assert check_plugin("loud-speech", {f"loud/{name}": "noise on purpose" for name in failing}).ok
    result = call("loud-speech", *(f"--exempt=loud/{name}=noise on purpose" for name in failing))
    assert result.exit_code == 0 and f"{len(failing)} exempt" in result.stdout
    for wrong in ("determinism", "determinism=", "no_check=why", "nobody/determinism=why"):
        assert call("loud-speech", "--exempt", wrong).exit_code == 2


def test_an_upstream_that_cannot_be_built_points_at_its_own_line(install: Installer) -> None:
    module = GOOD.replace("        self.gain = gain\n", "        self.gain = gain\n        self.table = {}['missing']\n")
    finding = only(checked(install, FAMILY, {"loud_mod.py": module}))
    assert "'loud' cannot be loaded" in finding.cause and "KeyError: 'missing'" in finding.cause
    assert finding.line == 11


def test_a_call_that_leaves_is_a_finding(install: Installer) -> None:
    module = GOOD.replace("        rows = ", "        raise SystemExit(0)\n        rows = ")
    finding = only(checked(install, FAMILY, {"loud_mod.py": module}))
    assert "'loud' ends the program when it is called: SystemExit: 0" in finding.cause and finding.line == 13


def test_an_error_that_cannot_be_printed_is_a_finding(install: Installer) -> None:
    mute = "\n\nclass Mute(Exception):\n    def __str__(self):\n        raise ValueError\n"
    module = GOOD.replace("        self.gain = gain\n", "        raise Mute\n") + mute
    finding = only(checked(install, FAMILY, {"loud_mod.py": module}))
    assert "'loud' cannot be loaded: Mute: its text cannot be shown" in finding.cause and finding.line == 10


@pytest.mark.parametrize(
    ("old", "new", "line", "how"),
    [
        ("import torch\n", "import os\nos._exit(0)\n", 3, "exit status 0"),
        ("        rows = ", "        import os; os._exit(0)\n        rows = ", 13, "exit status 0"),
        ("import torch\n", "raise KeyboardInterrupt\n", 2, "signal SIGINT"),
    ],
)
def test_a_plugin_that_ends_the_process_is_a_finding(old: str, new: str, line: int, how: str, install: Installer) -> None:
    install("loud-speech", entry_points=FAMILY, files={"loud_mod.py": GOOD.replace(old, new, 1)})
    result = call("loud-speech", "--json")
    assert result.exit_code == 1, result.output
    report = PluginReport.from_dict({k: v for k, v in json.loads(result.stdout).items() if k != "ok"})
    finding = only(report)
    assert f"ends the whole process ({how})" in finding.cause and finding.line == line
    assert (report.distribution, report.version, [step.what for step in report.steps]) == ("loud-speech", "1.0", ["process"])


def test_a_plugin_cannot_keep_the_check_from_ending_or_print_into_it(install: Installer) -> None:
    head = "import sys, threading, time\nprint('noise')\nsys.stdout.close()\n"
    head += "threading.Thread(target=time.sleep, args=(60,)).start()\n"
    install("loud-speech", entry_points=FAMILY, files={"loud_mod.py": head + GOOD})
    began = time.monotonic()
    result = call("loud-speech", "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["ok"]
    assert time.monotonic() - began < 50


# Cards ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cards", "line", "cause", "remedy"),
    [
        (
            "  louder: {upstream: loud, licence: MIT}\n",
            3,
            "'louder' has the unknown field 'licence'.",
            "Did you mean 'license'?",
        ),
        ("  louder: {upstream: laud, license: MIT}\n", 3, "of the family 'laud', which no installed", "Correct its `upstream`"),
        (
            "  louder: {upstream: loud, license: MIT, options: {gian: 2.0}}\n",
            3,
            "has no option called 'gian'",
            "Correct the card",
        ),
        ("  louder: [\n", 4, "not valid YAML", "Correct that line."),
    ],
)
def test_a_card_that_is_wrong(cards: str, line: int, cause: str, remedy: str, install: Installer) -> None:
    finding = only(with_cards(install, cards))
    assert cause in finding.cause and remedy in finding.remedy and "?." not in finding.remedy
    assert finding.file and finding.file.endswith("cards.yaml") and finding.line == line


def test_a_card_whose_file_must_be_fetched_is_not_checked(install: Installer) -> None:
    module = GOOD + "\n    @classmethod\n    def from_file(cls, path, *, config=None):\n        return cls()\n"
    cards = (
        "  far: {upstream: loud, license: MIT, sources: [{uri: 'https://example.org/a.pt'}]}\n"
        "  open: {upstream: loud, license: MIT}\n"
    )
    report = with_cards(install, cards, module)
    assert report.ok
    assert step_of(report, "conformance", "far") == ("not checked", "its checkpoint is not here: `hubcore fetch far` gets it")
    assert step_of(report, "conformance", "open")[0] == "not checked"
    # So the class itself is checked, with fresh weights.
    assert step_of(report, "conformance", "loud (fresh weights)")[0] == "ok"
    result = call("loud-speech")
    assert result.exit_code == 0 and result.stdout.endswith("nothing is wrong; 2 not checked\n")


def test_nothing_is_downloaded_even_where_a_load_would(install: Installer, monkeypatch: pytest.MonkeyPatch) -> None:
    module = GOOD + "\n    @classmethod\n    def from_file(cls, path, *, config=None):\n        return cls()\n"
    sources = "[{uri: gone.pt}, {uri: 'https://example.org/a.pt'}]"
    report = with_cards(install, f"  both: {{upstream: loud, license: MIT, sources: {sources}}}\n", module)
    assert "gone.pt does not exist" in only(report).cause and "offline" in only(report).cause
    assert "HUBCORE_OFFLINE" not in os.environ


def test_a_card_whose_own_file_is_gone_is_a_finding(install: Installer) -> None:
    module = GOOD + "\n    @classmethod\n    def from_file(cls, path, *, config=None):\n        return cls()\n"
    report = with_cards(install, "  near: {upstream: loud, license: MIT, sources: [{uri: weights/gone.pt}]}\n", module)
    finding = only(report)
    assert "gone.pt does not exist" in finding.cause and finding.line == 3


# Names, hooks, listing ------------------------------------------------------------------------------------------------


def test_a_contested_name(install: Installer) -> None:
    install("rival", entry_points="[hubcore.upstreams]\nloud = rival_mod:X\n", files={"rival_mod.py": "class X:\n    pass\n"})
    report = checked(install, FAMILY, {"loud_mod.py": GOOD})
    finding = only(report)
    assert "the name 'loud' is claimed by rival too" in finding.cause and "loud-speech:loud picks this one" in finding.remedy
    assert step_of(report, "conformance", "loud")[0] == "ok"


@pytest.mark.parametrize(
    ("hooks", "cause"),
    [
        (
            "from hubcore import hookimpl\n\n@hookimpl\ndef hubcore_fecth(uri):\n    return None\n",
            "hubcore_fecth, which is no hook",
        ),
        (
            "from hubcore import hookimpl\n\n@hookimpl\ndef hubcore_upstream_loaded(upstream):\n    1 / 0\n",
            "hubcore_upstream_loaded failed",
        ),
        (
            "from hubcore import hookimpl\n\n@hookimpl\ndef hubcore_feature_writers():\n    return ['a']\n",
            "hubcore_feature_writers failed: TypeError: it gave ['a'], not a dictionary",
        ),
        (
            "from hubcore import hookimpl\n\n@hookimpl\ndef hubcore_fetch(uri):\n    return '/'\n",
            "its hubcore_fetch takes 'hubcore-doctor://nothing/file' for its own",
        ),
    ],
)
def test_hooks_that_are_wrong(hooks: str, cause: str, install: Installer) -> None:
    report = checked(install, FAMILY + "[hubcore]\nloud = loud_hooks\n", {"loud_mod.py": GOOD, "loud_hooks.py": hooks})
    finding = only(report)
    assert cause in finding.cause and finding.file and finding.file.endswith("loud_hooks.py")


def test_a_plugin_that_runs_when_python_starts(install: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A .pth file is read from site folders only; a sitecustomize on the path does the same to the fresh interpreter.
    files = {"loud_mod.py": GOOD, "sitecustomize.py": "import loud_mod\n"}
    report = checked(install, FAMILY, files)
    finding = only(report)
    assert "hub.list() imports loud_mod, torch" in finding.cause and "Nothing of a plugin may run" in finding.remedy


def test_listing_that_fails_is_a_finding(install: Installer) -> None:
    report = checked(install, FAMILY, {"loud_mod.py": GOOD, "sitecustomize.py": "import sys\nsys.modules['yaml'] = None\n"})
    assert "hub.list() fails in a fresh interpreter" in only(report).cause
