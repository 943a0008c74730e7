"""`hubcore plot similarity A [B]`: CKA between the layers of a model, or of two, as a heat map."""

from __future__ import annotations

from pathlib import Path

import click

from hubcore.cli import complete
from hubcore.cli.echo import echo, echo_json, json_flag
from hubcore.cli.picture import check_picture, write_picture
from hubcore.progress import Progress
from hubcore.text import plural, printable

_EXAMPLE = """\b
Example:
  hubcore plot similarity hubert_base --corpus recordings/ --out layers.png
  hubcore plot similarity hubert_base wavlm_base --corpus recordings/ --json
  hubcore plot similarity features_a/ features_b/ --out layers.png"""


@click.command(epilog=_EXAMPLE)
@click.argument("a", metavar="A", shell_complete=complete.upstreams_or_files)
@click.argument("b", metavar="[B]", required=False, shell_complete=complete.upstreams_or_files)
@click.option("--corpus", multiple=True, metavar="PATH", shell_complete=complete.files, help="Audio for upstreams; repeatable.")
@click.option("--layers", metavar="LAYERS", help="all (default), last, 0,6,12 or 1-3; of both.")
@click.option(
    "--audio",
    type=click.Choice(["libsndfile", "ffmpeg"]),
    default="libsndfile",
    show_default=True,
    help="ffmpeg also decodes m4a, aac, wma and others; needs hubcore[av].",
)
@click.option("--out", "-o", metavar="PICTURE", help="The picture: .png, .pdf or .svg.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the frames that are drawn.")
@json_flag(instead="a line")
def command(
    a: str,
    b: str | None,
    corpus: tuple[str, ...],
    layers: str | None,
    audio: str,
    out: str | None,
    seed: int,
    as_json: bool,
) -> None:
    """Compare the layers of A with each other, or with those of B, by linear CKA on the frames of a corpus.

    A and B are names of `hubcore list`, which compute on --corpus, or folders that `hubcore extract` wrote. Two of them
    are compared on the utterances that both have, by name; other frame rates are lined up by time. 1 means that two layers
    are the same up to rotation and scale. The picture needs matplotlib: pip install 'hubcore[plot]'.
    """
    from hubcore import hub
    from hubcore.corpus import find_utterances
    from hubcore.tools.frames import AnyFrames, ComputedFrames, StoredFrames, is_features
    from hubcore.tools.plotting import STYLE, load_matplotlib
    from hubcore.tools.similarity import draw_similarity, similarity

    if out is None and not as_json:
        raise click.UsageError("Missing option '--out' / '-o', or --json.")
    if out is not None:
        check_picture(Path(out))
        load_matplotlib("figure")
    given = [a] if b is None else [a, b]
    if not corpus and not all(map(is_features, given)):
        name = printable(next(name for name in given if not is_features(name)))
        raise click.UsageError(f"{name} is no folder of `hubcore extract`. As an upstream it needs audio: --corpus PATH.")
    found = find_utterances(corpus, ffmpeg=audio == "ffmpeg") if corpus else []
    sides: list[AnyFrames] = [
        StoredFrames(name, layers=layers) if is_features(name) else ComputedFrames(hub.load(name), found, layers=layers)
        for name in given
    ]
    with Progress("utterance", say=lambda line: echo(line, err=True), quiet=as_json) as progress:
        result = similarity(*sides, seed=seed, report=progress)
    if out is not None:
        write_picture(lambda: draw_similarity(result), Path(out), STYLE)
    used = f"{plural(result.frames, 'frame')} of {plural(result.utterances, 'utterance')}"
    if as_json:
        echo_json(
            {
                "a": {"upstream": result.names[0], "layers": list(result.layers[0])},
                "b": {"upstream": result.names[1], "layers": list(result.layers[1])},
                "cka": result.values.round(6).tolist(),
                "utterances": result.utterances,
                "frames": result.frames,
            }
        )
    else:
        echo(f"{printable(out or '')}: CKA of {' and '.join(map(printable, given))} on {used}")
