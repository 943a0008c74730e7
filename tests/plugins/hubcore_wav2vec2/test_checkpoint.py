"""Reading checkpoints: every layout, what is reported, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from hubcore.checkpoints import open_checkpoint
from hubcore.checkpoints.fairseq import parse_conv_layers
from hubcore.errors import CheckpointError, CheckpointLayoutError, MissingWeightsError, OptionError
from hubcore_wav2vec2 import CONFIGS, Wav2Vec2Upstream
from tests.gold import gold_file, gold_wavs

GROUP_NORM = "fairseq_tiny_w2v2_groupnorm.pt"


def load_gold(name: str) -> dict[str, object]:
    """A gold file as torch's own unpickler reads it; those with plain containers only."""
    return torch.load(gold_file(name), weights_only=True)


def test_every_loaded_weight_equals_the_files(tmp_path: Path) -> None:
    upstream = Wav2Vec2Upstream.from_checkpoint(gold_file(GROUP_NORM))
    theirs: dict[str, Tensor] = load_gold(GROUP_NORM)["model"]  # type: ignore[assignment]
    ours = {tuple(w.flatten().tolist()) for w in upstream.state_dict().values() if w.ndim != 3}
    used = upstream.load_report.used
    assert len(used) == len(upstream.state_dict())
    for name in used:
        weight = theirs[name]
        if weight.ndim == 3 and "conv_layers" in name:
            index = name.split(".")[2]
            assert torch.equal(upstream.state_dict()[f"model.extractor.convs.{index}.weight"], weight.transpose(1, 2))
        elif weight.ndim != 3:
            assert tuple(weight.flatten().tolist()) in ours, name
    assert torch.equal(upstream.model.encoder.pos_conv.weight_v, theirs["encoder.pos_conv.0.weight_v"])


def test_the_report_names_heads_and_conversions() -> None:
    report = Wav2Vec2Upstream.from_checkpoint(gold_file("fairseq_tiny_w2v2_ctc.pt")).load_report
    assert report.ignored == ("w2v_encoder.proj.bias", "w2v_encoder.proj.weight", "w2v_encoder.w2v_model.mask_emb")
    assert "ignored" in str(report)
    half = Wav2Vec2Upstream.from_checkpoint(gold_file("fairseq_tiny_w2v2_oldargs.pt"))
    assert any("float16" in change for change in half.load_report.converted)
    assert {w.dtype for w in half.state_dict().values()} == {torch.float32}


def test_a_missing_weight_is_named_and_never_random(tmp_path: Path) -> None:
    tree = load_gold(GROUP_NORM)
    del tree["model"]["encoder.layers.1.fc2.bias"]
    torch.save(tree, tmp_path / "cut.pt")
    with pytest.raises(MissingWeightsError, match=r"encoder\.blocks\.1\.feed_forward\.fc2\.bias") as caught:
        Wav2Vec2Upstream.from_checkpoint(tmp_path / "cut.pt")
    assert caught.value.names == ("encoder.blocks.1.feed_forward.fc2.bias",)


def test_the_config_is_checked_against_the_shapes(tmp_path: Path) -> None:
    tree = load_gold(GROUP_NORM)
    tree["cfg"]["model"]["encoder_ffn_embed_dim"] = 112
    torch.save(tree, tmp_path / "other.pt")
    with pytest.raises(MissingWeightsError, match=r"fc1\.weight must have shape \(112, 48\), but has \(96, 48\)"):
        Wav2Vec2Upstream.from_checkpoint(tmp_path / "other.pt")


def test_a_quantiser_of_the_input_is_no_head(tmp_path: Path) -> None:
    tree = load_gold(GROUP_NORM)
    tree["model"]["project_inp.weight"] = torch.zeros(48, 32)  # fairseq: `quantize_input`, which changes the features
    torch.save(tree, tmp_path / "other.pt")
    with pytest.raises(CheckpointLayoutError, match="project_inp"):
        Wav2Vec2Upstream.from_checkpoint(tmp_path / "other.pt")


