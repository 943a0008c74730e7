"""Every check turns red, with the right words, for an upstream that is broken in the property it proves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hubcore import Featurizer
from hubcore.testing import CHECKS, check_upstream
from tests.conformance import broken_arguments, broken_batches, broken_modules, broken_outputs, broken_training
from tests.conformance.breaking import BROKEN
from tests.toys import Energies, ToyUpstream, WrappedEnergies

pytestmark = pytest.mark.slow

# Importing these fills BROKEN.
SOURCES = (broken_arguments, broken_batches, broken_modules, broken_outputs, broken_training)


def test_every_check_has_a_broken_upstream() -> None:
    assert {check for check, _, _ in BROKEN} == set(CHECKS)


@pytest.mark.parametrize(("check", "make", "words"), BROKEN, ids=[f"{check}-{make.__name__}" for check, make, _ in BROKEN])
def test_check_turns_red(check: str, make: Callable[[], Any], words: str) -> None:
    with pytest.raises(AssertionError) as caught:
        CHECKS[check](make())
    assert words in str(caught.value)


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("make", [ToyUpstream, Energies, WrappedEnergies])
def test_a_good_upstream_passes(name: str, make: Callable[[], Any]) -> None:
    CHECKS[name](make())


class WithTwoConvolutions(ToyUpstream):
    """As many convolutions as blocks, both in module lists: only the blocks may be left out."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList([self.conv, nn.Conv1d(8, 8, 1)])

    def frames(self, row: Tensor) -> Tensor:
        return self.convolutions[1](super().frames(row).T).T


def test_convolutions_are_not_taken_for_blocks() -> None:
    CHECKS["layers_stop_early"](WithTwoConvolutions())


class WiderBlock(broken_modules.Edited):
    """A toy whose last layer is twice as wide as the others."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden_sizes = (8, 8, 16)

    def edit(self, output: Any) -> Any:
        *before, last = output.hidden_states
        return broken_modules.replace(output, hidden_states=(*before, torch.cat([last, -last], dim=-1)))


def test_featurizer_check_knows_layers_of_different_widths() -> None:
    CHECKS["featurizer"](WiderBlock())


class Silent(Featurizer):
    """A featurizer whose weights learn nothing."""

    def padded(self, out: Any) -> Any:
        padded, lengths = super().padded(out)
        return padded.detach() + 0 * self.weights.sum(), lengths


class Constant(Featurizer):
    """A featurizer whose weights cannot learn."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        weights = self.weights.detach()
        del self.weights
        self.weights = weights


class Uniform(Featurizer):
    """A featurizer that takes the mean, whatever its weights are, but can be differentiated."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.other = nn.Parameter(torch.zeros(()))

    def padded(self, out: Any) -> Any:
        padded, lengths = super().padded(out)
        return padded.detach() + 0 * self.other, lengths


class Summing(Featurizer):
    """A featurizer that sums instead of averaging."""

    def padded(self, out: Any) -> Any:
        padded, lengths = super().padded(out)
        return padded * len(self.layers), lengths


class Untrimmed(Featurizer):
    """A featurizer that hands out padding."""

    def forward(self, wavs: Any, out: Any) -> Any:
        return list(self.padded(out)[0])


class Stacked(Featurizer):
    """A featurizer that returns one tensor."""

    def forward(self, wavs: Any, out: Any) -> Any:
        return self.padded(out)[0]


class FullLengths(Featurizer):
    """A featurizer that takes all frames for valid."""

    def padded(self, out: Any) -> Any:
        padded, lengths = super().padded(out)
        return padded, torch.full_like(lengths, padded.shape[1])

    def forward(self, wavs: Any, out: Any) -> Any:
        return [row[:n] for row, n in zip(self.padded(out)[0], out.lengths.tolist(), strict=True)]


@pytest.mark.parametrize(
    ("featurizer", "words"),
    [
        (Silent, "the gradient of the featurizer's weights is zero"),
        (Constant, "the featurizer's weights are not a parameter that can be trained"),
        (Uniform, "the featurizer's weights receive no finite gradient"),
        (Summing, "compared with the mean of the layers: utterance 0 differs by"),
        (Untrimmed, "utterance 0 has shape (20, 8), expected (13, 8)"),
        (Stacked, "the featurizer gave a Tensor"),
        (FullLengths, "padded() gave the lengths [20, 20, 20]"),
    ],
)
def test_featurizer_check_sees_a_broken_featurizer(
    featurizer: type[Featurizer], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubcore.testing.featurizer_checks.Featurizer", featurizer)
    with pytest.raises(AssertionError) as caught:
        CHECKS["featurizer"](ToyUpstream())
    assert words in str(caught.value)


def test_featurizer_that_sums_any_widths_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    class Careless:
        def __init__(self, *arguments: Any, **options: Any) -> None: ...

        def __call__(self, wavs: Any, out: Any) -> Any:
            return []

    monkeypatch.setattr("hubcore.testing.featurizer_checks.Featurizer", Careless)
    with pytest.raises(AssertionError, match=r"summed layers of the widths \(8, 8, 16\)"):
        CHECKS["featurizer"](WiderBlock())


def test_checks_leave_the_upstream_as_it_was() -> None:
    toy = ToyUpstream()
    toy.blocks[0].eval()
    before = {name: value.clone() for name, value in toy.state_dict().items()}
    modes = [module.training for module in toy.modules()]
    random = torch.random.get_rng_state()
    assert check_upstream(toy).ok
    assert [module.training for module in toy.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in toy.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in toy.parameters())
    assert torch.equal(torch.random.get_rng_state(), random)
    assert not any(module._forward_hooks for module in toy.modules())
