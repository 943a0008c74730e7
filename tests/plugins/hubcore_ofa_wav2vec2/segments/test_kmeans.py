"""Clusters, and the dynamic programming over them against every segmentation there is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from hubcore import hub
from hubcore.audio import load_audio
from hubcore.errors import OptionError
from hubcore_ofa_wav2vec2.segments.finders import on_grid
from hubcore_ofa_wav2vec2.segments.grid import count_frames
from hubcore_ofa_wav2vec2.segments.kmeans import Codebook, Distances, best_boundaries, tune_penalty
from tests.paths import SPEECH


def cost(distances: Distances, boundaries: tuple[int, ...], penalty: float) -> float:
    starts = (0, *boundaries[:-1])
    return sum(float(distances[a:b].sum(0, dtype=np.float64).min()) + penalty for a, b in zip(starts, boundaries, strict=True))


@pytest.mark.parametrize("penalty", [0.0, 0.1, 0.4, 2.0])
def test_no_segmentation_costs_less(penalty: float) -> None:
    rng = np.random.default_rng(3)
    batch = [rng.random((length, 3), dtype=np.float32) for length in (1, 2, 5, 8, 8, 9)]
    for distances, found in zip(batch, best_boundaries(batch, penalty), strict=True):
        length = len(distances)
        inner = [(*c, length) for n in range(length) for c in itertools.combinations(range(1, length), n)]
        assert cost(distances, tuple(found.tolist()), penalty) == pytest.approx(min(cost(distances, b, penalty) for b in inner))


def test_a_batch_changes_nothing() -> None:
    rng = np.random.default_rng(4)
    batch = [rng.random((length, 6), dtype=np.float32) for length in (40, 3, 17, 1, 40)]
    together = best_boundaries(batch, 0.3)
    for distances, found in zip(batch, together, strict=True):
        assert torch.equal(best_boundaries([distances], 0.3)[0], found) and found.dtype == torch.int64


def blobs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(4).repeat_interleave(50).repeat(6)
    return torch.eye(4)[labels] * 10 + 0.3 * torch.randn(len(labels), 4, generator=generator), labels


def test_clusters_are_found_again() -> None:
    features, labels = blobs()
    codebook = Codebook.fit(features, clusters=4, seed=1)
    given = torch.from_numpy(codebook.distances(features).argmin(1))
    pairs = set(zip(labels.tolist(), given.tolist(), strict=True))
    assert len(pairs) == 4
    same = Codebook.fit(features, clusters=4, seed=1)
    assert torch.equal(same.centres, codebook.centres)
    assert not torch.equal(Codebook.fit(features, clusters=4, seed=2).centres, codebook.centres)
    expected = ((features - codebook.mean) / codebook.deviation)[:, None] - codebook.centres
    assert np.allclose(codebook.distances(features), expected.square().mean(2).numpy(), atol=1e-4)


def test_segments_are_runs_of_one_cluster() -> None:
    features, _ = blobs()
    distances = Codebook.fit(features, clusters=4, seed=1).distances(features)
    assert best_boundaries([distances], 0.5)[0].tolist() == list(range(50, 1201, 50))


@pytest.mark.slow
def test_the_penalty_is_tuned_to_the_number_of_segments() -> None:
    rng = np.random.default_rng(6)
    batch = [rng.random((length, 8), dtype=np.float32) for length in (300, 120, 500)]
    for wanted in (0.05, 2 / 9, 0.5):
        found = best_boundaries(batch, tune_penalty(batch, wanted))
        assert sum(map(len, found)) / 920 == pytest.approx(wanted, abs=0.01)


def test_impossible_clusters() -> None:
    with pytest.raises(OptionError, match="5 clusters cannot be found in 4 frames"):
        Codebook.fit(torch.randn(4, 2), clusters=5, seed=0)
    with pytest.raises(OptionError, match="no utterance to tune"):
        tune_penalty([], 0.2)
    same = Codebook.fit(torch.ones(10, 2), clusters=5, seed=0)
    assert bool(same.centres.isfinite().all()) and best_boundaries([same.distances(torch.ones(10, 2))], 0.1)[0].tolist() == [10]


def test_features_of_wav2vec2_are_on_the_grid_already() -> None:
    wavs = [load_audio(SPEECH / f"{name}.flac") for name in ("en_1", "ru_1")]
    upstream = hub.load("wav2vec2_tiny_prompts")
    out = upstream(wavs, layers=[2])
    for row, wav in enumerate(wavs):
        frames = count_frames(len(wav))
        assert frames == int(out.lengths[row])
        assert torch.equal(on_grid(out, row, frames), out.hidden_states[0][row, :frames])


def test_features_of_another_rate_are_those_nearest_in_time() -> None:
    wav = load_audio(SPEECH / "en_1.flac")
    out = hub.load("mfcc")([wav])
    frames = count_frames(len(wav))
    assert torch.equal(on_grid(out, 0, frames), out.hidden_states[0][0, : 2 * frames : 2])
