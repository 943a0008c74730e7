"""The shell completes names, recipes, pages and files, without torch and without any plugin."""

from __future__ import annotations

import pytest
from click.shell_completion import BashComplete

from hubcore.cli import main
from tests.running import imported

pytestmark = pytest.mark.slow


def completions(line: str) -> set[str]:
    *words, incomplete = line.split(" ")
    found = BashComplete(main, {}, "hubcore", "_HUBCORE_COMPLETE").get_completions(words, incomplete)
    return {f"<{item.type}>" if item.type in ("file", "dir") else item.value for item in found}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("ex", {"extract", "export"}),
        ("seg", {"segment"}),
        ("list wav2vec2_t", {"wav2vec2_tiny_prompts"}),
        ("list --family hu", {"hubert"}),
        ("list --license apa", {"Apache-2.0"}),
        ("list --language z", {"zh"}),
        ("info xls_r_3", {"xls_r_300m", "xls_r_300m_hf", "<file>"}),
        ("fetch hubert_base_r", {"hubert_base_robust_mgr"}),
        ("verify mf", {"mfcc"}),
        ("cache rm mf", {"mfcc"}),
        ("extract rec", {"<file>"}),
        ("extract a.wav -u fbank_", {"fbank_no_cmvn"}),
        ("extract a.wav -u fbank --out f", {"<dir>"}),
        ("extract a.wav --dtype float1", {"float16"}),
        ("extract a.wav --format h", {"hdf5"}),
        ("extract a.wav --pool me", {"mean", "mean+std"}),
        ("diff one ", {"<dir>"}),
        ("stats ", {"<dir>"}),
        ("plot a.wav -u mf", {"mfcc"}),
        ("convert ch", {"<file>"}),
        ("convert a.pt b --upstream ofa", {"ofa_wav2vec2"}),
        ("pretrain ofa_t", {"ofa_tiny", "<file>"}),
        ("pretrain tiny --init wav2vec2_t", {"wav2vec2_tiny_prompts", "<file>"}),
        ("segment lists/", {"<file>"}),
        ("docs families/h", {"families/hubert"}),
    ],
)
def test_the_shell_completes(line: str, found: set[str]) -> None:
    assert completions(line) == found


def test_completion_imports_no_torch() -> None:
    script = """
import os
os.environ |= {"_HUBCORE_COMPLETE": "bash_complete", "COMP_WORDS": "hubcore extract a.wav -u fbank_", "COMP_CWORD": "4"}
from hubcore.cli import main
try:
    main(prog_name="hubcore")
except SystemExit:
    pass
"""
    assert not imported(script) & {"torch", "hubcore_fbank"}
