"""An upstream as a graph for other programs, ONNX or torch.export, that takes any batch of any lengths.

What is traced is `EncoderUpstream.padded`: the same modules and weights, on one padded tensor with masks. The file appears only
if the runtime gives the upstream's own numbers on waveforms of lengths that were not traced, alone and in a batch.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, SupportsIndex

import torch
from torch import Tensor, nn

from hubcore.errors import CheckpointError, CheckpointLayoutError, HubcoreError, OptionError, UnavailableUpstreamError
from hubcore.extract.batches import choose_layers
from hubcore.text import error_text
from hubcore.tools.convert import check_target, write_checked
from hubcore.tools.verify import fixed_clip
from hubcore.version import VERSION

GraphFormat = Literal["onnx", "torch-export"]
SUFFIXES: dict[GraphFormat, str] = {"onnx": ".onnx", "torch-export": ".pt2"}
TOLERANCE = 1e-4
"""Largest difference from the upstream's own numbers, as a share of the largest of a hidden state, or of 1."""
_MOST_BYTES = (1 << 31) - (1 << 24)
"""Weights that one ONNX file holds: a protobuf message has at most 2 GiB."""
_Run = Callable[[Tensor, Tensor], Sequence[Tensor]]


@dataclass(frozen=True)
class Graph:
    """Result of `export_graph`: the file written, and how it was checked."""

    path: Path
    format: str
    upstream: str
    """The class."""
    layers: tuple[str, ...]
    """Names of the hidden states, which are those of its outputs."""
    difference: float
    """Largest difference from the upstream's own numbers, see `TOLERANCE`."""
    bytes: int


def export_graph(
    upstream: Any,
    out: str | os.PathLike[str],
    *,
    format: GraphFormat,
    layers: str | SupportsIndex | Sequence[str | SupportsIndex] | None = None,
    force: bool = False,
) -> Graph:
    """Writes an upstream as a graph whose inputs are `wavs` `(B, T)` and `lengths` `(B,)`, int64, in samples.

    Its outputs are the hidden states `(B, F, D)`, by the names of the layers, and `frame_lengths` `(B,)`. Nothing is checked in
    it. A record of the card, the layers, sample rate and stride goes along: `hubcore` in the metadata of an ONNX model, the
    extra file `hubcore.json` of an exported program, as JSON.

    Args:
        upstream: of `hub.load`, in eval mode, on the CPU and in float32.
        out: the new file, ending in `.onnx` or `.pt2`.
        format: "onnx", which needs `hubcore[onnx]`, or "torch-export".
        layers: see `hubcore.extract.choose_layers`; the card's default, or all.
        force: whether an existing file may be replaced.

    Raises:
        OptionError: `out` cannot be written, or there is no such layer, or the upstream is in train mode.
        CheckpointLayoutError: this upstream cannot be traced.
        UnavailableUpstreamError: a package is not installed.
        CheckpointError: the runtime gives other numbers. Nothing is left then.

    Example:
        >>> import tempfile
        >>> from hubcore import hub
        >>> made = export_graph(hub.load("fbank"), Path(tempfile.mkdtemp()) / "fbank.pt2", format="torch-export")
        >>> made.layers, made.difference < 1e-6
        (('features',), True)
    """
    out, name = Path(out), type(upstream).__name__
    check_target(out, force, suffix=SUFFIXES[format])
    if not hasattr(upstream, "padded"):
        what = f"{name} cannot be written as {format}: it has no method padded, from which a graph is made."
        raise CheckpointLayoutError(what, "Its authors can inherit hubcore.nn.EncoderUpstream, which has it.")
    if upstream.training:
        raise OptionError(f"{name} is in train mode, in which dropout would be written too. Call eval() first.")
    size = sum(weight.nbytes for weight in (*upstream.parameters(), *upstream.buffers()))
    if format == "onnx":
        _import_onnx()
        if size > _MOST_BYTES:
            what = f"{name} has {size / 1e9:.1f} GB of weights, and one ONNX file holds 2.1."
            raise CheckpointLayoutError(what, "Export it as torch-export.")
    chosen = choose_layers(upstream.default_layers or "all" if layers is None else layers, upstream.layer_names).indices
    names = tuple(upstream.layer_names[layer] for layer in chosen)
    about = json.dumps(_about(upstream, chosen), sort_keys=True)
    with torch.no_grad(), _quiet():
        program = _trace(upstream, chosen, format)
        with write_checked(out, force) as temporary:
            if format == "onnx":
                run = _write_onnx(program, temporary, names, about)
            else:
                run = _write_program(program, temporary, about)
            difference = _compare(upstream, chosen, run, out)
        return Graph(out, format, name, names, difference, out.stat().st_size)


