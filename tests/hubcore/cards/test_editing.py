"""Registry files that hubcore writes: whole, valid, one for each added card, and never over what a person wrote."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubcore.card import Card, CodebookSource, Source
from hubcore.cards.editing import add_card, pin_cards, remove_card, write_cards
from hubcore.errors import RegistryError
from hubcore.registry.names import config_folder
from hubcore.registry.reading import read_registry

NEW = Card(name="m", upstream="fbank", license="none needed")
HAND = "# mine\nversion: 1\nupstreams:\n  m: {upstream: fbank, license: x}\n"


def said(path: Path) -> dict[str, Card]:
    cards, errors = read_registry(path)
    assert errors == []
    return {card.name: dataclasses.replace(card, file=None, line=None) for card in cards}


def test_each_card_has_a_file_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    assert add_card(folder, NEW) == folder / "m.yaml"
    add_card(folder, dataclasses.replace(NEW, name="n", license="x"))
    assert sorted(path.name for path in folder.iterdir()) == ["m.yaml", "n.yaml"]
    assert said(folder / "m.yaml") == {"m": NEW}
    assert remove_card("m", folder) == folder / "m.yaml"
    assert [path.name for path in folder.iterdir()] == ["n.yaml"]


def test_only_replace_replaces(tmp_path: Path) -> None:
    path = add_card(tmp_path, NEW)
    other = dataclasses.replace(NEW, license="other")
    with pytest.raises(RegistryError, match=r"m\.yaml: this card exists already\. Use --replace"):
        add_card(tmp_path, other)
    assert said(path) == {"m": NEW}
    add_card(tmp_path, other, replacing=True)
    assert said(path) == {"m": other}


def test_what_a_person_wrote_is_never_changed(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(HAND)
    with pytest.raises(RegistryError, match=r"m\.yaml: it was written by hand"):
        add_card(tmp_path, NEW, replacing=True)
    with pytest.raises(RegistryError, match=r"m\.yaml, line 4: 'm' stands here, in a file written by hand"):
        remove_card("m", tmp_path)
    assert path.read_text() == HAND
    path.unlink()
    path = add_card(tmp_path, NEW)
    path.write_text(path.read_text() + "  second: {upstream: fbank, license: x}\n")  # by hand, into a file of ours
    for refused in (lambda: add_card(tmp_path, NEW, replacing=True), lambda: remove_card("second", tmp_path)):
        with pytest.raises(RegistryError, match="written by hand"):
            refused()


def test_remove_says_where_a_name_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_card(config_folder(), dataclasses.replace(NEW, aliases=("other",)))
    for name, what in (
        ("other", r"m\.yaml, line 5: 'other' is an alias of 'm'\. Remove 'm'\."),
        ("fbank", "'fbank' belongs to hubcore"),
        ("nothing", "none of your registry files has 'nothing'"),
    ):
        with pytest.raises(RegistryError, match=what):
            remove_card(name)
    second = add_card(tmp_path, NEW)
    monkeypatch.setenv("HUBCORE_REGISTRY", str(tmp_path))
    with pytest.raises(RegistryError, match=r"'m' stands in .* and .*\. Say which with --folder\."):
        remove_card("m")
    assert remove_card("m", tmp_path) == second
    assert remove_card("m") == config_folder() / "m.yaml"


@pytest.mark.parametrize(
    "wrong",
    [
        {"license": ""},
        {"name": "Big"},
        {"aliases": ("m",)},
        {"options": {"when": dt.date(2020, 1, 1)}},
        {"options": {"count": 10**50}},
        {"options": {"what": object}},
        {"sources": (Source("http://h/x"),)},
        {"sources": (Source("https://h/x", sha256="abc"),)},
        {"note": "\ud800"},
    ],
    ids=lambda wrong: "-".join(wrong),
)
def test_a_card_that_would_not_be_valid_is_never_written(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"Nothing was written\.") as caught:
        add_card(tmp_path / "new", dataclasses.replace(NEW, **wrong))
    assert not list(tmp_path.glob("new/*")) and str(tmp_path) in str(caught.value)


def test_a_link_stays_a_link_and_permissions_stay(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real = add_card(tmp_path / "real", NEW)
    real.chmod(0o640)
    (tmp_path / "m.yaml").symlink_to(real)
    add_card(tmp_path, dataclasses.replace(NEW, license="x"), replacing=True)
    assert (tmp_path / "m.yaml").is_symlink() and said(real)["m"].license == "x" and real.stat().st_mode & 0o777 == 0o640


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RegistryError, match=r"m\.yaml: it cannot be written"):
        add_card(tmp_path / "file", NEW)
    if os.geteuid():  # root may write anywhere
        tmp_path.chmod(0o500)
        with pytest.raises(RegistryError, match="cannot be written"):
            add_card(tmp_path, NEW)
        tmp_path.chmod(0o700)


# Pins -----------------------------------------------------------------------------------------------------------------

DIGEST = "1" * 64
"""Of decimal digits alone, which YAML takes for a number where it stands without quotes."""
FACTS = {("m", "a.pt"): (DIGEST, 5), ("m", "https://h/x"): (DIGEST, 6)}


def cards_with_sources(path: Path) -> Path:
    sources = (Source("a.pt"), Source("https://h/x", "ab" * 32), Source("other.pt"))
    codebooks = (CodebookSource("km.safetensors", layer=9),)
    card = dataclasses.replace(NEW, sources=sources, codebooks=codebooks)
    write_cards(path, [card, dataclasses.replace(NEW, name="other")])
    return path


def test_pins_complete_what_is_missing_and_change_nothing_else(tmp_path: Path) -> None:
    path = cards_with_sources(tmp_path / "r.yaml")
    before = said(path)
    assert pin_cards(path, FACTS) == 3
    pinned = (Source("a.pt", DIGEST, 5), Source("https://h/x", "ab" * 32, 6), Source("other.pt"))
    assert said(path) == {**before, "m": dataclasses.replace(before["m"], sources=pinned)}
    data = path.read_bytes()
    assert pin_cards(path, FACTS) == 0 and path.read_bytes() == data


def test_an_added_card_that_was_pinned_can_still_be_removed(tmp_path: Path) -> None:
    path = add_card(tmp_path, dataclasses.replace(NEW, sources=(Source("a.pt"),)))
    assert pin_cards(path, FACTS) == 2
    assert remove_card("m", tmp_path) == path


@pytest.mark.parametrize("comment", ["# first\n", "  # about m\n", ""])
def test_comments_are_not_lost(comment: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    text = f"version: 1\n{comment}upstreams: {{m: {{upstream: a, license: 'b#c', sources: [{{uri: a.pt}}]}}}}"
    path.write_text(text + ("" if comment else "  # last"))
    before = path.read_text()
    with pytest.raises(RegistryError, match=r"has comments.*Write to another file with --out"):
        pin_cards(path, FACTS)
    assert path.read_text() == before
    assert pin_cards(path, FACTS, tmp_path / "out.yaml") == 2
    assert said(tmp_path / "out.yaml")["m"].sources == (Source("a.pt", DIGEST, 5),) and path.read_text() == before
    path.write_text(text.replace(comment, ""))
    assert pin_cards(path, FACTS) == 2


def test_a_copy_in_another_folder_means_the_same_files(tmp_path: Path) -> None:
    (tmp_path / "cards").mkdir()
    path = cards_with_sources(tmp_path / "cards/r.yaml")
    assert pin_cards(path, FACTS, tmp_path / "up.yaml") == 3
    assert [source.uri for source in said(tmp_path / "up.yaml")["m"].sources] == [
        "cards/a.pt",
        "https://h/x",
        "cards/other.pt",
    ]
    assert pin_cards(path, FACTS, tmp_path / "side/r.yaml") == 3
    assert said(tmp_path / "side/r.yaml")["m"].sources[0].uri == str(tmp_path / "cards/a.pt")
    assert said(tmp_path / "up.yaml")["m"].codebooks == (CodebookSource("cards/km.safetensors", layer=9),)


def test_a_file_with_a_wrong_record_is_not_pinned(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("version: 1\nupstreams:\n  m: {upstream: a}\n")
    with pytest.raises(RegistryError, match="line 3: 'm' has no 'license'"):
        pin_cards(path, FACTS)


# Any card -------------------------------------------------------------------------------------------------------------

texts = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\ufeff\ufffe\uffff"), min_size=1, max_size=15),
    st.sampled_from(
        ["null", "1", "a: b", "# c", "two\nlines", "no", "'", '"', "- x", "{", "https://h/x?a=b&c=d", " x ", "x: ", "~", "4:30"]
    ),
)
shared: list[int] = [1, 2]
options = st.dictionaries(
    texts,
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**40), 10**40),
        texts,
        st.just(shared),
        st.lists(st.integers()),
        st.floats(allow_nan=False),
    ),
    max_size=3,
)
names = st.one_of(st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,9}", fullmatch=True), st.sampled_from(["no", "1", "1e3", "null", "y"]))
sources = st.builds(
    Source,
    st.sampled_from(["https://h/x?a=1&b=#c", "weights/a b, {c}.pt", "hf://a/b"]),
    st.sampled_from([None, "0" * 64, "1e" + "2" * 62, "ab" * 32]),
    st.one_of(st.none(), st.integers(0, 10**15)),
)
codebooks = st.builds(
    CodebookSource,
    st.sampled_from(["https://h/km?a=1", "km 500.safetensors"]),
    st.integers(0, 48),
    st.sampled_from([None, "0" * 64]),
    st.one_of(st.none(), st.integers(0, 10**15)),
    st.one_of(st.none(), st.integers(1, 2000)),
)
any_card: st.SearchStrategy[Any] = st.builds(
    Card,
    name=names,
    upstream=texts,
    license=texts,
    config=st.one_of(st.none(), texts),
    sources=st.lists(sources, max_size=2).map(tuple),
    codebooks=st.lists(codebooks, max_size=2).map(tuple),
    options=options,
    note=st.one_of(st.none(), texts),
)


@given(st.lists(any_card, max_size=4, unique_by=lambda card: card.name))
@settings(max_examples=80, deadline=None)
@pytest.mark.slow
def test_any_cards_are_read_back_as_they_were_written(cards: list[Card]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.yaml"
        write_cards(path, cards)
        assert said(path) == {card.name: card for card in cards}
