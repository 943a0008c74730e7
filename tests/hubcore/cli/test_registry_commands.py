"""`hubcore registry add`, `remove` and `check`: cards without a line of YAML, checked before they are written."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from hubcore import hub
from hubcore.registry.names import config_folder
from hubcore.registry.reading import read_registry
from tests.conftest import Installer
from tests.running import command

pytestmark = pytest.mark.slow

call = command


def added(*arguments: object) -> Result:
    result = call("registry", "add", *arguments)
    assert result.exit_code == 0, result.output
    return result


def refused(*arguments: object) -> str:
    def written() -> list[tuple[str, bytes]]:
        return [(path.name, path.read_bytes()) for path in sorted(config_folder().glob("*"))]

    before = written()
    result = call("registry", "add", *arguments)
    assert result.exit_code == 2, result.output
    assert written() == before
    return result.stderr


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights" / "ours.safetensors"
    path.parent.mkdir()
    hub.load("wav2vec2_tiny_prompts").save_checkpoint(path)
    return path


def card_of(name: str, folder: Path | None = None) -> Any:
    (card,), errors = read_registry((folder or config_folder()) / f"{name}.yaml")
    assert errors == []
    return card


# add ------------------------------------------------------------------------------------------------------------------


def test_a_card_is_added_and_can_be_used_at_once(weights: Path) -> None:
    arguments = ("--config", "tiny", "--license", "MIT", "--alias", "o1", "--alias", "o2", "--option", "layers=[4, 2]")
    texts = ("--note", "for: telephone # speech", "--training-data", "40 h", "--paper", "https://example.org/p")
    data = ("--language", "en", "--language", "no", "--hours", "40.5")
    result = added("ours", "--upstream", "wav2vec2", "--source", weights, *arguments, *texts, *data)
    assert f"ours is in {config_folder() / 'ours.yaml'}\n" in result.output
    assert 'next: `hubcore info ours`, or hub.load("ours") in Python' in result.output
    card = card_of("ours")
    assert (card.config, card.license, card.aliases, card.options) == ("tiny", "MIT", ("o1", "o2"), {"layers": [4, 2]})
    assert (card.note, card.training_data, card.paper) == ("for: telephone # speech", "40 h", "https://example.org/p")
    assert (card.languages, card.hours) == (("en", "no"), 40.5)
    assert card.sources[0].sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert card.sources[0].size == weights.stat().st_size
    model: Any = hub.load("o2")
    assert model.card.name == "ours" and model.default_layers == (4, 2)
    assert call("info", "ours").exit_code == 0


def test_a_language_that_is_no_code_is_refused() -> None:
    assert "'English'. It must be a code of two or three lower-case letters" in refused(
        "mine", "-u", "fbank", "--license", "none needed", "--language", "English"
    )


def test_without_a_licence_it_is_unknown_and_that_is_said(weights: Path) -> None:
    result = added("ours", "-u", "wav2vec2", "--source", weights)
    assert card_of("ours").license == "unknown" and "license: unknown, because none was given" in result.output
    again = added("ours", "-u", "wav2vec2", "--source", weights, "--license", "MIT", "--replace")
    assert card_of("ours").license == "MIT" and "unknown" not in again.output


def test_a_file_below_the_folder_is_named_relative_to_it(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(weights.parent)
    result = added("ours", "-u", "wav2vec2", "--source", weights.name, "--folder", tmp_path)
    assert card_of("ours", tmp_path).sources[0].uri == "weights/ours.safetensors"
    assert f"export HUBCORE_REGISTRY={tmp_path}\n" in result.output
    monkeypatch.setenv("HUBCORE_REGISTRY", str(tmp_path))
    assert type(hub.load("ours")).__name__ == "Wav2Vec2Upstream"
    assert "export" not in added("ours2", "-u", "wav2vec2", "--source", weights, "--folder", tmp_path).output
    added("ours3", "-u", "wav2vec2", "--source", weights.name)
    assert card_of("ours3").sources[0].uri == str(weights)


def test_a_whole_folder_of_a_model_has_no_digest(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    added("folder", "-u", "wav2vec2", "--source", tmp_path / "model")
    assert card_of("folder").sources[0].sha256 is None


def test_digests_and_sizes_belong_to_sources_in_their_order(weights: Path) -> None:
    sources = ("--source", "https://example.org/a.pt", "--source", "hf://org/repo@v1/b.pt")
    facts = ("--sha256", "A" * 64, "--sha256", "1" * 64, "--size", 10, "--size", 20)
    added("far", "-u", "wav2vec2", *sources, *facts)
    found = [(source.uri, source.sha256, source.size) for source in card_of("far").sources]
    assert found == [("https://example.org/a.pt", "a" * 64, 10), ("hf://org/repo@v1/b.pt", "1" * 64, 20)]
    assert "2 --source and 1 --sha256" in refused("x", "-u", "wav2vec2", *sources, "--sha256", "a" * 64)
    assert "--sha256 is 'abc'" in refused("x", "-u", "wav2vec2", "--source", "https://example.org/a.pt", "--sha256", "abc")
    assert "has SHA-256" in refused("x", "-u", "wav2vec2", "--source", weights, "--sha256", "a" * 64)
    assert "bytes" in refused("x", "-u", "wav2vec2", "--source", weights, "--size", 3)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("Big", "-u", "fbank"), "'Big' is not a valid name"),
        (("x", "-u", "fbank", "--alias", "a/b"), "'a/b' is not a valid name"),
        (("x", "-u", "fbnk"), "of the family 'fbnk', which no installed distribution provides. The nearest are fbank"),
        (("x", "-u", "wav2vec"), "The nearest are wav2vec2"),
        (("x", "-u", "fbank", "--config", "mfc"), "'fbank' has no config called 'mfc'. The nearest are mfcc"),
        (("x", "-u", "fbank", "--config", "fbank", "--option", "num_mel_bin=3"), "The nearest are num_mel_bins"),
        (("x", "-u", "fbank", "--config", "fbank", "--option", "num_mel_bins=0"), "must be a whole number from 1"),
        (("x", "-u", "fbank", "--config", "fbank", "--option", "layers=[3]"), "has 1 hidden state, "),
        (("x", "-u", "fbank", "--option", "num_mel_bins"), "is not of the form name=value"),
        (("x", "-u", "fbank", "--option", "delta_order=1", "--option", "delta_order=2"), "is given 2 times"),
        (("x", "-u", "fbank", "--config", "fbank", "--option", "window=[a"), "window must be one of povey"),
        (("x", "-u", "ofa_wav2vec2", "--source", "hf://o/r/f", "--config", "base", "-O", "lamdb=1"), "nearest are lambd"),
        (
            ("x", "-u", "ofa_wav2vec2", "--source", "hf://o/r/f", "--config", "base", "--option", "tail=x"),
            "tail must be one of drop, keep",
        ),
        (("x", "-u", "wav2vec2"), "'x' names no source"),
        (("x", "-u", "wav2vec2", "--source", "nowhere.pt"), "nowhere.pt does not exist"),
        (("x", "-u", "wav2vec2", "--source", "hf://org"), "is not of the form hf://org/repo"),
        (("x", "-u", "wav2vec2", "--source", "https://me:pw@h/x"), "Correct it|credentials|password"),
        (("x", "-u", "wav2vec2", "--source", "http://h/x"), "http://h/x is not encrypted"),
        (("x", "-u", "wav2vec2", "--source", "package://hubcore/nothing"), "there is no package://hubcore/nothing"),
        (("x", "-u", "fbank", "--license", ""), None),
        (("x", "-u", "fbank", "-O", "num_mel_bins=0"), "must be a whole number from 1"),
        (("x", "-u", "fbank", "--source", "hf://o/r/f"), "the family 'fbank' computes its features without weights"),
        (("x", "-u", "wav2vec2", "--source", ""), "a --source is empty"),
        (("x", "-u", "fbank", "--note", ""), "'note' of 'x' is empty"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_used_is_refused_and_nothing_is_written(arguments: tuple[str, ...], what: str | None) -> None:
    if what is None:  # no licence is no statement, however it is left out
        added(*arguments)
        assert card_of("x").license == "unknown"
        return
    message = refused(*arguments)
    assert re.search(re.escape(what) if "|" not in what else what, message), message
    assert message.startswith("hubcore: error: ") and "Traceback" not in message


def test_a_name_that_is_there_needs_replace() -> None:
    added("mine", "-u", "fbank", "--config", "fbank", "--license", "none needed")
    assert "mine.yaml: this card exists already. Use --replace" in refused("mine", "-u", "fbank")
    added("mine", "-u", "fbank", "--config", "mfcc", "--replace")
    assert card_of("mine").config == "mfcc" and card_of("mine").license == "unknown"


def test_a_name_of_hubcore_a_plugin_or_another_file_is_refused(
    install: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("acme", entry_points="[hubcore.upstreams]\nacme_one = acme_mod:X\n", files={"acme_mod.py": "class X: pass\n"})
    for name, owner in (("fbank", "hubcore"), ("wav2vec2", "hubcore"), ("acme_one", "acme")):
        message = refused(name, "-u", "fbank")
        assert f"{name!r} is a name of {owner} already" in message and f"'user:{name}' or '{owner}:{name}'" in message
    assert "'mfcc' is a name of hubcore" in refused("mine", "-u", "fbank", "--alias", "mfcc")
    added("theirs", "-u", "fbank", "--folder", tmp_path)
    monkeypatch.setenv("HUBCORE_REGISTRY", str(tmp_path))
    assert "both files are yours" in refused("theirs", "-u", "fbank")


def test_a_family_whose_package_is_missing_or_broken(install: Installer) -> None:
    install(
        "broken", entry_points="[hubcore.upstreams]\nbroken = broken_mod:X\n", files={"broken_mod.py": "import nothing_here"}
    )
    assert "cannot be imported" in refused("x", "-u", "broken")


def test_two_at_once_lose_nothing(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom hubcore.card import Card\n"
        "from hubcore.cards.editing import add_card\n"
        "for k in range(15):\n"
        "    add_card(Path(sys.argv[1]), Card(name=f'{sys.argv[2]}{k}', upstream='fbank', license='x'))\n"
    )
    workers = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), letter]) for letter in "ab"]
    assert [worker.wait(120) for worker in workers] == [0, 0]
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(f"{letter}{k}" for letter in "ab" for k in range(15))


# remove ---------------------------------------------------------------------------------------------------------------


def test_remove_deletes_the_file_of_a_card(tmp_path: Path) -> None:
    for folder, more in ((config_folder(), ()), (tmp_path, ("--folder", tmp_path))):
        added("mine", "-u", "fbank", *more)
        assert ("mine" in hub.list()) == (not more)
        result = call("registry", "remove", "mine", *more)
        assert result.exit_code == 0 and result.output == f"mine was removed; {folder / 'mine.yaml'} is deleted\n"
        assert "mine" not in hub.list() and not list(folder.iterdir())
    result = call("registry", "remove", "mine")
    assert result.exit_code == 2 and "none of your registry files has 'mine'" in result.stderr


# check ----------------------------------------------------------------------------------------------------------------

CHECKED = """\
version: 1
upstreams:
  good:
    upstream: fbank
    config: fbank
    license: none needed
  no_licence:
    upstream: fbank
  typo:
    upstream: fbank
    config: fbank
    options:
      num_mel_bin: 40
    license: x
  gone:
    upstream: wav2vec2
    sources: [{uri: nowhere.pt}]
    license: x
  fbank: {upstream: fbank, license: x}
  far: {upstream: faraway, license: x}
  odd_config:
    upstream: fbank
    config: fbnk
    license: x
