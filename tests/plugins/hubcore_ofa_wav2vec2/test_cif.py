"""Integrate-and-fire gives what the original's function gives, gradients included, and never sees its batch-mates."""

from __future__ import annotations

import json

import pytest
import torch

from hubcore.errors import OptionError
from hubcore_ofa_wav2vec2 import fire, integrate_and_fire, mix
from tests.gold import gold_arrays, gold_texts

CASES: dict[str, dict[str, object]] = json.loads(gold_texts("cif_function_cases.npz")["meta_json"])
OUTPUTS = ("cif_out", "cif_lengths", "alpha", "alpha_sum", "alpha_std", "delays", "tail_weights", "fire_index", "reverse_alpha")
TOLERANCE = 2e-5
LONG_TOLERANCE = 1e-3  # the original's running sum in float32 is that far off there; ours is in float64


def arrays() -> dict[str, torch.Tensor]:
    return gold_arrays("cif_function_cases.npz")


def options_of(case: str) -> dict[str, object]:
    """A case's options in our spelling."""
    meta = CASES[case]
    options: dict[str, object] = {name: meta[name] for name in ("beta", "gamma") if name in meta}
    if "tail_thres" in meta:
        options["tail_threshold"] = meta["tail_thres"]
    # In training the original leaves the unfinished sum behind the last output of the shorter rows.
    options["tail"] = "keep" if meta.get("is_training") is False else "partial"
    for name in ("padding_mask", "target_lengths"):
        if f"{case}/in/{name}" in arrays():
            given = arrays()[f"{case}/in/{name}"]
            options[name] = given.bool() if name == "padding_mask" else given
    return options


@pytest.mark.parametrize("case", CASES)
def test_equals_the_original(case: str) -> None:
    gold = arrays()
    frames = gold[f"{case}/in/input"].clone().requires_grad_()
    alpha = gold[f"{case}/in/alpha"].clone().requires_grad_()
    out = integrate_and_fire(frames, alpha, **options_of(case))
    if f"{case}/raises" in gold_texts("cif_function_cases.npz"):  # a row that never fires is no reason to crash
        assert out.reverse_alpha.shape[0] == len(frames)
        return
    compared = 0
    for name in OUTPUTS:
        if f"{case}/out/{name}" not in gold:
            continue
        wanted, got = gold[f"{case}/out/{name}"], getattr(out, name).detach()
        assert got.shape == wanted.shape, name
        compared += 1
        if case == "long" and name in ("fire_index", "delays", "reverse_alpha"):
            continue  # a fire position there is less than a unit of float32 from a frame's end
        scale = max(1.0, float(wanted.double().abs().nan_to_num().max())) if wanted.numel() else 1.0
        tolerance = LONG_TOLERANCE if case == "long" else TOLERANCE * scale
        assert torch.allclose(got.double(), wanted.double(), rtol=0, atol=tolerance, equal_nan=True), name
    assert compared >= 7
    if f"{case}/grad/G" in gold:
        (out.cif_out * gold[f"{case}/grad/G"]).sum().backward()
        for got, name in ((frames.grad, "input"), (alpha.grad, "alpha")):
            wanted = gold[f"{case}/grad/{name}"]
            tolerance = LONG_TOLERANCE if case == "long" else TOLERANCE * max(1.0, float(wanted.abs().max()))
            assert (got - wanted).abs().max() <= tolerance, f"gradient of {name}"


def test_mixing_equals_the_original() -> None:
    gold = arrays()
    frames, alpha = gold["mix/in/input"], gold["mix/in/alpha"]
    for index, lambd in enumerate(gold["mix/in/lambdas"].double()):
        given = min(float(lambd), 1.99999)  # the original stores 2 as that
        mixed = mix(alpha.flatten(), torch.tensor([given] * 2, dtype=torch.float64), [40, 40])
        out = integrate_and_fire(frames, mixed.view(2, 40), tail="partial")
        wanted = gold[f"mix/out/{index}/mixed_alpha"]
        assert (mixed.view(2, 40) - wanted).abs().max() <= 1e-6, f"lambda {float(lambd)}"
        assert out.cif_lengths.tolist() == gold[f"mix/out/{index}/cif_lengths"].tolist()
        assert torch.allclose(out.cif_out, gold[f"mix/out/{index}/cif_out"], rtol=0, atol=2e-5)


