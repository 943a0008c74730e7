"""OFA wav2vec 2.0 at base size against wav2vec 2.0: where the time goes, and peak memory, at several frame rates.

The weights are random, except that the alpha predictor's bias gives a mean alpha of 2/9, as the published checkpoint was
trained for. What is measured depends on how many frames there are, not on what is in them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hubcore.audio import find_audio, load_audio
from hubcore_ofa_wav2vec2 import CONFIGS, OfaWav2Vec2Upstream, fire, mix
from hubcore_ofa_wav2vec2.lambd import lambd_for_period
from hubcore_wav2vec2 import CONFIGS as WAV2VEC2_CONFIGS
from hubcore_wav2vec2 import Wav2Vec2Upstream
from tests.benchmarks.measure import interleaved, peak_memory, ratio, table
from tests.paths import SPEECH

SECONDS = 15
MEAN_ALPHA = 2 / 9
PLAIN = "wav2vec2 base"
SETTINGS: Mapping[str, dict[str, float]] = {
    "lambda 0": {"lambd": 0.0},
    "lambda 0.5": {"lambd": 0.5},
    "frame_period_ms 40": {"frame_period_ms": 40.0},
    "frame_period_ms 60": {"frame_period_ms": 60.0},
    "frame_period_ms 80": {"frame_period_ms": 80.0},
    "lambda 1": {"lambd": 1.0},
}


def utterance() -> Tensor:
    """The ten clips end to end, `(T,)`."""
    wav = torch.cat([load_audio(path) for path in find_audio([SPEECH])])
    return torch.nn.functional.pad(wav, (0, SECONDS * 16000))[: SECONDS * 16000]


def plain_upstream() -> Wav2Vec2Upstream:
    """wav2vec 2.0 with random weights."""
    torch.manual_seed(0)
    return Wav2Vec2Upstream(WAV2VEC2_CONFIGS["base"]).eval()


def ofa_upstream(bias: float) -> OfaWav2Vec2Upstream:
    """OFA wav2vec 2.0 with random weights, and this bias of the alpha predictor's last layer."""
    torch.manual_seed(0)
    upstream = OfaWav2Vec2Upstream(CONFIGS["base"]).eval()
    torch.nn.init.constant_(upstream.model.alpha_predictor.linear.bias, bias)
    return upstream


def find_bias(wav: Tensor) -> float:
    """The bias at which the mean alpha of `wav` is `MEAN_ALPHA`, by bisection."""
    model = ofa_upstream(0.0).model
    features, frames = model.extract([wav])
    logits = torch.logit(model.alpha_predictor(features, frames).double())
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if float(torch.sigmoid(logits + middle).mean()) > MEAN_ALPHA else (middle, high)
    return low


def parts(
    upstream: OfaWav2Vec2Upstream, wav: Tensor, options: Mapping[str, float]
) -> tuple[Callable[[], Any], Callable[[], Any], int]:
    """CIF alone (alpha predictor, mixing, firing), the transformer alone on what it gives, and how many frames those are."""
    model = upstream.model
    layers = range(upstream.num_layers + 1)
    features, frames = model.extract([wav])

    def cif() -> Any:
        alpha = model.alpha_predictor(features, frames)
        if "frame_period_ms" in options:
            lambd = lambd_for_period(alpha, frames, options["frame_period_ms"] / 20)
        else:
            lambd = torch.tensor([options["lambd"]], dtype=torch.float64)
        return fire(features, mix(alpha, lambd, frames), frames)

    fired = cif()
    return cif, transformer(model, fired.frames, fired.lengths, layers), fired.lengths[0]


def transformer(model: Any, frames: Tensor, lengths: Sequence[int], layers: Sequence[int]) -> Callable[[], Any]:
    """Projection and encoder on packed frames `(M, C)`."""
    return lambda: model.encoder(model.projection(frames), lengths, layers)


@torch.inference_mode()
def run(rounds: int = 5) -> str:
    """The tables."""
    wav = utterance()
    bias = find_bias(wav)
    plain, ofa = plain_upstream(), ofa_upstream(bias)
    features, count = plain.model.extract([wav])
    frames = {PLAIN: count[0]}
    runs: dict[str, Callable[[], Any]] = {
        f"total, {PLAIN}": lambda: plain([wav]),
        f"transformer, {PLAIN}": transformer(plain.model, features, count, range(13)),
        "extractor": lambda: ofa.model.extract([wav]),
    }
    for name, options in SETTINGS.items():
        cif, encoder, frames[name] = parts(ofa, wav, options)
        runs[f"total, {name}"] = lambda options=options: ofa([wav], **options)
        runs[f"CIF, {name}"] = cif
        runs[f"transformer, {name}"] = encoder
    seconds = interleaved(runs, rounds=rounds)
    loaded = peak_memory(f"import tests.benchmarks.compression as c; c.ofa_upstream({bias!r}); c.utterance()")
    peaks = {PLAIN: memory("c.plain_upstream()([wav], layers=[-1])")}
    peaks |= {n: memory(f"c.ofa_upstream({bias!r})([wav], layers=[-1], **{o!r})") for n, o in SETTINGS.items()}
    return "\n\n".join(
        [
            f"{SECONDS} s of speech, base size, random weights, {torch.get_num_threads()} thread(s), extractor "
            f"{median(seconds['extractor']):.2f} s; medians of {rounds} interleaved rounds",
            times(seconds, frames),
            ratios(seconds),
            memories(peaks, loaded),
        ]
    )


def memory(call: str) -> int:
    """Peak resident bytes of a fresh process that makes one `call`."""
    return peak_memory(
        f"import torch, tests.benchmarks.compression as c\nwith torch.inference_mode():\n    wav = c.utterance()\n    {call}"
    )


def times(seconds: Mapping[str, list[float]], frames: Mapping[str, int]) -> str:
    """Seconds of each part."""
    rows = []
    for name, count in frames.items():
        cif = seconds.get(f"CIF, {name}")
        whole = seconds[f"total, {name}"]
        share = [100 * part / total for part, total in zip(cif, whole, strict=True)] if cif else []
        rows.append(
            [
                name,
                str(count),
                f"{1000 * SECONDS / count:.1f}",
                f"{median(whole):.2f}",
                f"{median(seconds[f'transformer, {name}']):.2f}",
                f"{1000 * median(cif):.0f}" if cif else "-",
                f"{median(share):.2f} ({min(share):.2f}-{max(share):.2f})" if share else "-",
            ]
        )
    headers = ["setting", "frames", "ms a frame", "total, s", "transformer, s", "CIF, ms", "CIF, % of total"]
    return table(headers, rows)


def ratios(seconds: Mapping[str, list[float]]) -> str:
    """How many times faster than wav2vec 2.0, whole and transformer alone."""
    rows = [
        [name, *(ratio(seconds, f"{part}, {PLAIN}", f"{part}, {name}") for part in ("total", "transformer"))]
        for name in SETTINGS
    ]
    return table(["setting", "total, times faster", "transformer, times faster"], rows)


def memories(peaks: Mapping[str, int], loaded: int) -> str:
    """Peak memory, also above that of a process that only builds the model."""
    rows = [[name, f"{peak / 1e6:.0f}", f"{(peak - loaded) / 1e6:.0f}"] for name, peak in peaks.items()]
    return table(["setting", "peak MB", "above the model and the audio"], rows)


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)
