"""Checks of what a call returns: attributes, types, shapes, spellings, lengths, times.

Shapes: `B` batch, `T` samples, `F` frames, `D` dim.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hubcore.card import Card
from hubcore.protocol import Upstream, UpstreamOutput
from hubcore.testing.compare import evaluating, layer_title
from hubcore.testing.inputs import clips

TIME_TOLERANCE = 1e-6
"""Seconds that a frame time may be off; a sample at 16 kHz lasts 6e-5."""


def check_attributes(upstream: Upstream) -> None:
    """The attributes of the contract are there, of the right types, and agree with each other."""
    missing = [name for name in (*Upstream.__annotations__, "forward", "__call__") if not hasattr(upstream, name)]
    if missing:
        raise AssertionError(f"{type(upstream).__name__} is no Upstream: it lacks {', '.join(missing)}.")
    for name, least in (("sample_rate", 1), ("num_layers", 0), ("receptive_field", 1), ("min_samples", 1)):
        _expect_int(name, getattr(upstream, name), least)
    if upstream.frame_stride is not None:
        _expect_int("frame_stride", upstream.frame_stride, 1)
    names, sizes = upstream.layer_names, upstream.hidden_sizes
    if not isinstance(names, tuple) or not names or not all(isinstance(name, str) and name for name in names):
        raise AssertionError(f"layer_names is {names!r}, expected a tuple of names, one for each hidden state.")
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise AssertionError(f"layer_names has {', '.join(twice)} more than once; each name must mean one layer.")
    if not isinstance(sizes, tuple):
        raise AssertionError(f"hidden_sizes is {sizes!r}, expected a tuple of ints.")
    for size in sizes:
        _expect_int("hidden_sizes", size, 1)
    if len(sizes) != len(names):
        raise AssertionError(f"hidden_sizes has {len(sizes)} entries, but layer_names has {len(names)}.")
    if upstream.num_layers > len(names):
        raise AssertionError(f"num_layers is {upstream.num_layers}, more than the {len(names)} hidden states there are.")
    if upstream.card is not None and not isinstance(upstream.card, Card):
        raise AssertionError(f"card is a {type(upstream.card).__name__}, expected a hubcore Card or None.")


def _expect_int(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise AssertionError(f"{name} is {value!r}, expected an int of at least {least}.")


def check_output_types(upstream: Upstream) -> None:
    """A call returns an `UpstreamOutput` whose tensors have the promised types, shapes, names and order."""
    with evaluating(upstream), torch.no_grad():
        for wavs in (clips(upstream), clips(upstream, (7,))):
            output = upstream(wavs)
            _expect_output(upstream, output, len(wavs))


def _expect_output(upstream: Upstream, output: object, batch: int) -> None:
    if not isinstance(output, UpstreamOutput):
        raise AssertionError(f"the call returned a {type(output).__name__}, expected hubcore.UpstreamOutput.")
    states = output.hidden_states
    if not isinstance(states, tuple):
        raise AssertionError(f"hidden_states is a {type(states).__name__}, expected a tuple.")
    if len(states) != len(upstream.layer_names):
        raise AssertionError(f"{len(states)} hidden states came back, but layer_names has {len(upstream.layer_names)}.")
    if tuple(output.layers) != tuple(range(len(states))):
        raise AssertionError(f"layers is {output.layers!r}, expected 0 to {len(states) - 1} in order.")
    if tuple(output.layer_names) != tuple(upstream.layer_names):
        raise AssertionError(f"the output's layer_names are {output.layer_names}, the upstream's {upstream.layer_names}.")
    for position, (state, size) in enumerate(zip(states, upstream.hidden_sizes, strict=True)):
        title = layer_title(output, position)
        if not isinstance(state, Tensor) or not state.is_floating_point():
            raise AssertionError(f"{title} is {getattr(state, 'dtype', type(state).__name__)}, expected a float tensor.")
        if state.ndim != 3 or state.shape[0] != batch or state.shape[2] != size:
            raise AssertionError(f"{title} has shape {tuple(state.shape)}, expected ({batch}, F, {size}).")
        if state.shape[1] != states[0].shape[1]:
            raise AssertionError(f"{title} has {state.shape[1]} frames, but layer 0 has {states[0].shape[1]}.")
    if output.last_hidden_state is not states[-1]:
        raise AssertionError("last_hidden_state is not the last of the hidden states.")


def check_mapping(upstream: Upstream) -> None:
    """The output reads like s3prl's dictionary and gives the very tensors of the attributes."""
    with evaluating(upstream), torch.no_grad():
        output = upstream(clips(upstream))
    expected = {"hidden_states": output.hidden_states, "last_hidden_state": output.last_hidden_state}
    expected |= {f"hidden_state_{index}": state for index, state in enumerate(output.hidden_states)}
    for key, value in expected.items():
        if key not in output or key not in list(output.keys()):
            raise AssertionError(f"the key {key!r} is missing from the output; it has {', '.join(output.keys())}.")
        if output[key] is not value:
            raise AssertionError(f"output[{key!r}] is not the tensor that the attribute of that name gives.")
    beyond = f"hidden_state_{len(output.hidden_states)}"
    if beyond in output:
        raise AssertionError(f"the output has {beyond!r}, though its last layer is {len(output.hidden_states) - 1}.")


