"""K-means: against scikit-learn, and the samples and steps that it is made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hubcore.units.kmeans import KMeans, Sample, nearest, plus_plus


@pytest.fixture(scope="module")
def clouds():
    """4,000 frames around 20 centres, 12 wide."""
    generator = np.random.default_rng(0)
    centres = 3 * generator.standard_normal((20, 12))
    return (centres[generator.integers(0, 20, 4000)] + generator.standard_normal((4000, 12))).astype(np.float32)


@pytest.mark.slow  # importing scikit-learn takes a second
def test_units_are_those_of_scikit_learn_and_the_fit_is_as_good(clouds):
    from sklearn.cluster import KMeans as Theirs

    theirs = Theirs(20, n_init=1, random_state=0).fit(clouds)
    labels, squares = nearest(torch.from_numpy(clouds), torch.from_numpy(theirs.cluster_centers_))
    assert (labels.numpy() == theirs.predict(clouds)).all()
    assert len(labels.unique()) == 20
    assert float(squares.sum()) == pytest.approx(theirs.inertia_, rel=1e-4)
    frames, ours = torch.from_numpy(clouds), []
    for seed in range(8):  # any one may end in a poor local optimum
        kmeans = KMeans(plus_plus(frames, 20, torch.Generator().manual_seed(seed)))
        distances = [kmeans.lloyd(frames) for _ in range(20)]
        assert distances == sorted(distances, reverse=True)
        ours.append(distances[-1])
    others = [Theirs(20, n_init=1, random_state=seed).fit(clouds).inertia_ / len(clouds) for seed in range(8)]
    assert np.mean(ours) < 1.05 * np.mean(others)


def test_where_float32_cannot_tell_float64_decides():
    """Frames far from zero and half way between two centroids, but for a little."""
    generator = np.random.default_rng(0)
    centroids = (1000 + generator.standard_normal((30, 64))).astype(np.float32)
    pairs = generator.integers(0, 30, (2000, 2))
    frames = centroids[pairs].mean(1) + 1e-3 * generator.standard_normal((2000, 64)).astype(np.float32)
    exact = ((frames[:, None].astype(float) - centroids.astype(float)) ** 2).sum(2)
    labels, _ = nearest(torch.from_numpy(frames), torch.from_numpy(centroids))
    assert (labels.numpy() == exact.argmin(1)).all()
    products = frames @ centroids.T
    assert ((np.square(centroids).sum(1) / 2 - products).argmin(1) != exact.argmin(1)).mean() > 0.2  # in float32 alone


def test_distances_are_computed_in_parts(clouds, monkeypatch):
    frames, centroids = torch.from_numpy(clouds), torch.from_numpy(clouds[:20])
    whole = nearest(frames, centroids)
    monkeypatch.setattr("hubcore.units.kmeans._AT_ONCE", 2000)
    assert torch.equal(nearest(frames, centroids)[0], whole[0])


def test_a_sample_of_more_than_there_is_is_all_of_it():
    sample = Sample(100, np.random.default_rng(0))
    sample.add(np.arange(60, dtype=np.float32)[:, None])
    sample.add(np.arange(60, 90, dtype=np.float32)[:, None])
    assert sample.frames().ravel().tolist() == [*range(90)]


def test_a_sample_has_frames_of_all_times_alike():
    counts = np.zeros(10, int)
    for seed in range(200):
        sample = Sample(50, np.random.default_rng(seed))
        for start in range(0, 1000, 70):  # the first ones fill it within one call
            sample.add(np.arange(start, min(start + 70, 1000), dtype=np.float32)[:, None])
        assert len(np.unique(sample.frames())) == 50
        counts += np.histogram(sample.frames(), bins=10, range=(0, 1000))[0]
    assert counts.sum() == 200 * 50
    assert (abs(counts - 1000) < 4 * 30).all()  # four deviations of a fair draw


def test_first_centroids_are_frames_and_of_every_cloud(clouds):
    first = plus_plus(torch.from_numpy(clouds), 20, torch.Generator().manual_seed(1))
    assert all((clouds == one).all(1).any() for one in first.numpy())
    far = torch.cat([torch.zeros(500, 2), torch.full((3, 2), 50.0)])
    assert sorted(plus_plus(far, 2, torch.Generator().manual_seed(0)).sum(1).tolist()) == [0, 100]


def test_fewer_different_frames_than_centroids_are_no_trouble():
    frames = torch.zeros(10, 2)
    kmeans = KMeans(plus_plus(frames, 3, torch.Generator().manual_seed(0)))
    assert kmeans.lloyd(frames) == 0
    assert kmeans.centroids.tolist() == [[0, 0]] * 3


def test_a_centroid_without_frames_takes_the_farthest_frame():
    kmeans = KMeans(torch.tensor([[0.0], [100.0]]))
    kmeans.lloyd(torch.tensor([[0.0], [1.0], [5.0]]))
    assert kmeans.centroids.flatten().tolist() == [2, 5]


def test_mini_batches_make_each_centroid_the_mean_of_its_frames(clouds):
    kmeans = KMeans(torch.from_numpy(clouds[:1]))
    for part in torch.from_numpy(clouds).split(700):
        kmeans.step(part)
    assert torch.allclose(kmeans.centroids[0], torch.from_numpy(clouds.mean(0)), atol=1e-5)
    assert kmeans.counts.tolist() == [len(clouds)]
