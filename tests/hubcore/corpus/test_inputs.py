"""The same speech in every form that a corpus may have, and lists that are broken."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from hubcore import hub
from hubcore.corpus import build_manifest, find_utterances, write_built
from hubcore.corpus.inputs.arrow import Cell
from hubcore.errors import AudioError, ExtractionError, OptionError
from hubcore.extract import extract
from tests.paths import SPEECH

Options = Mapping[str, Any]
PART = (0.25, 1.3125)
"""Start and end of a part, in seconds."""


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "clips"
    folder.mkdir()
    for path in sorted(SPEECH.glob("*.flac"))[:6]:
        (folder / path.name).symlink_to(path)
    return folder


MEL = hub.load("mel")


def features(paths: Any, out: Path) -> dict[str, np.ndarray]:
    summary = extract(paths, MEL, out)
    assert summary.failures == ()
    return {row["utterance"]: np.load(out / row["file"]) for row in summary.rows}


@pytest.fixture(scope="module")
def whole(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    return features([clips], tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def cut(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The features of parts that were cut out and written to files."""
    folder = tmp_path_factory.mktemp("cut")
    for path in clips.iterdir():
        samples, rate = soundfile.read(path, dtype="int16")
        soundfile.write(folder / f"{path.stem}.wav", samples[round(PART[0] * rate) : round(PART[1] * rate)], rate)
    return features([folder], tmp_path_factory.mktemp("of_cut"))


def lines(path: Path, *rows: str) -> Path:
    path.write_text("".join(f"{row}\n" for row in rows))
    return path


def files(clips: Path) -> list[Path]:
    return sorted(clips.iterdir())


def as_folder(clips: Path, tmp: Path) -> tuple[Any, Options]:
    return clips, {}


def as_glob(clips: Path, tmp: Path) -> tuple[Any, Options]:
    return clips / "*.fl[a]c", {}


def as_fairseq(clips: Path, tmp: Path) -> tuple[Any, Options]:
    return write_built(build_manifest(clips, valid_percent=0), tmp)["train.tsv"], {}


def as_wav_scp(clips: Path, tmp: Path) -> tuple[Any, Options]:
    return lines(tmp / "wav.scp", *(f"{path.stem} {path}" for path in files(clips))), {}


def as_pipes(clips: Path, tmp: Path) -> tuple[Any, Options]:
    return lines(tmp / "wav.scp", *(f"{path.stem}\tcat {path} | cat |" for path in files(clips))), {"allow_commands": True}


def as_nemo(clips: Path, tmp: Path) -> tuple[Any, Options]:
    rows = [json.dumps({"audio_filepath": path.name, "duration": soundfile.info(path).duration}) for path in files(clips)]
    return lines(tmp / "nemo.json", *rows), {"root": clips}


def as_recordings(clips: Path, tmp: Path) -> tuple[Any, Options]:
    from lhotse import Recording, RecordingSet

    path = tmp / "recordings.jsonl.gz"
    RecordingSet.from_recordings(Recording.from_file(path) for path in files(clips)).to_file(path)
    return path, {}


def as_cuts(clips: Path, tmp: Path) -> tuple[Any, Options]:
    from lhotse import CutSet, Recording

    cuts = [Recording.from_file(path).to_cut().with_id(path.stem) for path in files(clips)]
    CutSet.from_cuts(cuts).to_file(tmp / "cuts.jsonl")
    return tmp / "cuts.jsonl", {}


def as_csv(clips: Path, tmp: Path) -> tuple[Any, Options]:
    rows = [f'{number},"{path.name}",{path.stem}' for number, path in enumerate(files(clips))]
    options = {"columns": {"path": "wav", "id": "utt"}, "root": f"{tmp / 'elsewhere'}={clips}"}
    return lines(tmp / "list.csv", "number,wav,utt", *(row.replace(',"', f',"{tmp}/elsewhere/') for row in rows)), options


def as_tsv(clips: Path, tmp: Path) -> tuple[Any, Options]:
    return lines(tmp / "list.tsv", 'path\tsaid "so', *(f'{os.path.relpath(path, tmp)}\t"no' for path in files(clips))), {}


def as_dataset(clips: Path, tmp: Path) -> tuple[Any, Options]:
    from datasets import Audio, Dataset

    rows = [{"audio": {"bytes": path.read_bytes(), "path": path.name}} for path in files(clips)]
    Dataset.from_list(rows).cast_column("audio", Audio(decode=False)).save_to_disk(tmp / "dataset")
    return tmp / "dataset", {}


