"""Long waveforms chunk by chunk: the frames of one pass, each at its place, with the statistics of the whole waveform."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hubcore import Upstream, hub
from hubcore.errors import OptionError
from hubcore.nn import filterbank
from hubcore.streaming import Chunk, stream
from hubcore_cpc import CpcUpstream
from hubcore_data2vec2 import Data2Vec2Upstream
from hubcore_distilhubert import DistilHubertUpstream
from hubcore_fbank import CONFIGS, FbankUpstream
from hubcore_w2v_bert import W2vBertUpstream
from hubcore_wav2vec2 import Wav2Vec2Upstream
from hubcore_wavlm import WavLMUpstream
from hubcore_whisper import WhisperUpstream
from tests.toys import ToyUpstream

SMALL: dict[str, Any] = {"dim": 96, "num_layers": 2, "ffn_dim": 96}
CONVS = ((32, 10, 5), (32, 3, 2), (32, 3, 2), (32, 3, 2), (32, 3, 2), (32, 2, 2), (32, 2, 2))
MODELS: dict[str, Callable[[], Any]] = {
    "group norm": lambda: Wav2Vec2Upstream.from_config("base", conv_layers=CONVS, **SMALL),
    "layer norm, normalised": lambda: Wav2Vec2Upstream.from_config("large", conv_layers=CONVS, **SMALL | {"num_heads": 4}),
    "group norm, normalised": lambda: Wav2Vec2Upstream.from_config("base", conv_layers=CONVS, normalize=True, **SMALL),
    "relative bias": lambda: WavLMUpstream.from_config("base", conv_layers=CONVS, **SMALL),
    "prenet and ALiBi": lambda: Data2Vec2Upstream.from_config(
        next(iter(Data2Vec2Upstream.configs)), conv_layers=CONVS, **SMALL
    ),
    "heads": lambda: DistilHubertUpstream.from_config(next(iter(DistilHubertUpstream.configs)), conv_layers=CONVS, **SMALL),
    "filter banks": lambda: W2vBertUpstream.from_config("w2v_bert_2", **SMALL),
    "padded convolutions": lambda: CpcUpstream.from_config(next(iter(CpcUpstream.configs)), encoder_dim=16, context_dim=16),
}


def joined(chunks: list[Chunk]) -> tuple[list[Tensor], Tensor]:
    """The hidden states and times of all chunks, which follow on one another."""
    ends = [chunk.first_frame + len(chunk.hidden_states[0]) for chunk in chunks]
    assert [chunk.first_frame for chunk in chunks] == [0, *ends[:-1]]
    states = [torch.cat(parts) for parts in zip(*(chunk.hidden_states for chunk in chunks), strict=True)]
    return states, torch.cat([chunk.times for chunk in chunks])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("samples", [35200, 35279])
@torch.inference_mode()
def test_with_enough_overlap_chunks_are_what_one_pass_gives(name: str, samples: int) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    wav = torch.randn(samples) * torch.linspace(0.01, 1, samples) + 0.1  # no window has the statistics of the whole
    whole = model([wav])
    chunks = list(model.stream(wav, chunk_seconds=1, overlap_seconds=3))
    states, times = joined(chunks)
    assert len(chunks) >= 3
    for one, all_at_once in zip(states, whole.hidden_states, strict=True):
        torch.testing.assert_close(one, all_at_once[0], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(times, whole.frame_times()[0])

    joined(list(model.stream(wav, layers=[0], chunk_seconds=1, overlap_seconds=0)))
    assert sum(len(c.hidden_states[0]) for c in model.stream(wav, chunk_seconds=1, overlap_seconds=0.3)) == len(times)


@torch.inference_mode()
def test_what_sees_some_frames_only_needs_no_more_overlap_than_that() -> None:
    torch.manual_seed(0)
    wav = torch.randn(64000)
    model = MODELS["group norm"]().eval()  # its position convolution sees 64 frames on each side
    states, _ = joined(list(model.stream(wav, layers=[0], chunk_seconds=1, overlap_seconds=1.3)))
    torch.testing.assert_close(states[0], model([wav], layers=[0]).hidden_states[0][0], atol=2e-5, rtol=1e-4)
    toy = ToyUpstream().eval()
    states, _ = joined(list(toy.stream(wav, layers=[0], chunk_seconds=1, overlap_seconds=0)))
    torch.testing.assert_close(states[0], toy([wav], layers=[0]).hidden_states[0][0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("config", CONFIGS)
def test_signal_features_are_equal_to_the_last_bit(config: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filterbank, "_PART", 512)  # 5 s, not 164
    torch.manual_seed(0)
    wav = (torch.randn(16 * 16000 + 123) * 0.1).to(dtype)
    model = FbankUpstream.from_config(config)
    states, times = joined(list(model.stream(wav, chunk_seconds=3)))
    whole = model([wav])
    assert torch.equal(states[0], whole.hidden_states[0][0])
    assert torch.equal(times, whole.frame_times()[0])


def test_statistics_of_columns_in_parts_are_those_of_all_frames() -> None:
    torch.manual_seed(0)
    features = torch.randn(40000, 3, dtype=torch.float64) + torch.tensor([0.0, 5.0, 0.0])
    features[:, 2] = 0.1  # constant
    wanted = (features - features.mean(0)) / features.std(0)
    found = filterbank.normalize_columns(features, 0.0)
    torch.testing.assert_close(found[:, :2], wanted[:, :2])
    assert not found[:, 2].any()


@torch.inference_mode()
def test_whisper_has_chunks_of_its_own() -> None:
    torch.manual_seed(0)
    model = WhisperUpstream.from_config("tiny", num_heads=2, num_mel_bins=8, **SMALL).eval()
    wav = torch.randn(31 * 16000)
    states, times = joined(list(model.stream(wav, layers=[2])))
    whole = model([wav], layers=[2], long="chunk")
    assert torch.equal(states[0], whole.hidden_states[0][0])
    torch.testing.assert_close(times[0], whole.frame_times()[0, 0])
    with pytest.raises(OptionError, match="chunks of its own, of 30 s without an overlap"):
        next(model.stream(wav, chunk_seconds=20))


class Foreign:
    """An upstream that inherits nothing."""

    def __init__(self) -> None:
        self._toy = ToyUpstream().eval()
        for name in Upstream.__annotations__:
            setattr(self, name, getattr(self._toy, name))

    def __call__(self, wavs: Any, lengths: Any = None, *, layers: Any = None) -> Any:
        return self._toy(wavs, lengths, layers=layers)


def test_an_upstream_that_inherits_nothing_is_cut_too() -> None:
    foreign: Any = Foreign()
    wav = torch.randn(40000)
    states, _ = joined(list(stream(foreign, wav, layers=[0], chunk_seconds=1)))
    torch.testing.assert_close(states[0], foreign([wav], layers=[0]).hidden_states[0][0])


def test_what_cannot_be_cut_is_refused() -> None:
    wav = torch.randn(32000)
    with pytest.raises(OptionError, match="no constant rate"):
        next(hub.load("ofa_wav2vec2_tiny_prompts").stream(wav))
    model = hub.load("fbank")
    for option, value in (("chunk_seconds", 0.5), ("chunk_seconds", float("nan")), ("overlap_seconds", -1)):
        with pytest.raises(OptionError, match=f"{option} is {value}"):
            next(model.stream(wav, **{option: value}))
    with pytest.raises(OptionError, match="overlap"):
        next(model.stream(wav, overlap=3))
