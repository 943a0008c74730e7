"""Probes on features of loud and quiet noise: what is learned, saved, read back and refused."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression

from hubcore import features, hub, probes
from hubcore.errors import CheckpointError, OptionError
from hubcore.extract import choose_layers, extract
from hubcore.extract.reduce import choose_mix
from tests.hubcore.extract.lab import toy
from tests.running import command

RATE = 16000
LEVELS = {"a": 0.1, "b": 0.35, "c": 0.8}
TEXTS = ("ab", "ba", "aba", "bab", "abab", "aab", "bba", "abba", "baab", "a", "b", "bb")
QUICK = probes.Recipe(seeds=2, epochs=30, learning_rate=0.05, batch=8)


def noise(level: float, seconds: float, seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).uniform(-level, level, int(seconds * RATE))


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 clips by 12 speakers, in three levels."""
    root = tmp_path_factory.mktemp("audio")
    for number in range(48):
        name = "abc"[number % 3]
        soundfile.write(root / f"{name}{number}.wav", noise(LEVELS[name], 0.1 + 0.01 * (number % 5), number), RATE)
    return root


@pytest.fixture(scope="module")
def folder(audio: Path, tmp_path_factory: pytest.TempPathFactory) -> features.FeatureFolder:
    out = tmp_path_factory.mktemp("features")
    extract([audio], toy(), out)
    return features.open(out)


@pytest.fixture(scope="module")
def labels(folder: features.FeatureFolder) -> probes.Labels:
    speakers = {name: f"speaker {int(name[1:]) % 12}" for name in folder}
    return probes.Labels("classify", {name: name[0] for name in folder}, "speaker", speakers)


