"""The documentation is true: its snippets and commands run, its links lead somewhere, its tables name what there is."""

from __future__ import annotations

import ast
import dataclasses
import doctest
import fnmatch
import inspect
import json
import os
import re
import shlex
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner

from hubcore import errors, hub
from hubcore.cli import main
from hubcore.hookspecs import HookSpecs
from hubcore.protocol import Upstream, UpstreamOutput
from hubcore.registry import names as registry
from hubcore.registry.reading import SCHEMA
from hubcore_wav2vec2 import CONFIGS, build_model
from tests.benchmarks.__main__ import NAMES, ON_REQUEST
from tests.paths import GOLD, REPOSITORY, SPEECH

DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
LANGUAGES = {"python", "pycon", "console", "shell", "yaml", "toml", "text"}
TUTORIALS = {DOCS / "hooks.md", DOCS / "write_a_plugin.md"}
"""Pages whose commands need an environment of their own: `test_hooks_page.py` and `test_tutorial.py` type them."""
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
_DIRECTIVE = re.compile(r"<!-- (not run|file): (.+) -->")
_COMMAND = re.compile(r"(?P<environment>(?:[A-Z_]+=\S+ )*)hubcore (?P<arguments>.*)")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclasses.dataclass(frozen=True)
class Fence:
    """A fenced block of a page."""

    page: Path
    line: int
    """Number of its first line of text, from 1."""
    language: str
    text: str
    directive: str | None
    """`not run` or `file`, from a comment on the line before."""
    value: str
    """The reason, or the file's name."""


