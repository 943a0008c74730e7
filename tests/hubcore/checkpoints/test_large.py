"""Large models: `layers=` at load reads no more blocks than it needs, and a cast never holds a second copy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hubcore import hub
from hubcore.checkpoints import open_checkpoint
from hubcore.checkpoints.formats.file_bytes import CheckpointBytes
from hubcore.errors import OptionError
from hubcore.nn.encoder_upstream import UnreadBlock
from hubcore_wav2vec2 import CONFIGS, Wav2Vec2Upstream, build_model
from hubcore_wav2vec2.checkpoint import NAMES
from tests.benchmarks.measure import peak_memory
from tests.gold import gold_wavs
from tests.paths import DATA

FILES = {
    "fairseq": DATA / "gold/fairseq_tiny_w2v2_layernorm.pt",
    "fairseq2": DATA / "gold2/omniasr_w2v_tiny.fairseq2.pt",
    "safetensors": DATA / "gold2/hf_wav2vec2_base",
}
"""Three blocks each, pre-norm, pre-norm and post-norm."""


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of all pieces that are read of checkpoints."""
    sizes: list[int] = []
    plain = CheckpointBytes.read_into

    def counted(self: CheckpointBytes, target: memoryview, offset: int) -> None:
        sizes.append(len(target))
        plain(self, target, offset)

    monkeypatch.setattr(CheckpointBytes, "read_into", counted)
    return sizes


@pytest.mark.parametrize("layout", FILES)
@torch.no_grad()
def test_layers_at_load_read_the_blocks_below_and_no_others(layout: str, read: list[int]) -> None:
    whole: Any = hub.load("wav2vec2", checkpoint=FILES[layout])
    everything = sum(read)
    read.clear()
    model: Any = hub.load("wav2vec2", checkpoint=FILES[layout], layers=[1, 0])
    left_out = [parameter.numel() * 4 for block in whole.blocks[1:] for parameter in block.parameters()]
    headers = 100 * len(left_out)  # a torch file has one before every tensor
    assert sum(left_out) <= everything - sum(read) < sum(left_out) + headers
    assert [type(block) for block in model.blocks[1:]] == [UnreadBlock] * 2
    assert model.layer_names == whole.layer_names and model.hidden_sizes == whole.hidden_sizes and model.num_layers == 3
    out, wanted = model([gold_wavs()[0]]), whole([gold_wavs()[0]], layers=[1, 0])
    assert out.layers == (1, 0) and all(map(torch.equal, out.hidden_states, wanted.hidden_states))
    assert set(model.load_report.used) < set(whole.load_report.used) and "were not read" in model.load_report.notes[-1]
    assert model.load_report.ignored == whole.load_report.ignored


OTHERS = {
    "data2vec2": "gold2/data2vec2_prenet_style.pt",
    "distilhubert": "gold/upstreams/distilhubert_tiny.ckpt",
    "ofa_wav2vec2": "gold/ofa_tiny.pt",
    "w2v_bert": "gold2/w2v_bert_relative_key",
    "wavlm": "gold2/hf_wavlm_large",
}
"""Families whose hidden states or blocks are others than wav2vec 2.0's, and a file of each."""


@pytest.mark.parametrize("family", OTHERS)
@torch.no_grad()
def test_each_hidden_state_of_other_families_needs_its_own_blocks_only(family: str) -> None:
    whole: Any = hub.load(family, checkpoint=DATA / OTHERS[family])
    wanted = whole([gold_wavs()[0]]).hidden_states
    sizes = []
    for layer, state in enumerate(wanted):
        model: Any = hub.load(family, checkpoint=DATA / OTHERS[family], layers=[layer])
        assert torch.equal(model([gold_wavs()[0]]).last_hidden_state, state)
        sizes.append(sum(weight.numel() for weight in model.parameters()))
        if sizes[-1] < sum(weight.numel() for weight in whole.parameters()):
            with pytest.raises(OptionError, match="not read"):
                model([gold_wavs()[0]], layers=[layer + 1])
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]


