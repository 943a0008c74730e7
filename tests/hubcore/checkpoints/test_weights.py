"""Every tensor of an encoder has a place, or the file is refused with the tensors' names; names are one table both ways."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hubcore.checkpoints import ENCODER_NAMES, Name, Names, write_native
from hubcore.checkpoints.fairseq import parse_conv_layers
from hubcore.errors import CheckpointError, CheckpointLayoutError, OptionError
from hubcore_wav2vec2 import CONFIGS, Wav2Vec2Upstream
from hubcore_wav2vec2.checkpoint import NAMES, READER
from tests.gold import gold_file

TINY = "wav2vec2_tiny_prompts"


def saved(path: Path, more: dict[str, Tensor], *, drop: str = "\0") -> Path:
    """The bundled model as its own file, with tensors added, and those that start with `drop` left out."""
    upstream = Wav2Vec2Upstream.from_checkpoint(TINY)
    upstream.save_checkpoint(path)
    with safe_open(path, "pt") as file:
        about = file.metadata()
    state = {name: tensor for name, tensor in upstream.state_dict().items() if not name.startswith(drop)}
    save_file({**state, **more}, path, metadata=about)
    return path


def transformers_folder(folder: Path, more: dict[str, Tensor]) -> Path:
    """The bundled model as a folder of transformers, with tensors added."""
    from hubcore_wav2vec2.export import to_transformers

    upstream = Wav2Vec2Upstream.from_checkpoint(TINY)
    tensors, config, preprocessor = to_transformers(upstream.state_dict(), upstream.config, {})
    folder.mkdir()
    save_file({**tensors, **more}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


FOREIGN = {
    "WavLM's gate": "encoder.layers.0.attention.gru_rel_pos_linear.weight",
    "WavLM's bias": "encoder.layers.0.attention.rel_attn_embed.weight",
    "MMS's adapters": "encoder.layers.0.adapter_layer.linear_1.weight",
    "positions of a conformer": "encoder.pos_emb.pe",
    "LoRA": "encoder.layers.0.attention.q_proj.lora_A.default.weight",
    "quantised weights' scale": "encoder.layers.0.attention.q_proj.weight_scale",
    "a second norm": "feature_projection.layer_norm_2.weight",
}


@pytest.mark.parametrize("name", FOREIGN.values(), ids=FOREIGN)
def test_a_tensor_of_an_encoder_without_a_place_is_an_error_that_names_it(name: str, tmp_path: Path) -> None:
    folder = transformers_folder(tmp_path / "model", {name: torch.zeros(3)})
    with pytest.raises(CheckpointLayoutError, match=name.replace(".", r"\.")):
        Wav2Vec2Upstream.from_checkpoint(folder)
    ours = saved(tmp_path / "mine.safetensors", {f"model.{name}": torch.zeros(3)})
    with pytest.raises(CheckpointLayoutError, match=name.replace(".", r"\.")):
        Wav2Vec2Upstream.from_checkpoint(ours)


def test_only_what_the_heads_table_names_is_ignored(tmp_path: Path) -> None:
    folder = transformers_folder(tmp_path / "a", {"masked_spec_embed": torch.zeros(96)})
    assert Wav2Vec2Upstream.from_checkpoint(folder).load_report.ignored == ("masked_spec_embed",)
    with pytest.raises(CheckpointLayoutError, match="label_embeddings"):
        Wav2Vec2Upstream.from_checkpoint(transformers_folder(tmp_path / "b", {"label_embeddings": torch.zeros(96)}))


def test_a_file_may_name_its_heads_but_none_inside_the_encoder(tmp_path: Path) -> None:
    upstream = Wav2Vec2Upstream.from_checkpoint(TINY)
    state = {**upstream.state_dict(), "my_head.weight": torch.zeros(3), "model.adapter": torch.zeros(3)}
    path = tmp_path / "mine.safetensors"
    write_native(path, state, config=upstream.config, upstream="Wav2Vec2Upstream", heads=["my_head.weight", "model.adapter"])
    with pytest.raises(CheckpointLayoutError, match=r"no place in wav2vec 2.0: model.adapter\."):
        Wav2Vec2Upstream.from_checkpoint(path)
    del state["model.adapter"]
    write_native(path, state, config=upstream.config, upstream="Wav2Vec2Upstream", heads=["my_head.weight"])
    assert Wav2Vec2Upstream.from_checkpoint(path).load_report.ignored == ("my_head.weight",)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.uint8, torch.float8_e4m3fn], ids=str)
def test_weights_that_are_no_floats_are_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    name = "model.encoder.blocks.0.attention.q_proj.weight"
    path = saved(tmp_path / "mine.safetensors", {name: torch.ones(96, 96).to(dtype)})
    with pytest.raises(CheckpointError, match=r"q_proj\.weight"):
        Wav2Vec2Upstream.from_checkpoint(path)


def test_complex_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    state = {"model": {**torch.load(gold_file("fairseq_tiny_w2v2_groupnorm.pt"), weights_only=False)["model"]}}
    state["model"]["post_extract_proj.weight"] = state["model"]["post_extract_proj.weight"].to(torch.complex64)
    whole = torch.load(gold_file("fairseq_tiny_w2v2_groupnorm.pt"), weights_only=False)
    torch.save({**whole, **state}, path)
    with pytest.raises(CheckpointLayoutError, match=r"post_extract_proj\.weight as complex64"):
        Wav2Vec2Upstream.from_checkpoint(path)


class Lora(nn.Module):
    """A linear layer and what an adapter adds to it, as peft wraps it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_A = nn.Linear(base.in_features, 2, bias=False)
        self.lora_B = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + self.lora_B(self.lora_A(x))


