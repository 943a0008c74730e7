"""`hubcore segment MANIFEST...`, by the hook `hubcore_commands`: speech sounds found without labels, for pre-training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hubcore import hookimpl
from hubcore.cli.complete import files, upstreams
from hubcore.cli.echo import echo, echo_json, json_flag
from hubcore.cli.table import format_table
from hubcore.errors import OptionError
from hubcore.files import output_folder
from hubcore.progress import Progress
from hubcore.text import format_duration, printable

if TYPE_CHECKING:
    from hubcore_ofa_wav2vec2.segments.finders import Finder
    from hubcore_ofa_wav2vec2.segments.quality import Quality
    from hubcore_ofa_wav2vec2.segments.run import Summary

_SHOWN = 20
"""Failures that are shown; --json has all."""

_EXAMPLE = """\b
Example:
  hubcore segment lists/train.tsv lists/valid.tsv --out segments/
  hubcore segment lists/train.tsv --method kmeans --upstream wav2vec2_base_960 --layer 6 --out segments6/
  hubcore segment lists/valid.tsv --out segments/ --reference aligned/"""


@hookimpl
def hubcore_commands(cli: click.Group) -> None:
    """Adds `hubcore segment`."""
    cli.add_command(segment)


@click.command(epilog=_EXAMPLE)
@click.argument("manifests", nargs=-1, required=True, metavar="MANIFEST...", shell_complete=files)
@click.option("--out", "-o", required=True, metavar="DIR", help="The folder for the segments; created if need be.")
@click.option("--method", type=click.Choice(["peaks", "kmeans"]), default="peaks", show_default=True, help="How to find them.")
@click.option(
    "--upstream",
    "-u",
    shell_complete=upstreams,
    metavar="NAME",
    help="kmeans: whose features to cluster; a name of `hubcore list`. [mfcc]",
)
@click.option("--checkpoint", "-c", metavar="C", help="kmeans: your own weights: a path, https://... or hf://...")
@click.option("--layer", type=int, metavar="K", help="kmeans: the hidden state, from the end if negative. [-1]")
@click.option("--clusters", type=click.IntRange(min=2), metavar="N", help="kmeans: how many. [100]")
@click.option("--penalty", type=click.FloatRange(min=0), metavar="P", help="kmeans: cost of a segment, instead of tuning it.")
@click.option("--device", metavar="D", help="kmeans: where to compute, such as cuda:0. [cpu]")
@click.option("--threshold", type=click.FloatRange(min=0), metavar="P", help="peaks: least prominence, instead of tuning it.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="peaks: processes to compute in. [1]")
@click.option(
    "--mean-alpha",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="A",
    help="Segments a frame to tune to, over the corpus. [2/9, which is 90 ms a segment]",
)
@click.option("--seed", default=42, show_default=True, metavar="N", help="Decides what is tuned on.")
@click.option("--root", metavar="DIR", help="Where the audio is, if not where the manifest says.")
@click.option("--reference", metavar="DIR", help="Segments to compare the result with, in any layout.")
@click.option("--tolerance-ms", type=click.FloatRange(min=0), default=20.0, show_default=True, help="For --reference.")
@click.option("--force-unlock", is_flag=True, help="Ignore the lock file of a run that died on another machine.")
@json_flag()
def segment(
    manifests: tuple[str, ...],
    out: str,
    method: str,
    threshold: float | None,
    workers: int | None,
    mean_alpha: float | None,
    seed: int,
    root: str | None,
    reference: str | None,
    tolerance_ms: float,
    force_unlock: bool,
    as_json: bool,
    **for_kmeans: Any,
) -> None:
    """Find segments of about a phone in every file of manifests (MANIFEST...), and write the boundaries and alphas.

    peaks sets a boundary where the spectrum changes fastest. kmeans clusters a hidden layer of any upstream, and joins like
    frames. The threshold, or the cost of a segment, is tuned so that segments have 90 ms on average. It is kept in the folder
    with what else it depends on: the same command resumes after an interruption, and another manifest is segmented by the
    same rule. A file that cannot be used harms no other; the exit code is then 1.
    """
    from hubcore.corpus import read_manifest
    from hubcore_ofa_wav2vec2.segments import compare_corpora, open_segments, segment_corpus
    from hubcore_ofa_wav2vec2.segments.run import MEAN_ALPHA

    lists = [read_manifest(path, root=root) for path in manifests]
    known = None if reference is None else open_segments(reference, strict=False)  # before all is computed for nothing
    finder = _finder(method, threshold, workers, for_kmeans)
    try:
        with Progress("utt", quiet=as_json) as progress:
            summary = segment_corpus(
                lists,
                output_folder(out),
                finder,
                mean_alpha=mean_alpha or MEAN_ALPHA,
                seed=seed,
                report=progress,
                force_unlock=force_unlock,
            )
    except KeyboardInterrupt:
        echo("what is finished is kept; run the same command again to resume", err=True)
        raise
    quality = None
    if known is not None:
        entries = [entry for each in lists for entry in each]
        quality = compare_corpora(open_segments(out), known, entries, tolerance_ms=tolerance_ms)
    _print(summary, quality, as_json)
    if summary.failures:
        click.get_current_context().exit(1)


def _finder(method: str, threshold: float | None, workers: int | None, for_kmeans: dict[str, Any]) -> Finder:
    """The method with its own options; one of the other method's is bad usage, not ignored."""
    from hubcore_ofa_wav2vec2.segments.finders import ClusterFinder, PeakFinder

    for_peaks = {"threshold": threshold, "workers": workers}
    foreign = [name for name, value in (for_kmeans if method == "peaks" else for_peaks).items() if value is not None]
    if foreign:
        other = "kmeans" if method == "peaks" else "peaks"
        raise OptionError(
            f"{', '.join(f'--{name}' for name in foreign)} was given with --method {method}. Only {other} has that.",
            fix=f"Leave it out, or choose --method {other}.",
        )
    if method == "peaks":
        return PeakFinder(threshold, workers or 1)
    from hubcore import hub

    given = {name: value for name, value in for_kmeans.items() if value is not None}
    name = given.get("upstream", "mfcc")
    upstream = hub.load(name, given.get("checkpoint"), device=given.get("device"))
    return ClusterFinder(
        upstream,
        layer=given.get("layer", -1),
        clusters=given.get("clusters", 100),
        penalty=given.get("penalty"),
        name=upstream.card.name if upstream.card else name,
    )


