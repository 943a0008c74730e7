"""Discovery: what third parties add, what broken ones cannot break, and what files may say."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from hubcore import hub
from hubcore.errors import (
    DuplicateUpstreamError,
    OptionError,
    PluginError,
    RegistryError,
    UnavailableUpstreamError,
    UnknownUpstreamError,
)
from hubcore.registry.names import build_registry, current_registry, own_registry_file, user_files
from hubcore.registry.reading import read_registry
from hubcore.strict_yaml import parse_yaml
from tests.conftest import CardWriter, Installer
from tests.hubcore.compat.s3prl_names import NAMES
from tests.running import command

TINY = "wav2vec2_tiny_prompts"

UPSTREAM = """
from hubcore_fbank import FbankUpstream
class AcmeUpstream(FbankUpstream):
    pass
"""
CARD = "version: 1\nupstreams:\n  acme_small: {upstream: acme, config: fbank, license: MIT, aliases: [acme_s]}\n"


def acme(install: Installer, name: str = "acme-speech", package: str = "acme_speech") -> None:
    install(
        name,
        entry_points=f"[hubcore.upstreams]\nacme = {package}.upstream:AcmeUpstream\n"
        f"[hubcore.registries]\nacme = {package}:registry.yaml\n",
        files={f"{package}/__init__.py": "", f"{package}/upstream.py": UPSTREAM, f"{package}/registry.yaml": CARD},
    )


def test_a_third_party_is_found_by_family_name_and_card(install: Installer) -> None:
    acme(install)
    assert {"acme", "acme_small", "acme_s"} < set(hub.list())
    for name in ("acme", "acme_small", "acme_s", "acme-speech:acme_small"):
        assert type(hub.load(name)).__name__ == "AcmeUpstream"
    info = hub.info("acme_s")
    assert info.distribution == "acme-speech"
    assert info.file is not None
    assert Path(info.file).read_text().splitlines()[info.line - 1] == "class AcmeUpstream(FbankUpstream):"


def test_two_owners_of_one_name_are_an_error_only_when_it_is_used(install: Installer) -> None:
    acme(install)
    acme(install, "rival", "rival_speech")
    assert {"acme", "acme-speech:acme", "rival:acme", "fbank"} <= set(hub.list())
    with pytest.raises(DuplicateUpstreamError, match=r"acme-speech and by rival.*'acme-speech:acme' or 'rival:acme'"):
        hub.load("acme")
    assert type(hub.load("rival:acme")).__module__ == "rival_speech.upstream"
    assert type(hub.load("acme-speech:acme_small")).__module__ == "acme_speech.upstream"
    assert type(hub.load("fbank")).__name__ == "FbankUpstream"


def test_a_name_in_two_files_of_the_user_names_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / "a.yaml", tmp_path / "b.yaml"]
    for path in paths:
        path.write_text("version: 1\nupstreams:\n  mine: {upstream: fbank, license: none needed}\n")
    monkeypatch.setenv("HUBCORE_REGISTRY", ":".join(map(str, paths)))
    with pytest.raises(DuplicateUpstreamError, match=r"a\.yaml, line 3; .*b\.yaml, line 3"):
        hub.load("mine")
    assert hasattr(hub, "mine")


def test_a_file_that_is_named_twice_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "hubcore" / "a.yaml"
    path.parent.mkdir()
    path.write_text("version: 1\nupstreams:\n  mine: {upstream: fbank, license: none needed}\n")
    (tmp_path / "link.yaml").symlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))  # whose files are read too
    monkeypatch.setenv("HUBCORE_REGISTRY", f"{path}:hubcore/a.yaml::{tmp_path}/link.yaml")
    assert user_files() == [path]
    assert type(hub.load("mine")).__name__ == "FbankUpstream"


def test_a_relative_path_means_the_folder_where_it_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.load(TINY).save_checkpoint(tmp_path / "w.safetensors")
    (tmp_path / "a.yaml").write_text(
        "version: 1\nupstreams:\n  mine: {upstream: wav2vec2, license: x, sources: [{uri: w.safetensors}]}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HUBCORE_REGISTRY", "a.yaml")
    assert "mine" in hub.list()
    monkeypatch.chdir("/")
    assert type(hub.load("mine")).__name__ == "Wav2Vec2Upstream"


def test_a_home_folder_that_nobody_has_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBCORE_REGISTRY", "~nobody_has_this_name/a.yaml")
    assert "fbank" in hub.list()
    assert "names ~nobody_has_this_name/a.yaml, which is not a file" in current_registry().problems[0].what


def test_a_name_whose_record_is_wrong_says_so(cards: CardWriter) -> None:
    cards("mine: {upstream: fbank, licence: x}")
    with pytest.raises(UnknownUpstreamError, match=r"'mine'.* Its record cannot be used: .*\.yaml, line 3: .*'licence'.*\?$"):
        hub.load("mine")
    cards("[")
    with pytest.raises(UnknownUpstreamError, match=r"and `hubcore doctor` what could not be read \(1\)\.$"):
        hub.load("mine")


def test_a_subclass_that_inherits_its_loader_never_gives_random_weights(install: Installer) -> None:
    install(
        "child",
        entry_points="[hubcore.upstreams]\nchild = child_mod:ChildUpstream\n",
        files={"child_mod.py": "from hubcore_wav2vec2 import Wav2Vec2Upstream as W\nclass ChildUpstream(W):\n    pass\n"},
    )
    with pytest.raises(OptionError, match=r"would be random\. .*use one of its names \(`hubcore list --family child`\), or"):
        hub.load("child")


def test_a_built_in_name_can_be_contested_but_not_taken(install: Installer) -> None:
    install("thief", entry_points="[hubcore.upstreams]\nfbank = thief:X\n", files={"thief.py": "X = 1\n"})
    with pytest.raises(DuplicateUpstreamError, match="hubcore and by thief"):
        hub.load("fbank")
    assert type(hub.load("hubcore:fbank")).__name__ == "FbankUpstream"
    assert type(hub.load("mfcc")).__name__ == "FbankUpstream"


UNPRINTABLE = "class E(Exception):\n    def __str__(self): raise ValueError\nraise E"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param("import no_such_module_anywhere", "ModuleNotFoundError", id="import error"),
        pytest.param("def f(:", "SyntaxError", id="syntax error"),
        pytest.param("raise SystemExit(3)", "SystemExit", id="system exit"),
        pytest.param("raise GeneratorExit", "GeneratorExit", id="generator exit"),
        pytest.param("raise RecursionError", "RecursionError", id="recursion error"),
        pytest.param("raise MemoryError", "MemoryError", id="memory error"),
        pytest.param(UNPRINTABLE, "cannot be imported: E", id="unprintable error"),
        pytest.param("", "AttributeError", id="attribute missing"),
        pytest.param("X = 3", "not a class", id="not a class"),
    ],
)
def test_a_broken_plugin_harms_only_its_own_name(install: Installer, code: str, expected: str) -> None:
    install("broken", entry_points="[hubcore.upstreams]\nbroken = broken_mod:X\n", files={"broken_mod.py": code})
    assert {"broken", "fbank"} < set(hub.list())
    with pytest.raises(PluginError, match=expected) as caught:
        hub.load("broken")
    assert "broken 1.0" in str(caught.value)
    assert type(hub.load("fbank")).__name__ == "FbankUpstream"


@pytest.mark.parametrize("entry_points", [b"\xff\xfe\x00binary", b"[hubcore.upstreams]\nno equals sign\n", b"[broken\n=\n"])
def test_unreadable_metadata_hides_nothing_else(install: Installer, entry_points: bytes) -> None:
    install("garbled", entry_points=entry_points)
    assert "fbank" in hub.list()


@pytest.mark.parametrize("line", ["../../x = a:B", "Upper = a:B", "x = os.system('true')", "x = a", "x = a:b:c"])
def test_an_impossible_entry_point_is_a_problem(install: Installer, line: str) -> None:
    install("odd", entry_points=f"[hubcore.upstreams]\n{line}\n")
    assert "fbank" in hub.list()
    assert [problem.owner for problem in current_registry().problems] == ["odd"]


def test_a_missing_package_or_extra_is_listed_with_its_command(install: Installer) -> None:
    root = install("partial", entry_points="[hubcore.upstreams]\ngone = gone_package:X\nextra = partial_mod:X [gpu]\n")
    metadata = next(root.glob("*.dist-info")) / "METADATA"
    metadata.write_text(metadata.read_text() + "Provides-Extra: gpu\nRequires-Dist: no-such-thing>=1; extra == 'gpu'\n")
    (root / "partial_mod.py").write_text("X = 1\n")
    from hubcore.registry import names as registry

    registry.refresh()
    assert {"gone", "extra"} < set(hub.list())
    with pytest.raises(UnavailableUpstreamError, match=r"package 'gone_package' is missing"):
        hub.load("gone")
    with pytest.raises(UnavailableUpstreamError, match=r"pip install 'partial\[gpu\]'"):
        hub.load("extra")


def test_a_card_of_a_family_that_is_not_installed_stays_listed(cards: CardWriter) -> None:
    cards("far: {upstream: faraway, license: unknown}")
    assert "far" in hub.list()
    assert "faraway" in str(hub.info("far"))
    with pytest.raises(UnavailableUpstreamError, match="faraway"):
        hub.load("far")


def test_the_users_configuration_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "hubcore").mkdir()
    (tmp_path / "hubcore/mine.yaml").write_text(
        "version: 1\nupstreams:\n"
        "  fbank40: {upstream: fbank, config: fbank, license: none needed, options: {num_mel_bins: 40}}\n"
    )
    assert hub.load("fbank40").hidden_sizes == (120,)
    assert hub.load("fbank40", num_mel_bins=20).hidden_sizes == (60,)


BAD_FILES = {
    "python tag": "version: 1\nupstreams:\n  x: !!python/object/apply:os.system ['true']\n",
    "python name": "version: 1\nupstreams:\n  x: {upstream: fbank, license: !!python/name:os.system ''}\n",
    "duplicate record": "version: 1\nupstreams:\n  x: {upstream: a, license: b}\n  x: {upstream: a, license: b}\n",
    "anchor": "version: 1\nupstreams:\n  x: &a {upstream: a, license: b}\n  y: *a\n",
    "merge key": "version: 1\nupstreams:\n  x: {<<: {upstream: a}, license: b}\n",
    "deep": "version: 1\nupstreams: " + "[" * 5000,
    "numeric revision": "version: 1\nupstreams:\n  x: {upstream: a, license: b, config: 123456}\n",
    "boolean name": "version: 1\nupstreams:\n  true: {upstream: a, license: b}\n",
    "boolean field": "version: 1\nupstreams:\n  x: {upstream: a, license: b, on: c}\n",
    "duplicate field": "version: 1\nupstreams:\n  x: {upstream: a, license: b, license: c}\n",
    "not utf-8": b"version: 1\nupstreams:\n  x: {upstream: \xff, license: b}\n",
    "unknown field": "version: 1\nupstreams:\n  x: {upstream: a, license: b, lisense: c}\n",
    "no licence": "version: 1\nupstreams:\n  x: {upstream: a}\n",
    "short checksum": "version: 1\nupstreams:\n  x: {upstream: a, license: b, sources: [{uri: 'https://h/x', sha256: abc}]}\n",
    "numeric checksum": "version: 1\nupstreams:\n  x: {upstream: a, license: b, sources: [{uri: 'hf://a/b', sha256: 123}]}\n",
    "http": "version: 1\nupstreams:\n  x: {upstream: a, license: b, sources: [{uri: 'http://h/x'}]}\n",
    "upper case": "version: 1\nupstreams:\n  Big: {upstream: a, license: b}\n",
    "no version": "upstreams: {}\n",
    "version 2": "version: 2\nupstreams: {}\n",
    "a list": "- 1\n",
    "empty": "",
    "no yaml": "a: [1, 2",
    "import path": "version: 1\nupstreams:\n  x: {upstream: a, license: b, class: os:system}\n",
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_wrong_file_is_an_error_with_file_and_line_and_harms_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = BAD_FILES[name]
    path = tmp_path / "bad.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    try:
        cards, errors = read_registry(path)
    except RegistryError as error:
        cards, errors = [], [error]
    assert errors, f"{name} was accepted: {cards}"
    assert "bad.yaml" in str(errors[0])
    if name not in ("not utf-8", "empty", "no version", "version 2"):
        assert "line" in str(errors[0])
    monkeypatch.setenv("HUBCORE_REGISTRY", str(path))
    assert "fbank" in hub.list()
    assert any("bad.yaml" in str(problem) for problem in current_registry().problems)


def test_a_registry_reads_words_as_recipes_do(tmp_path: Path) -> None:
    path = tmp_path / "words.yaml"
    words = {"when": "2020-01-01", "day": "2020-13-45", "time": "4:30", "code": "0123456", "switch": "off", "huge": "9" * 5000}
    inline = ", ".join(f"{name}: {word}" for name, word in words.items())
    path.write_text(f"version: 1\nupstreams:\n  no: {{upstream: y, license: on, languages: [no], options: {{{inline}}}}}\n")
    ((card,), errors) = read_registry(path)
    assert not errors and (card.name, card.upstream, card.license, card.languages) == ("no", "y", "on", ("no",))
    assert dict(card.options) == words == parse_yaml(f"{{{inline}}}")


def test_one_wrong_record_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "mixed.yaml"
    path.write_text("version: 1\nupstreams:\n  good: {upstream: fbank, license: x}\n  bad: {upstream: fbank}\n")
    cards, errors = read_registry(path)
    assert [card.name for card in cards] == ["good"]
    assert "line 4" in str(errors[0])


def test_our_own_registry_is_whole_and_in_the_order_of_families() -> None:
    cards, errors = read_registry(own_registry_file())
    assert errors == []
    names = [(card.upstream, card.name) for card in cards]
    assert names == sorted(names)
    assert build_registry().problems == []
    for card in cards:
        assert card.license
        for source in card.sources:  # what the package itself carries, it can vouch for
            assert not source.uri.startswith("package://") or (source.sha256 and source.size)
        assert card.sources or card.license == "none needed" or card.name == "wav2vec2_custom"
        assert not card.sources or card.training_data
        assert card.hours is None or card.languages, card.name


S3PRL_NAMES = sorted({name for names in NAMES.values() for name in names.split()} & set(hub.list()))


@pytest.mark.slow
@pytest.mark.parametrize("name", S3PRL_NAMES)
def test_s3prls_names_have_whole_cards(name: str) -> None:
    card = current_registry().find(name).card
    assert card is not None and card.license
    assert not card.sources or card.training_data


def test_a_misspelt_hook_is_reported(install: Installer, caplog: pytest.LogCaptureFixture) -> None:
    install(
        "hooked",
        entry_points="[hubcore]\nhooked = hooked_mod\n",
        files={"hooked_mod.py": "def hubcore_fecth(uri):\n    return None\n"},
    )
    from hubcore.hooks import current_hooks

    assert "hubcore_fecth, which is no hook" in current_hooks().problems[0].what


def test_hooks_take_part(install: Installer) -> None:
    install(
        "hooked",
        entry_points="[hubcore]\nhooked = hooked_good\n",
        files={
            "hooked_good.py": "from hubcore import hookimpl\nseen = []\n"
            "@hookimpl\ndef hubcore_fetch(uri, cache_dir, offline):\n"
            "    if uri.startswith('memory://'):\n        path = cache_dir / 'm'\n"
            "        path.parent.mkdir(parents=True, exist_ok=True)\n"
            "        path.write_bytes(b'x')\n        return path\n"
            "@hookimpl\ndef hubcore_upstream_loaded(upstream, card):\n    seen.append((type(upstream).__name__, card.name))\n"
        },
    )
    import importlib

    assert hub.fetch("memory://x").read_bytes() == b"x"
    hub.load("mfcc")
    assert importlib.import_module("hooked_good").seen == [("FbankUpstream", "mfcc")]


# A card of a user's own in the place of another's ----------------------------------------------------------------------


def mirror(owner: str, uri: object = "https://example.org/x") -> str:
    return f"{TINY}: {{upstream: wav2vec2, license: x, overrides: {owner}, sources: [{{uri: {uri}}}]}}"


@pytest.mark.slow
def test_a_users_card_may_override_another_on_purpose(cards: CardWriter) -> None:
    path = cards(mirror("Hubcore", hub.fetch(TINY)))
    assert hub.load(TINY).card.file == str(path)
    assert hub.load(f"hubcore:{TINY}").card.file == str(own_registry_file())
    assert TINY not in current_registry().duplicates() and current_registry().problems == []
    assert {TINY, f"hubcore:{TINY}", f"user:{TINY}"} < set(hub.list())
    rows = {row["name"]: row for row in json.loads(command("list", "--json").stdout)}
    assert rows[TINY]["from"] == "user" and f"overridden by {path}, line 3" in rows[f"hubcore:{TINY}"]["note"]


def test_an_overriding_card_takes_the_aliases_too(cards: CardWriter) -> None:
    cards("wav2vec2_custom: {upstream: fbank, license: x, overrides: hubcore, aliases: [own]}")
    for name in ("wav2vec2_custom", "wav2vec2_local", "own"):
        assert current_registry().find(name).owner == "user"
    assert current_registry().find("hubcore:wav2vec2_local").owner == "hubcore"


@pytest.mark.parametrize("owner", ["nobody", "user"])
def test_overriding_what_is_not_there_is_a_problem(owner: str, cards: CardWriter) -> None:
    cards(mirror(owner))
    (problem,) = current_registry().problems
    assert f"overrides that of {owner!r}, but {owner!r} has no such card. Remove" in problem.text and problem.line == 3
    with pytest.raises(DuplicateUpstreamError, match="or write `overrides:` into your own card"):
        hub.load(TINY)


def test_a_plugin_cannot_override(install: Installer) -> None:
    install(
        "thief",
        entry_points="[hubcore.registries]\nthief = thief:r.yaml\n",
        files={"thief/__init__.py": "", "thief/r.yaml": f"version: 1\nupstreams:\n  {mirror('hubcore')}\n"},
    )
    assert "only a card of the user may do that" in current_registry().problems[0].text
    with pytest.raises(DuplicateUpstreamError, match="hubcore and by thief"):
        hub.load(TINY)


@pytest.mark.slow
def test_a_distribution_with_very_many_names_is_listed_in_seconds(install: Installer) -> None:
    points = "\n".join(f"family{k} = big_mod:X{k} [all]" for k in range(50_000))
    install("big", entry_points=f"[hubcore.upstreams]\n{points}\n", files={"big_mod.py": ""})
    begin = time.perf_counter()
    assert command("list").stdout.count("\nfamily") == 50_000
    assert time.perf_counter() - begin < 20  # below 2 on an idle core; a quadratic listing takes minutes


@pytest.mark.slow
def test_a_file_of_many_cards_is_read_and_checked_in_linear_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(count: int, options: str = "") -> float:
        """Processor time for each card."""
        path = tmp_path / f"{count}{len(options)}.yaml"
        cards = "".join(f" c{number}: {{upstream: fbank, license: MIT{options}}}\n" for number in range(count))
        path.write_text(f"version: 1\nupstreams:\n{cards}")
        monkeypatch.setenv("HUBCORE_REGISTRY", str(path))
        began = time.process_time()
        assert command("list", "c*").output.count("\n") >= count
        if options:
            assert command("registry", "check").output.count("no option called") == count
        return (time.process_time() - began) / count

    seconds(10)
    assert seconds(3000) < 4 * seconds(300)
    assert seconds(200, ", options: {odd: 1}") < 4 * seconds(50, ", options: {odd: 1}") < 0.2
