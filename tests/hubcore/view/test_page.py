"""Pages of `hubcore view` without a browser: what is in them, what is not, and the command."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import zlib
from collections.abc import Sequence
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from hubcore import hub
from hubcore.corpus import File, Utterance, find_utterances
from hubcore.errors import AudioError
from hubcore.extract import extract
from hubcore.tools.frames import ComputedFrames, StoredFrames
from hubcore.tools.plotting import log_mel
from hubcore.units import Codebook, Units
from hubcore.units.codebook import record_of
from hubcore.view import Shown, View, collect_view, page_text
from hubcore.view import page as page_module
from hubcore.view.small import sound
from tests.paths import SPEECH
from tests.running import command

CLIP = SPEECH / "en_1.flac"
TINY, OFA = "wav2vec2_tiny_prompts", "ofa_wav2vec2_tiny_prompts"
HOSTILE = "</script><img src=x onerror=alert(1)>\u202e\x1b[31m\udce9"
TYPES = {"Float32Array": "<f4", "Int8Array": "i1", "Uint8Array": "u1", "Uint16Array": "<u2"}
call = partial(command, "view")


def clip(name: str = "a", file: Path = CLIP) -> Utterance:
    return Utterance(name, File(str(file)))


def arrays_of(shown: Shown) -> dict[str, Any]:
    """The arrays of an utterance, as the script of the page reads them."""
    data, at, found = zlib.decompress(base64.b64decode(shown.data)), 0, {}
    for name, kind, shape in shown.index:
        found[name] = np.frombuffer(data, TYPES[kind], int(np.prod(shape)), at).reshape(shape)
        at += -(-found[name].nbytes // 4) * 4
    assert at == len(data)
    return found


@pytest.fixture(scope="module")
def view() -> View:
    return collect_view(
        ComputedFrames(hub.load(TINY), [clip("a"), clip("b", SPEECH / "it_1.flac")]), ["a", "b"], source="speech"
    )


class Parts(HTMLParser):
    """Elements of a page, their attributes, and the texts of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.texts.append(data)


# What is in a page ----------------------------------------------------------------------------------------------------


def test_the_arrays_are_the_audio_and_the_layers_to_a_step_of_their_scale(view: View) -> None:
    found, wav = arrays_of(view.utterances[0]), clip().read(16000)
    out = hub.load(TINY)([wav])
    assert view.layers == out.layer_names and view.utterances[0].frames == int(out.lengths)
    assert found["mel"] / 255 * 70 - 70 == pytest.approx(log_mel(wav).clip(-70, 0), abs=1.1)
    assert found["mel_edges"][0] == pytest.approx(0.0075) and len(found["mel_edges"]) == len(found["mel"]) + 1
    states = np.stack([state[0].detach().double().numpy() for state in out.hidden_states])
    low, high = np.array(view.utterances[0].norms).T[:, :, None]
    assert found["norms"] / 255 * (high - low) + low == pytest.approx(np.linalg.norm(states, axis=-1), rel=3e-3)
    assert found["edges"][:3] == pytest.approx([0, 0.0225, 0.0425]) and len(found["edges"]) == 148
    assert (found["outline"].min(), found["outline"].max()) in {(low, high) for low in range(-127, 0) for high in range(1, 128)}