@pytest.fixture(scope="module")
def trained(folder: features.FeatureFolder, labels: probes.Labels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    probes.train_probes(folder, labels, out, recipe=QUICK)
    return out


# Training --------------------------------------------------------------------------------------------------------------


def test_every_layer_has_scores_intervals_chance_and_a_probe(trained: Path) -> None:
    report = json.loads((trained / "report.json").read_text())
    assert [(layer["name"], layer["file"]) for layer in report["layers"]] == [
        ("one", "layer_0.safetensors"),
        ("ten", "layer_1.safetensors"),
        ("hundred", "layer_2.safetensors"),
    ]
    for layer in report["layers"]:
        score = layer["scores"]["accuracy"]
        assert score["chance"] < score["low"] <= score["value"] <= score["high"] and score["value"] > 0.9
        assert set(layer["scores"]) == {"accuracy", "macro F1", "EER"} and len(layer["epochs"]) == 2
    assert sum(report["parts"].values()) == 48 and sum(report["groups"].values()) == 12 and report["group"] == "speaker"


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes(
    trained: Path, folder: features.FeatureFolder, labels: probes.Labels, tmp_path: Path
) -> None:
    torch.manual_seed(99)  # somebody's else
    before = torch.random.get_rng_state()
    probes.train_probes(folder, labels, tmp_path, recipe=QUICK)
    assert torch.equal(torch.random.get_rng_state(), before)
    files = sorted(path.name for path in trained.iterdir())
    assert files == sorted(path.name for path in tmp_path.iterdir()) and len(files) == 4
    assert all((trained / name).read_bytes() == (tmp_path / name).read_bytes() for name in files)


def test_features_without_information_score_as_chance_does(
    folder: features.FeatureFolder, labels: probes.Labels, tmp_path: Path
) -> None:
    shuffled = dict(zip(labels.targets, np.random.default_rng(1).permutation([*labels.targets.values()]).tolist(), strict=True))
    report = probes.train_probes(folder, probes.Labels("classify", shuffled), tmp_path, layers="0", recipe=QUICK)
    score = report.layers[0].scores["accuracy"]
    assert score.low <= 0.5 and report.layers[0].name == "one" and len(report.layers) == 1


@pytest.mark.slow
def test_a_linear_probe_agrees_with_logistic_regression(audio: Path, tmp_path: Path) -> None:
    random, tilts = np.random.default_rng(0), {"x": 0.0, "y": 0.1}
    for number in range(160):
        name, wav = "xy"[number % 2], random.uniform(-0.5, 0.5, 1600)
        wav[1:] += tilts[name] * wav[:-1]
        soundfile.write(tmp_path / f"{name}{number}.wav", wav, RATE)
    out = tmp_path / "out"
    extract([tmp_path], hub.load("fbank_no_cmvn", delta_order=0), out, layers="last", pool="mean")
    opened = features.open(out)
    parts = {name: ("train", "train", "valid", "test", "test")[int(name[1:]) // 2 % 5] for name in opened}
    known = probes.Labels("classify", {name: name[0] for name in opened}, parts=parts)
    report = probes.train_probes(opened, known, tmp_path / "probe", recipe=probes.Recipe(seeds=1))
    table = {name: found.array for name, found in opened.items()}
    train, test = ([name for name in opened if parts[name] == part] for part in ("train", "test"))
    x = np.stack([table[name] for name in train])
    model = LogisticRegression(max_iter=1000).fit((x - x.mean(0)) / x.std(0), [name[0] for name in train])
    theirs = model.score((np.stack([table[name] for name in test]) - x.mean(0)) / x.std(0), [name[0] for name in test])
    ours = report.layers[0].scores["accuracy"]
    assert abs(ours.value - theirs) <= 2 * (2 * theirs * (1 - theirs) / len(test)) ** 0.5 and 0.65 < theirs < 1
    assert ours.low > ours.chance


@pytest.mark.slow
def test_a_weighted_sum_learns_weights_that_extract_can_use(
    folder: features.FeatureFolder, labels: probes.Labels, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(QUICK, hidden=8)
    report = probes.train_probes(folder, labels, tmp_path, layers="weighted", recipe=recipe)
    (found,) = report.layers
    assert (
        found.weights is not None and sum(found.weights.values()) == pytest.approx(1) and found.scores["accuracy"].value > 0.9
    )
    file = tmp_path / "weighted.safetensors"
    _, weights = choose_mix(file, choose_layers("all", folder.layer_names), folder.layer_names)
    assert weights == pytest.approx(load_file(file)["weights"].softmax(0).tolist()) and len(set(weights)) == 3
    answers = probes.load(file, toy()).from_features(folder)
    assert np.mean([answer.value == name[0] for name, answer in answers.items()]) > 0.9


def test_numbers_are_learned(folder: features.FeatureFolder, tmp_path: Path) -> None:
    known = probes.Labels("regress", {name: 100 + 5 * LEVELS[name[0]] for name in folder})
    report = probes.train_probes(folder, known, tmp_path, layers=[1], pool="max", recipe=QUICK)
    assert report.layers[0].scores["R2"].value > 0.95 and report.layers[0].scores["R2"].chance <= 0
    probe = probes.load(tmp_path / "layer_1.safetensors", toy())
    (answer,) = probe([torch.from_numpy(noise(LEVELS["b"], 0.2, 7)).float()])
    assert answer.value == pytest.approx(100 + 5 * LEVELS["b"], abs=0.3) and answer.probabilities is None


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Letters as levels of noise, with silence between."""
    root = tmp_path_factory.mktemp("spoken")
    for number in range(36):
        text = TEXTS[number % len(TEXTS)]
        pieces = [noise(level, 0.04, number) for letter in text for level in (0.01, LEVELS[letter])]
        soundfile.write(root / f"{text}_{number}.wav", np.concatenate(pieces), RATE)
    return root


@pytest.mark.slow
def test_texts_are_learned_from_frames(spoken: Path, tmp_path: Path) -> None:
    extract([spoken], toy(), tmp_path / "features", layers="2,1")
    opened = features.open(tmp_path / "features")
    known = probes.Labels("ctc", {name: name.partition("_")[0] for name in opened} | {"gone": "a"})
    recipe = probes.Recipe(seeds=1, learning_rate=0.05, epochs=40, batch_frames=50, hidden=16)
    report = probes.train_probes(opened, known, tmp_path / "probe", layers="hundred", recipe=recipe)
    score = report.layers[0].scores["CER"]
    assert score.value < 0.2 < score.chance <= 1 and report.left_out == {"without features": 1}
    wav, _ = soundfile.read(spoken / "abba_7.wav", dtype="float32")
    probe = probes.load(tmp_path / "probe/layer_2.safetensors", toy())
    (said,) = probe([torch.from_numpy(wav)])
    assert said.value == probe.from_features(opened)["abba_7"].value == "abba"
    spaced = probes.Labels("ctc", {name: " ".join(text) for name, text in known.targets.items() if isinstance(text, str)})
    small = probes.Recipe(seeds=1, epochs=1)
    phones = probes.train_probes(opened, spaced, tmp_path / "phones", layers=[2], tokens="phones", recipe=small)
    assert phones.measure == "PER" and phones.labels == 2


# Using a probe ---------------------------------------------------------------------------------------------------------


def test_waveforms_and_stored_features_get_the_same_answer(trained: Path, folder: features.FeatureFolder, audio: Path) -> None:
    probe = probes.load(trained / "layer_1.safetensors", toy())
    stored = probe.from_features(folder)
    names = [*folder][:6]
    wavs = [torch.from_numpy(soundfile.read(audio / f"{name}.wav", dtype="float32")[0]) for name in names]
    for name, answer in zip(names, probe(wavs), strict=True):
        assert answer.value == stored[name].value == name[0]
        assert answer.probabilities == pytest.approx(stored[name].probabilities, abs=1e-4)
    assert probe.record.card is not None and probe.record.card.name == "toy_card" and probe.scores["accuracy"]["value"] > 0.9


def test_a_folder_with_fewer_layers_or_pooled_will_do(
    trained: Path, folder: features.FeatureFolder, audio: Path, tmp_path: Path
) -> None:
    probe = probes.load(trained / "layer_1.safetensors")
    extract([audio], toy(), tmp_path / "one", layers="1", pool="mean")
    assert probe.from_features(features.open(tmp_path / "one"))["a0"].value == "a"
    extract([audio], toy(), tmp_path / "other", layers="0,2")
    with pytest.raises(OptionError, match="layer 1 is 'ten' there and 'not there' here"):
        probe.from_features(features.open(tmp_path / "other"))
    extract([audio], toy(), tmp_path / "max", layers="1", pool="max")
    with pytest.raises(OptionError, match="pool is 'mean' there and 'max' here"):
        probe.from_features(features.open(tmp_path / "max"))


def test_another_upstream_or_checkpoint_is_refused(trained: Path, folder: features.FeatureFolder) -> None:
    path, wavs = trained / "layer_1.safetensors", [torch.zeros(1600)]
    with pytest.raises(
        OptionError, match=r"features of toy_card.*upstream is 'toy_card' there and 'fbank' here.*layer 1 is 'ten'"
    ):
        probes.load(path, hub.load("fbank"))(wavs)
    probe = probes.load(path, toy())
    settings = {**probe.record.settings, "checkpoint_sha256": "0" * 64, "options": {"lambd": 0.5}}
    other = dataclasses.replace(probe, record=dataclasses.replace(probe.record, settings=settings))
    with pytest.raises(OptionError, match=r"checkpoint_sha256 is '0000.*' there and None here; options is"):
        other.from_features(folder)


@pytest.mark.slow
def test_a_probe_loads_its_upstream_by_name_and_options(audio: Path, tmp_path: Path) -> None:
    extract([audio], hub.load("fbank_no_cmvn", num_mel_bins=23, delta_order=0), tmp_path / "features", pool="mean")
    opened = features.open(tmp_path / "features")
    known = probes.Labels("classify", {name: name[0] for name in opened})
    probes.train_probes(opened, known, tmp_path / "probe", recipe=QUICK)
    with pytest.raises(OptionError, match=r"config_sha256 is '\w+' there and '\w+' here"):
        probes.load(tmp_path / "probe/layer_0.safetensors")([torch.zeros(1600)])
    model = hub.load("fbank_no_cmvn", num_mel_bins=23, delta_order=0)
    (answer,) = probes.load(tmp_path / "probe/layer_0.safetensors", model)([torch.from_numpy(noise(0.8, 0.1, 3)).float()])
    assert answer.value == "c"


def test_an_upstream_that_no_card_names_is_asked_for(trained: Path) -> None:
    with pytest.raises(OptionError, match=r"features of toy_card, with a checkpoint that no card here names.*upstream=model"):
        probes.load(trained / "layer_1.safetensors")([torch.zeros(1600)])


def test_a_measure_that_is_not_defined_is_no_number(folder: features.FeatureFolder, tmp_path: Path) -> None:
    known = probes.Labels("regress", dict.fromkeys(folder, 2.0))
    recipe = probes.Recipe(seeds=1, epochs=1)
    assert np.isnan(probes.train_probes(folder, known, tmp_path, layers=[0], recipe=recipe).layers[0].scores["R2"].value)
    assert probes.load(tmp_path / "layer_0.safetensors").scores["R2"]["value"] is None


@pytest.mark.parametrize("fault", ["no probe", "other shapes", "contradiction", "cut off"])
def test_a_file_that_is_no_probe_is_refused(fault: str, trained: Path, tmp_path: Path) -> None:
    tensors, path = load_file(trained / "layer_1.safetensors"), tmp_path / "probe.safetensors"
    with open(trained / "layer_1.safetensors", "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))["__metadata__"]["hubcore_probe"]
    if fault == "no probe":
        save_file(tensors, path, {"made_by": "somebody"})
    elif fault == "other shapes":
        save_file({**tensors, "mean": torch.zeros(3)}, path, {"hubcore_probe": header})
    elif fault == "contradiction":
        save_file(tensors, path, {"hubcore_probe": header.replace('"places": [1]', '"places": [7]')})
    else:
        path.write_bytes((trained / "layer_1.safetensors").read_bytes()[:-4])
    with pytest.raises(CheckpointError):
        probes.load(path)


def test_what_cannot_be_trained_is_said(folder: features.FeatureFolder, labels: probes.Labels, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"no utterance of .* has a label: labels are of x; features of a0"):
        probes.train_probes(folder, probes.Labels("classify", {"x": "a"}), tmp_path)
    with pytest.raises(OptionError, match=r"all utterances have the label 'a'"):
        probes.train_probes(folder, probes.Labels("classify", dict.fromkeys(labels.targets, "a")), tmp_path)
    with pytest.raises(OptionError, match=r"there is no layer 5"):
        probes.train_probes(folder, labels, tmp_path, layers="5")
    with pytest.raises(OptionError, match=r"patience must be a whole number of at least 1"):
        probes.Recipe(patience=0)


# The command -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_takes_audio(audio: Path, tmp_path: Path) -> None:
    rows = [f"{path.stem},{path.stem[0]},{path.stem}" for path in audio.iterdir() if path.stem not in ("a0", "b1")]
    (tmp_path / "labels.csv").write_text("\n".join(["utterance,label,speaker", *rows]))
    told = ("--labels", tmp_path / "labels.csv", "--task", "classify", "--seeds", 1, "--learning-rate", 0.01)
    said = command("probe", audio, "-u", "fbank_no_cmvn", *told, "-o", tmp_path / "out", "--plot", tmp_path / "layers.svg")
    assert said.exit_code == 0, said.output
    assert (
        re.search(r"features +[01]\.\d{3} \([01]\.\d{3} to [01]\.\d{3}\)", said.output)
        and "\nchance    0." in said.output
        and "groups by speaker, 1 seed" in said.output
    )
    assert (tmp_path / "layers.svg").stat().st_size > 1000 and (tmp_path / "out/features/table.npy").exists()
    again = command("probe", tmp_path / "out/features", *told, "-o", tmp_path / "out", "--json")
    assert again.exit_code == 0 and json.loads(again.stdout) == json.loads((tmp_path / "out/report.json").read_text())
    frames = command("probe", tmp_path / "out/features", *told[:3], "ctc", "-o", tmp_path / "out")
    assert frames.exit_code == 2 and "A ctc probe needs frames: extract without --pool." in frames.stderr
    refused = command("probe", audio, *told, "-o", tmp_path / "out")
    assert refused.exit_code == 2 and "Missing option '--upstream'" in refused.stderr
