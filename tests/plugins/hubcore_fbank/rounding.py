"""How far float32 may move the features of a waveform: what two correct programs on two processors differ by."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from hubcore.nn.filterbank import cepstral_matrix, lifter
from hubcore_fbank import FbankConfig, FbankUpstream

EPSILON = 2.0**-23


def rounding(config: FbankConfig, wav: Tensor) -> Tensor:
    """`(F, D)` bound of the difference between float32's and float64's features of one waveform.

    A Fourier transform spreads the rounding of its loudest bins over all bins, so the amplitude of each is off by some
    epsilons of the frame's root mean square, and a log energy by that over its own amplitude: quiet bins are mostly
    rounding, and differ from processor to processor. A mel filter's side is a difference of mel values near 2840 over a
    step of 34, so filters are off by some hundred epsilons. Both go through cepstra and derivatives as independent errors
    do, and through CMVN once more by way of the mean and the deviation.
    """
    kind = "spectrogram" if config.kind == "spectrogram" else "fbank"
    log = features(replace(config, kind=kind, delta_order=0, cmvn=False), wav)
    quiet = ((log.exp().mean(1, keepdim=True).log() - log) / 2).exp()  # amplitude of the frame over that of the bin
    bound = EPSILON * (64 * quiet + (4000 if kind == "fbank" else 0))
    if config.kind == "mfcc":
        basis = cepstral_matrix(config.num_mel_bins, config.num_ceps, torch.float64)
        bound = (bound.square() @ basis.square()).sqrt() * lifter(config.num_ceps, config.cepstral_lifter, torch.float64)
    orders = [bound.square()]
    for _ in range(config.delta_order):
        padded = torch.cat([orders[-1][:1].expand(2, -1), orders[-1], orders[-1][-1:].expand(2, -1)])
        orders.append((padded.unfold(0, 5, 1) @ padded.new_tensor([4.0, 1.0, 0.0, 1.0, 4.0])) / 100)
    bound = torch.cat(orders, dim=1).sqrt()
    if config.cmvn:
        values = features(replace(config, cmvn=False), wav)
        deviation, normalized = values.std(0), features(config, wav).abs()
        bound = (bound + (1 + normalized) * bound.square().mean(0).sqrt() / len(bound) ** 0.5) / deviation
        bound = torch.where(deviation > 0, bound, 0.0)
    return bound


def features(config: FbankConfig, wav: Tensor) -> Tensor:
    """`(F, D)` features in float64."""
    return FbankUpstream(config)([wav.double()]).last_hidden_state[0]


def assert_within(bound: Tensor, actual: Tensor, expected: Tensor) -> None:
    """Every cell differs by its bound at most, or by the last bit of float32."""
    assert actual.shape == expected.shape == bound.shape
    excess = (actual.double() - expected.double()).abs() - bound - 1e-6 * (1 + expected.double().abs())
    at = divmod(int(excess.argmax()), excess.shape[-1])
    assert bool((excess <= 0).all()), f"cell {at} is {excess[at]:.1e} beyond its bound of {bound[at]:.1e}"
