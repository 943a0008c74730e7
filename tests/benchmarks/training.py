"""One pre-training step of a base model, forward to optimizer, against the same step written with transformers."""

from __future__ import annotations

import warnings

import torch

from hubcore.pretrain.objective import Batch
from hubcore_wav2vec2 import CONFIGS
from hubcore_wav2vec2.pretrain import Wav2Vec2Objective, Wav2Vec2Pretraining
from tests.benchmarks.measure import interleaved, ratio, table

SETS = {
    "4 x 5 s": [5.0] * 4,
    "1 x 15 s": [15.0],
    "6 of 2 to 7 s": [2.0, 3.1, 4.4, 5.2, 6.0, 7.0],
}


def run() -> str:
    """The table."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers
        from transformers.models.wav2vec2 import modeling_wav2vec2 as modeling

        theirs = transformers.Wav2Vec2ForPreTraining(transformers.Wav2Vec2Config(layerdrop=0.0)).train()
    ours = Wav2Vec2Pretraining(CONFIGS["base"], Wav2Vec2Objective(layerdrop=0.0)).train()
    optimizers = {model: torch.optim.AdamW(model.parameters(), lr=1e-6) for model in (ours, theirs)}

    def our_step(wavs: list[torch.Tensor]) -> None:
        losses = ours(Batch(wavs), update=0, seed=1)
        (losses.total / losses.sample_size).backward()
        optimizers[ours].step()
        optimizers[ours].zero_grad()

    def their_step(padded: torch.Tensor) -> None:
        frames = int(theirs._get_feat_extract_output_lengths(padded.shape[1]))
        mask = modeling._compute_mask_indices((len(padded), frames), 0.65, 10, min_masks=2)
        negatives = modeling._sample_negative_indices((len(padded), frames), 100, mask_time_indices=mask)
        out = theirs(padded, mask_time_indices=torch.from_numpy(mask), sampled_negative_indices=torch.from_numpy(negatives))
        (out.loss / mask.sum()).backward()
        optimizers[theirs].step()
        optimizers[theirs].zero_grad()

    rows = []
    for name, durations in SETS.items():
        wavs = [0.1 * torch.randn(int(16000 * seconds)) for seconds in durations]
        padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
        seconds = interleaved(
            {
                "hubcore": lambda wavs=wavs: our_step(wavs),
                "transformers": lambda padded=padded: their_step(padded),
            },
            rounds=5,
        )
        rate = sum(durations) * 16000 / sorted(seconds["hubcore"])[2]
        rows.append([name, f"{rate:,.0f}", ratio(seconds, "transformers", "hubcore")])
    headers = ["utterances", "hubcore, samples per second", "transformers / hubcore"]
    return f"{torch.get_num_threads()} threads\n\n" + table(headers, rows)
