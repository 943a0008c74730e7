"""What plugins do wrong with hooks, and that it harms nothing else."""

from __future__ import annotations

import builtins
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from hubcore import hub
from hubcore.card import Card, Source
from hubcore.errors import DownloadError, OptionError, PluginError
from hubcore.extract import find_writer
from hubcore.hooks import current_hooks
from hubcore.sources.resolve import fetch_card
from tests.conftest import Installer
from tests.running import command

TINY = "package://hubcore_wav2vec2/bundled/wav2vec2_tiny_prompts.safetensors"


def problems_of(install: Installer, text: str) -> list[str]:
    install("hooked", entry_points="[hubcore]\nhooked = hooked_mod\n", files={"hooked_mod.py": text})
    return [problem.text for problem in current_hooks().problems]


# What is a hook -------------------------------------------------------------------------------------------------------


def test_imports_that_start_alike_are_no_hooks(install: Installer) -> None:
    text = (
        "import hubcore_fbank\nfrom hubcore_fbank import CONFIGS as hubcore_configs\n"
        "from textwrap import dedent as hubcore_dedent\nhubcore_version = 3\n"
        "class hubcore_thing:\n    pass\n"
    )
    assert problems_of(install, text) == []


def test_a_misspelt_hook_with_the_mark_is_found(install: Installer) -> None:
    (problem,) = problems_of(install, "from hubcore import hookimpl\n@hookimpl\ndef hubcore_fecth(uri):\n    return None\n")
    assert "hooked_mod has hubcore_fecth, which is no hook. The hooks are hubcore_commands" in problem
    assert "@hookimpl" not in problem


def test_a_marked_hook_from_elsewhere_is_judged_too(install: Installer) -> None:
    install(
        "shared", files={"shared_mod.py": "from hubcore import hookimpl\n@hookimpl\ndef hubcore_fecth(uri):\n    return 1\n"}
    )
    assert "hubcore_fecth, which is no hook" in problems_of(install, "from shared_mod import hubcore_fecth\n")[0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hubcore_fetch", "hooked_mod has hubcore_fetch without @hookimpl, so it is never called. Put @hookimpl above it."),
        ("hubcore_fecth", "which is no hook"),
    ],
)
def test_a_forgotten_mark_is_found(install: Installer, name: str, said: str) -> None:
    (problem,) = problems_of(install, f"def {name}(uri, cache_dir, offline):\n    return None\n")
    assert said in problem and "@hookimpl" in problem


def test_a_wrapper_is_reported_and_not_called(install: Installer) -> None:
    text = (
        "from hubcore import hookimpl\n@hookimpl(wrapper=True)\n"
        "def hubcore_fetch(uri):\n    yield\n    raise RuntimeError('called')\n"
    )
    (problem,) = problems_of(install, text)
    assert "hubcore_fetch as a wrapper" in problem
    assert hub.fetch(TINY).is_file()


# hubcore_fetch --------------------------------------------------------------------------------------------------------

FETCHING = "from hubcore import hookimpl\n@hookimpl\ndef hubcore_fetch(uri, cache_dir):\n    "


ENDS = (
    "raise SystemExit(3)",
    "raise GeneratorExit",
    "raise __import__('asyncio').CancelledError",
    "raise BaseException('odd')",
)
"""Exceptions that no `except Exception` stops."""


@pytest.mark.parametrize(
    "what", ["raise RuntimeError('no session')", "return 3", "return '/no/such'", "return '/dev/null'", *ENDS]
)
def test_a_fetch_that_breaks_names_its_plugin_and_harms_no_other_scheme(
    install: Installer, caplog: pytest.LogCaptureFixture, tmp_path: Path, what: str
) -> None:
    assert problems_of(install, FETCHING + what + "\n") == []
    with pytest.raises(PluginError, match=r"the plugin hooked:hooked could not fetch 's3://bucket/file': .*Fix") as caught:
        hub.fetch("s3://bucket/file")
    assert caught.value.__cause__ is not None
    with pytest.raises(DownloadError, match=r"^hf://o/r@main/f is not in the cache .* offline mode is on"):
        current_hooks().fetch("hf://o/r/f", tmp_path, True)
    assert "hubcore_fetch failed for 'hf://" in caplog.text, "said, though another one knows the scheme"