@pytest.mark.parametrize(
    ("option", "value"),
    [("layer_type", "conformer"), ("activation_fn", "relu"), ("pos_conv_depth", 5), ("extractor_mode", "batch_norm")],
)
def test_an_architecture_that_is_not_ours_is_refused(tmp_path: Path, option: str, value: object) -> None:
    tree = load_gold(GROUP_NORM)
    tree["cfg"]["model"][option] = value
    torch.save(tree, tmp_path / "other.pt")
    with pytest.raises(CheckpointLayoutError, match=f"{option}|wav2vec2_{value}"):
        Wav2Vec2Upstream.from_checkpoint(tmp_path / "other.pt")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("conv_feature_layers", "__import__('os').system('true')"),
        ("conv_feature_layers", "[(1,2)]"),
        ("conv_feature_layers", "[" * 5000),
        ("encoder_layers", "many"),
        ("encoder_attention_heads", 5),
        ("encoder_embed_dim", -48),
        ("layer_norm_first", "perhaps"),
        ("dropout", [1]),
    ],
)
def test_a_config_that_makes_no_sense_is_an_error_of_ours(tmp_path: Path, option: str, value: object) -> None:
    tree = load_gold(GROUP_NORM)
    tree["cfg"]["model"][option] = value
    torch.save(tree, tmp_path / "odd.pt")
    with pytest.raises(CheckpointError, match=r"odd\.pt"):
        Wav2Vec2Upstream.from_checkpoint(tmp_path / "odd.pt")


def test_an_option_that_the_config_leaves_out_is_noted(tmp_path: Path) -> None:
    tree = load_gold(GROUP_NORM)
    del tree["cfg"]["model"]["layer_norm_first"]
    torch.save(tree, tmp_path / "short.pt")
    notes = Wav2Vec2Upstream.from_checkpoint(tmp_path / "short.pt").load_report.notes
    assert any("layer_norm_first" in note for note in notes)
    assert Wav2Vec2Upstream.from_checkpoint(gold_file(GROUP_NORM)).load_report.notes == ()


def test_values_of_an_old_namespace_may_be_strings(tmp_path: Path) -> None:
    tree = load_gold(GROUP_NORM)
    model = tree["cfg"]["model"]
    for option in ("encoder_layers", "encoder_embed_dim", "layer_norm_first", "conv_bias", "dropout"):
        model[option] = str(model[option])
    torch.save(tree, tmp_path / "strings.pt")
    assert Wav2Vec2Upstream.from_checkpoint(tmp_path / "strings.pt").config.num_layers == 3


def test_another_family_is_refused_by_name(tmp_path: Path) -> None:
    torch.save({"model": {"x": torch.zeros(1)}, "cfg": {"model": {}, "task": {}}}, tmp_path / "hubert.pt")
    with pytest.raises(CheckpointLayoutError, match=r"is no wav2vec 2\.0 checkpoint"):
        Wav2Vec2Upstream.from_checkpoint(tmp_path / "hubert.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointLayoutError, match="holds a list"):
        Wav2Vec2Upstream.from_checkpoint(tmp_path / "list.pt")


def test_a_state_dict_without_config_asks_for_one(tmp_path: Path) -> None:
    upstream = Wav2Vec2Upstream.from_checkpoint("wav2vec2_tiny_prompts")
    save_file(upstream.state_dict(), tmp_path / "bare.safetensors")
    with pytest.raises(CheckpointLayoutError, match="pass config="):
        Wav2Vec2Upstream.from_checkpoint(tmp_path / "bare.safetensors")
    with pytest.raises(OptionError, match="no config called 'tinny'"):
        Wav2Vec2Upstream.from_checkpoint(tmp_path / "bare.safetensors", config="tinny")
    again = Wav2Vec2Upstream.from_checkpoint(tmp_path / "bare.safetensors", config="tiny")
    wav = gold_wavs()[0]
    assert torch.equal(again([wav]).last_hidden_state, upstream([wav]).last_hidden_state)


def test_a_config_that_differs_from_the_files_own_is_refused() -> None:
    with pytest.raises(CheckpointLayoutError, match="dim must be 768, but is 96 instead"):
        Wav2Vec2Upstream.from_checkpoint("wav2vec2_tiny_prompts", config="base")
    assert Wav2Vec2Upstream.from_checkpoint("wav2vec2_tiny_prompts", config="tiny").card.name == "wav2vec2_tiny_prompts"
    assert Wav2Vec2Upstream.from_checkpoint("wav2vec2_tiny_prompts", dropout=0.25).model.encoder.dropout.p == 0.25


def test_our_own_file_gives_the_same_bytes_and_features(tmp_path: Path) -> None:
    upstream = Wav2Vec2Upstream.from_checkpoint(gold_file("fairseq_tiny_w2v2_layernorm.pt"))
    upstream.save_checkpoint(tmp_path / "a.safetensors")
    again = Wav2Vec2Upstream.from_checkpoint(tmp_path / "a.safetensors")
    again.save_checkpoint(tmp_path / "b.safetensors")
    assert again.config == upstream.config
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]
    for name, weight in upstream.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name