def check_lengths(upstream: Upstream) -> None:
    """`lengths` is int64 `(B,)` within the frames there are, and `mask` marks exactly these frames."""
    with evaluating(upstream), torch.no_grad():
        wavs = clips(upstream)
        output = upstream(wavs)
    lengths, state = output.lengths, output.hidden_states[0]
    if not isinstance(lengths, Tensor) or lengths.dtype != torch.int64 or lengths.shape != (len(wavs),):
        shape = tuple(getattr(lengths, "shape", ()))
        kind = getattr(lengths, "dtype", type(lengths).__name__)
        raise AssertionError(f"lengths is {kind} of shape {shape}, expected int64 of shape ({len(wavs)},).")
    frames = state.shape[1]
    for row, count in enumerate(lengths.tolist()):
        if not 1 <= count <= frames:
            raise AssertionError(f"lengths[{row}] is {count}, but the hidden states have {frames} frames.")
    mask = output.mask
    if mask.dtype != torch.bool or mask.shape != (len(wavs), frames):
        raise AssertionError(f"mask is {mask.dtype} {tuple(mask.shape)}, expected bool ({len(wavs)}, {frames}).")
    expected = torch.arange(frames, device=lengths.device)[None, :] < lengths[:, None]
    if not bool((mask == expected).all()):
        row = int((mask != expected).any(dim=1).nonzero()[0])
        raise AssertionError(f"mask marks {int(mask[row].sum())} frames of utterance {row}, expected {int(lengths[row])}.")


def check_padding_is_zero(upstream: Upstream) -> None:
    """Frames beyond an utterance's length are exactly 0 in every layer."""
    with evaluating(upstream), torch.no_grad():
        output = upstream(clips(upstream))
    for position, state in enumerate(output.hidden_states):
        for row, count in enumerate(output.lengths.tolist()):
            beyond = state[row, count:]
            if beyond.numel() and not bool((beyond == 0).all()):
                raise AssertionError(
                    f"{layer_title(output, position)}, utterance {row}: values up to {float(beyond.abs().max()):.3g} "
                    f"beyond its {count} frames, expected exactly 0."
                )


