"""Text from strangers on the terminal: one door, through which nothing drives it and no line is forged; JSON that is JSON."""

from __future__ import annotations

import ast
import dataclasses
import json
import logging
import warnings
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from hubcore.card import Card
from hubcore.checkpoints.report import LoadReport
from hubcore.cli import echo as door
from hubcore.cli import main
from hubcore.cli.echo import echo, echo_error, echo_json, json_flag
from hubcore.describe import describe
from hubcore.errors import DownloadError, OptionError, RegistryError
from hubcore.progress import Progress
from hubcore.registry.names import current_registry
from hubcore.text import logger, printable
from tests.conftest import Installer
from tests.paths import REPOSITORY
from tests.running import command

OSC = "\x1b]52;c;cm0gLXJmIH4=\x07"
"""Fills the clipboard of many terminals."""
ODD = f"a{OSC}\x9b31m\x7f\u202eb\u2028c\rd"
LINE = "\nhubcore: error: all is well"
CONTROL = {chr(code) for code in (*range(32), *range(127, 160))} - {"\n", "\t"} | set("\u202e\u2028\u2066")


def is_clean(text: str) -> bool:
    return not CONTROL & set(text)


def test_what_is_printed_is_visible() -> None:
    assert printable(ODD + LINE) == (
        "a\\x1b]52;c;cm0gLXJmIH4=\\x07\\x9b31m\\x7f\\u202eb\\u2028c\\rd\\nhubcore: error: all is well"
    )
    assert printable("naïve 模型 \U0001f600.wav") == "naïve 模型 \U0001f600.wav"


PRINTING = ("print", "click.echo", "click.secho", "sys.stdout.write")


@pytest.mark.slow
def test_no_part_of_the_command_line_prints_but_through_the_door() -> None:
    files = [*(REPOSITORY / "hubcore").rglob("*.py"), *(REPOSITORY / "plugins").rglob("*.py")]
    found = []
    for path in files:
        if path == Path(door.__file__) or "scaffold/files" in path.as_posix() or path.name == "make_prompts.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "print",
                "click.echo",
                "click.secho",
                "sys.stdout.write",
            ):
                found.append(f"{path.relative_to(REPOSITORY)}:{node.lineno}")
    assert len(files) > 100 and found == []


def test_errors_and_logs_are_clean_whoever_prints_them(caplog: pytest.LogCaptureFixture) -> None:
    for error in (OptionError(ODD, ODD), RegistryError(ODD, ODD, ODD, 3), DownloadError(f"https://h/a?sig={ODD}")):
        assert is_clean(str(error)), repr(str(error))
    assert OptionError(ODD).what == ODD, "for programs it is as it was"
    logger("checkpoints").warning("%s was %s", ODD, "https://me:word@h/a.pt?sig=1")
    assert caplog.messages == [f"{printable(ODD)} was https://***@h/a.pt?***"]


def run(body: object) -> tuple[str, str]:
    """What a command with this body prints, below hubcore's own group."""
    group = type(main)("hubcore", commands={"odd": click.Command("odd", callback=body)})  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group, "_add_plugin_commands", lambda: None)
        result = CliRunner().invoke(group, ["odd"])
    return result.stdout, result.stderr


@pytest.mark.filterwarnings("always::UserWarning")
def test_every_way_of_a_command_to_print_is_clean_and_forges_no_line() -> None:
    def body() -> None:
        echo(ODD)
        echo(ODD, err=True)
        echo_error(f"hubcore: error: x{LINE}")
        logging.getLogger("hubcore.hooks").warning("%s%s", ODD, LINE)
        warnings.warn(f"{ODD}{LINE}", stacklevel=1)
        raise OptionError(f"the tensor {ODD}{LINE}")

    out, err = run(body)
    assert is_clean(out) and is_clean(err)
    assert out == f"{printable(ODD)}\n"
    assert [line[:9] for line in err.splitlines() if not line.startswith("  ")] == ["a\\x1b]52;", *["hubcore: "] * 4]

    def usage() -> None:
        raise click.BadParameter(f"there is no file {ODD}")

    assert is_clean(run(usage)[1]) and "there is no file a\\x1b]52" in run(usage)[1]


def test_a_bar_shows_no_escape_sequence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("hubcore.progress.is_terminal", lambda _: True)
    with Progress("B", f"m{OSC}") as progress:
        progress(1, 2, f"n{OSC}")
    assert OSC not in capsys.readouterr().err


def test_names_in_a_checkpoint_and_a_card_are_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = current_registry().find("fbank")
    card = Card("odd", "fbank", f"MIT{LINE}", note=f"n{ODD}\nlicence  MIT", paper=ODD, training_data=ODD)
    text = str(describe(dataclasses.replace(entry, card=card)))
    assert is_clean(text) and sum(line.startswith("licence") for line in text.splitlines()) == 1
    assert is_clean(str(LoadReport(ODD, ODD, ignored=(ODD + LINE,), notes=(LINE,)))) and LINE not in str(LoadReport(LINE, "x"))
    file = tmp_path / f"a{OSC}.safetensors"
    save_file({"w": torch.ones(3)}, file)
    shown = command("info", file)
    assert shown.exit_code == 2 or "reason" in shown.output
    assert is_clean(shown.output) and "a\\x1b]52" in shown.output
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"version: 1\nupstreams:\n  odd: {{upstream: fbank, license: {json.dumps('MIT' + ODD + LINE)}}}\n")
    monkeypatch.setenv("HUBCORE_REGISTRY", str(mine))
    for arguments in (("list",), ("info", "odd"), ("registry", "check"), ("info", f"no{OSC}")):
        shown = command(*arguments)
        assert is_clean(shown.output), arguments
        assert "\nhubcore: error: all is well" not in shown.output, arguments


NOISY = "print('noise', flush=True)\nfrom hubcore_fbank import FbankUpstream\nclass X(FbankUpstream):\n"
NOISY += "    def __init__(self, *a, **k):\n        print('noise')\n        super().__init__(*a, **k)\n"
HOOK = "print('noise')\nfrom hubcore import hookimpl\n@hookimpl\ndef hubcore_upstream_loaded(upstream):\n    print('noise')\n"


def test_a_plugin_that_prints_leaves_the_json_whole(install: Installer) -> None:
    points = "[hubcore.upstreams]\nnoisy = noisy_mod:X\n[hubcore]\nnoisy = noisy_hook\n"
    install("noisy", entry_points=points, files={"noisy_mod.py": NOISY, "noisy_hook.py": HOOK})
    shown = command("verify", "noisy", "--json")
    assert json.loads(shown.stdout)["results"][0]["name"] == "noisy"
    assert shown.stderr.count("noise") == 2
    assert json.loads(command("list", "noisy", "--json").stdout)[0]["name"] == "noisy"


def test_json_has_no_number_that_json_does_not_have() -> None:
    @click.command()
    @json_flag()
    def odd(as_json: bool) -> None:
        print("noise")
        echo_json({"a": [float("nan"), 1.5], "b": {"c": (float("-inf"), True, None)}, "d": "\x7f\x1b", "e": Path("f")})

    shown = CliRunner().invoke(odd, ["--json"])
    assert json.loads(shown.stdout, parse_constant=pytest.fail) == {
        "a": [None, 1.5], "b": {"c": [None, True, None]}, "d": "\x7f\x1b", "e": "f"
    }  # fmt: skip
    assert is_clean(shown.stdout) and shown.stderr == "noise\n"
