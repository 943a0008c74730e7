"""What an upstream returns: packed frames that are padded when somebody reads them padded, and not before."""

from __future__ import annotations

import weakref

import pytest
import torch

from hubcore import hub, ragged
from hubcore.layer_sum import KeptStates
from hubcore.protocol import UpstreamOutput
from tests.gold import gold_wavs
from tests.toys import ToyUpstream

WAVS = [gold_wavs()[1], gold_wavs()[0]]
MODEL = hub.load("wav2vec2_tiny_prompts")


@torch.no_grad()
def test_nothing_is_padded_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    out = MODEL(WAVS)
    wanted = MODEL(WAVS).hidden_states

    def forbidden(*_: object) -> None:
        raise RuntimeError("padded")

    with monkeypatch.context() as patch:
        patch.setattr(ragged, "pad_packed", forbidden)
        states, lengths = out.packed()
        assert lengths.tolist() == [94, 34] and [tuple(state.shape) for state in states] == [(128, 96)] * 5
        moved = out.to(dtype=torch.float64)
        assert moved.packed()[0][1].dtype == torch.float64 and "(2, 94, 96)" in repr(out) and out.mask.sum() == 128
        for item, rows in enumerate(out.unpad()):
            for row, padded in zip(rows, wanted, strict=True):
                assert torch.equal(row, padded[item, : len(row)])
        with pytest.raises(RuntimeError, match="padded"):
            assert moved.hidden_states
    for state, padded in zip(states, wanted, strict=True):
        assert torch.equal(state, torch.cat([padded[0], padded[1, :34]])) and not padded[1, 34:].any()
    assert out.last_hidden_state is out.hidden_states[-1]


@torch.no_grad()
def test_packed_states_are_let_go_as_they_are_padded() -> None:
    out = MODEL(WAVS)
    packed = [weakref.ref(state) for state in out.packed()[0]]
    assert out.hidden_states and not any(state() is not None for state in packed)


@torch.no_grad()
@pytest.mark.parametrize("wavs", [WAVS, WAVS[:1]])
def test_an_output_that_was_padded_from_the_start_can_be_packed(wavs: list[torch.Tensor]) -> None:
    out = ToyUpstream()(wavs)
    states, lengths = out.packed()
    for state, padded in zip(states, out.hidden_states, strict=True):
        assert torch.equal(state, torch.cat([rows[:count] for rows, count in zip(padded, lengths.tolist(), strict=True)]))


def test_gradients_pass_wherever_the_states_are_first_read() -> None:
    read: list[UpstreamOutput] = []
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        read.append(MODEL(WAVS, layers=[1]))
        with mode():
            assert read[-1].hidden_states
    wanted, *others = [
        torch.autograd.grad(out.last_hidden_state.square().sum(), next(MODEL.model.projection.parameters()))[0] for out in read
    ]
    assert all(torch.equal(gradient, wanted) for gradient in others)
    with torch.inference_mode():
        out = MODEL(WAVS)
    assert out.last_hidden_state.is_inference()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_large_hidden_state_is_kept_in_memory_of_its_own(dtype: torch.dtype) -> None:
    state = torch.randn(3000, 800, generator=torch.Generator().manual_seed(0)).to(dtype)
    kept = KeptStates([0])
    with torch.no_grad():
        kept.add(0, state)
    (own,) = kept.states()
    assert own.dtype == dtype
    assert torch.equal(own, state)
    assert own.data_ptr() != state.data_ptr()
