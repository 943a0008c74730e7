"""Comparisons whose failure says what differed, by how much, in which layer and which utterance.

Shapes: `B` batch, `F` frames, `D` dim.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hubcore.protocol import Upstream, UpstreamOutput
from hubcore.text import plural
from hubcore.upstream import UpstreamBase

BATCH_TOLERANCE = 2e-5
"""Largest difference allowed between two computations of one utterance, relative to the largest value of the layer.

Sums are taken in another order when a batch changes; in float32 that costs a few 1e-6 after two dozen blocks. Padding that
leaks costs 1e-2 and more, so nothing lies in between."""
DTYPE_TOLERANCE = 1e-2
"""The same between a float32 and a float64 run: logarithms of faint energies amplify float32 rounding."""


@contextmanager
def evaluating(upstream: Upstream, *, train: bool = False) -> Iterator[None]:
    """Eval mode (or train mode) and all layers for a while; afterwards everything is as it was.

    A card may make some layers the default (`UpstreamBase.default_layers`), but the checks are about the whole model.
    """
    if not isinstance(upstream, nn.Module):
        yield
        return
    before = [(module, module.training) for module in upstream.modules()]
    layers = upstream.default_layers if isinstance(upstream, UpstreamBase) else None
    upstream.train(train)
    if isinstance(upstream, UpstreamBase):
        upstream.default_layers = None
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
        if isinstance(upstream, UpstreamBase):
            upstream.default_layers = layers


@contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread for a while: inputs of the checks are so short that threads of busy cores wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def layer_title(output: UpstreamOutput, position: int) -> str:
    """Name of a hidden state in messages: its index and its name."""
    return f"layer {output.layers[position]} ({output.layer_names[position]})"


def valid_frames(output: UpstreamOutput, row: int) -> list[Tensor]:
    """The hidden states `(F_i, D)` of one utterance, without what lies beyond its length."""
    frames = int(output.lengths[row])
    return [state[row, :frames] for state in output.hidden_states]


def expect_same_utterance(
    got: UpstreamOutput,
    row: int,
    want: UpstreamOutput,
    want_row: int,
    *,
    what: str,
    tolerance: float = BATCH_TOLERANCE,
) -> None:
    """Raises `AssertionError` unless one utterance has the same frames in two outputs, in every layer.

    A difference may be `tolerance` times the largest absolute value of the layer in `want`; 0 asks for equal bits. `what`
    begins the message.
    """
    if tuple(got.layers) != tuple(want.layers) or len(got.hidden_states) != len(want.hidden_states):
        raise AssertionError(
            f"{what}: the layers are {list(got.layers)} in {len(got.hidden_states)} hidden states, "
            f"expected {list(want.layers)} in {len(want.hidden_states)}."
        )
    frames, expected = int(got.lengths[row]), int(want.lengths[want_row])
    if frames != expected:
        raise AssertionError(f"{what}: utterance {row} has {frames} frames, expected {expected}.")
    complaints: list[str] = []
    pairs = zip(valid_frames(got, row), valid_frames(want, want_row), strict=True)
    for position, (actual, reference) in enumerate(pairs):
        complaint = difference(actual, reference, tolerance=tolerance)
        if complaint:
            complaints.append(f"{layer_title(want, position)} {complaint}")
    if complaints:
        more = f" {len(complaints) - 1} more layers differ." if len(complaints) > 1 else ""
        raise AssertionError(f"{what}: utterance {row} ({frames} frames), {complaints[0]}{more}")


def largest_gap(got: UpstreamOutput, row: int, want: UpstreamOutput, want_row: int) -> float | None:
    """The largest difference of one utterance in two outputs, relative to its layer's largest value; None if frames differ."""
    if int(got.lengths[row]) != int(want.lengths[want_row]):
        return None
    pairs = zip(valid_frames(got, row), valid_frames(want, want_row), strict=True)
    gaps = [(one.double() - other.double()).abs().max() / other.double().abs().max().clamp_min(1e-30) for one, other in pairs]
    return float(torch.stack(gaps).nan_to_num(nan=torch.inf).max())


def expect_same_output(got: UpstreamOutput, want: UpstreamOutput, *, what: str, tolerance: float = 0.0) -> None:
    """Raises `AssertionError` unless two outputs of one batch are the same; `tolerance` as in `expect_same_utterance`."""
    if len(got.lengths) != len(want.lengths):
        raise AssertionError(f"{what}: {len(got.lengths)} utterances came back, expected {len(want.lengths)}.")
    for row in range(len(want.lengths)):
        expect_same_utterance(got, row, want, row, what=what, tolerance=tolerance)


def difference(actual: Tensor, reference: Tensor, *, tolerance: float = 0.0, atol: float = 0.0) -> str:
    """A sentence on what differs between two `(F, D)` tensors; empty if they agree.

    Allowed is `tolerance` times the largest absolute value of `reference`, plus `atol`; with neither, equal bits are expected.

    Example:
        >>> difference(torch.tensor([[1.0, 2.5]]), torch.tensor([[1.0, 2.0]]), tolerance=1e-5)
        'differs by 0.5 at frame 0, dim 1: 0.25 of its largest value 2, allowed is 1e-05.'
        >>> difference(torch.ones(3, 2), torch.ones(3, 2))
        ''
    """
    if actual.shape != reference.shape:
        return f"has shape {tuple(actual.shape)}, expected {tuple(reference.shape)}."
    if not reference.numel():
        return ""
    if not bool(reference.isfinite().all()):
        return "has values that are not finite in the run that it is compared with."
    if not bool(actual.isfinite().all()):
        frame = int((~actual.isfinite()).any(dim=-1).nonzero()[0])
        return f"has values that are not finite, first at frame {frame}."
    gap = (actual.detach().double() - reference.detach().double()).abs()
    worst = float(gap.max())
    scale = float(reference.detach().abs().max())
    if worst <= tolerance * scale + atol:
        return ""
    frame, dim = divmod(int(gap.argmax()), gap.shape[-1])
    relative = worst / scale if scale else float("inf")
    allowed = f"allowed is {tolerance or atol:g}" if tolerance or atol else "equal bits are expected"
    if atol:
        return f"differs by {worst:.3g} at frame {frame}, dim {dim}, {allowed}; the largest value is {scale:.3g}."
    return f"differs by {worst:.3g} at frame {frame}, dim {dim}: {relative:.2g} of its largest value {scale:.3g}, {allowed}."


def expect_finite(output: UpstreamOutput, *, what: str) -> None:
    """Raises `AssertionError` if a hidden state has a NaN or an infinite value."""
    for position, state in enumerate(output.hidden_states):
        bad = ~state.isfinite()
        if bool(bad.any()):
            row, frame, _ = (int(i) for i in bad.nonzero()[0])
            raise AssertionError(
                f"{what}: {layer_title(output, position)} is not finite in {plural(int(bad.sum()), 'value')}, "
                f"the first in utterance {row} at frame {frame}."
            )
