"""Hidden states of an upstream against those that the original gave, alone and in every ragged batch of three."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hubcore import hub
from tests.gold import gold_arrays, gold_wavs, relative_error

TOLERANCE = 2e-5


def gold_states(reference: str) -> list[list[Tensor]]:
    """The hidden states of u0 and u1, each alone, in a reference file below `tests/data`; the last with the final norm."""
    arrays = gold_arrays(f"../{reference}.ref.npz")
    count = sum(name.startswith("alone/u0/hidden_") for name in arrays)
    found = [[arrays[f"alone/u{i}/hidden_{k}"] for k in range(count)] for i in range(2)]
    return [[*states[:-1], arrays.get(f"alone/u{i}/last_hidden_state", states[-1])] for i, states in enumerate(found)]


@torch.no_grad()
def check_references(family: str, cls: Any, file: Path, wanted: Sequence[Sequence[Tensor]]) -> None:
    """Compares every layer of u0 and u1, loaded by the family's name and by its class; `wanted` as from `gold_states`."""
    by_name, by_class = hub.load(family, checkpoint=file), cls.from_checkpoint(file)
    wavs = gold_wavs()
    for index, states in enumerate(wanted):
        for model in (by_name, by_class):
            out = model([wavs[index]])
            errors = [relative_error(mine[0], theirs) for mine, theirs in zip(out.hidden_states, states, strict=True)]
            assert len(errors) == len(model.layer_names) and max(errors) <= TOLERANCE
    for order in permutations(range(3)):
        out = by_name([wavs[i] for i in order])
        for index, states in enumerate(wanted):
            row = order.index(index)
            for state, theirs in zip(out.hidden_states, states, strict=True):
                assert relative_error(state[row, : len(theirs)], theirs) <= TOLERANCE
                assert (state[row, len(theirs) :] == 0).all()
