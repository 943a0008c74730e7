"""Products of rows with weights: the numbers are the same by either library, and what is more than a product is called."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from hubcore.nn.products import _ONEDNN, by_onednn, linear, run_linear

with_onednn = pytest.mark.skipif(not _ONEDNN, reason="torch's other library multiplies on this processor")


def relative_error(x: torch.Tensor, exact: torch.Tensor) -> float:
    return float((x - exact).abs().max() / exact.abs().max())


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("rows", [1, 7, 300])
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
    for count in range(6, 1500, 7):
        assert linear(torch.zeros(count, 768), weight).shape == (count, 16)
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


def test_a_layer_with_a_hook_or_another_class_is_called() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    x, layer = torch.randn(300, 768), Doubled(768, 96)
    assert torch.equal(run_linear(layer, x), layer(x))
    hooked = nn.Linear(768, 96)
    hooked.register_forward_hook(lambda *_: torch.zeros(300, 96))
    assert not run_linear(hooked, x).any()
