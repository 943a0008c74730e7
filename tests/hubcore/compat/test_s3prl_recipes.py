"""What recipes of s3prl do to its models works on hubcore's: freezing, cutting, replacing parts, writing into outputs."""

from __future__ import annotations

import copy
import io
import pickle
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import hubcore
from hubcore.compat.s3prl import Featurizer, S3PRLUpstream, hub
from hubcore.errors import AudioError, OptionError
from hubcore_hubert import HubertUpstream
from hubcore_wav2vec2 import Wav2Vec2Upstream
from tests.paths import REPOSITORY

pytestmark = pytest.mark.slow

TINY, OFA = "wav2vec2_tiny_prompts", "ofa_wav2vec2_tiny_prompts"


def tiny(name: str = TINY) -> Any:
    return getattr(hub, name)()


class LowRank(nn.Module):
    """A linear layer with a low-rank addition, as LoRA's."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.down = nn.Linear(linear.in_features, 2, bias=False)
        self.up = nn.Linear(2, linear.out_features, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.linear(x) + self.up(self.down(x))
        return out


# Parts by fairseq's names ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [TINY, OFA])
def test_parts_have_fairseqs_names_too_and_are_the_real_ones(name: str) -> None:
    model = tiny(name).model
    assert model.feature_extractor.conv_layers is model.extractor.convs and model.post_extract_proj is model.projection
    assert model.layer_norm is model.feature_norm and model.encoder.layer_norm is model.encoder.norm
    block = model.encoder.layers[2]
    assert block is model.encoder.blocks[2] and block.self_attn is block.attention and block.fc2 is block.feed_forward.fc2
    assert (block.self_attn_layer_norm, block.final_layer_norm) == (block.attention_norm, block.feed_forward_norm)
    assert model.get_submodule("encoder.layers.2.self_attn.q_proj") is block.attention.q_proj
    assert model.state_dict().keys() == hubcore.hub.load(name).model.state_dict().keys()


def test_freezing_by_those_names_freezes_what_runs() -> None:
    upstream = S3PRLUpstream(TINY)
    upstream.upstream.model.feature_extractor.requires_grad_(False)
    for layer in upstream.upstream.model.encoder.layers[:2]:
        layer.self_attn.requires_grad_(False)
    upstream(torch.randn(1, 4000), [4000])[0][-1].square().sum().backward()
    still = {name for name, weight in upstream.upstream.model.named_parameters() if weight.grad is None}
    assert still == {
        name
        for name, _ in upstream.upstream.model.named_parameters()
        if name.startswith(("extractor.", "encoder.blocks.0.attention.", "encoder.blocks.1.attention."))
    }


@pytest.mark.parametrize("name", [TINY, OFA])
@pytest.mark.parametrize("how", ["slice", "delete", "own name"])
@torch.no_grad()
def test_a_model_that_was_cut_gives_the_layers_it_has(name: str, how: str) -> None:
    whole, upstream = tiny(name), S3PRLUpstream(name)
    model = upstream.upstream.model
    if how == "slice":
        model.encoder.layers = model.encoder.layers[:2]
    elif how == "delete":
        del model.encoder.layers[2:]
    else:
        model.encoder.blocks = model.encoder.blocks[:2]
    assert upstream.num_layers == 3 and upstream.upstream.layer_names == whole.layer_names[:3]
    assert upstream.hidden_sizes == [96] * 3 and len(Featurizer(upstream).layer_selections) == 3
    all_hs, _ = upstream(torch.ones(1, 4000), [4000])
    wanted = whole([torch.ones(4000)])["hidden_states"]
    assert len(all_hs) == 3 and all(torch.equal(ours, theirs) for ours, theirs in zip(all_hs, wanted, strict=False))
    assert len(hubcore.Featurizer(upstream.upstream).layers) == 3
    with pytest.raises(OptionError, match="has 3 hidden states"):
        upstream.upstream([torch.ones(4000)], layers=[4])


@torch.no_grad()
def test_a_default_layer_that_was_cut_away_is_named() -> None:
    model = tiny()
    model.default_layers = [4]
    model.model.encoder.layers = model.model.encoder.layers[:2]
    with pytest.raises(OptionError, match="layers has 4"):
        model([torch.ones(4000)])


def test_low_rank_layers_take_the_place_of_the_real_ones() -> None:
    upstream = tiny()
    upstream.model.requires_grad_(False)
    for layer in upstream.model.encoder.layers:
        layer.self_attn.q_proj = LowRank(layer.self_attn.q_proj)
        layer.fc1 = LowRank(layer.fc1)
    upstream([torch.randn(4000)])["last_hidden_state"].square().sum().backward()
    learning = [name for name, weight in upstream.named_parameters() if weight.grad is not None]
    assert len(learning) == 4 * 2 * 2 and all(name.endswith(("down.weight", "up.weight")) for name in learning)
    attention = nn.Module()
    upstream.model.encoder.layers[0].self_attn = attention
    assert upstream.model.encoder.blocks[0].attention is attention
    assert "self_attn" not in dict(upstream.model.encoder.blocks[0].named_children())


@torch.no_grad()
def test_copies_and_pickles_keep_the_names() -> None:
    model, buffer = tiny(), io.BytesIO()
    model.model.encoder.layers = model.model.encoder.layers[:3]
    torch.save(model, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(model), torch.load(buffer, weights_only=False)):
        encoder = other.model.encoder
        assert encoder.layers is encoder.blocks and encoder.layers is not model.model.encoder.blocks
        assert type(encoder).__name__ == "Encoder" and other([torch.ones(4000)])["hidden_state_3"] is not None


# Outputs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [TINY, OFA, "fbank"])
@torch.no_grad()
def test_an_output_is_a_dictionary(name: str) -> None:
    model, wavs = tiny(name), [torch.randn(8000), torch.randn(5000)]
    out = model(wavs)
    out["x"] = out["last_hidden_state"] * 2
    assert isinstance(out, dict) and "x" in out and {**out}.keys() == out.keys() and out.pop("x") is not None
    wanted = hubcore.hub.load(name)(wavs)
    assert set(out) == set(wanted) and torch.equal(out.lengths, wanted.lengths) and torch.equal(out.times, wanted.times)
    assert not isinstance(wanted, dict)
    features = hubcore.Featurizer(model)(wavs, out)
    assert [len(rows) for rows in features] == out.lengths.tolist()
    out["x"] = 1
    for other in (copy.deepcopy(out), pickle.loads(pickle.dumps(out))):
        assert type(other) is type(out) and other["x"] == 1 and torch.equal(other.lengths, out.lengths) and other != out


# Calls ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", ["real", "s3prl"])
@torch.no_grad()
def test_lengths_come_in_any_form_and_may_reach_beyond_the_tensor(frames: Any) -> None:
    model, wavs = S3PRLUpstream(TINY, frames=frames), torch.randn(2, 8000)
    wanted, wanted_lens = model(wavs, torch.tensor([8000, 4000]))
    for lengths in (
        torch.tensor([[8000], [4000]]),
        torch.tensor([8001, 4000]),
        torch.tensor([[8320], [4000]]),
        [torch.tensor(8000), torch.tensor(4000)],
        torch.tensor([8000, 4000], dtype=torch.int32).numpy(),
    ):
        got, got_lens = model(wavs, lengths)
        assert torch.equal(got[-1], wanted[-1]) and torch.equal(got_lens[0], wanted_lens[0])
    for unusable in (torch.tensor([8000.0, 4000.5]), [8000], "ab", [8000.0, 4000.0], torch.tensor([[8000, 4000, 1]])):
        with pytest.raises(AudioError, match="one whole number of samples for each of the 2 rows"):
            model(wavs, unusable)


@pytest.mark.parametrize("name", [TINY, "fbank", "mfcc"])
@torch.no_grad()
def test_tolist_gives_the_frames_that_there_are(name: str) -> None:
    model = tiny(name)
    featurizer = hubcore.Featurizer(model)
    wavs = [torch.randn(n) for n in (16000, 12345, 8000, 5001, 1000)]
    out = model(wavs)
    rows = featurizer.tolist(wavs, featurizer.padded(out)[0])
    assert [len(row) for row in rows] == out.lengths.tolist()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(rows, featurizer(wavs, out), strict=True))
    with pytest.raises(OptionError, match="tolist was given 1 waveform,"):
        featurizer.tolist(wavs[:1], featurizer.padded(out)[0])


def test_tolist_of_a_variable_rate_says_what_to_call() -> None:
    with pytest.raises(OptionError, match="fixed rate"):
        hubcore.Featurizer(tiny(OFA)).tolist([torch.zeros(8000)], torch.zeros(1, 24, 96))


def test_a_featurizer_takes_an_upstream_that_is_wrapped_for_parallel_training() -> None:
    assert hubcore.Featurizer(nn.DataParallel(tiny())).output_dim == 96  # type: ignore[arg-type]


def test_a_path_that_is_not_there_is_ignored_for_a_name_with_its_own_weights() -> None:
    with pytest.warns(UserWarning, match="ignored_path of 'wav2vec2_tiny_prompts' was ignored: it is not there"):
        assert S3PRLUpstream(TINY, "ignored_path").num_layers == 5
    with pytest.warns(UserWarning, match="the name has no weights"):
        assert S3PRLUpstream("fbank", __file__).hidden_sizes == [240]


def test_frames_are_those_of_the_environment_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBCORE_S3PRL_FRAMES", "s3prl")
    assert S3PRLUpstream("fbank").frames == "s3prl" and S3PRLUpstream("fbank", frames="real").frames == "real"
    assert S3PRLUpstream("fbank", extra_conf={"frames": "real"}).frames == "real"
    monkeypatch.setenv("HUBCORE_S3PRL_FRAMES", "nominal")
    with pytest.raises(OptionError, match=r"HUBCORE_S3PRL_FRAMES"):
        S3PRLUpstream("fbank")


def test_baseline_is_fbank_and_takes_s3prls_files(tmp_path: Path) -> None:
    assert S3PRLUpstream("baseline").hidden_sizes == [240] and hub.baseline(refresh=False).config == hub.fbank().config
    assert {"baseline", "baseline_local"} <= set(hub.options()) and "baseline" in hub.options(only_registered_ckpt=True)
    file = tmp_path / "own.yaml"
    file.write_text(
        "kaldi:\n  feat_type: fbank\n  fbank: {num_mel_bins: 40, frame_length: 25.0, frame_shift: 10.0, use_log_fbank: True}\n"
        "delta: {order: 1, win_length: 5}\ncmvn: {use_cmvn: False}\n"
    )
    model = hub.baseline_local(model_config=str(file))
    assert model.hidden_sizes == (80,) and not model.config.cmvn and model.config.frame_shift_ms == 10.0
    assert hub.baseline_local(str(file)).config == model.config == S3PRLUpstream("baseline_local", file).upstream.config
    file.write_text(
        "win_ms: 25\nhop_ms: 20\nn_freq: 201\nn_mels: 80\ninput: {feat_type: mel, channel: 0, log: True, cmvn: True}\n"
    )
    assert hub.baseline_local(str(file)).frame_stride == 320
    for text, message in (
        ("kaldi: {feat_type: fbank, fbank: {vtln_warp: 1.1}}", "sets vtln_warp"),
        ("input: {feat_type: wav}", "asks for 'wav' features"),
        ("[1, 2]", "no file of s3prl's baseline features"),
        ("kaldi: {feat_type: fbank, fbank: {num_mel_bins: many}}", "num_mel_bins"),
    ):
        file.write_text(text)
        with pytest.raises(OptionError, match=message):
            hub.baseline_local(str(file))
    with pytest.raises(OptionError, match="needs a file of settings"):
        hub.baseline_local()


# torch.hub ------------------------------------------------------------------------------------------------------------


def test_every_name_loads_through_torch_hub() -> None:
    model = torch.hub.load(str(REPOSITORY), TINY, source="local")
    assert type(model) is Wav2Vec2Upstream and model.get_downsample_rates("hidden_states") == 320
    assert torch.hub.load(str(REPOSITORY), "fbank", source="local", num_mel_bins=40).hidden_sizes == (120,)
    conf = runpy.run_path(str(REPOSITORY / "hubconf.py"))
    assert {TINY, "fbank", "wav2vec2_custom"} <= set(conf["__dir__"]())
    with pytest.raises(RuntimeError, match="Cannot find callable wav2vec3"):
        torch.hub.load(str(REPOSITORY), "wav2vec3", source="local")


def test_other_families_of_the_same_encoder_have_the_names_too() -> None:
    from hubcore.compat.s3prl.aliases import add_aliases

    model = HubertUpstream.from_config(dim=32, num_layers=2, num_heads=2, ffn_dim=32)
    add_aliases(model)
    assert model.model.encoder.layers[1].self_attn is model.model.encoder.blocks[1].attention  # type: ignore[operator]
