"""Extraction on Ray, skipped where it is not installed. By hand: `pip install ray`, then this file.

Ray is no test extra: it takes 240 MB, and these tests 17 s of processor time without that of its workers.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from hubcore.errors import OptionError
from hubcore.extract import extract
from hubcore.extract import plan as plan_module
from tests.hubcore.extract.lab import ToyUpstream, toy
from tests.hubcore.extract.test_formats import same_tree


class Deadly(ToyUpstream):
    """Kills its process for a loud file: once, or each time."""

    def __init__(self, marker: Path | None) -> None:
        super().__init__()
        self.marker = marker

    def forward(self, wavs: Any, lengths: Any = None, *, layers: Any = None) -> Any:
        if any(float(wav.abs().max()) > 0.8 for wav in wavs) and not (self.marker and self.marker.exists()):
            if self.marker:
                self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(wavs, lengths, layers=layers)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cluster of two machines, as Ray plays them."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'hubcore[ray]'")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        node = {"num_cpus": 1, "object_store_memory": 200 << 20}
        cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        cluster.add_node(**node)
        yield cluster.address
        cluster.shutdown()


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, random = tmp_path_factory.mktemp("audio"), np.random.default_rng(0)
    for number in range(12):
        soundfile.write(root / f"{number:02}.wav", random.uniform(-0.5, 0.5, 4000 + 100 * number), 16000)
    soundfile.write(root / "loud.wav", random.uniform(-0.9, 0.9, 4050), 16000)
    return root


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "BLOCK_UTTERANCES", 4)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["npy", "safetensors"])
def test_the_unit_of_a_worker_that_was_killed_is_done_by_another(
    format: str, address: str, audio: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"layers": "1", "batch_seconds": 1.0, "format": format}
    extract([audio], toy(), tmp_path / "clean", **options)
    upstream = Deadly(tmp_path / "marker").eval()
    summary = extract([audio], upstream, tmp_path / "out", engine="ray", workers=2, address=address, **options)
    assert (tmp_path / "marker").exists() and (len(summary.rows), summary.failures) == (13, ())
    same_tree(tmp_path / "out", tmp_path / "clean")


@pytest.mark.slow
def test_hours_in_chunks_and_relative_paths(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "long.wav", np.random.default_rng(1).uniform(-0.5, 0.5, 60000), 16000)
    monkeypatch.chdir(tmp_path)
    options: dict[str, Any] = {"chunk_seconds": 1, "format": "safetensors"}
    extract(["long.wav"], toy(), "clean", **options)
    summary = extract(["long.wav"], toy(), "out", engine="ray", workers=2, address=address, **options)
    assert (len(summary.rows), summary.failures) == (1, ())
    same_tree(tmp_path / "out", tmp_path / "clean")


@pytest.mark.slow
def test_an_utterance_that_kills_every_worker_costs_itself(address: str, audio: Path, tmp_path: Path) -> None:
    upstream = Deadly(None).eval()
    options: dict[str, Any] = {"layers": "1", "engine": "ray", "workers": 2, "address": address}
    summary = extract([audio], upstream, tmp_path / "out", batch_seconds=1.0, **options)
    (failure,) = summary.failures
    assert failure.utterance == "loud" and "3 workers died while they had it" in failure.error
    assert len(summary.rows) == 12


@pytest.mark.parametrize("options", [{"engine": "dask"}, {"engine": "ray", "shard": "0/2"}])
def test_impossible_engines_are_errors(options: Any, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="The engine is local or ray"):
        extract([tmp_path], toy(), tmp_path / "out", **options)
