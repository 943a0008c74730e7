"""Checks of what `EncoderUpstream` offers for fine-tuning; other upstreams pass without a test, and so do absent parts."""

from __future__ import annotations

import copy
import itertools
from collections import Counter

import torch
from torch import Tensor

from hubcore.nn.encoder_upstream import EncoderUpstream
from hubcore.protocol import Upstream
from hubcore.testing.compare import evaluating
from hubcore.testing.inputs import clips
from hubcore.testing.module_checks import gradients
from hubcore.text import listed


def check_layer_groups(upstream: Upstream) -> None:
    """`layer_groups()` has one group for each block, in order, and every parameter in exactly one group."""
    if not isinstance(upstream, EncoderUpstream):
        return
    names = {parameter: name for name, parameter in upstream.named_parameters()}
    groups = upstream.layer_groups()
    grouped = Counter(parameter for group in groups for parameter in group["params"])
    twice = [names[parameter] for parameter, times in grouped.items() if times > 1]
    if twice:
        raise AssertionError(f"layer_groups() has {len(twice)} parameters in more than one group: {listed(twice)}.")
    absent = [name for parameter, name in names.items() if parameter not in grouped]
    if absent:
        raise AssertionError(f"layer_groups() leaves out {len(absent)} parameters: {listed(absent)}.")
    at = {parameter: number for number, group in enumerate(groups) for parameter in group["params"]}
    places = [max(at[parameter] for parameter in block.parameters()) for block in upstream.blocks]
    if any(upper <= lower for lower, upper in itertools.pairwise(places)):
        raise AssertionError("layer_groups() does not have a group for each block in the order of the blocks.")


def check_gradient_checkpointing(upstream: Upstream) -> None:
    """With `gradient_checkpointing` the gradients are the same, and each block runs a second time in the backward pass."""
    if not isinstance(upstream, EncoderUpstream) or not len(upstream.blocks):
        return
    other = copy.deepcopy(upstream)
    ran: list[int] = []
    for number, block in enumerate(other.blocks, start=1):
        block.register_forward_pre_hook(lambda *_, number=number: ran.append(number))
    other.gradient_checkpointing = False
    expected = dict(gradients(other))
    once = Counter(ran)  # more than 1 where a batch is computed in parts
    ran.clear()
    other.gradient_checkpointing = True
    found = dict(gradients(other))
    for number in range(1, len(other.blocks) + 1):
        if ran.count(number) != 2 * once[number]:
            raise AssertionError(
                f"with gradient_checkpointing block {number} ran {ran.count(number)} times in a training step, expected "
                f"{2 * once[number]}. Keep the blocks in hubcore.nn.Blocks, and call each by its run()."
            )
    for name, gradient in expected.items():
        if not _close(found[name], gradient):
            raise AssertionError(f"with gradient_checkpointing the gradient of {name} differs.")


def _close(found: Tensor | None, expected: Tensor | None) -> bool:
    if found is None or expected is None:
        return found is expected
    return torch.allclose(found, expected, rtol=1e-3, atol=1e-5)


def check_frozen_extractor(upstream: Upstream) -> None:
    """After `freeze_extractor()` the extractor is outside the graph and learns nothing; everything else learns as before."""
    if not isinstance(upstream, EncoderUpstream):
        return
    frozen = copy.deepcopy(upstream)
    extractor = frozen.requires_grad_(True).extractor
    if extractor is None:
        return
    frozen.freeze_extractor()
    inside = {*extractor.parameters()}
    wrong = [name for name, parameter in frozen.named_parameters() if parameter.requires_grad == (parameter in inside)]
    if wrong:
        raise AssertionError(f"freeze_extractor() left {len(wrong)} parameters in the wrong state: {listed(wrong)}.")
    in_graph: list[bool] = []
    extractor.register_forward_hook(lambda _module, _args, frames: in_graph.append(_requires_grad(frames)))
    with evaluating(frozen, train=True):
        frozen(clips(frozen))
    if any(in_graph):
        raise AssertionError("the extractor is frozen, but its output carries a gradient.")


def _requires_grad(output: Tensor | tuple[object, ...]) -> bool:
    """True if a module's output, or a part of it, carries a gradient."""
    parts = output if isinstance(output, tuple) else (output,)
    return any(isinstance(part, Tensor) and part.requires_grad for part in parts)
