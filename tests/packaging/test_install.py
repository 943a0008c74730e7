"""Both ways of installing: the wheel carries what it needs, and a checkout points editors at the real files."""

from __future__ import annotations

import zipfile
from pathlib import Path

from tests.paths import REPOSITORY
from tests.running import python


def test_the_wheel_has_everything_and_nothing_else(hubcore_wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(hubcore_wheel).namelist() if ".dist-info/" not in name}
    folders = [REPOSITORY / "hubcore", *(REPOSITORY / "plugins").glob("hubcore_*")]
    ours = {path.relative_to(folder.parent) for folder in folders for path in folder.rglob("*") if path.is_file()}
    pages = {f"hubcore/{path.relative_to(REPOSITORY).as_posix()}" for path in (REPOSITORY / "docs").rglob("*.md")}
    assert names == {path.as_posix() for path in ours if "__pycache__" not in path.parts} | {"hubcore/registry.yaml"} | pages
    assert {name.split("/")[0] + "/py.typed" for name in names} | {"hubcore/scaffold/files/.gitignore.in"} <= names


def test_the_wheel_works_without_the_checkout(hubcore_wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(hubcore_wheel) as archive:
        archive.extractall(site)
    script = f"""
import sys
sys.path = [{str(site)!r}] + [p for p in sys.path if not p.startswith({str(REPOSITORY)!r}) or "site-packages" in p]
import torch, hubcore
from hubcore import hub
assert hubcore.__file__.startswith({str(site)!r}), hubcore.__file__
info = hub.info("wav2vec2_tiny_prompts")
assert info.card.file.startswith({str(site)!r}), info.card.file
assert info.file.startswith({str(site)!r}), info.file
from hubcore.cli.docs import pages
assert str(pages()["quickstart"]).startswith({str(site)!r}), pages()
print(hub.load("wav2vec2_tiny_prompts")([torch.zeros(16000)]).lengths.tolist(), len(hub.list()) > 10)
"""
    assert python("-c", script, cwd=tmp_path).stdout.strip() == "[49] True"


def test_a_checkout_is_found_by_path_so_that_editors_jump_to_the_source() -> None:
    import hubcore
    import hubcore_wav2vec2

    assert hubcore.__file__ == str(REPOSITORY / "hubcore/__init__.py")
    assert hubcore_wav2vec2.__file__ == str(REPOSITORY / "plugins/hubcore_wav2vec2/__init__.py")