def test_the_similarity_is_the_cosine_of_centred_frames(view: View) -> None:
    found = arrays_of(view.utterances[0])
    state = hub.load(TINY)([clip().read(16000)]).hidden_states[2][0].detach().double().numpy()
    starts = np.arange(128) * len(state) // 128
    assert found["matrix_edges"] == pytest.approx(found["edges"][[*starts, len(state)]])
    means = np.array([part.mean(0) for part in np.split(state, starts[1:])])
    centred = means - means.mean(0)
    lengths = np.linalg.norm(centred, axis=1)
    wanted = centred @ centred.T / np.outer(lengths, lengths)
    assert found["matrices"].shape == (5, 128 * 129 // 2)
    assert found["matrices"][2] / 255 * 2 - 1 == pytest.approx(wanted[np.tril_indices(128)], abs=0.005)


def test_the_sound_is_that_of_the_file(view: View) -> None:
    kind, data = view.utterances[0].audio
    decoded, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
    wav = clip().read(16000).numpy()
    assert kind == "audio/ogg" and rate == 16000 and len(decoded) == len(wav) and len(data) < 20_000
    assert np.corrcoef(decoded, wav)[0, 1] > 0.95  # not even a sample late


def test_where_libsndfile_has_no_opus_the_sound_is_flac_and_else_wav(monkeypatch: pytest.MonkeyPatch) -> None:
    wav, write = clip().read(16000).numpy(), soundfile.write
    for missing, kind in ((("OGG",), "audio/flac"), (("OGG", "FLAC"), "audio/wav")):

        def without(file: Any, *args: Any, format: str, missing: Sequence[str] = missing, **options: Any) -> None:
            if format in missing:
                raise ValueError(f"Unknown format: {format}")
            write(file, *args, format=format, **options)

        monkeypatch.setattr(soundfile, "write", without)
        made, data = sound(wav, 16000)
        assert made == kind and soundfile.read(io.BytesIO(base64.b64decode(data)))[0] == pytest.approx(wav, abs=1e-4)


def test_the_slider_goes_through_what_the_upstream_declares_and_starts_at_its_own() -> None:
    upstream: Any = hub.load(OFA, lambd=0.3)
    shown = collect_view(ComputedFrames(upstream, [clip()], layers="last"), ["a"]).utterances[0]
    steps, spans = shown.panels
    assert (steps["kind"], spans["kind"], spans["first"]) == ("steps", "spans", 3)
    assert [row["label"] for row in spans["rows"]] == [f"λ = {step / 10:g}" for step in range(11)]
    edges = np.split(arrays_of(shown)["panel_1"], np.cumsum([row["frames"] + 1 for row in spans["rows"]])[:-1])
    for lambd, found in ((0.0, edges[0]), (0.7, edges[7])):
        times = upstream([clip().read(16000)], lambd=lambd).frame_times()[0].numpy()
        assert found == pytest.approx(np.append(times[:, 0], times[-1, 1]), abs=1e-5)
    assert shown.frames == spans["rows"][3]["frames"]


def test_units_are_runs_with_the_times_of_frames_or_their_own() -> None:
    frames = ComputedFrames(hub.load(TINY), [clip()], layers="0")
    times = frames.read("a").times
    per_frame = Units(np.repeat([7, 9, 7], [50, 50, 47]))
    runs = Units(np.array([7, 9, 7]), durations=np.array([50, 50, 47]))
    timed = Units(np.array([7, 9]), times=np.array([[0.0, 1.0], [1.0, 2.0]]))
    strips: dict[str, Any] = {str(i): lambda *_, one=one: one for i, one in enumerate((per_frame, runs, timed))}
    found = arrays_of(collect_view(frames, ["a"], units=strips | {"none": lambda *_: None}).utterances[0])
    middle = (times[49, 1] + times[50, 0]) / 2
    for place in (0, 1):
        assert found[f"units_{place}"].tolist() == [7, 9, 7]
        assert found[f"unit_edges_{place}"][[0, 1, 3]] == pytest.approx([0, middle, times[-1, 1]])
    assert found["unit_edges_2"].tolist() == [0, 1, 2] and "units_3" not in found


def test_a_folder_of_features_gives_the_same_layers_and_its_frames(tmp_path: Path) -> None:
    upstream = hub.load(OFA)
    extract([CLIP], upstream, tmp_path / "out")
    stored = collect_view(StoredFrames(tmp_path / "out", layers="0,4"), ["en_1"])
    computed = collect_view(ComputedFrames(upstream, [clip("en_1")], layers="0,4"), ["en_1"])
    one, other = (arrays_of(made.utterances[0]) for made in (stored, computed))
    assert stored.layers == computed.layers == ("input", "block_4") and stored.upstream == OFA
    for name in ("norms", "matrices", "edges", "mel"):
        assert one[name].astype(float) == pytest.approx(other[name].astype(float), abs=4.01), name
    assert [panel["kind"] for panel in stored.utterances[0].panels] == ["spans"]
    assert one["panel_0"] == pytest.approx(one["edges"])


def test_silence_the_shortest_input_and_a_broken_layer_are_shown(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(400), 16000)
    found = arrays_of(collect_view(ComputedFrames(hub.load(TINY), [clip("a", tmp_path / "a.wav")]), ["a"]).utterances[0])
    assert found["norms"].shape == (5, 1) and found["mel"].max() == 0

    class Broken(torch.nn.Module):
        sample_rate, layer_names, min_samples, receptive_field, card = 16000, ("x",), 1, 1, None

        def forward(self, wavs: Any, layers: Any) -> Any:
            out = hub.load(TINY)(wavs, layers=[1])
            out.hidden_states[0][0, 3] = torch.nan
            return out

    made = collect_view(ComputedFrames(Broken(), [clip()]), ["a"])  # type: ignore[arg-type]
    assert arrays_of(made.utterances[0])["norms"][0, 3] == 0
    assert "NaN" not in page_text(made)


# What is not ----------------------------------------------------------------------------------------------------------


def test_a_page_asks_for_nothing_and_runs_its_own_script_alone(view: View) -> None:
    text = page_text(view)
    assert "http:" not in text and "https:" not in text and "{{" not in text
    parts = Parts(text)
    assert not [attrs for tag, attrs in parts.tags if "src" in attrs or tag in ("iframe", "object", "embed", "base")]
    assert [attrs for tag, attrs in parts.tags if "href" in attrs] == [{"rel": "icon", "href": "data:,"}]
    assert not [name for _, attrs in parts.tags for name in attrs if name.startswith("on") or name == "style"]
    policy = next(str(a["content"]) for _, a in parts.tags if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    style, data, script = parts.texts
    assert rules["default-src"] == "'none'" and "connect-src" not in rules
    for rule, part in (("style-src", style), ("script-src", script)):
        assert rules[rule] == f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'"
    assert json.loads(data)["layers"] == list(view.layers)


def test_hostile_names_stay_text() -> None:
    frames = ComputedFrames(hub.load("fbank"), [clip(HOSTILE)])
    text = page_text(collect_view(frames, [HOSTILE], source=HOSTILE))
    assert text.count("<img") == 0 and "\u202e" not in text and "\x1b" not in text
    assert len(text.encode("utf-8")) > 1000  # no lone surrogate
    data = json.loads(Parts(text).texts[1])
    assert data["utterances"][0]["name"].startswith("</script><img src=x onerror=alert(1)>")


def test_every_element_that_the_script_finds_is_there() -> None:
    folder = Path(page_module.__file__).parent
    script = "".join((folder / name).read_text("utf-8") for name in ("draw.js", "page.js", "tracks.js"))
    there = set(re.findall(r'id="([\w-]+)"', (folder / "page.html").read_text("utf-8"))) | {"layer"}
    wanted = set(re.findall(r'find\("([\w-]+)"\)', script))
    assert len(wanted) > 10 and wanted <= there
    assert "innerHTML" not in script and "eval(" not in script
    for opening, closing in ("()", "[]", "{}"):
        assert script.count(opening) == script.count(closing)


# The command ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ten_utterances_are_far_below_3_megabytes(tmp_path: Path) -> None:
    result = call(SPEECH, "-u", OFA, "-o", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    assert "page.html: 10 utterances, 30.0 s of audio, 5 layers, " in result.output
    assert "note: small demonstration model" in result.output
    assert (tmp_path / "page.html").stat().st_size < 1_500_000


def names_of(page: Path) -> list[str]:
    return [one["name"] for one in json.loads(Parts(page.read_text("utf-8")).texts[1])["utterances"]]


def test_utterances_are_named_or_the_first_of_all(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    for arguments, names in (
        (["--count", 2], ["en_1", "en_2"]),
        (["it_2", "en_1"], ["it_2", "en_1"]),
    ):
        result = call(SPEECH, *arguments, "-u", "fbank", "-o", page)
        assert result.exit_code == 0 and "2 utterances of 10" in result.output, result.output
        assert names_of(page) == names
    assert call(CLIP, SPEECH / "it_1.flac", "-u", "fbank", "-o", page).exit_code == 0
    assert names_of(page) == ["en_1", "it_1"]


def test_features_with_units_and_audio_that_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old/en_1.flac").write_bytes(CLIP.read_bytes())
    extract([tmp_path / "old"], hub.load("fbank"), tmp_path / "out")
    (tmp_path / "old").rename(tmp_path / "new")
    (tmp_path / "units.txt").write_text(f"en_1{' 5' * 100}{' 12' * 193}\n")
    (tmp_path / "other.txt").write_text("en_1 5 5 12\n")
    page = tmp_path / "page.html"
    gone = call(tmp_path / "out", "-o", page)
    assert gone.exit_code == 2 and "en_1.flac does not exist" in gone.output and not page.exists()
    result = call(tmp_path / "out", "--corpus", tmp_path / "new", "--units", tmp_path / "units.txt", "-o", page)
    assert result.exit_code == 0, result.output
    assert json.loads(Parts(page.read_text("utf-8")).texts[1])["utterances"][0]["units"] == [{"label": "units.txt"}]
    wrong = call(tmp_path / "out", "--corpus", tmp_path / "new", "--units", tmp_path / "other.txt", "-o", page)
    assert wrong.exit_code == 2 and "en_1 has units of 3 frames and layers of 293." in wrong.output
    soundfile.write(tmp_path / "new/en_1.flac", np.zeros(16000), 16000)
    with pytest.raises(AudioError, match=r"has 1\.00 s; its features were made from 2\.95 s"):
        collect_view(StoredFrames(tmp_path / "out", corpus=find_utterances([tmp_path / "new"])), ["en_1"])


def test_a_codebook_makes_the_units_and_refuses_what_it_is_not_for(tmp_path: Path) -> None:
    model: Any = hub.load(TINY)
    codebook = Codebook(torch.randn(9, 96, generator=torch.Generator().manual_seed(0)), record_of(model, 3))
    codebook.save(tmp_path / "km.safetensors")
    extract([CLIP], model, tmp_path / "out")
    wanted = codebook(model([clip().read(16000)]))[0].numpy()
    page, units = tmp_path / "page.html", ["--units", tmp_path / "km.safetensors", "-o", tmp_path / "page.html"]
    for arguments in ([tmp_path / "out"], [CLIP, "-u", TINY, "--layers", "1,3"]):
        result = call(*arguments, *units)
        assert result.exit_code == 0, result.output
        (one,) = json.loads(Parts(page.read_text("utf-8")).texts[1])["utterances"]
        found = arrays_of(Shown(**one))
        assert found["units_0"].tolist() == wanted[np.flatnonzero(np.diff(wanted, prepend=-1))].tolist()
        page.unlink()
    for arguments, said in (
        ([CLIP, "-u", TINY, "--layers", "4"], "km.safetensors is for block_3, which is not among the layers of the page."),
        ([CLIP, "-u", OFA], "this codebook is of other features: checkpoint_sha256 is"),
        ([CLIP, "-u", "fbank"], "this codebook is of other features: layer is 3"),
    ):
        result = call(*arguments, *units)
        assert result.exit_code == 2 and said in result.output and not page.exists(), result.output


@pytest.mark.slow
def test_values_of_an_option_are_the_stops_of_the_slider(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = call(CLIP, "-u", OFA, "--layers", "4", "-O", "lambd=0.2", "-O", "lambd=1", "-o", page)
    assert result.exit_code == 0, result.output
    (one,) = json.loads(Parts(page.read_text("utf-8")).texts[1])["utterances"]
    assert [row["label"] for row in one["panels"][1]["rows"]] == ["λ = 0.2", "λ = 1"]
    call(CLIP, "-u", OFA, "--layers", "4", "-O", "lambd=0.2", "-o", page)
    (one,) = json.loads(Parts(page.read_text("utf-8")).texts[1])["utterances"]
    rows = one["panels"][1]["rows"]
    assert len(rows) == 11 and one["panels"][1]["first"] == 2 and rows[2]["frames"] == one["frames"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{clip}", "-o", "{tmp}/a.html"], "en_1.flac is no folder of `hubcore extract`. As audio it needs --upstream NAME."),
        (["{clip}", "-u", "fbank", "-o", "{tmp}/none/a.html"], "there is no folder"),
        (["{clip}", "-u", "fbank", "-o", "{tmp}"], "it is a folder"),
        (["{clip}", "en_2", "-u", "fbank", "-o", "{tmp}/a.html"], "no utterance is called 'en_2'. The nearest are en_1."),
        (["{clip}", "-u", "fbank", "--layers", "9", "-o", "{tmp}/a.html"], "there is no layer 9"),
        (["{clip}", "-u", "fbank", "--corpus", "x", "-o", "{tmp}/a.html"], "--corpus is for a folder of features."),
        (["{clip}", "-u", "fbank", "--units", "{tmp}/a.txt", "-o", "{tmp}/a.html"], "a.txt cannot be read as units"),
        (["{tmp}/none.wav", "-u", "fbank", "-o", "{tmp}/a.html"], "none.wav does not exist"),
        (["{clip}", "-u", "fbnk", "-o", "{tmp}/a.html"], "no upstream is called 'fbnk'"),
        (["{clip}", "-u", "fbank"], "Missing option '--out'"),
    ],
)
def test_what_cannot_be_shown_is_exit_code_2_and_leaves_nothing(arguments: Sequence[str], said: str, tmp_path: Path) -> None:
    result = call(*(argument.format(clip=CLIP, tmp=tmp_path) for argument in arguments))
    assert result.exit_code == 2 and said in result.output, result.output
    assert not [*tmp_path.iterdir()]
