"""Every format holds the same numbers, opens with its own library, and is the same whenever a run was stopped."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from hubcore import Card, Featurizer, Source, features
from hubcore.errors import ExtractionError, OptionError
from hubcore.extract import extract, find_writer
from hubcore.extract import plan as plan_module
from hubcore.extract import work as work_module
from hubcore.hooks import FORMATS
from tests.hubcore.extract.lab import ToyUpstream, failure_rows, manifest_rows, toy, tree

NAMES = ("a", "b.2", "c", "d", "inner/e", "inner/f", "é")
Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven files of different lengths, in folders, with a full stop and with an accent in their names."""
    root, random = tmp_path_factory.mktemp("audio"), np.random.default_rng(0)
    (root / "inner").mkdir()
    for number, name in enumerate(NAMES):
        soundfile.write(root / f"{name}.wav", random.uniform(-0.5, 0.5, 2000 + 700 * number), 16000)
    return root


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "BLOCK_UTTERANCES", 3)


@pytest.fixture(scope="module")
def arrays(audio: Path, tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    """What `npy` holds of layer 1."""
    out = tmp_path_factory.mktemp("npy") / "out"
    return {row["utterance"]: np.load(out / row["file"]) for row in extract([audio], toy(), out, layers="1").rows}


def same_tree(one: Path, other: Path) -> None:
    """Equal but for the absolute paths that Kaldi and lhotse need."""
    assert {k: v.replace(os.fsencode(one), b"OUT") for k, v in tree(one).items()} == {
        k: v.replace(os.fsencode(other), b"OUT") for k, v in tree(other).items()
    }


# Each format with its own library --------------------------------------------------------------------------------------


def read_npy(out: Path) -> Iterator[tuple[str, np.ndarray]]:
    for file in (out / "features").rglob("*.npy"):
        yield file.relative_to(out / "features").with_suffix("").as_posix(), np.load(file)


def read_safetensors(out: Path) -> Iterator[tuple[str, np.ndarray]]:
    index = json.loads((out / "features.safetensors.index.json").read_text())["weight_map"]
    for file in (out / "shards").iterdir():
        for name, tensor in load_file(file).items():
            assert index[name] == file.relative_to(out).as_posix()
            yield name, tensor.numpy()


def read_hdf5(out: Path) -> Iterator[tuple[str, np.ndarray]]:
    import h5py

    for shard in (out / "shards").iterdir():
        with h5py.File(shard) as file:
            for name in NAMES:
                if name in file:
                    yield name, file[name][()]


def read_ark(out: Path) -> Iterator[tuple[str, np.ndarray]]:
    import kaldi_native_io

    frames = dict(line.split() for line in (out / "utt2num_frames").read_text().splitlines())
    seconds = dict(line.split() for line in (out / "utt2dur").read_text().splitlines())
    rows = {row["utterance"]: row for row in manifest_rows(out)}
    with kaldi_native_io.SequentialFloatMatrixReader(f"scp:{out / 'feats.scp'}") as reader:
        for name, matrix in reader:
            assert len(matrix) == int(frames[name]) == rows[name]["frames"]
            assert float(seconds[name]) == pytest.approx(rows[name]["seconds"], rel=1e-4)
            yield name, np.array(matrix)
    for archive in (out / "shards").iterdir():
        with kaldi_native_io.SequentialFloatMatrixReader(f"ark:{archive}") as reader:
            assert all(name in frames for name, _ in reader)


def read_parquet(out: Path) -> Iterator[tuple[str, np.ndarray]]:
    import pyarrow.parquet

    for row in pyarrow.parquet.read_table(out / "shards").to_pylist():
        yield row["utterance"], np.array(row["features"], np.float32).reshape(row["shape"])


def read_webdataset(out: Path) -> Iterator[tuple[str, np.ndarray]]:
    import webdataset

    shards = sorted(str(file) for file in (out / "shards").iterdir())
    for sample in webdataset.WebDataset(shards, shardshuffle=False, empty_check=False):
        yield sample["__key__"].replace("%2E", "."), np.load(io.BytesIO(sample["npy"]))


def read_lhotse(out: Path) -> Iterator[tuple[str, np.ndarray]]:
    from lhotse import FeatureSet, validate

    found = FeatureSet.from_file(out / "features.jsonl")
    validate(found)
    for item in found:
        assert item.frame_shift == 0.01
        yield item.recording_id, item.load()


READERS: dict[str, Callable[[Path], Iterator[tuple[str, np.ndarray]]]] = {
    "npy": read_npy,
    "safetensors": read_safetensors,
    "hdf5": read_hdf5,
    "ark": read_ark,
    "parquet": read_parquet,
    "webdataset": read_webdataset,
    "lhotse": read_lhotse,
}
SLOW = {"webdataset", "lhotse"}
"""Formats whose libraries take seconds to import."""
by_format = pytest.mark.parametrize("format", READERS)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("format", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in READERS])
def test_it_opens_with_its_own_library(format: str, audio: Path, tmp_path: Path, arrays: Arrays) -> None:
    extract([audio], toy(), tmp_path / "out", layers="1", format=format)
    found = dict(READERS[format](tmp_path / "out"))
    assert sorted(found) == sorted(arrays) == sorted(NAMES)
    for name, array in found.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, arrays[name])


