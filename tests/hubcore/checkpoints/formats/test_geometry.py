"""Tensor geometry: whatever shape, stride and offset a file claims, what is read lies inside its storage or is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hubcore.checkpoints.formats.torch_file import TorchFile
from hubcore.errors import CheckpointError
from tests.hubcore.checkpoints import hostile_pieces as build

SMALL = st.integers(-2, 6)
ANY = st.one_of(SMALL, SMALL, SMALL, st.sampled_from([2**31, 2**62, 2**63 - 1, -(2**63), 10**6]))
SHAPES = st.integers(0, 3).flatmap(lambda n: st.tuples(*(st.lists(ANY, min_size=n, max_size=n) for _ in range(2))))
FIXTURE = [HealthCheck.function_scoped_fixture]  # every example writes the same file anew


@pytest.mark.slow
@settings(max_examples=400, deadline=None, derandomize=True, database=None, suppress_health_check=FIXTURE)
@given(numbers=st.integers(1, 12), offset=ANY, geometry=SHAPES, declared=st.integers(-1, 1))
def test_reads_what_torch_would_or_refuses(
    tmp_path: Path, numbers: int, offset: int, geometry: tuple[list[int], list[int]], declared: int
) -> None:
    shape, stride = map(tuple, geometry)
    storage = torch.arange(numbers, dtype=torch.float32)
    tensor = build.tensor(build.storage(numel=numbers + declared), offset, shape, stride)
    path = tmp_path / "geometry.pt"
    path.write_bytes(build.zipped(build.entry(tensor), storage.numpy().tobytes()))
    try:
        with TorchFile(path) as file:
            got = file.read(file.tree["x"])
    except CheckpointError:
        return
    assert declared == 0
    assert torch.equal(got, torch.as_strided(storage, shape, stride, offset))