def name_of(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


def fences(page: Path) -> list[Fence]:
    found: list[Fence] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    start: int | None = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
            continue
        match = _DIRECTIVE.fullmatch(lines[start - 1]) if start else None
        text = "\n".join(lines[start + 1 : number]) + "\n"
        directive, value = match.groups() if match else (None, "")
        found.append(Fence(page, start + 2, lines[start][3:].strip(), text, directive, value))
        start = None
    assert start is None, f"{name_of(page)}: the block that starts in line {start} is not closed"
    return found


def prose(page: Path) -> str:
    """The text outside of fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def rows(page: Path) -> list[list[str]]:
    """The cells of every table row of a page, headers included."""
    lines = [line for line in prose(page).splitlines() if line.startswith("|") and not re.fullmatch(r"[|\s:-]+", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def code(cell: str) -> list[str]:
    """What stands in backquotes."""
    return re.findall(r"`([^`]+)`", cell)


by_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


# What runs ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def snippets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """The module that a page's snippets run in, in a folder of its own with the clips of this repository in it."""
    (tmp_path / "tests/data/gold").mkdir(parents=True)
    (tmp_path / "tests/data/speech").symlink_to(SPEECH)
    (tmp_path / "tests/data/gold/ofa_dataset").symlink_to(GOLD / "ofa_dataset")
    module = types.ModuleType("snippets_of_a_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # so that its classes can be pickled
    monkeypatch.setenv("HUBCORE_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    environment = dict(os.environ)
    torch.manual_seed(0)
    yield module
    os.environ.clear()
    os.environ.update(environment)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in TUTORIALS], ids=name_of)
@pytest.mark.slow
def test_the_snippets_and_commands_run(page: Path, snippets: types.ModuleType) -> None:
    for fence in fences(page):
        if fence.directive == "not run":
            continue
        if fence.directive == "file":
            Path(fence.value).write_text(fence.text, encoding="utf-8")
        elif fence.language == "python":
            # Leading newlines make the line numbers of a traceback those of the page.
            exec(compile("\n" * (fence.line - 1) + fence.text, str(page), "exec"), snippets.__dict__)
        elif fence.language == "pycon":
            run_session(fence, snippets)
        elif fence.language == "console":
            run_console(fence)
        elif fence.language == "shell":
            for line in fence.text.splitlines():
                if _COMMAND.fullmatch(line):
                    run_command(line, fence)


def run_session(fence: Fence, module: types.ModuleType) -> None:
    test = doctest.DocTestParser().get_doctest(
        fence.text, module.__dict__, name_of(fence.page), str(fence.page), fence.line - 1
    )
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    result = runner.run(test, out=said.append, clear_globs=False)
    module.__dict__.update(test.globs)
    assert result.attempted, f"{name_of(fence.page)}:{fence.line} holds no session"
    assert not result.failed, "".join(said)


def run_console(fence: Fence) -> None:
    """Commands after `$`, each followed by what it prints."""
    blocks = re.split(r"^\$ ", fence.text, flags=re.MULTILINE)
    assert not blocks[0].strip(), f"{name_of(fence.page)}:{fence.line} must begin with a command"
    for block in blocks[1:]:
        command, _, wanted = block.partition("\n")
        if _COMMAND.fullmatch(command):
            got = run_command(command, fence)
            same = doctest.OutputChecker().check_output(wanted, got, FLAGS)
            assert same, f"{name_of(fence.page)}:{fence.line}: `{command}` must print\n{wanted}\nbut prints\n{got}"


def run_command(line: str, fence: Fence) -> str:
    match = _COMMAND.fullmatch(line)
    assert match
    environment = dict(pair.split("=", 1) for pair in match["environment"].split())
    arguments = shlex.split(match["arguments"], comments=True)
    result = CliRunner().invoke(main, arguments, prog_name="hubcore", env=environment)
    assert result.exit_code == 0, f"{name_of(fence.page)}:{fence.line}: `{line}` ends with {result.exit_code}\n{result.output}"
    return result.stdout


def test_few_snippets_are_not_run_and_each_says_why() -> None:
    runnable = [f for page in PAGES for f in fences(page) if f.language in ("python", "pycon", "console", "shell")]
    skipped = [f for f in runnable if f.directive == "not run"]
    assert all(len(f.value) > 10 for f in skipped)
    assert len(skipped) <= 4 and len(runnable) - len(skipped) >= 25
    marks = sum(page.read_text(encoding="utf-8").count("<!-- not run") for page in PAGES)
    assert marks == len(skipped), "a mark stands somewhere else than on the line before a snippet"


@by_page
def test_every_block_names_its_language(page: Path) -> None:
    wrong = [f"line {f.line - 1}: {f.language!r}" for f in fences(page) if f.language not in LANGUAGES]
    assert not wrong, f"{name_of(page)} has blocks in other languages than {sorted(LANGUAGES)}: {wrong}"


def test_a_wrong_output_would_be_noticed(snippets: types.ModuleType) -> None:
    page = PAGES[0]
    with pytest.raises(AssertionError, match="Expected"):
        run_session(Fence(page, 1, "pycon", ">>> 1 + 1\n3\n", None, ""), snippets)
    with pytest.raises(AssertionError, match="must print"):
        run_console(Fence(page, 1, "console", "$ hubcore --version\nhubcore 0.0.0\n", None, ""))
    with pytest.raises(AssertionError, match="ends with 2"):
        run_console(Fence(page, 1, "console", "$ hubcore info nothing\n", None, ""))


# Links and structure --------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors that headings get on the usual hosting sites."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@by_page
def test_relative_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(prose(page)):
        if "://" in link:
            assert link.startswith("https://"), link
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name_of(page)}: {link}"
        assert target.is_relative_to(REPOSITORY), f"{name_of(page)}: {link} leads out of the repository"
        assert not anchor or anchor in anchors(target), f"{name_of(page)}: {link} has no such heading"


def test_the_readme_is_short_and_has_the_two_commands() -> None:
    lines = (REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 80
    assert any(line.startswith("make demo") for line in lines)
    assert any(line.startswith("make test") for line in lines)


def test_the_index_has_every_page() -> None:
    linked = {(DOCS / link).resolve() for link in _LINK.findall(prose(DOCS / "index.md"))}
    assert linked == {page.resolve() for page in PAGES[2:] if page.name != "index.md"}


@by_page
def test_commands_named_in_the_text_exist(page: Path) -> None:
    named = set(re.findall(r"`(?:[A-Z_]+=\S+ )?hubcore ([a-z]\w*)", page.read_text(encoding="utf-8")))
    known = main.list_commands(click.Context(main))
    assert named <= set(known), f"{name_of(page)} names {sorted(named - set(known))}"


SECTIONS = ["Configs and names", "Layers", "Checkpoints", "Differences from the original", "Licence"]
"""Headings that a family's page has, in this order."""
FAMILY_PAGES = [page for page in PAGES if page.parent.name == "families" and page.stem != "fbank"]


@pytest.mark.parametrize("page", FAMILY_PAGES, ids=lambda page: page.stem)
def test_a_familys_page_is_made_like_the_others(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    headings = [line[3:].replace("originals", "original") for line in text.splitlines() if line.startswith("## ")]
    assert [heading for heading in headings if heading in SECTIONS] == SECTIONS
    assert "](../hidden_states.md)" in text, "its layers link to the page about the conventions of hidden states"


@pytest.mark.parametrize("page", FAMILY_PAGES, ids=lambda page: page.stem)
def test_a_familys_page_has_the_names_of_its_cards(page: Path) -> None:
    cards = [entry.card for entry in registry.current_registry().entries if entry.owner == "hubcore" and entry.card]
    named = re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))
    for card in cards:
        if card.upstream == page.stem:
            assert any(fnmatch.fnmatchcase(name, pattern) for name in (card.name, *card.aliases) for pattern in named), (
                card.name
            )


