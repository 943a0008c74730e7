"""A corpus in parts: the folder is that of an undivided run, whoever made which part, when, and where it was killed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from hubcore import features
from hubcore.errors import ExtractionError, OptionError
from hubcore.extract import extract
from hubcore.extract import plan as plan_module
from hubcore.extract.journal import Part
from hubcore.extract.merge import merge
from tests.hubcore.extract.lab import ToyUpstream, failure_rows, manifest_rows, toy
from tests.hubcore.extract.test_formats import NAMES, same_tree
from tests.running import command

OPTIONS: dict[str, Any] = {"layers": "1", "batch_seconds": 0.3}
FORMATS = ["npy", "safetensors", "ark"]


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven files of different lengths, an empty one, and one that cannot be decoded."""
    root, random = tmp_path_factory.mktemp("audio"), np.random.default_rng(0)
    (root / "inner").mkdir()
    for number, name in enumerate(NAMES):
        soundfile.write(root / f"{name}.wav", random.uniform(-0.5, 0.5, 2000 + 700 * number), 16000)
    (root / "empty.wav").touch()
    soundfile.write(root / "cut.flac", random.uniform(-0.5, 0.5, 30000), 16000)
    (root / "cut.flac").write_bytes((root / "cut.flac").read_bytes()[:20000])
    return root


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "BLOCK_UTTERANCES", 3)


