"""`apply`: the units of a corpus, written to one file.

From audio they are made by `hubcore.extract.extract`, as the features of an upstream that gives units: it divides the work, and
resumes. They are kept in a folder beside the file until all of them are there.

Shapes: `F` frames, `U` units.
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hubcore.corpus.find import utterances_by_name
from hubcore.corpus.utterance import Utterance
from hubcore.errors import ExtractionError, HubcoreError, OptionError
from hubcore.extract.batches import Failure
from hubcore.extract.finished import exclusive
from hubcore.extract.journal import failures_of, rows_of
from hubcore.extract.long import NotFiniteError
from hubcore.extract.run import Report, device_of, extract
from hubcore.features.folder import FeatureFolder
from hubcore.protocol import Upstream, UpstreamOutput
from hubcore.ragged import pad_packed
from hubcore.streaming import CHUNK_SECONDS, Chunk, stream
from hubcore.text import listed, printable
from hubcore.units.codebook import Codebook
from hubcore.units.files import Units, format_of, write_units
from hubcore.units.frames import FolderFrames
from hubcore.upstream import UpstreamBase

_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Applied:
    """Result of `apply`."""

    file: Path
    """The file of units."""
    written: bool
    """False until the last part of several is done."""
    utterances: int
    """Those that have units."""
    units: int
    """Their units, without those of other parts that are not done."""
    failures: tuple[Failure, ...]
    """Utterances that could not be computed."""


def apply(
    codebook: Codebook,
    given: FeatureFolder | Iterable[str | os.PathLike[str]] | Iterable[Utterance],
    out: str | os.PathLike[str],
    *,
    upstream: Upstream | None = None,
    format: str | None = None,
    deduplicate: bool = False,
    shard: str = "0/1",
    name: str | None = None,
    batch_seconds: float = 60.0,
    chunk_seconds: float | None = None,
    workers: int = 1,
    device: str | torch.device | None = None,
    call_options: Mapping[str, Any] = _NO_OPTIONS,
    force_unlock: bool = False,
    report: Report | None = None,
) -> Applied:
    """Writes the units of features or of audio to one file, whole or not at all.

    Of audio, what is finished is kept in the folder `<out>.work` until all is; calling this again after an interruption
    computes the rest. Parts (`shard="0/2"` and `"1/2"`) may be made by several processes at the same time, and the last one
    that is done writes the file: the same bytes as one process.

    Args:
        codebook: centroids.
        given: a folder of `hubcore.features.open`; or audio, as `hubcore.extract.extract` takes it, like what follows.
        out: the file.
        upstream: for audio, the upstream that the codebook is for, in eval mode.
        format: `npz`, `parquet`, `text` or `km`; by the file's ending if None.
        deduplicate: write each run of one unit as one, with its number of frames as duration.
        shard: of audio, the part to make.
        name: of the upstream.
        batch_seconds: at most so much audio is computed at once.
        chunk_seconds: what is longer is computed in chunks.
        workers: threads that decode.
        device: where the waveforms go.
        call_options: keywords of each call.
        force_unlock: take no notice of the lock file of another run.
        report: see `hubcore.extract.run.Report`.

    Raises:
        CheckpointError: the codebook is for other features; the message names what differs.
        OptionError: an impossible format or number, or a part of features.
        AudioError: no audio is found.
        ExtractionError: the file cannot be written; or it is to be `.km`, whose lines have no names, and an utterance failed.

    Example:
        >>> import soundfile, tempfile
        >>> from hubcore import hub
        >>> from hubcore.units import AudioFrames, fit, read_units
        >>> folder, model = Path(tempfile.mkdtemp()), hub.load("fbank")
        >>> soundfile.write(folder / "a.wav", np.sin(np.arange(32000) ** 1.5 / 999), 16000)
        >>> codebook = fit(AudioFrames([folder], model), clusters=8).codebook
        >>> done = apply(codebook, [folder], folder / "units.npz", upstream=model, deduplicate=True)
        >>> units = read_units(folder / "units.npz")["a"]
        >>> int(units.durations.sum()), float(units.times[0, 0])
        (198, 0.0)
    """
    out = Path(out)
    format = format_of(out, format)
    if isinstance(given, FeatureFolder):
        if shard != "0/1":
            what = f"shard is {shard!r}, and it divides the work of computing audio. These are features."
            raise OptionError(what, fix="Leave it out: units of features are made in one go.")
        made: _Made = _OfFeatures(codebook, given, deduplicate)
        write_units(out, made, format=format)
        return Applied(out, True, len(made), made.count, ())
    if upstream is None:
        raise TypeError("apply() needs upstream= to make units of audio")
    codebook.check(upstream, call_options)
    work, named = out.with_name(f"{out.name}.work"), utterances_by_name(given)
    unit_upstream = _UnitUpstream(upstream, codebook)
    summary = extract(
        named.values(),
        unit_upstream,
        work,
        layers="last",
        batch_seconds=batch_seconds,
        chunk_seconds=chunk_seconds,
        device=device,
        name=name,
        call_options=call_options,
        report=report,
        workers=workers,
        shard=shard,
        force_unlock=force_unlock,
    )
    mine = sum(row["frames"] for row in summary.rows)
    with exclusive(work, brief=True, force=force_unlock):
        if not (work / "run.json").exists():  # the last other part wrote the file meanwhile
            shutil.rmtree(work, ignore_errors=True)
            return Applied(out, out.exists(), len(summary.rows), mine, summary.failures)
        failures, rows = failures_of(work), rows_of(work)
        names = [utterance for utterance in named if utterance in rows]
        if len(names) + sum(utterance in named for utterance in failures) < len(named):
            return Applied(out, False, len(summary.rows), mine, summary.failures)
        if format == "km" and failures:
            what = f"{printable(out)} was not written, as {listed(failures)} failed and a line would be missing."
            fix = "Take them out of the list, or choose another format."
            raise ExtractionError(what, f"{fix} {next(iter(failures.values())).error}")
        made = _OfWork(FeatureFolder(work), names, deduplicate)
        write_units(out, made, format=format)
        shutil.rmtree(work, ignore_errors=True)
    return Applied(out, True, len(names), made.count, tuple(failures.values()))


def deduplicated(units: NDArray[Any], times: NDArray[Any]) -> Units:
    """Each run of one unit as one, with the number of its frames, and times from the start of its first to the end of its last.

    Args:
        units: `(F,)`.
        times: `(F, 2)`.

    Example:
        >>> one = deduplicated(np.array([5, 5, 7]), np.array([[0.0, 0.025], [0.02, 0.045], [0.04, 0.065]]))
        >>> one.units.tolist(), one.durations.tolist(), one.times.tolist()
        ([5, 7], [2, 1], [[0.0, 0.045], [0.04, 0.065]])
    """
    first = np.flatnonzero(np.diff(units, prepend=units[:1] - 1)) if len(units) else np.zeros(0, np.int64)
    durations = np.diff(first, append=len(units))
    return Units(units[first], durations, np.stack([times[first, 0], times[first + durations - 1, 1]], 1))


class _Made(Mapping[str, Units]):
    """The units of utterances, each made when it is asked for."""

    def __init__(self, names: Sequence[str], deduplicate: bool) -> None:
        self._names, self._deduplicate = names, deduplicate
        self.count = 0
        """Units that were made."""

    def frames(self, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
        """The units `(F,)` of all frames of an utterance, and their times `(F, 2)`."""
        raise NotImplementedError

    def __getitem__(self, name: str) -> Units:
        units, times = self.frames(name)
        one = deduplicated(units, times) if self._deduplicate else Units(units, None, times)
        self.count += len(one.units)
        return one

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class _OfWork(_Made):
    """Those of the folder of a run whose upstream gives units."""

    def __init__(self, folder: FeatureFolder, names: Sequence[str], deduplicate: bool) -> None:
        super().__init__(names, deduplicate)
        self._folder = folder

    def frames(self, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
        found = self._folder[name]
        return found.array[:, 0].astype(np.int64), found.times


class _OfFeatures(_Made):
    """Those of a folder of features."""

    def __init__(self, codebook: Codebook, folder: FeatureFolder, deduplicate: bool) -> None:
        super().__init__([*folder], deduplicate)
        codebook.check_record(folder.record)
        self._source, self._codebook = FolderFrames(folder, codebook.layer), codebook

    def frames(self, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
        frames = torch.from_numpy(np.array(self._source[name], dtype=np.float32)).to(self._codebook.centroids.device)
        if not frames.isfinite().all():
            raise ExtractionError(f"the features of {printable(name)!r} are not finite.", fix="Extract them again.")
        return self._codebook.assign(frames).cpu().numpy(), self._source.folder[name].times


class _UnitUpstream(UpstreamBase):
    """An upstream whose one hidden state, 1 wide, is the unit of each frame; a float32 holds whole numbers up to 2^24."""

    def __init__(self, upstream: Upstream, codebook: Codebook) -> None:
        super().__init__(
            layer_names=("units",),
            hidden_sizes=(1,),
            frame_stride=upstream.frame_stride,
            receptive_field=upstream.receptive_field,
            min_samples=upstream.min_samples,
            num_layers=upstream.num_layers,
            sample_rate=upstream.sample_rate,
        )
        self.upstream: Any = upstream
        self.codebook = copy.deepcopy(codebook).to(device_of(upstream))
        self.config = getattr(upstream, "config", None)
        self.card, self.load_report = upstream.card, getattr(upstream, "load_report", None)
        self.eval()

    @property
    def options(self) -> dict[str, Any]:
        """Those of the upstream, and the codebook, so that units of two are never mixed."""
        return {**getattr(self.upstream, "options", {}), "codebook": self.codebook.sha256()}

    def forward(self, wavs: Any, lengths: Any = None, *, layers: Any = None, **call_options: Any) -> UpstreamOutput:  # noqa: ARG002
        """The units of a batch."""
        out: UpstreamOutput = self.upstream(wavs, lengths, layers=[self.codebook.layer], **call_options)
        try:
            out.check_finite()
        except HubcoreError as error:
            raise NotFiniteError(error.what, error.fix) from error
        units = self.codebook(out)
        state = pad_packed(torch.cat(units).float()[:, None], [len(one) for one in units])
        return self.make_output([state], out.lengths, [0], out.times, out.extras)

    def stream(
        self,
        wav: Tensor,
        *,
        layers: Sequence[int] | None = None,  # noqa: ARG002 - the base's signature
        chunk_seconds: float = CHUNK_SECONDS,
        overlap_seconds: float | None = None,
        **call_options: Any,
    ) -> Iterator[Chunk]:
        """The units of a long waveform, chunk by chunk."""
        lengths: dict[str, Any] = {"chunk_seconds": chunk_seconds, "overlap_seconds": overlap_seconds}
        for chunk in stream(self.upstream, wav, layers=[self.codebook.layer], **lengths, **call_options):
            (frames,) = chunk.hidden_states
            if not frames.isfinite().all():
                raise NotFiniteError("its features are not finite.", fix="Check the audio and the checkpoint.")
            yield Chunk(chunk.first_frame, (self.codebook.assign(frames).float()[:, None],), chunk.times)
