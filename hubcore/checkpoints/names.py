"""Names of weights in other systems: one table per family, ours -> theirs, read in one direction and written in the other.

In a name, `#` stands for a number and a last `*` for both `weight` and `bias`. Rows are told apart by the numbers' places, so
a file of a million names costs no more than a look-up for each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hubcore.errors import CheckpointLayoutError

OURS = "hubcore"
"""The system of our own names."""
_NUMBER = re.compile(r"[0-9]+")


@dataclass(frozen=True)
class Turn:
    """Change of a tensor between a foreign file and our model, in both directions."""

    read: Callable[[Tensor], Tensor]
    """From the file's tensor to ours."""
    write: Callable[[Tensor], Tensor] | None
    """From ours to the file's; None if this form is only read."""
    why: str
    """Words for `read` in the load report."""


def _swap_taps(weight: Tensor) -> Tensor:
    return weight.transpose(1, 2).contiguous()


def _norm_of_taps(weight: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(weight, dim=(0, 1), keepdim=True)
    return norm


SWAP_TAPS = Turn(_swap_taps, _swap_taps, "convolution taps put before input channels")
"""`(C_out, C_in, kernel)` to the `(C_out, kernel, C_in)` of `hubcore.nn.FrameConv`."""
DROP_TAP = Turn(
    lambda weight: weight.squeeze(2), lambda weight: weight[:, :, None], "convolutions of kernel 1 as linear layers"
)
"""`(C_out, C_in, 1)` to the `(C_out, C_in)` of a linear layer."""
_WHY_SPLIT = "the position embedding's finished weight split into its weight norm's two parts"
FUSED_DIRECTION = Turn(lambda weight: weight, None, _WHY_SPLIT)
"""A finished weight `(D, D / groups, kernel)` as the direction of a weight norm over taps."""
FUSED_NORM = Turn(_norm_of_taps, None, _WHY_SPLIT)
"""A finished weight as the norms of its taps, `(1, 1, kernel)`."""


@dataclass(frozen=True)
class Name:
    """Our name of a weight, and what each system calls it; of several spellings the first is written.

    Example:
        >>> Name("encoder.norm.*", {"fairseq": "encoder.layer_norm.*"}).ours
        'encoder.norm.*'
    """

    ours: str
    theirs: Mapping[str, str | Sequence[str | tuple[str, Turn]]]
    """System -> a name, or several spellings, one that needs a turn of its own as (name, turn)."""
    turn: Turn | None = None
    """Change for every spelling that names no turn of its own."""


@dataclass(frozen=True)
class _Spelling:
    pattern: re.Pattern[str]
    target: str
    turn: Turn | None
    rank: int


class Names:
    """The table of a family: its weights' names in every system, and the names of what may stand beside them.

    Args:
        rows: one for each weight; the first finds the encoder, so every system must have it, and no other model.
        heads: system -> names that are no part of the encoder and are ignored; `**` stands for anything.

    Example:
        >>> table = Names([Name("up.*", {"fairseq": "fc1.*"})], heads={"fairseq": ["final_proj.**"]})
        >>> table.find(["model.fc1.weight", "model.final_proj.weight"])
        ('fairseq', 'model.')
        >>> list(table.read("fairseq", ["fc1.weight", "fc1.bias"])), table.is_head("fairseq", "final_proj.weight")
        (['up.weight', 'up.bias'], True)
    """

    def __init__(self, rows: Sequence[Name], heads: Mapping[str, Sequence[str]] | None = None) -> None:
        self.rows = tuple(rows)
        self.systems = (*rows[0].theirs, OURS)
        self.heads = {system: tuple(names) for system, names in (heads or {}).items()}
        firsts = {**{system: _spelt(rows[0], system)[0][0] for system in rows[0].theirs}, OURS: rows[0].ours}
        self._first = {system: first.replace("#", "0").replace("*", "weight") for system, first in firsts.items()}
        self._heads = {s: re.compile("|".join(map(_head_pattern, names)) or "(?!)") for s, names in self.heads.items()}
        self._table: dict[str, dict[str, list[_Spelling]]] = {}
        for row in self.rows:
            for system in row.theirs:
                for rank, (theirs, turn) in enumerate(_spelt(row, system)):
                    for ours_end, end in (("weight", "weight"), ("bias", "bias")) if theirs.endswith("*") else (("", ""),):
                        spelling = _Spelling(
                            re.compile(re.escape(theirs.removesuffix("*") + end).replace(r"\#", r"([0-9]+)")),
                            row.ours.removesuffix("*") + ours_end,
                            turn,
                            rank,
                        )
                        key = _NUMBER.sub("#", theirs.removesuffix("*") + end)
                        self._table.setdefault(system, {}).setdefault(key, []).append(spelling)

    def extended(self, rows: Sequence[Name], heads: Mapping[str, Sequence[str]] | None = None) -> Names:
        """This table with more rows, and with other heads if given, of a family built on this one.

        A row for a weight that is here already adds the names that further systems have for it.

        Example:
            >>> table = Names([Name("up.*", {"fairseq": "fc1.*"})]).extended([Name("up.*", {"fairseq2": "inner_proj.*"})])
            >>> table.find(["inner_proj.weight"])
            ('fairseq2', '')
        """
        merged = {row.ours: row for row in self.rows}
        for row in rows:
            here = merged.get(row.ours)
            merged[row.ours] = row if here is None else replace(here, theirs={**here.theirs, **row.theirs})
        return Names([*merged.values()], self.heads if heads is None else heads)

    def find(self, tensors: Iterable[str]) -> tuple[str, str] | None:
        """System whose names a file has, and the prefix before them; None if the file holds no such encoder.

        Raises:
            CheckpointLayoutError: it holds several.
        """
        tensors = list(tensors)
        found: list[tuple[int, str, str]] = []
        for system, first in self._first.items():
            # A head may hold a second encoder, such as the teacher that data2vec was trained with.
            prefixes = [name[: -len(first)] for name in tensors if name.endswith(first) and not self.is_head(system, name)]
            prefixes = [prefix for prefix in prefixes if not prefix or prefix.endswith(".")]
            if len(prefixes) > 1:
                raise CheckpointLayoutError(
                    f"the file holds {len(prefixes)} encoders, under {', '.join(map(repr, prefixes))}. "
                    "Save the one you mean in a file of its own."
                )
            for prefix in prefixes:
                known = self.read(system, (name[len(prefix) :] for name in tensors if name.startswith(prefix)))
                found.append((len(known), system, prefix))
        # Two systems may share that name; the file is of the one that knows more of it.
        return max(found, key=lambda one: one[0])[1:] if found else None

    def read(self, system: str, names: Iterable[str]) -> dict[str, tuple[str, Turn | None]]:
        """Our name -> (the file's name, what happens to the tensor), for the names that the table knows."""
        if system == OURS:
            return {name: (name, None) for name in names}
        found: dict[str, tuple[str, Turn | None]] = {}
        ranks: dict[str, int] = {}
        for name in names:
            for spelling in self._table.get(system, {}).get(_NUMBER.sub("#", name), ()):
                match = spelling.pattern.fullmatch(name)
                ours = _fill(spelling.target, match.groups()) if match else ""
                if match and spelling.rank < ranks.get(ours, 99):
                    ranks[ours], found[ours] = spelling.rank, (name, spelling.turn)
        return found

    def write(self, system: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors under a system's names and in its shapes.

        Raises:
            CheckpointLayoutError: a weight has no name there.
        """
        written = {}
        for ours, tensor in state.items():
            theirs, turn = self._written(system, ours)
            written[theirs] = (turn.write(tensor) if turn and turn.write else tensor).contiguous()
        return written

    def _written(self, system: str, ours: str) -> tuple[str, Turn | None]:
        for row in self.rows:
            for end in ("weight", "bias") if row.ours.endswith("*") else ("",):
                pattern = re.escape(row.ours.removesuffix("*") + end).replace(r"\#", r"([0-9]+)")
                match = re.fullmatch(pattern, ours)
                if match and system in row.theirs:
                    theirs, turn = _spelt(row, system)[0]
                    return _fill(theirs.removesuffix("*") + end, match.groups()), turn
        raise CheckpointLayoutError(
            f"the weight {ours} has no name in {system}. Export this model as safetensors, which holds every weight."
        )

    def is_head(self, system: str, name: str) -> bool:
        """True if the table of heads has this name, so that it may be ignored."""
        heads = self._heads.get(system)
        return heads is not None and heads.fullmatch(name) is not None

    def first(self, system: str) -> str:
        """The name by which an encoder of that system is found."""
        return self._first[system]


def _spelt(row: Name, system: str) -> list[tuple[str, Turn | None]]:
    """The spellings of a row in one system, each with its turn."""
    theirs = row.theirs[system]
    several = [theirs] if isinstance(theirs, str) else theirs
    return [(one, row.turn) if isinstance(one, str) else one for one in several]


def _fill(template: str, numbers: Sequence[str]) -> str:
    for number in numbers:
        template = template.replace("#", number, 1)
    return template


def _head_pattern(template: str) -> str:
    return re.escape(template).replace(r"\*\*", ".*").replace(r"\*", "(?:weight|bias)").replace(r"\#", r"[0-9]+")
