"""`check_reference` accepts the numbers of the original and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hubcore.errors import OptionError
from hubcore.testing import check_reference, speech_like
from tests.conformance.broken_batches import PaddedMoments
from tests.toys import ToyUpstream

WAVS = [speech_like(2000, seed=1), speech_like(900, seed=2), speech_like(1400, seed=3)]


@torch.no_grad()
def reference(upstream: Any, **options: Any) -> list[list[Tensor]]:
    return [[state[0].clone() for state in upstream.eval()([wav], **options).hidden_states] for wav in WAVS]


def complaint(upstream: Any, states: list[Any], atol: float = 1e-5, **options: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        check_reference(upstream, WAVS, states, atol, **options)
    return str(caught.value)


def test_the_right_numbers_pass_in_both_forms_and_the_mode_stays() -> None:
    toy = ToyUpstream()
    states, last = reference(toy), reference(toy, layers=[-1])
    toy.train()
    check_reference(toy, WAVS, states, atol=1e-5)
    check_reference(toy, WAVS, [torch.stack(layers) for layers in states], atol=1e-5)
    check_reference(toy, WAVS, last, atol=1e-5, layers=[-1])
    assert toy.training


def test_one_wrong_number_is_named() -> None:
    toy = ToyUpstream()
    states = reference(toy)
    states[1][2][7, 3] += 2e-3
    said = complaint(toy, states)
    assert said.startswith(
        "utterance 1 alone, layer 2 (block_2) differs by 0.002 at frame 7, dim 3, allowed is 1e-05; the largest"
    )
    check_reference(toy, WAVS, states, atol=3e-3)


def test_the_limit_is_absolute() -> None:
    toy = ToyUpstream()
    states = reference(toy)
    states[0][0] *= 1e6  # a relative limit would let a large value allow a large difference
    assert "differs by" in complaint(toy, states, atol=1.0)


def test_a_model_whose_padding_leaks_is_right_alone_only() -> None:
    broken = PaddedMoments()
    assert complaint(broken, reference(broken)).startswith("utterance 1 in a batch of 3, layer 0 (input) differs by")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda states: [layers[:2] for layers in states], "there are 3 hidden states, the original has 2"),
        (lambda states: [[state[:-1] for state in layers] for layers in states], r"has shape (123, 8), expected (122, 8)"),
        (lambda states: [[state * float("nan") for state in layers] for layers in states], "values that are not finite"),
    ],
)
def test_other_shapes_and_no_numbers_are_errors(change: Any, words: str) -> None:
    assert words in complaint(ToyUpstream(), change(reference(ToyUpstream())))


@pytest.mark.parametrize("count", [0, 2])
def test_nothing_to_compare_is_an_error(count: int) -> None:
    with pytest.raises(OptionError, match="Give one waveform or more, and for each the hidden states"):
        check_reference(ToyUpstream(), WAVS[:count], [[torch.zeros(1, 8)]][:count], atol=1e-5)
