"""Checks of an upstream as an object that is kept, called again, moved, copied, saved and trained.

Each works on a copy wherever it must change something. Shapes: `B` batch, `F` frames, `D` dim.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from hubcore.protocol import Upstream, UpstreamOutput
from hubcore.testing.compare import DTYPE_TOLERANCE, evaluating, expect_same_output, layer_title, valid_frames
from hubcore.testing.inputs import clip, clips
from hubcore.text import listed

TRAIN_CALLS = 32
"""Forward passes in train mode: enough to meet a layer drop of 5 % in a model of two blocks with 96 % probability."""


def check_determinism(upstream: Upstream) -> None:
    """Two calls in eval mode give equal bits, and a later call does not change an earlier output."""
    with evaluating(upstream), torch.no_grad():
        wavs = clips(upstream)
        first = upstream(wavs)
        kept = [state.clone() for state in first.hidden_states]
        upstream([wav * 0.5 for wav in clips(upstream, seed=40)])
        for position, (state, before) in enumerate(zip(first.hidden_states, kept, strict=True)):
            if not torch.equal(state, before):
                raise AssertionError(f"{layer_title(first, position)} of an earlier output was changed by a later call.")
        expect_same_output(upstream(wavs), first, what="a second call in eval mode, compared with the first")


def check_inputs_unchanged(upstream: Upstream) -> None:
    """A call leaves the waveforms, and the list that holds them, as they were."""
    with evaluating(upstream), torch.no_grad():
        wavs = clips(upstream)
        given, before = list(wavs), [wav.clone() for wav in wavs]
        upstream(given)
        if len(given) != len(wavs) or any(now is not then for now, then in zip(given, wavs, strict=True)):
            raise AssertionError("the call put other objects into the caller's list of waveforms.")
        for item, (wav, was) in enumerate(zip(wavs, before, strict=True)):
            _expect_untouched(wav, was, f"item {item} of the list")
        rows = torch.stack([clip(upstream, len(wavs[0]), seed=seed) for seed in (41, 42)])
        was = rows.clone()
        upstream(rows, torch.tensor([len(wavs[0]), len(wavs[1])]))
        _expect_untouched(rows, was, "the (B, T) tensor")


def _expect_untouched(wav: Tensor, before: Tensor, what: str) -> None:
    if not torch.equal(wav, before):
        raise AssertionError(f"{what} was changed in place by the call, by up to {float((wav - before).abs().max()):.3g}.")


def check_strided_input(upstream: Upstream) -> None:
    """A waveform that is a strided view of other memory gives what a contiguous one gives."""
    with evaluating(upstream), torch.no_grad():
        wavs = clips(upstream)
        views = [torch.stack([wav, -wav], dim=1)[:, 0] for wav in wavs]
        what = "waveforms that are strided views, compared with contiguous ones"
        expect_same_output(upstream(views), upstream(wavs), what=what)


def check_inference_mode(upstream: Upstream) -> None:
    """A call in `torch.inference_mode` gives equal bits, and a call that trains works after it."""
    copied = copy.deepcopy(upstream)
    wavs = clips(upstream)
    with evaluating(copied):
        with torch.inference_mode():
            inferred = copied(wavs)
        with torch.no_grad():
            expect_same_output(inferred, copied(wavs), what="a call in inference mode, compared with one outside")
        try:
            torch.autograd.backward(_probe_loss(copied([wav.clone().requires_grad_() for wav in wavs])))
        except Exception as error:
            raise AssertionError(f"training after a call in inference mode raised {type(error).__name__}: {error}") from error


def check_train_mode_layers(upstream: Upstream) -> None:
    """In train mode every call returns all hidden states, and no block is skipped."""
    wavs = clips(upstream, (3, 5))
    with evaluating(upstream), torch.no_grad():
        expected = upstream(wavs)
        same = {k for k in range(1, len(expected.hidden_states)) if _repeats(expected, k)}
    with evaluating(upstream, train=True), torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for call in range(TRAIN_CALLS):
            output = upstream(wavs)
            if len(output.hidden_states) != len(expected.hidden_states):
                raise AssertionError(
                    f"call {call} in train mode gave {len(output.hidden_states)} hidden states, eval mode gives "
                    f"{len(expected.hidden_states)}. Layer drop must be 0 unless a pre-training loop asks for it."
                )
            for k in range(1, len(output.hidden_states)):
                if k not in same and _repeats(output, k):
                    raise AssertionError(
                        f"call {call} in train mode: {layer_title(output, k)} is an exact copy of the layer before it "
                        "for an utterance, so a block was skipped. Layer drop must be 0 unless a pre-training loop asks for it."
                    )


def _repeats(output: UpstreamOutput, k: int) -> bool:
    rows = range(len(output.lengths))
    return any(torch.equal(*valid_frames(output, row)[k - 1 : k + 1]) for row in rows)


def check_device_follows_input(upstream: Upstream) -> None:
    """Every tensor of the output is on the device of the input, also where another device is the default."""
    with evaluating(upstream), torch.no_grad():
        wavs = clips(upstream)
        try:
            with torch.device("meta"):
                output = upstream(wavs)
                times, mask = output.frame_times(), output.mask
        except Exception as error:
            raise AssertionError(
                f"with another default device the call raised {type(error).__name__} ({error}). A tensor is made without "
                "device=; make it on the device of the waveforms."
            ) from error
        _expect_device(output, times, mask, wavs[0].device)
    if torch.cuda.is_available() and isinstance(upstream, nn.Module):
        moved = copy.deepcopy(upstream).cuda()
        with evaluating(moved), torch.no_grad():
            wavs = [wav.cuda() for wav in wavs]
            output = moved(wavs)
            _expect_device(output, output.frame_times(), output.mask, wavs[0].device)


def _expect_device(output: UpstreamOutput, times: Tensor, mask: Tensor, device: torch.device) -> None:
    parts = {layer_title(output, k): state for k, state in enumerate(output.hidden_states)}
    parts |= {"lengths": output.lengths, "frame_times()": times, "mask": mask}
    parts |= {f"extras[{key!r}]": value for key, value in output.extras.items() if isinstance(value, Tensor)}
    for name, tensor in parts.items():
        if tensor.device != device:
            raise AssertionError(f"{name} is on the device {tensor.device}, but the waveforms are on {device}.")


def check_dtype_follows_input(upstream: Upstream) -> None:
    """A float64 model on float64 waveforms computes in float64 and gives nearly the same values."""
    wavs = clips(upstream)
    precise = copy.deepcopy(upstream)
    if isinstance(precise, nn.Module):
        precise.double()
    with evaluating(upstream), evaluating(precise), torch.no_grad():
        try:
            output = precise([wav.double() for wav in wavs])
        except Exception as error:
            raise AssertionError(f"in float64 the call raised {type(error).__name__}: {error}") from error
        for position, state in enumerate(output.hidden_states):
            if state.dtype != torch.float64:
                raise AssertionError(
                    f"{layer_title(output, position)} is {state.dtype} for a float64 model and float64 waveforms."
                )
        what = "the float32 run, compared with the float64 run"
        expect_same_output(upstream(wavs), output, what=what, tolerance=DTYPE_TOLERANCE)


def _probe_loss(output: UpstreamOutput) -> Tensor:
    """A number that depends on every value of every layer, each with a weight of its own."""
    generator = torch.Generator(device="cpu").manual_seed(0)
    terms = []
    for row in range(len(output.lengths)):
        for frames in valid_frames(output, row):
            weights = torch.randn(frames.shape, generator=generator, dtype=torch.float64, device="cpu")
            terms.append((frames * weights.to(frames.device, frames.dtype)).mean())
    return torch.stack(terms).sum()


def gradients(upstream: Upstream) -> Iterator[tuple[str, Tensor | None]]:
    """The name and the gradient of each parameter, of a copy in train mode whose parameters may all learn."""
    trained = copy.deepcopy(upstream)
    if not isinstance(trained, nn.Module):
        return
    for parameter in trained.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
        parameter.grad = None
    with evaluating(trained, train=True), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        loss = _probe_loss(trained(clips(trained)))
        if not loss.requires_grad:
            raise AssertionError("the output is cut off from the parameters: it carries no gradient at all.")
        torch.autograd.backward(loss)
    for name, parameter in trained.named_parameters():
        if parameter.requires_grad:
            yield name, parameter.grad


def check_gradients_arrive(upstream: Upstream, *, exempt_parameters: frozenset[str] = frozenset()) -> None:
    """Every parameter receives a finite gradient from the hidden states; without parameters, the waveform does."""
    if not isinstance(upstream, nn.Module) or next(upstream.parameters(), None) is None:
        _expect_waveform_gradient(upstream)
        return
    found = {name: grad for name, grad in gradients(upstream) if name not in exempt_parameters}
    missing = [name for name, grad in found.items() if grad is None]
    if missing:
        raise AssertionError(f"{len(missing)} of {len(found)} parameters receive no gradient: {listed(missing)}.")
    broken = [name for name, grad in found.items() if grad is not None and not bool(grad.isfinite().all())]
    if broken:
        raise AssertionError(f"the gradients of {len(broken)} parameters are not finite: {listed(broken)}.")


def _expect_waveform_gradient(upstream: Upstream) -> None:
    wavs = [wav.requires_grad_() for wav in clips(upstream)]
    with evaluating(upstream):
        try:
            loss = _probe_loss(upstream(wavs))
        except RuntimeError as error:
            raise AssertionError(f"with waveforms that require a gradient the call raised: {error}") from error
        if not loss.requires_grad:
            raise AssertionError("the output is cut off from the waveforms: it carries no gradient.")
        torch.autograd.backward(loss)
    for item, wav in enumerate(wavs):
        if wav.grad is None or not bool(wav.grad.isfinite().all()):
            raise AssertionError(f"the gradient of waveform {item} is {'missing' if wav.grad is None else 'not finite'}.")
        if not bool(wav.grad.any()):
            raise AssertionError(f"the gradient of waveform {item} is zero at every sample.")


def check_gradients_nonzero(upstream: Upstream, *, exempt_parameters: frozenset[str] = frozenset()) -> None:
    """No parameter's gradient is zero throughout: each has an influence on the hidden states."""
    if not isinstance(upstream, nn.Module) or next(upstream.parameters(), None) is None:
        return
    found = {name: grad for name, grad in gradients(upstream) if name not in exempt_parameters}
    idle = [name for name, grad in found.items() if grad is not None and not bool(grad.any())]
    if idle:
        raise AssertionError(f"the gradients of {len(idle)} of {len(found)} parameters are zero: {listed(idle)}.")


