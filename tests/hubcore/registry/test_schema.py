"""The JSON Schema says what the reader checks: whatever one of them takes the other takes, and what one refuses too."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hubcore.card import Card, Source
from hubcore.errors import RegistryError
from hubcore.registry import reading as registry_file
from hubcore.registry.names import own_registry_file
from hubcore.registry.reading import SCHEMA, read_registry
from hubcore.strict_yaml import know_scalars
from tests.running import command

VALIDATOR = jsonschema.Draft7Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))


def schema_takes(data: Any) -> bool:
    return bool(VALIDATOR.is_valid(data))


def reader_takes(data: Any) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.yaml"
        path.write_text(yaml.dump(data, Dumper=_NoAliases, allow_unicode=True, width=10**6), encoding="utf-8")
        try:
            return not read_registry(path)[1]
        except RegistryError:
            return False


class _NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


know_scalars(_NoAliases)  # text such as 0E0, which YAML 1.1 takes for no number, goes into quotes


CARD = {"upstream": "a", "license": "b"}

# Texts that YAML could take for something else, beside arbitrary ones; those that YAML cannot hold are left out.
texts = st.one_of(
    st.text(
        st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufeff\x85\u2028\u2029"), max_size=12
    ),
    st.sampled_from(
        ["", "null", "1", "true", "~", "a: b", "# c", "2020-01-01", "https://h/x", "0x1f", "line\nbreak", "-", "é"]
    ),
)
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**9), 10**9), st.floats(allow_nan=False, allow_infinity=False), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts.filter(bool), inner, max_size=3)),
    max_leaves=6,
)
good_names = st.from_regex(registry_file.NAME, fullmatch=True)
names = st.one_of(good_names, st.sampled_from(["Upper", "", "-a", "a/b", "a" * 64, "a" * 65, "a\n", "no", "1"]))
ODD_URIS = [
    "https://h/x",
    "http://h/x",
    "file:///x",
    "ftp://h",
    "data:,x://",
    "http:x",
    "hf://a/b",
    "package://p/f",
    "s3://b/k",
]
uris = st.one_of(texts, st.sampled_from([*ODD_URIS, "http:\n://"]))
digests = st.one_of(
    st.none(), st.from_regex(r"[0-9a-f]{64}", fullmatch=True), st.sampled_from(["abc", "A" * 64, "0" * 65, 123])
)
sizes = st.one_of(st.none(), st.integers(-2, 10**18), st.booleans(), st.sampled_from(["12", 1.5, -1, 10**16, 10**16 - 1]))
good_sources = st.fixed_dictionaries(
    {"uri": st.sampled_from(["https://h/x", "weights/a.pt", "hf://a/b", "s3://b/k"])},
    optional={
        "sha256": st.one_of(st.none(), st.from_regex(r"[0-9a-f]{64}", fullmatch=True)),
        "size": st.one_of(st.none(), st.integers(0, 10**15)),
    },
)
filled = texts.filter(bool)
good_cards = st.fixed_dictionaries(
    {"upstream": filled, "license": filled},
    optional={
        "config": filled,
        "parameters": st.integers(0, 10**15),
        "sources": st.lists(good_sources, max_size=2),
        "options": st.dictionaries(filled, plain, max_size=3),
        "training_data": filled,
        "languages": st.lists(st.from_regex(r"[a-z]{2,3}", fullmatch=True), max_size=3),
        "hours": st.one_of(st.integers(0, 10**9), st.sampled_from([0.5, 2.0])),
        "frame_stride": st.integers(1, 10**6),
        "paper": filled,
        "note": filled,
    },
)


WILD_SOURCE = {"uri": uris, "sha256": digests, "size": sizes, "md5": texts}
wild_sources = st.builds(
    lambda good, wild: {**good, **wild},
    good_sources,
    st.sampled_from(sorted(WILD_SOURCE)).flatmap(lambda field: st.fixed_dictionaries({field: WILD_SOURCE[field]})),
)
WILD = {
    "upstream": st.one_of(texts, st.none()),
    "license": st.one_of(texts, st.none(), st.integers()),
    "config": st.one_of(texts, st.none(), st.integers()),
    "aliases": st.one_of(st.lists(names, max_size=2, unique=True), st.none(), texts),
    "sources": st.one_of(st.lists(wild_sources, min_size=1, max_size=2), st.none()),
    "options": st.one_of(st.dictionaries(texts.filter(bool), plain, max_size=3), st.none(), texts),
    "training_data": st.one_of(texts, st.none()),
    "languages": st.one_of(st.lists(texts, max_size=2), st.sampled_from([["EN"], ["e"], "en", [False]])),
    "hours": st.one_of(st.none(), st.integers(-2, 10**6), st.sampled_from([0.5, -0.5, "960", True])),
    "frame_stride": st.one_of(st.none(), st.integers(-2, 10**6), st.sampled_from([0.5, "320"])),
    "paper": st.one_of(texts, st.booleans()),
    "note": texts,
    "lisense": texts,
}
wild_cards = st.builds(
    lambda good, wild: {**good, **wild},
    good_cards,
    st.sampled_from(sorted(WILD)).flatmap(lambda field: st.fixed_dictionaries({field: WILD[field]})),
)


@pytest.mark.slow
@given(st.dictionaries(good_names, good_cards, max_size=3))
@example({"0": {"upstream": "0", "license": "0E0"}})
@settings(max_examples=60, deadline=None)
def test_both_take_every_good_card(records: dict[str, Any]) -> None:
    data = {"version": 1, "upstreams": records}
    assert schema_takes(data) and reader_takes(data)


@given(wild_cards)
@settings(max_examples=300, deadline=None)
@pytest.mark.slow
def test_both_say_the_same_of_a_card_with_one_odd_field(card: dict[str, Any]) -> None:
    data = {"version": 1, "upstreams": {"x" * 60: card}}
    assert schema_takes(data) == reader_takes(data)


@given(wild_sources)
@settings(max_examples=300, deadline=None)
@pytest.mark.slow
def test_both_say_the_same_of_a_source_with_one_odd_field(source: dict[str, Any]) -> None:
    data = {"version": 1, "upstreams": {"x": {**CARD, "sources": [source]}}}
    assert schema_takes(data) == reader_takes(data)


@pytest.mark.parametrize("scheme", ["http", "ftp", "file", "data", "https", "hf", "package", "s3", "HTTP", "httpx"])
@pytest.mark.parametrize("rest", ["://h/x", ":x", ":x://y", "/x"])
def test_both_say_the_same_of_every_scheme(scheme: str, rest: str) -> None:
    data = {"version": 1, "upstreams": {"x": {**CARD, "sources": [{"uri": scheme + rest}]}}}
    assert schema_takes(data) == reader_takes(data)
    assert schema_takes(data) == (scheme not in ("http", "ftp", "file", "data") or rest in (":x", "/x"))


@pytest.mark.slow
@given(names)
@settings(max_examples=100, deadline=None)
def test_both_say_the_same_of_any_name(name: str) -> None:
    for data in ({name: CARD}, {"x" * 60: {**CARD, "aliases": [name]}}):
        whole = {"version": 1, "upstreams": data}
        assert schema_takes(whole) == reader_takes(whole)


WRONG: list[dict[str, Any]] = [
    {"license": "b"},
    {"upstream": "a"},
    {"upstream": None, "license": "b"},
    {"upstream": "a", "license": None},
    {"upstream": "a", "license": ""},
    {**CARD, "lisense": "c"},
    {**CARD, "class": "os:system"},
    {**CARD, "config": 123456},
    {**CARD, "paper": True},
    {**CARD, "aliases": "b"},
    {**CARD, "aliases": ["Upper"]},
    {**CARD, "sources": ["https://h/x"]},
    {**CARD, "sources": [{"size": 3}]},
    {**CARD, "sources": [{"uri": "x", "md5": "y"}]},
    {**CARD, "sources": [{"uri": "http://h/x"}]},
    {**CARD, "sources": [{"uri": "x", "sha256": "abc"}]},
    {**CARD, "sources": [{"uri": "x", "sha256": "A" * 64}]},
    {**CARD, "sources": [{"uri": "x", "sha256": 123}]},
    {**CARD, "sources": [{"uri": "x", "size": -1}]},
    {**CARD, "sources": [{"uri": "x", "size": "12"}]},
    {**CARD, "options": ["lambd"]},
]


WRONG_FILES: list[Any] = [
    {"upstreams": {}},
    {"version": 2, "upstreams": {}},
    {"version": "1", "upstreams": {}},
    {"version": True, "upstreams": {}},
    {"version": 1},
    {"version": 1, "upstreams": {}, "more": 1},
    *({"version": 1, "upstreams": upstreams} for upstreams in ([], None, {"x": None}, {"Big": CARD}, {"a" * 65: CARD})),
    *({"version": 1, "upstreams": {"x": record}} for record in WRONG),
    [1],
    None,
]


@pytest.mark.parametrize("data", WRONG_FILES, ids=str)
def test_both_refuse_what_is_wrong(data: Any) -> None:
    assert not reader_takes(data), "the reader takes it"
    assert not schema_takes(data), "the schema takes it"


def test_hubcores_own_registry_fits_the_schema() -> None:
    VALIDATOR.check_schema(VALIDATOR.schema)
    VALIDATOR.validate(yaml.safe_load(own_registry_file().read_text(encoding="utf-8")))


def test_every_field_has_a_title_and_a_description() -> None:
    definitions = VALIDATOR.schema["definitions"]
    fields = {**VALIDATOR.schema["properties"], **definitions["card"]["properties"], **definitions["source"]["properties"]}
    ours = {field.name for field in dataclasses.fields(Card)} - {"name", "file", "line", "distribution"}
    assert set(definitions["card"]["properties"]) == ours
    assert set(definitions["source"]["properties"]) == {field.name for field in dataclasses.fields(Source)}
    for name, field in [*fields.items(), *definitions.items()]:
        assert field["title"] and field["description"], name


def test_the_command_prints_or_writes_it(tmp_path: Path) -> None:
    result = command("registry", "schema")
    assert result.exit_code == 0 and json.loads(result.stdout) == VALIDATOR.schema
    result = command("registry", "schema", "--out", str(tmp_path / "s.json"))
    assert result.exit_code == 0 and (tmp_path / "s.json").read_bytes() == SCHEMA.read_bytes()


@pytest.mark.parametrize(
    "record",
    [
        "{upstream: , license: x}",
        "{upstream: a, license: ~}",
        f"{{upstream: a, license: x, sources: [{{uri: x, size: {'9' * 5000}}}]}}",
        "{upstream: a, license: x, sources: [{uri: x, size: 010}]}",
        "{upstream: !!str a, license: x}",
        "{upstream: a, license: x, options: {a: !!set {b}}}",
    ],
    ids=["null upstream", "null licence", "huge size", "octal size", "tag", "tag of an option"],
)
def test_what_only_yaml_can_say_is_an_error_with_a_line_and_never_a_crash(record: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(f"version: 1\nupstreams:\n  x: {record}\n")
    try:
        cards, errors = read_registry(path)
    except RegistryError as error:
        cards, errors = [], [error]
    assert cards == [] and errors[0].line == 3 and errors[0].file == str(path) and "line 3" in str(errors[0])