@pytest.mark.parametrize("what", ["raise BaseException('asked')", "return '/'"])
def test_a_file_of_the_installation_is_asked_of_no_plugin(install: Installer, what: str) -> None:
    assert problems_of(install, FETCHING + what + "\n") == []
    assert hub.fetch(TINY).is_file()
    assert current_hooks().problems == []


def test_a_fault_of_our_own_is_blamed_on_no_plugin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("hubcore.sources.https.download.download", lambda *_: 1 / 0)
    with pytest.raises(DownloadError, match="cannot be fetched: ZeroDivisionError") as caught:
        current_hooks().fetch("https://example.org/a", tmp_path, False)
    assert "plugin" not in str(caught.value)


def test_a_fetch_that_knows_why_is_taken_at_its_word(install: Installer) -> None:
    problems_of(
        install, FETCHING.replace("import hookimpl", "import errors, hookimpl") + "raise errors.DownloadError('closed')\n"
    )
    with pytest.raises(DownloadError, match=r"^closed$"):
        hub.fetch("s3://bucket/file")
    assert current_hooks().problems == []


def test_a_card_goes_on_to_its_next_source(install: Installer) -> None:
    problems_of(install, FETCHING + "if uri.startswith('s3:'):\n        raise RuntimeError('no session')\n")
    card = Card(name="x", upstream="wav2vec2", license="MIT", sources=(Source("s3://bucket/file"), Source(TINY)))
    assert fetch_card(card).name == "wav2vec2_tiny_prompts.safetensors"


def test_an_answer_of_a_plugin_goes_before_the_built_in_one(install: Installer, tmp_path: Path) -> None:
    problems_of(install, FETCHING + f"return {str(tmp_path)!r} if uri.startswith('hf:') else None\n")
    assert current_hooks().fetch("hf://o/r/f", tmp_path, True) == tmp_path
    assert current_hooks().fetch("s3://bucket/file", tmp_path, True) is None


# The others -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["raise RuntimeError('x')", *ENDS])
def test_an_observer_that_breaks_is_only_reported(install: Installer, what: str) -> None:
    problems_of(install, f"from hubcore import hookimpl\n@hookimpl\ndef hubcore_upstream_loaded(upstream):\n    {what}\n")
    assert type(hub.load("fbank")).__name__ == type(hub.load("mfcc")).__name__ == "FbankUpstream"
    assert len(current_hooks().problems) == 1, "once, however often it fails"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return ['txt']", "hubcore_feature_writers failed: TypeError: it gave ['txt'], not a dictionary"),
        ("raise RuntimeError('x')", "hubcore_feature_writers failed: RuntimeError: x"),
        ("raise SystemExit(1)", "hubcore_feature_writers failed: SystemExit: 1"),
        ("raise GeneratorExit", "hubcore_feature_writers failed: GeneratorExit"),
        ("return {3: str}", "the format 3 cannot be used. It lacks write"),
    ],
)
def test_formats_that_are_none_are_reported(install: Installer, body: str, said: str) -> None:
    assert problems_of(install, f"from hubcore import hookimpl\n@hookimpl\ndef hubcore_feature_writers():\n    {body}\n") == []
    assert current_hooks().feature_writers() == {}
    assert said in current_hooks().problems[0].text


WRITER = (
    "from hubcore import hookimpl\nclass W:\n    def write(self): ...\n    def holds(self): ...\n    def close(self): ...\n"
    "@hookimpl\ndef hubcore_feature_writers():\n    return {'txt': W}\n"
)


def test_a_format_of_two_plugins_belongs_to_neither_until_one_is_named(install: Installer) -> None:
    for name in ("one", "two"):
        install(name, entry_points=f"[hubcore]\n{name} = {name}_mod\n", files={f"{name}_mod.py": WRITER})
    writers = current_hooks().feature_writers()
    assert {name: writer.__module__ for name, writer in writers.items()} == {"one:txt": "one_mod", "two:txt": "two_mod"}
    assert {problem.owner for problem in current_hooks().problems} == {"one", "two"}
    for problem in current_hooks().problems:
        assert "the format 'txt' is claimed by one and two. Use `--format one:txt` or `--format two:txt`" in problem.text
    with pytest.raises(OptionError, match=r"Formats known here are .*, npy, one:txt, .*, two:txt"):
        find_writer("txt")
    assert find_writer("two:txt").__module__ == "two_mod"


