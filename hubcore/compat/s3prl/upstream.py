"""`S3PRLUpstream`: s3prl's class of that name on a hubcore upstream. Shapes: `B` batch, `T` samples, `F` frames, `D` dim."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hubcore.compat.s3prl import hub
from hubcore.compat.s3prl.keys import rename
from hubcore.compat.s3prl.rates import downsample_rate
from hubcore.errors import AudioError, OptionError
from hubcore.ragged import check_wavs, frame_mask

Frames = Literal["real", "s3prl"]
FRAMES = "HUBCORE_S3PRL_FRAMES"
"""The environment variable for the frames of every `S3PRLUpstream` that is told nothing else."""

_SHORTEST_S = 0.05
"""s3prl appends zeros to what is shorter, in seconds."""


class S3PRLUpstream(nn.Module):
    """An upstream as s3prl's recipes call it: padded waveforms and lengths in, lists of hidden states and lengths out.

    `upstream` is the hubcore upstream itself. Unlike s3prl's class, this one is in eval mode when new, runs no forward pass
    when it is made, and gives every utterance what it gives alone. Layer drop is always off.

    **Frames.** With `frames="real"` an utterance has the frames that the model computes, and rows are exactly 0 beyond them.
    With `frames="s3prl"` an utterance of n samples has s3prl's nominal `(n - 1) // downsample_rate + 1` frames. Those that
    the model does not compute repeat the utterance's own last real frame, those that it computes beyond are cut, and rows are
    0 beyond the nominal length. An utterance of less than 50 ms is filled up with zeros first, as s3prl does with one that is
    alone. In s3prl only the longest row of a batch is treated so: shorter ones get frames of the padding.

    **A frame rate that depends on the input**: `downsample_rates`, and with it `frames="s3prl"`, exists only where a mean is
    set (for OFA wav2vec 2.0, `extra_conf={"frame_period_ms": 40}`); otherwise asking for it is an `OptionError`. Real
    frames need no such number.

    Args:
        name: a name of `available_names()`; the same as for `hubcore.hub.load`.
        path_or_url: your own checkpoint: a path, `https://...` or `hf://org/repo[@revision][/file]`. s3prl ignores it for
            names with a checkpoint of their own; here it is used, but for a path that is not there (a warning says so).
        refresh: whether the checkpoint is downloaded again.
        normalize: whether each hidden state is layer-normed, without trained scale.
        extra_conf: options of the upstream, such as `{"lambd": 0.3}`; an unknown one is an error. `frames` may stand here
            too, and wins, for recipes that only pass this dictionary on.
        randomize: whether the weights are thrown away for those of a new model of the same shape.
        frames: "real" or "s3prl"; what the environment variable `HUBCORE_S3PRL_FRAMES` says if None, else "real".

    Raises:
        UnknownUpstreamError: no such name.
        OptionError: an option is unknown or impossible.
        DownloadError: the checkpoint cannot be obtained.
        CheckpointError: it cannot be used.

    Example:
        >>> import torch
        >>> from hubcore.compat.s3prl import S3PRLUpstream
        >>> model = S3PRLUpstream("wav2vec2_tiny_prompts")
        >>> all_hs, all_lens = model(torch.randn(2, 16000), torch.tensor([16000, 8000]))
        >>> len(all_hs), tuple(all_hs[0].shape), all_lens[0].tolist()
        (5, (2, 49, 96), [49, 24])
    """

    def __init__(
        self,
        name: str,
        path_or_url: str | os.PathLike[str] | None = None,
        refresh: bool = False,
        normalize: bool = False,
        extra_conf: Mapping[str, Any] | None = None,
        randomize: bool = False,
        *,
        frames: Frames | None = None,
    ) -> None:
        super().__init__()
        conf = dict(extra_conf or {})
        self.frames: Any = conf.pop("frames", frames) or os.environ.get(FRAMES) or "real"
        """Frames that an utterance has: `real` or `s3prl`."""
        if self.frames not in get_args(Frames):
            raise OptionError(f"frames is {self.frames!r} (or {FRAMES} says so). It must be 'real' or 's3prl'.")
        self.normalize = bool(normalize)
        # In s3prl these two may stand among the options as well: `refresh` wins there, `ckpt` does not.
        refresh, given = conf.pop("refresh", refresh), conf.pop("ckpt", None)
        self.upstream: Any = hub.load(name, given if path_or_url is None else path_or_url, refresh, conf)
        """The hubcore upstream."""
        if randomize:
            _randomize(self.upstream)
        self.eval()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # What ESPnet and WeSpeaker trained with s3prl has fairseq's names here; torch passes a copy that may be changed.
        reader = getattr(type(self.upstream), "reader", None)
        if reader is not None:
            own = [f"{prefix}upstream.{name}" for name in self.upstream.state_dict()]
            rename(state_dict, f"{prefix}upstream.model.", reader.names, {*own})
        super()._load_from_state_dict(state_dict, prefix, *args)

    @classmethod
    def available_names(cls, only_registered_ckpt: bool = False) -> list[str]:
        """Every name that the constructor takes; imports no plugin.

        Args:
            only_registered_ckpt: whether to leave out those that need `path_or_url`.
        """
        return hub.options(only_registered_ckpt)

    @property
    def _layers(self) -> Sequence[int]:
        """The layers that the upstream returns: its `default_layers` where a card or the option `layers` set them."""
        return getattr(self.upstream, "default_layers", None) or range(len(self.upstream.layer_names))

    @property
    def num_layers(self) -> int:
        """The number of hidden states: one more than there are blocks, unless the option `layers` chose some."""
        return len(self._layers)

    @property
    def downsample_rates(self) -> list[int]:
        """Samples between two frames, for each hidden state.

        Raises:
            OptionError: the frame rate depends on the input.
        """
        return [downsample_rate(self.upstream)] * self.num_layers

    @property
    def hidden_sizes(self) -> list[int]:
        """The width of each hidden state."""
        return [self.upstream.hidden_sizes[layer] for layer in self._layers]

    def forward(self, wavs: Tensor, wavs_len: Tensor | Sequence[int]) -> tuple[list[Tensor], list[Tensor]]:
        """All hidden states `(B, F, D)` and, for each of them, the `(B,)` int64 lengths.

        Args:
            wavs: `(B, T)` or `(B, T, 1)` float waveforms at the upstream's rate, padded in any way.
            wavs_len: `(B,)` or `(B, 1)` samples of each; what goes beyond the tensor is cut.

        Raises:
            AudioError: a waveform cannot be used; the message names the item. The shortest that can be used is
                `upstream.min_samples`, with `frames="s3prl"` one sample.
            OptionError: `frames="s3prl"` with a frame rate that depends on the input.
        """
        if isinstance(wavs, Tensor) and wavs.ndim == 3 and wavs.shape[-1] == 1:
            wavs = wavs.squeeze(-1)
        if not isinstance(wavs, Tensor) or wavs.ndim != 2:
            what = f"have shape {tuple(wavs.shape)}" if isinstance(wavs, Tensor) else f"are a {type(wavs).__name__}"
            raise AudioError(
                f"the waveforms {what}. They must be one tensor (B, T) or (B, T, 1), one channel. Pad them with "
                "torch.nn.utils.rnn.pad_sequence, or call .upstream, which takes a list."
            )
        wavs_len = _within(wavs_len, wavs.shape[1])
        if self.frames == "real":
            out = self.upstream(wavs, wavs_len)
            states, lengths = list(out.hidden_states), out.lengths
        else:
            states, lengths = self._nominal_frames(wavs, wavs_len)
        if self.normalize:
            states = [functional.layer_norm(state, state.shape[-1:]) for state in states]
        return states, [lengths.clone() for _ in states]

    def _nominal_frames(self, wavs: Tensor, wavs_len: Tensor | Sequence[int]) -> tuple[list[Tensor], Tensor]:
        rate, sample_rate = downsample_rate(self.upstream), self.upstream.sample_rate
        rows = check_wavs(wavs, wavs_len, min_samples=1, sample_rate=sample_rate)
        shortest = int(_SHORTEST_S * sample_rate)
        out = self.upstream([functional.pad(row, (0, max(0, shortest - len(row)))) for row in rows])
        nominal = [(len(row) - 1) // rate + 1 for row in rows]
        frames = max(nominal)
        lengths = torch.tensor(nominal, device=out.lengths.device)
        beyond = ~frame_mask(lengths, frames)[..., None]  # (B, F, 1)
        positions = torch.arange(frames, device=lengths.device)
        source = torch.minimum(positions[None], out.lengths[:, None] - 1)[..., None]  # (B, F, 1)
        states = [
            state.gather(1, source.expand(-1, -1, state.shape[-1])).masked_fill(beyond, 0.0) for state in out.hidden_states
        ]
        return states, lengths


def _within(lengths: Any, most: int) -> Any:
    """Lengths as a list of numbers, none above `most`; what are no lengths is left for the upstream to refuse."""
    if isinstance(lengths, Tensor | np.ndarray):
        lengths = lengths.flatten().tolist()
    if not isinstance(lengths, Sequence):
        return lengths
    numbers = [n.item() if isinstance(n, Tensor) else n for n in lengths]
    return [min(n, most) if isinstance(n, int) else n for n in numbers]


def _randomize(upstream: Any) -> None:
    """Replaces the weights by those of a new model of the same config, and forgets the origin of the old ones."""
    if not getattr(upstream, "state_dict", dict)():
        return
    config, build = getattr(upstream, "config", None), getattr(type(upstream), "from_config", None)
    if config is None or build is None:
        raise OptionError(
            f"{type(upstream).__name__} has no config and from_config to make a new model from. randomize=True needs them. "
            "Leave it out, or set the weights yourself."
        )
    upstream.load_state_dict(build(config).state_dict())
    upstream.card = upstream.load_report = None
