"""Batches: every utterance once, within bounds, the same from the same seed; crops; what cannot be read."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hubcore.audio import load_audio
from hubcore.errors import ExtractionError, OptionError
from hubcore.pretrain.data import (
    BatchReader,
    Cropping,
    Epochs,
    Place,
    Utterance,
    check_guidance,
    read_ahead,
    read_corpus,
)
from tests.hubcore.pretrain.conftest import Lab, make_corpus

pytestmark = pytest.mark.slow


@given(st.integers(1, 30), st.integers(0, 40), st.integers(1, 20))
@settings(max_examples=100, deadline=None)
def test_the_sequence_of_batches_is_one_wherever_one_begins(count: int, skipped: int, taken: int) -> None:
    plan = Epochs([10] * count, seed=3, max_samples_per_batch=30)
    whole = plan.take(Place(0, 0), skipped + taken)
    start = plan.after(Place(0, 0), skipped) if skipped else Place(0, 0)
    assert plan.take(start, taken) == whole[skipped:]


def corpus(manifest: Path) -> list[Utterance]:
    root, *lines = manifest.read_text().splitlines()
    return [Utterance(key, Path(root, key), int(count)) for key, count in (line.split("\t") for line in lines)]


def test_waveforms_are_whole_by_default(lab: Lab) -> None:
    items = corpus(lab.train)
    loaded = BatchReader(items, sample_rate=16000, cropping=Cropping(stride=320)).load(Place(0, 0), [3, 7])
    assert loaded.batch.keys == ["03.wav", "07.wav"] and list(loaded.batch.starts) == [0, 0]
    for wav, index in zip(loaded.batch.wavs, (3, 7), strict=True):
        assert torch.equal(wav, load_audio(items[index].path))
    assert loaded.samples == items[3].samples + items[7].samples and not loaded.stand_in


def test_crops_are_at_whole_frames_everywhere_and_reproducible(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.arange(20000) / 20000 - 0.5, 16000, subtype="FLOAT")
    item = Utterance("a.wav", tmp_path / "a.wav", 20000)
    wav = load_audio(item.path)
    reader = BatchReader([item], sample_rate=16000, cropping=Cropping(max_samples=8000, stride=320), seed=1)
    starts = []
    for epoch in range(300):
        loaded = reader.load(Place(epoch, 0), [0])
        [start], [crop] = loaded.batch.starts, loaded.batch.wavs
        assert start % 320 == 0 and torch.equal(crop, wav[start : start + 8000])
        starts.append(start)
    assert set(starts) == set(range(0, 12001, 320)), "the first and the last place are drawn too"
    assert starts[:20] == [reader.load(Place(epoch, 0), [0]).batch.starts[0] for epoch in range(20)]


def test_compat_crops_to_the_shortest_at_any_sample(lab: Lab) -> None:
    items = corpus(lab.train)
    reader = BatchReader(items, sample_rate=16000, cropping=Cropping(stride=320, to_shortest=True), seed=1)
    indices = [0, 1, 2, 3]
    shortest = min(items[index].samples for index in indices)
    found = set()
    for epoch in range(30):
        batch = reader.load(Place(epoch, 0), indices).batch
        assert {len(wav) for wav in batch.wavs} == {shortest}
        for wav, start, index in zip(batch.wavs, batch.starts, indices, strict=True):
            assert torch.equal(wav, load_audio(items[index].path)[start : start + shortest])
        found.update(start % 320 for start in batch.starts)
    assert len(found) > 20


def test_what_cannot_be_read_is_left_out_and_named(lab: Lab) -> None:
    items = corpus(lab.train)
    items[1].path.write_bytes(b"RIFF")
    items[2] = Utterance(items[2].key, items[2].path, items[2].samples + 1)
    items[4].path.unlink()
    reader = BatchReader(items, sample_rate=16000, cropping=Cropping())
    loaded = reader.load(Place(0, 0), [0, 1, 2, 3])
    assert loaded.batch.keys == ["00.wav", "03.wav"]
    assert set(loaded.unreadable) == {"01.wav", "02.wav"}
    assert "manifest says" in loaded.unreadable["02.wav"]
    alone = reader.load(Place(0, 0), [4])
    assert alone.stand_in and alone.samples == 0 and len(alone.batch.wavs[0]) == items[4].samples


def test_guidance_is_that_of_the_whole_file(lab: Lab) -> None:
    items = corpus(lab.train)
    guidance = {item.key: f"guide {item.key}" for item in items[:3]}
    reader = BatchReader(items, sample_rate=16000, cropping=Cropping(), guidance=guidance)
    loaded = reader.load(Place(0, 0), [0, 1, 5])
    assert loaded.batch.guidance == ["guide 00.wav", "guide 01.wav"]
    assert "no supervision of '05.wav'" in loaded.unreadable["05.wav"]
    with pytest.raises(OptionError, match=r"no segments of 17 of 20 utterances: 03.wav.*reports as failed must leave"):
        check_guidance(items, guidance, "segments")


class Checked(dict[str, int]):
    """Guidance that knows for how many samples it was made; some of it is damaged."""

    def read(self, key: str, *, samples: int) -> int:
        if self[key] != samples:
            raise ExtractionError(f"{key} was made for {self[key]} samples")
        return samples

    def values(self) -> NoReturn:  # segments on a disk are no real mapping
        raise NotImplementedError


def test_guidance_that_can_be_compared_with_the_audio_is(lab: Lab) -> None:
    items = corpus(lab.train)
    guidance = Checked({item.key: item.samples for item in items})
    guidance["01.wav"] += 320
    reader = BatchReader(items, sample_rate=16000, cropping=Cropping(), guidance=guidance)
    loaded = reader.load(Place(0, 0), [0, 1])
    assert loaded.batch.keys == ["00.wav"] and "01.wav was made for" in loaded.unreadable["01.wav"]


def test_a_stand_in_has_the_guidance_of_its_own_length(lab: Lab) -> None:
    items = corpus(lab.train)
    guidance = Checked({item.key: item.samples for item in items})
    for key in ("01.wav", "02.wav"):
        guidance[key] = 0
    reader = BatchReader(items, sample_rate=16000, cropping=Cropping(), guidance=guidance)
    loaded = reader.load(Place(0, 0), [1, 2])
    assert loaded.stand_in and set(loaded.unreadable) == {"01.wav", "02.wav"}
    assert loaded.batch.guidance == [items[3].samples] == [len(loaded.batch.wavs[0])]
    for key in guidance:
        guidance[key] = 0
    with pytest.raises(
        OptionError, match=r"supervision was found of 20 utterances, and none can be used, .*01.wav was made for 0"
    ):
        reader.load(Place(0, 0), [1])


def test_a_stand_in_is_no_longer_than_a_crop(lab: Lab) -> None:
    items = [Utterance("a.wav", lab.folder / "none.wav", 10**12)]
    loaded = BatchReader(items, sample_rate=16000, cropping=Cropping(max_samples=4000)).load(Place(0, 0), [0])
    assert loaded.stand_in and len(loaded.batch.wavs[0]) == 4000


def test_a_root_that_is_not_there_is_said_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.tsv").write_text("speech\na.wav\t4000\n")
    with pytest.raises(OptionError, match=r"train.tsv:1: the root speech is not a folder.*in the working folder"):
        read_corpus(["train.tsv"], min_samples=1, max_samples=None, max_samples_per_batch=4000)
    (tmp_path / "speech").mkdir()
    found = read_corpus(["train.tsv"], min_samples=1, max_samples=None, max_samples_per_batch=4000)
    assert found.samples == 4000


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_reading_ahead_keeps_the_order(lab: Lab, workers: int) -> None:
    items = corpus(lab.train)
    plan = Epochs([item.samples for item in items], seed=1, max_samples_per_batch=16000)
    reader = BatchReader(items, sample_rate=16000, cropping=Cropping())
    batches = plan.take(Place(0, 0), 15)
    loaded = list(read_ahead(reader, iter(batches), workers=workers))
    assert [tuple(one.batch.keys) for one in loaded] == [tuple(items[i].key for i in indices) for _, indices in batches]


def test_reading_ahead_stops_where_it_is_closed(lab: Lab) -> None:
    items = corpus(make_corpus(lab.folder / "more", 3))
    plan = Epochs([item.samples for item in items], seed=1, max_samples_per_batch=6000)
    reader = BatchReader(items, sample_rate=16000, cropping=Cropping())

    def forever() -> object:
        place = Place(0, 0)
        while True:
            yield from plan.take(place, 1)
            place = plan.after(place, 1)

    endless = read_ahead(reader, forever(), workers=2)  # type: ignore[arg-type]
    assert next(endless).batch.wavs
    endless.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hubcore-audio")]
