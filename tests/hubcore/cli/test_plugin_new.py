"""`hubcore plugin new`: what it writes, whole or not at all; which names it takes, and what it says of the others."""

from __future__ import annotations

import importlib
import subprocess
import sys
from functools import partial
from pathlib import Path
from string import Template

import pytest
import yaml

from hubcore import hub
from hubcore.cards.checking import check_card
from hubcore.errors import OptionError
from hubcore.registry.names import current_registry
from hubcore.registry.reading import read_registry
from hubcore.scaffold import new
from hubcore.scaffold.new import new_plugin
from tests.conftest import Installer
from tests.running import command

pytestmark = pytest.mark.slow

SHORTEST, LONGEST = "a", "a_name_24_characters_xyz"


call = partial(command, "plugin", "new")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def ruff_has_nothing_to_say(folder: Path) -> None:
    for arguments in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--no-cache", "."]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


# What is written ------------------------------------------------------------------------------------------------------


def test_the_package_is_complete_and_the_next_commands_are_printed(tmp_path: Path) -> None:
    result = call("two_words", "--dir", tmp_path)
    assert result.exit_code == 0, result.output
    made = tmp_path / "hubcore-two-words"
    assert [path.name for path in tmp_path.iterdir()] == ["hubcore-two-words"]
    files = contents(made)
    modules = ("__init__", "checkpoint", "components", "config", "model", "upstream", "bundled/make_untrained")
    assert set(files) == {
        ".github/workflows/test.yml",
        ".gitignore",
        "README.md",
        "pyproject.toml",
        "tests/test_two_words.py",
        "hubcore_two_words/py.typed",
        "hubcore_two_words/registry.yaml",
        "hubcore_two_words/bundled/untrained.safetensors",
        *(f"hubcore_two_words/{module}.py" for module in modules),
    }
    assert f"{len(files)} files written to {made}" in result.output
    for line in (f"cd {made}", "pip install -e '.[test]'", "pytest", "hubcore info two_words"):
        assert f"\n  {line}\n" in result.output
    assert b"class TwoWordsUpstream(EncoderUpstream):" in files["hubcore_two_words/upstream.py"]
    (card,), broken = read_registry(made / "hubcore_two_words/registry.yaml")
    assert not broken and card.name == "two_words_untrained" and card.aliases == ("two_words",)
    assert yaml.safe_load(files[".github/workflows/test.yml"])["jobs"]["test"]["steps"]


def test_no_placeholder_is_left(tmp_path: Path) -> None:
    for path, data in contents(new_plugin("acoustic", tmp_path)).items():
        assert "__package__" not in path and "__name__" not in path
        if not path.endswith(".safetensors"):
            assert "$" not in data.decode().replace("${{ matrix.python }}", ""), path


def test_every_template_uses_known_words_only() -> None:
    words = {*new._words("a", "b", "c")}
    for path in (Path(new.__file__).parent / "files").rglob("*.in"):
        assert {name for _, a, b, _ in Template.pattern.findall(path.read_text()) for name in (a, b) if name} <= words, path


@pytest.mark.parametrize("name", [SHORTEST, LONGEST])
def test_ruff_has_nothing_to_say_whatever_the_name(name: str, tmp_path: Path) -> None:
    ruff_has_nothing_to_say(new_plugin(name, tmp_path))


