"""`hubcore view SOURCE`: utterances and their layers on one page for a browser."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hubcore.cli import complete
from hubcore.cli.echo import echo
from hubcore.cli.options import option_flag, typed_options
from hubcore.errors import OptionError
from hubcore.files import write_whole
from hubcore.progress import Progress
from hubcore.text import format_bytes, format_duration, plural, printable

if TYPE_CHECKING:
    from hubcore.corpus import Utterance
    from hubcore.tools.frames import AnyFrames
    from hubcore.view.collect import UnitsOf

_EXAMPLE = """\b
Example:
  hubcore view recordings/ --upstream hubert_base --layers 0,6,9,12 --out page.html
  hubcore view recordings/ anna-1 ben-1 -u ofa_wav2vec2 -o page.html
  hubcore view features/ --units units.npz -o page.html"""


@click.command(epilog=_EXAMPLE)
@click.argument("given", nargs=-1, required=True, metavar="SOURCE [UTTERANCE...]", shell_complete=complete.files)
@click.option("--upstream", "-u", "name", shell_complete=complete.upstreams, metavar="NAME", help="Needed for audio.")
@click.option("--out", "-o", required=True, metavar="PAGE", help="The page, such as page.html.")
@click.option(
    "--checkpoint", "-c", shell_complete=complete.files, metavar="C", help="Your own weights: a path, https://... or hf://..."
)
@click.option(
    "--layers", metavar="LAYERS", help="all, last, 9, block_9, 0,6,12 or 1-3; the card's default, which is mostly all."
)
@click.option(
    "--units",
    multiple=True,
    shell_complete=complete.files,
    metavar="FILE",
    help="Units to show, or a codebook (.safetensors) that makes them; repeatable.",
)
@click.option(
    "--corpus",
    multiple=True,
    shell_complete=complete.files,
    metavar="PATH",
    help="The audio of a folder of features, if it moved.",
)
@click.option(
    "--audio",
    type=click.Choice(["libsndfile", "ffmpeg"]),
    default="libsndfile",
    show_default=True,
    help="ffmpeg also decodes m4a, aac, wma and others; needs hubcore[av].",
)
@click.option(
    "--count", type=click.IntRange(min=1), default=10, show_default=True, metavar="N", help="Utterances shown if none is named."
)
@option_flag("An option of the upstream; one of a call may be repeated, and a slider goes through its values.")
def command(
    given: tuple[str, ...],
    name: str | None,
    out: str,
    checkpoint: str | None,
    layers: str | None,
    units: tuple[str, ...],
    corpus: tuple[str, ...],
    audio: str,
    count: int,
    pairs: tuple[str, ...],
) -> None:
    """Make a page that shows utterances: sound, waveform, log-mel picture, layers, units, and what else the upstream draws.

    SOURCE is a folder that `hubcore extract` wrote, or audio as that command takes it: a file, a folder, a list. The page is
    one file. It needs no server and no network, and opens in any current browser.
    """
    from hubcore.tools.frames import chosen, is_features
    from hubcore.view import collect_view, page_text

    target = Path(out)
    _check(target)
    variants = None
    found: AnyFrames
    if is_features(given[0]):
        if name is not None or checkpoint is not None or pairs:
            raise click.UsageError(
                f"{printable(given[0])} has its features already: leave out --upstream, --checkpoint and -O."
            )
        found, named = _stored(given, layers, corpus, ffmpeg=audio == "ffmpeg")
    else:
        if name is None:
            raise click.UsageError(
                f"{printable(given[0])} is no folder of `hubcore extract`. As audio it needs --upstream NAME."
            )
        if corpus:
            raise click.UsageError("--corpus is for a folder of features.")
        found, named, variants = _computed(given, name, checkpoint, layers, pairs, ffmpeg=audio == "ffmpeg")
    names = chosen(found, named) or [*found.utterances][:count]
    if not names:
        raise OptionError(f"{printable(given[0])} has no utterance.", fix="Name other audio.")
    strips = {Path(file).name: _units_of(file, found) for file in units}
    with (
        warnings.catch_warnings(record=True) as said,
        Progress("utterance", say=lambda line: echo(line, err=True)) as progress,
    ):
        warnings.simplefilter("always", UserWarning)
        view = collect_view(found, names, source=given[0], units=strips, variants=variants, report=progress)
    for warning in said:
        echo(f"hubcore: {warning.message}", err=True)
    text = page_text(view).encode("utf-8")
    _write(target, text)
    shown = plural(len(names), "utterance") + (f" of {len(found.utterances)}" if len(names) < len(found.utterances) else "")
    seconds = sum(utterance.seconds for utterance in view.utterances)
    of = f"{format_duration(seconds)} of audio, {plural(len(view.layers), 'layer')}"
    echo(f"{printable(target)}: {shown}, {of}, {format_bytes(len(text))}")
    if view.note:
        echo(f"note: {view.note}")


def _stored(
    given: Sequence[str], layers: str | None, corpus: Sequence[str], *, ffmpeg: bool
) -> tuple[AnyFrames, Sequence[str]]:
    """The frames of a folder of features, and the utterances that were named."""
    from hubcore.corpus import find_utterances
    from hubcore.tools.frames import StoredFrames

    moved = find_utterances(corpus, ffmpeg=ffmpeg) if corpus else None
    return StoredFrames(given[0], layers=layers, corpus=moved), given[1:]


def _computed(
    given: Sequence[str], name: str, checkpoint: str | None, layers: str | None, pairs: Sequence[str], *, ffmpeg: bool
) -> tuple[AnyFrames, Sequence[str], list[dict[str, Any]] | None]:
    """Frames of audio, the utterances that were named, and the variants of a slider, if any were asked for."""
    from hubcore import hub
    from hubcore.tools.frames import ComputedFrames

    utterances, named = _found(given, ffmpeg)
    options, calls = typed_options(name, checkpoint, pairs, compare=True)
    swept = {option: values for option, values in calls.items() if len(values) > 1}
    fixed = {option: values[0] for option, values in calls.items() if len(values) == 1}
    variants = [{**fixed, **dict(zip(swept, values, strict=True))} for values in itertools.product(*swept.values())]
    upstream = hub.load(name, checkpoint=checkpoint, **options)
    label = upstream.card.name if upstream.card else name
    frames = ComputedFrames(upstream, utterances, layers=layers, name=label, options=fixed)
    return frames, named, variants if swept else None


def _found(given: Sequence[str], ffmpeg: bool) -> tuple[list[Utterance], list[str]]:
    """The utterances of the paths, and the names: what follows the first path is a name, if there is such an utterance."""
    from hubcore.corpus import find_utterances

    first = find_utterances(given[:1], ffmpeg=ffmpeg)
    known = {utterance.name for utterance in first}
    paths = [other for other in given[1:] if other not in known and Path(other).exists()]
    utterances = find_utterances([given[0], *paths], ffmpeg=ffmpeg) if paths else first
    return utterances, [other for other in given[1:] if other not in paths]


def _units_of(file: str, frames: AnyFrames) -> UnitsOf:
    """Gives the units of an utterance: from a file of them, or made of its frames by a codebook (.safetensors)."""
    from hubcore.tools.frames import Frames, StoredFrames
    from hubcore.units import Units, load, read_units

    if not file.endswith(".safetensors"):
        units = read_units(file)
        return lambda name, _: units.get(name)
    codebook = load(file)
    if isinstance(frames, StoredFrames):
        codebook.check_record(frames.folder.record)
    else:
        codebook.check(frames.upstream, frames.options)
    if codebook.layer_name not in frames.layer_names:
        what = f"{printable(file)} is for {codebook.layer_name}, which is not among the layers of the page."
        raise OptionError(what, fix=f"Add it to --layers: {codebook.layer}.")
    place = frames.layer_names.index(codebook.layer_name)

    def made(_: str, read: Frames) -> Units:
        import torch

        return Units(codebook.assign(torch.from_numpy(read.states[place])).numpy())

    return made


def _check(target: Path) -> None:
    """Checks where the page is to be, before anything is computed for nothing."""
    if target.is_dir() or not target.parent.is_dir():
        reason = "it is a folder" if target.is_dir() else f"there is no folder {printable(target.parent)}"
        raise OptionError(
            f"the page {printable(target)} cannot be written: {reason}.", fix="Choose another name, or make the folder."
        )


def _write(target: Path, text: bytes) -> None:
    try:
        with write_whole(target) as temporary:
            temporary.write_bytes(text)
    except OSError as error:
        what = f"the page {printable(target)} cannot be written: {error.strerror or error}. Nothing was changed there."
        raise OptionError(what, fix="Choose a folder that can be written, or make room.") from error
