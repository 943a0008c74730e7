"""A page in headless Chromium: it plays, scrubs, zooms, moves lambda, switches layers and utterances, and asks for nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hubcore import hub
from hubcore.corpus import File, Utterance
from hubcore.tools.frames import ComputedFrames
from hubcore.units import Units
from hubcore.view import collect_view, page_text
from tests.hubcore.view.browser import KEYS, Browser, browser, needs_browser
from tests.paths import SPEECH

pytestmark = [pytest.mark.slow, needs_browser]

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A page of an OFA model with two utterances and units, in a browser."""
    clips = {"en_1": "en_1.flac", HOSTILE: "it_1.flac"}
    frames = ComputedFrames(
        hub.load("ofa_wav2vec2_tiny_prompts"), [Utterance(name, File(str(SPEECH / clip))) for name, clip in clips.items()]
    )
    strips = {"by hand": lambda name, read: Units(read.times[:, 0].astype(int) * 11)}
    page = tmp_path_factory.mktemp("page") / "page of <two> & more.html"
    page.write_text(page_text(collect_view(frames, [*clips], source=HOSTILE, units=strips)), encoding="utf-8")
    with browser() as session:
        session.resize(1280, 900)
        session.prefer("light")
        session.open(page)
        session.wait("document.body.dataset.utterance")
        yield session


@pytest.fixture
def page(opened: Browser) -> Browser:
    """The page at the beginning of the first utterance, all of it in view."""
    opened.press("0")
    opened.click("#list li:first-child button")
    opened.wait("document.body.dataset.utterance === 'en_1' && document.body.dataset.time === '0.000'")
    return opened


def time_of(page: Browser) -> float:
    return float(page.state("time"))


def colours(page: Browser, label: str) -> int:
    """The number of different colours in a picture."""
    return int(
        page.run(
            "const c = document.querySelector(`canvas[aria-label='${arguments[0]}']`);"
            "const d = new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer);"
            "return new Set(d).size",
            label,
        )
    )


def test_it_plays_and_pauses(page: Browser) -> None:
    page.press(" ")
    page.wait("document.body.dataset.playing === 'true' && Number(document.body.dataset.time) > 0.3")
    page.press(" ")
    page.wait("document.body.dataset.playing === 'false'")
    stopped = time_of(page)
    assert float(page.text("#clock").removesuffix(" / 2.95 s")) == pytest.approx(stopped, abs=0.006)
    assert page.run("return document.getElementById('trouble').hidden")
    assert time_of(page) == stopped > 0.3
    page.press("s")
    page.click("#play")
    page.wait(f"Number(document.body.dataset.time) > {stopped} + 0.1")
    assert page.text("#speed").startswith("0.75") and page.text("#play") == "❚❚"
    page.click("#play")
    page.press("sss")


def test_a_click_and_a_drag_move_the_playhead(page: Browser) -> None:
    page.click("canvas[aria-label='waveform']", 0.5)
    assert time_of(page) == pytest.approx(2.951 / 2, abs=0.01)
    page.click("canvas[aria-label='log-mel']", 0.2, to=0.8)
    assert time_of(page) == pytest.approx(2.951 * 0.8, abs=0.01)
    where = page.run(
        "const b = document.querySelector('canvas[aria-label=waveform]').getBoundingClientRect();"
        "const h = document.getElementById('playhead').getBoundingClientRect();"
        "return (h.left + h.width / 2 - b.left) / b.width"
    )
    assert where == pytest.approx(0.8, abs=0.01)
    page.press(KEYS["left"] + KEYS["left"] + KEYS["right"])
    assert time_of(page) == pytest.approx(2.951 * 0.8 - 0.1, abs=0.01)
    page.click("#matrix", 0.25, 0.5)
    assert 0.2 * 2.951 < time_of(page) < 0.3 * 2.951
    page.press(KEYS["end"])
    assert time_of(page) == pytest.approx(2.951, abs=0.001)
    assert "frame 50 of " not in page.text("#readout")


def test_the_slider_moves_lambda(page: Browser) -> None:
    page.press(KEYS["right"] * 10)
    assert page.state("stop") == "λ = 0.5" and "segment 30 of 88" in page.text("#readout")
    told, drawn = page.text("#told-1"), colours(page, "frames")
    assert told.startswith("λ = 0.5: T' = 88, mean 33.") and drawn > 2
    page.press(".....")
    assert page.state("stop") == "λ = 1" and page.text("#told-1") != told
    assert "of 88" not in page.text("#readout").partition("segment")[2]
    page.click("#slider-1", 0.02)
    assert page.state("stop") == "λ = 0" and " of 147: " in page.text("#readout")
    page.press("n")
    page.wait(f"document.body.dataset.utterance === {HOSTILE!r}")
    assert page.state("stop") == "λ = 0"
    page.press("p.....")
    page.wait("document.body.dataset.utterance === 'en_1'")


