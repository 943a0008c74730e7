"""`Featurizer`: a trainable weighted sum over the layers of an upstream. Shapes: `B` batch, `F` frames, `D` dim, `L` layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubcore.errors import OptionError
from hubcore.layer_sum import LayerSum
from hubcore.protocol import Upstream, UpstreamOutput
from hubcore.text import plural
from hubcore.upstream import UpstreamBase


class Featurizer(nn.Module):
    """One feature sequence for each utterance, the softmax-weighted sum of hidden states (SUPERB, Yang et al. 2021).

    `weights` `(L,)` is trained with the downstream task; zeros at first, which is the plain mean. No forward pass is run
    at construction. Lengths come from the output, so an upstream with a variable frame rate works.

    Of several upstreams, `Featurizer([a, b])(wavs, [a(wavs), b(wavs)])`, each has a weighted sum of its own, a `Featurizer` in
    `parts`. Their features stand side by side, the frames lined up by time: beside each frame of the first upstream stands
    that of each other one whose centre is nearest.

    Args:
        upstream: read for its layers and widths, it is neither kept nor changed; or a list of upstreams.
        feature_selection: `"hidden_states"`, `"last_hidden_state"` or `"hidden_state_<k>"`.
        upstream_device: where the hidden states will be; the weights are put there.
        layer_selection: one layer or a list of layers of `hidden_states`, negative ones counted from the end; if None, those
            that the upstream returns by default, which are all unless its card says otherwise.
        normalize: whether each layer is layer-normed, without trained scale, before the sum. s3prl: `normalize`.

    Raises:
        OptionError: no such feature or layer, or layers of different widths.

    Example:
        >>> import torch
        >>> from hubcore import Featurizer, hub
        >>> model = hub.load("wav2vec2_tiny_prompts")
        >>> featurizer = Featurizer(model, layer_selection=[0, 2, 4])
        >>> wavs = [torch.randn(16000), torch.randn(8000)]
        >>> [tuple(f.shape) for f in featurizer(wavs, model(wavs, layers=featurizer.layers))]
        [(49, 96), (24, 96)]
    """

    output_dim: int
    """The width `D` of the features."""
    downsample_rate: int | None
    """Samples between frames; None where the upstream's frame rate varies. s3prl: `downsample_rate`."""
    _first_frame: int | None

    def __init__(
        self,
        upstream: Upstream | Sequence[Upstream],
        feature_selection: str = "hidden_states",
        upstream_device: torch.device | str | None = None,
        layer_selection: int | Sequence[int] | None = None,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        upstream = getattr(upstream, "module", upstream)  # as DistributedDataParallel wraps it
        self.feature_selection = feature_selection
        self.normalize = normalize
        if isinstance(upstream, Sequence):
            parts = [Featurizer(one, feature_selection, upstream_device, layer_selection, normalize) for one in upstream]
            if not parts:
                raise OptionError("there is no upstream. A featurizer needs one or more.")
            for number, part in enumerate(parts):
                self.add_module(str(number), part)
            self.output_dim = sum(part.output_dim for part in parts)
            self.downsample_rate, self._first_frame = parts[0].downsample_rate, parts[0]._first_frame
            return
        self.layer_names = tuple(upstream.layer_names)
        self._hidden_sizes = tuple(upstream.hidden_sizes)
        given = getattr(upstream, "default_layers", None)
        self.layers = _select(feature_selection, layer_selection, self.layer_names, given)
        """Indices of the layers that are summed: `upstream(wavs, layers=featurizer.layers)` computes no other."""
        sizes = [upstream.hidden_sizes[layer] for layer in self.layers]
        if len(set(sizes)) > 1:
            widths = ", ".join(f"{self.layer_names[i]}: {size}" for i, size in zip(self.layers, sizes, strict=True))
            raise OptionError(
                f"the layers have different widths ({widths}). A weighted sum needs one width. "
                "Choose layers of one width with layer_selection."
            )
        self.output_dim = sizes[0]
        self.downsample_rate = upstream.frame_stride
        first = getattr(upstream, "min_samples", None)
        self._first_frame = first if first == getattr(upstream, "receptive_field", None) else None
        self.weights = nn.Parameter(torch.zeros(len(self.layers), device=upstream_device))

    @property
    def parts(self) -> tuple[Featurizer, ...]:
        """The featurizer of each upstream, where there are several."""
        return tuple(part for part in self.children() if isinstance(part, Featurizer))

    def forward(self, wavs: Sequence[Tensor] | Tensor, out: UpstreamOutput | Sequence[UpstreamOutput]) -> list[Tensor]:
        """One `(F_i, D)` tensor for each utterance, without padding.

        Args:
            wavs: the waveforms that gave `out`; only their number is used, as a check.
            out: the upstream's output for them, or the output of each of several.

        Raises:
            OptionError: `out` is of another batch, or lacks a layer.
        """
        for one in out if isinstance(out, Sequence) else (out,):
            if len(wavs) != len(one.lengths):
                raise OptionError(
                    f"{plural(len(wavs), 'waveform')} given, but the output is of {plural(len(one.lengths), 'utterance')}. "
                    "Both must be of one call: featurizer(wavs, upstream(wavs))."
                )
        features, lengths = self.padded(out)
        return [row[:length] for row, length in zip(features, lengths.tolist(), strict=True)]

    def tolist(self, paired_wavs: Sequence[Tensor], paired_feature: Tensor) -> list[Tensor]:
        """Padded features `(B, F, D)` as one `(F_i, D)` tensor for each waveform. s3prl: `Featurizer.tolist`.

        Lengths are computed from the waveforms, as in s3prl, but where frames are computed without padding they are those that
        the upstream gives, none repeated. `forward` takes them from its output, which is right for every upstream.

        Raises:
            OptionError: the frame rate depends on the input, or the features are of another batch.
        """
        if self.downsample_rate is None or paired_feature.ndim != 3 or len(paired_wavs) != len(paired_feature):
            raise OptionError(
                f"tolist was given {plural(len(paired_wavs), 'waveform')}, features of shape {tuple(paired_feature.shape)}, "
                f"and {self.downsample_rate} samples between frames. It needs (B, F, D) features of as many waveforms and a "
                "fixed rate. Use featurizer(wavs, upstream(wavs))."
            )
        stride, first = self.downsample_rate, self._first_frame
        counts = [round(len(w) / stride) if first is None else (len(w) - first) // stride + 1 for w in paired_wavs]
        return [rows[:count] for rows, count in zip(paired_feature, counts, strict=True)]

    def padded(self, out: UpstreamOutput | Sequence[UpstreamOutput]) -> tuple[Tensor, Tensor]:
        """`((B, F, D), lengths (B,))`, exactly zero beyond each length."""
        parts, outs = self.parts or (self,), [*out] if isinstance(out, Sequence) else [out]
        if len(outs) != len(parts):
            raise OptionError(f"{plural(len(outs), 'output')} given for {len(parts)} upstreams. Pass one of each.")
        if self.parts:
            return _side_by_side([part.padded(one)[0] for part, one in zip(parts, outs, strict=True)], outs)
        (out,) = outs
        self._check_origin(out)
        states = []
        for layer in self.layers:
            if layer not in out.layers:
                raise OptionError(
                    f"the output lacks layer {layer} ({self.layer_names[layer]}). It has {list(out.layers)}. "
                    "Call the upstream with layers=featurizer.layers, or without layers."
                )
            state = out.hidden_states[out.layers.index(layer)]
            if state.is_inference() and torch.is_grad_enabled() and self.weights.requires_grad:
                raise OptionError(
                    "the output was made under torch.inference_mode(). The trainable weights cannot have gradients through "
                    "such tensors. Run the upstream under torch.no_grad() instead, or the featurizer under inference_mode too."
                )
            states.append(state)
        return self._wanted().sum_of(states), out.lengths

    def extract(
        self,
        upstream: Upstream | Sequence[Upstream],
        wavs: Sequence[Tensor] | Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        **options: Any,
    ) -> list[Tensor]:
        """`forward` of an upstream's call, `(F_i, D)` for each utterance: layers are summed as they come.

        Under `torch.no_grad()` only one hidden state is in memory at a time, and nothing is padded, where the upstream is a
        `UpstreamBase`; any other one is called with `layers`, and its output summed. Training the weights keeps all layers.

        Args:
            upstream: the upstream that this featurizer was made for, or each of several. Without gradients of its own
                (`upstream.requires_grad_(False)`), it takes no more memory while the weights are trained than its layers do.
            wavs: 1-D float tensors, or one `(B, T)` tensor.
            lengths: `(B,)` samples of each row, with a `(B, T)` tensor.
            **options: keywords of the upstream's call.

        Raises:
            OptionError: the upstream is another one, or does not take an option.

        Example:
            >>> import torch
            >>> from hubcore import Featurizer, hub
            >>> model = hub.load("wav2vec2_tiny_prompts").requires_grad_(False)
            >>> features = Featurizer(model).extract(model, [torch.randn(16000), torch.randn(8000)])
            >>> [tuple(f.shape) for f in features], features[0].requires_grad
            ([(49, 96), (24, 96)], True)
        """
        parts, upstreams = self.parts or (self,), [*upstream] if isinstance(upstream, Sequence) else [upstream]
        if len(upstreams) != len(parts):
            raise OptionError(f"there are {len(upstreams)} upstreams, and the featurizer is of {len(parts)}. Pass one of each.")
        outs = [part._summed(one, wavs, lengths, options) for part, one in zip(parts, upstreams, strict=True)]
        if not self.parts:
            return [rows for (rows,) in outs[0].unpad()]
        features, counts = _side_by_side([out.hidden_states[0] for out in outs], outs)
        return [row[:count] for row, count in zip(features, counts.tolist(), strict=True)]

    def _summed(
        self, upstream: Upstream, wavs: Sequence[Tensor] | Tensor, lengths: Any, options: Mapping[str, Any]
    ) -> UpstreamOutput:
        """The output of an upstream with the weighted sum as its only hidden state."""
        known = getattr(upstream, "module", upstream)
        if (tuple(known.layer_names), tuple(known.hidden_sizes)) != (self.layer_names, self._hidden_sizes):
            raise OptionError(
                f"the upstream has the layers {list(known.layer_names)}, but this featurizer was made for "
                f"{list(self.layer_names)}. Make a featurizer for this upstream."
            )
        wanted = self._wanted()
        asked = wanted if isinstance(known, UpstreamBase) else list(self.layers)
        call: Callable[..., UpstreamOutput] = upstream
        out = call(wavs, lengths, layers=asked, **options)
        if wanted.answered:
            return out
        total, _ = self.padded(out)
        return replace(out, hidden_states=(total,), layers=(max(self.layers),), layer_names=("weighted_sum",))

    def _wanted(self) -> LayerSum:
        return LayerSum(self.layers, functional.softmax(self.weights, dim=0), self.normalize)

    def _check_origin(self, out: UpstreamOutput) -> None:
        """Raises `OptionError` for the output of an upstream with other layers or widths than the featurizer was made for."""
        theirs = [(name, state.shape[-1]) for name, state in zip(out.layer_names, out.hidden_states, strict=True)]
        ours = [*zip(self.layer_names, self._hidden_sizes, strict=True)]
        if any(layer >= len(ours) or ours[layer] != got for layer, got in zip(out.layers, theirs, strict=True)):
            raise OptionError(
                f"the output has the layers {theirs}, but this featurizer was made for {ours}. Both must belong to one "
                "upstream. Make a featurizer for the upstream that gave this output."
            )

    def extra_repr(self) -> str:
        """Settings for `print(featurizer)`."""
        if self.parts:
            return f"output_dim={self.output_dim}"
        return f"layers={list(self.layers)}, output_dim={self.output_dim}, normalize={self.normalize}"


def _side_by_side(features: Sequence[Tensor], outs: Sequence[UpstreamOutput]) -> tuple[Tensor, Tensor]:
    """Features `(B, F, D)` of several upstreams beside those of the first, at its frames, and its lengths."""
    first, *others = outs
    counts, centres = first.lengths.tolist(), [out.frame_times().mean(-1) for out in outs]  # (B, F) each
    joined = [features[0]]
    for rows, out, own in zip(features[1:], others, centres[1:], strict=True):
        if len(out.lengths) != len(counts):
            raise OptionError(
                f"the outputs hold {len(counts)} and {plural(len(out.lengths), 'utterance')}. All must be of one batch."
            )
        lined_up = rows.new_zeros(*features[0].shape[:2], rows.shape[-1])
        for item, (here, there) in enumerate(zip(counts, out.lengths.tolist(), strict=True)):
            between = (own[item, 1:there] + own[item, : there - 1]) / 2
            nearest = torch.searchsorted(between, centres[0][item, :here].to(between))
            lined_up[item, :here] = rows[item, nearest]
        joined.append(lined_up)
    return torch.cat(joined, dim=-1), first.lengths


def _select(
    feature: str, layer_selection: int | Sequence[int] | None, names: Sequence[str], default: Sequence[int] | None
) -> tuple[int, ...]:
    """The layer indices that a selection means, `default` being what the upstream returns where a call names no layer."""
    count = len(names)
    if feature != "hidden_states":
        if layer_selection is not None:
            raise OptionError(
                f"feature_selection is {feature!r}, one layer, and layer_selection is {layer_selection!r}. Only "
                "feature_selection='hidden_states' can be narrowed. Leave one of them out."
            )
        if feature == "last_hidden_state":
            return (max(default or (count - 1,)),)
        prefix, _, index = feature.rpartition("_")
        if prefix == "hidden_state" and index.isdecimal() and int(index) < count:
            return (int(index),)
        raise OptionError(
            f"there is no feature called {feature!r}. There are hidden_states, last_hidden_state, and hidden_state_0 to "
            f"hidden_state_{count - 1}."
        )
    if layer_selection is None:
        return tuple(dict.fromkeys(default or range(count)))
    chosen = [layer_selection] if isinstance(layer_selection, int) else [*layer_selection]
    for layer in chosen:
        if not isinstance(layer, int) or isinstance(layer, bool) or not -count <= layer < count:
            raise OptionError(
                f"layer_selection has {layer!r}. The upstream has {plural(count, 'hidden state')}, "
                f"0 ({names[0]}) to {count - 1} ({names[-1]}). "
                f"Choose from -{count} to {count - 1}."
            )
    if not chosen or len({layer % count for layer in chosen}) < len(chosen):
        raise OptionError(f"layer_selection is {layer_selection!r}. It must name at least one layer, and none twice.")
    return tuple(layer % count for layer in chosen)
