"""Options in a card: defaults of load and of `forward`, overridden by the caller, and errors that name card, file and line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hubcore import Featurizer, UpstreamBase, hub
from hubcore.errors import OptionError
from hubcore.extract import extract
from hubcore.registry.names import current_registry
from hubcore.testing import check_upstream
from hubcore.tools.verify import verify_entry
from tests.conftest import Installer
from tests.paths import SPEECH
from tests.running import command

pytestmark = pytest.mark.slow

WAVS = [torch.linspace(-0.1, 0.1, 8000).sin(), torch.linspace(0, 40, 4000).sin() * 0.1]
SOURCES = {"wav2vec2": "wav2vec2_tiny_prompts", "ofa_wav2vec2": "ofa_wav2vec2_tiny_prompts"}
Write = Callable[..., Path]
PARTS = """\
    sample_rate, num_layers, layer_names, hidden_sizes, card = 16000, 0, ("a",), (1,), None
    frame_stride = receptive_field = min_samples = 160

    def forward(self, wavs, lengths=None, *, layers=None):
        raise RuntimeError("only its parts are looked at")

    __call__ = forward

"""
"""What `hub.load` asks of a class that inherits nothing."""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Puts one card `mine` into a file that hubcore reads."""

    def run(family: str, options: str, config: str = "tiny") -> Path:
        path = tmp_path / "mine.yaml"
        uri = hub.info(SOURCES[family]).card.sources[0].uri if family in SOURCES else None
        sources = f"    sources: [{{uri: '{uri}'}}]\n" if uri else ""
        path.write_text(
            f"version: 1\nupstreams:\n  mine:\n    upstream: {family}\n    config: {config}\n{sources}    license: unknown\n"
            f"    options:\n{options}"
        )
        monkeypatch.setenv("HUBCORE_REGISTRY", str(path))
        hub.refresh()
        return path

    return run


@pytest.mark.parametrize(
    ("family", "config", "count"), [("wav2vec2", "tiny", 5), ("ofa_wav2vec2", "tiny", 5)], ids=["wav2vec2", "ofa_wav2vec2"]
)
def test_layers_of_a_card_are_what_a_call_returns_by_default(write: Write, family: str, config: str, count: int) -> None:
    write(family, "      layers: [4, -4]\n", config)
    model: Any = hub.load("mine")
    plain = hub.load(SOURCES[family])
    assert model.default_layers == (4, 1) and model.options["layers"] == [4, 1]
    assert model.layer_names == plain.layer_names and len(model.hidden_sizes) == model.num_layers + 1 == count
    with torch.no_grad():
        out, whole, one = model(WAVS), plain(WAVS), model(WAVS, layers=[0])
    assert out.layers == (4, 1) and out.layer_names == ("block_4", "block_1")
    assert all(torch.equal(out.hidden_states[i], whole.hidden_states[k]) for i, k in enumerate((4, 1)))
    assert one.layers == (0,) and torch.equal(one.hidden_states[0], whole.hidden_states[0])
    assert type(model) is type(plain)


def test_layers_of_a_fbank_card(write: Write) -> None:
    write("fbank", "      layers: [-1]\n      num_mel_bins: 40\n", "fbank")
    model: Any = hub.load("mine")
    assert (model.default_layers, model.hidden_sizes) == ((0,), (120,))
    assert model(WAVS).layers == (0,)


def test_the_caller_wins_over_the_card(write: Write) -> None:
    write("ofa_wav2vec2", "      layers: [4]\n      lambd: 0.7\n      tail: keep\n")
    model: Any = hub.load("mine")
    assert model.options == {"layers": [4], "lambd": 0.7, "frame_period_ms": None, "tail": "keep"}
    other: Any = hub.load("mine", layers=None, lambd=0.0)
    assert other.default_layers is None and other.options == {"lambd": 0.0, "frame_period_ms": None, "tail": "keep"}
    assert len(other(WAVS).hidden_states) == 5
    period: Any = hub.load("mine", lambd=None, frame_period_ms=40)
    assert period.options["frame_period_ms"] == 40 and period.options["lambd"] is None


