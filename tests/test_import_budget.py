"""What may not be imported: each line runs in a fresh interpreter and leaves the heavy modules alone."""

from __future__ import annotations

import pytest

from tests.paths import PLUGINS
from tests.running import imported

pytestmark = pytest.mark.slow

TORCH = {"torch", "numpy", "soundfile", "tqdm"}
MAIN = "from hubcore.cli import main; main({}, standalone_mode=False)"

S3PRL = """
from hubcore.compat import s3prl
s3prl.install()
import s3prl.hub, s3prl.nn, s3prl.util.download
assert 'wav2vec2_custom' in s3prl.hub.options() and 'S3PRLUpstream' in dir(s3prl.nn)
"""
NEW = """
import tempfile
from hubcore.scaffold.new import new_plugin
with tempfile.TemporaryDirectory() as folder:
    new_plugin("acoustic", folder)
"""


@pytest.mark.parametrize(
    ("script", "forbidden"),
    [
        ("import hubcore", TORCH | {*PLUGINS} | {"hubcore.testing", "hubcore.hub"}),
        ("from hubcore import hub; hub.list()", TORCH | {*PLUGINS}),
        ("from hubcore import hub; assert hub.info('xlsr_53').shape.frame_stride == 320", {"torch"}),
        ("import hubcore.corpus", {"torch"}),
        ("import hubcore.audio", {"torchaudio"}),
        ("from hubcore import cli, hub; hub.load('ofa_wav2vec2_tiny_prompts')", {"torch._dynamo", "sympy"}),
        ("import hubcore_fbank; hubcore_fbank.CONFIGS['mel'].num_frames(16000)", {"torch"}),
        (S3PRL, TORCH | {*PLUGINS}),
        (MAIN.format("['list']"), TORCH | {*PLUGINS}),
        (MAIN.format("['--help']"), {"torch"}),
        (MAIN.format("['doctor']"), {"torch"} | {*PLUGINS}),
        (NEW, {"torch"}),
    ],
)
def test_it_imports_none_of_these(script: str, forbidden: set[str]) -> None:
    assert not imported(script) & forbidden
