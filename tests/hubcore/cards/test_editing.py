"""Editing a registry's text: the new record in its place, and every other line and value as it was."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubcore.card import Card, Source
from hubcore.cards.editing import add_card, remove_card
from hubcore.errors import RegistryError
from hubcore.registry.reading import read_registry

NEW = Card(name="m", upstream="fbank", license="none needed")

FILE = """\
# About this file.
version: 1   # the only one

upstreams:   # the records
  # all of them

  # the first
  a:
    upstream: fbank   # its family
    license: none needed
    # a comment of a's own

  # about x
  # in two lines
  x: {upstream: wav2vec2, license: "MIT", options: {lambd: 0.70}}

  z:
    license: none needed
    upstream: fbank
  # the end of the records

# the end of the file
"""


def said(path: Path) -> dict[str, Card]:
    cards, errors = read_registry(path)
    assert errors == []
    return {card.name: dataclasses.replace(card, file=None, line=None) for card in cards}


def put(folder: Path, text: str) -> Path:
    path = folder / "r.yaml"
    path.write_bytes(text.encode())
    return path


def test_a_record_goes_to_its_sorted_place_and_nothing_else_changes(tmp_path: Path) -> None:
    path = put(tmp_path, FILE)
    line = add_card(path, NEW)
    record = "  m:\n    upstream: fbank\n    license: none needed\n"
    own = "    # a comment of a's own\n"
    assert path.read_text() == FILE.replace(own, f"{own}\n{record}")
    assert path.read_text().splitlines()[line - 1] == "  m:"


@pytest.mark.parametrize(("name", "before"), [("0", "  # the first\n"), ("zz", "  # the end of the records\n")])
def test_the_first_and_the_last_place(tmp_path: Path, name: str, before: str) -> None:
    path = put(tmp_path, FILE)
    add_card(path, dataclasses.replace(NEW, name=name))
    text = path.read_text()
    assert list(said(path)) == sorted([name, "a", "x", "z"])
    assert [line for line in text.splitlines() if line in FILE.splitlines() or not line.strip()][:3] == FILE.splitlines()[:3]
    record = text.index("\n  '0':" if name == "0" else "\n  zz:")
    assert record < text.index(before)
    remove_card(path, name)
    assert path.read_text() == FILE


def test_removing_keeps_every_other_line(tmp_path: Path) -> None:
    path = put(tmp_path, FILE)
    remove_card(path, "x")
    assert path.read_text() == FILE.replace('  x: {upstream: wav2vec2, license: "MIT", options: {lambd: 0.70}}\n', "")
    remove_card(path, "a")
    remove_card(path, "z")
    assert said(path) == {} and "upstreams: {}   # the records\n" in path.read_text()
    assert [line for line in path.read_text().splitlines() if "#" in line] == [
        line.replace("upstreams:", "upstreams: {}")
        for line in FILE.splitlines()
        if "#" in line and "own" not in line and "its" not in line
    ]
    add_card(path, NEW)
    assert said(path) == {"m": NEW} and "upstreams:   # the records\n" in path.read_text()


def test_replacing_changes_that_record_only(tmp_path: Path) -> None:
    path = put(tmp_path, FILE)
    with pytest.raises(RegistryError, match=r"r\.yaml, line 15: 'x' is there already.*--replace"):
        add_card(path, dataclasses.replace(NEW, name="x"))
    assert path.read_text() == FILE
    add_card(path, dataclasses.replace(NEW, name="x"), replacing=True)
    old = '  x: {upstream: wav2vec2, license: "MIT", options: {lambd: 0.70}}\n'
    assert path.read_text() == FILE.replace(old, "  x:\n    upstream: fbank\n    license: none needed\n")


ODD_FILES = {
    "no newline at the end": "version: 1\nupstreams:\n  a: {upstream: b, license: c}",
    "windows": "version: 1\r\nupstreams:\r\n  a:\r\n    upstream: b\r\n    license: c\r\n",
    "byte order mark": "\ufeffversion: 1\nupstreams:\n  a: {upstream: b, license: c}\n",
    "version behind": "upstreams:\n  a:\n    upstream: b\n    license: c\n# about the version\nversion: 1\n",
    "four columns": "version: 1\nupstreams:\n    a:\n        upstream: b\n        license: c\n",
    "empty": "version: 1\nupstreams: {}\n",
    "empty with a comment": "version: 1\nupstreams: {} # none yet\n# end\n",
    "quoted": '"version": 1\n"upstreams":\n  \'a\': {upstream: b, license: c}\n',
    "block text": (
        "version: 1\nupstreams:\n  a:\n    upstream: b\n    license: c\n    note: |\n      one\n\n      # two\n"
        "  z:\n    upstream: b\n    license: |-\n      x\n"
    ),
    "beyond ASCII": "# caf\u00e9 \U0001f600\nversion: 1\nupstreams:\n  z: {upstream: b, license: '\u00e9 \U0001f600'}\n",
    "unsorted": "version: 1\nupstreams:\n  z: {upstream: b, license: c}\n  a: {upstream: b, license: c}\n",
    "marks of a document": "---\nversion: 1\nupstreams:\n  z: {upstream: b, license: c}\n",
}


@pytest.mark.parametrize("what", ODD_FILES)
def test_odd_files_are_kept_as_they_are(what: str, tmp_path: Path) -> None:
    path = put(tmp_path, ODD_FILES[what])
    before = said(path)
    add_card(path, NEW)
    assert said(path) == {**before, "m": NEW}
    data = path.read_bytes()
    if what == "windows":
        assert data.count(b"\r\n") == data.count(b"\n")
    if what == "byte order mark":
        assert data.startswith(b"\xef\xbb\xbf")
    if what == "four columns":
        assert b"    m:\n        upstream: fbank\n" in data
    remove_card(path, "m")
    assert said(path) == before
    assert path.read_bytes().decode().rstrip() == ODD_FILES[what].rstrip()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("version: 1\nupstreams: {a: {upstream: b, license: c}}\n", "line 2: its records stand in braces"),
        ("{version: 1, upstreams: {}}\n", "line 1: its records stand in braces"),
        ("version: 1\nupstreams:\n  bad: {upstream: b}\n", "is not changed while a record of it is wrong: .*line 3"),
        ("version: 1\nupstreams:\n  a: {upstream: b, license: c, aliases: [m]}\n", "'m' is already the name of 'a'.*Nothing"),
        ("version: 1\nupstreams:\n  a: {upstream: b, license: c}\n...\n", "not valid YAML"),
        ("version: 1\nupstreams:\n  {}\n", "Nothing was written|by hand|not valid"),
        ("a: registry\n", "version"),
    ],
)
def test_a_file_that_cannot_be_edited_safely_is_refused_and_left(tmp_path: Path, text: str, what: str) -> None:
    path = put(tmp_path, text)
    with pytest.raises(RegistryError, match=what) as caught:
        add_card(path, NEW)
    assert path.read_text() == text and [p.name for p in tmp_path.iterdir()] == ["r.yaml"]
    assert str(path) in str(caught.value) and ".yaml." not in str(caught.value).replace("r.yaml.", "")


def test_a_record_that_would_not_be_valid_is_never_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "r.yaml"
    for wrong in (
        dataclasses.replace(NEW, license=""),
        dataclasses.replace(NEW, name="Big"),
        dataclasses.replace(NEW, options={"when": __import__("datetime").date(2020, 1, 1)}),
        dataclasses.replace(NEW, sources=(Source("http://h/x"),)),
        dataclasses.replace(NEW, sources=(Source("https://h/x", sha256="abc"),)),
        dataclasses.replace(NEW, note="\ud800"),
    ):
        with pytest.raises(RegistryError) as caught:
            add_card(path, wrong)
        assert not path.exists() and not list(tmp_path.glob("new/.*")) and str(path) in str(caught.value)


def test_a_link_stays_a_link_and_permissions_stay(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real = put(tmp_path / "real", FILE)
    real.chmod(0o640)
    link = tmp_path / "link.yaml"
    link.symlink_to(real)
    add_card(link, NEW)
    assert link.is_symlink() and "m" in said(real) and real.stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_takes_nothing(tmp_path: Path) -> None:
    path = put(tmp_path, FILE)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(RegistryError, match="cannot be written"):
            add_card(path, NEW)
    finally:
        tmp_path.chmod(0o700)


def test_a_file_that_must_not_be_written_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, FILE)
    monkeypatch.setattr(os, "access", lambda file, mode: Path(file) != path or mode != os.W_OK)  # root may write anywhere
    with pytest.raises(RegistryError, match=r"cannot be written .*Permission denied"):
        add_card(path, NEW)
    assert path.read_text() == FILE and [p.name for p in tmp_path.iterdir()] == ["r.yaml"]


def test_a_folder_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RegistryError, match="cannot be written"):
        add_card(tmp_path / "file" / "r.yaml", NEW)


def test_what_another_program_writes_meanwhile_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, FILE)
    monkeypatch.setattr("hubcore.cards.editing._check", lambda *_: path.write_text(FILE + "# another's\n"))
    with pytest.raises(RegistryError, match="was changed by another program meanwhile"):
        add_card(path, NEW)
    assert path.read_text() == FILE + "# another's\n"


# Any file -------------------------------------------------------------------------------------------------------------

texts = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\ufeff\ufffe\uffff"), min_size=1, max_size=15),
    st.sampled_from(
        ["null", "1", "a: b", "# c", "two\nlines", "no", "'", '"', "- x", "{", "https://h/x?a=b&c=d", " x ", "x: ", "~"]
    ),
)
options = st.dictionaries(
    texts,
    st.one_of(st.none(), st.booleans(), st.integers(), texts, st.lists(st.integers(), max_size=3), st.floats(allow_nan=False)),
    max_size=3,
)
name_texts = st.one_of(
    st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,9}", fullmatch=True), st.sampled_from(["no", "1", "1e3", "null", "y"])
)
sources = st.builds(
    Source,
    st.one_of(st.just("https://h/x?a=1&b=#c"), st.just("weights/a b, {c}.pt"), st.just("hf://a/b")),
    st.one_of(st.none(), st.just("0" * 64), st.just("1e" + "2" * 62), st.just("ab" * 32)),
    st.one_of(st.none(), st.integers(0, 10**15)),
)
any_card: st.SearchStrategy[Any] = st.builds(
    Card,
    name=name_texts,
    upstream=texts,
    license=texts,
    config=st.one_of(st.none(), texts),
    sources=st.lists(sources, max_size=2).map(tuple),
    options=options,
    note=st.one_of(st.none(), texts),
)


@given(st.lists(any_card, min_size=1, max_size=5, unique_by=lambda card: card.name), st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_any_cards_are_written_read_and_removed_again(cards: list[Card], random: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.yaml"
        kept: dict[str, Card] = {}
        for card in cards:
            add_card(path, card)
            kept[card.name] = card
            assert said(path) == kept
            # A hand-written comment at a random place between lines survives all that follows.
            lines = path.read_text().splitlines(keepends=True)
            lines.insert(random.randrange(4, len(lines) + 1), f"  # by hand {len(kept)}\n")
            path.write_text("".join(lines))
        names = list(said(path))
        assert names == sorted(names)
        comments = path.read_text().count("# by hand")
        assert comments >= len(cards)
        random.shuffle(names)
        for name in names:
            del kept[name]
            remove_card(path, name)
            assert said(path) == kept
        assert path.read_text().endswith("\n")