@by_format
def test_it_is_read_back(format: str, audio: Path, tmp_path: Path, arrays: Arrays) -> None:
    extract([audio], toy(), tmp_path / "out", layers="1", format=format)
    opened = features.open(tmp_path / "out")
    assert [*opened] == [*arrays] == [*NAMES] and len(opened) == 7 and "a" in opened and "z" not in opened
    for name, one in opened.items():
        np.testing.assert_array_equal(one.array, arrays[name])
        assert one.lengths == len(one.array) == len(one.times) and one.layer_names == ("ten",)
        assert isinstance(one.array, np.memmap) or format == "parquet"
    with pytest.raises(KeyError, match="no utterance is called 'aa'"):
        opened["aa"]


def test_every_format_is_tested() -> None:
    assert READERS.keys() == FORMATS.keys()


# A run that was stopped ------------------------------------------------------------------------------------------------


def stop_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    compute, calls = work_module.Worker._compute, []

    def stopping(worker: Any, items: Any) -> Any:
        calls.append(1)
        if len(calls) > count:
            raise KeyboardInterrupt
        return compute(worker, items)

    monkeypatch.setattr(work_module.Worker, "_compute", stopping)


@by_format
def test_a_stopped_run_is_resumed_to_the_same_bytes(
    format: str, audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"layers": "1", "format": format, "batch_seconds": 0.5}
    extract([audio], toy(), tmp_path / "clean", **options)
    for count in (0, 1, 3):
        out = tmp_path / f"stopped{count}"
        with monkeypatch.context() as patch:
            stop_after(count, patch)
            with pytest.raises(KeyboardInterrupt):
                extract([audio], toy(), out, **options)
        named = {row["file"] for row in manifest_rows(out)} if (out / "manifest.jsonl").exists() else set()
        assert all((out / file).is_file() for file in named) and not (out / ".partial").exists()
        extract([audio], toy(), out, **options)
        same_tree(out, tmp_path / "clean")


