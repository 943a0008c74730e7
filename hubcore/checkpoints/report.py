"""`LoadReport`: what became of every tensor of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class LoadReport:
    """What was used, ignored and converted when a checkpoint was loaded; printed, it is a short table.

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
    """What was changed on the way, such as float16 weights up-cast or a weight norm fused."""
    sha256: str | None = None
    """The file's SHA-256 where it is known."""
    notes: tuple[str, ...] = field(default=())
    """What was assumed where the file says nothing."""

    def __str__(self) -> str:
        lines = [f"loaded    {self.source}", f"layout    {self.layout}", f"used      {len(self.used)} tensors"]
        lines.append(f"ignored   {', '.join(self.ignored) or 'nothing'}")
        lines.append(f"converted {'; '.join(self.converted) or 'nothing'}")
        lines.extend(f"note      {note}" for note in self.notes)
        return "\n".join(lines)
