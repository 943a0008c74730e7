"""wav2vec 2.0's pre-training: masks, negatives, quantiser, contrast, and the losses of a whole batch."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from hubcore import hub
from hubcore.errors import CheckpointLayoutError, MissingWeightsError, OptionError
from hubcore.pretrain.masked import scale_gradient
from hubcore.pretrain.masking import draw_masks
from hubcore.pretrain.objective import Batch, Losses
from hubcore_wav2vec2 import CONFIGS, Wav2Vec2Config
from hubcore_wav2vec2.pretrain import (
    Draws,
    GumbelQuantizer,
    Wav2Vec2Objective,
    Wav2Vec2Pretraining,
    contrast,
    draw_negatives,
    gumbel_noise,
)
from tests.gold import SMALL_HEADS, gold_file, gold_wavs
from tests.hugging_face import transformers
from tests.paths import GOLD

pytestmark = pytest.mark.slow

QUIET = Wav2Vec2Objective(**SMALL_HEADS)  # type: ignore[arg-type]


def fresh(config: Wav2Vec2Objective = QUIET, seed: int = 0) -> Wav2Vec2Pretraining:
    torch.manual_seed(seed)
    return Wav2Vec2Pretraining(CONFIGS["tiny"], config)


# Masks and negatives --------------------------------------------------------------------------------------------------

with np.load(GOLD / "mask_indices.npz") as _arrays:
    MASK_CASES = sorted({int(key.split("/")[0]) for key in _arrays.files})


@pytest.mark.parametrize("case", MASK_CASES)
def test_masks_are_those_of_the_original_number_for_number(case: int) -> None:
    with np.load(GOLD / "mask_indices.npz") as arrays:
        wanted, about = arrays[f"{case}/mask"].astype(bool), json.loads(str(arrays[f"{case}/args"]))
    batch, frames = about["shape"]
    lengths = about["valid_lengths"] or [frames] * batch
    masks = draw_masks(
        lengths,
        np.random.RandomState(about["seed"]),
        mask_prob=about["mask_prob"],
        mask_length=about["mask_length"],
        mask_selection=about["mask_type"],
        mask_other=about["mask_other"],
        min_masks=about["min_masks"],
        no_overlap=about["no_overlap"],
        min_space=about["min_space"],
        mask_dropout=about["mask_dropout"],
        same_count=about["require_same_masks"],
        equal_lengths=about["valid_lengths"] is None,
    )
    padded = np.zeros((batch, frames), dtype=bool)
    for row, mask in zip(padded, masks, strict=True):
        row[: len(mask)] = mask
    assert np.array_equal(padded, wanted)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 120), min_size=1, max_size=6),
    st.integers(0, 2**31),
    st.sampled_from(["static", "uniform", "normal", "poisson"]),
    st.booleans(),
)
def test_masks_of_any_lengths_stay_inside(lengths: list[int], seed: int, selection: str, apart: bool) -> None:
    masks = draw_masks(
        lengths,
        np.random.RandomState(seed),
        mask_prob=0.65,
        mask_length=10,
        mask_selection=selection,  # type: ignore[arg-type]
        mask_other=2.0,
        no_overlap=apart,
    )
    assert [len(mask) for mask in masks] == lengths


def test_spans_kept_apart_do_not_touch() -> None:
    [mask] = draw_masks([400], np.random.RandomState(3), mask_prob=0.3, mask_length=10, no_overlap=True, min_space=2)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    begins, ends = edges[::2], edges[1::2]
    assert set(ends - begins) == {10} and min(begins[1:] - ends[:-1]) >= 2


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([0, 2, 3, 17]), min_size=1, max_size=5), st.integers(0, 1000))
def test_negatives_are_other_masked_frames_of_the_same_utterance(counts: list[int], seed: int) -> None:
    negatives = draw_negatives(counts, 7, torch.Generator().manual_seed(seed))
    assert negatives.shape == (sum(counts), 7)
    owner = torch.repeat_interleave(torch.tensor(counts))
    assert torch.equal(owner[negatives], owner[:, None].expand_as(negatives))
    assert not (negatives == torch.arange(sum(counts))[:, None]).any()


def test_every_other_frame_may_become_a_negative() -> None:
    negatives = draw_negatives([5], 200, torch.Generator().manual_seed(1))
    assert all(set(row.tolist()) == set(range(5)) - {i} for i, row in enumerate(negatives))


# Quantiser ------------------------------------------------------------------------------------------------------------


def test_in_eval_mode_the_likeliest_entry_is_taken() -> None:
    torch.manual_seed(0)
    quantizer = GumbelQuantizer(8, groups=2, entries=5, out_dim=6).eval()
    frames = torch.randn(11, 8)
    result = quantizer(frames)
    logits = functional.linear(frames, quantizer.logits.weight, quantizer.logits.bias).view(11, 2, 5)
    assert torch.equal(result.codes, logits.argmax(-1))
    assert torch.equal(result.vectors, torch.cat([quantizer.codebook[g, result.codes[:, g]] for g in range(2)], dim=1))


def test_perplexities_count_entries() -> None:
    quantizer = GumbelQuantizer(4, groups=2, entries=4, out_dim=4).eval()
    with torch.no_grad():
        quantizer.logits.weight.copy_(torch.cat([torch.eye(4) * 50, torch.eye(4) * 50]))
    all_used = quantizer(torch.eye(4))
    one_used = quantizer(torch.eye(4)[:1].repeat(4, 1))
    assert all_used.code_perplexity.item() == pytest.approx(8, rel=1e-4)
    assert one_used.code_perplexity.item() == pytest.approx(2, rel=1e-4)
    assert all_used.prob_perplexity.item() == pytest.approx(8, rel=1e-4)


def test_the_gradient_goes_straight_through_the_choice() -> None:
    torch.manual_seed(0)
    quantizer = GumbelQuantizer(8, groups=2, entries=5, out_dim=6).train()
    frames, noise = torch.randn(9, 8), gumbel_noise((9, 2, 5), torch.Generator().manual_seed(0))
    towards = torch.randn(9, 6)
    result = quantizer(frames, temperature=1.7, noise=noise)
    (result.vectors * towards).sum().backward()
    got = quantizer.logits.weight.grad
    quantizer.zero_grad()
    logits = quantizer.logits(frames).view(9, 2, 5)
    soft = ((logits + noise) / 1.7).softmax(-1)
    (torch.einsum("mgv,gvd->mgd", soft, quantizer.codebook.detach()).flatten(1) * towards).sum().backward()
    assert torch.allclose(got, quantizer.logits.weight.grad, atol=1e-6)  # type: ignore[arg-type]
    chosen = [quantizer.codebook[g, result.codes[:, g]] for g in range(2)]
    assert torch.equal(result.vectors, torch.cat(chosen, dim=1)), "train mode must hand out whole entries"


# Contrast -------------------------------------------------------------------------------------------------------------


def test_the_contrastive_loss_is_the_textbook_one() -> None:
    torch.manual_seed(2)
    counts, dim = [4, 0, 7], 6
    predictions, targets = torch.randn(11, dim), torch.randn(11, dim)
    codes = torch.arange(11)[:, None]
    negatives = draw_negatives(counts, 5, torch.Generator().manual_seed(0))
    result = contrast(predictions, targets, codes, negatives, counts, 0.1)
    all_targets = torch.cat([targets[:, None], targets[negatives]], dim=1)
    logits = functional.cosine_similarity(predictions[:, None], all_targets, dim=-1) / 0.1
    assert torch.allclose(result.logits, logits, atol=1e-5)
    wanted = functional.cross_entropy(logits, torch.zeros(11, dtype=torch.long), reduction="sum")
    assert result.loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert int(result.correct) == int((logits.argmax(-1) == 0).sum())


def test_a_negative_of_equal_codes_is_left_out() -> None:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    codes = torch.tensor([[1, 2], [1, 2], [1, 3]])
    result = contrast(x, x, codes, torch.tensor([[1, 2], [0, 2], [0, 1]]), [3], 0.1)
    assert torch.isneginf(result.logits).tolist() == [[False, True, False], [False, True, False], [False, False, False]]


def test_no_rival_left_is_no_right_answer() -> None:
    x = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    codes = torch.zeros(2, 1, dtype=torch.long)
    result = contrast(x, x, codes, torch.tensor([[1], [0]]), [2], 0.1)
    assert result.loss.item() == 0 and int(result.correct) == 2  # -inf is smallest, so the true one is largest only
    alone = contrast(x, x, codes, torch.empty(2, 0, dtype=torch.long), [2], 0.1)
    assert int(alone.correct) == 0


@pytest.mark.parametrize("learnt", [False, True])
def test_the_lead_over_chance_tells_learning_from_none_where_accuracy_cannot(learnt: bool) -> None:
    """Equal codes are left out, and what is left is few: an answer at random is right far more often than once in 51."""
    generator = torch.Generator().manual_seed(0)
    vectors, codes = torch.randn(6, 16, generator=generator), torch.randint(0, 6, (2000, 1), generator=generator)
    targets = vectors[codes[:, 0]]
    predictions = targets + torch.randn(2000, 16, generator=generator) if learnt else torch.randn(2000, 16, generator=generator)
    counts = [900, 1100]
    result = contrast(predictions, targets, codes, draw_negatives(counts, 50, generator), counts, 0.1)
    accuracy, lead = int(result.correct) / 2000, int(result.correct - result.by_chance) / 2000
    assert accuracy > 5 / 51 and (lead > 0.5 if learnt else abs(lead) < 0.04)


# The whole objective --------------------------------------------------------------------------------------------------


def grads(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def forward(objective: Wav2Vec2Pretraining, wavs: list[Tensor], draws: Draws) -> Losses:
    return objective(Batch(wavs), update=0, seed=0, given=draws)


def alone_and_together(objective: Wav2Vec2Pretraining, wavs: list[Tensor]) -> tuple[list[Draws], Draws]:
    """The same masks and negatives for each utterance alone and for all of them in one batch."""
    frames = [objective.model.convolve([wav])[1][0] for wav in wavs]
    masks = [torch.from_numpy(m) for m in draw_masks(frames, np.random.RandomState(5), mask_prob=0.65, mask_length=4)]
    counts = [int(mask.sum()) for mask in masks]
    parts = [draw_negatives([count], 10, torch.Generator().manual_seed(count)) for count in counts]
    noise = [torch.randn(count, 2, 20, generator=torch.Generator().manual_seed(count)) for count in counts]
    offsets = np.cumsum([0, *counts])[:-1]
    together = torch.cat([part + int(offset) for part, offset in zip(parts, offsets, strict=True)])
    alone = [Draws(m, n, g) for m, n, g in zip(masks, parts, noise, strict=True)]
    return alone, Draws(torch.cat(masks), together, torch.cat(noise))


@pytest.mark.parametrize("training", [False, True])
def test_an_utterance_s_part_of_the_loss_does_not_depend_on_its_batch(training: bool) -> None:
    # Diversity is a figure of the whole batch: it is the one term that may differ.
    objective = fresh(dataclasses.replace(QUIET, diversity_weight=0.0)).train(training)
    wavs = [wav[:n] for wav, n in zip(gold_wavs(), (11237, 20000, 30000), strict=True)]
    alone, together = alone_and_together(objective, wavs)
    whole = forward(objective, wavs, together)
    whole.total.backward()
    of_whole = grads(objective)
    objective.zero_grad()
    parts = [forward(objective, [wav], draws) for wav, draws in zip(wavs, alone, strict=True)]
    sum(part.total for part in parts).backward()  # type: ignore[union-attr]
    of_parts = grads(objective)
    assert sum(part.sample_size for part in parts) == whole.sample_size
    assert sum(part.total.item() for part in parts) == pytest.approx(whole.total.item(), rel=1e-6)
    norm = torch.cat([g.flatten() for g in of_whole.values()]).norm()
    for name, gradient in of_whole.items():
        assert (gradient - of_parts[name]).norm() < 1e-5 * norm, name


def test_order_within_a_batch_does_not_matter() -> None:
    objective = fresh().eval()
    wavs = [wav[:n] for wav, n in zip(gold_wavs(), (11237, 20000, 30000), strict=True)]
    _, straight = alone_and_together(objective, wavs)
    _, reversed_ = alone_and_together(objective, wavs[::-1])
    # The masks of a place, not of an utterance, are drawn: bring those of the first order into the second.
    frames = [objective.model.convolve([wav])[1][0] for wav in wavs]
    assert straight.mask is not None and reversed_.mask is not None
    masks = straight.mask.split(frames)
    counts = [int(mask.sum()) for mask in masks]
    parts = [draw_negatives([count], 10, torch.Generator().manual_seed(count)) for count in counts]
    noise = None
    offsets = np.cumsum([0, *counts[::-1]])[:-1]
    negatives = torch.cat([part + int(offset) for part, offset in zip(parts[::-1], offsets, strict=True)])
    there = forward(objective, wavs, dataclasses.replace(straight, noise=noise))
    back = forward(objective, wavs[::-1], Draws(torch.cat(masks[::-1]), negatives, noise))
    assert back.total.item() == pytest.approx(there.total.item(), rel=1e-6)


def test_the_same_seed_gives_the_same_numbers_and_another_one_others() -> None:
    objective = fresh().train()
    batch = Batch(list(gold_wavs()[:2]))
    first, again, other = (objective(batch, update=3, seed=seed).total.item() for seed in (7, 7, 8))
    assert first == again != other


def test_every_parameter_learns() -> None:
    objective = fresh().train()
    objective(Batch(list(gold_wavs()[:2])), update=0, seed=0).total.backward()
    silent = [name for name, p in objective.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in silent if not name.endswith("k_proj.bias")] == []


def test_an_utterance_too_short_for_a_question_is_stepped_over() -> None:
    objective = fresh().train()
    losses = objective(Batch([torch.randn(400)]), update=0, seed=0)
    assert losses.sample_size == 0 and losses.total.item() == 0
    losses.total.backward()
    assert all(p.grad is None or not p.grad.any() for p in objective.parameters())


def test_gradients_of_the_convolutions_are_scaled() -> None:
    def conv_gradient(scale: float) -> Tensor | None:
        objective = fresh(dataclasses.replace(QUIET, feature_grad_scale=scale)).eval()
        objective(Batch([gold_wavs()[0]]), update=0, seed=0).total.backward()
        gradient: Tensor | None = objective.model.extractor.convs[0].weight.grad
        return gradient

    whole, tenth = conv_gradient(1.0), conv_gradient(0.1)
    assert whole is not None and tenth is not None
    assert torch.allclose(whole * 0.1, tenth, rtol=1e-4, atol=1e-5 * float(tenth.abs().max()))
    assert conv_gradient(0.0) is None
    assert torch.equal(scale_gradient(torch.tensor([1.1, -3.3]), 0.1), torch.tensor([1.1, -3.3]))


def test_the_temperature_falls_to_its_end() -> None:
    config = Wav2Vec2Objective()
    assert config.temperature_at(1) == pytest.approx(1.99999)
    assert config.temperature_at(10**7) == 0.5


def test_layerdrop_skips_blocks_in_training_only() -> None:
    objective = fresh(dataclasses.replace(QUIET, layerdrop=0.9))
    batch = Batch([gold_wavs()[0]])
    torch.manual_seed(0)
    objective.train()(batch, update=0, seed=0).total.backward()
    assert any(p.grad is None for p in objective.model.encoder.blocks.parameters()) and objective.skips_parameters
    still = [objective.eval()(batch, update=0, seed=0).total.item() for _ in range(2)]
    assert still[0] == still[1] == fresh().eval()(batch, update=0, seed=0).total.item()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mask_prob": 0.0}, "mask_prob"),
        ({"codebook_dim": 25}, "codebook_groups must be a divisor of codebook_dim, 25"),
        ({"temperature": (0.5, 2.0, 0.9)}, "temperature"),
        ({"compat": "fairseq"}, "compat"),
        ({"num_negatives": 2.5}, "num_negatives must be a whole number"),
        ({"layerdrop": 1.0}, "layerdrop"),
        ({"mask_selection": "fixed"}, "mask_selection"),
        ({"mask_selection": "normal", "mask_other": -1.0}, "mask_other must be a number of at least 0"),
        ({"mask_selection": "uniform", "mask_other": 20.5}, "at most twice mask_length, 20"),
    ],
)
def test_an_impossible_option_is_named(options: dict[str, object], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        Wav2Vec2Objective(**options)  # type: ignore[arg-type]


# Weights to start from ------------------------------------------------------------------------------------------------


def gold_objective(**options: object) -> Wav2Vec2Pretraining:
    upstream = hub.load("wav2vec2", checkpoint=gold_file("fairseq_tiny_w2v2_groupnorm.pt"))
    return Wav2Vec2Pretraining(upstream.config, dataclasses.replace(QUIET, **options))  # type: ignore[attr-defined,arg-type]


def test_a_fairseq_checkpoint_brings_encoder_and_heads() -> None:
    objective = gold_objective()
    taken, left = objective.load_weights(gold_file("fairseq_tiny_w2v2_groupnorm.pt"))
    assert left == [] and "quantizer.codebook" in taken and "mask_embedding" in taken


def test_a_fine_tuned_checkpoint_leaves_the_heads_fresh_and_says_so() -> None:
    objective = gold_objective()
    _, left = objective.load_weights(gold_file("fairseq_tiny_w2v2_ctc.pt"))
    assert left == [
        "project_predictions.bias",
        "project_predictions.weight",
        "project_targets.bias",
        "project_targets.weight",
        "quantizer.codebook",
        "quantizer.logits.bias",
        "quantizer.logits.weight",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codebook_entries": 10}, r"codebook_entries 20 and this recipe has 10\. Add objective\.codebook_entries=20\."),
        # As many entries in all: each would be taken for one of another codebook.
        ({"codebook_groups": 4, "codebook_entries": 10, "codebook_dim": 48}, "Add objective.codebook_groups=2 objective"),
        ({"final_dim": 32}, "Add objective.final_dim=24"),
    ],
)
def test_heads_of_another_shape_are_refused_with_the_options_that_made_them(options: dict[str, int], message: str) -> None:
    with pytest.raises(CheckpointLayoutError, match=message):
        gold_objective(**options).load_weights(gold_file("fairseq_tiny_w2v2_groupnorm.pt"))


@pytest.mark.parametrize("form", ["fairseq", "s3prl", "native", "state dict"])
def test_hubert_starts_no_run_and_its_heads_are_not_taken(form: str, tmp_path: Path) -> None:
    upstream: Any = hub.load("hubert", checkpoint=gold_file("upstreams/hubert_tiny.fairseq.pt"))
    shared = {field.name: getattr(upstream.config, field.name) for field in dataclasses.fields(Wav2Vec2Config)}
    original = torch.load(gold_file("upstreams/hubert_tiny.s3prl.pt"), weights_only=True)["model_weight"]
    final_dim = len(original["final_proj.weight"])
    options = dataclasses.replace(QUIET, final_dim=final_dim)
    objective = Wav2Vec2Pretraining(Wav2Vec2Config(**shared), options)
    path = tmp_path / "hubert.pt"
    if form == "native":
        upstream.save_checkpoint(path := tmp_path / "hubert.safetensors")
    elif form == "state dict":  # nothing in it says whose it is, and the encoder is the same
        torch.save({name: tensor for name, tensor in original.items() if name != "label_embs_concat"}, path)
        _, fresh_ones = objective.load_weights(path)
        assert {"project_predictions.weight", "project_predictions.bias"} <= set(fresh_ones)
        return
    else:
        path = gold_file(f"upstreams/hubert_tiny.{form}.pt")
    with pytest.raises(CheckpointLayoutError, match=r"(no|not of the) wav2vec 2\.0"):
        objective.load_weights(path)


def test_an_encoder_of_another_shape_is_refused() -> None:
    with pytest.raises(CheckpointLayoutError, match="dim must be 96, but is 48"):
        fresh().load_weights(gold_file("fairseq_tiny_w2v2_groupnorm.pt"))


def test_weights_without_a_config_are_compared_with_the_recipe_s_model(tmp_path: Path) -> None:
    weights = torch.load(gold_file("fairseq_tiny_w2v2_groupnorm.pt"), weights_only=True)["model"]
    torch.save(weights, tmp_path / "weights.pt")
    with pytest.raises(MissingWeightsError, match=r"does not fit the model of this recipe: .*must have shape \(96,\)"):
        other = dataclasses.replace(CONFIGS["tiny"], num_layers=3)
        Wav2Vec2Pretraining(other, dataclasses.replace(QUIET, codebook_entries=20)).load_weights(tmp_path / "weights.pt")


def test_a_state_dict_is_a_checkpoint_of_the_upstream(tmp_path: Path) -> None:
    from hubcore.checkpoints.native import write_native

    objective = fresh()
    write_native(
        tmp_path / "model.safetensors", objective.state_dict(), config=objective.model_config, upstream="Wav2Vec2Upstream"
    )
    upstream = hub.load("wav2vec2", checkpoint=tmp_path / "model.safetensors")
    for name, value in upstream.model.state_dict().items():  # type: ignore[attr-defined]
        assert torch.equal(value, objective.state_dict()[f"model.{name}"])
    assert "quantizer.codebook" in upstream.load_report.ignored  # type: ignore[attr-defined]
    other = fresh(seed=1)
    _taken, left = other.load_weights(tmp_path / "model.safetensors")
    assert left == [] and all(torch.equal(value, objective.state_dict()[name]) for name, value in other.state_dict().items())


@pytest.mark.slow
def test_transformers_computes_the_same_losses(tmp_path: Path) -> None:
    torch.manual_seed(4)
    theirs_config = transformers.Wav2Vec2Config(
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        conv_dim=(32,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        codevector_dim=24,
        proj_codevector_dim=24,
        num_codevectors_per_group=20,
        num_negatives=10,
    )
    theirs = transformers.Wav2Vec2ForPreTraining(theirs_config).eval()
    theirs.save_pretrained(tmp_path)
    upstream = hub.load("wav2vec2", checkpoint=tmp_path)
    objective = Wav2Vec2Pretraining(upstream.config, QUIET).eval()  # type: ignore[attr-defined]
    _taken, left = objective.load_weights(tmp_path)
    assert left == []
    wavs = [gold_wavs()[1][:20000], gold_wavs()[2][:20000]]
    frames = objective.model.convolve(wavs)[1]
    masks = draw_masks(frames, np.random.RandomState(1), mask_prob=0.65, mask_length=4, same_count=True, equal_lengths=True)
    mask = torch.from_numpy(np.stack(masks))
    counts = [int(row.sum()) for row in mask]
    negatives = draw_negatives(counts, 10, torch.Generator().manual_seed(1))
    ours = forward(objective, wavs, Draws(mask.flatten(), negatives))
    # Their negatives are indices of frames, counted over the whole batch.
    places = mask.flatten().nonzero()[:, 0]
    sampled = torch.zeros(*mask.shape, 10, dtype=torch.long)
    sampled[mask] = places[negatives]
    with torch.no_grad():
        out = theirs(torch.stack(wavs), mask_time_indices=mask, sampled_negative_indices=sampled)
    assert ours.terms["contrastive"].value.item() == pytest.approx(out.contrastive_loss.item(), rel=1e-5)
    # In eval mode theirs counts entries in use, not probabilities.
    entries = 2 * 20
    diversity = (entries - ours.figures["code_perplexity"][0]) / entries * ours.sample_size
    assert diversity == pytest.approx(out.diversity_loss.item(), rel=1e-4)