def test_the_page_about_hidden_states_has_every_family() -> None:
    linked = {Path(link).stem for link in _LINK.findall(prose(DOCS / "hidden_states.md")) if link.startswith("families/")}
    assert linked == {page.stem for page in PAGES if page.parent.name == "families"}


def test_the_models_that_are_recommended_exist() -> None:
    named = {name for row in rows(DOCS / "choosing.md") for cell in row[:2] for name in code(cell)}
    assert len(named) > 20 and named <= set(hub.list())


# Tables ---------------------------------------------------------------------------------------------------------------


def defined_names(file: Path) -> set[str]:
    """Names that a Python file defines at its top level and in its classes, such as `Encoder` and `Encoder.forward`."""
    names: set[str] = set()

    def add(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(prefix + node.name)
            if isinstance(node, ast.ClassDef) and not prefix:
                add(node.body, f"{node.name}.")
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names.add(prefix + node.target.id)
            if isinstance(node, ast.Assign):
                names.update(prefix + target.id for target in node.targets if isinstance(target, ast.Name))

    add(ast.parse(file.read_text(encoding="utf-8")).body, "")
    return names


def test_where_is_it_names_what_exists() -> None:
    entries = [row for row in rows(DOCS / "where_is_it.md")[1:] if row[1]]
    assert len(entries) >= 30
    for wish, file, names in entries:
        (path,) = code(file)
        assert (REPOSITORY / path).is_file(), f"{wish}: there is no {path}"
        assert code(names), f"{wish}: no name is given"
        there = defined_names(REPOSITORY / path) if path.endswith(".py") else None
        for name in code(names):
            text = (REPOSITORY / path).read_text(encoding="utf-8")
            assert name in (text if there is None else there), f"{wish}: {path} has no {name}"


def test_benchmarks_that_pages_name_can_be_run() -> None:
    named = {
        name for page in PAGES for name in re.findall(r"python -m tests\.benchmarks (\w+)", page.read_text(encoding="utf-8"))
    }
    assert {"chunks", "extraction"} <= named <= {*NAMES, *ON_REQUEST}


def test_where_is_it_is_short_and_its_tree_is_there() -> None:
    text = (DOCS / "where_is_it.md").read_text(encoding="utf-8")
    assert sum(line.startswith("|") for line in text.splitlines()) < 60
    folders = set(re.findall(r"\bhubcore/\w+/", fences(DOCS / "where_is_it.md")[0].text))
    assert {"hubcore/nn/", "hubcore/sources/", "hubcore/checkpoints/"} <= folders
    assert all((REPOSITORY / folder).is_dir() for folder in folders)


def test_the_numbers_in_prose_are_those_of_the_code() -> None:
    faults = [row for row in rows(DOCS / "faults.md") if row[0] != "fault"]
    assert f"| {len(faults)} ways in which" in (DOCS / "index.md").read_text(encoding="utf-8")
    page = (DOCS / "families/wav2vec2.md").read_text(encoding="utf-8")
    for name, family in (("wav2vec2_tiny_prompts", "wav2vec2"), ("ofa_wav2vec2_tiny_prompts", "ofa_wav2vec2")):
        count = f"2.0 of {sum(weight.numel() for weight in hub.load(name).parameters()) / 1e6:.2f} M weights"
        assert count in (REPOSITORY / f"plugins/hubcore_{family}/bundled/README.md").read_text(encoding="utf-8")
    assert "a wav2vec 2.0 of 0.56 M weights" in page


def test_the_sizes_of_downloads_in_prose_are_those_of_the_cards() -> None:
    sizes = {round(source.size, -7) for source in hub.info("wav2vec2_base_960").card.sources if source.size}
    said = [int(size) for page in PAGES for size in re.findall(r"downloads (?:it )?\(?(\d+) MB", page.read_text("utf-8"))]
    assert len(said) > 2 and {size * 10**6 for size in said} == sizes


def test_the_prompts_that_were_learned_from_and_held_out_are_all_there_are() -> None:
    page = (DOCS / "families/wav2vec2.md").read_text(encoding="utf-8")
    learned, held_out = (re.search(pattern, page) for pattern in (r"([\d,]+) telephone prompts", r"on (\d+) held-out prompts"))
    assert learned and held_out
    total = int(learned[1].replace(",", "")) + int(held_out[1])
    assert re.findall(r"(\d+) prompts", (DOCS / "pretrain_data.md").read_text(encoding="utf-8")) == [str(total)] * 2


def test_every_field_of_a_card_is_documented() -> None:
    definitions = json.loads(SCHEMA.read_text(encoding="utf-8"))["definitions"]
    documented = [cell for row in rows(DOCS / "registry.md") for cell in code(row[0])]
    card, source, codebook = (definitions[kind]["properties"] for kind in ("card", "source", "codebook"))
    assert sorted(documented) == sorted([*card, *source, *(codebook.keys() - source.keys())])
    needed = {code(row[0])[0] for row in rows(DOCS / "registry.md") if code(row[0]) and row[1] == "yes"}
    assert needed == {"upstream", "license", "uri", "layer"}


def test_every_error_is_documented_with_its_bases() -> None:
    table = {code(row[0])[0]: row for row in rows(DOCS / "errors.md") if code(row[0])}
    classes = {name: value for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    assert set(table) == set(classes)
    for name, (_, bases, cause, remedy) in table.items():
        assert bases.split(", ") == [base.__name__ for base in classes[name].__bases__], name
        assert cause and remedy, name


def test_the_contract_page_has_every_attribute() -> None:
    named = {name for row in rows(DOCS / "upstream_contract.md") for name in code(row[0]) if not name.startswith("hubcore_")}
    output = {field.name for field in dataclasses.fields(UpstreamOutput)}
    output |= {name for name, value in vars(UpstreamOutput).items() if isinstance(value, property)}
    output |= {"frame_times()", "packed()", "to()", "unpad()"}
    assert named == set(Upstream.__annotations__) | output


def test_every_hook_and_entry_point_group_is_documented() -> None:
    page = DOCS / "upstream_contract.md"
    documented = [name for row in rows(page) for name in code(row[0]) if name.startswith("hubcore_")]
    specified = []
    for name, value in vars(HookSpecs).items():
        if name.startswith("hubcore_"):
            parameters = [parameter for parameter in inspect.signature(value).parameters if parameter != "self"]
            specified.append(f"{name}({', '.join(parameters)})")
    assert documented == specified
    for group in (registry.UPSTREAMS_GROUP, registry.REGISTRIES_GROUP, registry.HOOKS_GROUP):
        assert re.search(
            rf"^\[project\.entry-points\.\"?{re.escape(group)}\"?\]", page.read_text("utf-8"), flags=re.MULTILINE
        ), group


@pytest.mark.slow
def test_the_config_table_is_that_of_the_code() -> None:
    table = [row for row in rows(DOCS / "families/wav2vec2.md") if len(row) == 9 and code(row[0])]
    assert [code(row[0])[0] for row in table] == list(CONFIGS)
    for name, dim, blocks, heads, ffn, conv_norm, norm, normalize, parameters in table:
        config = CONFIGS[code(name)[0]]
        assert [config.dim, config.num_layers, config.num_heads, config.ffn_dim] == [int(x) for x in (dim, blocks, heads, ffn)]
        assert (config.conv_norm, config.pre_norm, config.normalize) == (conv_norm, norm == "pre", normalize == "yes")
        with torch.device("meta"):
            count = sum(weight.numel() for weight in build_model(config).parameters())
        assert f"{count / 1e6:.{0 if count > 1e7 else 2}f} M" == parameters, name