def test_a_fused_position_embedding_gives_the_same_features(tmp_path: Path) -> None:
    tree = load_gold(GROUP_NORM)
    state = tree["model"]
    g, v = state.pop("encoder.pos_conv.0.weight_g"), state.pop("encoder.pos_conv.0.weight_v")
    state["encoder.pos_conv.0.weight"] = v * g / v.norm(dim=(0, 1), keepdim=True)
    torch.save(tree, tmp_path / "fused.pt")
    fused, split = (Wav2Vec2Upstream.from_checkpoint(p) for p in (tmp_path / "fused.pt", gold_file(GROUP_NORM)))
    wav = gold_wavs()[0]
    assert (fused([wav]).last_hidden_state - split([wav]).last_hidden_state).abs().max() < 1e-5
    assert any("weight norm" in change for change in fused.load_report.converted)


def test_optimizer_state_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_checkpoint(gold_file(GROUP_NORM)) as checkpoint:
        assert not any("optimizer" in name or "exp_avg" in name for name in checkpoint.tensors)
        assert len(checkpoint.tensors) == 74


def test_conv_layers_are_parsed_not_run() -> None:
    assert parse_conv_layers("[(512, 10, 5)] + [(512,3,2)] * 2 + [(8,2,2)]") == (
        (512, 10, 5),
        (512, 3, 2),
        (512, 3, 2),
        (8, 2, 2),
    )
    assert parse_conv_layers([[4, 3, 2]]) == ((4, 3, 2),)
    for bad in ("1", "[]", "x", "[(1,2,3)] * 10**9", "f()", [[1, 2]], 7):
        with pytest.raises((ValueError, SyntaxError)):
            parse_conv_layers(bad)


def test_the_bundled_model_was_really_trained() -> None:
    """It tells masked frames of clips in the repository from others five times as often as chance, and names its sources."""
    from hubcore.audio import load_audio
    from hubcore.pretrain.objective import Batch
    from hubcore.sources.resolve import resolve
    from hubcore_wav2vec2.pretrain import Wav2Vec2Objective, Wav2Vec2Pretraining
    from tests.paths import SPEECH

    bundled = Path(resolve("wav2vec2_tiny_prompts"))
    assert bundled.stat().st_size < 3e6
    config = Wav2Vec2Objective(final_dim=64, codebook_dim=64, codebook_entries=40, num_negatives=50)
    objective = Wav2Vec2Pretraining(CONFIGS["tiny"], config)
    _, fresh = objective.load_weights(bundled)
    assert fresh == [], "the heads are there too"
    wavs = [load_audio(path) for path in sorted(SPEECH.glob("*.flac"))]
    figures = objective.eval()(Batch(wavs), update=3000, seed=0).figures
    assert figures["accuracy"][0] > 5 / 51 and figures["code_perplexity"][0] > 40
    about = bundled.with_name("README.md").read_text()
    for owner in ("Allison Smith", "June Wallack", "Carlo Flora", "Maxim Topal", "CC BY-SA 3.0", "CC BY 3.0"):
        assert owner in about


def test_a_config_field_that_is_unknown_is_refused(tmp_path: Path) -> None:
    upstream = Wav2Vec2Upstream(CONFIGS["tiny"])
    about = {"config": {"dim": 96, "no_such_option": 1}}
    save_file(upstream.state_dict(), tmp_path / "x.safetensors", metadata={"hubcore": json.dumps(about)})
    with pytest.raises(CheckpointLayoutError, match="no_such_option"):
        Wav2Vec2Upstream.from_checkpoint(tmp_path / "x.safetensors")