def as_parquet(clips: Path, tmp: Path) -> tuple[Any, Options]:
    import pyarrow as pa
    import pyarrow.parquet

    rows = [{"bytes": path.read_bytes() if number else None, "path": path.name} for number, path in enumerate(files(clips))]
    table = pa.table({"speech": rows, "utt": [path.stem for path in files(clips)]})
    pa.parquet.write_table(table, tmp / "a.parquet", row_group_size=4)
    return tmp / "a.parquet", {"columns": {"id": "utt"}, "root": clips}


def as_tar(clips: Path, tmp: Path) -> tuple[Any, Options]:
    with tarfile.open(tmp / "shard-0.tar", "w") as archive:
        for path in files(clips):
            archive.add(path.resolve(), path.name)
            text = tarfile.TarInfo(f"{path.stem}.json")
            text.size = 2
            archive.addfile(text, io.BytesIO(b"{}"))
    return tmp / "shard-0.tar", {}


WHOLE = [as_folder, as_glob, as_fairseq, as_wav_scp, as_pipes, as_nemo, as_recordings, as_cuts, as_csv, as_tsv, as_dataset,
         as_parquet, as_tar]  # fmt: skip


@pytest.mark.parametrize("form", WHOLE, ids=[form.__name__ for form in WHOLE])
def test_every_form_gives_the_features_of_the_folder(
    form: Callable[[Path, Path], tuple[Any, Options]], clips: Path, tmp_path: Path, whole: dict[str, np.ndarray]
) -> None:
    path, options = form(clips, tmp_path)
    found = find_utterances([path], **options)
    made = features(found, tmp_path / "out")
    assert list(made) == list(whole) and len(made) == 6
    for name in whole:
        np.testing.assert_array_equal(made[name], whole[name])
    again = extract(found, MEL, tmp_path / "out")
    assert (again.skipped, again.rows) == (6, ())


