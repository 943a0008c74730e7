"""Features for training and for other libraries, two folders compared, and a folder in numbers."""

from __future__ import annotations

import json
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner
from torch.utils.data import DataLoader

from hubcore import features
from hubcore.cli import main
from hubcore.errors import OptionError
from hubcore.extract import extract
from tests.hubcore.extract.lab import ToyUpstream, toy

NAMES = ("a", "b", "c", "d", "e", "f")


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, random = tmp_path_factory.mktemp("audio"), np.random.default_rng(0)
    for number, name in enumerate(NAMES):
        soundfile.write(root / f"{name}.wav", random.uniform(-0.5, 0.5, 1600 + 1600 * number), 16000)
    return root


@pytest.fixture(scope="module")
def folder(audio: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    extract([audio], toy(), out, layers="1", format="safetensors")
    return out


# Training --------------------------------------------------------------------------------------------------------------


def test_every_utterance_comes_once_an_epoch_among_others_of_its_length(folder: Path) -> None:
    dataset = features.FeatureDataset(features.open(folder))
    assert dataset.lengths == [10, 20, 30, 40, 50, 60]
    buckets = features.LengthBuckets(dataset, max_frames=60, seed=3)
    epochs = [list(buckets) for _ in range(4)]
    for batches in epochs:
        assert sorted(index for batch in batches for index in batch) == list(range(6))
        assert all(sum(dataset.lengths[index] for index in batch) <= 60 for batch in batches)
    assert len({str(batches) for batches in epochs}) > 1, "another order in another epoch"
    buckets.set_epoch(1)
    assert len(buckets) == len(epochs[1]) and list(buckets) == epochs[1]


def test_a_batch_is_padded_with_zeros_and_has_lengths_and_targets(folder: Path) -> None:
    opened = features.open(folder)
    dataset = features.FeatureDataset(opened, {"b": 1, "d": 3})
    assert len(dataset) == 2
    (batch,) = DataLoader(dataset, batch_size=2, collate_fn=features.collate)
    assert (batch.utterances, batch.lengths.tolist(), batch.targets.tolist()) == (("b", "d"), [20, 40], [1, 3])
    assert batch.features.shape == (2, 40, 2) and batch.features.dtype == torch.float32
    np.testing.assert_array_equal(batch.features[0, :20], opened["b"].array)
    assert not batch.features[0, 20:].any()
    texts = features.collate([dataset[0]._replace(target="x"), dataset[1]._replace(target="y")])
    assert texts.targets == ["x", "y"]
    assert features.collate([features.FeatureDataset(opened)[0]]).targets is None
    with pytest.raises(OptionError, match="no utterance 'z'"):
        features.FeatureDataset(opened, {"z": 1})


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (6, 3, 60, 2)),
        ({"pool": "mean"}, (6, 3, 2)),
        ({"pool": "max", "layers": "1"}, (6, 2)),
        ({"dtype": "float16"}, (6, 3, 60, 2)),
    ],
)
def test_layers_and_pooled_vectors_are_batched_too(options: Any, shape: Any, audio: Path, tmp_path: Path) -> None:
    extract([audio], toy(), tmp_path, **options)
    dataset = features.FeatureDataset(features.open(tmp_path))
    batch = features.collate([dataset[index] for index in range(6)])
    assert batch.features.shape == shape and batch.features.dtype == torch.float32
    assert batch.lengths.tolist() == [10, 20, 30, 40, 50, 60]


def test_a_dataset_can_be_sent_to_another_process(folder: Path) -> None:
    dataset = features.FeatureDataset(features.open(folder))
    torch.testing.assert_close(pickle.loads(pickle.dumps(dataset))[3].features, dataset[3].features)
    if "fork" in multiprocessing.get_all_start_methods():
        loader = DataLoader(dataset, batch_size=6, collate_fn=features.collate, num_workers=1, multiprocessing_context="fork")
        (batch,) = loader
        torch.testing.assert_close(batch.features[3, :40], dataset[3].features)


# Other libraries -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("format", ["npy", "safetensors"])
def test_lhotse_accepts_them_and_reads_the_same_numbers(format: str, audio: Path, tmp_path: Path) -> None:
    from lhotse import validate

    extract([audio], toy(), tmp_path, layers="1", format=format)
    opened = features.open(tmp_path)
    found = features.to_lhotse(opened)
    validate(found)
    for item in found:
        np.testing.assert_array_equal(item.load(), opened[item.recording_id].array)
    assert len(found) == 6


@pytest.mark.slow
def test_several_layers_are_nothing_for_lhotse(audio: Path, tmp_path: Path) -> None:
    extract([audio], toy(), tmp_path)
    with pytest.raises(OptionError, match="choose one layer"):
        features.to_lhotse(features.open(tmp_path))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{"layers": "1"}, {}, {"pool": "mean", "layers": "1"}])
def test_datasets_gets_the_same_numbers(options: Any, audio: Path, tmp_path: Path) -> None:
    extract([audio], toy(), tmp_path / "out", **options)
    opened = features.open(tmp_path / "out")
    made = features.to_datasets(opened, cache_dir=str(tmp_path / "cache"))
    assert made["utterance"][:] == [*NAMES] and made.column_names == ["utterance", "seconds", "features"]
    for row in made.with_format("numpy"):
        np.testing.assert_array_equal(row["features"], opened[str(row["utterance"])].array)


# diff and stats --------------------------------------------------------------------------------------------------------


def call(*arguments: object) -> Any:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="hubcore")


def test_diff_of_the_same_features_in_two_formats_agrees(folder: Path, audio: Path, tmp_path: Path) -> None:
    extract([audio], toy(), tmp_path, layers="1")
    result = call("diff", folder, tmp_path, "--tolerance", 0)
    assert result.exit_code == 0
    assert result.output == (
        "note: format is 'safetensors' and 'npy'\n6 utterances the same within 0, 0 different; numbers differ by up to 0\n"
    )


