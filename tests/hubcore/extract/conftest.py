"""The corpus of most tests of extraction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Five readable files of different lengths, one of them in a folder."""
    random = np.random.default_rng(0)
    root = tmp_path / "audio"
    (root / "inner").mkdir(parents=True)
    for name, samples in (("a.wav", 8000), ("b.flac", 12000), ("c.wav", 4000), ("d.wav", 16000), ("inner/e.wav", 500)):
        soundfile.write(root / name, random.uniform(-0.5, 0.5, samples), 16000)
    return root
