"""A newcomer types docs/write_a_plugin.md from top to bottom, in an empty folder and a fresh environment."""

from __future__ import annotations

import ast
import doctest
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.packaging.conftest import Environment
from tests.paths import REPOSITORY

PAGE = REPOSITORY / "docs/write_a_plugin.md"
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
_BLOCK = re.compile(
    r"(?:<!-- (?P<directive>file|edit): (?P<path>\S+) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """A fenced block: commands to type, a file to write, or a definition to put in place of one."""

    kind: str
    path: str
    text: str


def blocks(page: str) -> Iterator[Block]:
    for match in _BLOCK.finditer(page):
        yield Block(match["directive"] or match["language"], match["path"] or "", match["text"])


def replace_definition(source: str, new: str) -> str:
    """The source with its class or function of that name replaced."""
    (wanted,) = ast.parse(new).body
    assert isinstance(wanted, ast.ClassDef | ast.FunctionDef)
    lines = source.splitlines(keepends=True)
    (old,) = [node for node in ast.parse(source).body if getattr(node, "name", None) == wanted.name]
    assert old.end_lineno
    return "".join([*lines[: old.lineno - 1], new, *lines[old.end_lineno :]])


class Newcomer:
    """Somebody with a shell and an editor, who checks that the page told the truth."""

    def __init__(self, environment: Environment, folder: Path) -> None:
        self.environment, self.folder = environment, folder
        self.typed: list[str] = []

    def follow(self, page: str) -> None:
        for block in blocks(page):
            if block.kind == "console":
                self.type(block.text)
            elif block.kind == "file":
                (self.folder / block.path).write_text(block.text)
            elif block.kind == "edit":
                file = self.folder / block.path
                file.write_text(replace_definition(file.read_text(), block.text))
            else:
                raise AssertionError(f"a {block.kind} block is neither typed nor written anywhere:\n{block.text}")

    def type(self, session: str) -> None:
        before, *rest = re.split(r"^\$ ", session, flags=re.MULTILINE)
        assert not before, f"a session must begin with a command: {before!r}"
        for text in rest:
            command, _, wanted = text.partition("\n")
            self.typed.append(command)
            if command.startswith("cd "):
                self.folder = self.folder / command.removeprefix("cd ")
                continue
            got = self.environment.run(command, self.folder).stdout
            same = doctest.OutputChecker().check_output(wanted, got, FLAGS)
            assert same, f"`{command}` must print\n{wanted}\nbut prints\n{got}"


@pytest.fixture
def newcomer(new_environment: Callable[[], Environment], tmp_path: Path) -> Newcomer:
    return Newcomer(new_environment(), tmp_path)


def test_the_tutorial_ends_green(newcomer: Newcomer) -> None:
    began = time.perf_counter()
    newcomer.follow(PAGE.read_text(encoding="utf-8"))
    said = " ".join(newcomer.typed)
    for needed in ("plugin new", "pip install -e", "pytest", "hubcore list", "hubcore info", "plugin check", "pip wheel"):
        assert needed in said
    assert time.perf_counter() - began < 15 * 60


def test_an_untrue_page_would_be_noticed(newcomer: Newcomer) -> None:
    with pytest.raises(AssertionError, match="must print"):
        newcomer.type("$ echo one\ntwo\n")
    with pytest.raises(AssertionError, match="ends with 2"):
        newcomer.type("$ hubcore info nothing\n...\n")
    with pytest.raises(AssertionError, match="neither typed nor written"):
        newcomer.follow("```python\n1 + 1\n```\n")
    newcomer.follow("<!-- file: a.py -->\n```python\nx = 1\ndef f():\n    return 1\ny = 2\n```\n")
    newcomer.follow("<!-- edit: a.py -->\n```python\ndef f():\n    return 2\n```\n")
    assert (newcomer.folder / "a.py").read_text() == "x = 1\ndef f():\n    return 2\ny = 2\n"
