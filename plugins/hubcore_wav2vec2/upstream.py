"""`Wav2Vec2Upstream`: wav2vec 2.0 behind the uniform call. Shapes: `B` batch, `T` samples, `F` frames, `D` dim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from hubcore import UpstreamBase, UpstreamOutput
from hubcore.errors import OptionError
from hubcore.ragged import pad_packed, regular_frame_times
from hubcore.upstream import check_config, named_config
from hubcore_wav2vec2.checkpoint import read_file
from hubcore_wav2vec2.config import CONFIGS, Wav2Vec2Config
from hubcore_wav2vec2.model import Wav2Vec2Model, build_model

AnyWav2Vec2 = TypeVar("AnyWav2Vec2", bound="Wav2Vec2Upstream")


class Wav2Vec2Upstream(UpstreamBase):
    """wav2vec 2.0 (Baevski et al. 2020), XLSR-53 and XLS-R: the input of every block, then the encoder's output.

    Hidden state 0 (`input`) is the projected features with position embedding, layer-normed in post-norm models. Hidden
    state k (`block_k`) is the output of block k, counted from 1. The last is the encoder's output, which in pre-norm models
    (`pre_norm`) includes the final layer norm. These are s3prl's `hidden_states`.

    Each utterance's numbers are those it has alone: nothing is padded inside, see `hubcore_wav2vec2.components`.

    Example:
        >>> import torch
        >>> from hubcore_wav2vec2 import Wav2Vec2Upstream
        >>> model = Wav2Vec2Upstream.from_checkpoint("wav2vec2_tiny_prompts")
        >>> out = model([torch.randn(16000), torch.randn(8000)], layers=[0, -1])
        >>> [tuple(h.shape) for h in out.hidden_states], out.lengths.tolist()
        ([(2, 49, 96), (2, 49, 96)], [49, 24])
    """

    config_class: ClassVar[type[Wav2Vec2Config]] = Wav2Vec2Config
    configs: ClassVar[Mapping[str, Wav2Vec2Config]] = CONFIGS

    def __init__(self, config: Wav2Vec2Config, model: Wav2Vec2Model | None = None) -> None:
        """An upstream with fresh weights, or around a `model` that was built elsewhere with the same shapes."""
        check_config(type(self), config)
        model = build_model(config) if model is None else model
        if len(model.encoder.blocks) != config.num_layers:
            raise OptionError(
                f"the model has {len(model.encoder.blocks)} blocks, but its config says {config.num_layers}. Both must agree. "
                "Build the model from this config, or pass the config that it was built from."
            )
        shape = config.upstream_shape
        super().__init__(
            layer_names=shape.layer_names,
            hidden_sizes=shape.hidden_sizes,
            num_layers=config.num_layers,
            frame_stride=shape.frame_stride,
            receptive_field=model.extractor.receptive_field,
            sample_rate=shape.sample_rate,
        )
        self.config = config
        self.model = model

    @classmethod
    def from_file(
        cls: type[AnyWav2Vec2],
        path: str | Path,
        *,
        config: Wav2Vec2Config | str | None = None,
        dropout: float | None = None,
        attention_dropout: float | None = None,
        activation_dropout: float | None = None,
    ) -> AnyWav2Vec2:
        """See `UpstreamBase.from_checkpoint`, for a file that is here already; the dropouts replace the file's."""
        given = {"dropout": dropout, "attention_dropout": attention_dropout, "activation_dropout": activation_dropout}
        config, model, report = read_file(Path(path), named_config(cls, config), given)
        upstream = cls(config, model)
        upstream.load_report = report
        return upstream.eval()

    def forward(
        self,
        wavs: Sequence[Tensor] | Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        layers: Sequence[int] | None = None,
    ) -> UpstreamOutput:
        """The hidden states of a batch of waveforms; see `hubcore.Upstream.forward`."""
        rows = self.check_input(wavs, lengths)
        chosen = self.check_layers(layers)
        states, counts = self.model(rows, chosen)
        padded = [pad_packed(state, counts) for state in states]  # (B, F, D) each
        frames = torch.tensor(counts, dtype=torch.int64, device=padded[0].device)
        times = regular_frame_times(
            frames,
            padded[0].shape[1],
            stride=self.model.extractor.stride,
            span=self.receptive_field,
            sample_rate=self.sample_rate,
        )
        return self.make_output(padded, frames, chosen, times)
