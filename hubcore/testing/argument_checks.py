"""Checks of what a call accepts and refuses: layers, keywords, waveforms.

Shapes: `B` batch, `T` samples.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from hubcore.errors import AudioError, HubcoreError, OptionError
from hubcore.protocol import Upstream, UpstreamOutput
from hubcore.testing.compare import BATCH_TOLERANCE, difference, evaluating
from hubcore.testing.inputs import clip, clips, frame_unit
from hubcore.text import plural

BAD_ITEM = 3
"""Place of the bad waveform in a batch of four; a number that a message has no other reason to contain."""


def check_layer_selection(upstream: Upstream, *, tolerance: float = BATCH_TOLERANCE) -> None:
    """`layers=` gives the same values as picking from all layers: one, several, negative, in the order asked for."""
    count = len(upstream.layer_names)
    choices = [[0], [count - 1], [-1], [-count], [count - 1, 0], [0, -1], list(range(count))[::-1]]
    choices += [[layer] for layer in range(1, count - 1)]
    with evaluating(upstream), torch.no_grad():
        wavs = clips(upstream)
        everything = upstream(wavs)
        for layers in choices:
            if len({layer % count for layer in layers}) == len(layers):
                _expect_selection(upstream(wavs, layers=layers), everything, layers, tolerance)
        _expect_selection(upstream(wavs, layers=(-1,)), everything, [-1], tolerance)


def _expect_selection(output: UpstreamOutput, everything: UpstreamOutput, layers: Sequence[int], tolerance: float) -> None:
    asked = tuple(layer % len(everything.hidden_states) for layer in layers)
    if len(output.hidden_states) != len(asked) or tuple(output.layers) != asked:
        raise AssertionError(
            f"layers={list(layers)} gave {plural(len(output.hidden_states), 'hidden state')} said to be layers "
            f"{list(output.layers)}, expected {list(asked)}."
        )
    names = tuple(everything.layer_names[layer] for layer in asked)
    if tuple(output.layer_names) != names:
        raise AssertionError(f"layers={list(layers)} gave the names {output.layer_names}, expected {names}.")
    if not torch.equal(output.lengths, everything.lengths):
        raise AssertionError(
            f"layers={list(layers)} gave lengths {output.lengths.tolist()}, expected {everything.lengths.tolist()}."
        )
    for layer, name, state in zip(asked, names, output.hidden_states, strict=True):
        for row, (got, want) in enumerate(zip(state, everything.hidden_states[layer], strict=True)):
            complaint = difference(got, want, tolerance=tolerance)
            if complaint:
                raise AssertionError(
                    f"layers={list(layers)}, compared with all layers: utterance {row}, layer {layer} ({name}) {complaint}"
                )
    if output.last_hidden_state is not output.hidden_states[asked.index(max(asked))]:
        raise AssertionError(f"layers={list(layers)}: last_hidden_state is not layer {max(asked)}, the deepest one asked for.")


def check_layers_stop_early(upstream: Upstream) -> None:
    """No block above the highest layer asked for runs.

    Hidden state 0 is taken for the input of block 1 and hidden state k for the output of block k. Blocks are the children
    of a `ModuleList` of `num_layers` modules that all run; if there is none, the calls of submodules are counted, which
    must grow with each block. An upstream without blocks or submodules, or with another layout, passes.
    """
    if not isinstance(upstream, nn.Module) or len(upstream.layer_names) != upstream.num_layers + 1:
        return
    with evaluating(upstream), torch.no_grad():
        wavs = clips(upstream, (6, 4))
        calls = []
        for layer in range(upstream.num_layers + 1):
            with _recorded(upstream) as made:
                upstream(wavs, layers=[layer])
            calls.append(made)
        with _recorded(upstream) as full:
            upstream(wavs)
    blocks = _blocks(upstream, full)
    if blocks is not None:
        for layer, made in enumerate(calls):
            ran = [index for index, block in enumerate(blocks) if any(module is block for module in made)]
            if any(index >= layer for index in ran):
                raise AssertionError(
                    f"layers=[{layer}] ran block {max(ran) + 1} of {len(blocks)} ({type(blocks[max(ran)]).__name__}), "
                    f"but layer {layer} is the {f'output of block {layer}' if layer else 'input of block 1'}."
                )
    elif full:
        for layer, (made, more) in enumerate(pairwise(calls)):
            if len(made) >= len(more):
                raise AssertionError(
                    f"layers=[{layer}] made {len(made)} calls of submodules and layers=[{layer + 1}] made {len(more)}: "
                    f"block {layer + 1} ran although its output was not asked for."
                )


@contextmanager
def _recorded(upstream: nn.Module) -> Iterator[list[nn.Module]]:
    calls: list[nn.Module] = []

    def record(module: nn.Module, _inputs: object, _output: object) -> None:
        calls.append(module)

    handles = [module.register_forward_hook(record) for module in upstream.modules() if module is not upstream]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _blocks(upstream: nn.Module, full: Sequence[nn.Module]) -> nn.ModuleList | None:
    finished = {id(module): index for index, module in enumerate(full)}
    candidates = [
        module
        for module in upstream.modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == getattr(upstream, "num_layers", None)
        and len(module) > 0
        and all(id(block) in finished for block in module)
    ]
    # Convolutions may be as many as there are blocks; the blocks are what finishes last.
    return max(candidates, key=lambda blocks: max(finished[id(block)] for block in blocks), default=None)


def check_bad_layers(upstream: Upstream) -> None:
    """A layer that does not exist, or no layer at all, is an `OptionError`."""
    count = len(upstream.layer_names)
    wavs = clips(upstream, (5,))
    with evaluating(upstream), torch.no_grad():
        for layers in ([count], [-count - 1], [0, count + 7], []):
            _expect_raises(OptionError, partial(upstream, wavs, layers=layers), f"layers={layers}")


def check_unknown_keyword(upstream: Upstream) -> None:
    """A keyword that the upstream does not know is an error, never ignored."""
    call: Callable[..., object] = partial(upstream, clips(upstream, (5,)))
    with evaluating(upstream), torch.no_grad():
        _expect_raises((TypeError, HubcoreError), partial(call, no_such_option=1), "the keyword no_such_option")


def check_rejects_short(upstream: Upstream) -> None:
    """A waveform shorter than `min_samples` is an `AudioError` that names the item."""
    short = clip(upstream, upstream.min_samples - 1)
    for name, bad in ((f"{len(short)} samples", short), ("no samples", short[:0])):
        _expect_item_error(upstream, bad, f"a waveform of {name}")


def check_rejects_nonfinite(upstream: Upstream) -> None:
    """A NaN or an infinite sample, wherever it is, is an `AudioError` that names the item."""
    for value in (float("nan"), float("inf"), float("-inf")):
        for place in (0, -1):
            bad = clip(upstream, upstream.min_samples + 4 * frame_unit(upstream) + 1)
            bad[place] = value
            _expect_item_error(upstream, bad, f"a waveform whose {'first' if place == 0 else 'last'} sample is {value}")


def check_rejects_shape(upstream: Upstream) -> None:
    """An empty batch, a bare waveform or an item that is not 1-D is an `AudioError`; the latter names the item."""
    wav = clip(upstream, upstream.min_samples + 4 * frame_unit(upstream))
    _expect_item_error(upstream, wav[None], "a waveform of shape (1, T)")
    _expect_item_error(upstream, wav[0], "a waveform of shape ()")
    with evaluating(upstream), torch.no_grad():
        for name, wavs in (
            ("an empty list", []),
            ("a tensor of no rows", wav[None][:0]),
            ("a bare 1-D tensor", wav),
            ("a (B, 1, T) tensor", wav[None, None]),
        ):
            _expect_raises(AudioError, partial(upstream, wavs), name)


def check_rejects_dtype(upstream: Upstream) -> None:
    """Integer samples are an `AudioError` that names the item, never taken for floats."""
    wav = clip(upstream, upstream.min_samples + 4 * frame_unit(upstream))
    for dtype in (torch.int16, torch.int64):
        _expect_item_error(upstream, (wav * 32767).to(dtype), f"a waveform of dtype {dtype}")


def check_rejects_lengths(upstream: Upstream) -> None:
    """`lengths` that do not fit the `(B, T)` tensor are an `AudioError`; a row that is too short is named."""
    count = upstream.min_samples + 4 * frame_unit(upstream)
    wavs = torch.stack([clip(upstream, count, seed=seed) for seed in range(4)])
    with evaluating(upstream), torch.no_grad():
        for name, lengths in (
            ("one length too few", [count] * 3),
            ("one length too many", [count] * 5),
            ("a length beyond T", [count, count, count, count + 1]),
            ("a negative length", [count, count, count, -1]),
        ):
            _expect_raises(AudioError, partial(upstream, wavs, torch.tensor(lengths)), name)
        short = torch.tensor([count, count, count, upstream.min_samples - 1])
        _expect_named(partial(upstream, wavs, short), "a row shorter than min_samples")


def _expect_item_error(upstream: Upstream, bad: Tensor, what: str) -> None:
    batch = [*clips(upstream, (6, 4, 5)), bad]
    with evaluating(upstream), torch.no_grad():
        _expect_named(partial(upstream, batch), f"{what} as item {BAD_ITEM} of a batch")


def _expect_named(call: Callable[[], object], what: str) -> None:
    error = _expect_raises(AudioError, call, what)
    if not re.search(rf"(?<![\w.-]){BAD_ITEM}(?!\w|-|\.\d)", str(error)):
        raise AssertionError(f"{what}: the AudioError does not name item {BAD_ITEM}. It says: {error}")


def _expect_raises(expected: type[Exception] | tuple[type[Exception], ...], call: Callable[[], object], what: str) -> Exception:
    kinds = expected if isinstance(expected, tuple) else (expected,)
    names = " or ".join(kind.__name__ for kind in kinds)
    try:
        call()
    except kinds as error:
        return error
    except Exception as error:
        raise AssertionError(f"{what} raised {type(error).__name__} ({error}), expected {names}.") from error
    raise AssertionError(f"{what} was accepted, expected {names}.")
