"""The check that `hubcore.Featurizer` works over an upstream. Shapes: `B` batch, `F` frames, `D` dim."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hubcore.errors import HubcoreError
from hubcore.featurizer import Featurizer
from hubcore.protocol import Upstream, UpstreamOutput
from hubcore.testing.compare import BATCH_TOLERANCE, difference, evaluating
from hubcore.testing.inputs import clips

ROUNDING = 1e-6
"""A gradient of the weights below this part of all that was added up is no gradient."""


def check_featurizer(upstream: Upstream, *, tolerance: float = BATCH_TOLERANCE) -> None:
    """`Featurizer` gives a list of `(F_i, D)`, at first the mean of the layers, and its weights can be trained.

    Where layers differ in width they cannot be summed: that must be an error, and the last layer alone must work.
    """
    with evaluating(upstream):
        wavs = clips(upstream)
        with torch.no_grad():
            output = upstream(wavs)
        if len(set(upstream.hidden_sizes)) == 1:
            featurizer = Featurizer(upstream, upstream_device=output.lengths.device)
            expected = torch.stack(output.hidden_states).mean(dim=0)
        else:
            _expect_refusal(upstream, wavs, output)
            featurizer = Featurizer(upstream, "last_hidden_state", upstream_device=output.lengths.device)
            expected = output.last_hidden_state
    features = featurizer(wavs, output)
    if not isinstance(features, list) or len(features) != len(wavs):
        raise AssertionError(f"the featurizer gave a {type(features).__name__}, expected a list of {len(wavs)} tensors.")
    for row, (frames, count) in enumerate(zip(features, output.lengths.tolist(), strict=True)):
        complaint = difference(frames, expected[row, :count], tolerance=tolerance)
        if complaint:
            raise AssertionError(f"the featurizer, compared with the mean of the layers: utterance {row} {complaint}")
    padded, lengths = featurizer.padded(output)
    if not torch.equal(lengths, output.lengths):
        raise AssertionError(f"padded() gave the lengths {lengths.tolist()}, expected {output.lengths.tolist()}.")
    for row, frames in enumerate(features):
        if not torch.equal(padded[row, : len(frames)], frames) or bool(padded[row, len(frames) :].any()):
            raise AssertionError(f"padded() does not hold the features of utterance {row} and zeros beyond them.")
    if len(set(upstream.hidden_sizes)) == 1:
        _expect_trainable(featurizer, features)


def _expect_refusal(upstream: Upstream, wavs: list[Tensor], output: UpstreamOutput) -> None:
    try:
        Featurizer(upstream)(wavs, output)
    except HubcoreError:
        return
    raise AssertionError(f"the featurizer summed layers of the widths {upstream.hidden_sizes}, expected an error.")


def _expect_trainable(featurizer: Featurizer, features: list[Tensor]) -> None:
    weights = featurizer.weights
    if not isinstance(weights, nn.Parameter) or not weights.requires_grad:
        raise AssertionError("the featurizer's weights are not a parameter that can be trained.")
    generator = torch.Generator(device="cpu").manual_seed(0)
    probes = [torch.randn(frames.shape, generator=generator, device="cpu").to(frames) for frames in features]
    terms = torch.cat([(frames * probe).flatten() for frames, probe in zip(features, probes, strict=True)])
    torch.autograd.backward(terms.sum())
    if weights.grad is None or not bool(weights.grad.isfinite().all()):
        raise AssertionError("the featurizer's weights receive no finite gradient.")
    # The softmax of a single weight is 1 whatever the weight is. Equal layers leave rounding errors on some processors.
    if len(weights) > 1 and float(weights.grad.abs().max()) <= ROUNDING * float(terms.detach().abs().sum()):
        raise AssertionError("the gradient of the featurizer's weights is zero: all layers are the same.")