def test_a_model_with_adapters_is_not_saved(tmp_path: Path) -> None:
    upstream = Wav2Vec2Upstream.from_checkpoint(TINY)
    for block in upstream.model.encoder.blocks:
        block.attention.q_proj = Lora(block.attention.q_proj)
    with pytest.raises(OptionError, match=r"lora_A\.weight.* Merge adapters"):
        upstream.save_checkpoint(tmp_path / "mine.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_model_with_a_layer_too_many_or_too_wide_is_not_saved(tmp_path: Path) -> None:
    upstream = Wav2Vec2Upstream.from_checkpoint(TINY)
    upstream.classifier = nn.Linear(96, 10)
    with pytest.raises(OptionError, match="classifier"):
        upstream.save_checkpoint(tmp_path / "mine.safetensors")
    upstream = Wav2Vec2Upstream.from_checkpoint(TINY)
    upstream.model.encoder.blocks[0].feed_forward.fc1.bias = nn.Parameter(torch.zeros(5))
    with pytest.raises(OptionError, match=r"fc1\.bias"):
        upstream.save_checkpoint(tmp_path / "mine.safetensors")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_are_cast_as_they_are_read(dtype: torch.dtype, tmp_path: Path) -> None:
    path = saved(tmp_path / "mine.safetensors", {})
    model = READER.read(path, dtype=dtype).model
    wanted = Wav2Vec2Upstream.from_checkpoint(TINY).model.state_dict()
    assert all(torch.equal(weight, wanted[name].to(dtype)) for name, weight in model.state_dict().items())
    assert READER.read(path, device="meta").model.projection.weight.device.type == "meta"


@pytest.mark.parametrize("system", ["fairseq", "transformers", "torchaudio"])
@pytest.mark.parametrize("config", ["tiny", "xlsr_53"])
def test_names_written_are_read_back(system: str, config: str) -> None:
    with torch.device("meta"):
        state = Wav2Vec2Upstream(CONFIGS[config]).model.state_dict()
    written = NAMES.write(system, state)
    prefixed = [f"any.prefix.{name}" for name in written]
    assert NAMES.find(prefixed) == (system, "any.prefix.")
    read = NAMES.read(system, written)
    assert read.keys() == state.keys()
    for ours, (theirs, turn) in read.items():
        assert (turn.read(written[theirs]) if turn else written[theirs]).shape == state[ours].shape


def test_every_row_has_a_name_in_every_system() -> None:
    for row in ENCODER_NAMES:
        assert set(row.theirs) == {"fairseq", "transformers", "torchaudio"}, row.ours


def test_a_name_that_no_table_has_is_not_written() -> None:
    with pytest.raises(CheckpointLayoutError, match="the weight other has no name in fairseq"):
        NAMES.write("fairseq", {"other": torch.zeros(1)})


def test_two_encoders_in_one_file_are_an_error() -> None:
    first = "feature_extractor.conv_layers.0.0.weight"
    with pytest.raises(CheckpointLayoutError, match=r"2 encoders, under 'student\.', 'teacher\.'"):
        NAMES.find([f"student.{first}", f"teacher.{first}"])


def test_a_spelling_of_a_later_rank_gives_way() -> None:
    table = Names([Name("up.weight", {"mine": ["new.weight", "old.weight"]})])
    assert table.read("mine", ["old.weight", "new.weight"])["up.weight"][0] == "new.weight"
    assert table.read("mine", ["old.weight"])["up.weight"][0] == "old.weight"


BOMBS = [
    "[(1,1,1)]*64*64*64*64",
    "[(1, 1, 1)] * 65",
    "+".join(["[(1,1,1)]"] * 65),
    "9" * 400,
    "[[1]*64]*64",
]


@pytest.mark.parametrize("text", BOMBS)
def test_an_expression_of_convolutions_is_bounded_while_it_is_read(text: str) -> None:
    with pytest.raises(ValueError, match="conv_feature_layers"):
        parse_conv_layers(text)
