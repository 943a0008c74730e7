"""Words that readers stumbled over do not come back: in docstrings, in messages and on the pages."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.paths import REPOSITORY

SOURCES = sorted(path for folder in ("hubcore", "plugins") for path in (REPOSITORY / folder).rglob("*.py"))
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
RIDDLES = re.compile(r"\b(mends?|(goes|go|going) on|what came|is had|had from|could not be had|downloaded anew)\b")
"""Said plainly: fix, resume or continue, received, available, downloaded again."""
QUESTIONS = re.compile(r"(What|Whether|How|Where|Which)\b")


def texts(file: Path) -> list[tuple[int, str, bool]]:
    """Line and text of every string of a Python file, and whether it is a docstring."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    strings = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [(node.lineno, str(node.value), id(node) in docs) for node in strings]


def riddles(file: Path) -> list[str]:
    """`file:line: words` for everything that should be said plainly."""
    if file.suffix == ".md":
        found = [(number, line, False) for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)]
    else:
        found = texts(file)
    wrong = [(line, match[0]) for line, text, _ in found if (match := RIDDLES.search(text))]
    wrong += [(line, match[0]) for line, text, is_doc in found if is_doc and (match := QUESTIONS.match(text))]
    return [f"{file}:{line}: {words}" for line, words in wrong]


@pytest.mark.parametrize("files", [SOURCES, PAGES], ids=["code", "pages"])
def test_sentences_are_plain(files: list[Path]) -> None:
    assert len(files) > 15
    wrong = [place for file in files for place in riddles(file)]
    assert not wrong, "begin a docstring with a verb or a noun, and use the plain word:\n" + "\n".join(wrong)


def test_a_riddle_would_be_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('"""What it is."""\nraise ValueError("the run goes on")\n', encoding="utf-8")
    (tmp_path / "a.md").write_text("Mend it.\nYou can mend it.\n", encoding="utf-8")
    assert [len(riddles(tmp_path / name)) for name in ("a.py", "a.md")] == [2, 1]
