"""Centroids of other programs: what joblib, torch and numpy write is read back, and nothing hostile runs, hangs or bursts."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import pickle
import random
import zlib

import joblib
import joblib.numpy_pickle
import numpy as np
import pytest
import torch
from sklearn.cluster import MiniBatchKMeans

from hubcore import hub, units
from hubcore.checkpoints.formats import joblib_file
from hubcore.errors import CheckpointError, CheckpointLayoutError, UnsafeCheckpointError
from hubcore.units.foreign import read_centroids
from tests.hubcore.checkpoints import hostile_pieces as build
from tests.hubcore.checkpoints.watching import suspicious, watching
from tests.running import command


@pytest.fixture(scope="module")
def kmeans():
    """As fairseq's learn_kmeans.py makes it."""
    frames = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    return MiniBatchKMeans(n_clusters=5, n_init=1, batch_size=50, max_iter=3, random_state=0).fit(frames)


def dumped(value, **options):
    buffer = io.BytesIO()
    joblib.dump(value, buffer, **options)
    return buffer.getvalue()


def dumped_before_1_2(value, monkeypatch):
    """Without the padding in front of arrays."""
    create = joblib.numpy_pickle.NumpyPickler._create_array_wrapper

    def old(self, array):
        wrapper = create(self, array)
        wrapper.numpy_array_alignment_bytes = None
        del wrapper.numpy_array_alignment_bytes
        return wrapper

    with monkeypatch.context() as patch:
        patch.setattr(joblib.numpy_pickle.NumpyPickler, "_create_array_wrapper", old)
        return dumped(value)


def saved(value, **options):
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def read(tmp_path, data):
    path = tmp_path / "km.bin"
    path.write_bytes(data)
    return read_centroids(path)


FORMS = {
    "joblib": dumped,
    "joblib, protocol 2": lambda km: dumped(km, protocol=2),
    "joblib, protocol 5": lambda km: dumped(km, protocol=5),
    "joblib, zlib": lambda km: dumped(km, compress=3),
    "joblib, gzip": lambda km: dumped(km, compress=("gzip", 3)),
    "pickle": pickle.dumps,
    "pickle, protocol 2": lambda km: pickle.dumps(km, protocol=2),
    "pickle, gzip": lambda km: gzip.compress(pickle.dumps(km)),
    "joblib, a dict with it": lambda km: dumped({"model": km, "layer": 6}),
    "joblib, an array": lambda km: dumped(km.cluster_centers_),
    "joblib, an array in Fortran's order": lambda km: dumped(np.asfortranarray(km.cluster_centers_)),
    "joblib, an array of big-endian float64": lambda km: dumped(km.cluster_centers_.astype(">f8")),
    "pickle, an array in Fortran's order": lambda km: pickle.dumps(np.asfortranarray(km.cluster_centers_), protocol=2),
    "torch, a tensor": lambda km: saved(torch.from_numpy(km.cluster_centers_)),
    "torch, before 1.6": lambda km: saved(torch.from_numpy(km.cluster_centers_), _use_new_zipfile_serialization=False),
    "torch, a dict": lambda km: saved({"n_features_in_": 6, "cluster_centers_": torch.from_numpy(km.cluster_centers_)}),
    "torch, a dict of arrays": lambda km: saved({"centroids": km.cluster_centers_}),
    "torch, the object": saved,
    "numpy": lambda km: npy(km.cluster_centers_),
}


@pytest.mark.parametrize("form", FORMS)
def test_centroids_are_read_back_bit_by_bit(form, kmeans, tmp_path):
    found = read(tmp_path, FORMS[form](kmeans))
    assert found.dtype == torch.float32
    assert np.array_equal(found.numpy(), kmeans.cluster_centers_)


