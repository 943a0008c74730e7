"""Options as data: what a class takes, read from its signatures, and texts typed by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from torch import Tensor

from hubcore import UpstreamBase
from hubcore.errors import OptionError
from hubcore.fields import Probability
from hubcore.options import Option, option_names, options_of, parse, parse_repeated
from hubcore_fbank import FbankUpstream
from hubcore_ofa_wav2vec2 import OfaWav2Vec2Upstream
from hubcore_wav2vec2 import Wav2Vec2Upstream


@dataclass(frozen=True)
class ToyConfig:
    """A config."""

    width: int = 3
    """Columns of the output. More is wider."""


class ToyUpstream(UpstreamBase):
    """An upstream that takes options at each of the three places."""

    config_class = ToyConfig
    configs = {"toy": ToyConfig()}  # noqa: RUF012

    def __init__(self, config: ToyConfig, *, mode: Literal["fast", "exact"] = "fast") -> None:
        """One around a config.

        Args:
            config: its shape.
            mode: how. Exact is slow.
        """

    def forward(self, wavs: Any, lengths: Any = None, *, layers: Any = None, warmth: float = 1.0) -> Any:
        """Runs."""


class Foreign:
    """Inherits nothing, and hides its options."""

    @classmethod
    def from_checkpoint(cls, source: str, **options: Any) -> Any:
        """Loads."""

    def __call__(self, wavs: Any, lengths: Any = None, *, layers: Any = None) -> Any:
        """Runs."""


def test_options_come_from_config_constructor_and_call() -> None:
    found = {option.name: option for option in options_of(ToyUpstream) or ()}
    assert sorted(found) == ["config", "layers", "mode", "warmth", "width"]
    assert (found["width"].type, found["width"].default) == ("a whole number", 3)
    assert found["width"].doc == "Columns of the output."
    assert (found["mode"].type, found["mode"].doc) == ("one of fast, exact", "how.")
    assert [name for name, option in found.items() if option.at_call] == ["warmth"]
    assert not found["warmth"].at_load


@pytest.mark.parametrize("cls", [FbankUpstream, Wav2Vec2Upstream, OfaWav2Vec2Upstream])
@pytest.mark.parametrize("with_weights", [True, False])
def test_the_list_is_what_loading_takes_and_all_of_it_is_documented(cls: type[Any], with_weights: bool) -> None:
    options = options_of(cls, with_weights=with_weights) or ()
    assert {option.name for option in options if option.at_load} == option_names(cls, with_weights=with_weights)
    assert [option.name for option in options if not option.doc or not option.type] == []


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (float, "5e-1", 0.5),
        (int, "40", 40),
        (bool, "false", False),
        (str, "1", "1"),
        (str, "a: [", "a: ["),
        (int | None, "null", None),
        (Literal["yes", "no"], "no", "no"),
        (Sequence[float], "0.2,1", (0.2, 1.0)),
        (Sequence[int], "[4, -1]", (4, -1)),
        (tuple[float, float], "0,1", (0.0, 1.0)),
        (tuple[int, ...], "3", (3,)),
        (Probability, "0.5", 0.5),
        (Any, "true", True),
        (Any, "[4, 8]", [4, 8]),
    ],
)
def test_a_text_is_typed_by_the_annotation(annotation: Any, text: str, value: Any) -> None:
    read = Option("name", annotation, None).read(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("annotation", "text", "needs"),
    [
        (float, ".nan", "a number"),
        (int, "1.5", "a whole number"),
        (bool, "1", "true or false"),
        (Literal["a", "b"], "c", "one of a, b"),
        (tuple[float, float], "1", "a list (2 values, each a number)"),
        (Probability, "1", "a number from 0 to below 1"),
        (float | Sequence[float] | Tensor | None, "high", "a number or a list (each a number)"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_type(annotation: Any, text: str, needs: str) -> None:
    with pytest.raises(OptionError) as caught:
        Option("name", annotation, None).read(text)
    assert str(caught.value) == f"name={text}: name must be {needs}, but is {text!r} instead."


def test_a_misspelt_option_names_the_nearest() -> None:
    with pytest.raises(OptionError, match=r"no option called 'lambda'\. The nearest are lambd"):
        parse(OfaWav2Vec2Upstream, ["lambda=0.5"])


def test_an_option_is_a_name_and_a_value_and_given_once() -> None:
    with pytest.raises(OptionError, match="not of the form name=value"):
        parse(FbankUpstream, ["cmvn"])
    with pytest.raises(OptionError, match="cmvn is given 2 times"):
        parse(FbankUpstream, ["cmvn=true", "cmvn=false"])
    assert parse_repeated(FbankUpstream, ["cmvn=true", "cmvn=false"]) == {"cmvn": [True, False]}


def test_a_class_that_hides_its_options_gets_whatever_is_given() -> None:
    assert options_of(Foreign) is None
    assert parse(Foreign, ["depth=3", "mode=fast"]) == {"depth": 3, "mode": "fast"}