def random_batch(seed: int, lengths: list[int], scale: float = 0.6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(sum(lengths), 5, generator=generator), scale * torch.rand(sum(lengths), generator=generator)


@pytest.mark.parametrize("tail", ["drop", "keep", "partial"])
@pytest.mark.parametrize("scale", [0.02, 0.6, 3.3])
def test_an_utterance_gives_the_same_bits_in_any_batch(tail: str, scale: float) -> None:
    lengths = [1, 50, 7, 300]
    frames, alpha = random_batch(1, lengths, scale)
    together = fire(frames, alpha, lengths, tail=tail)
    at, seen = 0, 0
    for length, count in zip(lengths, together.lengths, strict=True):
        alone = fire(frames[at : at + length], alpha[at : at + length], [length], tail=tail)
        assert alone.lengths == [count]
        assert torch.equal(alone.frames, together.frames[seen : seen + count])
        assert torch.equal(alone.spans, together.spans[seen : seen + count])
        at, seen = at + length, seen + count


def test_the_mass_is_conserved_and_spans_follow_each_other() -> None:
    frames, alpha = random_batch(2, [80])
    fired = fire(torch.ones_like(frames), alpha, [80], tail="drop")
    assert torch.allclose(fired.frames, torch.ones_like(fired.frames), atol=1e-6)
    assert fired.lengths == [int(alpha.double().sum())]
    assert fired.spans[0, 0] == 0
    assert torch.equal(fired.spans[1:, 0], fired.spans[:-1, 1])
    assert (fired.spans[:, 1] > fired.spans[:, 0]).all()
    mass = torch.cat([torch.zeros(1, dtype=torch.float64), alpha.double().cumsum(0)])
    whole = fired.spans[:, 1].floor().long()
    at_end = mass[whole] + (fired.spans[:, 1] - whole) * alpha.double()[whole.clamp_max(79)]
    assert torch.allclose(at_end, torch.arange(1, len(at_end) + 1, dtype=torch.float64))


def test_too_little_mass_gives_one_whole_frame() -> None:
    frames = torch.tensor([[1.0], [3.0]])
    weak = fire(frames, torch.tensor([0.1, 0.3]), [2])
    assert weak.lengths == [1]
    assert weak.frames.item() == pytest.approx((0.1 * 1 + 0.3 * 3) / 0.4)
    assert weak.spans.tolist() == [[0.0, 2.0]]
    none = fire(frames, torch.zeros(2), [2])
    assert none.frames.item() == pytest.approx(2.0)
    assert fire(frames, torch.zeros(2), [2], at_least_one=False).lengths == [0]


def test_a_kept_tail_is_a_whole_frame() -> None:
    frames, alpha = torch.ones(4, 3), torch.full((4,), 0.4)  # 1.6: one output and 0.6 left
    kept = fire(frames, alpha, [4], tail="keep")
    assert kept.lengths == [2]
    assert torch.allclose(kept.frames, torch.ones(2, 3))
    assert kept.spans[-1, 1] == 4
    assert fire(frames, alpha, [4], tail="drop").lengths == [1]
    assert fire(frames, alpha, [4], tail="keep", tail_threshold=0.7).lengths == [1]


def test_gradients_are_those_of_differences() -> None:
    frames, alpha = random_batch(3, [9, 14])
    assert torch.autograd.gradcheck(
        lambda f, a: fire(f, a, [9, 14]).frames, (frames.double().requires_grad_(), alpha.double().requires_grad_()), eps=1e-7
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_sums_are_never_made_in_half_precision(dtype: torch.dtype) -> None:
    # 3,000 halves: a running sum in 16 bits would stop growing at 256 or 2,048.
    fired = fire(torch.ones(3000, 2, dtype=dtype), torch.full((3000,), 0.5, dtype=dtype), [3000])
    assert fired.lengths == [1500]
    assert fired.frames.dtype == dtype
    assert (fired.frames == 1).all()


def test_weights_that_make_no_sense_are_errors() -> None:
    with pytest.raises(OptionError, match="negative weight"):
        integrate_and_fire(torch.zeros(1, 3, 2), torch.tensor([[0.5, -0.1, 0.5]]))
    with pytest.raises(OptionError, match=r"\(B, F, C\) and \(B, F\)"):
        integrate_and_fire(torch.zeros(1, 3, 2), torch.zeros(1, 4))
