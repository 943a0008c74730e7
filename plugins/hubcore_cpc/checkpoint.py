"""Everything this family knows about foreign checkpoints: CPC_audio's names and options, in s3prl's file."""

from __future__ import annotations

from typing import Any

from hubcore.checkpoints import Checkpoint, Layout, Name, Names, Reader, Turn
from hubcore.checkpoints.foreign_options import demand, note_defaults, read_options
from hubcore.checkpoints.names import SWAP_TAPS
from hubcore.errors import CheckpointLayoutError
from hubcore_cpc.config import CpcConfig
from hubcore_cpc.model import CpcModel

_FLAT = Turn(lambda weight: weight.flatten(), lambda weight: weight[None, :, None], "channel norms flattened")
_NETS = {"LSTM": "lstm", "GRU": "gru", "RNN": "rnn"}
NAMES = Names(
    [
        Name("extractor.convs.#.weight", {"cpc_audio": "gEncoder.conv#.weight"}, SWAP_TAPS),
        Name("extractor.convs.#.bias", {"cpc_audio": "gEncoder.conv#.bias"}),
        Name("extractor.norms.#.*", {"cpc_audio": "gEncoder.batchNorm#.*"}, _FLAT),
        *(
            Name(f"context.{part}_l#", {"cpc_audio": f"gAR.baseNet.{part}_l#"})
            for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ),
    ]
)
"""The names of the weights. A file has no heads: the predictors of the loss are saved elsewhere."""


def parse(checkpoint: Checkpoint, notes: list[str]) -> dict[str, Any]:
    """Values of a config, by our names; what had to be assumed is added to `notes`.

    Raises:
        CheckpointLayoutError: an option that this model does not have.
    """
    model = checkpoint.config
    demand(
        {**model, "cpc_mode": model.get("cpc_mode") or "none"},
        {"encoder_type": ["cpc"], "normMode": ["layerNorm"], "arMode": list(_NETS), "cpc_mode": ["none"]},
    )
    if model.get("samplingType") == "sequential":
        raise CheckpointLayoutError(
            "it has samplingType='sequential': the original carries the recurrent state from one call to the next, so features "
            "depend on earlier calls. Here every utterance starts anew. Load a checkpoint with another samplingType."
        )
    note_defaults(model, ("arMode", "normMode"), "CPC_audio", notes)
    options = {
        "encoder_dim": ("hiddenEncoder", 256),
        "context_dim": ("hiddenGar", 256),
        "num_levels": ("nLevelsGRU", 1),
    }
    return {**read_options(model, options), "context_net": _NETS[model.get("arMode", "LSTM")]}


READER: Reader[CpcConfig, CpcModel] = Reader(
    family="CPC",
    config_class=CpcConfig,
    build=CpcModel,
    names=NAMES,
    kinds=("CpcUpstream",),
    parse=parse,
    layouts=(Layout("modified CPC", config_key="config", weights_key="weights"),),
)
"""Reads the file that s3prl's `modified_cpc` loads."""