def test_files_of_older_joblib_have_no_padding(kmeans, tmp_path, monkeypatch):
    data = dumped_before_1_2(kmeans, monkeypatch)
    assert b"numpy_array_alignment_bytes" not in data
    assert np.array_equal(read(tmp_path, data).numpy(), kmeans.cluster_centers_)


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_no_code_runs(kmeans, tmp_path):
    mine = tmp_path / "made"
    evil = Evil(mine)
    for value in (evil, {"cluster_centers_": evil}, [kmeans, evil]):
        for data in (dumped(value), dumped(value, compress=1), pickle.dumps(value, protocol=2)):
            with watching() as events, pytest.raises(CheckpointLayoutError, match="has no centroids"):
                read(tmp_path, data)
            assert not [event for event in suspicious(events) if "km.bin" not in event]
    kmeans_with_more = {"cluster_centers_": kmeans.cluster_centers_, "also": evil}
    assert read(tmp_path, dumped(kmeans_with_more)).shape == (5, 6)
    assert not mine.exists()


def array_of(state, module="joblib.numpy_pickle", name="NumpyArrayWrapper"):
    """The record of an array of joblib, without its bytes."""
    pairs = b"".join(build.text(key) + value for key, value in state.items())
    return build.name(module, name) + b")\x81" + b"}(" + pairs + b"ub"


def dtype(kind):
    return build.call("numpy.dtype", build.text(kind), b"\x89", b"\x88")


def honest(**changes):
    state = {
        "subclass": build.name("numpy", "ndarray"),
        "shape": build.items(build.number(2), build.number(3)),
        "order": build.text("C"),
        "dtype": dtype("f4"),
        "allow_mmap": b"\x88",
    }
    return state | changes


