"""Loading a 95 M-parameter fairseq checkpoint that also holds Adam's state: peak memory and time."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import torch

from hubcore_wav2vec2 import CONFIGS, Wav2Vec2Upstream
from tests.benchmarks.measure import interleaved, peak_memory, ratio, table
from tests.fairseq_layout import fairseq_tree


def run() -> str:
    """The table."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HUBCORE_CACHE"] = str(Path(folder) / "cache")
        path = Path(folder) / "base_with_adam.pt"
        upstream = Wav2Vec2Upstream(CONFIGS["base"])
        model_bytes = sum(p.numel() * 4 for p in upstream.parameters())
        torch.save(fairseq_tree(upstream, adam=True), path)
        del upstream
        load = f"from hubcore import hub; model = hub.load('wav2vec2', checkpoint={str(path)!r})"
        peaks = {
            "import torch": peak_memory("import torch"),
            "import hubcore_wav2vec2": peak_memory("import hubcore_wav2vec2.upstream"),
            "hub.load": peak_memory(load),
            "torch.load of the whole file": peak_memory(f"import torch; tree = torch.load({str(path)!r}, weights_only=True)"),
        }

        seconds = interleaved(
            {
                "hub.load": lambda: Wav2Vec2Upstream.from_checkpoint(path),
                "torch.load": lambda: torch.load(path, weights_only=True),
            },
            rounds=7,
        )
        size = path.stat().st_size
    bare = peaks["import torch"]
    rows = [[name, f"{peak / 1e6:.0f}", f"{(peak - bare) / model_bytes:.2f}"] for name, peak in peaks.items()]
    return (
        f"model {model_bytes / 1e6:.0f} MB, file {size / 1e6:.0f} MB\n\n"
        + table(["what", "peak MB", "above bare torch, in models"], rows)
        + f"\n\ntime over torch.load's: {ratio(seconds, 'hub.load', 'torch.load')}"
    )
