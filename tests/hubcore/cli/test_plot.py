"""`hubcore plot`: the picture that is written, and what is refused."""

from __future__ import annotations

import importlib
import itertools
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from hubcore import hub
from hubcore.audio import load_audio
from hubcore.errors import AudioError, HubcoreError
from hubcore.panels import Heatmap, Row, Spans, Steps
from hubcore.tools import plotting
from hubcore.tools.plotting import Look, draw, look_at
from tests.paths import SPEECH
from tests.running import command, python

pytestmark = pytest.mark.slow

CLIP = SPEECH / "en_1.flac"
TINY = "ofa_wav2vec2_tiny_prompts"
LAMBDAS = (0.2, 0.5, 1.0)
VARIANTS = [{"lambd": lambd} for lambd in LAMBDAS]
COMPARED = [word for lambd in LAMBDAS for word in ("-O", f"lambd={lambd}")]
NOTE = "small demonstration model"


call = partial(command, "plot")


@pytest.fixture(scope="module")
def compressed() -> Look:
    return look_at(CLIP, hub.load(TINY), variants=VARIANTS)


def alpha_of(look: Look) -> Any:
    return next(panel for panel in look.panels if isinstance(panel, Steps))


def rows_of(look: Look) -> Sequence[Row]:
    return next(panel for panel in look.panels if isinstance(panel, Spans)).rows


def state_of(look: Look) -> Any:
    return next(panel for panel in look.panels if isinstance(panel, Heatmap))


@pytest.fixture(scope="module")
def figure(compressed: Look) -> Any:
    made = draw(compressed)
    pixels(made)  # places everything
    return made


def pixels(figure: Any) -> np.ndarray[Any, Any]:
    """`(height, width, 3)` colours of a figure."""
    backend = importlib.import_module("matplotlib.backends.backend_agg")
    canvas = backend.FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


# What is looked at ----------------------------------------------------------------------------------------------------


def test_a_look_holds_what_the_upstream_gives(compressed: Look) -> None:
    upstream: Any = hub.load(TINY)
    wav = load_audio(CLIP)
    with torch.inference_mode():
        for row, lambd in zip(rows_of(compressed), LAMBDAS, strict=True):
            out = upstream([wav], lambd=lambd)
            assert row.label == f"λ = {lambd:g}" and np.array_equal(row.times, out.frame_times()[0].numpy())
            assert row.note == f"T' = {int(out.lengths[0])}, mean {float(out.extras['mean_frame_period_ms'][0]):.1f} ms"
        fbank = hub.load("fbank_no_cmvn")([wav]).last_hidden_state[0, :, :80].double().numpy()
    alpha = alpha_of(compressed)
    assert np.allclose(alpha.values, out.extras["alpha"][0].numpy()) and alpha.edges[:2].tolist() == [0, 0.02]
    assert np.allclose(compressed.mel, 10 / np.log(10) * (fbank - fbank.max()), atol=1e-3)
    assert compressed.seconds == len(wav) / 16000 and np.array_equal(compressed.wav, wav.numpy())
    assert compressed.note.startswith(NOTE) and compressed.title == f"en_1.flac  |  {TINY}"


def test_no_block_runs_to_find_the_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    upstream: Any = hub.load(TINY)

    def fail(*_: object) -> None:
        raise RuntimeError("a block ran")

    for block in upstream.model.encoder.blocks:
        monkeypatch.setattr(block, "forward", fail)
    assert len(rows_of(look_at(CLIP, upstream, variants=[{"lambd": 0.5}]))) == 1
    with pytest.raises(RuntimeError, match="a block ran"):
        look_at(CLIP, upstream)


def test_without_panels_of_its_own_the_last_hidden_state_is_looked_at() -> None:
    upstream = hub.load("wav2vec2_tiny_prompts")
    (panel,) = look_at(CLIP, upstream).panels
    wanted = upstream([load_audio(CLIP)])
    assert isinstance(panel, Heatmap) and panel.label == "block_4"
    assert np.allclose(panel.values, wanted.last_hidden_state[0].detach().numpy(), atol=1e-5)