def test_standard_input_lists_paths(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x" / "y").mkdir(parents=True)
    for name in ("x/a.wav", "x/y/a.wav"):
        soundfile.write(tmp_path / name, np.zeros(800), 16000)
    (tmp_path / "x" / "\udcff.wav").symlink_to("a.wav")
    monkeypatch.chdir(tmp_path)
    text = os.fsencode(f"x/a.wav\0./x/y/a.wav\0x/\udcff.wav\0{clips}")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    found = find_utterances(["-"])
    assert [utterance.name for utterance in found[:3]] == ["x/a", "x/y/a", "x/\udcff"] and len(found) == 9
    assert all(utterance.probe().frames for utterance in found)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a.wav\ny/a.wav\n")))
    assert [utterance.name for utterance in find_utterances(["-"], root=tmp_path / "x")] == ["a", "y/a"]


# Parts ----------------------------------------------------------------------------------------------------------------


def part_of_data_folder(clips: Path, tmp: Path) -> tuple[Any, Options]:
    lines(tmp / "wav.scp", *(f"rec-{path.stem} {path}" for path in files(clips)), "unused /nowhere.wav")
    lines(tmp / "segments", *(f"{path.stem} rec-{path.stem} {PART[0]} {PART[1]}" for path in files(clips)))
    return tmp, {}


def part_of_pipes(clips: Path, tmp: Path) -> tuple[Any, Options]:
    path, _ = part_of_data_folder(clips, tmp)
    lines(tmp / "wav.scp", *(f"rec-{path.stem} cat {path} |" for path in files(clips)))
    return path, {"allow_commands": True}


def part_of_nemo(clips: Path, tmp: Path) -> tuple[Any, Options]:
    part = {"offset": PART[0], "duration": PART[1] - PART[0]}
    rows = [json.dumps({"audio_filepath": str(path), **part}) for path in files(clips)]
    return lines(tmp / "nemo.json", *rows), {}


def part_of_cuts(clips: Path, tmp: Path) -> tuple[Any, Options]:
    from lhotse import CutSet, Recording

    whole = (Recording.from_file(path).to_cut().with_id(path.stem) for path in files(clips))
    cuts = [cut.truncate(offset=PART[0], duration=PART[1] - PART[0], preserve_id=True) for cut in whole]
    CutSet.from_cuts(cuts).to_file(tmp / "cuts.jsonl.gz")
    return tmp / "cuts.jsonl.gz", {}


def part_of_csv(clips: Path, tmp: Path) -> tuple[Any, Options]:
    rows = [f"{path},{path.stem},{PART[0]},{PART[1]}" for path in files(clips)]
    return lines(tmp / "list.csv", "path,id,start,end", *rows), {}


PARTS = [part_of_data_folder, part_of_pipes, part_of_nemo, part_of_cuts, part_of_csv]


@pytest.mark.parametrize("form", PARTS, ids=[form.__name__ for form in PARTS])
def test_a_part_gives_the_features_of_audio_that_was_cut(
    form: Callable[[Path, Path], tuple[Any, Options]], clips: Path, tmp_path: Path, cut: dict[str, np.ndarray]
) -> None:
    path, options = form(clips, tmp_path)
    out = tmp_path / "out"
    found = find_utterances([path], **options)
    made = {name.removesuffix("-0.250-1.312"): array for name, array in features(found, out).items()}
    assert list(made) == list(cut) and len(made) == 6
    for name in cut:
        np.testing.assert_array_equal(made[name], cut[name])
    rows = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert all((row["start"], row["end"], row["seconds"]) == (*PART, 1.0625) for row in rows)
    moved = [type(item)(item.name, item.source, item.start, 1.0) for item in found]
    assert len(extract(moved, MEL, out).rows) == 6, "another part is another utterance"


def test_a_channel_is_taken_where_a_list_names_one(tmp_path: Path) -> None:
    both = np.stack([np.full(800, 0.25), np.full(800, 0.5)], axis=1)
    soundfile.write(tmp_path / "call.wav", both, 16000)
    sources = [{"type": "file", "channels": [0, 1], "source": "call.wav"}]
    recording = {"id": "call", "sources": sources, "sampling_rate": 16000, "num_samples": 800, "duration": 0.05}
    cut = {"id": "b", "start": 0, "duration": 0.05, "channel": 1, "recording": recording, "type": "MonoCut"}
    lines(tmp_path / "cuts.jsonl", json.dumps(cut), json.dumps({**cut, "id": "a", "channel": 0}))
    lines(tmp_path / "list.csv", "path,channel", "call.wav,0", "call.wav,1", "call.wav,")
    values = {item.name: float(item.read(16000).max()) for item in find_utterances(sorted(tmp_path.glob("*s*")))}
    assert values == {"b": 0.5, "a": 0.25, "call-0": 0.25, "call-1": 0.5, "call": 0.375}


# What is broken -------------------------------------------------------------------------------------------------------

CUT = {"id": "a", "start": 0, "duration": 1, "channel": 0, "type": "MonoCut"}
RECORDING = {"id": "a", "sources": [{"type": "file", "channels": [0], "source": "a.wav"}], "duration": 1}
BROKEN = {
    "wav.scp:2: this line is 'b', not <utterance> <path>": ("wav.scp", "a a.wav\nb\n"),
    "wav.scp:1: 'rm -rf x' is a command": ("wav.scp", "a rm -rf x |\n"),
    "wav.scp:1: x.ark:17 is inside an archive of Kaldi": ("wav.scp", "a x.ark:17\n"),
    "wav.scp:1 and .*wav.scp:3 would both be the utterance 'a'": ("wav.scp", "a a.wav\nb b.wav\na c.wav\n"),
    r"wav.scp:1: the utterance '../a' leads out of the root": ("wav.scp", "../a a.wav\n"),
    "list.jsonl:1: this line is no JSON": ("list.jsonl", "{'a': 1}\n"),
    r"list.jsonl:2: this line is '\[1\]', not an object": ("list.jsonl", '{"audio_filepath": "a.wav"}\n[1]\n'),
    "list.jsonl:1: this line is no row of NeMo and .* its keys: file, x": ("list.jsonl", '{"file": "a", "x": 1}\n'),
    "list.jsonl:1: 'audio_filepath' is 3, not the path": ("list.jsonl", '{"audio_filepath": 3}\n'),
    "list.jsonl:1: 'offset' is 'x', not a time": ("list.jsonl", '{"audio_filepath": "a", "offset": "x"}\n'),
    "list.jsonl:1: 'offset' is -1, not a time": ("list.jsonl", '{"audio_filepath": "a", "offset": -1}\n'),
    "list.jsonl:1: the part ends at 2 s and begins at 2 s": (
        "list.jsonl",
        '{"audio_filepath": "a", "offset": 2, "duration": 0}\n',
    ),
    "list.jsonl:1: this cut has no recording": ("list.jsonl", json.dumps(CUT)),
    "list.jsonl:1: its source is of the type 'url'": (
        "list.jsonl",
        json.dumps({**RECORDING, "sources": [{"type": "url", "channels": [0], "source": "https://x/a.wav"}]}),
    ),
    "list.jsonl:1: its sources have no type": ("list.jsonl", json.dumps({**RECORDING, "sources": [{}]})),
    "list.jsonl:1: the recording is to be transformed first": ("list.jsonl", json.dumps({**RECORDING, "transforms": [{}]})),
    r"list.jsonl:1: channels 3 of 0 are not one": ("list.jsonl", json.dumps({**CUT, "channel": 3, "recording": RECORDING})),
    "list.jsonl:1: this line is no row of NeMo.* type": ("list.jsonl", json.dumps({**CUT, "type": "MixedCut"})),
    "list.csv:1: there is no column 'path'. Those there are: wav, id": ("list.csv", "wav,id\na.wav,a\n"),
    "list.csv:3: this line has 1 values, but there are 2 columns": ("list.csv", "path,id\na.wav,a\nb.wav\n"),
    "list.csv:2: this line is no CSV": ("list.csv", 'path\n"a.wav"x\n'),
    "list.csv:2: 'path' is '', not the path": ("list.csv", "path,id\n,a\n"),
    "list.csv:2: 'start' is 'nan', not a time": ("list.csv", "path,start\na.wav,nan\n"),
    "list.csv:2: 'channel' is 'left', not a channel": ("list.csv", "path,channel\na.wav,left\n"),
    "list.csv:1: two columns have one name": ("list.csv", "path,id,id\na,b,c\n"),
    "list.csv:1: there is no column 'path'. Those there are: none": ("list.csv", ""),
    "list.jsonl.gz cannot be read": ("list.jsonl.gz", "no gzip"),
    "x.tar cannot be read as a plain tar archive after 0 audio files": ("x.tar", "no archive" * 100),
    "x.tar.gz is compressed": ("x.tar.gz", "x"),
    "x.parquet cannot be read": ("x.parquet", "no parquet"),
    "x.arrow cannot be read": ("x.arrow", "no arrow"),
}


@pytest.mark.parametrize("said", BROKEN)
def test_a_broken_list_ends_the_run_before_it_starts_and_names_the_line(said: str, tmp_path: Path) -> None:
    name, text = BROKEN[said]
    (tmp_path / name).write_text(text)
    with pytest.raises(ExtractionError, match=said) as caught:
        find_utterances([tmp_path / name])
    assert caught.value.fix and str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("segments", "said"),
    [
        ("a r 1\n", "segments:1: this line is 'a r 1', not"),
        ("a r 0 1\nb x 0 1\n", "segments:2: wav.scp has no recording 'x'"),
        ("a r 1 0.5\n", "segments:1: the part ends at 0.5 s"),
        ("a r 1 -2\n", "segments:1: 'end' is '-2', not a time"),
    ],
)
def test_a_broken_segment_is_named(segments: str, said: str, tmp_path: Path) -> None:
    lines(tmp_path / "wav.scp", "r a.wav")
    (tmp_path / "segments").write_text(segments)
    with pytest.raises(ExtractionError, match=said):
        find_utterances([tmp_path])


