"""Every family at base size, all hidden states, one thread, against transformers' model of it where there is one.

Weights are random. transformers gets its mask, so that both compute the same utterances. Times are processor times.
"""

from __future__ import annotations

import importlib
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from hubcore import UpstreamBase
from tests.benchmarks.measure import interleaved, ratio, table

CONFORMER = {"dim": 768, "num_layers": 12, "num_heads": 12, "ffn_dim": 3072}
THEIR_CONFORMER = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
THEIR_WHISPER = {"d_model": 512, "encoder_layers": 6, "encoder_attention_heads": 8, "decoder_attention_heads": 8}
FAMILIES: dict[str, tuple[str, str, dict[str, Any], str, dict[str, Any]]] = {
    "wav2vec2": ("Wav2Vec2Upstream", "base", {}, "Wav2Vec2", {}),
    "hubert": ("HubertUpstream", "base", {}, "Hubert", {}),
    "wavlm": ("WavLMUpstream", "base", {}, "WavLM", {}),
    "unispeech_sat": ("UniSpeechSatUpstream", "base", {}, "UniSpeechSat", {}),
    "data2vec": ("Data2VecUpstream", "base", {}, "Data2VecAudio", {}),
    "distilhubert": ("DistilHubertUpstream", "base_transformers", {}, "Hubert", {"num_hidden_layers": 2}),
    "wav2vec2_conformer": ("Wav2Vec2ConformerUpstream", "large_rel_pos", CONFORMER, "Wav2Vec2Conformer", THEIR_CONFORMER),
    "w2v_bert": ("W2vBertUpstream", "w2v_bert_2", CONFORMER, "Wav2Vec2Bert", THEIR_CONFORMER),
    "whisper": ("WhisperUpstream", "base", {}, "Whisper", THEIR_WHISPER),
    "data2vec2": ("Data2Vec2Upstream", "base", {}, "", {}),
    "cpc": ("CpcUpstream", "modified", {}, "", {}),
}
"""Family -> our class, its config, changes of it, transformers' name of the model, changes of its config."""
SHORT = [1.2, 2.3, 0.8, 3.1, 1.9, 2.2, 0.7, 4.0] * 2
LONG = [9.0, 14.0]


@torch.inference_mode()
def run(rounds: int = 3) -> str:
    """The table."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = [[family, *_compare(family, rounds)] for family in FAMILIES]
    finally:
        torch.set_num_threads(threads)
    headers = ["family"]
    for name in ("2 long, one by one", "16 short, one batch"):
        headers += [f"{name}: hubcore, x real time", "transformers / hubcore"]
    return "1 thread, processor time, median (least-most)\n\n" + table(headers, rows)


def _compare(family: str, rounds: int) -> list[str]:
    """Both pairs of columns for one family."""
    class_name, config, changes, name, their_changes = FAMILIES[family]
    cls: type[UpstreamBase] = getattr(importlib.import_module(f"hubcore_{family}"), class_name)
    ours = cls.from_config(config, **changes).eval()
    theirs = _transformers(name, their_changes) if name else None
    columns = []
    for durations, together in ((LONG, False), (SHORT, True)):
        wavs = [0.1 * torch.randn(int(16000 * seconds)) for seconds in durations]
        batches = [wavs] if together else [[wav] for wav in wavs]
        runs: dict[str, Callable[[], object]] = {"hubcore": partial(_call_all, ours, [{"wavs": batch} for batch in batches])}
        if theirs is not None:
            inputs = [{**_inputs(name, batch), "output_hidden_states": True} for batch in batches]
            runs["transformers"] = partial(_call_all, theirs, inputs)
        seconds = interleaved(runs, rounds, clock=time.process_time)
        columns.append(f"{sum(durations) / statistics.median(seconds['hubcore']):.1f}")
        columns.append(ratio(seconds, "transformers", "hubcore") if theirs is not None else "-")
    return columns


def _call_all(model: Callable[..., object], inputs: list[dict[str, Any]]) -> None:
    for one in inputs:
        model(**one)


def _transformers(name: str, changes: dict[str, Any]) -> torch.nn.Module:
    """transformers' model with fresh weights, its encoder where it has a decoder too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers

        model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**changes)).eval()
    encoder: torch.nn.Module = model.encoder if name == "Whisper" else model
    return encoder


def _inputs(name: str, wavs: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """A padded batch as the model takes it; front ends of filter banks are left out of transformers' time."""
    if name == "Whisper":
        return {"input_features": torch.randn(len(wavs), 80, 3000)}
    if name == "Wav2Vec2Bert":
        rows = [torch.randn(len(wav) // 320, 160) for wav in wavs]
        values, key = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), "input_features"
    else:
        rows = wavs
        values, key = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True), "input_values"
    mask = torch.zeros(values.shape[:2], dtype=torch.long)
    for row, wav in enumerate(rows):
        mask[row, : len(wav)] = 1
    return {key: values, "attention_mask": mask}
