"""An upstream's output as the dictionary that s3prl's models give."""

from __future__ import annotations

from typing import Any

from hubcore.protocol import UpstreamOutput


class DictOutput(dict[str, Any], UpstreamOutput):
    """An `UpstreamOutput` that is a `dict` too: recipes of s3prl put their own entries into it.

    Entries that are set or removed change the dictionary only; the attributes stay what the upstream gave.

    Example:
        >>> from hubcore.compat.s3prl import hub
        >>> import torch
        >>> out = hub.fbank()([torch.randn(16000)])
        >>> out["mine"] = 1
        >>> isinstance(out, dict), out["mine"], out.lengths.tolist()
        (True, 1, [98])
    """

    def __init__(self, **fields: Any) -> None:
        UpstreamOutput.__init__(self, **fields)
        super().__init__((key, UpstreamOutput.__getitem__(self, key)) for key in UpstreamOutput.__iter__(self))

    __repr__ = UpstreamOutput.__repr__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)


def as_dict(_upstream: Any, _inputs: Any, out: Any) -> Any:
    """Forward hook that makes a `DictOutput` of an output."""
    return DictOutput(**vars(out)) if isinstance(out, UpstreamOutput) and not isinstance(out, dict) else out
