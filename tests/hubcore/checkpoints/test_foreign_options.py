"""A value of a foreign config that is of the wrong type: the message names the option and shows the value."""

from __future__ import annotations

from typing import Any

import pytest

from hubcore.checkpoints.foreign_options import read_options

OPTIONS = {"num_layers": ("encoder_layers", 12), "dropout": ("hidden_dropout", 0.1), "conv_bias": ("conv_bias", False)}


@pytest.mark.parametrize("value", [None, "abc", 1.5, [1], {}, True, ""])
def test_what_is_no_whole_number_is_named(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^encoder_layers: .* is not a whole number$"):
        read_options({"encoder_layers": value}, OPTIONS)


@pytest.mark.parametrize("value", [None, "abc", [1], {}, True, "", 10**400])
def test_what_is_no_number_is_named(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^hidden_dropout: .* is not a number$"):
        read_options({"hidden_dropout": value}, OPTIONS)


@pytest.mark.parametrize("value", ["abc", [1], {}, 2])
def test_what_is_neither_true_nor_false_is_named(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^conv_bias: .* is neither true nor false$"):
        read_options({"conv_bias": value}, OPTIONS)


def test_texts_of_an_old_namespace_are_read() -> None:
    values = read_options({"encoder_layers": "3", "hidden_dropout": "0.5", "conv_bias": "True"}, OPTIONS)
    assert values == {"num_layers": 3, "dropout": 0.5, "conv_bias": True}
    assert read_options({"hidden_dropout": 0}, OPTIONS)["dropout"] == 0.0
