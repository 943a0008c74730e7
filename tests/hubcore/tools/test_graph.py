"""`hubcore export --format onnx|torch-export`: one graph for any batch of any lengths, with the upstream's own numbers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hubcore import hub
from hubcore.errors import CheckpointError, CheckpointLayoutError, OptionError, UnavailableUpstreamError
from hubcore.tools import graph
from hubcore.tools.graph import TOLERANCE, export_graph
from tests.running import command
from tests.small_upstreams import FAMILIES, VARIANTS
from tests.toys import ToyUpstream

onnxruntime = pytest.importorskip("onnxruntime")
# torch's own module for loops over frames, imported where the first program with one runs.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")


def judged(path: Path, upstream: Any, lengths: Sequence[int]) -> float:
    """Largest difference of an ONNX file from an upstream, over all outputs; noise stands behind the shorter waveforms."""
    session = onnxruntime.InferenceSession(path)
    wavs = [0.1 * torch.randn(count, generator=torch.Generator().manual_seed(count)) for count in lengths]
    batch = torch.full((len(wavs), max(lengths)), 5.0)
    for row, wav in zip(batch, wavs, strict=True):
        row[: len(wav)] = wav
    *states, frames = session.run(None, {"wavs": batch.numpy(), "lengths": torch.tensor(lengths).numpy()})
    with torch.no_grad():
        wanted = upstream(wavs)
    assert frames.tolist() == wanted.lengths.tolist()
    return max(
        float((torch.from_numpy(state) - theirs).abs().max() / theirs.abs().max().clamp(min=1))
        for state, theirs in zip(states, wanted.hidden_states, strict=True)
    )


IN_EVERY_RUN = ("cpc", "fbank", "ofa_wav2vec2", "whisper")
"""Families whose graphs are of one kind each, beside the command below; all of them on padded batches: test_padded.py."""
ONLY_ON_REQUEST = pytest.mark.skipif(
    "ALL_EXPORTS" not in os.environ, reason="ALL_EXPORTS=1 make test writes an ONNX file of every family, in two minutes more"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name if name in IN_EVERY_RUN else pytest.param(name, marks=ONLY_ON_REQUEST) for name in FAMILIES]
)
def test_onnxruntime_gives_the_upstream_s_numbers_at_lengths_that_were_not_traced(name: str, tmp_path: Path) -> None:
    upstream = FAMILIES[name]()
    made = export_graph(upstream, tmp_path / "a.onnx", format="onnx")
    assert made.difference <= TOLERANCE and made.layers == upstream.layer_names
    for lengths in ([9001], [upstream.min_samples], [1000, 7777, 1200, 6000]):
        assert judged(tmp_path / "a.onnx", upstream, lengths) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cpc", "rotary"])
def test_an_exported_program_gives_the_upstream_s_numbers(name: str, tmp_path: Path) -> None:
    upstream = {**FAMILIES, **VARIANTS}[name]()
    made = export_graph(upstream, tmp_path / "a.pt2", format="torch-export", layers="last")
    assert made.difference <= 1e-5
    extra = {"hubcore.json": ""}
    with (tmp_path / "a.pt2").open("rb") as file:
        program = torch.export.load(file, extra_files=extra).module()
    state, frames = program(torch.randn(1, upstream.min_samples), torch.tensor([upstream.min_samples]))
    assert state.shape[:2] == (1, 1) and frames.tolist() == [1]
    assert json.loads(extra["hubcore.json"])["layers"] == [upstream.layer_names[-1]]


@pytest.mark.slow
def test_the_command_writes_layers_and_the_card_of_a_name(tmp_path: Path) -> None:
    out = tmp_path / "prompts.onnx"
    done = command("export", "wav2vec2_tiny_prompts", str(out), "--format", "onnx", "--layers", "2,4")
    assert done.exit_code == 0 and "block_2, block_4, frame_lengths" in done.output
    session = onnxruntime.InferenceSession(out)
    assert [part.name for part in session.get_inputs()] == ["wavs", "lengths"]
    assert [part.name for part in session.get_outputs()] == ["block_2", "block_4", "frame_lengths"]
    about = json.loads(session.get_modelmeta().custom_metadata_map["hubcore"])
    assert (about["name"], about["sample_rate"], about["frame_stride"]) == ("wav2vec2_tiny_prompts", 16000, 320)
    assert about["layer_indices"] == [2, 4]
    assert str(Path(graph.__file__).parent).encode() not in out.read_bytes()
    assert judged(out, hub.load("wav2vec2_tiny_prompts", layers=[2, 4]), [20000, 5000]) <= TOLERANCE


def test_what_cannot_be_written_is_said_before_anything_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "a.pt2"
    with pytest.raises(CheckpointLayoutError, match=r"ToyUpstream .* no method padded"):
        export_graph(ToyUpstream().eval(), out, format="torch-export")
    with pytest.raises(OptionError, match="train mode"):
        export_graph(FAMILIES["cpc"]().train(), out, format="torch-export")
    with pytest.raises(OptionError, match=r"does not end in \.onnx"):
        export_graph(FAMILIES["cpc"](), out, format="onnx")
    with pytest.raises(CheckpointLayoutError, match="window of 30 s"):
        export_graph(_chunking(), out, format="torch-export")
    monkeypatch.setattr(graph, "_MOST_BYTES", 100)
    with pytest.raises(CheckpointLayoutError, match="one ONNX file holds"):
        export_graph(FAMILIES["cpc"](), tmp_path / "a.onnx", format="onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UnavailableUpstreamError, match=r"pip install 'hubcore\[onnx\]'"):
        export_graph(FAMILIES["cpc"](), tmp_path / "a.onnx", format="onnx")
    assert not list(tmp_path.iterdir())


def _chunking() -> Any:
    upstream: Any = FAMILIES["whisper"]()
    upstream.long = "chunk"
    return upstream


def test_other_numbers_leave_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*args: Any) -> Any:
        def run(wavs: Tensor, lengths: Tensor) -> list[Tensor]:
            out = upstream([wav[:n] for wav, n in zip(wavs, lengths.tolist(), strict=True)])
            return [out.last_hidden_state * 1.01, out.lengths]

        return run

    upstream = FAMILIES["fbank"]()
    monkeypatch.setattr(graph, "_trace", lambda *args: None)
    monkeypatch.setattr(graph, "_write_program", wrong)
    with pytest.raises(CheckpointError, match="features differs by"):
        export_graph(upstream, tmp_path / "a.pt2", format="torch-export")
    assert not list(tmp_path.iterdir())
