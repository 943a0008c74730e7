"""Dataclasses are checked against their annotations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest

from hubcore.errors import OptionError
from hubcore.fields import Above, AtLeast, Between, Depth, Probability, Size, build, check_fields, convert

if TYPE_CHECKING:
    from nowhere import Nothing  # type: ignore[import-not-found]


@dataclass(frozen=True)
class Inner:
    rate: Annotated[float, Above(0)] = 1.0

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Config:
    dim: Size = 8
    depth: Depth = 2
    dropout: Probability = 0.0
    share: Annotated[float, Between(0, 1, "(]")] = 1.0
    open: Annotated[float, Between(0, 1, "()")] = 0.5
    power: Annotated[float, AtLeast(0)] = 1.0
    norm: Literal["group", "layer"] = "group"
    bias: bool = False
    size: Annotated[int, Above(1)] | None = None
    rows: Annotated[tuple[tuple[Size, Size], ...], Between(1, 3)] = ((1, 2),)
    pair: tuple[float, float] = (0.0, 1.0)
    text: str = ""
    inner: Inner = field(default_factory=Inner)
    more: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)


def test_lists_become_tuples_and_whole_numbers_floats() -> None:
    config = Config(rows=[[1, 2], [3, 4]], pair=[0, 1], dropout=0, inner={"rate": 2})  # type: ignore[arg-type]
    assert config.rows == ((1, 2), (3, 4)) and isinstance(config.rows[0], tuple)
    assert [type(value) for value in (*config.pair, config.dropout, config.inner.rate)] == [float] * 4


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"dim": 0}, "dim must be a whole number from 1 to 65,536, but is 0 instead."),
        ({"dim": 2**62}, "dim must be a whole number from 1 to 65,536, but is 4611686018427387904 instead."),
        ({"dim": True}, "dim must be a whole number"),
        ({"dim": 8.0}, "dim must be a whole number"),
        ({"depth": 10_000_000}, "depth must be a whole number from 1 to 1,000"),
        ({"dropout": 1.0}, "dropout must be a number from 0 to below 1, but is 1.0 instead."),
        ({"dropout": float("nan")}, "but is nan instead"),
        ({"dropout": "0.5"}, "but is '0.5' instead"),
        ({"dropout": False}, "but is False instead"),
        ({"dropout": 10**400}, "dropout must be a number"),
        ({"share": 0}, "share must be a number above 0 and at most 1, but is 0 instead."),
        ({"open": 1}, "open must be a number above 0 and below 1"),
        ({"power": -0.1}, "power must be a number of at least 0"),
        ({"power": float("inf")}, "power must be a number of at least 0"),
        ({"norm": "batch"}, "norm must be one of group, layer, but is 'batch' instead."),
        ({"bias": 1}, "bias must be true or false, but is 1 instead."),
        ({"size": 1}, "size must be a whole number above 1 or null, but is 1 instead."),
        (
            {"rows": []},
            r"rows must be a list \(each a list \(2 values, each a whole number from 1 to 65,536\)\) from 1 to 3 items",
        ),
        ({"rows": [[1, 2]] * 4}, "from 1 to 3 items"),
        ({"rows": [[1, 0]]}, "rows must be a list"),
        ({"rows": [[1, 2, 3]]}, "rows must be a list"),
        ({"rows": 5}, "rows must be a list"),
        ({"pair": 0.5}, "pair must be a list"),
        ({"text": None}, "text must be text, but is None instead."),
        ({"more": []}, "more must be keys with values"),
        ({"inner": {"rate": 0}}, "inner.rate must be a number above 0"),
        ({"inner": {"rat": 1}}, "inner.rat is unknown; inner has no key 'rat'. The nearest are rate"),
        ({"text": "long" * 1000, "dim": "x" * 1000}, "dim must be a whole number.{20,130}$"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        Config(**values)


def test_values_at_their_limits_are_taken() -> None:
    config = Config(dim=65536, depth=1, dropout=0.999, share=1, power=0, size=2, rows=((1, 2),) * 3)
    assert (config.size, config.share, len(config.rows)) == (2, 1.0, 3)


def test_annotations_that_cannot_be_resolved_are_not_checked() -> None:
    @dataclass(frozen=True)
    class Odd:
        other: Nothing = None

        def __post_init__(self) -> None:
            check_fields(self)

    assert Odd(3).other == 3


def test_plain_data_is_read_more_loosely_and_names_its_place() -> None:
    config = build(
        Config, {"dropout": "5e-1", "rows": [[3, 4]], "inner": {"rate": 3}}, prefix="model", where=lambda _: "a.yaml"
    )
    assert (config.dropout, config.rows, config.inner.rate) == (0.5, ((3, 4),), 3.0)
    assert convert(3, tuple[int, ...], "x", lambda _: "a.yaml") == (3,)
    start = Config(dim=5)
    assert build(Config, {"depth": 3}, prefix="model", where=lambda _: "", start=start) == Config(dim=5, depth=3)
    for values, said in (
        ({"dropout": 2}, r"a.yaml: model.dropout must be a number from 0 to below 1, but is 2 instead"),
        ({"inner": {"rate": -1}}, r"a.yaml: model.inner.rate must be a number above 0"),
        ({"dimm": 1}, r"a.yaml: model.dimm is unknown; model has no key 'dimm'. The nearest are dim"),
        (3, r"a.yaml: model must be keys with values, but is 3 instead"),
    ):
        with pytest.raises(OptionError, match=said):
            build(Config, values, prefix="model", where=lambda _: "a.yaml")