@pytest.mark.slow
def test_it_stands_below_the_panels_and_is_there_for_each_variant_of_an_upstream_without_any() -> None:
    upstream: Any = hub.load(TINY, lambd=0.25)
    assert [type(panel) for panel in look_at(CLIP, upstream).panels] == [Steps, Heatmap]
    upstream.panels = None
    look = look_at(CLIP, upstream, variants=VARIANTS)
    assert [panel.label for panel in look.panels] == [f"block_4 (lambd = {lambd})" for lambd in LAMBDAS]
    assert len(pixels(draw(look)))


def test_a_file_too_short_for_a_frame_is_named(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.wav", np.zeros(399), 16000)
    with pytest.raises(AudioError, match=r"short\.wav has 399 samples"):
        look_at(tmp_path / "short.wav", hub.load(TINY), variants=[{"lambd": 0.5}])


# What is drawn --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_no_panel_is_blank_and_all_share_the_time_axis(figure: Any, compressed: Look) -> None:
    image = pixels(figure)
    height = image.shape[0]
    panels = [axes for axes in figure.axes if axes.axison and axes.get_ylabel() and axes.get_xlim()[1] != 1]
    assert len(panels) == 4
    for axes in panels:
        assert axes.get_xlim() == pytest.approx((0, compressed.seconds))
        box = axes.get_window_extent()
        inside = image[int(height - box.y1) + 3 : int(height - box.y0) - 3, int(box.x0) + 3 : int(box.x1) - 3]
        assert inside.size and inside.std() > 10, axes.get_ylabel()


@pytest.mark.slow
def test_the_bands_alternate_where_frames_begin_and_end(figure: Any, compressed: Look) -> None:
    axes = next(axes for axes in figure.axes if axes.get_ylabel() == "frames")
    assert [text.get_text() for text in axes.get_yticklabels()] == ["λ = 0.2", "λ = 0.5", "λ = 1"]
    for band, found in zip(axes.collections, rows_of(compressed), strict=True):
        spans = [(path.vertices[:, 0].min(), path.vertices[:, 0].max()) for path in band.get_paths()]
        assert np.allclose(spans, found.times)
        colours = [tuple(band.get_facecolors()[i % len(band.get_facecolors())]) for i in range(len(spans))]
        assert all(a != b for a, b in itertools.pairwise(colours))
    said = [text.get_text() for side in figure.axes for text in side.texts]
    assert said == [row.note for row in rows_of(compressed)]


@pytest.mark.slow
def test_alpha_is_a_step_curve_with_its_mean_in_the_legend(figure: Any, compressed: Look) -> None:
    alpha = alpha_of(compressed).values
    axes = next(axes for axes in figure.axes if axes.get_ylabel().startswith("alpha"))
    values, edges, _ = axes.patches[0].get_data()
    assert np.allclose(values, alpha) and np.allclose(np.diff(edges), 0.02)
    legends = [text.get_text() for side in figure.axes if side.get_legend() for text in side.get_legend().get_texts()]
    assert legends == ["alpha, each 20 ms", f"mean {alpha.mean():.3f}"]


@pytest.mark.slow
def test_no_text_overlaps_another_or_leaves_the_picture(figure: Any) -> None:
    texts = [text for axes in figure.axes for text in (axes.title, axes._left_title, axes.yaxis.label, *axes.texts)]
    texts += [figure.axes[-2].xaxis.label, figure._supxlabel]
    texts += [text for axes in figure.axes if axes.get_legend() for text in axes.get_legend().get_texts()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]
    assert len(boxes) == 13
    for index, (text, box) in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
        for other, beside in boxes[index + 1 :]:
            assert not box.overlaps(beside), (text, other)


def test_the_waveform_reaches_its_extremes_however_long(tmp_path: Path) -> None:
    wav = np.zeros(300_001)
    wav[123_456], wav[200_000] = 0.75, -0.5
    soundfile.write(tmp_path / "clicks.wav", wav, 16000)
    look = look_at(tmp_path / "clicks.wav", hub.load("fbank"))
    outline = draw(look).axes[0].collections[0].get_paths()[0].vertices
    assert (outline[:, 1].max(), outline[:, 1].min()) == pytest.approx((0.75, -0.5), abs=1e-4)
    assert outline[outline[:, 1].argmax(), 0] == pytest.approx(123_456 / 16000, abs=0.01)


def test_after_the_last_frame_the_hidden_state_is_blank() -> None:
    look = look_at(CLIP, hub.load(TINY, lambd=1.0))
    image = draw(look).axes[-2].images[0].get_array()
    share = state_of(look).times[-1, 1] / look.seconds
    assert share < 0.98
    blank = np.ma.getmaskarray(image).all(0) | np.isnan(np.ma.getdata(image)).all(0)
    assert 1 - blank.mean() == pytest.approx(share, abs=0.002) and not blank[0]


@pytest.mark.parametrize("samples", [400, 1360])
@pytest.mark.slow
def test_silence_and_the_shortest_input_are_drawn(samples: int, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(samples), 16000)
    look = look_at(tmp_path / "a.wav", hub.load(TINY), variants=[{"lambd": 0.0}, {"lambd": 1.0}])
    assert [len(row.times) for row in rows_of(look)] == [{400: 1, 1360: 4}[samples], 1]
    assert np.isfinite(look.mel).all() and look.mel.max() < 0
    assert pixels(draw(look)).std() > 0
    assert pixels(draw(look_at(tmp_path / "a.wav", hub.load(TINY)))).std() > 0


# The command ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_png_is_written_with_the_card_s_note(tmp_path: Path, compressed: Look) -> None:
    result = call(CLIP, "--upstream", TINY, *COMPARED, "--out", tmp_path / "a.png")
    assert result.exit_code == 0, result.output
    assert f"\nnote: {NOTE}" in result.output
    for row in rows_of(compressed):
        assert f"{row.label:<7}  {row.note}\n" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    image = importlib.import_module("matplotlib.image").imread(tmp_path / "a.png")
    height = round(120 * sum((1.0, 2.2, 1.1, 0.32 * 3 + 0.1, 1.1, 0.15)))
    assert image.shape[:2] == (pytest.approx(height, abs=1), 1200)
    assert call(CLIP, "-u", TINY, *COMPARED, "-o", tmp_path / "b.PNG").exit_code == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.PNG").read_bytes()


@pytest.mark.parametrize(("ending", "magic"), [("pdf", b"%PDF"), ("svg", b"<?xml")])
@pytest.mark.slow
def test_vector_formats_are_written_and_the_same_each_time(ending: str, magic: bytes, tmp_path: Path) -> None:
    strange = tmp_path / "a $x_$ 語.wav"  # no formula, though it looks like a broken one
    soundfile.write(strange, 0.1 * np.sin(np.arange(8000)), 16000)
    for name in ("a", "b"):
        result = call(strange, "-u", "fbank", "-o", tmp_path / f"{name}.{ending}")
        assert result.exit_code == 0, result.output
        assert "note" not in result.output
    data = (tmp_path / f"a.{ending}").read_bytes()
    assert data.startswith(magic) and data == (tmp_path / f"b.{ending}").read_bytes()


@pytest.mark.slow
def test_it_works_with_own_weights(tmp_path: Path) -> None:
    model: Any = hub.load(TINY)
    model.save_checkpoint(tmp_path / "mine.safetensors")
    result = call(CLIP, "-u", "ofa_wav2vec2", "-c", tmp_path / "mine.safetensors", "-O", "lambd=1", "-o", tmp_path / "a.png")
    assert result.exit_code == 0 and "note" not in result.output, result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{clip}", "-u", "fbank", "-o", "{tmp}/a.jpg"], "a.jpg has an ending that cannot be drawn. The formats are .png,"),
        (["{clip}", "-u", "fbank", "-o", "{tmp}/a"], "a has an ending that cannot be drawn"),
        (["{clip}", "-u", "fbank", "-o", "{tmp}/none/a.png"], "there is no folder"),
        (["{clip}", "-u", "fbank", "-o", "{tmp}/folder.png"], "it is a folder"),
        (["{clip}", "-u", "fbank", "-O", "lambd=0.5", "-o", "{tmp}/a.png"], "FbankUpstream has no option called 'lambd'"),
        (["{clip}", "-u", "fbnk", "-o", "{tmp}/a.png"], "no upstream is called 'fbnk'"),
        (["{clip}", "-u", TINY, "-O", "lambd=3", "-o", "{tmp}/a.png"], "lambd is 3.0"),
        (["{clip}", "-u", TINY, "-O", "lambd=.nan", "-o", "{tmp}/a.png"], "lambd must be a number"),
        (["{tmp}/none.wav", "-u", TINY, "-o", "{tmp}/a.png"], "none.wav does not exist"),
        (["{clip}", "-u", TINY, "-O", "lambd=0.5,x", "-o", "{tmp}/a.png"], "lambd must be a number"),
        (["{clip}", "-u", TINY, "-O", "lambd", "-o", "{tmp}/a.png"], "'lambd' is not of the form name=value"),
        (["{clip}", "-u", TINY, "-O", "tail=keep", "-O", "tail=drop", "-o", "{tmp}/a.png"], "tail is given 2 times"),
        (["{clip}", "-u", TINY], "Missing option '--out'"),
        (["-u", TINY, "-o", "{tmp}/a.png"], "Missing argument 'FILE'"),
    ],
)
def test_what_cannot_be_drawn_is_exit_code_2_and_leaves_nothing(arguments: Sequence[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    result = call(*(argument.format(clip=CLIP, tmp=tmp_path) for argument in arguments))
    assert result.exit_code == 2 and said in result.output, result.output
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


@pytest.mark.slow
def test_a_lambda_outside_the_trained_range_is_a_line_not_a_traceback(tmp_path: Path) -> None:
    result = call(CLIP, "-u", TINY, "-O", "lambd=1.5", "-o", tmp_path / "a.png")
    assert result.exit_code == 0
    assert result.stderr.startswith("hubcore: lambda 1.5 is outside the 0 to 1") and len(result.stderr.splitlines()) == 1


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(b"old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    result = call(CLIP, "-u", "fbank", "-o", tmp_path / "a.png")
    assert result.exit_code == 2 and "a.png cannot be written: No space left on device" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"] and (tmp_path / "a.png").read_bytes() == b"old"


def test_without_matplotlib_the_extra_is_named_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Hidden(), *sys.meta_path])
    result = call(CLIP, "-u", "no such name", "-o", tmp_path / "a.png")
    assert result.exit_code == 2
    assert "matplotlib is not installed." in result.output and "Run pip install 'hubcore[plot]'." in result.output
    with pytest.raises(HubcoreError, match=r"hubcore\[plot\]"):
        plotting.load_matplotlib("figure")


class _Hidden:
    """An import finder that says matplotlib is not there."""

    def find_spec(self, name: str, *_: object) -> None:
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}", name="matplotlib")


@pytest.mark.slow
def test_neither_a_display_nor_pyplot_is_needed_and_settings_stay() -> None:
    script = f"""
import sys
import matplotlib
before = dict(matplotlib.rcParams)
from hubcore import hub
from hubcore.tools.plotting import draw, look_at
draw(look_at({str(CLIP)!r}, hub.load("fbank")))
print("matplotlib.pyplot" in sys.modules, dict(matplotlib.rcParams) == before)
"""
    done = python("-c", script, MPLBACKEND="TkAgg", DISPLAY="", WAYLAND_DISPLAY="")
    assert done.stdout.split() == ["False", "True"]
