"""OFA wav2vec 2.0's pre-training: the original's losses and gradients, guidance, and how lambda is drawn."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hubcore import hub
from hubcore.audio import load_audio
from hubcore.checkpoints import open_checkpoint
from hubcore.checkpoints.native import write_native
from hubcore.cli import main
from hubcore.corpus import read_manifest
from hubcore.errors import ExtractionError, OptionError
from hubcore.pretrain import pretrain, read_recipe
from hubcore.pretrain.masking import draw_masks
from hubcore.pretrain.objective import Batch, Losses
from hubcore_ofa_wav2vec2 import CONFIGS
from hubcore_ofa_wav2vec2.checkpoint import NAMES, READER
from hubcore_ofa_wav2vec2.model import AlphaPredictor
from hubcore_ofa_wav2vec2.pretrain import (
    OfaWav2Vec2Objective,
    OfaWav2Vec2Pretraining,
    draw_lambd,
    frame_loss,
    guide_for,
    segmentation_loss,
)
from hubcore_ofa_wav2vec2.segments import open_segments
from hubcore_wav2vec2 import CONFIGS as PLAIN_CONFIGS
from hubcore_wav2vec2.checkpoint import HEADS
from hubcore_wav2vec2.pretrain import Draws, Wav2Vec2Objective, Wav2Vec2Pretraining, draw_negatives
from tests.gold import SMALL_HEADS, gold_arrays, gold_file, gold_wavs
from tests.paths import GOLD

pytestmark = pytest.mark.slow

CASES = json.loads((GOLD / "ofa_losses.json").read_text())
TERMS = ("diversity", "features_penalty", "cardinality", "segmentation", "frame")
QUIET = OfaWav2Vec2Objective(**SMALL_HEADS)  # type: ignore[arg-type]


def gold_objective(**options: object) -> OfaWav2Vec2Pretraining:
    with open_checkpoint(gold_file("ofa_tiny.pt")) as checkpoint:
        config = READER.read_config(checkpoint, None, [])
    config = dataclasses.replace(config, dropout=0.0, attention_dropout=0.0, activation_dropout=0.0)
    objective = OfaWav2Vec2Pretraining(config, dataclasses.replace(QUIET, **options))  # type: ignore[arg-type]
    _, left = objective.load_weights(gold_file("ofa_tiny.pt"))
    assert left == []
    return objective


def gold_losses(case: str) -> tuple[OfaWav2Vec2Pretraining, Losses]:
    about, arrays = CASES[case], gold_arrays("ofa_losses.npz")
    objective = gold_objective(compat="original", cardinality_weight=about["card_cfg"]).train(about["train"])
    segments = [
        SimpleNamespace(alpha=alpha, boundaries=ends[ends >= 0])
        for alpha, ends in zip(arrays[f"{case}/in/alpha"], arrays[f"{case}/in/boundaries"], strict=True)
    ]
    batch = Batch(list(arrays[f"{case}/in/source"]), guidance=segments)
    return objective, objective(batch, update=1, seed=0, given=gold_draws(case), lambd=about["lambd"])


def manifest_of_gold(folder: Path) -> str:
    """The override that names a manifest of the original's data, as it lies here."""
    lines = (GOLD / "ofa_dataset/manifest/aligned.tsv").read_text().splitlines()
    (folder / "train.tsv").write_text("\n".join([str(GOLD / "ofa_dataset/LibriSpeech"), *lines[1:]]) + "\n")
    return f"data.train={folder / 'train.tsv'}"


def gold_draws(case: str) -> Draws:
    arrays = gold_arrays("ofa_losses.npz")
    return Draws(
        mask=arrays[f"{case}/mask_indices"].flatten(),
        negatives=arrays[f"{case}/neg_idxs"].reshape(-1, 10),
        noise=arrays[f"{case}/gumbel_noise"].reshape(-1, 2, 20) if CASES[case]["train"] else None,
    )


