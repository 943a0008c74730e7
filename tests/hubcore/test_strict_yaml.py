"""YAML from elsewhere: aliases only where another program wrote the file, and never many."""

from __future__ import annotations

import pytest

from hubcore.strict_yaml import StrictYamlError, parse_yaml

LAUGHS = "a: &a [1, 1, 1]\nb: &b [*a, *a, *a]\nc: &c [*b, *b, *b]\nd: [*c, *c, *c]\n"


def test_aliases_of_another_programs_config_are_read() -> None:
    assert parse_yaml("{a: &x [1, 2], b: *x, c: *x}", repeated=6) == {"a": [1, 2], "b": [1, 2], "c": [1, 2]}


@pytest.mark.parametrize(
    ("text", "repeated", "said"),
    [
        ("a: &x 1\nb: *x\n", 0, "line 1: anchors and aliases are not allowed"),
        ("{a: &x [1, 2], b: *x, c: *x}", 5, "line 1: aliases repeat more than 5 values"),
        (LAUGHS, 100, "line 4: aliases repeat more than 100 values"),
        ("a: &x [*x]\n", 1000, "line 1: aliases repeat more than 1000 values"),
    ],
    ids=["none allowed", "one too many", "laughs", "within itself"],
)
def test_other_aliases_are_refused_before_anything_is_built(text: str, repeated: int, said: str) -> None:
    with pytest.raises(StrictYamlError) as caught:
        parse_yaml(text, repeated=repeated)
    assert said in str(caught.value)
