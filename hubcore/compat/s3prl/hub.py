"""`s3prl.hub` on hubcore: every name as a function that gives its model. Imports no torch.

Beside the names of `hubcore.hub.list()` there are, for each family with weights, `<family>_custom`, `<family>_local`,
`<family>_url` (all three take a path or an address) and `hf_<family>_custom` (a repository of the Hugging Face Hub), under
s3prl's name of the family too; `baseline` is `fbank`, and `baseline_local` takes s3prl's file of settings.

The models are hubcore's own objects, each with one method more, `get_downsample_rates(key)`, and fairseq's names for its
parts (`model.encoder.layers[0].self_attn`). What they give is a dictionary too.

Example:
    >>> import torch
    >>> from hubcore.compat.s3prl import hub
    >>> model = getattr(hub, "wav2vec2_tiny_prompts")(refresh=False)
    >>> model([torch.randn(16000)])["hidden_states"][-1].shape, model.get_downsample_rates("hidden_states")
    (torch.Size([1, 49, 96]), 320)
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from hubcore import hub as core
from hubcore.compat.s3prl.baseline import baseline_settings
from hubcore.compat.s3prl.download import forget
from hubcore.compat.s3prl.rates import rate_of_feature
from hubcore.errors import OptionError, UnknownUpstreamError
from hubcore.registry.names import current_registry

__all__ = ["options"]

_THEIR_FAMILIES = {"distiller": "distilhubert", "espnet_hubert": "hubert"}
"""s3prl's name of a family -> the family's name here, where they differ."""


def options(only_registered_ckpt: bool = False) -> list[str]:
    """Every name that is a function here; imports no plugin.

    Args:
        only_registered_ckpt: whether to leave out those that need a path or an address.

    Example:
        >>> from hubcore.compat.s3prl import hub
        >>> "wav2vec2_custom" in hub.options(), "wav2vec2_custom" in hub.options(only_registered_ckpt=True)
        (True, False)
    """
    needing = {*_custom_loaders(), *_cards_without_sources(), "baseline_local"}
    known = {*core.list(), "baseline"}
    return sorted(known - needing if only_registered_ckpt else known | needing)


def load(name: str, ckpt: str | os.PathLike[str] | None, refresh: bool, conf: Mapping[str, Any]) -> Any:
    """The model that a name of `options()` means.

    Args:
        name: the name.
        ckpt: a path or an address; needed by the `custom` loaders, optional elsewhere. s3prl ignores it elsewhere; here only
            a path that is not there is ignored, with a warning, and any where there are no weights.
        refresh: whether cached files are downloaded again.
        conf: options of the model. `legacy` and `fairseq`, which choose the code that opens a checkpoint in s3prl, are taken
            and mean nothing, since every layout is read here.

    Raises:
        UnknownUpstreamError: no such name.
        OptionError: no such option, or a checkpoint is needed.
        DownloadError: the checkpoint cannot be obtained.
        CheckpointError: it cannot be used.
    """
    if name == "baseline_local":
        conf = dict(conf)
        file = conf.pop("model_config", None) or ckpt
        if file is None:
            raise OptionError("'baseline_local' needs a file of settings, and none was given. Pass model_config=.")
        name, settings = baseline_settings(file)
        ckpt, conf = None, settings | conf
    elif name == "baseline":
        name = "fbank"
    rest = _options_of(name, conf)
    if not isinstance(refresh, bool):
        raise OptionError(f"refresh is {refresh!r}. It must be True or False; a checkpoint is given as ckpt=.")
    known, custom = core.list(), _custom_loaders()
    if name not in known and name not in custom:
        raise _unknown(str(name), "S3PRLUpstream.available_names() has every name.")
    if ckpt is None and (name in custom or name in _cards_without_sources()):
        raise OptionError(
            f"{name!r} needs a checkpoint, and none was given. Pass path_or_url= to S3PRLUpstream, ckpt= to a hub function."
        )
    is_custom = name in custom
    if is_custom:
        family, is_repository = custom[name]
        if is_repository and "://" not in str(ckpt) and not os.path.exists(os.path.expanduser(ckpt or "")):
            ckpt = f"hf://{ckpt}"
        name = name if name in known else family
        rest = _without_settings_file(rest, ckpt or "")
    card = current_registry().find(name).card
    if ckpt is not None and card is not None and not is_custom and name not in _cards_without_sources():
        is_there = "://" in str(ckpt) or os.path.exists(os.path.expanduser(ckpt))
        if not card.sources or not is_there:
            why = "it is not there, and the name has weights of its own" if card.sources else "the name has no weights"
            warnings.warn(f"the checkpoint {ckpt} of {name!r} was ignored: {why}.", stacklevel=2)
            ckpt = None
    if refresh:
        if ckpt is not None:
            forget(os.fspath(ckpt))
        elif card is not None:
            forget(card)
    upstream: Any = core.load(name, ckpt, **rest)
    if not hasattr(upstream, "get_downsample_rates"):
        upstream.get_downsample_rates = functools.partial(rate_of_feature, upstream)
    return _as_theirs(upstream)


def _options_of(name: str, conf: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a model among the arguments of s3prl's interface."""
    rest = {key: value for key, value in conf.items() if key not in ("legacy", "fairseq", "model_config")}
    if conf.get("model_config") is not None:
        raise OptionError(
            f"model_config is {conf['model_config']!r}. Settings are options here, not a file of s3prl's. "
            f"`hubcore info {name}` shows the class that takes them."
        )
    for ours, theirs in (
        ("checkpoint", "path_or_url of S3PRLUpstream or ckpt of a hub function"),
        ("name", "the function's name"),
    ):
        if ours in rest:
            raise OptionError(f"{ours!r} is among the options of {name!r}. In s3prl's interface that is {theirs}. Use that.")
    return rest


