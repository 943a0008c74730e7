"""A distribution that brings the toy objective, for this process and for others, and a small corpus."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.paths import REPOSITORY

METADATA = "Metadata-Version: 2.1\nName: toy-objective\nVersion: 1.0\n"
POINTS = "[hubcore.objectives]\ntoy = tests.hubcore.pretrain.toy_objective:ToyPretraining\n"
RECIPE = """\
upstream: toy
model: {config: small}
data:
  train: [TRAIN]
  valid: [VALID]
  max_samples_per_batch: 16000
  min_samples: 2000
  workers: 0
optimization: {max_updates: 12, lr: 5e-3, warmup_updates: 4, clip_norm: 1.0, accumulate: 2}
run: {seed: 3, save_every: 4, validate_every: 4, log_every: 1, tensorboard: false, device: cpu}
monitor: {patience: 0}
"""


def make_corpus(folder: Path, count: int = 20, *, seed: int = 0) -> Path:
    """Some short noises of different lengths and loudness, and their manifest."""
    rng = np.random.default_rng(seed)
    lines = [str(folder)]
    folder.mkdir(parents=True)
    for number in range(count):
        samples = int(rng.integers(2500, 6000))
        wave = np.sin(np.arange(samples) * rng.uniform(0.02, 0.6)) * rng.uniform(0.1, 0.5) + rng.normal(size=samples) * 0.1
        soundfile.write(folder / f"{number:02}.wav", wave, 16000)
        lines.append(f"{number:02}.wav\t{samples}")
    manifest = folder.with_suffix(".tsv")
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


@dataclass
class Lab:
    """Where the runs of one test are, and how to make one in another process."""

    folder: Path
    train: Path
    valid: Path
    site: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def recipe(self, text: str = RECIPE) -> Path:
        path = self.folder / "toy_recipe.yaml"
        path.write_text(text.replace("TRAIN", str(self.train)).replace("VALID", str(self.valid)))
        return path

    def arguments(self, *overrides: str, out: str = "run") -> list[str]:
        return ["pretrain", str(self.recipe()), *overrides, "--out", str(self.folder / out)]

    def command(self, arguments: list[str], *, processes: int = 1) -> list[str]:
        if processes == 1:
            return [sys.executable, "-m", "hubcore", *arguments]
        launcher = ["torch.distributed.run", "--nproc-per-node", str(processes), "--standalone", "-m", "hubcore"]
        return [sys.executable, "-m", *launcher, *arguments]

    def run(self, arguments: list[str], *, processes: int = 1, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(arguments, processes=processes),
            capture_output=True,
            text=True,
            env={**self.environment, **environment},
            cwd=self.folder,
            check=False,
            timeout=300,
        )


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    site = tmp_path / "site"
    info = site / "toy_objective-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(str(site))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(site), str(REPOSITORY)]),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }
    return Lab(tmp_path, make_corpus(tmp_path / "train"), make_corpus(tmp_path / "valid", 4, seed=1), site, environment)
