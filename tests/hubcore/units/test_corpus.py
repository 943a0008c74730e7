"""Units of a corpus: from features and from audio, alone, in parts and after an interruption."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch

from hubcore import features, hub
from hubcore.errors import AudioError, CheckpointError, ExtractionError, OptionError
from hubcore.extract import extract
from hubcore.testing import speech_like
from hubcore.units import AudioFrames, FolderFrames, apply, fit, load, read_units
from hubcore.units.files import FORMATS
from hubcore.units.kmeans import plus_plus
from tests.running import command

NAMES = ("anna/1", "anna/2", "ben", "cleo", "dora")
LENGTHS = (16000, 9000, 20000, 400, 12000)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Five recordings, their fbank features, those of two layers of the tiny model, and a codebook of each."""
    root = tmp_path_factory.mktemp("corpus")
    (root / "audio" / "anna").mkdir(parents=True)
    for seed, (name, length) in enumerate(zip(NAMES, LENGTHS, strict=True)):
        soundfile.write(root / "audio" / f"{name}.wav", speech_like(length, seed=seed).numpy(), 16000)
    extract([root / "audio"], hub.load("fbank"), root / "fbank", layers="last")
    extract([root / "audio"], hub.load("wav2vec2_tiny_prompts"), root / "tiny", layers="1,3", format="safetensors")
    fit(FolderFrames(features.open(root / "fbank")), clusters=9, normalize="standard").codebook.save(root / "fbank.km")
    fit(FolderFrames(features.open(root / "tiny"), 3), clusters=9).codebook.save(root / "tiny.km")
    return root


def plain(path, **options):
    return {name: one.units.tolist() for name, one in read_units(path, **options).items()}


# Fit


