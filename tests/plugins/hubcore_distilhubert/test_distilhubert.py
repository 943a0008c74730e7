"""DistilHuBERT of each layout gives what the originals gave, alone and in a batch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hubcore import hub
from hubcore.errors import CheckpointLayoutError, OptionError
from hubcore_distilhubert import CONFIGS, DistilHubertUpstream
from hubcore_hubert import HubertUpstream
from tests.gold import gold_wavs
from tests.paths import DATA
from tests.references import check_references, gold_states

FILE = DATA / "gold/upstreams/distilhubert_tiny.ckpt"
FOLDER = DATA / "gold2/hf_hubert_no_feat_proj_norm"


def test_alone_and_in_every_ragged_batch_the_originals_numbers() -> None:
    check_references("distilhubert", DistilHubertUpstream, FILE, gold_states("gold/upstreams/distilhubert"))


def test_layers_are_named_by_the_teachers_and_blocks_are_counted_without_them() -> None:
    model = DistilHubertUpstream.from_checkpoint(FILE)
    assert model.layer_names == ("projection", "block_1", "block_2", "prediction_4", "prediction_8", "prediction_12")
    assert (model.num_layers, model.hidden_sizes) == (2, (32, 32, 32, 24, 24, 24))
    assert [group["name"] for group in model.layer_groups()] == ["input", "block_1", "block_2", "output"]
    model.model.encoder.blocks = model.model.encoder.blocks[:1]
    assert model.layer_names == ("projection", "block_1", "prediction_4", "prediction_8", "prediction_12")
    assert len(model([torch.zeros(800)]).hidden_states) == 5


def test_layers_at_load_leave_out_blocks_and_the_predictions_above_them() -> None:
    wav = gold_wavs()[0]
    whole = DistilHubertUpstream.from_checkpoint(FILE)([wav])
    cut, last = hub.load("distilhubert", checkpoint=FILE, layers=[1]), hub.load("distilhubert", checkpoint=FILE, layers=[-1])
    assert torch.equal(cut([wav]).last_hidden_state, whole.hidden_states[1])
    assert torch.equal(last([wav]).last_hidden_state, whole.hidden_states[5])
    for layer in (2, 3, -1):
        with pytest.raises(OptionError, match=f"layer {layer % 6} of DistilHubertUpstream"):
            cut([wav], layers=[layer])


def changed(path: Path, tree: dict[str, Any], **options: Any) -> Path:
    torch.save({**tree, "Config": {"distiller": {**tree["Config"]["distiller"], **options}}}, path)
    return path


@pytest.fixture
def tree() -> dict[str, Any]:
    """The gold file as plain data."""
    found = torch.load(FILE, weights_only=False)
    return {"Config": found["Config"], "Distiller": found["Distiller"]}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("layer_norm_first", True),
        ("attention_type", "sparse"),
        ("activation_fn", "relu"),
        ("task_emb_type", "self-hidden"),
        ("out_layer_type", "none"),
    ],
)
def test_an_option_that_would_change_the_numbers_is_refused_by_name(
    option: str, value: Any, tree: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointLayoutError, match=f"it has {option}={value!r}"):
        DistilHubertUpstream.from_checkpoint(changed(tmp_path / "a.ckpt", tree, **{option: value}))


def test_a_single_prediction_is_a_plain_linear_layer(tree: dict[str, Any], tmp_path: Path) -> None:
    weights = {name: tensor for name, tensor in tree["Distiller"].items() if not name.startswith("output_layer")}
    hidden, out = nn.Linear(32, 20), nn.Linear(20, 24)
    for prefix, module in (("output_layer.0", hidden), ("output_layer.2.layer", out)):
        weights |= {f"{prefix}.{name}": tensor.detach() for name, tensor in module.named_parameters()}
    tree["Distiller"] = weights
    file = changed(tmp_path / "a.ckpt", tree, n_tasks=1, pred_layer_id=[12], out_layer_inter_dim=20)
    states = DistilHubertUpstream.from_checkpoint(file)([gold_wavs()[0]]).hidden_states
    assert len(states) == 4 and torch.allclose(out(nn.functional.gelu(hidden(states[2]))), states[3], atol=1e-5)


def as_in_transformers(path: Path, **options: Any) -> Path:
    """transformers' copy of the gold file's model, without its prediction heads."""
    model = DistilHubertUpstream.from_checkpoint(FILE).model
    names = DistilHubertUpstream.reader.names
    encoder = {name: weight for name, weight in model.state_dict().items() if not name.startswith("predictions")}
    path.mkdir()
    torch.save(names.write("transformers", encoder), path / "pytorch_model.bin")
    config = json.loads((FOLDER / "config.json").read_text())
    sizes = {"conv_dim": [16] * 7, "num_hidden_layers": 2, "intermediate_size": 64}
    (path / "config.json").write_text(json.dumps({**config, **sizes, **options}))
    shutil.copy(FOLDER / "preprocessor_config.json", path)
    return path


@torch.no_grad()
def test_transformers_copy_has_the_projection_and_the_blocks(tmp_path: Path) -> None:
    folder = as_in_transformers(tmp_path / "hf")
    model, hubert = DistilHubertUpstream.from_checkpoint(folder), HubertUpstream.from_checkpoint(folder)
    assert model.layer_names == ("projection", "block_1", "block_2")
    wav = gold_wavs()[0]
    wanted = DistilHubertUpstream.from_checkpoint(FILE)([wav]).hidden_states[:3]
    for mine, theirs in zip(model([wav]).hidden_states, wanted, strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(hubert([wav], layers=[-1]).last_hidden_state, wanted[2])


@pytest.mark.parametrize("option", [{"num_hidden_layers": 3}, {"feat_proj_layer_norm": True}])
def test_any_other_hubert_is_an_error_that_names_the_family(option: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(CheckpointLayoutError, match=r"calls itself 'hubert'.*hub\.load\('hubert'"):
        DistilHubertUpstream.from_checkpoint(as_in_transformers(tmp_path / "hf", **option))


@pytest.mark.parametrize("options", [{"pre_norm": True}, {"predicted_layers": (4, 4)}])
def test_a_config_that_no_model_has_is_an_error(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        DistilHubertUpstream.from_config("base", **options)


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    model = DistilHubertUpstream.from_checkpoint(FILE)
    model.save_checkpoint(tmp_path / "mine.safetensors")
    again = DistilHubertUpstream.from_checkpoint(tmp_path / "mine.safetensors")
    assert again.config == model.config
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in model.state_dict().items())


def test_the_published_shape_has_as_many_weights_as_the_paper_says() -> None:
    with torch.device("meta"):
        model = DistilHubertUpstream(CONFIGS["base_transformers"])
    assert round(sum(weight.numel() for weight in model.parameters()) / 1e6, 2) == 23.49  # table 1, in millions
