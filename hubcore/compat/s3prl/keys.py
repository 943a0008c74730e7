"""Names of weights in models that were trained with s3prl's frontend (ESPnet, WeSpeaker), and in such models on hubcore.

s3prl's frontend holds its upstream as `frontend.upstream.upstream.model`; ESPnet of 2021 held it as `frontend.upstream.model`.
Inside are the names of fairseq, or of transformers for `hf_*` upstreams. On hubcore the place is the same, with our names.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import Tensor

from hubcore.checkpoints.names import OURS, Names, Turn
from hubcore.errors import CheckpointLayoutError, OptionError
from hubcore.loading import import_class
from hubcore.registry.names import current_registry

_OLD = re.compile(r"(?<!upstream\.)upstream\.model\.$")


def to_hubcore(state: Mapping[str, Tensor], upstream: str) -> dict[str, Tensor]:
    """A state dict for the same model on hubcore, `frontend.upstream.upstream.model` in either spelling becoming ours.

    Heads of pre-training (`mask_emb` and others) are left out, since they are no part of an upstream. Everything outside the
    upstream stays as it is, the featurizer's weights too. A state dict that has our names already is given back.

    Args:
        state: of the whole model, or of its frontend.
        upstream: the name that s3prl's frontend was given, such as `hubert_base`, or the family.

    Raises:
        CheckpointLayoutError: no such upstream, several, or tensors that have no place in it.

    Example:
        >>> import torch
        >>> name = "frontend.upstream.model.encoder.layer_norm.weight"  # of ESPnet in 2021
        >>> more = {"frontend.upstream.model.feature_extractor.conv_layers.0.0.weight": torch.zeros(8, 1, 10)}
        >>> list(to_hubcore({name: torch.zeros(8), "decoder.bias": torch.zeros(8), **more}, "hubert"))[:2]
        ['frontend.upstream.upstream.model.encoder.norm.weight', 'decoder.bias']
    """
    names = _names(upstream)
    system, prefix = _find(names, state, upstream)
    place = _OLD.sub("upstream.upstream.model.", prefix)
    rows = {theirs: (ours, turn) for ours, (theirs, turn) in _inside(names, system, prefix, state).items()}
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not name.startswith(prefix):
            found[name] = tensor
        elif name in rows:
            ours, turn = rows[name]
            found[place + ours] = turn.read(tensor) if turn else tensor
    return found


def to_s3prl(state: Mapping[str, Tensor], like: Mapping[str, Tensor], upstream: str) -> dict[str, Tensor]:
    """A state dict for the model on s3prl, from that of the model on hubcore; the way back of `to_hubcore`.

    Args:
        state: of the whole model, or of its frontend, on hubcore.
        like: one of the model on s3prl: it gives the spelling, and the heads of pre-training, which hubcore does not have.
        upstream: the name that s3prl's frontend was given, or the family.

    Raises:
        CheckpointLayoutError: either holds no such upstream, or they are not of the same model.

    Example:
        >>> import torch
        >>> theirs = {"upstream.upstream.model.feature_extractor.conv_layers.0.0.weight": torch.randn(8, 1, 10)}
        >>> back = to_s3prl(to_hubcore(theirs, "wavlm"), theirs, "wavlm")
        >>> all(torch.equal(back[name], tensor) for name, tensor in theirs.items())
        True
    """
    names = _names(upstream)
    system, prefix = _find(names, like, upstream)
    ours_system, place = _find(names, state, upstream)
    if ours_system != OURS:
        raise CheckpointLayoutError(f"the state dict has {ours_system}'s names already, not hubcore's. Use it as it is.")
    rows = {place + ours: (theirs, turn) for ours, (theirs, turn) in _inside(names, system, prefix, like).items()}
    other = sorted({name for name in state if name.startswith(place)} ^ rows.keys())
    if other:
        raise CheckpointLayoutError(
            f"the two state dicts are not of one model: {', '.join(other[:5])} in one of them only. Take both from one model."
        )
    written: dict[str, Tensor] = {}
    for name, tensor in state.items():
        theirs, turn = rows.get(name, (name, None))
        written[theirs] = turn.write(tensor).contiguous() if turn and turn.write else tensor
    return {**{name: tensor for name, tensor in like.items() if name.startswith(prefix)}, **written}


def rename(state: dict[str, Any], prefix: str, names: Names, own: Collection[str]) -> None:
    """Gives what is under `prefix` our names, in place, if it has another system's; see `S3PRLUpstream`.

    Where `own` names of the model are there as well, as ESPnet's `--init_param` has it, theirs are meant.
    """
    inside = {name: tensor for name, tensor in state.items() if name.startswith(prefix) and name not in own}
    found = names.find(inside)
    if found is None or found[1] != prefix:
        return
    rows = _inside(names, found[0], prefix, inside)
    for name in inside:
        del state[name]
    for ours, (theirs, turn) in rows.items():
        state[prefix + ours] = turn.read(inside[theirs]) if turn else inside[theirs]


def _names(upstream: str) -> Names:
    """The table of names of an upstream's family."""
    family = current_registry().find(upstream).family
    reader = None if family is None else getattr(import_class(family), "reader", None)
    if reader is None:
        raise OptionError(f"{upstream!r} has no table of names. It must be an upstream with weights, such as 'hubert'.")
    names: Names = reader.names
    return names


def _find(names: Names, state: Iterable[str], upstream: str) -> tuple[str, str]:
    """The system of the upstream's names, and the prefix before them."""
    found = names.find(state)
    if found is None:
        raise CheckpointLayoutError(
            f"the state dict holds no {upstream}: it has no {names.first('fairseq')} under any name known here.",
            "Pass the state dict of the whole model, and the name of its upstream.",
        )
    return found


def _inside(names: Names, system: str, prefix: str, state: Iterable[str]) -> dict[str, tuple[str, Turn | None]]:
    """Our name -> the state dict's name and turn, of everything under the prefix but heads."""
    inside = [name.removeprefix(prefix) for name in state if name.startswith(prefix)]
    rows = names.read(system, inside)
    used = {theirs for theirs, _ in rows.values()}
    left = [name for name in inside if name not in used and not names.is_head(system, name)]
    if left and system != OURS:
        raise CheckpointLayoutError(
            f"{prefix}{left[0]} has no place in this upstream, and {len(left) - 1} more have none. Is it of another family?"
        )
    return {ours: (prefix + theirs, turn) for ours, (theirs, turn) in rows.items()}
