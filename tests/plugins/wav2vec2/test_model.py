"""The parts of the model on their own, and what the upstream does with its options."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional

from hubcore.errors import AudioError, OptionError
from hubcore_wav2vec2 import (
    CONFIGS,
    Block,
    ConvExtractor,
    Encoder,
    FrameConv,
    PositionalConv,
    Wav2Vec2Config,
    Wav2Vec2Model,
    Wav2Vec2Upstream,
    build_encoder,
    build_extractor,
    build_model,
)
from tests.gold import gold_wavs


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 2), (10, 5), (1, 1), (5, 1), (2, 3), (7, 3)])
def test_frame_conv_is_a_convolution_with_gradients(kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    conv = FrameConv(6, 5, kernel=kernel, stride=stride, bias=True).double()
    rows = torch.randn(41, 6, dtype=torch.float64, requires_grad=True)
    got = conv(rows)
    wanted = functional.conv1d(rows.t()[None], conv.weight.transpose(1, 2), conv.bias, stride=stride)[0].t()
    assert torch.allclose(got, wanted)
    ours = torch.autograd.grad(got.square().sum(), [rows, conv.weight, conv.bias])
    theirs = torch.autograd.grad(wanted.square().sum(), [rows, conv.weight, conv.bias])
    assert all(torch.allclose(a, b) for a, b in zip(ours, theirs, strict=True))


def test_group_norm_extractor_equals_torchs_modules_with_gradients() -> None:
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        conv_layers=((8, 10, 5), (8, 3, 2), (8, 2, 2)), conv_bias=True, dim=8, num_heads=2, pos_conv_groups=2
    )
    extractor = build_extractor(config).double()
    for weight in extractor.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    wav = torch.randn(997, dtype=torch.float64, requires_grad=True)

    def reference() -> torch.Tensor:
        x = wav[None, None]
        for index, conv in enumerate(extractor.convs):
            x = functional.conv1d(x, conv.weight.transpose(1, 2), conv.bias, stride=conv.stride)
            x = functional.gelu(extractor.norms[0](x) if index == 0 else x)
        return x[0].t()

    signal = functional.pad(wav, (0, -len(wav) % extractor.stride))
    got = extractor(signal, [0], [len(wav)])
    assert torch.allclose(got, reference())
    weights = list(extractor.parameters())
    ours = torch.autograd.grad(got.square().sum(), [wav, *weights])
    theirs = torch.autograd.grad(reference().square().sum(), [wav, *weights])
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("kernel", [16, 5])
def test_position_embedding_keeps_utterances_apart(kernel: int) -> None:
    torch.manual_seed(0)
    conv = PositionalConv(8, kernel, 2).double()
    pieces = [torch.randn(n, 8, dtype=torch.float64) for n in (1, 30, 7)]
    got = conv(torch.cat(pieces), [1, 30, 7]).split([1, 30, 7])
    for frames, mine in zip(pieces, got, strict=True):
        plain = conv.weight_v / conv.weight_v.norm(dim=(0, 1), keepdim=True) * conv.weight_g
        wanted = functional.conv1d(frames.t()[None], plain, conv.bias, padding=kernel // 2, groups=2)[0].t()[: len(frames)]
        assert torch.allclose(mine, functional.gelu(wanted))


def test_the_named_configs_have_the_published_sizes() -> None:
    # Parameters of the encoder alone, from the papers' tables less the pre-training heads.
    with torch.device("meta"):
        counts = {name: sum(p.numel() for p in build_model(config).parameters()) / 1e6 for name, config in CONFIGS.items()}
    assert {name: round(count) for name, count in counts.items() if name != "tiny"} == {
        "base": 94,
        "large": 315,
        "large_lv60k": 315,
        "xlsr_53": 315,
        "xls_r_300m": 315,
        "xls_r_1b": 962,
        "xls_r_2b": 2159,
    }


def test_no_block_above_the_highest_layer_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Wav2Vec2Upstream(CONFIGS["tiny"]).eval()
    ran: list[int] = []
    for index, block in enumerate(model.model.encoder.blocks):
        block.register_forward_hook(lambda *_, index=index: ran.append(index))
    model([gold_wavs()[0]], layers=[0])
    assert ran == []
    model([gold_wavs()[0]], layers=[2, 0])
    assert ran == [0, 1]


def test_normalisation_is_over_an_utterances_own_samples() -> None:
    model = Wav2Vec2Upstream(dataclasses.replace(CONFIGS["tiny"], conv_norm="layer", normalize=True)).eval()
    seen: list[torch.Tensor] = []
    model.model.extractor.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    u0, u1, _ = gold_wavs()
    out = model([u0, 10 * u1])
    signal = seen[0]
    for start, wav in ((0, u0), (-(-len(u0) // 320) * 320, u1)):
        part = signal[start : start + len(wav)]
        assert abs(float(part.mean())) < 1e-5
        assert abs(float(part.std(unbiased=False)) - 1) < 1e-2
    assert (signal[len(u0) : -(-len(u0) // 320) * 320] == 0).all()
    assert torch.isfinite(out.last_hidden_state).all()


def test_half_precision_models_take_float32_waveforms() -> None:
    model = Wav2Vec2Upstream.from_checkpoint("wav2vec2_tiny_prompts")
    full = model([gold_wavs()[0]]).last_hidden_state
    half = model.to(torch.bfloat16)([gold_wavs()[0]]).last_hidden_state
    assert half.dtype == torch.bfloat16
    assert functional.cosine_similarity(half.float(), full, dim=-1).min() > 0.98


@pytest.mark.parametrize("conv_norm", ["group", "layer"])
@pytest.mark.parametrize("grad", [False, True])
def test_autocast_works_and_keeps_the_first_convolution_exact(conv_norm: str, grad: bool) -> None:
    torch.manual_seed(0)
    model = Wav2Vec2Upstream(dataclasses.replace(CONFIGS["tiny"], conv_norm=conv_norm)).eval()
    wav = gold_wavs()[0]
    with torch.set_grad_enabled(grad):
        wanted = model([wav]).last_hidden_state
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = model([wav]).last_hidden_state
    assert functional.cosine_similarity(got.float(), wanted, dim=-1).min() > 0.995


def test_thousands_of_short_utterances_cost_no_more_than_their_sum() -> None:
    extractor = Wav2Vec2Upstream(CONFIGS["tiny"]).model.extractor
    calls: list[int] = []
    first = extractor._first

    def counted(*arguments: object) -> torch.Tensor:
        before = sum(calls)
        result = first(*arguments)  # type: ignore[arg-type]
        assert sum(calls) - before <= extractor.chunk + 3  # matrix products: the utterances of this chunk, no others
        return result

    linear = functional.linear

    def counting(*arguments: object, **named: object) -> torch.Tensor:
        calls.append(1)
        return linear(*arguments, **named)  # type: ignore[arg-type]

    extractor._first = counted  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr("hubcore_wav2vec2.components.functional.linear", counting)
        signal = torch.randn(320 * 2 * 1000)
        extractor(signal, list(range(0, 2000, 2)), [400] * 1000)


def test_parts_can_be_swapped() -> None:
    class MeanAttention(torch.nn.Module):
        def forward(self, x: torch.Tensor, lengths: list[int]) -> torch.Tensor:
            return torch.cat([part.mean(0, keepdim=True).expand_as(part) for part in x.split(lengths)])

    config = CONFIGS["tiny"]
    encoder = build_encoder(config)
    for block in encoder.blocks:
        block.attention = MeanAttention()
    model = Wav2Vec2Model(build_extractor(config), torch.nn.LayerNorm(64), torch.nn.Linear(64, 96), encoder)
    assert Wav2Vec2Upstream(config, model)([gold_wavs()[0]]).last_hidden_state.shape == (1, 34, 96)
    assert isinstance(model.extractor, ConvExtractor)
    assert isinstance(encoder, Encoder)
    assert isinstance(encoder.blocks[0], Block)


def test_bad_configs_say_what_must_be() -> None:
    for wrong in (
        {"dim": "96"},
        {"dropout": 2.0},
        {"dropout": "x"},
        {"conv_layers": ((1, 2),)},
        {"pre_norm": 1},
        {"dim": 10, "num_heads": 3},
        {"num_layers": 0},
        {"conv_layers": ()},
        {"conv_norm": "batch"},
        {"pos_conv_groups": 7},
    ):
        with pytest.raises(OptionError, match=r"must|dim"):
            dataclasses.replace(CONFIGS["tiny"], **wrong)


def test_inputs_on_another_device_are_refused() -> None:
    model = Wav2Vec2Upstream(CONFIGS["tiny"]).to("meta")
    with pytest.raises(AudioError, match="item 0 is on cpu, but the weights are on meta"):
        model([torch.zeros(800)])


def test_a_model_of_another_size_is_refused() -> None:
    with pytest.raises(OptionError, match="4 blocks, but its config says 12"):
        Wav2Vec2Upstream(CONFIGS["base"], build_model(CONFIGS["tiny"]))


def test_unknown_options_are_errors() -> None:
    with pytest.raises(OptionError, match="no option called 'lambd'"):
        Wav2Vec2Upstream.from_checkpoint("wav2vec2_tiny_prompts", lambd=0.5)
    with pytest.raises(TypeError):
        Wav2Vec2Upstream(CONFIGS["tiny"])([gold_wavs()[0]], lambd=0.5)
