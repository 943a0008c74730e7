"""A toy upstream whose features are known, and what a folder holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hubcore import Card, UpstreamOutput
from hubcore.audio import load_audio
from tests.toys import Energies


class ToyUpstream(Energies):
    """Three layers of width 2: mean and peak of each 10 ms, times 1, 10 and 100."""

    def __init__(self, widths: Sequence[int] = (2, 2, 2), scale: float = 1.0) -> None:
        super().__init__(("one", "ten", "hundred"), widths, stride=160, min_samples=400)
        self.scale = scale
        self.calls: list[tuple[int, tuple[int, ...]]] = []
        self.card = Card(name="toy_card", upstream="toy", license="none needed", note="an untrained toy")

    def forward(self, wavs: Any, lengths: Any = None, *, layers: Any = None) -> UpstreamOutput:
        self.calls.append((len(wavs), self.check_layers(layers)))
        return super().forward(wavs, lengths, layers=layers)

    def energies(self, windows: Tensor) -> Tensor:
        return torch.stack([windows.mean(1), windows.abs().amax(1)], dim=1) * self.scale


def toy(**options: Any) -> ToyUpstream:
    return ToyUpstream(**options).eval()


def with_weight() -> ToyUpstream:
    upstream = toy()
    upstream.weight = torch.nn.Parameter(torch.zeros(1))
    return upstream


def manifest_rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def failure_rows(folder: Path) -> list[dict[str, Any]]:
    path = folder / "failures.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def expected(path: Path, layers: Sequence[int]) -> np.ndarray:
    with torch.inference_mode():
        output = toy()([load_audio(path)], layers=layers)
    return torch.stack([state[0] for state in output.hidden_states]).numpy()