def test_a_segment_may_end_with_its_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(1600), 16000)
    lines(tmp_path / "wav.scp", "r a.wav", "other b.wav")
    lines(tmp_path / "segments", "a r 0.05 -1", "b r 0.05 0.4")
    assert [item.probe().frames for item in find_utterances([tmp_path])] == [800, 800]
    assert "1 recording of" in caplog.text and "other" in caplog.text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"root": "/no/such/folder"}, "no folder"),
        ({"columns": {"wav": "path"}}, "there is no column wav to be named.* path, id, start"),
        ({"columns": {"path": ""}}, "called by nothing"),
    ],
)
def test_impossible_options_are_named(options: Options, said: str, tmp_path: Path) -> None:
    lines(tmp_path / "list.csv", "path", "a.wav")
    with pytest.raises(OptionError, match=said):
        find_utterances([tmp_path / "list.csv"], **options)


def test_an_absolute_path_needs_both_roots(tmp_path: Path) -> None:
    lines(tmp_path / "list.csv", "path", "/data/x/a.wav", "/other/b.wav")
    with pytest.raises(ExtractionError, match=r"list.csv:2: /data/x/a.wav is absolute, .* OLD=NEW"):
        find_utterances([tmp_path / "list.csv"], root=tmp_path)
    found = find_utterances([tmp_path / "list.csv"], root=f"/data={tmp_path}")
    assert [item.source.given for item in found] == [f"{tmp_path}/x/a.wav", "/other/b.wav"]