def test_a_layer_that_was_not_read_is_an_error_that_says_how_to_get_it(tmp_path: Path) -> None:
    model: Any = hub.load("wav2vec2", checkpoint=FILES["fairseq"], layers=[1])
    for ask in (
        lambda: model([gold_wavs()[0]], layers=[0, 2]),
        lambda: model([gold_wavs()[0]], layers=[-1]),
        lambda: setattr(model, "default_layers", [3]),
    ):
        with pytest.raises(OptionError, match=r"layer [23] of .* up to 1, .* not read\. Load it again without layers="):
            ask()
    with pytest.raises(OptionError, match="not read"):
        model.save_checkpoint(tmp_path / "part.safetensors")
    last: Any = hub.load("wav2vec2", checkpoint=FILES["fairseq"], layers=[-1])
    assert last.present_layers == 4 and not last.load_report.notes


@pytest.mark.slow
def test_what_is_left_out_is_no_part_of_training() -> None:
    model: Any = hub.load("wav2vec2", checkpoint=FILES["safetensors"], layers=[2], train=True, gradient_checkpointing=True)
    assert [group["name"] for group in model.layer_groups()] == ["input", "block_1", "block_2"]
    torch.autograd.backward(model([gold_wavs()[0]]).last_hidden_state.square().sum())
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_wrong_layer_is_an_error_before_a_tensor_is_read(read: list[int]) -> None:
    with pytest.raises(OptionError, match="layers has 9"):
        Wav2Vec2Upstream.from_checkpoint(FILES["safetensors"], layers=[9])
    assert sum(read) < 20_000


def test_a_cast_is_the_same_piece_by_piece_as_at_once(tmp_path: Path) -> None:
    weight = torch.randn(700_001, dtype=torch.float64)
    with_crc, without = tmp_path / "a.pt", tmp_path / "a.safetensors"
    torch.save({"x": weight[1:].clone(), "part": weight[300_000:600_000]}, with_crc)
    save_file({"x": weight[1:].clone(), "part": weight[300_000:600_000].clone()}, without)
    for path in (with_crc, without):
        with open_checkpoint(path) as checkpoint:
            found = checkpoint.read(["x", "part"], torch.float16)
        assert torch.equal(found["x"], weight[1:].half()) and torch.equal(found["part"], weight[300_000:600_000].half())


@pytest.mark.slow
def test_a_file_of_13_gigabytes_gives_one_block_of_128(tmp_path: Path, read: list[int]) -> None:
    """OmniASR 7B's shape in bfloat16; the file is a hole on the disk, all zeros."""
    with torch.device("meta"):
        state = NAMES.write("fairseq2", build_model(CONFIGS["omniasr_7b"]).state_dict())
    header, end = {}, 0
    for name, weight in state.items():
        start, end = end, end + 2 * weight.numel()
        header[name] = {"dtype": "BF16", "shape": list(weight.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (tmp_path / "omniASR-W2V-7B.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    model: Any = hub.load("wav2vec2", checkpoint=file.name, layers=[1], dtype=torch.bfloat16)
    assert end > 12.9e9 and sum(read) < 0.02 * end
    assert (model.num_layers, model.config.num_heads, len(model.layer_names)) == (128, 16, 129)
    assert sum(weight.numel() for weight in model.blocks.parameters()) == 50_358_272


@pytest.mark.slow
def test_loading_and_casting_take_a_tenth_more_than_the_models_own_bytes(tmp_path: Path) -> None:
    state = build_model(CONFIGS["base"]).bfloat16().state_dict()
    torch.save({"model": NAMES.write("fairseq", state)}, tmp_path / "half.pt")
    small, large = (
        f"from hubcore import hub; hub.load('wav2vec2', checkpoint={str(path)!r}"
        for path in (FILES["fairseq"], tmp_path / "half.pt")
    )
    bare, own = peak_memory(f"{small})"), 4 * sum(weight.numel() for weight in state.values())
    # The peaks of two interpreters differ by some megabytes from run to run.
    assert peak_memory(f"{large}, config='base')") - bare < 1.1 * own + (8 << 20)
    assert peak_memory(f"{large}, config='base', layers=[3])") - bare < 0.5 * own