def _print(summary: Summary, quality: Quality | None, as_json: bool) -> None:
    if as_json:
        result = {
            "folder": printable(summary.folder),
            "written": summary.written,
            "skipped": summary.skipped,
            "failed": [{"path": printable(failed.path), "error": printable(failed.error)} for failed in summary.failures],
            "frames": summary.frames,
            "segments": summary.segments,
            "mean_alpha": round(summary.mean_alpha, 6),
            "mean_segment_ms": round(summary.mean_segment_ms, 3),
            **summary.tuning,
            "audio_seconds": round(summary.audio_seconds, 3),
            "wall_seconds": round(summary.wall_seconds, 3),
            "speed": round(summary.speed, 2),
            "quality": None if quality is None else quality.to_dict(),
        }
        echo_json(result)
        return
    (name, value), *_ = summary.tuning.items()
    headers = ["utterances", "frames", "segments", "mean alpha", "mean segment", name]
    counts = (summary.written + summary.skipped, summary.frames, summary.segments)
    row = (*counts, f"{summary.mean_alpha:.4f}", f"{summary.mean_segment_ms:.1f} ms", f"{value:.4f}")
    echo(format_table(headers, [row], right=headers))
    speed = f", {summary.speed:.0f} x real time" if summary.written else ""
    echo(
        f"{summary.written} written to {printable(summary.folder)}, {summary.skipped} done before, {len(summary.failures)} "
        f"failed; {format_duration(summary.audio_seconds)} of audio in {summary.wall_seconds:.1f} s{speed}"
    )
    if quality is not None:
        figures = quality.to_dict()
        headers = ["precision", "recall", "F1", "R-value", "boundaries", "reference", "utterances"]
        shown = ["-" if figures[key] is None else f"{figures[key]:.3f}" for key in ("precision", "recall", "f1", "r_value")]
        echo()
        rows = [(*shown, quality.found, quality.reference, quality.utterances)]
        echo(format_table(headers, rows, right=headers))
    for failed in summary.failures[:_SHOWN]:
        echo(f"failed: {printable(failed.error)}", err=True)
    if len(summary.failures) > _SHOWN:
        echo(f"failed: {len(summary.failures) - _SHOWN} more; --json shows all", err=True)
