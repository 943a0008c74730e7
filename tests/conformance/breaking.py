"""The list of broken upstreams: which check each must turn red, and words that its message must contain."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

from hubcore import UpstreamOutput
from tests.toys import ToyUpstream

BROKEN: list[tuple[str, Callable[[], Any], str]] = []
Factory = TypeVar("Factory", bound=Callable[[], Any])


def breaks(check: str, words: str) -> Callable[[Factory], Factory]:
    """Registers an upstream class, or a factory, that must turn `check` red with `words` in the message."""

    def register(make: Factory) -> Factory:
        BROKEN.append((check, make, words))
        return make

    return register


def breaks_with(check: str, words: str, **attributes: Any) -> None:
    """Registers a toy with other attributes."""

    def make() -> ToyUpstream:
        toy = ToyUpstream()
        for name, value in attributes.items():
            setattr(toy, name, value)
        return toy

    make.__name__ = "_".join(["toy_with", *attributes])
    breaks(check, words)(make)


class Edited(ToyUpstream):
    """A toy whose finished output is edited."""

    def forward(self, wavs: Any, lengths: Any = None, *, layers: Any = None) -> Any:
        return self.edit(super().forward(wavs, lengths, layers=layers))

    def edit(self, output: UpstreamOutput) -> Any:
        raise NotImplementedError


def as_kind(kind: type[UpstreamOutput], output: UpstreamOutput) -> UpstreamOutput:
    """The same output as a subclass."""
    return kind(**{field.name: getattr(output, field.name) for field in dataclasses.fields(output)})