def check_state_dict(upstream: Upstream) -> None:
    """A copy with other weights gives the same output once the state dict is loaded, strictly."""
    if not isinstance(upstream, nn.Module):
        return
    other = copy.deepcopy(upstream)
    state = {name: value.clone() if isinstance(value, Tensor) else value for name, value in upstream.state_dict().items()}
    with evaluating(upstream), evaluating(other), torch.no_grad():
        wavs = clips(upstream)
        want = upstream(wavs)
        saved = [value for value in other.state_dict(keep_vars=True).values() if isinstance(value, Tensor)]
        for tensor in {id(tensor): tensor for tensor in [*other.parameters(), *saved]}.values():
            if tensor.is_floating_point():
                tensor.mul_(1.25).add_(0.01)
        changed = other(wavs)
        has_weights = next(other.parameters(), None) is not None
        if has_weights and all(map(torch.equal, changed.hidden_states, want.hidden_states)):
            raise AssertionError("changing every weight of a copy changes no output: the call uses a stale copy of them.")
        try:
            other.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise AssertionError(f"loading the upstream's own state dict strictly failed: {error}") from error
        what = "a copy with other weights that loaded the state dict, compared with the original"
        expect_same_output(other(wavs), want, what=what)


def check_pickling(upstream: Upstream) -> None:
    """A pickled and a deep-copied upstream have the same class, the same attributes and equal bits."""
    with evaluating(upstream), torch.no_grad():
        wavs = clips(upstream)
        want = upstream(wavs)
        for what, duplicate in (("pickled", _pickled(upstream)), ("deep-copied", copy.deepcopy(upstream))):
            if type(duplicate) is not type(upstream):
                raise AssertionError(f"the {what} upstream is a {type(duplicate).__name__}, not {type(upstream).__name__}.")
            for name in Upstream.__annotations__:
                if getattr(duplicate, name) != getattr(upstream, name):
                    raise AssertionError(f"the {what} upstream has another {name}: {getattr(duplicate, name)!r}.")
            with evaluating(duplicate):
                expect_same_output(duplicate(wavs), want, what=f"the {what} upstream, compared with the original")


def _pickled(upstream: Upstream) -> Upstream:
    try:
        # Safe although it is pickle: these bytes were made on this line, from an object of this process.
        duplicate: Upstream = pickle.loads(pickle.dumps(upstream))  # noqa: S301
    except Exception as error:
        raise AssertionError(f"pickling raised {type(error).__name__}: {error}") from error
    return duplicate