@pytest.mark.parametrize("family", ["wav2vec2", "ofa_wav2vec2", "fbank"])
@pytest.mark.slow
def test_the_conformance_kit_passes_for_such_a_card(write: Write, family: str) -> None:
    options = {"fbank": "      layers: [0]\n", "wav2vec2": "      layers: [1, 3]\n"}
    write(family, options.get(family, "      layers: [1, 3]\n      lambd: 0.3\n"), "fbank" if family == "fbank" else "tiny")
    model: Any = hub.load("mine")
    before = model.default_layers
    blind = "softmax is blind to a constant added to all keys' scores, with or without default layers"
    exempt = {} if family == "fbank" else {"gradients_nonzero:*.k_proj.bias": blind}
    check_upstream(model, exempt=exempt).raise_failures()
    assert model.default_layers == before
    assert verify_entry(current_registry().find("mine")).problems == []


def test_a_featurizer_sums_the_default_layers(write: Write) -> None:
    write("wav2vec2", "      layers: [3, 1]\n")
    model: Any = hub.load("mine")
    out = model(WAVS)
    assert Featurizer(model).layers == (3, 1)
    assert Featurizer(model, layer_selection=[1]).layers == (1,)
    assert Featurizer(model, "last_hidden_state").layers == (3,)
    (first, _) = Featurizer(model)(WAVS, out)
    assert torch.allclose(first, (out.hidden_states[0] + out.hidden_states[1])[0, : len(first)] / 2)
    model.default_layers = None
    assert Featurizer(model).layers == (0, 1, 2, 3, 4)


def test_an_extraction_writes_the_default_layers_and_records_them_once(write: Write, tmp_path: Path) -> None:
    write("wav2vec2", "      layers: [3, 1]\n")
    clip = sorted(SPEECH.glob("*.flac"))[0]
    assert command("extract", str(clip), "-u", "mine", "-o", str(tmp_path / "a")).exit_code == 0
    row = json.loads((tmp_path / "a/manifest.jsonl").read_text().splitlines()[0])
    assert row["layers"] == [3, 1] and row["shape"][0] == 2 and row["options"] == {}
    for layers, written in ((None, [3, 1]), ("all", [0, 1, 2, 3, 4])):
        (row,) = extract([clip], hub.load("mine"), tmp_path / str(layers), layers=layers).rows
        assert row["layers"] == written


def test_info_shows_the_options(write: Write) -> None:
    write("wav2vec2", "      layers: [3, 1]\n      dropout: 0.2\n")
    assert "options       layers=[3, 1], dropout=0.2\n" in str(hub.info("mine"))


@pytest.mark.parametrize(
    ("family", "option", "nearest"),
    [
        ("wav2vec2", "layer: [4]", "layers"),
        ("ofa_wav2vec2", "lamdb: 0.7", "lambd"),
        ("fbank", "num_mel_bin: 40", "num_mel_bins"),
    ],
)
def test_a_misspelt_option_names_card_file_line_and_the_nearest(write: Write, family: str, option: str, nearest: str) -> None:
    path = write(family, f"      {'layers: [0]'}\n      {option}\n", "fbank" if family == "fbank" else "tiny")
    line = path.read_text().splitlines().index(f"      {option}") + 1
    with pytest.raises(OptionError) as caught:
        hub.load("mine")
    message = str(caught.value)
    name = option.partition(":")[0]
    assert f"no option called {name!r}" in message
    assert re.search(rf"The card 'mine' sets {name}=.* \({re.escape(str(path))}, line {line}\)\. Correct the card", message)
    assert "layers=" not in message
    assert re.search(rf"The nearest are {nearest}\b", message)


@pytest.mark.parametrize(
    ("family", "option", "what"),
    [
        ("wav2vec2", "layers: [9]", "layers has 9"),
        ("wav2vec2", "layers: 4", "layers is 4"),
        ("wav2vec2", "dropout: 2", "dropout must be a number from 0 to below 1, but is 2"),
        ("ofa_wav2vec2", "tail: both", "tail is 'both'"),
        ("fbank", "num_mel_bins: 0", "num_mel_bins must be a whole number from 1 to 65,536, but is 0"),
    ],
)
def test_an_impossible_value_names_the_card_and_its_line(write: Write, family: str, option: str, what: str) -> None:
    path = write(family, f"      {option}\n", "fbank" if family == "fbank" else "tiny")
    line = path.read_text().splitlines().index(f"      {option}") + 1
    with pytest.raises(OptionError, match=re.escape(what)) as caught:
        hub.load("mine")
    name = option.partition(":")[0]
    assert re.search(rf"The card 'mine' sets {name}=.* \({re.escape(str(path))}, line {line}\)", str(caught.value))


