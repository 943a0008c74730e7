"""Inert records: what stands for a class, a function or an instance that a pickle names, and how far a walk may go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hubcore.checkpoints.formats.tensor_ref import unsafe

MAX_DEPTH = 100  # of nested lists, tuples and dicts
MAX_EXPANDED = 1_000_000  # values met by a walk that does not notice sharing

_CONTAINERS = frozenset((dict, list, tuple))


@dataclass(frozen=True, slots=True)
class GlobalName:
    """The name of a class or function in a pickle; only a name.

    Example:
        >>> GlobalName("os", "system")
        <name os.system>
    """

    module: str
    name: str

    @property
    def dotted(self) -> str:
        """Module and name, joined by a dot."""
        return f"{self.module}.{self.name}"

    def __repr__(self) -> str:
        return f"<name {self.dotted}>"


@dataclass(slots=True, eq=False, repr=False)
class Opaque:
    """An inert record of an object whose class is not known here: what its pickle would have given to that class.

    `args` is what the class or function would have been called with, `state` what its instance would have been filled
    with, `items` the pairs put into it as into a dict, `elements` the values put into it as into a list or a set.

    Example:
        >>> Opaque("argparse", "Namespace", state={"lr": 0.1})
        <record of argparse.Namespace>
    """

    module: str
    name: str
    args: tuple[object, ...] = ()
    state: object = None
    items: Sequence[tuple[object, object]] = ()
    elements: Sequence[object] = ()

    @property
    def dotted(self) -> str:
        """The name of the class or function, with its module."""
        return f"{self.module}.{self.name}"

    def __repr__(self) -> str:
        return f"<record of {self.dotted}>"


def check_walk(root: object) -> None:
    """Refuses a value that a plain recursive walk could not finish: too deep, in circles, or shared explosively.

    A walk stops at records; what is inside each record is checked as a value of its own.

    Raises:
        UnsafeCheckpointError: The value is none that honest software writes.
    """
    weights: dict[int, tuple[int, int]] = {}
    open_now: set[int] = set()
    roots: list[Any] = [root]
    seen_records: set[int] = set()
    while roots:
        todo: list[Any] = [roots.pop()]
        while todo:
            node = todo[-1]
            kind = type(node)
            if kind is Opaque:
                todo.pop()
                if id(node) not in seen_records:
                    seen_records.add(id(node))
                    roots.extend((node.args, node.state, node.items, node.elements))
                continue
            if kind not in _CONTAINERS or id(node) in weights:
                todo.pop()
                continue
            children = node.values() if kind is dict else node
            if id(node) not in open_now:
                open_now.add(id(node))
                if len(children) > MAX_EXPANDED:
                    raise unsafe(f"its pickle has a list, tuple or dict of {len(children)} values")
                inner = {id(child): child for child in children if type(child) in _CONTAINERS or type(child) is Opaque}
                if not open_now.isdisjoint(inner):
                    raise unsafe("its pickle has a list, tuple or dict that contains itself")
                if len(open_now) > MAX_DEPTH:
                    raise unsafe(f"its pickle is nested more than {MAX_DEPTH} deep")
                todo.extend(child for key, child in inner.items() if key not in weights)
                continue
            todo.pop()
            open_now.discard(id(node))
            known = [weights[id(child)] for child in children if type(child) in _CONTAINERS]
            count = 1 + len(children) + sum(weight for weight, _ in known)
            depth = 1 + max((deep for _, deep in known), default=0)
            if count > MAX_EXPANDED or depth > MAX_DEPTH:
                raise unsafe(f"its pickle unfolds into more than {MAX_EXPANDED} values or {MAX_DEPTH} levels")
            weights[id(node)] = (count, depth)
