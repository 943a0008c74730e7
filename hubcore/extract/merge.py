"""`merge`: one folder of features out of several that were made on machines without a disk in common."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hubcore.errors import ExtractionError, OptionError
from hubcore.extract.batches import Failure
from hubcore.extract.formats.shards import ShardWriter
from hubcore.extract.journal import Part, failures_of, opened, rows_of
from hubcore.extract.plan import Block, Plan
from hubcore.extract.record import Record, read_record
from hubcore.extract.work import write_index, writer_fault
from hubcore.extract.writers import BlockWriter, FeatureWriter, FileWriter, find_writer, open_writer
from hubcore.files import output_folder
from hubcore.guests import as_guest
from hubcore.text import printable, text_path


@dataclass(frozen=True)
class Merged:
    """Result of a merge."""

    folder: Path
    """The output folder."""
    utterances: int
    """The number of those that have features."""
    copied: int
    """The number of files that were copied."""
    failures: tuple[Failure, ...]
    """Utterances that could not be computed in any of the folders."""
    missing: tuple[str, ...]
    """Utterances that were planned and are neither done nor failed: of parts that were not given, or not finished."""


def merge(folders: Iterable[str | os.PathLike[str]], out_dir: str | os.PathLike[str], *, force_unlock: bool = False) -> Merged:
    """Copies the features of several folders into one, which is then what one undivided run had written.

    It may be repeated, with the same folders or more. Folders of parts (`shard="0/2"`) of one corpus share their blocks;
    those of different corpora get blocks after each other.

    Args:
        folders: folders that `extract` wrote, with the same settings.
        out_dir: created if need be; it may have features already.
        force_unlock: take no notice of the lock file of another run.

    Raises:
        ExtractionError: a folder has no features, was made with other settings, or is not whole; two have the same utterance
            with different features; the file system refuses.
        OptionError: no folder is given.

    Example:
        >>> import numpy, soundfile, tempfile
        >>> from hubcore import hub
        >>> from hubcore.extract import extract
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("a", "b"):
        ...     soundfile.write(root / f"{name}.wav", numpy.sin(numpy.arange(8000) / 9), 16000)
        ...     _ = extract([root / f"{name}.wav"], hub.load("fbank"), root / name)
        >>> merge([root / "a", root / "b"], root / "both").utterances
        2
    """
    out = output_folder(out_dir)
    sources = [Path(folder) for folder in folders]
    if not sources:
        raise OptionError("there is nothing to merge.", fix="Name folders that `hubcore extract` wrote.")
    with opened(out, Part(0, 1), force=force_unlock) as journal:
        there = (out / "run.json").exists()
        first = out if there else sources[0]
        record = read_record(first)
        for source in sources:
            _check_same(record, first, source)
        maker = find_writer(str(record.settings["format"]), pooled=record.settings["pool"] is not None)
        writer = open_writer(maker, out, str(record.settings["format"]))
        copier = FileWriter(out)
        try:
            if not there:
                with copier.new_file("run.json") as partial:
                    shutil.copyfile(first / "run.json", partial)
            rows, failures, plan, copied = journal.rows(), failures_of(out), Plan(out), 0
            for source in sources:
                theirs = rows_of(source)
                numbers = _joined(plan, Plan(source), source, in_shards=issubclass(maker, BlockWriter))
                new = {name: {**row, "file": _renamed(row["file"], numbers.get(name), maker)} for name, row in theirs.items()}
                for name in new.keys() & rows.keys():
                    if any(new[name][key] != rows[name][key] for key in ("file", "shape", "dtype")):
                        raise _conflict(name, source)
                known = {row["file"] for row in rows.values()}
                for file, name in {row["file"]: name for name, row in new.items()}.items():
                    if _is_new(source / text_path(theirs[name]["file"]), out / text_path(file)):
                        if file in known:
                            raise _conflict(name, source)
                        with copier.new_file(file) as partial:
                            shutil.copyfile(source / text_path(theirs[name]["file"]), partial)
                        copied += 1
                for name, row in new.items():
                    if not writer.holds(row["file"], tuple(row["shape"]), row["dtype"]):
                        raise _broken(source / text_path(theirs[name]["file"]))
                rows |= new
                failures |= failures_of(source)
            plan.write()
            journal.whole.replace(rows.values())
            journal.whole.replace_failures(list(failures.values()))
            journal.finish(plan.order, lambda ordered: write_index(writer, ordered), changed=True)
        finally:
            with as_guest(lambda error: writer_fault(writer, "close", error)):
                writer.close()
            copier.close()
    failed = tuple(failure for name, failure in sorted(failures.items()) if name not in rows)
    missing = tuple(name for name in plan.order if name not in rows and name not in failures)
    return Merged(out, len(rows), copied, failed, missing)


def _check_same(record: Record, first: Path, source: Path) -> None:
    """Raises `ExtractionError` if a folder was made with other settings than the first one."""
    other = read_record(source)
    differences = record.differences(other.settings, other.version)
    if differences:
        what = f"{printable(source)} ('here') is of another extraction than {printable(first)} ('there')"
        raise ExtractionError(f"{what}: {'; '.join(differences)}.", fix="Merge folders that were made with the same settings.")


def _joined(plan: Plan, other: Plan, source: Path, *, in_shards: bool) -> dict[str, int]:
    """The block in `plan` of each utterance of another plan, whose blocks are added unless they are there."""
    numbers: dict[str, int] = {}
    for block in other.blocks:
        same = next((known for known in plan.blocks if known.samples == block.samples), None)
        if same is None:
            planned = plan.planned
            twice = next((name for name in block.samples if name in planned), None)
            if twice is not None and in_shards:
                what = f"{printable(source)} has the utterance {printable(twice)!r} in another shard than a folder before it."
                raise ExtractionError(what, fix="Extract from equal corpora, or from ones without an utterance in common.")
            new = [name for name in block.samples if name not in planned]
            places = dict(zip(block.samples, block.places, strict=True))
            same = Block(len(plan.blocks), {name: block.samples[name] for name in new}, tuple(places[name] for name in new))
            plan.blocks.append(same)
        numbers |= dict.fromkeys(block.samples, same.number)
    return numbers


def _renamed(file: str, number: int | None, maker: type[FeatureWriter]) -> str:
    """The path of a file whose block has that number now."""
    if issubclass(maker, ShardWriter) and number is not None:
        return f"{maker.place}/{number:05}{maker.suffix}"
    return file


def _is_new(path: Path, target: Path) -> bool:
    """True unless `target` has the same bytes already."""
    try:
        return not (target.exists() and filecmp.cmp(path, target, shallow=False)) and path.stat().st_size >= 0
    except FileNotFoundError as error:
        raise _broken(path) from error


def _broken(path: Path) -> ExtractionError:
    return ExtractionError(
        f"{printable(path)} is not whole.", fix="Run the same extraction there again, or copy the folder anew."
    )


def _conflict(name: str, source: Path) -> ExtractionError:
    what = f"{printable(source)} and a folder before it have other features for the utterance {printable(name)!r}."
    return ExtractionError(what, fix="Leave one of the folders out.")
