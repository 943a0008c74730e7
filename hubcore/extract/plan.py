"""`plan.jsonl`: the utterances of a folder in blocks, made once, so that a run that was killed is resumed with the same ones.

A block is what one shard holds, and its utterances are batched among themselves. So neither what is in a shard nor which
utterances are computed together depends on when a run was killed. Utterances that are added to a corpus later get blocks of
their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hubcore.errors import ExtractionError
from hubcore.extract.finished import write_held
from hubcore.files import parse_json, read_regular
from hubcore.text import printable

BLOCK_UTTERANCES = 1024
"""Utterances of a block at most."""
BLOCK_BYTES = 256 << 20
"""Bytes of its features, about, at most; some formats keep so much in memory."""


@dataclass(frozen=True)
class Block:
    """Utterances that are computed, and written, one after the other.

    Example:
        >>> Block(0, {"a": 16000}).samples["a"]
        16000
    """

    number: int
    """Its place in the plan, from 0."""
    samples: Mapping[str, int]
    """The length of each utterance at the upstream's rate, longest first."""
    places: tuple[int, ...] = ()
    """The place of each in the corpus, when it was planned."""


class Plan:
    """The blocks of a folder.

    Example:
        >>> import tempfile
        >>> plan = Plan(Path(tempfile.mkdtemp()))
        >>> plan.add({"a": 3, "b": 2}, ["b", "a"], bytes_per_sample=8.0)
        True
        >>> plan.write()
        >>> Plan(plan.path.parent).blocks == plan.blocks == [Block(0, {"a": 3, "b": 2}, (1, 0))]
        True
        >>> plan.order
        ['b', 'a']
    """

    def __init__(self, folder: Path) -> None:
        """That of `folder`, empty if it has none yet.

        Raises:
            ExtractionError: the file is no plan.
        """
        self.path = folder / "plan.jsonl"
        self.blocks: list[Block] = []
        try:
            for number, line in enumerate(read_regular(self.path).splitlines()):
                found = parse_json(line)
                samples, places = found["samples"], tuple(found.get("places", ()))
                if not all(type(number) is int for number in (*samples.values(), *places)):
                    raise ValueError("a length is no integer")
                self.blocks.append(Block(number, samples, places))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ExtractionError(
                f"{printable(self.path)} is no plan of an extraction ({error!r}). Without it, shards could not be made again.",
                fix="Restore the file, or extract into another folder.",
            ) from error

    @property
    def planned(self) -> set[str]:
        """The names of all utterances that have a block."""
        return {name for block in self.blocks for name in block.samples}

    @property
    def order(self) -> list[str]:
        """The names of all utterances, as the corpus had them."""
        places = [(place, name) for block in self.blocks for name, place in zip(block.samples, block.places, strict=False)]
        return [name for _, name in sorted(places)]

    def add(self, samples: Mapping[str, int], corpus: Iterable[str], *, bytes_per_sample: float) -> bool:
        """Adds blocks for utterances, given by name with their lengths, longest first; True if there are new ones.

        Args:
            samples: the lengths.
            corpus: the names of the whole corpus, in its order.
            bytes_per_sample: of the features, about.
        """
        place = {name: number for number, name in enumerate(corpus)}
        room, size = 0, 0.0
        blocks: list[dict[str, int]] = []
        for name, length in samples.items():
            if not room or size + length * bytes_per_sample > BLOCK_BYTES:
                blocks.append({})
                room, size = BLOCK_UTTERANCES, 0.0
            blocks[-1][name] = length
            room, size = room - 1, size + length * bytes_per_sample
        for block in blocks:
            self.blocks.append(Block(len(self.blocks), block, tuple(place[name] for name in block)))
        return bool(samples)

    def write(self) -> None:
        """Writes the plan.

        Raises:
            ExtractionError: the file system refuses.
        """
        with write_held(self.path) as temporary, open(temporary, "w", encoding="ascii") as stream:
            stream.writelines(
                json.dumps({"block": b.number, "samples": dict(b.samples), "places": b.places}) + "\n" for b in self.blocks
            )
