"""A GPU: all hidden states of ragged speech, hubcore against transformers and s3prl; numbers against float32 on the CPU.

Everything takes less than five minutes on one GPU. Without one, small models run on the CPU the way a GPU would run them, which
shows that the script works and nothing about speed. Weights are random; waveforms start in the memory of the host each time.
"""

from __future__ import annotations

import contextlib
import statistics
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from hubcore.audio import find_audio, load_audio
from hubcore.strategy import force_few_calls
from hubcore_wav2vec2 import CONFIGS, Wav2Vec2Upstream
from tests.benchmarks.measure import interleaved, ratio, table
from tests.paths import SPEECH

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPES = (torch.float32, torch.bfloat16)
LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "conv_bias": True,
    "do_stable_layer_norm": True,
}
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128, "conv_dim": [32] * 7}


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    utterances: int
    seconds: tuple[float, float]
    """Shortest and longest utterance."""
    hubcore: tuple[int, ...]
    """Seconds of audio in a batch, each of which is tried."""
    transformers: tuple[int, ...]
    """Utterances in a batch, each of which is tried, sorted by length."""
    rounds: int


WHOLE = Size(64, (5.0, 25.0), (150, 300, 600), (1, 4, 8, 16, 32), 5)
TINY = Size(4, (0.5, 1.5), (2, 4), (1, 2, 4), 2)
SIZE = WHOLE if DEVICE.type == "cuda" else TINY


@torch.no_grad()
def run() -> str:
    """The tables."""
    torch.backends.cudnn.allow_tf32 = False  # as products are by default: float32 means float32 in every system
    with contextlib.nullcontext() if DEVICE.type == "cuda" else force_few_calls():
        parts = [_title(), _speeds(), _numbers(), _batch_mates(), _training()]
        return "\n\n".join(parts if DEVICE.type != "cuda" else [*parts, _kernels()])


def _title() -> str:
    amount = f"{SIZE.utterances} utterances of {SIZE.seconds[0]:g} to {SIZE.seconds[1]:g} s, medians of {SIZE.rounds} rounds"
    if DEVICE.type == "cuda":
        return f"{torch.cuda.get_device_name(DEVICE)}, torch {torch.__version__}; {amount}"
    return f"NO GPU HERE: small models on the CPU, whose times say nothing about a GPU; {amount}"


# Models and waveforms -----------------------------------------------------------------------------------------------


def _ours(name: str, dtype: torch.dtype, device: torch.device = DEVICE) -> Wav2Vec2Upstream:
    config = CONFIGS[{"base": "base", "large": "large_lv60k"}[name]]
    if DEVICE.type != "cuda":
        convs = tuple((32, kernel, stride) for _, kernel, stride in config.conv_layers)
        config = replace(config, dim=64, num_layers=2, num_heads=2, ffn_dim=128, conv_layers=convs)
    torch.manual_seed(0)
    return Wav2Vec2Upstream(config).eval().to(device, dtype)


def _transformers(name: str, dtype: torch.dtype) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers

        options: dict[str, Any] = {**(LARGE if name == "large" else {}), **({} if DEVICE.type == "cuda" else SMALL)}
        config = transformers.Wav2Vec2Config(**options, layerdrop=0.0, apply_spec_augment=False, attn_implementation="sdpa")
        model: nn.Module = transformers.Wav2Vec2Model(config).eval().to(DEVICE, dtype)
    return model


def _s3prl(name: str, dtype: torch.dtype) -> nn.Module | None:
    """s3prl's own class at base size, where it imports."""
    if name != "base" or DEVICE.type != "cuda":
        return None
    try:
        from s3prl.upstream.wav2vec2.wav2vec2_model import Wav2Vec2Config, Wav2Vec2Model
    except (ImportError, AttributeError, RuntimeError):
        return None
    model: nn.Module = Wav2Vec2Model(Wav2Vec2Config()).eval().to(DEVICE, dtype)
    return model