@pytest.mark.parametrize("case", CASES)
def test_every_loss_term_is_the_original_s(case: str) -> None:
    about = CASES[case]
    _, losses = gold_losses(case)
    assert losses.sample_size == about["sample_size"]
    assert losses.total.item() == pytest.approx(about["loss_total"], rel=1e-5)
    assert losses.terms["contrastive"].value.item() == pytest.approx(about["infonce_sum"], rel=1e-5)
    weights = {"cardinality": about["card_cfg"], "segmentation": 0.05, "frame": 0.5}
    for name, wanted in zip(TERMS, about["extra_losses_raw"], strict=True):
        assert losses.terms[name].value.item() * weights.get(name, 1) == pytest.approx(wanted, rel=1e-5), name
    figures = losses.figures
    assert figures["accuracy"][0] * losses.sample_size == pytest.approx(about["log/correct"])
    assert figures["code_perplexity"][0] == pytest.approx(about["log/code_perplexity"], rel=1e-5)
    assert figures["prob_perplexity"][0] == pytest.approx(about["log/prob_perplexity"], rel=1e-5)
    assert figures["temperature"][0] == pytest.approx(about["log/temp"])
    assert figures["mixed_alpha_mean"][0] == pytest.approx(about["log/alpha_mean"], rel=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_every_gradient_is_the_original_s(case: str) -> None:
    norms = CASES[case]["grad_norms"]
    objective, losses = gold_losses(case)
    losses.total.backward()
    ours = {name: parameter.grad for name, parameter in objective.named_parameters()}
    encoder, heads = NAMES.read("fairseq", norms), HEADS.read("fairseq", norms)
    names = {theirs: f"model.{name}" for name, (theirs, _) in encoder.items()}
    names.update({theirs: name for name, (theirs, _) in heads.items()})
    assert set(names) == set(norms) and set(names.values()) == set(ours)
    for theirs, wanted in norms.items():
        if theirs.endswith("self_attn.k_proj.bias"):  # mathematically 0; what is stored is rounding
            continue
        gradient = ours[names[theirs]]
        got = 0.0 if gradient is None else gradient.norm().item()
        assert got == pytest.approx(wanted, rel=2e-3, abs=1e-9), theirs
    arrays = gold_arrays("ofa_losses.npz")
    for key in [key for key in arrays if key.startswith(f"{case}/grad/")]:
        theirs = key.removeprefix(f"{case}/grad/")
        if theirs.endswith("self_attn.k_proj.bias"):
            continue
        gradient, row = ours[names[theirs]], {**encoder, **heads}
        turn = next(turn for name, turn in row.values() if name == theirs)
        wanted_tensor = turn.read(arrays[key]) if turn else arrays[key]
        assert gradient is not None
        error = (gradient.flatten() - wanted_tensor.flatten()).norm() / wanted_tensor.norm().clamp_min(1e-9)
        assert error < 2e-3, theirs


# Guidance -------------------------------------------------------------------------------------------------------------


def whole(*segments: int) -> SimpleNamespace:
    """Segments of these lengths, and what the original would store for them."""
    alpha = torch.cat([torch.full((n,), 1 / n) for n in segments])
    return SimpleNamespace(alpha=alpha, boundaries=torch.tensor(segments).cumsum(0))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.data())
def test_pseudo_alpha_has_no_segmentation_loss_whatever_the_crop(segments: list[int], data: st.DataObject) -> None:
    total = sum(segments)
    first = data.draw(st.integers(0, total - 1))
    frames = data.draw(st.integers(1, total - first))
    guide = guide_for(whole(*segments), first, frames)
    assert len(guide.alpha) == frames and bool((guide.ends >= 0).all()) and bool((guide.ends < frames).all())
    assert segmentation_loss([guide.alpha], [guide]).item() == pytest.approx(0, abs=1e-5)
    assert frame_loss([guide.alpha], [guide]).item() == 0


def test_a_crop_keeps_guidance_in_step_with_the_audio() -> None:
    guide = guide_for(whole(4, 2, 3), 3, 4)  # the last frame of the first, all of the second, one frame of the third
    assert guide.ends.tolist() == [0, 2]
    assert guide.sums.tolist() == [0.25, 1.25]
    assert guide.alpha.tolist() == pytest.approx([0.25, 0.5, 0.5, 1 / 3])