def test_layers_are_switched(page: Browser) -> None:
    assert page.state("layer") == "block_4"
    before = page.run("return document.getElementById('matrix').toDataURL()")
    page.press("[[")
    assert page.state("layer") == "block_2" and page.text("#layer-name") == "block_2"
    assert page.run("return document.getElementById('layer').value") == "block_2"
    assert page.run("return document.getElementById('matrix').toDataURL()") != before
    page.press("[[[[")
    assert page.state("layer") == "input"
    page.click("canvas[aria-label='norms']", 0.5, 0.3)
    assert page.state("layer") == "block_3"
    page.click("#upper")
    assert page.state("layer") == "block_4" and page.run("return document.getElementById('matrix').toDataURL()") != before


def test_pictures_are_drawn_and_the_readout_names_frame_and_unit(page: Browser) -> None:
    for label, least in {
        "waveform": 5,
        "log-mel": 100,
        "units": 3,
        "frames": 3,
        "norms": 20,
        "norm": 3,
        "like now": 10,
    }.items():
        assert colours(page, label) >= least, label
    page.press(KEYS["right"] * 10)
    assert page.text("#readout").startswith("frame 30 of 88 · unit ")
    assert page.text("#pair").startswith("1.00 s and 1.00 s: 1.00")


def test_it_zooms_and_follows(page: Browser) -> None:
    assert page.run("return state.view") == {"start": 0, "end": pytest.approx(2.951, abs=0.001)}
    page.click("canvas[aria-label='waveform']", 0.5)
    page.press("++")
    start, end = map(float, page.state("view").split())
    assert end - start == pytest.approx(2.951 / 4, abs=0.001) and start < time_of(page) < end
    page.press(KEYS["home"])
    assert page.state("view").startswith("0.000")
    page.press("-")
    assert float(page.state("view").split()[1]) == pytest.approx(2.951 / 2, abs=0.001)


def test_hostile_names_are_text(page: Browser) -> None:
    assert page.text("#source") == HOSTILE
    page.press("n")
    page.wait(f"document.body.dataset.utterance === {HOSTILE!r}")
    assert page.text("#name") == HOSTILE and page.text("#list li:last-child span") == HOSTILE
    assert page.run("return document.images.length") == 0


def test_help_and_theme(page: Browser) -> None:
    page.press("?")
    assert page.run("return document.getElementById('help').open") is True
    page.press(KEYS["escape"])
    assert page.run("return document.getElementById('help').open") is False
    back = "return getComputedStyle(document.body).backgroundColor"
    light = page.run(back)
    page.press("d")
    assert page.run(back) != light
    page.press("d")
    assert page.run(back) == light


def test_a_phone_needs_no_scrolling_to_the_side(page: Browser) -> None:
    page.resize(390, 844, phone=True)
    try:
        assert page.run("return [document.documentElement.scrollWidth, innerWidth]") == [390, 390]
        assert page.run("return document.querySelector('canvas[aria-label=waveform]').clientWidth") > 340
        small = page.run(
            "return [...document.querySelectorAll('button, select')]"
            ".filter((element) => element.offsetParent && element.offsetHeight < 32).length"
        )
        assert small == 0
    finally:
        page.resize(1280, 900)


def test_nothing_was_asked_for_and_nothing_went_wrong(page: Browser) -> None:
    asked = page.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in asked if not name.startswith(("blob:", "data:"))] == []
    assert page.complaints() == []
    page.run("const s = document.createElement('script'); s.textContent = 'window.foreign = 1'; document.body.append(s)")
    assert page.run("return window.foreign") is None
    assert "Content Security Policy" in page.complaints()[0]


def test_sound_that_a_browser_cannot_play_is_said(page: Browser) -> None:
    page.run("audio.src = URL.createObjectURL(new Blob(['no sound'], {type: 'audio/ogg'}))")
    page.wait("!document.getElementById('trouble').hidden")
    assert page.text("#trouble").startswith("This browser does not play the sound (audio/ogg): ")
    page.click("canvas[aria-label='waveform']", 0.5)
    assert time_of(page) == pytest.approx(2.951 / 2, abs=0.01)
    page.press("n")
    page.wait("document.getElementById('trouble').hidden && document.body.dataset.utterance")


def test_the_folder_has_no_other_file(opened: Browser) -> None:
    page = Path(opened.run("return decodeURIComponent(location.pathname)"))
    assert [file.name for file in page.parent.iterdir()] == [page.name]
