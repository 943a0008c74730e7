"""`Finding`: one thing that is wrong, where it is, and what to do. Imports nothing of the core."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a plugin, a card or the installation.

    Example:
        >>> print(Finding("'ours' has no 'license'.", "Add it.", "a/registry.yaml", 3))
        a/registry.yaml:3: 'ours' has no 'license'. Add it.
    """

    what: str
    """Problem, in a sentence."""
    fix: str = ""
    """Remedy, in a sentence."""
    file: str = ""
    """The file to look into; empty if none is known."""
    line: int | None = None
    """The line in it; None if the file as a whole is meant."""
    owner: str = ""
    """The distribution that is to blame, `user`, or the folder of metadata that names none."""
    version: str = ""
    """That distribution's version."""
    entry_point: str = ""
    """The entry point concerned, as `name = value (group)`."""
    traceback: tuple[str, ...] = ()
    """The lines of the traceback, without frames of other packages."""
    warning: bool = False
    """True if it harms without breaking, such as a slow import."""
    error: BaseException | None = field(default=None, compare=False, repr=False)
    """Exception that was raised, in this process."""

    @property
    def text(self) -> str:
        """Problem and remedy."""
        return f"{self.what} {self.fix}".rstrip()

    @property
    def place(self) -> str:
        """`file, line N`, as far as it is known."""
        return f"{self.file}, line {self.line}" if self.line else self.file

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.text}" if place else self.text
