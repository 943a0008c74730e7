"""`LoadReport`: which tensors of a checkpoint were used, ignored and converted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hubcore.text import plural, printable


@dataclass(frozen=True)
class LoadReport:
    """Tensors that were used, ignored and converted when a checkpoint was loaded; printed, it is a short table.

    A tensor that the model needs and the file lacks is never reported here: it is an error.

    Example:
        >>> LoadReport(source="a.pt", layout="fairseq, cfg dict", used=("x",), ignored=("proj.weight",)).ignored
        ('proj.weight',)
    """

    source: str
    """The file that was read."""
    layout: str
    """The layout that was recognised."""
    used: tuple[str, ...] = ()
    """Names, as the file spells them, of the tensors that became weights."""
    ignored: tuple[str, ...] = ()
    """Names of the tensors that are no part of the encoder: heads, quantiser, mask embedding."""
    converted: tuple[str, ...] = ()
    """Changes made while reading, such as float16 weights up-cast or a weight norm fused."""
    sha256: str | None = None
    """The file's SHA-256 where it is known."""
    notes: tuple[str, ...] = field(default=())
    """Assumptions made where the file says nothing."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LoadReport:
        """The report that `dataclasses.asdict` took apart, also after a journey through JSON.

        Raises:
            TypeError: `values` are not those of a report.

        Example:
            >>> import dataclasses, json
            >>> report = LoadReport(source="a.pt", layout="state dict", used=("x",))
            >>> LoadReport.from_dict(json.loads(json.dumps(dataclasses.asdict(report)))) == report
            True
        """
        plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return cls(**plain)

    def __str__(self) -> str:
        rows = [("loaded", self.source), ("layout", self.layout), ("used", f"{plural(len(self.used), 'tensor')}")]
        rows += [("ignored", ", ".join(self.ignored) or "nothing"), ("converted", "; ".join(self.converted) or "nothing")]
        rows += [("note", note) for note in self.notes]
        return "\n".join(f"{label:<10}{printable(value)}" for label, value in rows)
