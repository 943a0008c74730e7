"""What a GPU would compute: few calls for any batch, none that waits, and the numbers of a CPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from hubcore import hub
from hubcore.errors import HubcoreError
from hubcore.nn import SelfAttention, attend
from hubcore.nn import attention as attention_module
from hubcore.strategy import force_few_calls
from hubcore_cpc import CpcConfig, CpcUpstream
from hubcore_data2vec import CONFIGS as DATA2VEC
from hubcore_data2vec import Data2VecUpstream
from hubcore_data2vec2 import CONFIGS as DATA2VEC2
from hubcore_data2vec2 import Data2Vec2Upstream
from hubcore_wav2vec2 import CONFIGS as WAV2VEC2
from hubcore_wav2vec2 import Wav2Vec2Upstream
from hubcore_wav2vec2_conformer import CONFIGS as CONFORMER
from hubcore_wav2vec2_conformer import Wav2Vec2ConformerUpstream
from hubcore_wavlm import CONFIGS as WAVLM
from hubcore_wavlm import WavLMUpstream
from tests.fake_cuda import GPU, Recorder, fake_gpu, move_to_gpu, record
from tests.gold import gold_file, gold_wavs, relative_error

BATCHES = {
    "1 of 2 s": [2.0],
    "1 of 20 s": [20.0],
    "4 of 2 s": [2.0, 1.9, 2.0, 1.2],
    "16 of up to 20 s": [20.0, *[1.0, 2.0, 3.0] * 5],
}
BLOCKS = 2
GPU_FAMILIES: dict[str, Callable[[], Any]] = {
    "wav2vec2 base": partial(Wav2Vec2Upstream, dataclasses.replace(WAV2VEC2["base"], num_layers=BLOCKS)),
    "wav2vec2 large": partial(Wav2Vec2Upstream, dataclasses.replace(WAV2VEC2["large_lv60k"], num_layers=BLOCKS)),
    "wavlm base": partial(WavLMUpstream, dataclasses.replace(WAVLM["base"], num_layers=BLOCKS)),
    "data2vec base": partial(Data2VecUpstream, dataclasses.replace(DATA2VEC["base"], num_layers=BLOCKS)),
    "data2vec2 base": partial(Data2Vec2Upstream, dataclasses.replace(DATA2VEC2["base"], prenet_layers=1, num_layers=BLOCKS)),
    "conformer": partial(Wav2Vec2ConformerUpstream, dataclasses.replace(CONFORMER["large_rope"], num_layers=BLOCKS)),
    "conformer relative": partial(
        Wav2Vec2ConformerUpstream, dataclasses.replace(CONFORMER["large_rel_pos"], num_layers=BLOCKS)
    ),
}
WITH_BIAS = ("wavlm base", "data2vec2 base", "conformer relative")
GOLD = {
    "wav2vec2": ["fairseq_tiny_w2v2_groupnorm.pt", "fairseq_tiny_w2v2_layernorm.pt"],
    "hubert": ["../gold2/hf_hubert_base", "../gold2/hf_hubert_pos_batch_norm"],
    "unispeech_sat": ["../gold2/hf_unispeech_sat_large"],
    "wavlm": ["../gold2/hf_wavlm_base", "../gold2/hf_wavlm_large"],
    "data2vec": ["../gold2/hf_data2vec_audio"],
    "data2vec2": ["../gold2/data2vec2_base_style.pt", "../gold2/data2vec2_prenet_style.pt"],
    "wav2vec2_conformer": ["../gold2/hf_wav2vec2_conformer_relative", "../gold2/hf_wav2vec2_conformer_rotary"],
    "w2v_bert": ["../gold2/w2v_bert_relative", "../gold2/w2v_bert_relative_key", "../gold2/w2v_bert_rotary"],
    "whisper": ["../gold2/whisper_tiny"],
    "ofa_wav2vec2": ["ofa_tiny.pt"],
}
RAGGED = (16000, 9000, 2400, 16000, 700)


def narrow_base() -> Wav2Vec2Upstream:
    """wav2vec 2.0 base, all of its blocks and convolutions, at a width that costs nothing."""
    config = WAV2VEC2["base"]
    convs = tuple((8, kernel, stride) for _, kernel, stride in config.conv_layers)
    return Wav2Vec2Upstream(dataclasses.replace(config, dim=32, num_heads=2, ffn_dim=32, conv_layers=convs)).eval()


def ragged(upstream: Any) -> list[Tensor]:
    """A seeded batch of very different lengths, with an offset."""
    generator = torch.Generator().manual_seed(3)
    lengths = [max(length, upstream.min_samples) for length in RAGGED]
    return [0.1 * torch.randn(length, generator=generator) + 0.02 for length in lengths]


@torch.no_grad()
@pytest.mark.slow
def test_a_base_model_makes_at_most_500_calls_whatever_the_batch_and_the_duration() -> None:
    upstream, numbers = narrow_base(), {}
    for name, seconds in BATCHES.items():
        wavs = [torch.zeros(int(16000 * length)) for length in seconds]
        with force_few_calls(), Recorder() as recorder:
            assert upstream(wavs).hidden_states
        numbers[name] = recorder.number
    assert max(numbers.values()) <= 500, numbers
    assert numbers["1 of 2 s"] == numbers["1 of 20 s"] and numbers["4 of 2 s"] == numbers["16 of up to 20 s"], numbers


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", GPU_FAMILIES)
def test_nothing_waits_for_the_gpu(family: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = record(monkeypatch, GPU_FAMILIES[family], dtype, [7.0, 3.0, 3.5])
    assert recorder.crossings == []
    flash = recorder.calls["torch_attn._varlen_attn.default"]  # for all utterances in one call, where there is no bias
    assert flash == (BLOCKS if dtype == torch.bfloat16 and family not in WITH_BIAS else 0)


@pytest.mark.parametrize(("family", "file"), [(family, file) for family, files in GOLD.items() for file in files])
def test_a_ragged_batch_has_the_numbers_of_the_cpu(family: str, file: str) -> None:
    upstream = hub.load(family, checkpoint=gold_file(file))
    wavs = ragged(upstream)
    with torch.no_grad():
        wanted = upstream(wavs)
        with force_few_calls():
            got = upstream(wavs)
    assert got.lengths.tolist() == wanted.lengths.tolist() and torch.allclose(got.times, wanted.times)
    for ours, theirs in zip(got.hidden_states, wanted.hidden_states, strict=True):
        assert relative_error(ours, theirs) <= 1e-5


def test_cpc_has_the_numbers_of_the_cpu() -> None:
    torch.manual_seed(0)
    upstream = CpcUpstream(CpcConfig(encoder_dim=8, context_dim=4)).eval()
    wavs = ragged(upstream)
    with torch.no_grad():
        wanted = upstream(wavs)
        with force_few_calls(), Recorder() as recorder:
            got = upstream(wavs)
    assert recorder.calls["aten.convolution.default"] == 5  # one of each, for all utterances
    for ours, theirs in zip(got.hidden_states, wanted.hidden_states, strict=True):
        assert relative_error(ours, theirs) <= 1e-5


@pytest.mark.parametrize("options", [{"lambd": torch.tensor(0.7)}, {"frame_period_ms": 45.0}], ids=str)
def test_ofa_waits_once_to_know_how_many_frames_there_are(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = hub.load("ofa_wav2vec2", checkpoint=gold_file("ofa_tiny.pt"))
    wavs, waits = ragged(upstream), []
    tolist = Tensor.tolist
    monkeypatch.setattr(upstream, "check_input", lambda rows, _lengths: rows)
    monkeypatch.setattr(Tensor, "tolist", lambda self: waits.append(1) or tolist(self))
    with torch.no_grad(), force_few_calls(), Recorder() as recorder:
        upstream(wavs, **options)
    assert len(waits) == 1
    waiting = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "repeat_interleave.self_int")
    assert not [name for name in recorder.calls if any(word in name for word in waiting)]


def test_waveforms_of_the_host_are_sent_in_one_copy_beside_what_the_gpu_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        upstream = narrow_base()
    wavs = [torch.zeros(900, dtype=torch.float64), torch.zeros(700, dtype=torch.float64)]
    monkeypatch.setattr("hubcore.upstream.check_wavs", lambda rows, *_, **__: rows)
    with fake_gpu(monkeypatch) as streams:
        move_to_gpu(upstream)
        with Recorder() as recorder:
            rows = upstream.check_input(wavs)
    assert [(row.device, row.dtype, len(row)) for row in rows] == [(GPU, torch.float32, 900), (GPU, torch.float32, 700)]
    assert recorder.crossings == [] and recorder.calls["aten._to_copy.default"] == 1
    copies, computing = streams["Stream"], streams["current_stream"]
    assert copies.__enter__.called and computing.wait_stream.call_args.args == (copies,) and computing.used.called


def test_gradients_are_those_of_the_cpu() -> None:
    upstream = hub.load("wavlm", checkpoint=gold_file("../gold2/hf_wavlm_base"))
    wavs, parameters = ragged(upstream), [*upstream.parameters()]
    wanted = torch.autograd.grad(upstream(wavs).last_hidden_state.square().sum(), parameters)
    with force_few_calls():
        got = torch.autograd.grad(upstream(wavs).last_hidden_state.square().sum(), parameters)
    scale = max(float(gradient.abs().max()) for gradient in wanted)
    assert max(float((ours - theirs).abs().max()) for ours, theirs in zip(got, wanted, strict=True)) <= 1e-5 * scale


@torch.no_grad()
def test_a_long_signal_is_convolved_some_of_it_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = hub.load("wav2vec2", checkpoint=gold_file("fairseq_tiny_w2v2_groupnorm.pt"))
    wanted = upstream(list(gold_wavs())).hidden_states[0]
    monkeypatch.setattr("hubcore.nn.conv._BYTES_AT_ONCE", 40_000)
    with force_few_calls(), Recorder() as recorder:
        got = upstream(list(gold_wavs())).hidden_states[0]
    assert recorder.calls["aten.baddbmm.default"] > 5
    assert relative_error(got, wanted) <= 1e-5


def test_many_utterances_are_padded_to_similar_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    attention, counts = SelfAttention(8, 2), [40, 3, 11, 40, 1, 9]
    x = torch.randn(sum(counts), 8)
    wanted = attention(x, counts)
    monkeypatch.setattr(attention_module, "_PAIRS_WORTH_SORTING", 100)
    with force_few_calls(), Recorder() as recorder:
        assert torch.allclose(attention(x, counts), wanted, atol=1e-6)
    assert sum(number for name, number in recorder.calls.items() if "scaled_dot_product" in name) == 3


def test_biases_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    counts, bias = [5, 5, 4, 5], torch.randn(2, 5, 5)
    q, k, v = torch.randn(3, sum(counts), 8)
    wanted = attend(q, k, v, counts, 2, bias)
    monkeypatch.setattr(attention_module, "_SCORES_AT_ONCE", 2 * 2 * 25)
    with force_few_calls(), Recorder() as recorder:
        assert torch.allclose(attend(q, k, v, counts, 2, bias), wanted, atol=1e-6)
    assert sum(number for name, number in recorder.calls.items() if "scaled_dot_product" in name) == 2


def test_a_projection_that_is_more_than_a_product_is_called() -> None:
    attention, heard = SelfAttention(8, 2), []
    attention.q_proj.register_forward_hook(lambda *_: heard.append(1))
    with force_few_calls():
        attention(torch.zeros(5, 8), [2, 3])
    assert heard == [1]


def test_values_that_are_not_finite_are_named_by_layer() -> None:
    upstream = narrow_base()
    wavs = [torch.randn(1600), torch.randn(3200)]
    upstream(wavs).check_finite()
    block = upstream.model.encoder.blocks[3]
    block.register_forward_hook(lambda _module, _args, out: out.index_fill(0, torch.tensor([6]), float("inf")))
    with pytest.raises(
        HubcoreError, match=r"layer 4 \(block_4\) has values that are not finite, first in item 1 at frame 2"
    ) as at:
        upstream(wavs).check_finite()
    assert at.value.fix == "Check the weights."
    with pytest.raises(HubcoreError, match=r"float16\. Load the model with dtype=torch\.bfloat16 or float32"):
        upstream(wavs).to(torch.float16).check_finite()


def test_flash_attention_is_given_where_each_utterance_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_by_one(q: Tensor, k: Tensor, v: Tensor, ends: Tensor, _: Tensor, longest: int, __: int) -> Tensor:
        assert ends.dtype == torch.int32 and longest == 3
        parts = [slice(*ends[i : i + 2].tolist()) for i in range(len(ends) - 1)]
        rows = [[x[part].transpose(0, 1) for x in (q, k, v)] for part in parts]
        return torch.cat([torch.nn.functional.scaled_dot_product_attention(*row).transpose(0, 1) for row in rows])

    torch.manual_seed(0)
    attention, x = SelfAttention(8, 2), torch.randn(6, 8)
    wanted = attention(x, [2, 3, 1])
    monkeypatch.setattr(attention_module, "_flash_takes", lambda *_: True)
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", one_by_one)
    with force_few_calls():
        assert torch.allclose(attention(x, [2, 3, 1]), wanted, atol=1e-6)