def test_a_row_is_never_there_before_its_shard(audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*given: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hubcore.extract.formats.shards.ShardWriter.put", interrupted)
        with pytest.raises(KeyboardInterrupt):
            extract([audio], toy(), tmp_path / "out", format="safetensors")
    assert not (tmp_path / "out/manifest.jsonl").exists() and not [*(tmp_path / "out").glob("shards/*")]


class Mates(ToyUpstream):
    """Adds the size of the batch, as a last bit of rounding may depend on it."""

    def forward(self, wavs: Any, lengths: Any = None, *, layers: Any = None) -> Any:
        out = super().forward(wavs, lengths, layers=layers)
        return dataclasses.replace(out, hidden_states=tuple(state + len(wavs) for state in out.hidden_states))


@pytest.mark.parametrize("format", ["npy", "safetensors"])
def test_an_utterance_is_computed_with_the_same_others_again(format: str, audio: Path, tmp_path: Path) -> None:
    extract([audio], Mates().eval(), tmp_path / "clean", format=format)
    extract([audio], Mates().eval(), tmp_path / "out", format=format)
    rows = manifest_rows(tmp_path / "out")
    (tmp_path / "out/manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows if row["utterance"] != "d"))
    extract([audio], Mates().eval(), tmp_path / "out", format=format)
    same_tree(tmp_path / "out", tmp_path / "clean")


KILLED = """
import os, signal, sys
sys.path[:0] = {path!r}
from pathlib import Path
from hubcore.extract import plan, writers
from hubcore.extract import extract
from tests.hubcore.extract.lab import toy
plan.BLOCK_UTTERANCES = 3
replace, calls = os.replace, []
def dying(*given):
    calls.append(1)
    replace(*given)  # the record, the plan, three shards, the manifest in order
    if len(calls) == {count}:
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = dying
extract([Path(sys.argv[1])], toy(), Path(sys.argv[2]), layers="1", format=sys.argv[3])
"""


@pytest.mark.slow
@pytest.mark.parametrize(("format", "count"), [("hdf5", 4), ("ark", 6)])
def test_kill_9_after_a_shard_has_its_name_or_before_the_index(format: str, count: int, audio: Path, tmp_path: Path) -> None:
    extract([audio], toy(), tmp_path / "clean", layers="1", format=format)
    script = KILLED.format(path=[str(Path(__file__).parents[3]), *sys.path], count=count)
    killed = subprocess.run([sys.executable, "-c", script, audio, tmp_path / "out", format], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(manifest_rows(tmp_path / "out")) == (3 if format == "hdf5" else 7)
    extract([audio], toy(), tmp_path / "out", layers="1", format=format)
    same_tree(tmp_path / "out", tmp_path / "clean")


@by_format
def test_a_damaged_file_is_made_again(format: str, audio: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    extract([audio], toy(), out, layers="1", format=format)
    before = tree(out)
    victim = out / manifest_rows(out)[0]["file"]
    for keep in (0, 60, victim.stat().st_size - 40):
        victim.write_bytes(victim.read_bytes()[:keep])
        assert 0 < len(extract([audio], toy(), out, layers="1", format=format).rows) <= 3
        assert tree(out) == before


def test_a_failure_costs_no_shard_and_a_repaired_file_makes_its_shard_again(audio: Path, tmp_path: Path) -> None:
    root, out = tmp_path / "audio", tmp_path / "out"
    root.mkdir()
    for name in ("a", "c", "d"):
        (root / f"{name}.wav").write_bytes((audio / f"{name}.wav").read_bytes())
    whole = (root / "c.wav").read_bytes()
    middle = bytearray(whole)
    (root / "c.wav").write_bytes(middle)
    extract([root], toy(), tmp_path / "clean", format="safetensors")
    soundfile.write(root / "c.wav", np.full(3400, np.nan), 16000, subtype="FLOAT")
    assert [failure.utterance for failure in extract([root], toy(), out, format="safetensors").failures] == ["c"]
    (shard,) = (out / "shards").iterdir()
    before = shard.stat().st_mtime_ns
    upstream = toy()
    again = extract([root], upstream, out, format="safetensors")
    assert (again.rows, again.skipped, upstream.calls) == ((), 2, []), "nothing is computed for a file that is still broken"
    assert shard.stat().st_mtime_ns == before and len(failure_rows(out)) == 1
    (root / "c.wav").write_bytes(whole)
    assert [row["utterance"] for row in extract([root], toy(), out, format="safetensors").rows] == ["a", "c", "d"]
    assert shard.read_bytes() == (tmp_path / "clean/shards/00000.safetensors").read_bytes()
    assert len(manifest_rows(out)) == 3 and not failure_rows(out)


def test_a_shard_is_not_made_again_without_all_its_files(audio: Path, tmp_path: Path) -> None:
    root, out = tmp_path / "audio", tmp_path / "out"
    root.mkdir()
    soundfile.write(root / "broken.wav", np.full(3000, np.nan), 16000, subtype="FLOAT")
    soundfile.write(root / "good.wav", np.zeros(2000), 16000)
    extract([root], toy(), out, format="safetensors")
    soundfile.write(root / "broken.wav", np.zeros(3000), 16000)
    with pytest.raises(ExtractionError, match=r"00000.safetensors must be made again, and the utterance 'good' in it is not"):
        extract([root / "broken.wav"], toy(), out, format="safetensors")
    assert [row["utterance"] for row in manifest_rows(out)] == ["good"]


def test_what_is_added_later_gets_shards_of_its_own(audio: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    extract([audio / "inner"], toy(), out, format="safetensors")
    before = (out / "shards/00000.safetensors").read_bytes()
    soundfile.write(tmp_path / "z.wav", np.zeros(800), 16000)
    assert extract([audio / "inner", tmp_path / "z.wav"], toy(), out, format="safetensors").skipped == 2
    assert (out / "shards/00000.safetensors").read_bytes() == before
    assert [row["file"] for row in manifest_rows(out)] == [*["shards/00000.safetensors"] * 2, "shards/00001.safetensors"]
    assert [*features.open(out)] == ["e", "f", "z"]


def test_a_shard_of_failures_alone_does_not_exist(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(3000, np.nan), 16000, subtype="FLOAT")
    assert len(extract([tmp_path], toy(), tmp_path / "out", format="hdf5").failures) == 1
    assert not [*(tmp_path / "out").glob("shards/*")]


def test_blocks_are_as_large_as_their_features_allow(audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "BLOCK_BYTES", 40 * 8)  # 40 frames of two float32
    extract([audio], toy(), tmp_path / "out", layers="1", format="safetensors")
    assert all(path.stat().st_size < 40 * 8 + 300 for path in (tmp_path / "out/shards").iterdir())
    assert len([*(tmp_path / "out/shards").iterdir()]) == 6


def test_a_plan_that_is_none_is_an_error(audio: Path, tmp_path: Path) -> None:
    extract([audio], toy(), tmp_path / "out")
    (tmp_path / "out/plan.jsonl").write_text("nothing\n")
    with pytest.raises(ExtractionError, match=r"plan.jsonl is no plan"):
        extract([audio], toy(), tmp_path / "out")


# What is written -------------------------------------------------------------------------------------------------------


def test_the_default_is_npy_for_few_and_shards_for_many(audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {row["format"] for row in extract([audio], toy(), tmp_path / "few").rows} == {"npy"}
    monkeypatch.setattr("hubcore.extract.record.MANY", 7)
    assert {row["format"] for row in extract([audio], toy(), tmp_path / "many").rows} == {"safetensors"}
    assert extract([audio], toy(), tmp_path / "few").skipped == 7, "a folder keeps its format"


def test_bfloat16_is_for_the_format_that_has_it(audio: Path, tmp_path: Path, arrays: Arrays) -> None:
    out = tmp_path / "out"
    (row, *_) = extract([audio], toy(), out, layers="1", dtype="bfloat16", format="safetensors").rows
    assert load_file(out / row["file"])["a"].dtype == torch.bfloat16 and row["dtype"] == "bfloat16"
    assert extract([audio], toy(), out, layers="1", dtype="bfloat16", format="safetensors").skipped == 7
    for name, one in features.open(out).items():
        np.testing.assert_array_equal(one.array, torch.from_numpy(arrays[name]).bfloat16().float().numpy())
    for format in FORMATS.keys() - {"safetensors"}:
        with pytest.raises(OptionError, match="no bfloat16"):
            extract([audio], toy(), tmp_path / "no", layers="1", dtype="bfloat16", format=format)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("format", "options", "said"),
    [
        ("ark", {"dtype": "float16"}, "no float16"),
        ("ark", {}, "one layer"),
        ("lhotse", {}, "one layer"),
        ("lhotse", {"layers": "1", "pool": "mean"}, "without --pool"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(format: str, options: Any, said: str, audio: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=said):
        extract([audio], toy(), tmp_path / "out", format=format, **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("format", "module"), [("hdf5", "h5py"), ("parquet", "pyarrow")])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    format: str, module: str, audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(OptionError, match=rf"needs the package {module}. .*pip install 'hubcore\[{format}\]'"):
        extract([audio], toy(), tmp_path / "out", format=format)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ["hdf5", "safetensors", "webdataset", "parquet"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_layers_are_stacked_in_every_format_that_can(format: str, dtype: str, audio: Path, tmp_path: Path) -> None:
    extract([audio], toy(), tmp_path / "npy", layers="0,2", dtype=dtype)
    extract([audio], toy(), tmp_path / "out", layers="0,2", dtype=dtype, format=format)
    one, other = features.open(tmp_path / "npy"), features.open(tmp_path / "out")
    assert one.layer_names == other.layer_names == ("one", "hundred")
    for name in NAMES:
        assert one[name].array.ndim == 3 and one[name].array.dtype == other[name].array.dtype == dtype
        np.testing.assert_array_equal(one[name].array, other[name].array)


def test_names_that_a_format_cannot_have_cost_their_utterance(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/b.wav", "a.wav", "with space.wav"):
        soundfile.write(tmp_path / name, np.zeros(800), 16000)
    failures = extract([tmp_path], toy(), tmp_path / "h5", format="hdf5").failures
    assert [failure.utterance for failure in failures] == ["a/b"] and "HDF5" in failures[0].error
    failures = extract([tmp_path], toy(), tmp_path / "ark", layers="1", format="ark").failures
    assert [failure.utterance for failure in failures] == ["with space"] and "space in its name" in failures[0].error


# Pooling and mixing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["npy", "parquet"])
@pytest.mark.parametrize("pool", ["mean", "mean+std", "max"])
def test_pooled_features_are_one_table(format: str, pool: str, audio: Path, tmp_path: Path, arrays: Arrays) -> None:
    out = tmp_path / "out"
    rows = extract([audio], toy(), out, layers="1", pool=pool, format=format).rows
    assert [row["utterance"] for row in rows] == [*NAMES] and rows[0]["frames"] == len(arrays["a"])
    if format == "npy":
        table = np.load(out / "table.npy")
    else:
        import pyarrow.parquet

        read = pyarrow.parquet.read_table(out / "table.parquet").to_pylist()
        assert [row["utterance"] for row in read] == [*NAMES]
        table = np.array([row["features"] for row in read])
    for row, (name, array) in zip(table, arrays.items(), strict=True):
        wanted = {
            "mean": array.mean(0),
            "mean+std": np.concatenate([array.mean(0), array.std(0)]),
            "max": array.max(0),
        }[pool]
        np.testing.assert_allclose(row, wanted, rtol=1e-5, atol=1e-6)
        one = features.open(out)[name]
        np.testing.assert_array_equal(one.array, row)
        assert one.lengths == len(array) and one.times.shape == (1, 2)
    assert extract([audio], toy(), out, layers="1", pool=pool).skipped == 7
    with pytest.raises(ExtractionError, match="pool is"):
        extract([audio], toy(), out, layers="1", pool="max" if pool != "max" else "mean")


@pytest.mark.slow
def test_pooled_vectors_are_kaldis_and_the_tables_that_other_formats_have(audio: Path, tmp_path: Path, arrays: Arrays) -> None:
    import kaldi_native_io

    extract([audio], toy(), tmp_path, layers="1", pool="mean", format="ark")
    with kaldi_native_io.SequentialFloatVectorReader(f"scp:{tmp_path / 'feats.scp'}") as reader:
        found = {name: np.array(vector) for name, vector in reader}
    assert sorted(found) == sorted(NAMES)
    for name, vector in found.items():
        np.testing.assert_allclose(vector, arrays[name].mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(vector, features.open(tmp_path)[name].array)


def test_several_layers_are_pooled_one_by_one(audio: Path, tmp_path: Path, arrays: Arrays) -> None:
    rows = extract([audio], toy(), tmp_path / "out", pool="mean").rows
    assert rows[0]["shape"] == [3, 2] and np.load(tmp_path / "out/table.npy").shape == (7, 3, 2)
    np.testing.assert_allclose(features.open(tmp_path / "out")["a"].array[1], arrays["a"].mean(0), rtol=1e-5)
    assert extract([audio], toy(), tmp_path / "out", pool="mean").skipped == 7


def test_a_mix_is_the_mean_or_the_weighted_sum_of_its_layers(audio: Path, tmp_path: Path, arrays: Arrays) -> None:
    row = extract([audio], toy(), tmp_path / "mean", mix="0,2").rows[0]
    assert (row["layers"], row["mix"], row["shape"][-1]) == ([0, 2], [0.5, 0.5], 2) and len(row["shape"]) == 2
    extract([audio], toy(), tmp_path / "sum", mix="0:0.75,hundred:0.25")
    for name, array in arrays.items():  # layer 1 is ten times layer 0, layer 2 a hundred times
        np.testing.assert_allclose(features.open(tmp_path / "mean")[name].array, array * 5.05, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(features.open(tmp_path / "sum")[name].array, array * 2.575, rtol=1e-5, atol=1e-6)
    with pytest.raises(ExtractionError, match="mix is"):
        extract([audio], toy(), tmp_path / "mean", mix="0:0.75,2:0.25")


def test_a_mix_with_a_featurizers_weights_is_what_it_gives(audio: Path, tmp_path: Path) -> None:
    upstream = toy()
    featurizer = Featurizer(upstream, layer_selection=[0, 1])
    with torch.no_grad():
        featurizer.weights.copy_(torch.tensor([0.3, -1.0]))
    save_file(featurizer.state_dict(), tmp_path / "weights.safetensors")
    extract([audio], upstream, tmp_path / "out", layers="0,1", mix=tmp_path / "weights.safetensors")
    wav = torch.from_numpy(soundfile.read(audio / "a.wav", dtype="float32")[0])
    with torch.inference_mode():
        (wanted,) = featurizer([wav], upstream([wav]))
    np.testing.assert_allclose(features.open(tmp_path / "out")["a"].array, wanted.numpy(), rtol=1e-6)
    with pytest.raises(OptionError, match="has 2 weights, and there are 3 layers"):
        extract([audio], upstream, tmp_path / "other", mix=tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mix": "0:1,2"}, "Give each layer one weight"),
        ({"mix": "0:x"}, "Give each layer one weight"),
        ({"mix": "9"}, "no layer 9"),
        ({"mix": "0,1", "layers": "0"}, "Both name layers"),
        ({"mix": "gone.safetensors"}, "cannot be read"),
        ({"pool": "median"}, "mean, mean\\+std, max"),
    ],
)
def test_impossible_mixes_and_pools_are_errors(options: Any, said: str, audio: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=said):
        extract([audio], toy(), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


# Reading back ----------------------------------------------------------------------------------------------------------


def test_the_card_and_the_times_are_read_back(audio: Path, tmp_path: Path) -> None:
    upstream = toy()
    facts: dict[str, Any] = {"sources": (Source("x.pt"),), "aliases": ("m",), "options": {"layers": [1]}}
    upstream.card = Card("mine", "toy", "MIT", **facts, file="/x", line=3)
    extract([audio], upstream, tmp_path / "out")
    opened = features.open(tmp_path / "out")
    assert opened.card == dataclasses.replace(upstream.card, file=None, line=None)
    wav = torch.from_numpy(soundfile.read(audio / "a.wav", dtype="float32")[0])
    np.testing.assert_allclose(opened["a"].times, upstream([wav]).frame_times()[0], atol=1e-9)
    assert repr(opened) == f"<7 utterances of mine in {tmp_path / 'out'}, npy>"


@pytest.mark.parametrize(("damage", "said"), [("", "has no run.json"), ("{", "is not the record"), ("{}", "is not the record")])
def test_a_folder_without_a_record_is_an_error(damage: str, said: str, tmp_path: Path) -> None:
    if damage:
        (tmp_path / "run.json").write_text(damage)
    with pytest.raises(ExtractionError, match=said):
        features.open(tmp_path)


def test_reading_changes_nothing_and_a_damaged_file_is_named(audio: Path, tmp_path: Path) -> None:
    extract([audio], toy(), tmp_path / "out")
    with (tmp_path / "out/manifest.jsonl").open("ab") as stream:
        stream.write(b'{"torn')
    (tmp_path / "out/features/a.npy").write_bytes(b"")
    before = tree(tmp_path / "out")
    opened = features.open(tmp_path / "out")
    assert len(opened["c"].array) and tree(tmp_path / "out") == before
    with pytest.raises(ExtractionError, match=r"features/a.npy cannot be read for 'a'.*again"):
        opened["a"]


def test_a_plugins_format_is_read_if_it_has_a_reader(audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Raw:
        def __init__(self, folder: Path) -> None:
            self.folder = folder

        def write(self, utterance: str, features: Any) -> str:
            file = utterance.replace("/", "_") + ".raw"
            features.tofile(self.folder / file)
            return file

        def holds(self, file: str, shape: Any, dtype: str) -> bool:
            return (self.folder / file).exists()

        def close(self) -> None:
            pass

    class Readable(Raw):
        @classmethod
        def read(cls, folder: Path, row: Any) -> np.ndarray:
            return np.fromfile(folder / row["file"], row["dtype"]).reshape(row["shape"])

    monkeypatch.setattr("hubcore.hooks.Hooks.feature_writers", lambda self: {"raw": Readable, "mute": Raw})
    extract([audio], toy(), tmp_path / "raw", format="raw")
    extract([audio], toy(), tmp_path / "npy")
    for name, one in features.open(tmp_path / "raw").items():
        np.testing.assert_array_equal(one.array, features.open(tmp_path / "npy")[name].array)
    extract([audio], toy(), tmp_path / "mute", format="mute")
    with pytest.raises(OptionError, match=r"'mute' .* has no reader"):
        features.open(tmp_path / "mute")
    assert find_writer("raw") is Readable