"""


def test_check_finds_everything_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "cards.yaml"
    path.write_text(CHECKED)
    result = call("registry", "check", path)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    expected = [
        (8, "'no_licence' has no 'license'"),
        (12, "FbankUpstream has no option called 'num_mel_bin'"),
        (17, "nowhere.pt does not exist"),
        (19, "'fbank' is a name of hubcore already"),
        (20, "'far' is of the family 'faraway'"),
        (23, "'fbank' has no config called 'fbnk'. The nearest are fbank"),
    ]
    assert len(lines) == len(expected) + 1
    for line, (number, what) in zip(lines, expected, strict=False):
        assert line.startswith(f"{path}:{number}: ") and what in line, line
    assert lines[-1] == f"{path}: 6 cards, 6 findings"
    data = json.loads(call("registry", "check", path, "--json").stdout)
    assert [finding["line"] for finding in data["findings"]] == [number for number, _ in expected]
    assert data["files"] == [{"file": str(path), "cards": 6}]


@pytest.mark.parametrize(
    ("text", "line"),
    [("a: [1, 2", 1), ("version: 1\nupstreams:\n  x: {a: &b 1}\n", 3), ("version: 2\nupstreams: {}\n", 1), ("", 1)],
)
def test_check_of_what_is_no_registry(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "cards.yaml"
    path.write_text(text)
    result = call("registry", "check", path)
    assert result.exit_code == 1 and re.match(rf"{re.escape(str(path))}:\d+: (?!.*{re.escape(str(path))})", result.stdout)
    assert json.loads(call("registry", "check", path, "--json").stdout)["findings"][0]["line"] >= line


def test_check_looks_at_the_users_own_files() -> None:
    assert "there is no registry file of your own" in call("registry", "check").stdout
    added("mine", "-u", "fbank", "--license", "none needed")
    result = call("registry", "check")
    assert result.exit_code == 0 and result.stdout == f"{config_folder() / 'mine.yaml'}: 1 card, 0 findings\n"


def test_hubcores_own_registry_has_no_findings() -> None:
    from hubcore.registry.names import own_registry_file

    result = call("registry", "check", own_registry_file())
    assert result.exit_code == 0 and result.stdout.endswith(" cards, 0 findings\n") and result.stdout.count("\n") == 1


def test_a_file_that_was_changed_since_is_found(weights: Path) -> None:
    added("ours", "-u", "wav2vec2", "--source", weights)
    assert call("registry", "check").exit_code == 0
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    os.utime(weights, ns=(1, 1))
    result = call("registry", "check")
    assert result.exit_code == 1 and "has SHA-256" in result.stdout


@pytest.mark.parametrize("name", ["add", "remove", "check", "schema", "pin"])
def test_each_has_help_with_an_example(name: str) -> None:
    text = call("registry", name, "--help").output
    assert f"Example:\n    hubcore registry {name}" in text.replace("\n  Example:", "\nExample:")
