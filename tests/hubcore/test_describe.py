"""What `info` says: where a class is, whatever its plugin does, and what is wrong with a config."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hubcore import hub
from hubcore.describe import locate
from hubcore.registry.names import Family, current_registry
from tests.conftest import CardWriter, Installer
from tests.running import command

IMPLEMENTATION = "import torch\n\n\nclass Model:\n    pass\n"
"""The class begins in line 4."""

REEXPORTS = {
    "relative": "from .impl import Model\n",
    "absolute": "from acme.impl import Model\n",
    "two dots": "from ..acme.impl import Model\n",
    "renamed": "from .impl import Other\nfrom .impl import Model as Model\n",
    "star": "from .impl import *\n",
    "for type checkers": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from acme.impl import Model\ndef __getattr__(name): ...\n"
    ),
    "in a function": "def __getattr__(name):\n    from acme.impl import Model\n    return Model\n",
    "through another": "from .between import Model\n",
}


def family_of(install: Installer, init: str, target: str = "acme:Model", **more: str) -> Family:
    files = {
        "acme/__init__.py": init,
        "acme/impl.py": IMPLEMENTATION,
        "acme/between.py": "from acme.impl import Model\n",
        **more,
    }
    install("acme", entry_points=f"[hubcore.upstreams]\nacme = {target}\n", files=files)
    family = current_registry().find("acme").family
    assert family is not None
    return family


@pytest.mark.parametrize("how", [how for how in REEXPORTS if how != "two dots"])
def test_a_class_that_is_imported_is_found_where_it_is(install: Installer, how: str) -> None:
    file, line = locate(family_of(install, REEXPORTS[how]))
    assert file is not None and Path(file).parts[-2:] == ("acme", "impl.py") and line == 4


def test_a_class_under_another_name_is_found(install: Installer) -> None:
    file, line = locate(family_of(install, "from .impl import Model as Upstream\n", "acme:Upstream"))
    assert file is not None and Path(file).name == "impl.py" and line == 4


def test_a_module_inside_may_reach_up(install: Installer) -> None:
    more = {"acme/deep/__init__.py": "", "acme/deep/upstream.py": "from ..impl import Model\n"}
    file, line = locate(family_of(install, "", "acme.deep.upstream:Model", **more))
    assert file is not None and Path(file).name == "impl.py" and line == 4


@pytest.mark.parametrize(
    "init",
    [
        "_MODULE_OF = {'Model': 'impl'}\ndef __getattr__(name): ...\n",
        "from .nowhere import Model\n",
        "from acme import Model\n",
        "from ...... import Model\n",
        "from .impl import Other\n",
        "class Broken(:\n",
        REEXPORTS["two dots"],
    ],
)
def test_a_class_that_cannot_be_followed_has_a_file_and_no_line(install: Installer, init: str) -> None:
    family = family_of(install, init)
    file, line = locate(family)
    assert file is not None and Path(file).parts[-2:] == ("acme", "__init__.py") and line is None
    text = str(hub.info("acme"))
    assert f"{file}\n" in text and "None" not in text


def test_a_module_that_is_not_there_has_neither() -> None:
    assert locate(Family("x", "no_such_package.part:Model", "x", "1")) == (None, None)
    assert locate(Family("x", "hubcore.no_such_module:Model", "x", "1")) == (None, None)


# Configs --------------------------------------------------------------------------------------------------------------


def test_a_config_that_the_family_does_not_have_is_said(cards: CardWriter) -> None:
    cards("typo: {upstream: fbank, config: fbnk, license: x}")
    info = hub.info("typo")
    assert info.config is None and info.config_problem is not None
    assert info.to_dict()["config_problem"].startswith("unknown to this family: it has fbank, ")
    assert "config   fbnk (unknown to this family: it has fbank, " in str(info)
    assert hub.info("fbank").config_problem is None


@pytest.mark.parametrize("text", ["raise SystemExit(3)", "raise RuntimeError('caf\\udce9')", "CONFIGS = 3"])
def test_a_plugin_that_breaks_does_not_end_info(install: Installer, cards: CardWriter, text: str) -> None:
    family_of(install, f"{text}\n", "acme.impl:Model")
    cards("mine: {upstream: acme, config: base, license: x}")
    result = command("info", "mine")
    assert result.exit_code == 0, result.output
    assert "base (its plugin could not be asked: " in result.output and "impl.py:4" in result.output
    assert "-O NAME=VALUE" not in result.output


def test_a_family_need_not_have_named_configs(install: Installer, cards: CardWriter) -> None:
    family_of(install, "", "acme.impl:Model")
    cards("mine: {upstream: acme, config: base, license: x}")
    info = hub.info("mine")
    assert (info.config_name, info.config, info.config_problem) == ("base", None, None)


# Options --------------------------------------------------------------------------------------------------------------


def test_the_options_of_the_class_are_listed_with_the_defaults_of_card_and_config(cards: CardWriter) -> None:
    cards("mine: {upstream: fbank, config: mfcc, license: x, options: {num_ceps: 7}}")
    text = command("info", "mine").stdout
    assert "options, as -O NAME=VALUE or hub.load('mine', NAME=VALUE):" in text
    found = {row["name"]: row for row in json.loads(command("info", "mine", "--json").stdout)["class_options"]}
    assert found["num_mel_bins"] == {
        "name": "num_mel_bins",
        "type": "a whole number from 1 to 65,536",
        "default": 23,
        "meaning": "Number of mel filters.",
    }
    assert found["num_ceps"]["default"] == 7 and found["config"]["default"] == "mfcc" and found["layers"]["default"] is None


@pytest.mark.parametrize(
    ("name", "option"), [("ofa_wav2vec2_tiny_prompts", "lambd"), ("wav2vec2", "dropout"), ("fbank", "cmvn")]
)
def test_each_family_lists_its_own_options(name: str, option: str) -> None:
    text = command("info", name).stdout
    assert re.search(rf"^{option} +[a-z]", text, re.MULTILINE)