def _without_settings_file(options: dict[str, Any], ckpt: str | os.PathLike[str]) -> dict[str, Any]:
    """Options without a `config.yaml` of ESPnet, which s3prl's loaders of its models take, and which is read anyway."""
    file = str(options.get("config", ""))
    if not file.endswith((".yaml", ".yml")):
        return options
    beside = os.path.join(os.path.dirname(os.path.abspath(ckpt)), "config.yaml")
    if os.path.abspath(file) != beside:
        what = f"config is {file}. ESPnet's settings are read from the config.yaml beside the checkpoint."
        raise OptionError(what, f"Copy it to {beside}, and leave config out.")
    return {name: value for name, value in options.items() if name != "config"}


def _unknown(name: str, hint: str) -> UnknownUpstreamError:
    lead = current_registry().lead(name)
    return UnknownUpstreamError(name, () if lead else options(), lead or hint)


def _as_theirs(upstream: Any) -> Any:
    """The same object, with fairseq's names for its parts, and dictionaries for its outputs."""
    from torch import nn

    from hubcore.compat.s3prl.aliases import add_aliases
    from hubcore.compat.s3prl.output import as_dict

    if isinstance(upstream, nn.Module):
        add_aliases(upstream)
        upstream.register_forward_hook(as_dict)
    return upstream


def _families_with_weights() -> set[str]:
    return {
        entry.family.name
        for entry in current_registry().entries
        if entry.family is not None and (entry.card is None or entry.card.sources)
    }


def _custom_loaders() -> dict[str, tuple[str, bool]]:
    """Name of each generic loader -> its family, and whether it takes the name of a repository."""
    families = _families_with_weights()
    named = {family: family for family in families}
    named |= {theirs: ours for theirs, ours in _THEIR_FAMILIES.items() if ours in families}
    loaders = {f"{name}_{kind}": (family, False) for name, family in named.items() for kind in ("custom", "local", "url")}
    return loaders | {f"hf_{family}_custom": (family, True) for family in families}


def _cards_without_sources() -> set[str]:
    """Names of the cards that say how to run a checkpoint, but not which one."""
    cards = [entry.card for entry in current_registry().entries if entry.card is not None]
    families = _families_with_weights()
    return {name for card in cards if card.upstream in families and not card.sources for name in (card.name, *card.aliases)}


def __getattr__(name: str) -> Callable[..., Any]:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _custom_loaders() or name == "baseline_local":

        def load_custom(ckpt: str | os.PathLike[str] | None = None, *, refresh: bool = False, **conf: Any) -> Any:
            return load(name, ckpt, refresh, conf)

        function: Callable[..., Any] = load_custom
    elif name in core.list() or name == "baseline":

        def load_registered(refresh: bool = False, *, ckpt: str | os.PathLike[str] | None = None, **conf: Any) -> Any:
            return load(name, ckpt, refresh, conf)

        function = load_registered
    else:
        raise _unknown(name, "hub.options() has every name.")
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"The model {name!r}, as s3prl's hub gives it."
    return function


def __dir__() -> list[str]:
    return [*__all__, *options()]