def test_a_format_that_one_distribution_brings_twice_is_its_first(install: Installer) -> None:
    install(
        "one", entry_points="[hubcore]\na = a_mod\nb = b_mod\n", files={"a_mod.py": WRITER, "b_mod.py": WRITER}, version="3.2"
    )
    assert current_hooks().feature_writers()["txt"].__module__ == "a_mod"
    (problem,) = current_hooks().problems
    assert (problem.owner, problem.version) == ("one", "3.2")
    assert "the format 'txt' is brought twice by this distribution" in problem.text


# Commands -------------------------------------------------------------------------------------------------------------

OURS = {"segment"}
"""Commands of hubcore's own plugins, which come by the same hook."""
COMMAND = (
    "from hubcore import hookimpl\n@hookimpl\ndef hubcore_commands(cli):\n"
    "    @cli.command('{name}')\n    def run():\n        print('ran {owner}')\n"
)


def command_of(install: Installer, owner: str, name: str) -> None:
    code = COMMAND.format(name=name, owner=owner)
    install(owner, entry_points=f"[hubcore]\n{owner} = {owner}_mod\n", files={f"{owner}_mod.py": code})


def test_a_command_of_two_plugins_belongs_to_neither_until_one_is_named(install: Installer) -> None:
    command_of(install, "one", "tune")
    command_of(install, "two", "tune")
    command_of(install, "three", "play")
    commands = current_hooks().commands()
    assert set(commands) == {*OURS, "one:tune", "play", "two:tune"}
    assert CliRunner().invoke(commands["two:tune"], []).output == "ran two\n"
    assert "Use `hubcore one:tune` or `hubcore two:tune`" in current_hooks().problems[0].text


def test_a_plugin_cannot_take_a_command_of_ours(install: Installer) -> None:
    command_of(install, "one", "list")
    assert set(current_hooks().commands({"list"})) == OURS
    assert "the command 'list' is hubcore's own already" in current_hooks().problems[0].text


HELPLESS = """import click
    class Helpless(click.Command):
        def get_short_help_str(self, limit=45):
            raise SystemExit(3)
    cli.add_command(Helpless('helpless'))"""


@pytest.mark.parametrize("body", ["cli.commands = None", "cli.commands = {}", "cli.commands.clear()", "1 / 0", HELPLESS, *ENDS])
def test_a_plugin_cannot_take_commands_away(install: Installer, body: str) -> None:
    command_of(install, "zzz", "play")
    code = f"from hubcore import hookimpl\n@hookimpl\ndef hubcore_commands(cli):\n    {body}\n"
    install("one", entry_points="[hubcore]\none = one_mod\n", files={"one_mod.py": code})
    assert set(current_hooks().commands()) == {*OURS, "play"}
    assert command("--help").exit_code == 0


@pytest.mark.parametrize("item", ["3] = click.Command('x')", "'x'] = print"])
def test_what_is_no_command_is_reported(install: Installer, item: str) -> None:
    code = f"import click\nfrom hubcore import hookimpl\n@hookimpl\ndef hubcore_commands(cli):\n    cli.commands[{item}\n"
    install("one", entry_points="[hubcore]\none = one_mod\n", files={"one_mod.py": code})
    assert set(current_hooks().commands()) == OURS
    assert "It must be a click command, under a name." in current_hooks().problems[0].text


# Order, and what a module that fails leaves behind --------------------------------------------------------------------


def test_plugins_are_called_by_the_names_of_their_distributions(install: Installer, tmp_path: Path) -> None:
    code = "from hubcore import hookimpl\nfrom pathlib import Path\n@hookimpl{mark}\ndef hubcore_fetch(uri):\n    {do}\n"
    note = "import builtins; builtins.asked.append('{name}')"
    for name, mark in {"zebra": "", "Ape": "", "mouse": "", "last": "(trylast=True)", "queen": "(tryfirst=True)"}.items():
        body = code.format(mark=mark, do=note.format(name=name))
        install(name, entry_points=f"[hubcore]\n{name} = {name}_mod\n", files={f"{name}_mod.py": body})
    with pytest.MonkeyPatch.context() as patch:
        asked: list[str] = []
        patch.setattr(builtins, "asked", asked, raising=False)
        with pytest.raises(DownloadError):
            current_hooks().fetch("hf://o/r/f", tmp_path, True)
    assert asked == ["queen", "Ape", "mouse", "zebra"], "ours answered before the one that wants to be last"


