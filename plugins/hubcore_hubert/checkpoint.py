"""Everything this family knows about foreign checkpoints: the names that it adds to the encoder's, and the heads."""

from __future__ import annotations

from hubcore.checkpoints import ENCODER_NAMES, Name, Names, Reader
from hubcore.nn import SpeechEncoder, build_speech_encoder
from hubcore_hubert.config import HubertConfig

_BATCH_NORM = "encoder.pos_conv_embed.batch_norm"
NAMES = Names(
    [
        *ENCODER_NAMES,
        # transformers: `conv_pos_batch_norm`
        Name("encoder.pos_conv.weight", {"transformers": "encoder.pos_conv_embed.conv.weight"}),
        Name("encoder.pos_conv.norm.*", {"transformers": f"{_BATCH_NORM}.*"}),
        Name("encoder.pos_conv.norm.running_mean", {"transformers": f"{_BATCH_NORM}.running_mean"}),
        Name("encoder.pos_conv.norm.running_var", {"transformers": f"{_BATCH_NORM}.running_var"}),
        Name("encoder.pos_conv.norm.num_batches_tracked", {"transformers": f"{_BATCH_NORM}.num_batches_tracked"}),
    ],
    heads={
        "fairseq": ["mask_emb", "label_embs_concat", "final_proj.**", "target_glu.**"],
        "transformers": ["masked_spec_embed", "final_proj.*", "lm_head.*"],
        "torchaudio": ["aux.*"],
        "hubcore": ["mask_embedding", "project_predictions.*", "label_embeddings"],
    },
)
"""The encoder's names, and the heads of pre-training and of fine-tuning that may stand beside it."""

HEADS = Names(
    [
        Name("mask_embedding", {"fairseq": "mask_emb", "transformers": "masked_spec_embed"}),
        Name("project_predictions.*", {"fairseq": "final_proj.*"}),
        Name("label_embeddings", {"fairseq": "label_embs_concat"}),
    ]
)
"""Names of the heads of pre-training, which stand beside the encoder."""

READER: Reader[HubertConfig, SpeechEncoder] = Reader(
    family="HuBERT",
    config_class=HubertConfig,
    build=build_speech_encoder,
    names=NAMES,
    kinds=("hubert", "hubert_ctc", "torchaudio_hubert", "HubertUpstream"),
)
"""Reads fairseq's, s3prl's, transformers', ESPnet's and torchaudio's files."""