def test_a_cropped_utterance_is_guided_by_its_own_part_of_the_file() -> None:
    """The original crops the audio and leaves alpha and boundaries where they were."""
    objective = gold_objective().eval()
    segment = whole(*(3 + n % 5 for n in range(18)))
    ends = segment.boundaries.tolist()
    first = ends[3]  # the crop begins with a segment, so that what is left is like a file of its own
    crop = gold_wavs()[1][320 * first : 320 * first + 16000]
    frames = objective.model.convolve([crop])[1][0]
    inside = [end - first for end in ends if first < end <= first + frames]
    own = SimpleNamespace(alpha=segment.alpha[first : first + frames], boundaries=torch.tensor(inside))

    def guided(batch: Batch) -> dict[str, float]:
        terms = objective(batch, update=0, seed=0, lambd=0.5).terms
        return {name: terms[name].value.item() for name in ("segmentation", "frame")}

    as_crop = guided(Batch([crop], starts=[320 * first], guidance=[segment]))
    assert as_crop == pytest.approx(guided(Batch([crop], guidance=[own])), rel=1e-6)
    assert as_crop != pytest.approx(guided(Batch([crop], guidance=[segment])), rel=1e-3)


def test_a_crop_without_any_boundary_has_no_segmentation_loss() -> None:
    guide = guide_for(whole(50), 10, 20)
    assert guide.ends.tolist() == []
    assert segmentation_loss([torch.rand(20)], [guide]).tolist() == [0.0]


@pytest.mark.parametrize("case", sorted(CASES))
def test_the_files_on_disk_give_the_original_s_batch_and_loss(case: str) -> None:
    """The same cases by way of our own readers: manifest, audio, the two roots, and where the original's collater cut."""
    about, arrays = CASES[case], gold_arrays("ofa_losses.npz")
    dataset = GOLD / "ofa_dataset"
    name = "aligned" if not about["crop_starts"] else "ragged"
    manifest = read_manifest(dataset / f"manifest/{name}.tsv", root=dataset / "LibriSpeech")
    segments = open_segments([dataset / "pseudo/alpha", dataset / "pseudo/boundaries"])
    wavs = [load_audio(manifest.locate(entry)) for entry in manifest]
    shortest, starts = min(map(len, wavs)), iter(about["crop_starts"])
    first = [0 if len(wav) == shortest else next(starts) for wav in wavs]
    cropped = [wav[start : start + shortest] for wav, start in zip(wavs, first, strict=True)]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(cropped, arrays[f"{case}/in/source"], strict=True))
    batch = Batch(cropped, starts=first, guidance=[segments.read(e.path, samples=e.samples) for e in manifest])
    objective, from_arrays = gold_losses(case)
    losses = objective(batch, update=1, seed=0, given=gold_draws(case), lambd=about["lambd"])
    assert losses.total.item() == from_arrays.total.item() == pytest.approx(about["loss_total"], rel=1e-5)


def test_alphas_of_another_origin_need_not_add_up(tmp_path: Path) -> None:
    for kind, tensor in {"alpha": torch.tensor([0.3, 0.3, 0.9]), "boundaries": torch.tensor([2, 3])}.items():
        (tmp_path / kind).mkdir()
        torch.save(tensor, tmp_path / kind / "a.pt")
    theirs = OfaWav2Vec2Pretraining.open_guidance([tmp_path / "alpha", tmp_path / "boundaries"], None, None)
    assert theirs is not None and theirs["a.flac"].boundaries.tolist() == [2, 3]
    (tmp_path / "segments.json").touch()
    ours = OfaWav2Vec2Pretraining.open_guidance([tmp_path], None, None)
    assert ours is not None
    with pytest.raises(ExtractionError, match=r"adds up to 1\.5"):
        ours["a.flac"]