def test_a_wrong_option_of_the_caller_does_not_blame_the_card(write: Write) -> None:
    write("wav2vec2", "      layers: [4]\n")
    with pytest.raises(OptionError) as caught:
        hub.load("mine", layers=[9])
    assert "card" not in str(caught.value)
    write("fbank", "      num_mel_bins: 40\n", "fbank")
    with pytest.raises(OptionError, match="num_mel_bins must be a whole number from 1 to 65,536, but is 0") as caught:
        hub.load("mine", num_mel_bins=0)
    assert "card" not in str(caught.value)


def test_a_family_with_an_option_called_layers_gets_it_itself(install: Installer) -> None:
    code = (
        "import dataclasses\nfrom hubcore import UpstreamBase\n"
        "@dataclasses.dataclass(frozen=True)\nclass Config:\n    layers: int = 2\n"
        "CONFIGS = {'base': Config()}\n"
        "class OwnUpstream(UpstreamBase):\n    config_class = Config\n    configs = CONFIGS\n"
        "    def __init__(self, config):\n"
        "        super().__init__(layer_names=['a'] * config.layers, hidden_sizes=[1] * config.layers, frame_stride=1,\n"
        "                         receptive_field=1)\n"
    )
    install(
        "own",
        entry_points="[hubcore.upstreams]\nown = own_mod:OwnUpstream\n[hubcore.registries]\nown = own_cards:r.yaml\n",
        files={
            "own_mod.py": code,
            "own_cards/__init__.py": "",
            "own_cards/r.yaml": "version: 1\nupstreams:\n  deep: {upstream: own, license: x, options: {layers: 3}}\n",
        },
    )
    model: Any = hub.load("deep")
    assert len(model.layer_names) == 3 and model.default_layers is None


def test_a_class_that_takes_anything_is_asked_itself(install: Installer) -> None:
    code = f"class W:\n{PARTS}    def __init__(self, **options):\n        self.options = options\n"
    cards = "version: 1\nupstreams:\n  w: {upstream: wide, license: x, options: {anything: 1}}\n"
    install(
        "wide",
        entry_points="[hubcore.upstreams]\nwide = wide_mod:W\n[hubcore.registries]\nwide = wide_cards:r.yaml\n",
        files={"wide_mod.py": code, "wide_cards/__init__.py": "", "wide_cards/r.yaml": cards},
    )
    assert hub.load("w").options == {"anything": 1}


def test_a_class_of_its_own_kind_is_checked_by_its_signature(install: Installer) -> None:
    code = f"class N:\n{PARTS}    def __init__(self, width=1):\n        self.width = width\n"
    cards = (
        "version: 1\nupstreams:\n  n: {upstream: narrow, license: x, options: {width: 3}}\n"
        "  m: {upstream: narrow, license: x, options: {widht: 3}}\n"
    )
    install(
        "narrow",
        entry_points="[hubcore.upstreams]\nnarrow = narrow_mod:N\n[hubcore.registries]\nnarrow = narrow_cards:r.yaml\n",
        files={"narrow_mod.py": code, "narrow_cards/__init__.py": "", "narrow_cards/r.yaml": cards},
    )
    loaded: Any = hub.load("n")
    assert loaded.width == 3
    with pytest.raises(
        OptionError, match=r"N has no option called 'widht'.*nearest are width.*The card 'm' sets widht=3 .*line 4"
    ):
        hub.load("m")


@pytest.mark.parametrize("how", ["from_config", "from_checkpoint", "from_file"])
def test_a_subclass_gets_its_own_type(how: str) -> None:
    from hubcore_ofa_wav2vec2 import OfaWav2Vec2Upstream
    from hubcore_wav2vec2 import Wav2Vec2Upstream

    for base, name in ((Wav2Vec2Upstream, "wav2vec2_tiny_prompts"), (OfaWav2Vec2Upstream, "ofa_wav2vec2_tiny_prompts")):
        child: type[UpstreamBase] = type("Child", (base,), {})
        argument = {"from_config": "tiny", "from_checkpoint": name, "from_file": str(hub.fetch(name))}[how]
        assert type(getattr(child, how)(argument)) is child
