"""Products of rows with weights: the numbers are the same by either library, and what is more than a product is called."""

from __future__ import annotations

import importlib
import platform

import pytest
import torch
from torch import nn
from torch.nn import functional

from hubcore.nn import attend
from hubcore.nn.packed import conv_same, conv_strided
from hubcore.nn.products import by_onednn, linear, run_linear
from hubcore.testing.compare import one_thread

with_onednn = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available(),
    reason="torch's other library multiplies on this processor",
)


def relative_error(x: torch.Tensor, exact: torch.Tensor) -> float:
    return float((x - exact).abs().max() / exact.abs().max())


def watch(monkeypatch: pytest.MonkeyPatch, name: str) -> list[str]:
    """A list that gets a `name` for each call of the function of that name."""
    path, _, function = name.rpartition(".")
    calls, called = [], getattr(importlib.import_module(path), function)

    def watched(*args: object) -> object:
        calls.append(name)
        return called(*args)

    monkeypatch.setattr(name, watched)
    return calls


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("rows", [1, 7, 256, 300, 700])
@torch.inference_mode()
def test_products_equal_those_in_float64(rows: int, gelu: bool) -> None:
    x, layer = torch.randn(rows, 768), nn.Linear(768, 96)
    exact = functional.linear(x.double(), layer.weight.double(), layer.bias.double())
    exact = functional.gelu(exact) if gelu else exact
    assert relative_error(linear(x, layer.weight, layer.bias, gelu=gelu), exact) < 2e-6
    assert relative_error(run_linear(layer, x, gelu=gelu), exact) < 2e-6


@with_onednn
@torch.inference_mode()
def test_windows_that_overlap_and_parts_of_a_matrix_are_multiplied_right() -> None:
    windows, weight = torch.randn(4000).unfold(0, 1024, 4), torch.randn(16, 2048)
    exact = windows.double() @ weight[:, :1024].double().t()
    assert by_onednn(windows, weight[:, :1024].contiguous()) and not by_onednn(windows, weight[:, :1024])
    assert relative_error(linear(windows, weight[:, :1024]), exact) < 2e-6
    assert relative_error(linear(windows, weight[:, :1024].contiguous()), exact) < 2e-6


@with_onednn
@torch.inference_mode()
def test_few_sizes_are_multiplied_whatever_the_numbers_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, weight = set(), torch.randn(16, 768)
    multiply = torch.ops.mkldnn._linear_pointwise

    def watched(rows: torch.Tensor, *rest: object) -> torch.Tensor:
        sizes.add(len(rows))
        return multiply(rows, *rest)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", watched)
    with one_thread():
        for count in range(6, 1500, 7):
            assert linear(torch.zeros(count, 768), weight).shape == (count, 16)
        assert sizes == set(range(16, 257, 16))
        for count in range(6, 1500, 7):
            assert linear(torch.zeros(1536 + count).unfold(0, 1536, 1)[:count], torch.ones(16, 1536)).shape == (count, 16)
        assert len(sizes) <= 31


@with_onednn
def test_only_plain_float32_products_on_a_cpu_without_gradients_go_to_onednn() -> None:
    x, weight = torch.randn(300, 768), torch.randn(96, 768)
    assert not by_onednn(x, weight)
    with torch.inference_mode():
        assert by_onednn(x, weight)
        assert not by_onednn(x.double(), weight.double()) and not by_onednn(x[:3], weight)
        with torch.autocast("cpu", torch.bfloat16):
            assert not by_onednn(x, weight)


@with_onednn
@pytest.mark.parametrize("frames", [256, 300, 700])
@pytest.mark.parametrize("biased", ["plain", "bias", "gate"])
@torch.inference_mode()
def test_attention_by_products_is_torchs(frames: int, biased: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubcore.nn.attention.mkl_is_slow", lambda: True)
    made = watch(monkeypatch, "hubcore.nn.attention._attend_by_products")
    q, k, v = (3 * torch.randn(frames + 20, 32) for _ in range(3))
    bias = None if biased == "plain" else torch.randn(2, frames, frames)
    gate = torch.rand(frames + 20, 2) if biased == "gate" else None
    mixed = attend(q, k, v, [frames, 20], 2, bias, gate)
    wide = [None if x is None else x.double() for x in (q, k, v, bias, gate)]
    assert relative_error(mixed, attend(*wide[:3], [frames, 20], 2, *wide[3:])) < 2e-6  # type: ignore[arg-type]
    assert len(made) == 1, "that of 20 frames, and those in float64, are torch's"


@with_onednn
@pytest.mark.parametrize(("frames", "dim", "kernel", "groups"), [(300, 96, 128, 2), (700, 96, 19, 6), (400, 64, 31, 64)])
@torch.inference_mode()
def test_convolutions_in_the_rows_own_layout_are_torchs(
    frames: int, dim: int, kernel: int, groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = watch(monkeypatch, "hubcore.nn.packed._conv_of_rows")
    rows, bias, scale = torch.randn(frames + 9, dim), torch.randn(dim), torch.rand(kernel)
    weight = torch.randn(dim, dim // groups, kernel)
    for factor in (None, scale):
        got = conv_same(rows, [frames, 9], weight, bias, groups, factor)
        exact = conv_same(
            rows.double(), [frames, 9], weight.double(), bias.double(), groups, None if factor is None else factor.double()
        )
        assert got.shape == exact.shape and relative_error(got, exact) < 2e-6
    assert len(made) == 2


@with_onednn
@torch.inference_mode()
def test_strided_convolutions_in_the_rows_own_layout_are_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    made = watch(monkeypatch, "hubcore.nn.packed._conv_of_rows")
    rows, weight, bias = torch.randn(1100, 16), torch.randn(24, 16, 3), torch.randn(24)
    for stride in (1, 2, 4):
        got, counts = conv_strided(rows, [501, 599], weight, bias, stride=stride, padding=(1, 1))
        exact, _ = conv_strided(rows.double(), [501, 599], weight.double(), bias.double(), stride=stride, padding=(1, 1))
        assert relative_error(got, exact) < 2e-6
        assert len(got) == sum(counts)
    assert len(made) == 3


def test_a_layer_with_a_hook_or_another_class_is_called() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    x, layer = torch.randn(300, 768), Doubled(768, 96)
    assert torch.equal(run_linear(layer, x), layer(x))
    hooked = nn.Linear(768, 96)
    hooked.register_forward_hook(lambda *_: torch.zeros(300, 96))
    assert not run_linear(hooked, x).any()
