"""Feature extraction of a full-size base model against transformers' on the same weights, all hidden states."""

from __future__ import annotations

import warnings

import torch

from hubcore_wav2vec2 import CONFIGS, Wav2Vec2Upstream
from tests.benchmarks.measure import interleaved, ratio, table

SETS = {
    "1 x 14 s": [14.0],
    "1 x 2 s": [2.0],
    "16 short": [1.2, 2.3, 0.8, 3.1, 1.9, 2.2, 0.7, 4.0] * 2,
    "4 x 14 s": [9.0, 14, 19, 14],
}


@torch.inference_mode()
def run() -> str:
    """The table."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers

        theirs = transformers.Wav2Vec2Model(transformers.Wav2Vec2Config()).eval()
    ours = Wav2Vec2Upstream(CONFIGS["base"]).eval()
    rows = []
    for name, durations in SETS.items():
        wavs = [0.1 * torch.randn(int(16000 * seconds)) for seconds in durations]
        padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
        seconds = interleaved(
            {
                "hubcore": lambda wavs=wavs: ours(wavs),
                "one by one": lambda wavs=wavs: [theirs(w[None], output_hidden_states=True) for w in wavs],
                "padded": lambda padded=padded: theirs(padded, output_hidden_states=True),
            },
            rounds=5,
        )
        real_time = sum(durations) / sorted(seconds["hubcore"])[2]
        rows.append([name, f"{real_time:.1f}", ratio(seconds, "one by one", "hubcore"), ratio(seconds, "padded", "hubcore")])
    headers = ["utterances", "hubcore, x real time", "transformers one by one / hubcore", "transformers padded / hubcore"]
    return f"{torch.get_num_threads()} threads\n\n" + table(headers, rows)
