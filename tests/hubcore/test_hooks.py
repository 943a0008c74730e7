"""What plugins do wrong with hooks, and that it harms nothing else."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from hubcore import hub
from hubcore.card import Card, Source
from hubcore.checkpoints.sources import fetch_card
from hubcore.errors import DownloadError, PluginError
from hubcore.hooks import Hooks, current_hooks
from tests.conftest import Installer

TINY = "package://hubcore_wav2vec2/bundled/wav2vec2_tiny_untrained.safetensors"


def problems_of(install: Installer, text: str) -> list[str]:
    install("hooked", entry_points="[hubcore]\nhooked = hooked_mod\n", files={"hooked_mod.py": text})
    return [problem.what for problem in current_hooks().problems]


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


@pytest.mark.parametrize("what", ["raise RuntimeError('no session')", "raise SystemExit(3)", "return 3"])
def test_a_fetch_that_breaks_names_its_plugin_and_harms_no_other_scheme(
    install: Installer, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    assert problems_of(install, FETCHING + what + "\n") == []
    with pytest.raises(
        PluginError, match=r"the plugin hooked:hooked could not fetch 's3://bucket/file': \w+: .*Mend"
    ) as caught:
        hub.fetch("s3://bucket/file")
    assert caught.value.__cause__ is not None
    with caplog.at_level(logging.WARNING, "hubcore.hooks"):
        assert hub.fetch(TINY).is_file()
    assert "hubcore_fetch failed for 'package://" in caplog.text, "said, though another one has it"


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
    assert fetch_card(card).name == "wav2vec2_tiny_untrained.safetensors"


def test_an_answer_of_a_plugin_goes_before_the_built_in_one(install: Installer, tmp_path: Path) -> None:
    problems_of(install, FETCHING + f"return {str(tmp_path)!r} if uri.startswith('package:') else None\n")
    assert current_hooks().fetch(TINY, tmp_path, True) == tmp_path
    assert current_hooks().fetch("s3://bucket/file", tmp_path, True) is None


# The others -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["raise RuntimeError('x')", "raise SystemExit(3)"])
def test_an_observer_that_breaks_is_only_reported(install: Installer, what: str) -> None:
    problems_of(install, f"from hubcore import hookimpl\n@hookimpl\ndef hubcore_upstream_loaded(upstream):\n    {what}\n")
    assert type(hub.load("fbank")).__name__ == type(hub.load("mfcc")).__name__ == "FbankUpstream"
    assert len(current_hooks().problems) == 1, "once, however often it fails"


def test_commands_are_added_once_for_each_command_line() -> None:
    hooks, seen = Hooks(), []

    class Plugin:
        def hubcore_commands(self, cli: Any) -> None:
            seen.append(cli)

    from hubcore.hooks import hookimpl

    Plugin.hubcore_commands = hookimpl(Plugin.hubcore_commands)  # type: ignore[method-assign]
    hooks.manager.register(Plugin(), name="one")
    for cli in ("a", "a", "b"):
        hooks.add_commands(cli)
    assert seen == ["a", "b"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return ['txt']", "hubcore_feature_writers gave ['txt'], not a dictionary."),
        ("raise RuntimeError('x')", "hubcore_feature_writers failed: RuntimeError: x"),
        ("raise SystemExit(1)", "hubcore_feature_writers failed: SystemExit: 1"),
        ("return {3: str}", "the format 3 cannot be used. It lacks write"),
    ],
)
def test_formats_that_are_none_are_reported(install: Installer, body: str, said: str) -> None:
    assert problems_of(install, f"from hubcore import hookimpl\n@hookimpl\ndef hubcore_feature_writers():\n    {body}\n") == []
    assert current_hooks().feature_writers() == {}
    assert said in current_hooks().problems[0].what


def test_a_format_of_two_plugins_is_reported(install: Installer) -> None:
    body = (
        "from hubcore import hookimpl\nclass W:\n    def write(self): ...\n    def holds(self): ...\n    def close(self): ...\n"
        "@hookimpl\ndef hubcore_feature_writers():\n    return {'txt': W}\n"
    )
    for name in ("one", "two"):
        install(name, entry_points=f"[hubcore]\n{name} = {name}_mod\n", files={f"{name}_mod.py": body})
    assert list(current_hooks().feature_writers()) == ["txt"]
    (problem,) = current_hooks().problems
    assert "'txt' is another's already" in problem.what