@pytest.fixture(scope="module", params=FORMATS)
def clean(request: pytest.FixtureRequest, audio: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A format, and the folder of an undivided run."""
    out = tmp_path_factory.mktemp("clean") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "BLOCK_UTTERANCES", 3)
        extract([audio], toy(), out, format=request.param, **OPTIONS)
    return request.param, out


# --shard --------------------------------------------------------------------------------------------------------------


def test_parts_one_after_the_other_make_the_folder_of_an_undivided_run(
    clean: tuple[str, Path], audio: Path, tmp_path: Path
) -> None:
    format, whole = clean
    out = tmp_path / "out"
    summaries = [extract([audio], toy(), out, format=format, shard=f"{part}/3", **OPTIONS) for part in (2, 0, 1)]
    assert sum(len(summary.rows) for summary in summaries) == 7 and all(summary.rows for summary in summaries)
    assert sorted(failure.utterance for summary in summaries for failure in summary.failures) == ["cut", "empty"]
    same_tree(out, whole)


def test_parts_at_the_same_time_make_it_too(clean: tuple[str, Path], audio: Path, tmp_path: Path) -> None:
    format, whole = clean
    out = tmp_path / "out"

    class Nested(ToyUpstream):
        def forward(self, wavs: Any, lengths: Any = None, *, layers: Any = None) -> Any:
            if not self.calls:
                extract([audio], toy(), out, format=format, shard="1/2", **OPTIONS)
                seen.update({"rows": len(features.open(out)), "manifest": (out / "manifest.jsonl").exists()})
                for shard, said in (("0/1", "filled by the part 0/2"), ("1/3", "filled by"), ("0/2", "being written")):
                    with pytest.raises(ExtractionError, match=said):
                        extract([audio], toy(), out, format=format, shard=shard, **OPTIONS)
            return super().forward(wavs, lengths, layers=layers)

    seen: dict[str, Any] = {}
    summary = extract([audio], Nested().eval(), out, format=format, shard="0/2", **OPTIONS)
    assert seen["rows"] and not seen["manifest"], "rows are read before the last part adds them"
    assert seen["rows"] + len(summary.rows) == 7
    same_tree(out, whole)


def test_a_part_that_was_interrupted_is_resumed_divided_or_not(clean: tuple[str, Path], audio: Path, tmp_path: Path) -> None:
    format, whole = clean

    class Interrupted(ToyUpstream):
        def forward(self, wavs: Any, lengths: Any = None, *, layers: Any = None) -> Any:
            if len(self.calls) == 2:
                raise KeyboardInterrupt
            return super().forward(wavs, lengths, layers=layers)

    extract([audio], toy(), tmp_path / "out", format=format, shard="1/2", **OPTIONS)
    with pytest.raises(KeyboardInterrupt):
        extract([audio], Interrupted().eval(), tmp_path / "out", format=format, shard="0/2", **OPTIONS)
    for shard in ("0/2", "0/1"):
        target = tmp_path / shard.replace("/", "-")
        shutil.copytree(tmp_path / "out", target)
        extract([audio], toy(), target, format=format, shard=shard, **OPTIONS)
        same_tree(target, whole)


def test_a_failure_that_was_repaired_is_forgotten_by_its_part(audio: Path, tmp_path: Path) -> None:
    root = tmp_path / "audio"
    shutil.copytree(audio, root)
    out = tmp_path / "out"
    for part in (0, 1):
        extract([root], toy(), out, shard=f"{part}/2", **OPTIONS)
    assert [row["utterance"] for row in failure_rows(out)] == ["cut", "empty"]
    soundfile.write(root / "cut.flac", np.zeros(30000), 16000)
    soundfile.write(root / "empty.wav", np.zeros(3000), 16000)
    for part in (0, 1):
        extract([root], toy(), out, shard=f"{part}/2", **OPTIONS)
    assert failure_rows(out) == [] and len(manifest_rows(out)) == 9
    (root / "a.wav").write_bytes(b"")
    for part in (0, 1):
        extract([root], toy(), out, shard=f"{part}/2", **OPTIONS)
    assert [row["utterance"] for row in failure_rows(out)] == ["a"] and len(manifest_rows(out)) == 8


@pytest.mark.parametrize("text", ["2/2", "1", "a/b", "-1/2", "0/0", ""])
def test_a_part_that_is_none_is_an_error(text: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="0/2"):
        extract([tmp_path], toy(), tmp_path / "out", shard=text)


ARRAY = {"SLURM_ARRAY_TASK_COUNT": "5", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_STEP": "2"}


@pytest.mark.parametrize(
    ("variables", "part", "said"),
    [
        ({}, (0, 1), ""),
        ({"RANK": "3", "WORLD_SIZE": "8"}, (3, 8), "torchrun"),
        ({"RANK": "0", "WORLD_SIZE": "1"}, (0, 1), ""),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, (1, 2), "Open MPI"),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, (1, 2), "MPI"),
        ({"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4", "PMI_SIZE": "1", "PMI_RANK": "0"}, (2, 4), "srun"),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, (0, 1), ""),  # the script of a job, which is no step
        (ARRAY, (4, 5), "the SLURM array"),
        ({**ARRAY, "RANK": "1", "WORLD_SIZE": "2"}, (9, 10), "torchrun in the SLURM array"),
    ],
)
def test_launchers_are_recognised(variables: dict[str, str], part: tuple[int, int], said: str) -> None:
    assert Part.of_launcher(variables) == (Part(*part), said)


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "8", "WORLD_SIZE": "8"},
        {"WORLD_SIZE": "8"},
        {"RANK": "x", "WORLD_SIZE": "8"},
        {**ARRAY, "SLURM_ARRAY_TASK_ID": "17"},
    ],
)
def test_variables_that_contradict_each_other_are_an_error(variables: dict[str, str]) -> None:
    with pytest.raises(OptionError, match=r"contradict.*--shard 0/4, and 0/1"):
        Part.of_launcher(variables)


def test_the_command_says_which_part_it_makes(audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ("extract", audio, "-u", "fbank", "--batch-seconds", 0.3, "-o")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
    monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", "0")
    for part in ("0", "1"):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", part)
        result = command(*line, tmp_path / "parts")
        assert f"this is shard {part}/2, by the variables of the SLURM array" in result.stderr
    result = command(*line, tmp_path / "whole", "--shard", "0/1")
    assert "this is shard" not in result.stderr and "7 written" in result.stdout
    same_tree(tmp_path / "parts", tmp_path / "whole")


# merge ----------------------------------------------------------------------------------------------------------------


def test_merged_parts_are_the_folder_of_an_undivided_run(clean: tuple[str, Path], audio: Path, tmp_path: Path) -> None:
    format, whole = clean
    for part in (0, 1):
        extract([audio], toy(), tmp_path / f"{part}", format=format, shard=f"{part}/2", **OPTIONS)
    half = merge([tmp_path / "1"], tmp_path / "out")
    assert half.missing and not (tmp_path / "out/.parts").exists()
    merged = merge([tmp_path / "0", tmp_path / "1"], tmp_path / "out")
    assert (merged.utterances, merged.missing) == (7, ()) and [failure.utterance for failure in merged.failures] == [
        "cut",
        "empty",
    ]
    same_tree(tmp_path / "out", whole)
    assert merge([tmp_path / "1", tmp_path / "0"], tmp_path / "out").copied == 0
    same_tree(tmp_path / "out", whole)
    assert extract([audio], toy(), tmp_path / "out", format=format, **OPTIONS).rows == ()
    same_tree(tmp_path / "out", whole)


@pytest.mark.parametrize("format", ["npy", "safetensors"])
def test_other_corpora_are_merged_into_blocks_of_their_own(format: str, audio: Path, tmp_path: Path) -> None:
    for name, paths in (("one", ["a.wav", "c.wav"]), ("two", ["d.wav", "inner"])):
        extract([audio / path for path in paths], toy(), tmp_path / name, format=format, **OPTIONS)
    result = command("merge", tmp_path / "one", tmp_path / "two", "-o", tmp_path / "out")
    assert result.exit_code == 0 and "5 utterances" in result.output and "0 failed, 0 missing" in result.output
    folder = features.open(tmp_path / "out")
    for name in ("one", "two"):
        for utterance, item in features.open(tmp_path / name).items():
            np.testing.assert_array_equal(folder[utterance].array, item.array)
    assert len(folder) == 5
    paths = [audio / path for path in ("a.wav", "c.wav", "d.wav", "inner")]
    assert extract(paths, toy(), tmp_path / "out", **OPTIONS).skipped == 5


def test_what_does_not_fit_is_not_merged(audio: Path, tmp_path: Path) -> None:
    extract([audio / "a.wav"], toy(), tmp_path / "one", **OPTIONS)
    extract([audio / "a.wav"], toy(), tmp_path / "other", layers="2")
    with pytest.raises(ExtractionError, match=r"layers is \[1\] there and \[2\] here"):
        merge([tmp_path / "one", tmp_path / "other"], tmp_path / "out")
    extract([audio / "a.wav"], ToyUpstream(scale=2.0).eval(), tmp_path / "loud", **OPTIONS)
    with pytest.raises(ExtractionError, match=r"loud.*other features.*'a'"):
        merge([tmp_path / "one", tmp_path / "loud"], tmp_path / "out")
    with pytest.raises(OptionError, match="nothing to merge"):
        merge([], tmp_path / "out")
    with pytest.raises(ExtractionError, match=r"no run\.json"):
        merge([tmp_path], tmp_path / "new")
    (tmp_path / "loud/features/a.npy").write_bytes(b"half")
    with pytest.raises(ExtractionError, match=r"a.npy is not whole.*extraction there again"):
        merge([tmp_path / "loud"], tmp_path / "new")
    (tmp_path / "loud/features/a.npy").unlink()
    with pytest.raises(ExtractionError, match=r"a.npy is not whole"):
        merge([tmp_path / "loud"], tmp_path / "newer")


# The journal ----------------------------------------------------------------------------------------------------------


def test_a_folder_without_rows_is_known_by_its_record(audio: Path, tmp_path: Path) -> None:
    extract([audio / "empty.wav"], toy(), tmp_path, **OPTIONS)
    with pytest.raises(ExtractionError, match=r"begun with other settings: .*layers is \[1\] there and \[2\] here"):
        extract([audio], toy(), tmp_path, layers="2")


@pytest.mark.parametrize("rows", [True, False])
def test_another_version_is_an_error(rows: bool, audio: Path, tmp_path: Path) -> None:
    extract([audio / ("a.wav" if rows else "empty.wav")], toy(), tmp_path, **OPTIONS)
    for name in ("run.json", "manifest.jsonl"):
        if (tmp_path / name).exists():
            text = (tmp_path / name).read_text().replace('"hubcore_version": "', '"hubcore_version": "7.')
            (tmp_path / name).write_text(text)
    with pytest.raises(ExtractionError, match=r"hubcore_version is '7\.[^']*' there and"):
        extract([audio], toy(), tmp_path, **OPTIONS)


TWO = """
import errno, fcntl, sys, time
sys.path[:0] = {path!r}
from pathlib import Path
from hubcore.extract import extract
from tests.hubcore.extract.lab import ToyUpstream
def nothing(*_):
    raise OSError(errno.ENOLCK, "no locks available")
fcntl.flock = nothing
class Slow(ToyUpstream):
    def forward(self, *given, **options):
        time.sleep(0.1)
        return super().forward(*given, **options)
print("ready", flush=True); sys.stdin.readline()
try:
    print(len(extract([Path(sys.argv[1])], Slow().eval(), Path(sys.argv[2]), layers="1", batch_seconds=0.3).rows))
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.slow
def test_two_processes_without_locks_make_no_row_twice(audio: Path, tmp_path: Path) -> None:
    script = TWO.format(path=[str(Path(__file__).parents[3]), *sys.path])
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", script, str(audio), str(tmp_path / "out")], **pipes) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = sorted(process.communicate()[0].strip() for process in processes)
    assert said[0] == "7" and "is being written by another extraction (process" in said[1], said
    names = [row["utterance"] for row in manifest_rows(tmp_path / "out")]
    assert sorted(names) == sorted(NAMES)


# Memory and half precision --------------------------------------------------------------------------------------------


class Small(ToyUpstream):
    """A device on which 0.4 s fit at once."""

    error: Exception = torch.cuda.OutOfMemoryError("CUDA out of memory")
    room = 6400

    def forward(self, wavs: Any, lengths: Any = None, *, layers: Any = None) -> Any:
        self.tried = [*getattr(self, "tried", []), len(wavs)]
        if sum(map(len, wavs)) > self.room:
            raise self.error
        return super().forward(wavs, lengths, layers=layers)


@pytest.mark.parametrize(
    "error", [Small.error, RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory"), MemoryError()]
)
def test_a_batch_that_does_not_fit_into_memory_is_halved(error: Exception, tmp_path: Path) -> None:
    upstream = Small().eval()
    upstream.error = error
    for number in range(6):
        soundfile.write(tmp_path / f"{number}.wav", np.full(4000, 0.1), 16000)
    summary = extract([tmp_path], upstream, tmp_path / "out", layers="1")
    assert len(summary.rows) == 6 and not summary.failures
    assert upstream.tried == [3, 1, 2, 1, 1, 1, 1, 1], "of the second block of three nothing is tried that did not fit"


def test_an_utterance_that_does_not_fit_alone_fails(audio: Path, tmp_path: Path) -> None:
    upstream = Small().eval()
    upstream.room = 6000
    summary = extract([audio / f"{name}.wav" for name in NAMES], upstream, tmp_path / "out", layers="1")
    (failure,) = summary.failures
    assert "memory ran out with its 0.4 s" in failure.error and len(summary.rows) == 6


class Half(ToyUpstream):
    """Peaks times 90,000, in the type of its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((1,), 60000.0))

    def energies(self, windows: torch.Tensor) -> torch.Tensor:
        return (windows.amax(1, keepdim=True).to(self.weight.dtype) * self.weight * 1.5).float().expand(-1, 2)


def test_what_is_beyond_half_precision_is_computed_in_single(audio: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "loud.wav", np.full(3000, 0.9), 16000)
    upstream = Half().half().eval()
    rows = extract([audio / "a.wav", tmp_path / "loud.wav"], upstream, tmp_path / "out", layers="0").rows
    assert {row["utterance"]: row.get("recomputed") for row in rows} == {"a": None, "loud": "float32"}
    assert float(features.open(tmp_path / "out")["loud"].array.max()) == pytest.approx(0.9 * 90000, rel=1e-3)