def test_it_loads_and_its_weights_are_what_its_script_makes(
    install: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file
    from torch.testing import assert_close

    made = new_plugin("acoustic", tmp_path)
    points = (
        "[hubcore.upstreams]\nacoustic = hubcore_acoustic.upstream:AcousticUpstream\n"
        "[hubcore.registries]\nacoustic = hubcore_acoustic:registry.yaml\n"
    )
    monkeypatch.syspath_prepend(str(made))
    install("hubcore-acoustic", entry_points=points)
    upstream = hub.load("acoustic")
    assert type(upstream).__name__ == "AcousticUpstream" and upstream.card and upstream.card.license == "unknown"

    bundled = made / "hubcore_acoustic/bundled/untrained.safetensors"
    monkeypatch.syspath_prepend(str(bundled.parent))
    importlib.import_module("make_untrained").make(tmp_path / "again.safetensors")
    with safe_open(bundled, "pt") as ours, safe_open(tmp_path / "again.safetensors", "pt") as again:
        assert ours.metadata() == again.metadata()
    # Another release of torch may round its initial values in another way.
    assert_close(load_file(bundled), load_file(tmp_path / "again.safetensors"), rtol=0, atol=1e-6)


def test_a_checkpoint_of_another_shape_is_refused(install: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hubcore.errors import CheckpointLayoutError, MissingWeightsError

    made = new_plugin("acoustic", tmp_path)
    monkeypatch.syspath_prepend(str(made))
    install("hubcore-acoustic", entry_points="[hubcore.upstreams]\nacoustic = hubcore_acoustic.upstream:AcousticUpstream\n")
    package = importlib.import_module("hubcore_acoustic")
    bundled = made / "hubcore_acoustic/bundled/untrained.safetensors"
    with pytest.raises(CheckpointLayoutError, match="Leave config= out"):
        package.AcousticUpstream.from_checkpoint(bundled, config="base")
    with pytest.raises(OptionError, match="kernel must be odd"):
        package.AcousticUpstream.from_config("tiny", kernel=4)
    from safetensors.torch import load_file, save_file

    tensors = load_file(bundled)
    save_file({name: value for name, value in tensors.items() if "out.bias" not in name}, tmp_path / "cut.safetensors")
    with pytest.raises(CheckpointLayoutError, match="pass config="):
        package.AcousticUpstream.from_checkpoint(tmp_path / "cut.safetensors")
    with pytest.raises(MissingWeightsError, match=r"lacks the weight blocks\.0\.out\.bias"):
        package.AcousticUpstream.from_checkpoint(tmp_path / "cut.safetensors", config="tiny")


# Several families -----------------------------------------------------------------------------------------------------


def test_several_families_in_one_distribution(install: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = call("--package", "acme_ssl", "--family", "vowels", "--family", "nasals", "--dir", tmp_path)
    assert result.exit_code == 0 and "hubcore info vowels" in result.output, result.output
    made = tmp_path / "acme-ssl"
    ruff_has_nothing_to_say(made)
    points = (
        '[project.entry-points."hubcore.upstreams"]\n'
        'vowels = "acme_ssl.vowels.upstream:VowelsUpstream"\nnasals = "acme_ssl.nasals.upstream:NasalsUpstream"\n\n',
        '[project.entry-points."hubcore.registries"]\n'
        'vowels = "acme_ssl.vowels:registry.yaml"\nnasals = "acme_ssl.nasals:registry.yaml"\n\n',
    )
    assert all(text in (made / "pyproject.toml").read_text() for text in points)
    monkeypatch.syspath_prepend(str(made))
    cards = made / "acme_ssl/nasals/registry.yaml"
    cards.write_text(cards.read_text() + "  typo: {upstream: nasals, config: bse, license: unknown}\n")
    install("acme-ssl", entry_points="".join(points).replace('project.entry-points."', "").replace('"', ""))
    assert {type(hub.load(name)).__module__ for name in ("vowels", "nasals")} == {
        "acme_ssl.vowels.upstream",
        "acme_ssl.nasals.upstream",
    }
    (finding,) = check_card(current_registry().find("typo").card, current_registry())  # type: ignore[arg-type]
    assert "'nasals' has no config called 'bse'" in finding.what


def test_a_package_and_its_families_go_together(tmp_path: Path) -> None:
    for wrong in ([], ["one", "--package", "acme"], ["--package", "acme"], ["one", "--family", "two"]):
        result = call(*wrong, "--dir", tmp_path)
        assert result.exit_code == 2 and "Give NAME, or --package with at least one --family." in result.stderr
    assert "the package 'Acme' cannot be one" in call("--package", "Acme", "--family", "vowels", "--dir", tmp_path).stderr
    assert "is taken by the package json" in call("--package", "json", "--family", "vowels", "--dir", tmp_path).stderr
    assert not [*tmp_path.iterdir()]


# Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("MyModel", "Try 'mymodel'."),
        ("my-model", "Try 'my_model'."),
        ("my__model", "Try 'my_model'."),
        ("_model", "Try 'model'."),
        ("model_", "Try 'model'."),
        ("2fast", "Try 'fast'."),
        ("a b", "Try 'a_b'."),
        ("modèle", "Try 'mod_le'."),
        ("../up", "Try 'up'."),
        ("", "Try 'my_model'."),
        ("x" * 25, "Try 'my_model'."),
    ],
)
def test_a_name_that_cannot_be_one(name: str, hint: str, tmp_path: Path) -> None:
    result = call(name, "--dir", tmp_path)
    assert result.exit_code == 2
    assert f"the name {name!r} cannot be one." in result.stderr and result.stderr.endswith(f"{hint}\n")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("fbank", "hubcore ("),
        ("wav2vec2", "hubcore ("),
        ("class", "Python, as a keyword"),
        ("no", "YAML, in which it is not a text"),
        ("null", "YAML, in which it is not a text"),
        ("load", "hubcore itself, as hub.load"),
        ("user", "hubcore itself, as the owner of names"),
    ],
)
def test_a_name_that_is_taken_names_its_owner(name: str, owner: str, tmp_path: Path) -> None:
    result = call(name, "--dir", tmp_path)
    assert result.exit_code == 2
    assert f"the name {name!r} is taken by {owner}" in result.stderr
    assert "Choose another name." in result.stderr
    assert not [*tmp_path.iterdir()]