def _speech(count: int, seconds: tuple[float, float], seed: int = 0) -> list[Tensor]:
    """Stretches of the clips end to end, of random lengths, in random order."""
    generator = torch.Generator().manual_seed(seed)
    clips = torch.cat([load_audio(path) for path in find_audio([SPEECH])])
    low, high = (int(16000 * length) for length in seconds)
    clips = clips.repeat(-(-2 * high // len(clips)))
    wavs = []
    for _ in range(count):
        length = int(torch.randint(low, high + 1, (), generator=generator))
        begin = int(torch.randint(0, len(clips) - length, (), generator=generator))
        wavs.append(clips[begin : begin + length].clone())
    return wavs


def _batches(wavs: Sequence[Tensor], seconds: float) -> list[list[Tensor]]:
    """Waveforms as they come, a batch ending before it is longer than `seconds`."""
    batches: list[list[Tensor]] = [[]]
    for wav in wavs:
        if batches[-1] and sum(map(len, batches[-1])) + len(wav) > 16000 * seconds:
            batches.append([])
        batches[-1].append(wav)
    return batches


def _padded(wavs: Sequence[Tensor], count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of `count` sorted waveforms with their masks, both `(B, T)`, in pinned memory where there is a GPU."""
    wavs = sorted(wavs, key=len)
    for first in range(0, len(wavs), count):
        rows = wavs[first : first + count]
        values = pad_sequence(rows, batch_first=True)
        mask = pad_sequence([torch.ones(len(row), dtype=torch.bool) for row in rows], batch_first=True)
        yield (values.pin_memory(), mask.pin_memory()) if DEVICE.type == "cuda" else (values, mask)


def _done() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def _run_ours(model: Wav2Vec2Upstream, batches: Sequence[list[Tensor]]) -> None:
    for batch in batches:
        model(batch).packed()
    _done()


def _run_theirs(model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]], dtype: torch.dtype) -> None:
    for values, mask in batches:
        given = {"attention_mask": mask.to(DEVICE, non_blocking=True), "output_hidden_states": True}
        model(values.to(DEVICE, non_blocking=True).to(dtype), **given)
    _done()


def _run_s3prl(model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]], dtype: torch.dtype) -> None:
    for values, mask in batches:
        model.extract_features(values.to(DEVICE).to(dtype), padding_mask=~mask.to(DEVICE))
    _done()


# Tables -------------------------------------------------------------------------------------------------------------


def _peak(work: Callable[[], object]) -> str:
    """Peak memory of the GPU above what is there before, in MB."""
    if DEVICE.type != "cuda":
        work()
        return "-"
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    return f"{(torch.cuda.max_memory_allocated() - before) / 1e6:,.0f}"


def _best(runs: dict[str, Callable[[], object]]) -> str:
    """The name of the fastest, each being run twice and timed once; what does not fit into memory is left out."""
    fitting = dict(runs)
    for name, work in runs.items():
        try:
            work()
        except torch.OutOfMemoryError:
            del fitting[name]
    seconds = interleaved(fitting, rounds=1, warm_up=0)
    return min(seconds, key=lambda name: seconds[name][0])


def _speeds() -> str:
    wavs = _speech(SIZE.utterances, SIZE.seconds)
    audio = sum(map(len, wavs)) / 16000
    rows = []
    for name in ("base", "large"):
        for dtype in DTYPES:
            ours, theirs, s3prl = _ours(name, dtype), _transformers(name, dtype), _s3prl(name, dtype)
            own = {f"{length} s": partial(_run_ours, ours, _batches(wavs, length)) for length in SIZE.hubcore}
            padded = {f"{count} sorted": [*_padded(wavs, count)] for count in SIZE.transformers}
            other = {key: partial(_run_theirs, theirs, batches, dtype) for key, batches in padded.items()}
            best, their_best = _best({**own}), _best({**other})
            runs: dict[str, Callable[[], object]] = {"hubcore": own[best], "transformers": other[their_best]}
            if s3prl is not None:
                runs["s3prl"] = partial(_run_s3prl, s3prl, padded[their_best], dtype)
            seconds = interleaved(runs, SIZE.rounds)
            rows.append(
                [
                    f"{name}, {str(dtype)[6:]}",
                    f"{audio / statistics.median(seconds['hubcore']):,.0f} ({best})",
                    f"{audio / statistics.median(seconds['transformers']):,.0f} ({their_best})",
                    ratio(seconds, "transformers", "hubcore"),
                    ratio(seconds, "s3prl", "hubcore") if s3prl is not None else "-",
                    _peak(own[best]),
                    _peak(other[their_best]),
                ]
            )
            del ours, theirs, s3prl, own, other, runs
    headers = ["model", "hubcore, x real time (batch)", "transformers, x real time (batch)", "transformers / hubcore"]
    return table([*headers, "s3prl / hubcore", "hubcore, peak MB", "transformers, peak MB"], rows)


def _numbers() -> str:
    """Each layer against float32 on the CPU: least cosine of a frame, and largest error over the largest value."""
    wavs = _speech(3, SIZE.seconds, seed=1)
    rows = []
    for name in ("base", "large"):
        with force_few_calls(False):
            wanted = _ours(name, torch.float32, torch.device("cpu"))(wavs).packed()[0]
        errors: list[list[str]] = [[] for _ in wanted]
        for dtype in DTYPES:
            out = _ours(name, dtype)(wavs)
            out.check_finite()
            for cells, state, reference in zip(errors, out.packed()[0], wanted, strict=True):
                state = state.float().cpu()
                cosine = nn.functional.cosine_similarity(state.double(), reference.double(), dim=1).min()
                cells += [f"{float(cosine):.6f}", f"{float((state - reference).abs().max() / reference.abs().max()):.1e}"]
        rows += [[f"{name}, layer {layer}", *cells] for layer, cells in enumerate(errors)]
    headers = [f"{str(dtype)[6:]}: {what}" for dtype in DTYPES for what in ("least cosine", "largest error")]
    return "Against float32 on the CPU\n\n" + table(["state", *headers], rows)


def _batch_mates() -> str:
    """Each utterance alone against the same in one batch."""
    wavs = _speech(8, (SIZE.seconds[0] / 4, SIZE.seconds[1]), seed=2)
    rows = []
    for name in ("base", "large"):
        worst = []
        for dtype in DTYPES:
            model = _ours(name, dtype)
            together = model(wavs).unpad()
            gaps = []
            for wav, states in zip(wavs, together, strict=True):
                for state, alone in zip(states, model([wav]).packed()[0], strict=True):
                    gaps.append(float((state.float() - alone.float()).abs().max() / alone.float().abs().max()))
            worst.append(f"{max(gaps):.1e}")
        rows.append([name, *worst])
    return "Alone against in a batch of 8, largest error over the largest value of a layer\n\n" + table(
        ["model", *(str(dtype)[6:] for dtype in DTYPES)], rows
    )


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, forward: Callable[[], Tensor]) -> None:
    with torch.enable_grad():
        with torch.autocast(DEVICE.type, torch.bfloat16):
            loss = forward().float().square().mean()
        loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    _done()


def _training() -> str:
    """One step of fine-tuning at base size, forward to optimizer, under bfloat16 autocast, without dropout."""
    wavs = _speech(min(16, SIZE.utterances), SIZE.seconds, seed=3)
    ours, theirs = _ours("base", torch.float32), _transformers("base", torch.float32)
    ((values, mask),) = _padded(wavs, len(wavs))
    values, mask = values.to(DEVICE), mask.to(DEVICE)
    steps = {
        "hubcore": partial(
            _step, ours, torch.optim.AdamW(ours.parameters(), 1e-6), lambda: ours(wavs, layers=[-1]).packed()[0][0]
        ),
        "transformers": partial(
            _step,
            theirs,
            torch.optim.AdamW(theirs.parameters(), 1e-6),
            lambda: theirs(values, attention_mask=mask).last_hidden_state,
        ),
    }
    seconds = interleaved({**steps}, SIZE.rounds, warm_up=2)
    audio = sum(map(len, wavs)) / 16000
    rows = [[key, f"{audio / statistics.median(seconds[key]):,.0f}", _peak(step)] for key, step in steps.items()]
    return (
        f"A training step of base, {len(wavs)} utterances, bfloat16 autocast; time of transformers / hubcore: "
        f"{ratio(seconds, 'transformers', 'hubcore')}\n\n" + table(["system", "x real time", "peak MB"], rows)
    )


def _kernels() -> str:
    """The kernels that take the most time of one batch of base in bfloat16, and how long the GPU had nothing to do."""
    from torch.profiler import ProfilerActivity, profile

    model, batch = _ours("base", torch.bfloat16), _batches(_speech(SIZE.utterances, SIZE.seconds), SIZE.hubcore[-1])[0]
    _run_ours(model, [batch])
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        _run_ours(model, [batch])
    kernels = [event for event in profiled.key_averages() if event.self_device_time_total > 0]
    total = sum(event.self_device_time_total for event in kernels)
    kernels.sort(key=lambda event: -event.self_device_time_total)
    rows = [[event.key[:70], str(event.count), f"{100 * event.self_device_time_total / total:.1f}"] for event in kernels[:15]]
    return f"One batch: {total / 1000:.1f} ms of kernels\n\n" + table(["kernel", "calls", "% of time"], rows)
