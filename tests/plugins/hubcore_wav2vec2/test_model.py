"""What the upstream does with its configs, its dtypes and its options."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional

from hubcore.errors import AudioError, OptionError
from hubcore_wav2vec2 import (
    CONFIGS,
    Wav2Vec2Upstream,
    build_model,
)
from tests.gold import gold_wavs


@pytest.mark.slow
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
        "omniasr_300m": 315,
        "omniasr_1b": 962,
        "omniasr_3b": 3060,
        "omniasr_7b": 6485,
    }


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


def test_unknown_options_are_errors() -> None:
    with pytest.raises(OptionError, match="no option called 'lambd'"):
        Wav2Vec2Upstream.from_checkpoint("wav2vec2_tiny_prompts", lambd=0.5)
    with pytest.raises(OptionError, match="no option called 'lambd'"):
        Wav2Vec2Upstream(CONFIGS["tiny"])([gold_wavs()[0]], lambd=0.5)
