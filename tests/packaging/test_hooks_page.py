"""The package of docs/hooks.md, made and installed by following the page: every hook does what it says there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from hubcore.hookspecs import NAMES
from tests.packaging.conftest import Environment
from tests.packaging.test_tutorial import Newcomer
from tests.paths import REPOSITORY, SPEECH

PAGE = REPOSITORY / "docs/hooks.md"


def test_every_hook_has_a_section_with_an_implementation() -> None:
    sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for name in NAMES:
        (section,) = [text for text in sections if text.startswith(f"`{name}(")]
        assert f"@hookimpl\ndef {name}(" in section


def test_the_page_is_true(new_environment: Callable[[], Environment], tmp_path: Path) -> None:
    environment = new_environment()
    (tmp_path / "recordings").symlink_to(SPEECH)
    newcomer = Newcomer(environment, tmp_path)
    newcomer.follow(PAGE.read_text(encoding="utf-8"))
    assert len(newcomer.typed) == 9
    off = environment.run("HUBCORE_DISABLE_PLUGINS=* hubcore layers fbank", tmp_path, ok=False)
    assert off.returncode == 2 and "No such command" in off.stderr
    off = environment.run("HUBCORE_DISABLE_PLUGINS=acme-hooks python try_zip.py", tmp_path, ok=False)
    assert "nothing here can fetch 'zip://weights.zip!/2024/mine.safetensors'" in off.stderr
    (tmp_path / "weights.zip").write_bytes(b"no archive")
    broken = environment.run("python try_zip.py", tmp_path, ok=True)
    assert broken.stdout.strip() == "Wav2Vec2Upstream", "the script makes the archive anew"
    missing = environment.run("hubcore fetch zip://nothing.zip!/x", tmp_path, ok=False)
    assert missing.returncode == 2 and "zip://nothing.zip!/x cannot be unpacked: [Errno 2]" in missing.stderr
    assert "Traceback" not in missing.stderr
    listing = "import sys; from hubcore import hub; hub.list(); print([n for n in sys.modules if n.startswith('acme')])"
    assert environment.run(f'python -c "{listing}"', tmp_path).stdout.strip() == "[]"
