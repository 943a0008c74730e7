"""The hub's verbs, names and messages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import hubcore
from hubcore import Featurizer, hub, loading
from hubcore.errors import (
    CheckpointError,
    DownloadError,
    OfflineError,
    OptionError,
    UnknownUpstreamError,
)
from hubcore_wav2vec2 import Wav2Vec2Upstream
from tests.gold import gold_file, gold_wavs
from tests.paths import REPOSITORY


def run_python(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_public_surface_is_what_it_says() -> None:
    assert sorted(hubcore.__all__) == dir(hubcore)[: len(hubcore.__all__)] or set(hubcore.__all__) < set(dir(hubcore))
    for name in hubcore.__all__:
        assert getattr(hubcore, name).__doc__, f"{name} has no docstring"
    with pytest.raises(AttributeError, match="it has Card, Featurizer"):
        hubcore.no_such_name  # noqa: B018


def test_info_imports_no_torch_and_points_at_the_class() -> None:
    script = (
        "import sys; from hubcore import hub; info = hub.info('wav2vec2'); print('torch' in sys.modules, info.file, info.line)"
    )
    imported, file, line = run_python(script).split()
    assert imported == "False"
    assert Path(file).read_text().splitlines()[int(line) - 1].startswith("class Wav2Vec2Upstream(")


def test_info_prints_a_whole_card() -> None:
    text = str(hub.info("wav2vec2"))
    for part in (
        "Wav2Vec2Upstream",
        "upstream.py:",
        "wav2vec_small.pt",
        "c66c39eaed1b",
        "MIT",
        "arxiv.org",
        "dim=768",
        "hubcore fetch",
    ):
        assert part in text, part
    assert hub.info("wav2vec2").to_dict()["card"]["sources"][1]["size"] == 950500491


def test_a_misspelt_name_gets_the_nearest_ones() -> None:
    with pytest.raises(UnknownUpstreamError, match="wav2vec2_base_960") as caught:
        hub.load("wav2vec2_bse")
    assert caught.value.nearest[0] == "wav2vec2_base_960"
    with pytest.raises(UnknownUpstreamError, match="wav2vec2_base_960"):
        hub.wav2vec2_bse()
    assert not hasattr(hub, "wav2vec2_bse")


def test_names_are_attributes_as_in_s3prl() -> None:
    assert type(hub.fbank()).__name__ == "FbankUpstream"
    model = getattr(hub, "wav2vec2")(checkpoint=gold_file("fairseq_tiny_w2v2_ctc.pt"))  # noqa: B009
    assert type(model).__name__ == "Wav2Vec2Upstream"
    assert "fbank" in dir(hub)


def test_the_seeds_calls_run_as_written() -> None:
    wav, device = gold_wavs()[0], "cpu"
    model = hub.load("wav2vec2_tiny_prompts")
    featurizer = Featurizer(upstream=model, feature_selection="hidden_states", upstream_device=device, layer_selection=None)
    feature = featurizer([wav], model([wav]))
    assert [tuple(f.shape) for f in feature] == [(34, 96)]


def test_a_loaded_upstream_knows_its_origin_and_is_in_eval_mode() -> None:
    model = hub.load("wav2vec2_tiny_prompts")
    assert model.card.name == "wav2vec2_tiny_prompts"
    assert model.card.file.endswith("registry.yaml")
    assert not model.training
    own = hub.load("wav2vec2", checkpoint=gold_file("fairseq_tiny_w2v2_ctc.pt"))
    assert own.card is None  # the weights are the caller's, not those of the card


def test_unknown_options_are_errors_with_a_hint() -> None:
    with pytest.raises(OptionError, match="num_mel_bins"):
        hub.load("fbank", num_mel_bin=40)
    with pytest.raises(OptionError, match="no option called 'layer'"):
        hub.load("wav2vec2_tiny_prompts", layer=3)


def test_an_unknown_option_is_found_before_anything_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "fetch", lambda found: pytest.fail("something was fetched"))
    with pytest.raises(OptionError, match=r"Wav2Vec2Upstream has no option called 'dropuot'.*dropout"):
        hub.load("wav2vec2_base_960", dropuot=0.1)
    with pytest.raises(OptionError, match=r"Wav2Vec2Upstream has no option called 'dropuot'.*dropout"):
        hub.load("wav2vec2", checkpoint="https://example.org/a.pt", dropuot=0.1)
    with pytest.raises(OptionError, match=r"Wav2Vec2Upstream has no option called 'dropuot'.*dropout"):
        Wav2Vec2Upstream.from_checkpoint("wav2vec2_base_960", dropuot=0.1)
    with pytest.raises(OptionError, match=r"dtype is torch\.int32.*floating-point"):
        hub.load("wav2vec2_base_960", dtype=torch.int32)
    with pytest.raises(OptionError, match=r"the device 'nowhere' cannot be used here: .*nowhere\. Use another"):
        hub.load("wav2vec2_base_960", device="nowhere")


@pytest.mark.parametrize("layers", [[99], [-14], "block_1", []])
def test_layers_are_checked_before_anything_is_fetched(layers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubcore.loading.fetch", lambda found: pytest.fail("it was fetched"))
    with pytest.raises(OptionError, match="layers"):
        hub.load("wav2vec2_base_960", layers=layers)


def test_a_family_without_weights_says_which_names_there_are() -> None:
    assert {"whisper_tiny", "whisper_large_v3"} < {*hub.info("whisper").names} and "names" in str(hub.info("whisper"))
    with pytest.raises(OptionError, match=r"checkpoint=, or -c on the command line\), .*`hubcore list --family whisper`"):
        hub.load("whisper")


def test_a_train_that_is_no_truth_value_is_an_error() -> None:
    with pytest.raises(OptionError, match=r"train is 'no'\. It must be True or False"):
        hub.load("wav2vec2_tiny_prompts", train="no")  # type: ignore[arg-type]


@pytest.mark.parametrize("checkpoint", [5, b"model.pt", ["model.pt"]])
def test_a_checkpoint_that_is_neither_text_nor_a_path_is_an_error(checkpoint: Any) -> None:
    for load in (lambda: hub.load("wav2vec2", checkpoint=checkpoint), lambda: Wav2Vec2Upstream.from_checkpoint(checkpoint)):
        with pytest.raises(CheckpointError, match="It must be a path, an address or a registered name"):
            load()


@pytest.mark.parametrize("load", [hub.load, Wav2Vec2Upstream.from_checkpoint], ids=["hub.load", "from_checkpoint"])
def test_device_and_dtype_hold_from_the_start(load: Callable[..., Any]) -> None:
    model = load("wav2vec2_tiny_prompts", device="cpu", dtype=torch.float16)
    assert {weight.dtype for weight in model.parameters()} == {torch.float16} and not model.training
    assert model.card.name == "wav2vec2_tiny_prompts"
    assert next(hub.load("wav2vec2_tiny_prompts", device="meta").parameters()).device.type == "meta"


def test_a_loader_that_knows_device_and_dtype_gets_them() -> None:
    class Knowing(Wav2Vec2Upstream):
        @classmethod
        def from_file(cls, path: Any, *, config: Any = None, device: Any = None, dtype: Any = None) -> Any:
            upstream = cls.from_config("tiny")
            upstream.given = (device, dtype)
            return upstream

    model: Any = Knowing.from_checkpoint("wav2vec2_tiny_prompts", device="cpu", dtype=torch.bfloat16)
    assert model.given == ("cpu", torch.bfloat16) and model.model.feature_norm.weight.dtype == torch.float32


def test_a_name_of_another_type_is_an_error_with_an_example() -> None:
    with pytest.raises(OptionError, match=r"^hub\.load\(\) takes a name \(str\), got int\. Example: hub\.load\('fbank'\)\.$"):
        hub.load(5)  # type: ignore[arg-type]


@pytest.mark.parametrize("source", ["nowhere.pt", "./nowhere", "no/such/file", "", "a\0b"])
def test_a_path_that_is_not_there(source: str) -> None:
    with pytest.raises(CheckpointError):
        hub.load("wav2vec2", checkpoint=source)


def test_a_path_given_as_a_name_explains_itself() -> None:
    with pytest.raises(CheckpointError, match=r"checkpoint='my/model\.pt'"):
        hub.load("my/model.pt")


def test_weights_that_do_not_fit_their_card_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        f"version: 1\nupstreams:\n  wrong:\n    upstream: wav2vec2\n    config: base\n    license: unknown\n"
        f"    sources:\n      - uri: {gold_file('fairseq_tiny_w2v2_ctc.pt')}\n"
    )
    monkeypatch.setenv("HUBCORE_REGISTRY", str(tmp_path / "r.yaml"))
    with pytest.raises(CheckpointError, match=r"not of the config that was asked for: .*dim must be 768, but is 48"):
        hub.load("wrong")


def test_offline_and_not_cached_names_file_and_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBCORE_OFFLINE", "1")
    with pytest.raises(OfflineError, match=r"wav2vec_small\.pt[\s\S]*hubcore fetch wav2vec2_base_960"):
        hub.load("wav2vec2_base_960")


def test_a_card_passes_its_config_to_a_file_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = hub.load("wav2vec2_tiny_prompts")
    torch.save(model.state_dict(), tmp_path / "bare.pt")
    (tmp_path / "r.yaml").write_text(
        "version: 1\nupstreams:\n  bare: {upstream: wav2vec2, config: tiny, license: x, sources: [{uri: bare.pt}]}\n"
    )
    monkeypatch.setenv("HUBCORE_REGISTRY", str(tmp_path / "r.yaml"))
    assert hub.load("bare").config == model.config
    assert hub.info("bare").cached == str(tmp_path / "bare.pt")
    assert hub.fetch("bare") == tmp_path / "bare.pt"


def test_options_may_name_another_config() -> None:
    assert hub.load("fbank", config="mfcc").hidden_sizes == (39,)
    with pytest.raises(OptionError, match="must be a Wav2Vec2Config"):
        type(hub.load("wav2vec2_tiny_prompts"))("tiny")


def test_a_card_that_forgot_its_sources_never_gives_random_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "r.yaml").write_text("version: 1\nupstreams:\n  mine: {upstream: wav2vec2, config: tiny, license: unknown}\n")
    monkeypatch.setenv("HUBCORE_REGISTRY", str(tmp_path / "r.yaml"))
    with pytest.raises(OptionError, match=r"names no sources(.|\n)*add sources to it \(.*r\.yaml, line 3\)"):
        hub.load("mine")


def test_a_file_added_later_is_found_after_a_refresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert "late" not in hub.list()
    (tmp_path / "hubcore").mkdir()
    (tmp_path / "hubcore/late.yaml").write_text("version: 1\nupstreams:\n  late: {upstream: fbank, license: none needed}\n")
    hub.refresh()
    assert "late" in hub.list()


def test_fetch_gives_the_file() -> None:
    assert hub.fetch("fbank") is None
    path = hub.fetch("wav2vec2_tiny_prompts")
    assert path is not None
    assert path.is_file()
    with pytest.raises(DownloadError, match="nothing here can fetch"):
        hub.fetch("s3://bucket/file")


@pytest.mark.slow
def test_the_first_party_classes_work_without_the_hub() -> None:
    script = """