NUMBERS = np.arange(6, dtype="<f4").tobytes()
BIG = build.items(build.number(1 << 40), build.number(1 << 40))
HOSTILE = {
    "huge": (array_of(honest(shape=BIG)) + NUMBERS, "ends inside an array"),
    "below zero": (array_of(honest(shape=build.items(build.number(-2), build.number(3)))) + NUMBERS, "whose shape is none"),
    "no shape": (array_of(honest(shape=b"N")) + NUMBERS, "whose shape is none"),
    "deep": (array_of(honest(shape=build.items(*[build.number(1)] * 99))) + NUMBERS, "whose shape is none"),
    "objects": (array_of(honest(dtype=dtype("O8"))) + pickle.dumps([1]), "other things than plain numbers"),
    "records": (array_of(honest(dtype=dtype("V4"))) + NUMBERS, "other things than plain numbers"),
    "no dtype": (array_of(honest(dtype=build.number(4))) + NUMBERS, "other things than plain numbers"),
    "padding": (array_of(honest(numpy_array_alignment_bytes=build.number(16))) + b"\xff" + NUMBERS, "ends inside an array"),
    "old joblib": (array_of({"filename": build.text("/etc/passwd")}, name="NDArrayWrapper"), "joblib before 0.10"),
    "old joblib's own pickles": (array_of(honest(), name="ZNDArrayWrapper"), "joblib before 0.10"),
    "cut": (array_of(honest()) + NUMBERS[:-2], "ends inside an array"),
    "one dimension": (array_of(honest(shape=build.items(build.number(6)))) + NUMBERS, r"shape \[6\] and type float32"),
    "integers": (array_of(honest(dtype=dtype("i4"))) + NUMBERS, r"shape \[2, 3\] and type int32"),
    "empty": (array_of(honest(shape=build.items(build.number(0), build.number(3)))), r"shape \[0, 3\]"),
    "not finite": (array_of(honest()) + b"\xff" * 24, "not finite"),
    "an array of pickle": (
        build.call("numpy.core.numeric._frombuffer", b"C\x02ab", dtype("f4"), BIG, build.text("C")),
        "bytes are not as many as its shape needs",
    ),
    "an array of numpy without bytes": (build.call("numpy.core.multiarray._reconstruct"), "no array that numpy writes"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_arrays_are_refused(case, tmp_path):
    piece, said = HOSTILE[case]
    with pytest.raises(CheckpointError, match=said):
        read(tmp_path, build.P2 + piece + b".")


def test_the_honest_one_of_these_is_read(tmp_path):
    assert read(tmp_path, build.P2 + array_of(honest()) + NUMBERS + b".").tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(UnsafeCheckpointError, match="7 bytes follow the end of its pickle"):
        read(tmp_path, build.P2 + array_of(honest()) + NUMBERS + b".1234567")


def test_a_compressed_file_does_not_burst(tmp_path, monkeypatch):
    with pytest.raises(UnsafeCheckpointError, match=r"unfolds from \d+ bytes into more than"):
        read(tmp_path, zlib.compress(bytes(10 << 20)))
    whole = zlib.compress(pickle.dumps(np.zeros((2, 3), np.float32)))
    assert read(tmp_path, whole).shape == (2, 3)
    for data, said in (
        (whole[:-9], "ends within"),
        (whole + b"1", "1 bytes follow"),
        (b"x\x9c\xff\xff\xff", "not compressed as"),
    ):
        with pytest.raises(CheckpointError, match=said):
            read(tmp_path, data)
    monkeypatch.setattr(joblib_file, "MAX_BYTES", 100)
    with pytest.raises(UnsafeCheckpointError, match="more than 100"):
        read(tmp_path, pickle.dumps(np.zeros((9, 9), np.float32)))


def test_other_files_are_named(tmp_path):
    for data, said in (
        (b"BZh91AY", "compressed by bzip2|does not start like"),
        (b"", "empty"),
        (npy(np.zeros((2, 3)))[:-1], "no whole .npy file"),
        (npy(np.array([[None]])), "no whole .npy file"),
        (dumped({"centres": np.zeros((2, 3), np.float32)}), r"has no centroids\. It is dict with centres"),
    ):
        with pytest.raises(CheckpointError, match=said):
            read(tmp_path, data)
    with pytest.raises(CheckpointError, match="cannot be opened"):
        read_centroids(tmp_path / "none.bin")


@pytest.mark.slow
def test_damage_gives_our_errors_only(kmeans, tmp_path):
    drawn = random.Random(0)
    plain = dumped(kmeans)
    for _ in range(400):
        data = bytearray(plain)
        for _ in range(drawn.randint(1, 3)):
            data[drawn.randrange(len(data))] = drawn.randrange(256)
        cut = bytes(data[: drawn.randrange(len(data))] if drawn.random() < 0.3 else data)
        with contextlib.suppress(CheckpointError):
            assert read(tmp_path, cut).ndim == 2


@pytest.mark.slow
def test_an_imported_codebook_gives_scikit_learns_units(tmp_path):
    model = hub.load("wav2vec2_tiny_prompts")
    out = model([torch.randn(16000, generator=torch.Generator().manual_seed(0))], layers=[2])
    frames = out.hidden_states[0][0].detach().numpy()
    kmeans = MiniBatchKMeans(n_clusters=7, n_init=1, random_state=0).fit(frames)
    path, made = tmp_path / "km.bin", tmp_path / "codebook.safetensors"
    joblib.dump(kmeans, path, compress=1)
    done = command("units", "import", path, "-u", "wav2vec2_tiny_prompts", "--layer", 2, "-o", made)
    assert (done.exit_code, done.output) == (0, f"{made}: 7 centroids of block_2 of wav2vec2_tiny_prompts, from {path}\n")
    codebook = units.load(made, upstream=model)
    assert codebook(out)[0].tolist() == kmeans.predict(frames).tolist()
    assert (codebook.layer, codebook.final_norm, codebook.fitted) == (2, False, {"imported": "km.bin", "clusters": 7})


def test_centroids_of_another_width_are_refused(tmp_path):
    np.save(tmp_path / "km.npy", np.ones((7, 768), np.float32))
    made = tmp_path / "codebook.safetensors"
    done = command("units", "import", tmp_path / "km.npy", "-u", "wav2vec2_tiny_prompts", "--layer", 2, "-o", made)
    assert done.exit_code == 2
    assert "centroids of width 768, and block_2 has width 96. Name the upstream and the layer" in done.output
    assert not made.exists()
