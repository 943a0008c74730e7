"""Everything this family knows about foreign checkpoints: what its weights and heads are called, how its config is read."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

from torch import Tensor

from hubcore.checkpoints import ENCODER_NAMES, Name, Names, Reader
from hubcore.checkpoints.names import Turn
from hubcore_wav2vec2.config import Wav2Vec2Config
from hubcore_wav2vec2.model import Wav2Vec2Model, build_model
from hubcore_wav2vec2.omniasr import OMNIASR_HEADS, OMNIASR_KINDS, OMNIASR_NAMES, fairseq2_values, parse


def _join_groups(codebook: Tensor) -> Tensor:
    return codebook.reshape(1, -1, codebook.shape[-1])


HEADS = Names(
    [
        Name("mask_embedding", {"fairseq": "mask_emb", "transformers": "masked_spec_embed"}),
        Name(
            "quantizer.codebook",
            {"fairseq": "quantizer.vars", "transformers": "quantizer.codevectors"},
            Turn(lambda codebook: codebook, _join_groups, ""),
        ),
        Name("quantizer.logits.*", {"fairseq": "quantizer.weight_proj.*", "transformers": "quantizer.weight_proj.*"}),
        Name("project_targets.*", {"fairseq": "project_q.*", "transformers": "project_q.*"}),
        Name("project_predictions.*", {"fairseq": "final_proj.*", "transformers": "project_hid.*"}),
    ]
)
"""Names of the heads of pre-training, which stand beside the encoder; others have the codebook's groups on one axis."""

FAIRSEQ_NAMES = Names(
    ENCODER_NAMES,
    heads={
        "fairseq": ["mask_emb", "quantizer.**", "project_q.*", "final_proj.*"],
        "transformers": ["masked_spec_embed", "quantizer.**", "project_q.*", "project_hid.*", "lm_head.*"],
        "torchaudio": ["aux.*"],
        "hubcore": ["mask_embedding", "quantizer.**", "project_targets.*", "project_predictions.*"],
    },
)
"""The encoder's names in fairseq and in what its files were turned into, and the heads beside it, which are ignored."""

NAMES = FAIRSEQ_NAMES.extended(OMNIASR_NAMES, {**FAIRSEQ_NAMES.heads, **OMNIASR_HEADS})
"""These and OmniASR's."""


AnyConfig = TypeVar("AnyConfig", bound=Wav2Vec2Config)


def fit_projection(config: AnyConfig, weights: frozenset[str]) -> AnyConfig:
    """The config with or without an input projection, as the weights have it; fairseq has none where both sides are as wide.

    Example:
        >>> fit_projection(Wav2Vec2Config(dim=512, num_heads=8), frozenset()).input_projection
        False
    """
    there = "projection.weight" in weights
    if config.input_projection != there and config.conv_dim == config.dim:
        return dataclasses.replace(config, input_projection=there)
    return config


READER: Reader[Wav2Vec2Config, Wav2Vec2Model] = Reader(
    family="wav2vec 2.0",
    config_class=Wav2Vec2Config,
    build=build_model,
    names=NAMES,
    kinds=("wav2vec2", "wav2vec_ctc", "wav2vec_seq2seq", "Wav2Vec2Upstream", *OMNIASR_KINDS),
    parse=parse,
    infer=fairseq2_values,
    fit=fit_projection,
)
"""Reads fairseq's, s3prl's, transformers', torchaudio's and fairseq2's files."""