def test_names_of_installed_plugins_are_taken(install: Installer, tmp_path: Path) -> None:
    install("acme", entry_points="[hubcore.upstreams]\nvowels = acme:Vowels\n", files={"acme.py": ""})
    with pytest.raises(OptionError, match="'vowels' is taken by acme"):
        new_plugin("vowels", tmp_path)
    install("acme-two", entry_points="[hubcore.upstreams]\nvowels = acme_two:Vowels\n", files={"acme_two.py": ""})
    with pytest.raises(OptionError, match="'vowels' is taken by acme and acme-two"):
        new_plugin("vowels", tmp_path)
    install("something", files={"hubcore_nasal/__init__.py": ""})
    with pytest.raises(OptionError, match="'nasal' is taken by the package hubcore_nasal, which is installed here"):
        new_plugin("nasal", tmp_path)


# Never half, never over anything --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_what_is_there_is_left_alone(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "hubcore-acoustic"
    if kind == "folder":
        target.mkdir()
        (target / "mine.txt").write_text("mine")
    elif kind == "file":
        target.write_text("mine")
    else:
        target.symlink_to(tmp_path / "nowhere")
    before = contents(tmp_path)
    result = call("acoustic", "--dir", tmp_path)
    assert result.exit_code == 2 and f"{target} exists already. Nothing in it was changed." in result.stderr
    assert contents(tmp_path) == before and [path.name for path in tmp_path.iterdir()] == ["hubcore-acoustic"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    result = call("acoustic", "--dir", tmp_path / "nowhere")
    assert result.exit_code == 2 and "is not a folder" in result.stderr
    assert not (tmp_path / "nowhere").exists()
    assert "~nobody_has_this_name is not a folder" in call("acoustic", "--dir", "~nobody_has_this_name").stderr


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["disk", "interrupt"])
def test_nothing_is_left_of_one_that_was_cut_short(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, count = Path.write_text, 0

    def failing(self: Path, *arguments: object, **options: object) -> int:
        nonlocal count
        count += 1
        if count == 7:
            raise error
        return write(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "write_text", failing)
    result = call("acoustic", "--dir", tmp_path)
    assert result.exit_code == (2 if isinstance(error, OSError) else 130)
    assert not isinstance(error, OSError) or "No space left on device" in result.stderr
    assert not [*tmp_path.iterdir()]


def test_a_folder_that_appears_meanwhile_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "hubcore-acoustic"
    rename = Path.rename

    def late(self: Path, to: Path) -> Path:
        target.mkdir()
        (target / "theirs").write_text("theirs")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", late)
    with pytest.raises(OptionError, match="could not be made"):
        new_plugin("acoustic", tmp_path)
    assert contents(tmp_path) == {"hubcore-acoustic/theirs": b"theirs"}
