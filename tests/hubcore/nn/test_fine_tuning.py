"""Fine-tuning by `EncoderUpstream`: layer groups, a frozen extractor, gradient checkpointing, versions of state dicts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from hubcore import hub
from hubcore.errors import CheckpointLayoutError, OptionError
from hubcore.nn import EncoderUpstream, SpeechEncoderConfig, build_speech_encoder
from hubcore.options import option_names
from hubcore_cpc import CpcUpstream
from hubcore_fbank import FbankUpstream
from tests.hubcore.nn.test_speech_encoder import PaddedConfig, PaddedUpstream

CONFIG = SpeechEncoderConfig(conv_layers=((8, 10, 5), (8, 8, 8)), dim=16, num_heads=2, num_layers=3, ffn_dim=32, dropout=0.2)


class TrainedUpstream(EncoderUpstream):
    config_class = SpeechEncoderConfig
    build_model = staticmethod(build_speech_encoder)


@pytest.mark.parametrize(("pre_norm", "last"), [(True, "output"), (False, "block_3")])
def test_layer_groups_hold_every_parameter_once_from_input_to_output(pre_norm: bool, last: str) -> None:
    upstream = TrainedUpstream(replace(CONFIG, pre_norm=pre_norm))
    upstream.head = nn.Linear(16, 4)
    groups = upstream.layer_groups()
    names = {id(parameter): name for name, parameter in upstream.named_parameters()}
    found = [(group["name"], names[id(parameter)]) for group in groups for parameter in group["params"]]
    assert sorted(name for _, name in found) == sorted(names.values())
    where = {name: group for group, name in found}
    assert where["model.encoder.blocks.1.attention.q_proj.weight"] == "block_2"
    assert where["model.extractor.convs.0.weight"] == where["model.encoder.pos_conv.bias"] == where["head.bias"] == "input"
    assert where["model.encoder.norm.weight"] == ("output" if pre_norm else "input")
    assert [group["name"] for group in groups][1:4] == ["block_1", "block_2", "block_3"] and groups[-1]["name"] == last
    torch.optim.SGD([{**group, "lr": 0.1 * 0.9**depth} for depth, group in enumerate(reversed(groups))])


def test_a_parameter_that_blocks_share_belongs_to_the_first() -> None:
    upstream = TrainedUpstream(CONFIG)
    upstream.blocks[2].attention_norm = upstream.blocks[1].attention_norm
    by_name = {group["name"]: [*map(id, group["params"])] for group in upstream.layer_groups()}
    shared = id(upstream.blocks[1].attention_norm.weight)
    assert shared in by_name["block_2"] and shared not in by_name["block_3"]


def test_gradient_checkpointing_keeps_less_and_gives_equal_gradients_with_dropout() -> None:
    upstream = TrainedUpstream(CONFIG).train()
    wavs = [torch.randn(800), torch.randn(400)]

    def step(checkpointing: bool) -> tuple[int, list[Tensor]]:
        upstream.gradient_checkpointing = checkpointing
        upstream.zero_grad()
        torch.manual_seed(3)
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor
        ):
            loss = upstream(wavs).last_hidden_state.square().mean()
        torch.autograd.backward(loss)
        return sum(kept), [parameter.grad.clone() for parameter in upstream.parameters()]

    (much, plain), (little, saved) = step(False), step(True)
    assert little < much / 2
    assert all(map(torch.equal, plain, saved)) and any(gradient.any() for gradient in plain)


def test_gradient_checkpointing_is_an_option_at_load_and_only_for_models_with_blocks() -> None:
    model = hub.load("wav2vec2_tiny_prompts", train=True, gradient_checkpointing=True)
    assert model.gradient_checkpointing and not hub.load("wav2vec2_tiny_prompts").gradient_checkpointing
    ran: list[int] = []
    model.blocks[0].register_forward_pre_hook(lambda *_: ran.append(0))
    wav = torch.randn(4000)
    torch.autograd.backward(model([wav]).last_hidden_state.sum())
    assert len(ran) == 2
    torch.autograd.backward(model.eval()([wav]).last_hidden_state.sum())
    assert len(ran) == 3  # in eval mode nothing runs twice
    without = PaddedUpstream(PaddedConfig())
    assert not without.gradient_checkpointing and without.layer_groups() == []
    for refused in (
        lambda: setattr(without, "gradient_checkpointing", True),
        lambda: setattr(model, "gradient_checkpointing", "yes"),
        lambda: setattr(without, "gradient_checkpointing", False),
        lambda: hub.load("fbank", gradient_checkpointing=False),
        without.freeze_extractor,
    ):
        with pytest.raises(OptionError):
            refused()
    takes = [cls for cls in (FbankUpstream, CpcUpstream, type(model)) if "gradient_checkpointing" in (option_names(cls) or ())]
    assert takes == [type(model)]


def test_a_plain_list_of_blocks_runs_too_but_has_no_gradient_checkpointing() -> None:
    upstream = TrainedUpstream(CONFIG).eval()
    wav = torch.randn(800)
    expected = upstream([wav]).hidden_states
    upstream.model.encoder.blocks = nn.ModuleList([*upstream.blocks][:2])
    assert all(map(torch.equal, upstream([wav]).hidden_states, expected[:3]))
    with pytest.raises(OptionError, match="no blocks that gradient checkpointing works on"):
        upstream.gradient_checkpointing = True


def test_a_frozen_extractor_is_outside_the_graph() -> None:
    upstream = TrainedUpstream(CONFIG).train()
    assert upstream.freeze_extractor() is upstream
    features, _ = upstream.model.convolve([torch.randn(800)])
    assert not features.requires_grad
    torch.autograd.backward(upstream([torch.randn(800)]).last_hidden_state.square().sum())
    learning = {name for name, parameter in upstream.named_parameters() if parameter.grad is not None}
    assert learning == {name for name, _ in upstream.named_parameters() if not name.startswith("model.extractor.")}


def test_a_state_dict_of_another_layout_is_refused_and_says_what_to_do() -> None:
    class Renamed(TrainedUpstream):
        _version = 2

    state = TrainedUpstream(CONFIG).state_dict()
    TrainedUpstream(CONFIG).load_state_dict(state)
    TrainedUpstream(CONFIG).load_state_dict(dict(state))  # without torch's metadata the names alone decide
    with pytest.raises(CheckpointLayoutError, match=r"Renamed is of layout 1, and here it has layout 2.*hubcore export"):
        Renamed(CONFIG).load_state_dict(state)
    inside = nn.ModuleDict({"upstream": TrainedUpstream(CONFIG)}).state_dict()
    with pytest.raises(CheckpointLayoutError, match="of layout 1, and here it has layout 2"):
        nn.ModuleDict({"upstream": Renamed(CONFIG)}).load_state_dict(inside)


def test_the_names_of_a_state_dict_stay_what_they_are() -> None:
    """Whoever changes one raises `_version` of every family that has it."""
    block = [
        *(f"attention.{part}_proj" for part in "qkv"),
        "attention.out_proj",
        "attention_norm",
        "feed_forward.fc1",
        "feed_forward.fc2",
        "feed_forward_norm",
    ]
    modules = [
        "extractor.norms.0",
        "feature_norm",
        "projection",
        *(f"encoder.blocks.{k}.{part}" for k in range(CONFIG.num_layers) for part in block),
        "encoder.norm",
    ]
    names = [f"{module}.{kind}" for module in modules for kind in ("weight", "bias")]
    names += ["extractor.convs.0.weight", "extractor.convs.1.weight"]
    names += [f"encoder.pos_conv.{part}" for part in ("weight_g", "weight_v", "bias")]
    upstream = TrainedUpstream(CONFIG)
    assert {*upstream.state_dict()} == {f"model.{name}" for name in names} and upstream._version == 1