def test_segments_on_another_grid_are_refused() -> None:
    objective = gold_objective()
    with pytest.raises(OptionError, match=r"segments of 9 frames are to guide frames 1 to \d+\. They are on another grid"):
        objective(Batch([gold_wavs()[0]], guidance=[whole(4, 5)]), update=0, seed=0)


def test_missing_guidance_is_said() -> None:
    objective = gold_objective()
    with pytest.raises(OptionError, match=r"data\.segments"):
        objective(Batch([gold_wavs()[0]]), update=0, seed=0)


# Lambda ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("draw", "upper", "low", "high"),
    [("uniform", 1.0, 0.0, 1.0), ("uniform-fr", 1.0, 0.0, 1.0), ("scale", 1.0, 1.0, 2.0), ("both", 1.5, 0.0, 1.5)],
)
def test_lambda_is_drawn_from_its_range(draw: str, upper: float, low: float, high: float) -> None:
    drawn = np.array([draw_lambd(draw, upper, torch.Generator().manual_seed(seed)) for seed in range(400)])  # type: ignore[arg-type]
    assert low <= drawn.min() < low + 0.06 * (high - low) and high - 0.06 * (high - low) < drawn.max() <= high
    if draw == "uniform-fr":  # then the period is uniform
        period = 20 / (1 - 7 / 9 * drawn)
        assert period.mean() == pytest.approx(55, abs=4) and np.quantile(period, 0.25) == pytest.approx(37.5, abs=5)
    else:
        assert drawn.mean() == pytest.approx((low + high) / 2, abs=0.06 * (high - low))