def test_the_same_seed_gives_the_same_bytes(root, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        done = command(
            *("units", "fit", root / "audio", "-u", "fbank", "--clusters", 6, "--sample-frames", 100, "--seed", seed),
            *("--batch-seconds", 1, "-o", tmp_path / name),
        )
        assert done.exit_code == 0, done.output
        assert "6 centroids of features of fbank, from" in done.output
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c


def test_features_and_audio_have_the_same_frames(root):
    model = hub.load("wav2vec2_tiny_prompts")
    stored = {name: array for name, array, _ in FolderFrames(features.open(root / "tiny"), "block_3").in_order(0)}
    computed = {name: array for name, array, _ in AudioFrames([root / "audio"], model, 3).in_order(0)}
    assert sorted(stored) == sorted(computed) == sorted(NAMES)
    assert all((stored[name] == computed[name]).all() for name in NAMES)


def test_the_order_of_utterances_depends_on_the_seed(root):
    sources = [
        FolderFrames(features.open(root / "fbank")),
        AudioFrames([root / "audio"], hub.load("fbank"), batch_seconds=0.1),
    ]
    for source in sources:
        orders = {seed: [frames.name for frames in source.in_order(seed)] for seed in range(4)}
        assert orders[0] == [frames.name for frames in source.in_order(0)]
        assert len({tuple(order) for order in orders.values()}) > 1


def test_a_sample_of_all_frames_leaves_no_pass(root):
    source = FolderFrames(features.open(root / "fbank"))
    whole, part = fit(source, clusters=4), fit(source, clusters=4, sample_frames=100, batch_frames=64)
    assert {point.stage for point in whole.curve} == {"sample"}
    assert {point.stage for point in part.curve} == {"sample", "stream"}
    assert whole.frames == part.frames == sum(row["frames"] for row in source.folder.rows.values())
    stream = [point for point in part.curve if point.stage == "stream"]
    assert len(stream) == -(-whole.frames // 64)
    weights = np.diff([part.curve[-1 - len(stream)].frames, *(point.frames for point in stream)])
    mean = np.average([point.inertia for point in stream], weights=weights)
    assert part.codebook.fitted["inertia"] == pytest.approx(mean)
    assert whole.codebook.fitted["inertia"] == whole.curve[-1].inertia


def test_the_first_centroids_are_of_the_whole_sample(root, monkeypatch):
    source, chosen_from = FolderFrames(features.open(root / "fbank")), []

    def recorded(frames, clusters, generator):
        chosen_from.append(frames)
        return plus_plus(frames, clusters, generator)

    monkeypatch.setattr("hubcore.units.fitting.plus_plus", recorded)
    fit(source, clusters=3)  # from 192 of about 350 frames
    whole = torch.from_numpy(np.concatenate([one.array for one in source.folder.values()]))
    (start,) = chosen_from
    assert len(start) == 192
    of_utterances = np.repeat(np.arange(len(NAMES)), [row["frames"] for row in source.folder.rows.values()])
    found = {int(of_utterances[(whole == frame).all(1).nonzero()[0, 0]]) for frame in start}
    assert found >= {0, 1, 2, 4}  # the fourth has a single frame


def test_no_pass_but_the_sample_reads_the_corpus_once(root, monkeypatch):
    source = FolderFrames(features.open(root / "fbank"))
    read = []
    monkeypatch.setattr(FolderFrames, "__getitem__", lambda self, name: read.append(name) or self.folder[name].array)
    fit(source, clusters=4, sample_frames=100, passes=0)
    assert sorted(read) == sorted(NAMES)
    fit(source, clusters=4, sample_frames=100, passes=2)
    assert len(read) == 4 * len(NAMES)


def test_centroids_are_of_the_frames_as_standardised(root):
    codebook, folder = load(root / "fbank.km"), features.open(root / "fbank")
    frames = np.concatenate([one.array for one in folder.values()])
    assert torch.allclose(codebook.mean, torch.from_numpy(frames.mean(0)), atol=1e-4)
    assert torch.allclose(codebook.scale, torch.from_numpy(frames.std(0)), atol=1e-4)
    assert codebook.normalize == codebook.fitted["normalize"] == "standard"


def test_a_dimension_that_is_constant_is_left_as_it_is(root, tmp_path):
    extract([root / "audio" / "ben.wav"], hub.load("fbank"), tmp_path / "out", layers="last")
    path = tmp_path / "out" / "features" / "ben.npy"
    array = np.load(path)
    array[:, 0] = 5
    np.save(path, array)
    codebook = fit(FolderFrames(features.open(tmp_path / "out")), clusters=2, normalize="standard").codebook
    assert codebook.scale[0] == 1


def test_frames_that_are_not_finite_are_refused(root, tmp_path):
    shutil.copytree(root / "fbank", tmp_path / "bad")
    path = tmp_path / "bad" / "features" / "ben.npy"
    array = np.load(path)
    array[3, 3] = np.nan
    np.save(path, array)
    with pytest.raises(ExtractionError, match=r"the features of 'ben' are not finite"):
        fit(FolderFrames(features.open(tmp_path / "bad")), clusters=2)
    with pytest.raises(ExtractionError, match=r"the features of 'ben' are not finite"):
        apply(load(root / "fbank.km"), features.open(tmp_path / "bad"), tmp_path / "units.npz")
    assert not (tmp_path / "units.npz").exists()


@pytest.mark.parametrize(
    "options", [{"clusters": 0}, {"sample_frames": 0}, {"batch_frames": 0}, {"passes": -1}, {"normalize": "l2"}]
)
def test_impossible_numbers_are_refused(root, options):
    ((name, value),) = options.items()
    with pytest.raises(OptionError, match=f"{name} is {value!r}"):
        fit(FolderFrames(features.open(root / "fbank")), **{"clusters": 2, **options})


def test_more_centroids_than_frames_are_refused(root):
    with pytest.raises(ExtractionError, match=r"there are \d+ frames for 5000 centroids"):
        fit(FolderFrames(features.open(root / "fbank")), clusters=5000)


def test_features_that_units_cannot_be_made_of_are_refused(root, tmp_path):
    tiny = features.open(root / "tiny")
    for layer, wrong in ((None, "no layer is given"), (2, "there is no layer 2 in"), ("3,1", "there is no layer 3,1 in")):
        with pytest.raises(OptionError, match=rf"{wrong}.* It has 1 \(block_1\), 3 \(block_3\): choose one with --layer"):
            FolderFrames(tiny, layer)
    with pytest.raises(OptionError, match=r"has features of another upstream: checkpoint_sha256 is"):
        FolderFrames(tiny, 3, upstream=hub.load("ofa_wav2vec2_tiny_prompts"))
    assert FolderFrames(tiny, 3, upstream=hub.load("wav2vec2_tiny_prompts")).final_norm is False
    for key, options in (("pool", {"pool": "mean"}), ("mix", {"mix": "1,3"})):
        extract([root / "audio" / "ben.wav"], hub.load("wav2vec2_tiny_prompts"), tmp_path / key, **options)
        with pytest.raises(OptionError, match=f"Extract without --{key}"):
            FolderFrames(features.open(tmp_path / key))


def test_audio_that_cannot_be_used_is_named(root, tmp_path):
    shutil.copytree(root / "audio", tmp_path / "audio")
    (tmp_path / "audio" / "bad.wav").write_bytes(b"RIFF")
    soundfile.write(tmp_path / "audio" / "short.wav", np.zeros(10), 16000)
    soundfile.write(tmp_path / "audio" / "nan.wav", np.full(4000, np.nan), 16000, subtype="FLOAT")  # which no header tells
    done = command("units", "fit", tmp_path / "audio", "-u", "fbank", "--clusters", 3, "-o", tmp_path / "km")
    assert done.exit_code == 1
    assert [done.output.count(f"{name}.wav") for name in ("bad", "nan", "short")] == [1, 1, 1]
    assert load(tmp_path / "km").fitted["clusters"] == 3
    with pytest.raises(AudioError, match=r"none of 1 utterance can be used. The first: .*short.wav"):
        AudioFrames([tmp_path / "audio" / "short.wav"], hub.load("fbank"))


# Apply


def test_units_of_features_of_audio_and_of_calls_are_the_same(root, tmp_path):
    codebook, model = load(root / "tiny.km"), hub.load("wav2vec2_tiny_prompts")
    apply(codebook, features.open(root / "tiny"), tmp_path / "stored.npz")
    apply(codebook, [root / "audio"], tmp_path / "computed.npz", upstream=model)
    assert (tmp_path / "stored.npz").read_bytes() == (tmp_path / "computed.npz").read_bytes()
    found = read_units(tmp_path / "stored.npz")
    assert [*found] == sorted(NAMES)
    wav = torch.from_numpy(soundfile.read(root / "audio" / "ben.wav", dtype="float32")[0])
    with torch.inference_mode():
        out = model([wav])
    assert found["ben"].units.tolist() == codebook(out)[0].tolist()
    assert np.allclose(found["ben"].times, out.frame_times()[0], atol=1e-5)
    assert not (tmp_path / "computed.npz.work").exists()


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_has_the_same_units(root, format, tmp_path):
    whole, short = tmp_path / f"whole{FORMATS[format]}", tmp_path / f"short{FORMATS[format]}"
    for path, flags in ((whole, []), (short, ["--deduplicate"])):
        done = command("units", "apply", root / "fbank.km", root / "fbank", "-o", path, *flags)
        assert done.exit_code == 0, done.output
    codebook, folder = load(root / "fbank.km"), features.open(root / "fbank")
    expected = {name: codebook.assign(torch.from_numpy(np.array(one.array))).tolist() for name, one in folder.items()}
    names = {"names": [*folder]} if format == "km" else {}
    assert plain(whole, **names) == expected
    for name, one in read_units(short, **names).items():
        assert (np.diff(one.units) != 0).all()
        if one.durations is not None:
            assert np.repeat(one.units, one.durations).tolist() == expected[name]
            assert one.times[0, 0] == 0 and one.times[-1, 1] == folder[name].times[-1, 1]
        else:
            assert one.units.tolist() == [
                unit for unit, last in zip(expected[name], [None, *expected[name][:-1]], strict=True) if unit != last
            ]


def test_parts_make_the_bytes_of_one_process(root, tmp_path):
    arguments = ["units", "apply", root / "fbank.km", root / "audio", "--deduplicate", "--batch-seconds", 1]
    assert command(*arguments, "-o", tmp_path / "one.npz").exit_code == 0
    for part in ("2/3", "0/3"):
        done = command(*arguments, "-o", tmp_path / "parts.npz", "--shard", part)
        assert done.exit_code == 0, done.output
        assert "the last part writes" in done.output
        assert not (tmp_path / "parts.npz").exists()
    assert command(*arguments, "-o", tmp_path / "parts.npz", "--shard", "1/3").exit_code == 0
    assert (tmp_path / "parts.npz").read_bytes() == (tmp_path / "one.npz").read_bytes()
    assert [path.name for path in tmp_path.iterdir()].count("parts.npz.work") == 0


def test_an_interrupted_run_is_resumed(root, tmp_path):
    codebook, model = load(root / "fbank.km"), hub.load("fbank")
    calls = []

    class Counting(type(model)):
        def forward(self, wavs, *args, **options):
            calls.append(len(wavs))
            if len(calls) == 3:
                raise KeyboardInterrupt
            return super().forward(wavs, *args, **options)

    model.__class__ = Counting
    arguments = {"upstream": model, "batch_seconds": 0.1}
    with pytest.raises(KeyboardInterrupt):
        apply(codebook, [root / "audio"], tmp_path / "units.npz", **arguments)
    assert not (tmp_path / "units.npz").exists()
    done = len(features.open(tmp_path / "units.npz.work"))
    assert done == 2
    apply(codebook, [root / "audio"], tmp_path / "units.npz", **arguments)
    assert len(calls) == 3 + len(NAMES) - done
    apply(codebook, [root / "audio"], tmp_path / "whole.npz", upstream=hub.load("fbank"), batch_seconds=0.1)
    assert (tmp_path / "units.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_units_of_two_codebooks_are_never_mixed(root, tmp_path):
    model = hub.load("fbank")
    other = fit(FolderFrames(features.open(root / "fbank")), clusters=3).codebook
    apply(other, [root / "audio"], tmp_path / "units.npz", upstream=model, shard="0/2", batch_seconds=0.1)
    with pytest.raises(ExtractionError, match=r"units.npz.work holds features made with other settings: options is .*codebook"):
        apply(load(root / "fbank.km"), [root / "audio"], tmp_path / "units.npz", upstream=model, shard="1/2", batch_seconds=0.1)


def test_an_utterance_that_fails_costs_itself_but_for_km(root, tmp_path):
    shutil.copytree(root / "audio", tmp_path / "audio")
    (tmp_path / "audio" / "bad.wav").write_bytes(b"RIFF")
    arguments = ["units", "apply", root / "fbank.km", tmp_path / "audio"]
    done = command(*arguments, "-o", tmp_path / "units.txt")
    assert done.exit_code == 1
    assert "5 utterances, 1 failed" in done.output and "bad.wav" in done.output
    assert sorted(plain(tmp_path / "units.txt")) == sorted(NAMES)
    done = command(*arguments, "-o", tmp_path / "units.km")
    assert done.exit_code == 2
    assert "was not written, as bad failed and a line would be missing" in done.output
    assert not (tmp_path / "units.km").exists()
    soundfile.write(tmp_path / "audio" / "bad.wav", speech_like(4000).numpy(), 16000)
    assert command(*arguments, "-o", tmp_path / "units.km").exit_code == 0
    assert len((tmp_path / "units.km").read_text().splitlines()) == 6


def test_km_has_the_lines_of_a_manifest(root, tmp_path):
    lengths = dict(zip(NAMES, LENGTHS, strict=True))
    lines = [f"{name}.wav\t{lengths[name]}" for name in ("dora", "anna/2", "ben")]
    (tmp_path / "train.tsv").write_text("\n".join([str(root / "audio"), *lines]) + "\n")
    assert command("units", "apply", root / "fbank.km", tmp_path / "train.tsv", "-o", tmp_path / "train.km").exit_code == 0
    assert command("units", "apply", root / "fbank.km", root / "audio", "-o", tmp_path / "all.npz").exit_code == 0
    found, whole = plain(tmp_path / "train.km"), plain(tmp_path / "all.npz")
    assert [*found] == ["dora", "anna/2", "ben"]
    assert all(found[name] == whole[name] for name in found)


def test_frames_of_no_constant_rate_keep_their_times(root, tmp_path):
    model = hub.load("ofa_wav2vec2_tiny_prompts", lambd=0.5)
    codebook = fit(AudioFrames([root / "audio"], model, 2), clusters=4).codebook
    codebook.save(tmp_path / "km")
    arguments = ["units", "apply", tmp_path / "km", root / "audio", "-u", "ofa_wav2vec2_tiny_prompts", "-o", tmp_path / "u.npz"]
    done = command(*arguments, "-O", "lambd=0.9")
    assert done.exit_code == 2 and "options is" in done.output and "0.9" in done.output
    assert command(*arguments, "-O", "lambd=0.5").exit_code == 0
    wav = torch.from_numpy(soundfile.read(root / "audio" / "ben.wav", dtype="float32")[0])
    with torch.inference_mode():
        out = model([wav])
    found = read_units(tmp_path / "u.npz")["ben"]
    assert found.units.tolist() == codebook(out)[0].tolist()
    assert np.allclose(found.times, out.frame_times()[0], atol=1e-5)


def test_long_audio_in_chunks_has_a_unit_for_each_frame(root, tmp_path):
    soundfile.write(tmp_path / "long.wav", speech_like(48000).numpy(), 16000)
    arguments = ["units", "apply", root / "fbank.km", tmp_path / "long.wav"]
    for name, flags in (("whole", []), ("parts", ["--chunk-seconds", 1])):
        done = command(*arguments, "-o", tmp_path / f"{name}.npz", *flags)
        assert done.exit_code == 0, done.output
    assert (tmp_path / "whole.npz").read_bytes() == (tmp_path / "parts.npz").read_bytes()


def test_features_too_large_for_their_type_are_no_units(root, tmp_path):
    model = hub.load("fbank")

    class Infinite(type(model)):
        def forward(self, *args, **options):
            out = super().forward(*args, **options)
            out.hidden_states[0][0, 3, 3] = torch.inf
            return out

    model.__class__ = Infinite
    done = apply(load(root / "fbank.km"), [root / "audio" / "ben.wav"], tmp_path / "units.npz", upstream=model)
    assert [failure.utterance for failure in done.failures] == ["ben"]
    assert "not finite" in done.failures[0].error


# The command line


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["fit", "{audio}", "--clusters", 3, "-o", "km"], "Missing option '--upstream'"),
        (
            ["fit", "{audio}", "-u", "wav2vec2_tiny_prompts", "--clusters", 3, "-o", "km"],
            "no layer is given. Choose one of input",
        ),
        (["fit", "{audio}", "-u", "wav2vec2_tiny_prompts", "--layer", 9, "--clusters", 3, "-o", "km"], "there is no layer 9"),
        (["fit", "{audio}", "-u", "wav2vec2_tiny_prompts", "--layer", "1-3", "--clusters", 3, "-o", "km"], "Units are of one"),
        (["fit", "{fbank}", "{audio}", "--clusters", 3, "-o", "km"], "is a folder of features. Give it alone"),
        (["fit", "{fbank}", "--clusters", 3, "-o", "km", "--curve", "a.gif"], "the picture a.gif has an ending"),
        (["fit", "{fbank}", "--clusters", 3, "-o", "no/km"], "there is no folder no for the codebook"),
        (["apply", "{tiny.km}", "{fbank}", "-o", "a.txt"], "this codebook is of other features: checkpoint_sha256"),
        (["apply", "{tiny.km}", "{audio}", "-u", "fbank", "-o", "a.txt"], "and FbankUpstream has it not"),
        (["apply", "{tiny.km}", "{audio}", "-o", "a.csv"], "does not end like a file of units"),
        (["apply", "{tiny.km}", "{audio}", "--layer", 2, "-o", "a.txt"], "layer is 3 (block_3) there and 2 here"),
        (
            ["apply", "{tiny.km}", "{tiny}", "--shard", "0/2", "-o", "a.txt"],
            "it divides the work of computing audio. These are features",
        ),
        (["apply", "{audio}/ben.wav", "{tiny}", "-o", "a.txt"], "ben.wav"),
    ],
)
def test_what_cannot_be_done_is_said(root, arguments, wrong, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts = [str(one) for one in arguments]
    for name in ("audio", "fbank", "tiny", "tiny.km"):
        texts = [text.replace(f"{{{name}}}", str(root / name)) for text in texts]
    done = command("units", *texts)
    assert done.exit_code == 2, done.output
    assert wrong in done.output
    assert not [*tmp_path.iterdir()]


def test_json_and_curves(root, tmp_path):
    arguments = ["units", "fit", root / "fbank", "--clusters", 4, "--sample-frames", 100, "-o", tmp_path / "km", "--json"]
    done = command(*arguments, "--curve", tmp_path / "curve.json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["curve"] == json.loads((tmp_path / "curve.json").read_text())
    assert found["layer"] == "features" and found["clusters"] == 4 and found["failed"] == []
    done = command("units", "apply", tmp_path / "km", root / "fbank", "-o", tmp_path / "units.txt", "--json")
    frames = sum(row["frames"] for row in features.open(root / "fbank").rows.values())
    assert json.loads(done.stdout) == {
        "file": str(tmp_path / "units.txt"),
        "written": True,
        "utterances": 5,
        "units": frames,
        "failures": [],
    }


@pytest.mark.slow  # matplotlib
def test_the_curve_is_drawn(root, tmp_path):
    for name in ("a.png", "b.png"):
        arguments = ["units", "fit", root / "fbank", "--clusters", 4, "--sample-frames", 100, "-o", tmp_path / "km"]
        assert command(*arguments, "--curve", tmp_path / name).exit_code == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_another_checkpoint_is_refused_by_apply(root, tmp_path):
    hub.load("wav2vec2_tiny_prompts").save_checkpoint(tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="checkpoint_sha256 is"):
        apply(
            load(root / "tiny.km"),
            [root / "audio"],
            tmp_path / "units.txt",
            upstream=hub.load("wav2vec2", checkpoint=tmp_path / "other.safetensors"),
        )
    assert not (tmp_path / "units.txt.work").exists()