def test_a_broken_item_of_a_list_costs_that_item(clips: Path, tmp_path: Path) -> None:
    good = files(clips)[0]
    rows = ["good", *("false |", "cat a | false |", "echo no audio |"), "gone.wav"]
    lines(tmp_path / "wav.scp", f"good {good}", *(f"{number} {row}" for number, row in enumerate(rows[1:])))
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, data in (("a.flac", good.read_bytes()), ("b.flac", good.read_bytes()[:-900]), ("c.wav", b"")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    import pyarrow as pa
    import pyarrow.parquet

    values = [good.read_bytes(), b"no audio", None]
    pa.parquet.write_table(pa.table({"wav": pa.array(values, pa.binary()), "id": ["p", "q", "r"]}), tmp_path / "y.parquet")
    columns = {"path": "wav", "id": "id"}
    found = find_utterances([tmp_path / "wav.scp", tmp_path / "x.tar"], allow_commands=True)
    found += find_utterances([tmp_path / "y.parquet"], columns=columns)
    summary = extract(found, MEL, tmp_path / "out")
    assert {row["utterance"] for row in summary.rows} == {"good", "a", "p"}
    said = {failure.utterance: failure.error for failure in summary.failures}
    for name, part in {
        "0": "false | ended with status 1: it said nothing",
        "1": "cat a | false | ended with status 1: cat: a",
        "2": "echo no audio | cannot be opened",
        "3": "gone.wav does not exist",
        "b": "x.tar/b.flac is damaged",
        "c": "x.tar/c.wav is empty",
        "q": "y.parquet/1 cannot be opened",
        "r": "y.parquet/2 has neither bytes nor a path",
    }.items():
        assert part in said.pop(name)
    assert not said


def test_archives_that_are_cut_or_joined_are_errors(clips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, _ = as_tar(clips, tmp_path)
    data = path.read_bytes()
    (tmp_path / "joined.tar").write_bytes(data + data)
    with pytest.raises(ExtractionError, match=r"joined.tar has more after 6 audio files"):
        find_utterances([tmp_path / "joined.tar"])
    (tmp_path / "cut.tar").write_bytes(data[: len(data) // 2])
    with pytest.raises(ExtractionError, match=r"cut.tar cannot be read .* after [0-9] audio files: unexpected"):
        find_utterances([tmp_path / "cut.tar"])
    (tmp_path / "packed.tar").write_bytes(gzip.compress(data))
    with pytest.raises(ExtractionError, match=r"packed.tar cannot be read as a plain tar"):
        find_utterances([tmp_path / "packed.tar"])
    with tarfile.open(tmp_path / "m4a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("a.m4a"))
    with pytest.raises(ExtractionError, match="no audio file in it"):
        find_utterances([tmp_path / "m4a.tar"])
    assert "1 file in" in caplog.text and "a.m4a" in caplog.text


def test_rows_without_names_are_numbered(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    rows = [{"bytes": b"1", "path": None}, {"bytes": b"2", "path": "x/a.wav"}, {"bytes": b"3", "path": "y/a.wav"}]
    pa.parquet.write_table(pa.table({"audio": rows}), tmp_path / "s.parquet")
    found = find_utterances([tmp_path / "s.parquet"])
    assert [item.name for item in found] == ["0", "a.wav-1", "a.wav-2"]
    assert found[1].source == Cell(str(tmp_path / "s.parquet"), "audio", 1, str(tmp_path / "x/a.wav"))
    pa.parquet.write_table(pa.table({"audio": rows, "other": rows}), tmp_path / "t.parquet")
    with pytest.raises(ExtractionError, match=r"2 columns of audio files.*--columns path="):
        find_utterances([tmp_path / "t.parquet"])
    with pytest.raises(ExtractionError, match="no audio in the column 'nope'"):
        find_utterances([tmp_path / "t.parquet"], columns={"path": "nope"})


def test_a_pattern_that_matches_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"nothing matches .*\*\.wav"):
        find_utterances([tmp_path / "*.wav"])


def test_what_ffmpeg_reads_is_found_when_it_is_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.wav", "b.m4a", "c.wav.gz"):
        (tmp_path / name).touch()
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("d.m4a"))
    assert [item.name for item in find_utterances([tmp_path])] == ["a"] and "2 files in" in caplog.text
    caplog.clear()
    found = find_utterances([tmp_path, tmp_path / "x.tar"], ffmpeg=True)
    assert [item.name for item in found] == ["a", "b", "d"] and all(item.ffmpeg for item in found)
    assert "1 file in" in caplog.text and "c.wav.gz" in caplog.text