def test_a_module_with_a_wrong_argument_leaves_nothing_behind(install: Installer, tmp_path: Path) -> None:
    text = (
        "from hubcore import hookimpl\n@hookimpl\ndef hubcore_commands(cli):\n    raise RuntimeError('called')\n"
        "@hookimpl\ndef hubcore_fetch(uri, folder):\n    raise RuntimeError('called')\n"
    )
    (problem,) = problems_of(install, text)
    assert "hooked_mod.hubcore_fetch takes folder, which the hook does not have. It may take uri, cache_dir, offline" in problem
    assert problem.endswith("None of the hooks of that module is used. Rename the argument.")
    assert hub.fetch(TINY).is_file()
    assert set(current_hooks().commands()) == OURS
    assert len(current_hooks().problems) == 1
    assert current_hooks().problems[0].place.endswith("hooked_mod.py, line 5")


def test_a_problem_knows_version_place_and_error(install: Installer) -> None:
    install("hooked", entry_points="[hubcore]\nhooked = hooked_mod\n", files={"hooked_mod.py": "1 / 0\n"}, version="4.5")
    (problem,) = current_hooks().problems
    assert (problem.owner, problem.version) == ("hooked", "4.5") and isinstance(problem.error, ZeroDivisionError)
    install(
        "other", entry_points="[hubcore]\nother = other_mod\n", files={"other_mod.py": "\n\ndef hubcore_fetch(uri):\n    ...\n"}
    )
    found = next(problem for problem in current_hooks().problems if problem.owner == "other")
    assert found.place.endswith("other_mod.py, line 3")


WANDERING = "import os\nos.chdir({folder!r})\nos.environ['HUBCORE_OFFLINE'] = '1'\nos.environ.pop('HUBCORE_CACHE', None)\n"


def test_a_plugin_moves_neither_the_working_folder_nor_our_variables(
    install: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here = Path.cwd()
    monkeypatch.setenv("HUBCORE_CACHE", str(tmp_path / "cache"))
    move = WANDERING.format(folder=str(tmp_path))
    hook = "from hubcore import hookimpl\n@hookimpl\ndef hubcore_upstream_loaded(upstream):\n    "
    install(
        "roaming",
        entry_points="[hubcore]\nroaming = roaming_hook\n[hubcore.upstreams]\nroaming = roaming_mod:X\n",
        files={
            "roaming_hook.py": move + hook + move.replace("\n", "\n    ").rstrip() + "\n",
            "roaming_mod.py": f"{move}from hubcore_fbank import FbankUpstream\nclass X(FbankUpstream):\n    pass\n",
        },
    )
    for use in (current_hooks, lambda: hub.load("fbank"), lambda: hub.load("roaming")):
        use()
        assert Path.cwd() == here
        assert os.environ["HUBCORE_CACHE"] == str(tmp_path / "cache") and "HUBCORE_OFFLINE" not in os.environ
    assert f"a plugin changed the working folder; it was changed back to {here}" in caplog.text
    assert "a plugin changed the variable HUBCORE_OFFLINE" in caplog.text


@pytest.mark.parametrize("what", ENDS)
def test_an_upstream_that_ends_the_program_is_a_plugin_error(install: Installer, what: str) -> None:
    code = f"from hubcore_fbank import FbankUpstream\nclass X(FbankUpstream):\n    def __init__(self, *_):\n        {what}\n"
    install("acme", entry_points="[hubcore.upstreams]\nacme = acme_mod:X\n", files={"acme_mod.py": code})
    with pytest.raises(PluginError, match="it ended with"):
        hub.load("acme")
    assert "it ended with" in command("verify", "acme").output


def test_an_entry_point_with_extras_or_an_attribute_names_the_module(install: Installer) -> None:
    text = "from hubcore import hookimpl\n@hookimpl\ndef hubcore_fetch(uri):\n    return None\n"
    points = "[hubcore]\na = hooked_mod [gpu]\nb = other_mod:anything\n"
    install("hooked", entry_points=points, files={"hooked_mod.py": text, "other_mod.py": text})
    assert current_hooks().problems == []
    assert {"hooked:a", "hooked:b"} <= {name for name, _ in current_hooks().manager.list_name_plugin()}