@pytest.mark.parametrize(
    ("draw", "upper", "wanted"), [("uniform", 2.0, (0, 1)), ("scale", 1.0, (1, 2)), ("both", 1.5, (0, 1.5))]
)
@pytest.mark.slow
def test_a_run_records_the_lambdas_that_it_draws(
    draw: str, upper: float, wanted: tuple[float, float], tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    train = manifest_of_gold(tmp_path)
    options = (f"objective.lambd_draw={draw}", f"objective.upper_lambd={upper}", "objective.segmentation_weight=0")
    small = ("data.workers=0", "optimization.max_updates=1", "run.device=cpu", "run.tensorboard=false")
    recipe = read_recipe("ofa_tiny", [train, *options, "objective.frame_weight=0", "data.min_samples=2000", *small])
    assert pretrain(recipe, tmp_path / "run").status == "finished"
    upstream: Any = hub.load("ofa_wav2vec2", checkpoint=tmp_path / "run")
    assert upstream.config.lambd_range == wanted
    upstream([gold_wavs()[1]], lambd=wanted[1])
    assert not [warning for warning in recwarn if "lambd" in str(warning.message)]


def test_a_fresh_alpha_predictor_is_as_wide_as_the_original_s() -> None:
    """There it is torch's own start of a Conv1d."""
    torch.manual_seed(0)
    ours, theirs = AlphaPredictor(64).conv, torch.nn.Conv1d(64, 64, 5)
    assert ours.bias is not None and theirs.bias is not None
    for mine, other in ((ours.weight, theirs.weight), (ours.bias, theirs.bias)):
        assert float(mine.detach().abs().max()) <= (64 * 5) ** -0.5 + 1e-6
        assert float(mine.detach().std()) == pytest.approx(float(other.detach().std()), rel=0.15)
    assert float(ours.weight.detach().std()) == pytest.approx(float(theirs.weight.detach().std()), rel=0.02)


def test_lambda_follows_the_seed_and_nothing_else() -> None:
    objective = gold_objective(segmentation_weight=0.0, frame_weight=0.0).eval()
    batch = Batch([gold_wavs()[1]])
    drawn = [objective(batch, update=0, seed=seed).figures["lambda"][0] for seed in (3, 4, 3)]
    assert drawn[0] == drawn[2] != drawn[1]


def test_validation_covers_the_frame_rates() -> None:
    objective = gold_objective(segmentation_weight=0.0, frame_weight=0.0).eval()
    periods = [
        objective(Batch([gold_wavs()[1]]), update=0, seed=0, **options).figures["frame_period_ms"][0]
        for options in objective.variants().values()
    ]
    assert periods[0] == pytest.approx(20) and periods == sorted(periods) and periods[-1] > 40


# Batches --------------------------------------------------------------------------------------------------------------


def grads(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.slow
@pytest.mark.parametrize("lambd", [0.0, 0.6, 1.0])
def test_an_utterance_s_part_of_the_loss_does_not_depend_on_its_batch(lambd: float) -> None:
    objective = gold_objective(diversity_weight=0.0, cardinality_weight=0.2).eval()
    wavs = [wav[:n] for wav, n in zip(gold_wavs(), (11237, 20000, 30000), strict=True)]
    frames = [objective.model.convolve([wav])[1][0] for wav in wavs]
    guides = [whole(*([5] * (n // 5)), *([n % 5] if n % 5 else [])) for n in frames]
    lengths = [objective.model.compress([wav], [0], lambd=lambd).lengths[0] for wav in wavs]
    masks = [torch.from_numpy(m) for m in draw_masks(lengths, np.random.RandomState(5), mask_prob=0.65, mask_length=4)]
    counts = [int(mask.sum()) for mask in masks]
    parts = [draw_negatives([count], 10, torch.Generator().manual_seed(count)) for count in counts]
    offsets = np.cumsum([0, *counts])[:-1]
    together = Draws(torch.cat(masks), torch.cat([p + int(o) for p, o in zip(parts, offsets, strict=True)]))

    batch = Batch(wavs, guidance=guides)
    in_one = objective(batch, update=0, seed=0, given=together, lambd=lambd)
    in_one.total.backward()
    of_one = grads(objective)
    objective.zero_grad()
    alone = [
        objective(Batch([wav], guidance=[guide]), update=0, seed=0, given=Draws(mask, part), lambd=lambd)
        for wav, guide, mask, part in zip(wavs, guides, masks, parts, strict=True)
    ]
    sum(losses.total for losses in alone).backward()  # type: ignore[union-attr]
    of_alone = grads(objective)
    assert sum(losses.total.item() for losses in alone) == pytest.approx(in_one.total.item(), rel=1e-6)
    norm = torch.cat([g.flatten() for g in of_one.values()]).norm()
    for name, gradient in of_one.items():
        assert (gradient - of_alone[name]).norm() < 1e-5 * norm, name


def test_every_parameter_learns_at_every_lambda() -> None:
    objective = gold_objective().train()
    wav = gold_wavs()[1]
    frames = objective.model.convolve([wav])[1][0]
    guide = whole(*([1] * frames))
    for lambd in (0.0, 0.5, 1.0):
        objective.zero_grad()
        objective(Batch([wav], guidance=[guide]), update=0, seed=0, lambd=lambd).total.backward()
        silent = [name for name, p in objective.named_parameters() if p.grad is None]
        assert silent == [], "distributed training waits for every gradient"


def test_a_batch_of_nothing_but_short_audio_has_no_targets() -> None:
    objective = gold_objective(segmentation_weight=0.0, frame_weight=0.0).train()
    losses = objective(Batch([torch.randn(400), torch.randn(500)]), update=0, seed=0, lambd=1.0)
    assert losses.sample_size == 0
    losses.total.backward()
    assert all(p.grad is None or not p.grad.any() for p in objective.parameters())


# Numbers that are none ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compat", ["exact", "original"])
@pytest.mark.parametrize("mixing", [True, False])
@pytest.mark.parametrize("poison", ["samples", "weights"])
def test_alpha_that_is_no_number_gives_a_loss_that_is_none(compat: str, mixing: bool, poison: str) -> None:
    objective = gold_objective(segmentation_weight=0.0, frame_weight=0.0, compat=compat).train()
    objective.model.mixing = mixing
    wavs = [wav[:16000].clone() for wav in gold_wavs()[1:]]
    if poison == "samples":
        wavs[0].fill_(1e30)
    else:  # features are numbers then
        torch.nn.init.constant_(objective.model.alpha_predictor.conv.bias, float("nan"))  # type: ignore[arg-type,union-attr]
    losses = objective(Batch(wavs), update=0, seed=0)
    assert not torch.isfinite(losses.total)
    losses.total.backward()


def test_features_of_audio_that_is_too_loud_are_no_numbers_and_no_crash() -> None:
    upstream = hub.load("ofa_wav2vec2", checkpoint=gold_file("ofa_tiny.pt"))
    loud, plain = torch.full((16000,), 1e30), gold_wavs()[1][:16000]
    both, alone = upstream([loud, plain]), upstream([plain])
    assert bool(both.hidden_states[1][0, : both.lengths[0]].isnan().all())
    assert torch.equal(both.lengths[1:], alone.lengths)
    assert (both.hidden_states[1][1, : alone.lengths[0]] - alone.hidden_states[1][0]).abs().max() < 1e-5


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.slow
def test_a_run_of_too_high_a_rate_ends_with_its_reason(tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubcore.pretrain.steps._FIRST_SCALE", 1e-3)
    dataset = GOLD / "ofa_dataset"
    roots = f"data.segments=[{dataset / 'pseudo/alpha'}, {dataset / 'pseudo/boundaries'}]"
    rate = ("optimization.lr=1e4", "optimization.warmup_updates=0", f"optimization.precision={precision}")
    data = (manifest_of_gold(tmp_path), roots, "data.min_samples=2000", "data.workers=0")
    outcome = pretrain(read_recipe("ofa_tiny", [*data, *rate, "run.device=cpu"]), tmp_path / "run")
    assert outcome.status == "stopped"
    reason = "fp16 overflows" if precision == "fp16" else "Skipped updates: 11"
    assert reason in outcome.message and "Lower optimization.lr" in outcome.message


# Weights to start from ------------------------------------------------------------------------------------------------


def test_plain_wav2vec2_may_start_an_ofa_run(tmp_path: Path) -> None:
    plain = hub.load("wav2vec2_tiny_prompts")
    plain.save_checkpoint(tmp_path / "plain.safetensors")  # type: ignore[attr-defined]
    objective = OfaWav2Vec2Pretraining(CONFIGS["tiny"], QUIET)
    taken, left = objective.load_weights(tmp_path / "plain.safetensors")
    assert "model.projection.weight" in taken
    assert {name.split(".")[1] for name in left if name.startswith("model.")} == {"alpha_predictor"}


def test_an_ofa_run_may_start_a_plain_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ofa = OfaWav2Vec2Pretraining(CONFIGS["tiny"], QUIET)
    write_native(tmp_path / "ofa.safetensors", ofa.state_dict(), config=CONFIGS["tiny"], upstream="OfaWav2Vec2Upstream")
    shared = {field.name: getattr(QUIET, field.name) for field in dataclasses.fields(Wav2Vec2Objective)}
    plain = Wav2Vec2Pretraining(PLAIN_CONFIGS["tiny"], Wav2Vec2Objective(**shared))
    _, left = plain.load_weights(tmp_path / "ofa.safetensors")
    assert left == [] and all(torch.equal(value, ofa.state_dict()[name]) for name, value in plain.state_dict().items())


def test_a_misspelt_draw_is_refused() -> None:
    with pytest.raises(OptionError, match="lambd_draw must be one of uniform"):
        OfaWav2Vec2Objective(lambd_draw="uniform-fps")  # type: ignore[arg-type]


@pytest.mark.parametrize("dry_run", [True, False])
def test_segments_that_are_missing_are_told_before_the_start_and_by_a_dry_run(dry_run: bool, tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text(f"{tmp_path}\na.wav\t32000\n")
    arguments = ["pretrain", "ofa_tiny", f"data.train={tmp_path / 'train.tsv'}", "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(main, [*arguments, *["--dry-run"] * dry_run])
    assert result.exit_code == 2 and "data.segments is empty" in result.output and not (tmp_path / "run").exists()
    none = ["objective.frame_weight=0", "objective.segmentation_weight=0", "--dry-run"]
    assert CliRunner().invoke(main, [*arguments, *none]).exit_code == 0
