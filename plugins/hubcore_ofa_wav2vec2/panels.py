"""Panels of an OFA wav2vec 2.0 for `hubcore plot`: alpha, and begin and end of compressed frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from hubcore.panels import Panel, Row, Spans, Steps

_NAMES = {"lambd": "λ"}


def draw_frames(upstream: Any, wav: Tensor, variants: Sequence[Mapping[str, Any]]) -> Iterator[Panel]:
    """Alpha of each convolutional frame, and the compressed frames of each variant.

    Example:
        >>> import torch
        >>> from hubcore import hub
        >>> model = hub.load("ofa_wav2vec2_tiny_prompts")
        >>> [panel.label.split()[0] for panel in draw_frames(model, torch.randn(16000), [{"lambd": 0.0}])]
        ['alpha', 'frames']
    """
    # The input of the first block is there as soon as the frames are: no block runs.
    outputs = [upstream([wav], layers=[0], **variant) for variant in variants or ({},)]
    alpha = outputs[0].extras["alpha"][0].double().detach().numpy()
    period = upstream.model.extractor.stride / upstream.sample_rate
    edges = np.arange(len(alpha) + 1) * period
    yield Steps("alpha (outputs\na frame)", f"alpha, each {1000 * period:g} ms", alpha, edges)
    if variants:
        yield Spans("frames", tuple(map(_row, variants, outputs)))


def _row(variant: Mapping[str, Any], out: Any) -> Row:
    label = ", ".join(f"{_NAMES.get(name, name)} = {value:g}" for name, value in variant.items())
    frames, mean = int(out.lengths[0]), float(out.extras["mean_frame_period_ms"][0])
    return Row(label, out.frame_times()[0].detach().numpy(), f"T' = {frames}, mean {mean:.1f} ms")