import sys
from hubcore_wav2vec2 import CONFIGS, Wav2Vec2Upstream
class Mine(Wav2Vec2Upstream):
    pass
print(type(Mine(CONFIGS["tiny"])).__name__, "hubcore.hub" in sys.modules)
"""
    assert run_python(script) == "Mine False"


def test_two_loads_are_independent() -> None:
    a, b = hub.load("wav2vec2_tiny_prompts"), hub.load("wav2vec2_tiny_prompts")
    with torch.no_grad():
        a.model.feature_norm.weight.zero_()
    assert b.model.feature_norm.weight.abs().sum() > 0


# Everyday use ---------------------------------------------------------------------------------------------------------


def test_names_are_listed_by_pattern() -> None:
    assert hub.list("xls_r_*b") == ["xls_r_1b", "xls_r_2b"]
    assert "wav2vec2" in hub.list("wav2vec2*") and hub.list("nothing*") == [] and hub.list("*") == hub.list()


@pytest.mark.parametrize(
    ("call", "nearest"),
    [
        (lambda: hub.load("fbank")([torch.zeros(16000)], layer=[0]), "layers"),
        (lambda: hub.load("fbank")([torch.zeros(16000)], length=None), "lengths"),
        (lambda: hub.load("ofa_wav2vec2_tiny_prompts")([torch.zeros(16000)], lamdb=0.5), "lambd"),
        (lambda: hub.load("fbank", layer=[0]), "layers"),
        (lambda: hub.load("wav2vec2_tiny_prompts", divice="cpu"), "device"),
        (lambda: hub.load("wav2vec2_tiny_prompts", checkpoit="x.pt"), "checkpoint"),
    ],
)
def test_a_misspelt_option_of_a_call_or_of_loading_names_the_nearest(call: Callable[[], object], nearest: str) -> None:
    with pytest.raises(OptionError, match=rf"no option called '\w+'. The nearest are {nearest}\b"):
        call()


def test_an_upstream_is_loaded_in_train_mode_when_asked() -> None:
    wav = [torch.randn(16000)]
    model = hub.load("wav2vec2_tiny_prompts", train=True, dropout=0.5)
    assert model.training and not hub.load("wav2vec2_tiny_prompts").training
    assert not torch.equal(model(wav).last_hidden_state, model(wav).last_hidden_state), "dropout is on"
    assert hub.load("fbank", train=True).training


def test_an_output_moves_and_loses_its_padding() -> None:
    model = hub.load("ofa_wav2vec2_tiny_prompts")
    wavs = [torch.randn(16000), torch.randn(8000)]
    out = model(wavs, layers=[0, -1])
    moved = out.to("cpu", torch.float64)
    assert {state.dtype for state in moved.hidden_states} == {torch.float64}
    assert (moved.lengths.dtype, moved.layers, moved.extras.keys()) == (torch.int64, out.layers, out.extras.keys())
    assert out.to("meta").lengths.device.type == out.to("meta").frame_times().device.type == "meta"
    assert all(value.device.type == "meta" for value in out.to("meta").extras.values() if isinstance(value, torch.Tensor))
    for item, states in enumerate(out.unpad()):
        assert len(states) == 2 and {len(state) for state in states} == {int(out.lengths[item])}
        assert torch.equal(states[1], out.hidden_states[1][item, : len(states[1])])