def check_frame_times(upstream: Upstream) -> None:
    """`frame_times()` is `(B, F, 2)` seconds inside the audio, in order, one stride apart, and 0 beyond the length.

    Only an upstream that pads (`min_samples` below `receptive_field`) may have windows that overhang the ends of the audio;
    their centres must be inside.
    """
    with evaluating(upstream), torch.no_grad():
        wavs = clips(upstream)
        output = upstream(wavs)
        times = output.frame_times()
    expected = (*output.hidden_states[0].shape[:2], 2)
    if not isinstance(times, Tensor) or not times.is_floating_point() or times.shape != expected:
        shape = tuple(getattr(times, "shape", ()))
        raise AssertionError(f"frame_times() has shape {shape}, expected {expected} in floats.")
    for row, wav in enumerate(wavs):
        count = int(output.lengths[row])
        if not bool((times[row, count:] == 0).all()):
            raise AssertionError(f"frame_times() of utterance {row} is not 0 beyond its {count} frames.")
        _expect_times(upstream, times[row, :count].double(), row, len(wav) / upstream.sample_rate)


def _expect_times(upstream: Upstream, times: Tensor, row: int, duration: float) -> None:
    start, end = times[:, 0], times[:, 1]
    middle = (start + end) / 2
    # Where an upstream pads or mirrors the edges, as a centred STFT does, its outer windows reach beyond the audio.
    pads = upstream.min_samples < upstream.receptive_field
    overhang = upstream.receptive_field / upstream.sample_rate if pads else 0.0
    rules = [
        ("starts before the audio", start < -TIME_TOLERANCE - overhang),
        (f"ends after the audio, which lasts {duration:.4f} s", end > duration + TIME_TOLERANCE + overhang),
        ("is centred outside the audio", (middle < -TIME_TOLERANCE) | (middle > duration + TIME_TOLERANCE)),
        ("does not end after it starts", end <= start),
        ("starts before the frame in front of it", _falls(start)),
        ("ends before the frame in front of it", _falls(end)),
        ("covers the same audio as the frame in front of it", _stays(start) & _stays(end)),
    ]
    if upstream.frame_stride is not None:
        step = upstream.frame_stride / upstream.sample_rate
        # A window cut at the edge of the audio starts at 0 or ends with it; only whole windows are one stride apart.
        whole = (start[:-1] > TIME_TOLERANCE) & (end[1:] < duration - TIME_TOLERANCE)
        uneven = whole & ((start[1:] - start[:-1] - step).abs() > TIME_TOLERANCE)
        rules.append((f"is not one frame stride ({step:.4f} s) after the frame in front of it", _later(uneven)))
    for what, broken in rules:
        if bool(broken.any()):
            frame = int(broken.nonzero()[0])
            raise AssertionError(
                f"utterance {row}, frame {frame} {what}: it is said to be {float(start[frame]):.5f} s to "
                f"{float(end[frame]):.5f} s."
            )


def _later(pairs: Tensor) -> Tensor:
    return torch.cat([pairs.new_zeros(1), pairs])


def _falls(values: Tensor) -> Tensor:
    return _later(values[1:] < values[:-1] - TIME_TOLERANCE)


def _stays(values: Tensor) -> Tensor:
    return _later((values[1:] - values[:-1]).abs() <= TIME_TOLERANCE)


def check_extras(upstream: Upstream) -> None:
    """`extras` is a mapping with names of its own, and its tensors are on the device of the hidden states."""
    with evaluating(upstream), torch.no_grad():
        output = upstream(clips(upstream))
    if not isinstance(output.extras, Mapping):
        raise AssertionError(f"extras is a {type(output.extras).__name__}, expected a mapping of name to tensor.")
    for key, value in output.extras.items():
        if not isinstance(key, str) or not key:
            raise AssertionError(f"extras has the key {key!r}, expected a name.")
        if key in ("hidden_states", "last_hidden_state", "lengths") or key.startswith("hidden_state_"):
            raise AssertionError(f"extras has the key {key!r}, which already means a part of every output.")
        if isinstance(value, Tensor) and value.device != output.hidden_states[0].device:
            raise AssertionError(
                f"extras[{key!r}] is on {value.device}, but the hidden states are on {output.hidden_states[0].device}."
            )
