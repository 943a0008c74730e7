"""`check_reference`: an upstream gives the numbers of the original implementation, alone and in a batch.

Shapes: `L` hidden states, `T` samples, `F` frames, `D` dim.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hubcore.errors import OptionError
from hubcore.protocol import Upstream, UpstreamOutput
from hubcore.testing.compare import difference, evaluating, layer_title, valid_frames


def check_reference(
    upstream: Upstream,
    wavs: Sequence[Tensor],
    states: Sequence[Sequence[Tensor] | Tensor],
    atol: float,
    *,
    layers: Sequence[int] | None = None,
) -> None:
    """Compares hidden states with frozen ones: each utterance alone, then all of them in one batch.

    Args:
        upstream: the upstream under test.
        wavs: the utterances, each `(T,)`.
        states: what the original gave for each utterance *alone*: `L` tensors `(F, D)`, or one `(L, F, D)`.
        atol: largest absolute difference allowed, in any value.
        layers: indices of the hidden states in `states`; None for all layers.

    Raises:
        AssertionError: a number differs by more than `atol`, or the frames or layers are not as many.
        OptionError: there is nothing to compare, or not one item of `states` for each waveform.

    Example:
        >>> from hubcore import hub
        >>> from hubcore.testing import speech_like
        >>> upstream, wavs = hub.load("fbank"), [speech_like(8000), speech_like(5000)]
        >>> states = [[state[0] for state in upstream([wav]).hidden_states] for wav in wavs]  # the original's, in a real test
        >>> check_reference(upstream, wavs, states, atol=1e-4)
    """
    if not wavs or len(wavs) != len(states):
        raise OptionError(
            f"there are {len(wavs)} waveforms and states for {len(states)}. Give one waveform or more, and for each the hidden "
            "states that the original computed from it alone."
        )
    with evaluating(upstream), torch.no_grad():
        alone = [upstream([wav], layers=layers) for wav in wavs]
        batch = upstream(list(wavs), layers=layers)
    for index, wanted in enumerate(states):
        _expect(alone[index], 0, wanted, atol, what=f"utterance {index} alone")
        _expect(batch, index, wanted, atol, what=f"utterance {index} in a batch of {len(wavs)}")


def _expect(output: UpstreamOutput, row: int, wanted: Sequence[Tensor] | Tensor, atol: float, *, what: str) -> None:
    got = valid_frames(output, row)
    if len(got) != len(wanted):
        raise AssertionError(f"{what}: there are {len(got)} hidden states, the original has {len(wanted)}.")
    for position, (actual, reference) in enumerate(zip(got, wanted, strict=True)):
        complaint = difference(actual, reference.to(actual.device), atol=atol)
        if complaint:
            raise AssertionError(f"{what}, {layer_title(output, position)} {complaint}")