def test_diff_names_what_differs(folder: Path, audio: Path, tmp_path: Path) -> None:
    class Other(ToyUpstream):
        def energies(self, windows: torch.Tensor) -> torch.Tensor:
            found = super().energies(windows)
            return found + 0.001 if len(found) > 100 else found

    random = np.random.default_rng(0)
    for number, name in enumerate("abcdx"):
        samples = random.uniform(-0.5, 0.5, 1600 + 1600 * number)
        soundfile.write(tmp_path / f"{name}.wav", samples[:-160] if name == "c" else samples, 16000)
    extract([tmp_path], toy(scale=1.0001), tmp_path / "out", layers="1")
    result = call("diff", folder, tmp_path / "out", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    said = {item["utterance"]: item["what"] for item in found["different"]}
    assert said["c"] == "has the shapes (30, 2) and (29, 2)" and found["same"] == 0
    assert said["e"] == f"is only in {folder}" and said["x"] == f"is only in {tmp_path / 'out'}"
    assert 1e-4 < found["largest"] < 1e-3 and said["d"].startswith("differs by up to 0.000")
    result = call("diff", folder, tmp_path / "out", "--tolerance", 0.001)
    assert result.exit_code == 1 and "3 utterances the same within 0.001, 4 different" in result.output
    assert f"f is only in {folder}" in result.output.splitlines()


def test_diff_counts_not_a_number_as_different(audio: Path, tmp_path: Path) -> None:
    for name in ("one", "other"):
        extract([audio], toy(), tmp_path / name)
    file = tmp_path / "one/features/a.npy"
    array = np.load(file)
    array[0, 0, 0] = np.nan
    np.save(file, array)
    found = features.compare(features.open(tmp_path / "one"), features.open(tmp_path / "other"))
    assert [item.utterance for item in found.differences] == ["a"]
    with pytest.raises(OptionError, match="0 or more"):
        features.compare(features.open(tmp_path / "one"), features.open(tmp_path / "other"), tolerance=-1)


def test_diff_of_what_is_no_folder_of_features_is_exit_code_2(folder: Path, tmp_path: Path) -> None:
    result = call("diff", folder, tmp_path)
    assert result.exit_code == 2 and "has no run.json" in result.output


class Dead(ToyUpstream):
    """Its second dimension is always 3."""

    def energies(self, windows: torch.Tensor) -> torch.Tensor:
        return torch.stack([windows.mean(1), torch.full((len(windows),), 3.0)], dim=1)


def test_stats_are_those_of_all_numbers(audio: Path, tmp_path: Path) -> None:
    extract([audio], Dead().eval(), tmp_path, layers="0,2")
    arrays = [np.load(file) for file in sorted((tmp_path / "features").iterdir())]
    (tmp_path / "features/b.npy").unlink()
    damaged = arrays[1].copy()
    damaged[0, 3, 0] = np.inf
    np.save(tmp_path / "features/b.npy", damaged)
    found = json.loads(call("stats", tmp_path, "--json").stdout)
    every = np.concatenate(arrays, axis=1)
    finite = np.concatenate([array[0].ravel() for array in (arrays[0], damaged, *arrays[2:])])
    finite = finite[np.isfinite(finite)]
    assert (found["utterances"], found["frames"], found["width"], found["files"]) == (6, 210, 2, 6)
    assert found["hours"] == pytest.approx(2.1 / 3600) and found["layers"] == ["one", "hundred"]
    assert found["bytes"] == sum(path.stat().st_size for path in (tmp_path / "features").iterdir())
    assert (found["not_finite"], found["dead"]) == (["b"], [[1], [1]])
    assert found["mean"][0] == pytest.approx(finite.mean(dtype=np.float64), rel=1e-6)
    assert found["mean"][1] == pytest.approx(every[1].mean()) and found["std"][1] == pytest.approx(every[1].std())
    assert found["smallest"] == pytest.approx(every[1].min()) and found["largest"] == pytest.approx(300.0)


def test_stats_for_people(folder: Path, audio: Path, tmp_path: Path) -> None:
    result = call("stats", folder)
    assert result.exit_code == 0
    said = dict(line.split(None, 1) for line in result.output.splitlines()[:8])
    assert said["utterances"] == "6" and said["frames"] == "210" and said["format"] == "safetensors, float32"
    assert said["not"] == "finite  none" and said["size"].endswith(" in 1 file")
    assert result.output.splitlines()[-1].split()[0] == "ten"
    extract([audio], toy(), tmp_path, mix="0,2", pool="mean+std")
    result = call("stats", tmp_path)
    assert "npy, float32, pool mean+std, mix [0.5, 0.5]" in result.output and "sum of one, hundred" in result.output


def test_the_command_pools_and_mixes(audio: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = call("extract", audio, "-u", "fbank", "-o", out, "--mix", "0", "--pool", "mean+std", "--format", "parquet")
    assert result.exit_code == 0 and "6 written" in result.output
    assert [line.split()[0] for line in result.output.splitlines() if line.endswith("time")] == [*NAMES], "not the shard's name"
    assert features.open(out)["c"].array.shape == (480,)
    result = call("extract", audio, "-u", "fbank", "-o", out, "--pool", "mean")
    assert result.exit_code == 2 and "pool is 'mean+std' there and 'mean' here" in result.output


def test_stats_of_a_folder_without_utterances(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    extract([tmp_path], toy(), tmp_path / "out")
    result = call("stats", tmp_path / "out")
    assert result.exit_code == 0 and "utterances  0" in result.output
    assert json.loads(call("stats", tmp_path / "out", "--json").stdout)["utterances"] == 0
