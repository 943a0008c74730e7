"""`hubcore export`: what other programs get is what we had."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hubcore import hub
from hubcore.checkpoints import Names, open_checkpoint
from hubcore.checkpoints.native import write_native
from hubcore.errors import CheckpointError, CheckpointLayoutError, OptionError
from hubcore.pretrain.masking import draw_masks
from hubcore.pretrain.objective import Batch
from hubcore.tools.export import export
from hubcore_ofa_wav2vec2 import CONFIGS as OFA_CONFIGS
from hubcore_ofa_wav2vec2.pretrain import OfaWav2Vec2Objective, OfaWav2Vec2Pretraining
from hubcore_wav2vec2 import CONFIGS
from hubcore_wav2vec2.export import to_transformers
from hubcore_wav2vec2.pretrain import Draws, Wav2Vec2Objective, Wav2Vec2Pretraining, draw_negatives
from tests.gold import gold_file, gold_wavs
from tests.hugging_face import transformers
from tests.running import command

pytestmark = pytest.mark.slow

WIDE_OFA = dataclasses.replace(OFA_CONFIGS["tiny"], conv_layers=(*OFA_CONFIGS["tiny"].conv_layers[:-1], (512, 2, 2)))
HEADS: dict[str, Any] = {"final_dim": 24, "codebook_dim": 32, "codebook_entries": 20}


@pytest.fixture(params=["group", "layer"])
def trained(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Wav2Vec2Pretraining]:
    """A model file as pre-training leaves it, heads included."""
    torch.manual_seed(3)
    config = CONFIGS["tiny"]
    if request.param == "layer":
        config = dataclasses.replace(config, conv_norm="layer", conv_bias=True, pre_norm=True, normalize=True)
    objective = Wav2Vec2Pretraining(config, Wav2Vec2Objective(**HEADS))
    with torch.no_grad():
        for weight in objective.parameters():  # fresh norms and biases are ones and zeros, which would hide a mistake
            weight.add_(0.02 * torch.randn_like(weight))
    path = tmp_path / "model.safetensors"
    write_native(path, objective.state_dict(), config=config, upstream="Wav2Vec2Upstream")
    return path, objective.eval()


@torch.no_grad()
def states(path: Path | str, **options: Any) -> list[torch.Tensor]:
    name = "ofa_wav2vec2" if options else "wav2vec2"
    return list(hub.load(name, checkpoint=path)([gold_wavs()[0]], **options).hidden_states)


@pytest.mark.slow
def test_fairseq_s_file_reads_back_with_its_heads(trained: tuple[Path, Wav2Vec2Pretraining], tmp_path: Path) -> None:
    path, objective = trained
    made = export(path, tmp_path / "out.pt", format="fairseq")
    assert made.heads and made.upstream == "wav2vec2" and made.layers == 5
    with open_checkpoint(tmp_path / "out.pt") as checkpoint:
        assert checkpoint.layout == "fairseq, cfg"
        assert checkpoint.tensors["quantizer.vars"].shape == (1, 40, 16)
        assert checkpoint.config["latent_dim"] == 32 and checkpoint.config["final_dim"] == 24
    for ours, theirs in zip(states(path), states(tmp_path / "out.pt"), strict=True):
        assert torch.equal(ours, theirs)
    again = Wav2Vec2Pretraining(objective.model_config, objective.config)
    _, left = again.load_weights(tmp_path / "out.pt")
    assert left == []
    for name, value in again.state_dict().items():
        assert torch.equal(value, objective.state_dict()[name]), name


def test_fairseq_s_names_are_those_of_fairseq_s_own_file(tmp_path: Path) -> None:
    """The names and shapes that a real trainer wrote, from our names of the same weights."""
    original = gold_file("fairseq_tiny_w2v2_groupnorm.pt")
    upstream: Any = hub.load("wav2vec2", checkpoint=original)
    objective = Wav2Vec2Pretraining(upstream.config, Wav2Vec2Objective(final_dim=24, codebook_dim=24, codebook_entries=20))
    objective.load_weights(original)
    native = tmp_path / "native.safetensors"
    write_native(native, objective.state_dict(), config=upstream.config, upstream="Wav2Vec2Upstream")
    export(native, tmp_path / "out.pt", format="fairseq")
    with open_checkpoint(original) as wanted, open_checkpoint(tmp_path / "out.pt") as got:
        assert {n: i.shape for n, i in got.tensors.items()} == {n: i.shape for n, i in wanted.tensors.items()}
        theirs, ours = wanted.read(wanted.tensors), got.read(got.tensors)
        for key in ("extractor_mode", "encoder_embed_dim", "conv_pos", "layer_norm_first", "latent_vars", "final_dim"):
            assert got.config[key] == wanted.config[key], key
    assert all(torch.equal(ours[name], theirs[name].float()) for name in theirs)


def test_fairseq_s_file_has_what_fairseq_looks_for_before_the_model(
    trained: tuple[Path, Wav2Vec2Pretraining], tmp_path: Path
) -> None:
    """Its loader takes the last entry of the history and the epoch of the iterator; an empty list or dictionary is a crash."""
    export(trained[0], tmp_path / "out.pt", format="fairseq")
    written = torch.load(tmp_path / "out.pt", weights_only=True)
    assert {"optimizer_name", "lr_scheduler_state", "num_updates"} <= set(written["optimizer_history"][-1])
    assert written["extra_state"]["train_iterator"]["epoch"] == 1


@pytest.mark.slow
def test_transformers_computes_the_same_contrastive_loss(trained: tuple[Path, Wav2Vec2Pretraining], tmp_path: Path) -> None:
    path, objective = trained
    export(path, tmp_path / "hf", format="hf")
    theirs = transformers.Wav2Vec2ForPreTraining.from_pretrained(tmp_path / "hf").eval()
    wavs = [wav[:20000] for wav in gold_wavs()[1:]]
    frames = objective.model.convolve(wavs)[1]
    masks = draw_masks(frames, np.random.RandomState(1), mask_prob=0.65, mask_length=4, same_count=True, equal_lengths=True)
    mask = torch.from_numpy(np.stack(masks))
    negatives = draw_negatives([int(row.sum()) for row in mask], 10, torch.Generator().manual_seed(1))
    places = mask.flatten().nonzero()[:, 0]
    sampled = torch.zeros(*mask.shape, 10, dtype=torch.long)  # theirs are frames, counted over the batch
    sampled[mask] = places[negatives]
    with torch.no_grad():
        ours = objective(Batch(wavs), update=0, seed=0, given=Draws(mask.flatten(), negatives))
        heard = torch.stack(wavs)
        if objective.model_config.normalize:
            heard = torch.nn.functional.layer_norm(heard, heard.shape[-1:])
        out = theirs(heard, mask_time_indices=mask, sampled_negative_indices=sampled)
    assert ours.terms["contrastive"].value.item() == pytest.approx(out.contrastive_loss.item(), rel=1e-5)


def test_transformers_gets_the_options_of_a_run() -> None:
    _, about, _ = to_transformers({}, CONFIGS["tiny"], {"dropout_input": 0.2, "dropout_features": 0.3, "layerdrop": 0.05})
    assert (about["feat_proj_dropout"], about["feat_quantizer_dropout"], about["layerdrop"]) == (0.2, 0.3, 0.05)


@pytest.mark.slow
def test_transformers_gives_the_same_hidden_states(trained: tuple[Path, Wav2Vec2Pretraining], tmp_path: Path) -> None:
    path, objective = trained
    made = export(path, tmp_path / "hf", format="hf")
    assert made.heads and sorted(p.name for p in (tmp_path / "hf").iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    theirs, info = transformers.Wav2Vec2ForPreTraining.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    wav = gold_wavs()[0]
    if objective.model_config.normalize:
        assert json.loads((tmp_path / "hf/preprocessor_config.json").read_text())["do_normalize"] is True
        wav = torch.nn.functional.layer_norm(wav, wav.shape)
    with torch.no_grad():
        out = theirs.eval().wav2vec2(wav[None], output_hidden_states=True).hidden_states
    wanted = states(path)
    # transformers leaves the final norm of a pre-norm model out of its last hidden state
    pairs = list(zip(wanted, out, strict=True))[: -1 if objective.model_config.pre_norm else None]
    for ours, other in pairs:
        assert (ours - other).abs().max() <= 2e-5 * ours.abs().max()


@pytest.mark.slow
def test_ofa_goes_to_the_fork_s_format_and_not_to_transformers(tmp_path: Path) -> None:
    torch.manual_seed(3)
    objective = OfaWav2Vec2Pretraining(WIDE_OFA, OfaWav2Vec2Objective(**HEADS))
    path = save(objective, tmp_path)
    made = export(path, tmp_path / "out.pt", format="fairseq")
    assert made.upstream == "ofa_wav2vec2"
    for ours, theirs in zip(states(path, lambd=0.6), states(tmp_path / "out.pt", lambd=0.6), strict=True):
        assert torch.equal(ours, theirs)
    with open_checkpoint(gold_file("ofa_tiny.pt")) as wanted, open_checkpoint(tmp_path / "out.pt") as got:
        assert set(got.tensors) == set(wanted.tensors)
        assert got.config["subsample"] == "cif" and got.config["mixup"] is True and got.config["mixup_distro"] == "uniform"
    with pytest.raises(CheckpointLayoutError, match=r"ofa_wav2vec2 cannot be written as hf: .*export\.to_transformers"):
        export(path, tmp_path / "hf", format="hf")
    assert not (tmp_path / "hf").exists()


def options(config: Any) -> dict[str, set[str]]:
    """Section -> its keys."""
    return {name: set(section) if isinstance(section, dict) else set() for name, section in config.items()}


@pytest.mark.parametrize(
    ("family", "original"), [("wav2vec2", "fairseq_tiny_w2v2_groupnorm.pt"), ("ofa_wav2vec2", "ofa_tiny.pt")]
)
@pytest.mark.slow
def test_fairseq_s_config_has_every_key_of_the_original_s_own_file(family: str, original: str, tmp_path: Path) -> None:
    """With omegaconf below 2.1, fine-tuning sets `lr_scheduler` and `task.data`, which must be there."""
    plain, ofa = Wav2Vec2Objective(**HEADS), OfaWav2Vec2Objective(**HEADS)
    made = Wav2Vec2Pretraining(CONFIGS["tiny"], plain) if family == "wav2vec2" else OfaWav2Vec2Pretraining(WIDE_OFA, ofa)
    export(save(made, tmp_path), tmp_path / "out.pt", format="fairseq")
    wanted = torch.load(gold_file(original), weights_only=True)["cfg"]
    got = torch.load(tmp_path / "out.pt", weights_only=True)["cfg"]
    assert options(got) == options(wanted)
    for name, section in wanted.items():
        kinds = {key: type(value) for key, value in (section or {}).items() if value is not None}
        kinds = {key: kind for key, kind in kinds.items() if got[name][key] is not None}
        assert {key: type(got[name][key]) for key in kinds} == kinds, name
    unset = {"model", "task", "common", "checkpoint", "optimization", "lr_scheduler"}
    assert {name: got[name] for name in got if name not in unset} == {
        name: wanted[name] for name in wanted if name not in unset
    }


def save(objective: Wav2Vec2Pretraining, folder: Path) -> Path:
    path = folder / "model.safetensors"
    name = "OfaWav2Vec2Upstream" if isinstance(objective, OfaWav2Vec2Pretraining) else "Wav2Vec2Upstream"
    write_native(path, objective.state_dict(), config=objective.model_config, upstream=name)
    return path


@pytest.mark.parametrize(
    ("changes", "format", "message"),
    [
        ({"dim": 64}, "fairseq", "extractor and blocks are both 64 wide"),
        ({"normalize": True, "normalize_eps": 1e-7}, "fairseq", "it reads normalize_eps 1e-07 as 1e-05"),
        ({"feature_norm": False}, "fairseq", "fairseq cannot hold this model: .*lacks the weight feature_norm"),
        ({"conv_layers": WIDE_OFA.conv_layers, "alpha_kernel": 3}, "fairseq", "512 wide and alpha's kernel is 3"),
        ({"alpha_kernel": 5}, "fairseq", "the extractor is 64 wide .*takes 512 and 5 only"),
        (
            {"conv_layers": WIDE_OFA.conv_layers, "lambd_range": (0.2, 0.7)},
            "fairseq",
            r"lambd_range \(0.2, 0.7\) as \(0.0, 0.7\)",
        ),
        ({"dim": 64, "input_projection": False}, "hf", "no projection between extractor and blocks"),
    ],
)
def test_what_the_other_program_cannot_hold_is_refused(
    changes: dict[str, Any], format: Any, message: str, tmp_path: Path
) -> None:
    ofa = "alpha_kernel" in changes or "lambd_range" in changes
    config = dataclasses.replace(OFA_CONFIGS["tiny"] if ofa else CONFIGS["tiny"], **changes)
    path = tmp_path / "model.safetensors"
    made = OfaWav2Vec2Pretraining(config, OfaWav2Vec2Objective(**HEADS)) if ofa else None
    made = made or Wav2Vec2Pretraining(config, Wav2Vec2Objective(**HEADS))
    write_native(path, made.state_dict(), config=config, upstream="OfaWav2Vec2Upstream" if ofa else "Wav2Vec2Upstream")
    with pytest.raises(CheckpointLayoutError, match=message):
        export(path, tmp_path / ("hf" if format == "hf" else "out.pt"), format=format)
    assert [each.name for each in tmp_path.iterdir()] == ["model.safetensors"]


def test_fairseq_wants_the_heads_that_its_model_has(tmp_path: Path) -> None:
    with pytest.raises(CheckpointLayoutError, match=r"no mask_embedding, quantizer\.codebook.* beside this encoder"):
        export(gold_file("fairseq_tiny_w2v2_ctc.pt"), tmp_path / "out.pt", format="fairseq")


@pytest.mark.parametrize("format", ["fairseq", "hf", "safetensors"])
def test_a_full_disk_is_said_and_leaves_nothing(format: Any, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="needs limits of a process")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(CheckpointError, match=r"could not be written \(.*File too large.*has space"):
            export(
                "wav2vec2_tiny_prompts", tmp_path / {"fairseq": "a.pt", "hf": "a"}.get(format, "a.safetensors"), format=format
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_same_checkpoint_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.pt", "b.pt"):
        export("wav2vec2_tiny_prompts", tmp_path / name, format="fairseq")
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_safetensors_leaves_the_heads_out(trained: tuple[Path, Wav2Vec2Pretraining], tmp_path: Path) -> None:
    path, _ = trained
    export(path, tmp_path / "out.safetensors", format="safetensors")
    with open_checkpoint(tmp_path / "out.safetensors") as checkpoint:
        assert all(name.startswith("model.") for name in checkpoint.tensors)


def test_a_fine_tuned_file_can_be_exported_without_heads(tmp_path: Path) -> None:
    made = export(gold_file("fairseq_tiny_w2v2_ctc.pt"), tmp_path / "hf", format="hf")
    assert not made.heads
    assert json.loads((tmp_path / "hf/config.json").read_text())["architectures"] == ["Wav2Vec2Model"]
    for ours, theirs in zip(states(gold_file("fairseq_tiny_w2v2_ctc.pt")), states(tmp_path / "hf"), strict=True):
        assert (ours - theirs).abs().max() <= 2e-5 * ours.abs().max()


@pytest.mark.slow
def test_nothing_is_left_or_replaced_by_a_failure(
    trained: tuple[Path, Wav2Vec2Pretraining], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = trained
    (tmp_path / "there.pt").write_text("mine")
    with pytest.raises(OptionError, match="exists already"):
        export(path, tmp_path / "there.pt", format="fairseq")
    assert (tmp_path / "there.pt").read_text() == "mine"
    with pytest.raises(OptionError, match="does not end in"):
        export(path, tmp_path / "out.safetensors", format="fairseq")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OptionError, match="Choose the name of a new folder"):
        export(path, tmp_path / "folder", format="hf", force=True)
    write = Names.write
    monkeypatch.setattr(Names, "write", lambda *args: {name: tensor * 1.001 for name, tensor in write(*args).items()})
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(CheckpointError):
        export(path, tmp_path / "wrong.pt", format="fairseq")
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_features_without_weights_have_nothing_to_export(tmp_path: Path) -> None:
    result = command("export", "fbank", str(tmp_path / "out.pt"), "--format", "fairseq")
    assert result.exit_code == 2 and "hubcore: error:" in result.output


@pytest.mark.slow
def test_the_command_says_what_it_wrote(trained: tuple[Path, Wav2Vec2Pretraining], tmp_path: Path) -> None:
    path, _ = trained
    result = command("export", str(path), str(tmp_path / "out.pt"), "-f", "fairseq")
    assert result.exit_code == 0, result.output
    assert "wav2vec2, with heads of pre-training" in result.output and "5 hidden states" in result.output
    result = command("export", str(path), str(tmp_path / "hf"), "-f", "hf", "--json")
    assert json.loads(result.output)["heads"] is True