class _Padded(nn.Module):
    """`padded` as a module that gives tensors, which is what is traced."""

    def __init__(self, upstream: Any, layers: Sequence[int]) -> None:
        super().__init__()
        self.upstream, self.layers = upstream, layers

    def forward(self, wavs: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        states, frames = self.upstream.padded(wavs, lengths, self.layers)
        return (*states, frames)


def _trace(upstream: Any, layers: Sequence[int], format: str) -> Any:
    """The exported program, for any batch and any lengths from `min_samples` on."""
    from torch.export import Dim, export
    from torch.fx.experimental import _config

    most = getattr(upstream, "most_samples", None)
    short, long = upstream.min_samples + 700, upstream.min_samples + 1400
    example = (torch.zeros(2, min(long, most or long)), torch.tensor([short, min(long, most or long)]))
    samples = Dim("samples", min=upstream.min_samples, max=most)
    batch = Dim("batch", min=1)
    module = _Padded(upstream, layers).eval()
    try:
        upstream([example[0][0]], layers=[0])  # what is computed once and kept is a constant of the graph then
        # One utterance, or one frame, is no graph of its own.
        with _config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
            program = export(module, example, dynamic_shapes=({0: batch, 1: samples}, {0: batch}), strict=False)
    except HubcoreError as error:
        raise CheckpointLayoutError(f"{type(upstream).__name__} cannot be written as {format}: {error}") from error
    except Exception as error:
        reason = error_text(error).partition(" Exception raised from ")[0]  # of C++, whose frames follow
        what = f"{type(upstream).__name__} cannot be written as {format}: torch.export does not trace it ({reason})."
        raise CheckpointLayoutError(what, "Its authors can build it from the parts of hubcore.nn, which are traced.") from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # the paths of this machine's files
    return program


def _write_program(program: Any, path: Path, about: str) -> _Run:
    """Writes `torch.export`'s file, and reads it back."""
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={"hubcore.json": about})
    with path.open("rb") as file:
        loaded: _Run = torch.export.load(file).module()
    return loaded


def _write_onnx(program: Any, path: Path, names: Sequence[str], about: str) -> _Run:
    """Writes the ONNX model, and opens it in onnxruntime."""
    onnxruntime, clear = _import_onnx()
    try:
        made = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=["wavs", "lengths"],
            output_names=[*names, "frame_lengths"],
            custom_translation_table={torch.ops.aten._fft_r2c.default: _rfft},
        )
    except Exception as error:
        raise CheckpointLayoutError(f"torch does not write this upstream as ONNX ({error_text(error)}).") from error
    if made is None:
        raise CheckpointLayoutError("torch does not write this upstream as ONNX.")
    clear(made.model)  # paths of this machine's files
    made.model.metadata_props["hubcore"] = about
    path.write_bytes(made.model_proto.SerializeToString())
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(wavs: Tensor, lengths: Tensor) -> Sequence[Tensor]:
        return [torch.from_numpy(array) for array in session.run(None, {"wavs": wavs.numpy(), "lengths": lengths.numpy()})]

    return run


def _rfft(self: Any, dim: Sequence[int], normalization: int, onesided: bool) -> Any:  # noqa: ARG001
    """The real Fourier transform in 64 bits: in 32, quiet bins of onnxruntime's are off by 1e-3."""
    from onnxscript import opset18

    double = 11  # onnx.TensorProto.DOUBLE
    wide = opset18.Cast(opset18.Unsqueeze(self, opset18.Constant(value_ints=[-1])), to=double)
    return opset18.CastLike(opset18.DFT(wide, axis=dim[0], onesided=int(onesided)), self)


def _import_onnx() -> tuple[Any, Callable[[Any], object]]:
    """onnxruntime, and a function that clears a model's record of where its nodes come from."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
        from onnx_ir.passes.common import ClearMetadataAndDocStringPass
    except ImportError as error:
        raise UnavailableUpstreamError(
            f"{error.name} is not installed, and ONNX files are written and checked with it.",
            "Run pip install 'hubcore[onnx]'.",
        ) from error
    return onnxruntime, ClearMetadataAndDocStringPass()


def _compare(upstream: Any, layers: Sequence[int], run: _Run, out: Path) -> float:
    """Largest difference of a runtime's numbers on waveforms of lengths that were not traced, alone and in a batch."""
    clip = fixed_clip(upstream.sample_rate)[: getattr(upstream, "most_samples", None)]
    least, whole = upstream.min_samples, len(clip)
    worst = 0.0
    for lengths in ([whole], [least], [max(least, whole // 3), whole - 1, max(least, whole // 2)]):
        wavs = [clip[:count] for count in lengths]
        wanted = upstream(wavs, layers=layers)
        padded = nn.utils.rnn.pad_sequence(wavs, batch_first=True)
        *states, frames = run(padded, torch.tensor(lengths))
        if not torch.equal(frames, wanted.lengths):
            raise _different(out, f"its frames are {frames.tolist()}, not {wanted.lengths.tolist()}")
        for name, state, theirs in zip(wanted.layer_names, states, wanted.hidden_states, strict=True):
            difference = float((state - theirs).abs().max() / theirs.abs().max().clamp(min=1))
            if not difference <= TOLERANCE:
                raise _different(out, f"{name} differs by {difference:.1e} on {lengths} samples")
            worst = max(worst, difference)
    return worst


def _different(out: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{out} was not written: run back, {what}.", "Tell the authors of the upstream's class.")


def _about(upstream: Any, layers: Sequence[int]) -> dict[str, Any]:
    """The record that goes along: plain values only."""
    card = upstream.card
    of_card = ("name", "license", "training_data", "paper", "note")
    return {
        **({key: getattr(card, key) for key in of_card} if card else {}),
        "upstream": type(upstream).__name__,
        "layers": [upstream.layer_names[layer] for layer in layers],
        "layer_indices": list(layers),
        "hidden_sizes": [upstream.hidden_sizes[layer] for layer in layers],
        "sample_rate": upstream.sample_rate,
        "frame_stride": upstream.frame_stride,
        "receptive_field": upstream.receptive_field,
        "min_samples": upstream.min_samples,
        "most_samples": getattr(upstream, "most_samples", None),
        "options": {key: value for key, value in upstream.options.items() if key != "layers"},
        "hubcore": VERSION,
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the remarks of the exporters about themselves."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
