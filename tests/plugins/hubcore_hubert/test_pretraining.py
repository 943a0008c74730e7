"""HuBERT's pre-training: labels, the loss against numbers made by hand, heads, and what other programs get of it."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hubcore import hub
from hubcore.checkpoints import open_checkpoint
from hubcore.checkpoints.native import write_native
from hubcore.errors import CheckpointLayoutError, ExtractionError, OptionError
from hubcore.pretrain.objective import Batch, Losses
from hubcore.pretrain.prepare import prepare
from hubcore.pretrain.recipe import read_recipe
from hubcore.tools.export import export
from hubcore.units import Units, write_units
from hubcore_hubert import CONFIGS, HubertUpstream
from hubcore_hubert.pretrain import HubertObjective, HubertPretraining, Labels, align
from tests.gold import gold_file, gold_wavs
from tests.hugging_face import transformers
from tests.paths import SPEECH

SMALL = dataclasses.replace(
    CONFIGS["tiny"],
    conv_layers=((8, 10, 5), (8, 8, 8), (8, 8, 8)),
    dim=16,
    num_layers=2,
    num_heads=2,
    ffn_dim=24,
    pos_conv_kernel=4,
    pos_conv_groups=2,
)
QUIET = HubertObjective(clusters=(7,), final_dim=6, mask_length=4, layerdrop=0.0, dropout_input=0.0, feature_grad_scale=1.0)


def fresh(config: HubertObjective = QUIET, model: Any = SMALL) -> HubertPretraining:
    torch.manual_seed(0)
    objective = HubertPretraining(model, config)
    with torch.no_grad():
        for weight in objective.parameters():  # fresh norms and biases are ones and zeros, which would hide a mistake
            weight.add_(0.1 * torch.randn_like(weight))
    return objective


def batch(*samples: int, config: HubertObjective = QUIET) -> Batch:
    generator = torch.Generator().manual_seed(4)
    wavs = [0.3 * torch.randn(count, generator=generator) for count in samples]
    labels = [
        np.stack([torch.randint(0, k, (count // 320,), generator=generator).numpy() for k in config.clusters])
        for count in samples
    ]
    return Batch(wavs, guidance=labels)


# The loss by hand ------------------------------------------------------------------------------------------------------


def by_hand(objective: HubertPretraining, wav: Tensor, labels: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]) -> list[float]:
    """The cross entropies of masked and other frames, and the penalty, in float64 by numpy alone; of one set of labels."""
    config = objective.config
    w = {name: tensor.detach().double().numpy() for name, tensor in objective.state_dict().items()}

    def gelu(x: Any) -> Any:
        return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))

    def norm(x: Any, name: str, axis: int = -1) -> Any:
        x = (x - x.mean(axis, keepdims=True)) / np.sqrt(x.var(axis, keepdims=True) + 1e-5)
        return x * w[f"model.{name}.weight"] + w[f"model.{name}.bias"]

    def linear(x: Any, name: str) -> Any:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    x = wav.double().numpy()[:, None]
    for number, (_, kernel, stride) in enumerate(SMALL.conv_layers):
        windows = np.stack([x[first : first + kernel] for first in range(0, len(x) - kernel + 1, stride)])  # (F, kernel, C)
        x = np.einsum("fkc,okc->fo", windows, w[f"model.extractor.convs.{number}.weight"])
        x = gelu(norm(x, "extractor.norms.0", axis=0) if number == 0 else x)  # one group for each channel
    x = x[: len(mask)]
    penalty = float((x**2).mean())
    x = linear(norm(x, "feature_norm"), "model.projection")
    x[mask] = w["mask_embedding"]
    v, g = w["model.encoder.pos_conv.weight_v"], w["model.encoder.pos_conv.weight_g"]
    kernel, groups = SMALL.pos_conv_kernel, SMALL.pos_conv_groups
    taps = v / np.sqrt((v**2).sum((0, 1), keepdims=True)) * g  # (D, D / groups, kernel)
    padded = np.pad(x, ((kernel // 2, kernel // 2), (0, 0)))
    width = SMALL.dim // groups
    places = np.zeros_like(x)
    for group in range(groups):
        own = slice(group * width, (group + 1) * width)
        windows = np.stack([padded[first : first + kernel, own] for first in range(len(x))])
        places[:, own] = np.einsum("fkc,ock->fo", windows, taps[own])
    x = norm(x + gelu(places + w["model.encoder.pos_conv.bias"]), "encoder.norm")
    for number in range(SMALL.num_layers):
        name = f"encoder.blocks.{number}"
        q, k, v = (
            linear(x, f"model.{name}.attention.{part}_proj").reshape(len(x), SMALL.num_heads, -1).swapaxes(0, 1)
            for part in "qkv"
        )
        scores = np.exp(q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1]))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ v
        x = norm(
            x + linear(mixed.swapaxes(0, 1).reshape(len(x), -1), f"model.{name}.attention.out_proj"), f"{name}.attention_norm"
        )
        inner = gelu(linear(x, f"model.{name}.feed_forward.fc1"))
        x = norm(x + linear(inner, f"model.{name}.feed_forward.fc2"), f"{name}.feed_forward_norm")
    x = linear(x, "project_predictions")
    units = w["label_embeddings"]
    cosine = x @ units.T / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(units, axis=1)
    logits = cosine / config.logit_temperature
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(x)), labels]
    return [float(losses[mask].sum()), float(losses[~mask].sum()), penalty]


def test_the_loss_is_that_of_numpy_in_float64_and_its_terms_add_up() -> None:
    config = dataclasses.replace(QUIET, masked_weight=0.8, unmasked_weight=0.3, features_penalty_weight=2.0)
    objective, given = fresh(config).double().eval(), batch(4000, 6000)
    given = dataclasses.replace(given, wavs=[wav.double() for wav in given.wavs])
    frames = [
        min(n, row.shape[1]) for n, row in zip(objective.model.convolve(given.wavs)[1], given.guidance or [], strict=True)
    ]
    masks = [np.arange(count) % 5 < 3 for count in frames]
    wanted = [
        by_hand(objective, wav, row[0, :count], mask)
        for wav, row, count, mask in zip(given.wavs, given.guidance or [], frames, masks, strict=True)
    ]
    losses = objective(given, update=0, seed=0, given=torch.from_numpy(np.concatenate(masks)))
    masked, unmasked = (sum(row[place] for row in wanted) for place in (0, 1))
    penalty = sum(count * row[2] for count, row in zip(frames, wanted, strict=True)) / sum(frames)
    assert losses.sample_size == sum(frames)
    assert losses.terms["masked"].value.item() == pytest.approx(masked, rel=1e-9)
    assert losses.terms["unmasked"].value.item() == pytest.approx(unmasked, rel=1e-9)
    assert losses.terms["features_penalty"].value.item() == pytest.approx(penalty, rel=1e-9)
    assert losses.total.item() == pytest.approx(0.8 * masked + 0.3 * unmasked + 2.0 * penalty * sum(frames), rel=1e-9)


def fairseq_loss(x: Tensor, labels: Tensor, embeddings: Tensor) -> Tensor:
    """The masked cross entropy as fairseq has it: the true unit first, then all units, of which the true one is -inf."""
    rows = []
    for frame, label in zip(x, labels, strict=True):
        targets = torch.cat([embeddings[label][None], embeddings])
        logits = torch.cosine_similarity(frame[None], targets, dim=-1) / 0.1
        logits[1:][(embeddings == embeddings[label]).all(-1)] = float("-inf")
        rows.append(logits)
    return functional.cross_entropy(torch.stack(rows), torch.zeros(len(x), dtype=torch.long), reduction="sum")


@pytest.mark.parametrize("untied", [True, False])
def test_the_masked_cross_entropy_is_fairseqs(untied: bool) -> None:
    objective = fresh(dataclasses.replace(QUIET, clusters=(7, 4), untie_projections=untied))
    x, labels = torch.randn(9, 16), torch.stack([torch.randint(0, 7, (9,)), torch.randint(0, 4, (9,))])
    loss, guesses = objective.predict(x, labels)
    heads = objective.project_predictions(x).split(6, dim=1)
    assert len(heads) == (2 if untied else 1)
    wanted = [
        fairseq_loss(heads[number * untied], row, embeddings)
        for number, (row, embeddings) in enumerate(zip(labels, objective.label_embeddings.split((7, 4)), strict=True))
    ]
    assert loss.item() == pytest.approx(sum(one.item() for one in wanted), rel=1e-6)
    assert guesses.shape == (2, 9) and int(guesses[1].max()) < 4


def test_only_frames_whose_loss_has_a_weight_are_targets() -> None:
    objective, given = fresh(), batch(6000)
    mask = torch.arange(18) < 5
    assert objective(given, update=0, seed=0, given=mask).sample_size == 5
    objective.config = dataclasses.replace(QUIET, masked_weight=0.0, unmasked_weight=1.0)
    losses = objective(given, update=0, seed=0, given=mask)
    assert losses.sample_size == 13 and losses.figures["accuracy"][1] == 5
    with pytest.raises(OptionError, match="masked_weight must be above 0"):
        dataclasses.replace(QUIET, masked_weight=0.0)


def test_an_utterances_part_of_loss_and_gradient_does_not_depend_on_its_batch() -> None:
    objective, whole = fresh(), batch(4000, 6000, 5000)

    def gradients(*parts: tuple[Batch, Tensor]) -> tuple[float, dict[str, Tensor]]:
        objective.zero_grad()
        losses: list[Losses] = [objective(one, update=0, seed=0, given=mask) for one, mask in parts]
        total = sum(one.total for one in losses)
        total.backward()  # type: ignore[union-attr]
        found = {name: p.grad.clone() for name, p in objective.named_parameters() if p.grad is not None}
        return sum(one.total.item() for one in losses), found

    frames = [row.shape[1] for row in objective._align(whole, objective.model.convolve(whole.wavs)[1])]
    masks = [torch.arange(count) % 5 < 3 for count in frames]
    guides = whole.guidance or []
    alone = [(Batch([w], guidance=[g]), m) for w, g, m in zip(whole.wavs, guides, masks, strict=True)]
    together, one_by_one = gradients((whole, torch.cat(masks))), gradients(*alone)
    assert together[0] == pytest.approx(one_by_one[0], rel=1e-6)
    assert set(together[1]) == {name for name, _ in objective.named_parameters()}, "every parameter learns"
    norm = torch.cat([g.flatten() for g in together[1].values()]).norm()
    for name, gradient in together[1].items():
        assert (gradient - one_by_one[1][name]).norm() < 1e-5 * norm, name


def test_the_same_seed_gives_the_same_numbers_and_another_one_others() -> None:
    objective, given = fresh().train(), batch(6000)
    first, again, other = (objective(given, update=3, seed=seed).total.item() for seed in (7, 7, 8))
    assert first == again != other


# Labels ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("units", "frames", "start", "samples", "rate", "wanted"),
    [
        (98, 49, 0, 16000, 100, [*range(0, 98, 2)]),  # a filter bank and the encoder, both of 25 ms
        (97, 49, 0, 16000, 100, [*range(0, 96, 2)]),  # one label too few: the last frame is cut, as in fairseq
        (50, 49, 0, 16000, 50, [*range(49)]),
        (49, 49, 0, 16000, 50, [*range(49)]),
        (198, 49, 16000, 16000, 100, [*range(100, 198, 2)]),  # a crop in the middle
        (100, 4, 1700, 1700, 100, [11, 13, 15, 17]),  # at no multiple of a frame: rounded
        (25, 49, 0, 16000, 25, [number // 2 for number in range(49)]),
    ],
)
def test_a_frame_has_the_label_at_its_start(
    units: int, frames: int, start: int, samples: int, rate: float, wanted: list[int]
) -> None:
    labels = np.arange(units)[None]
    found = align(labels, frames, start=start, samples=samples, stride=320, label_rate=rate, sample_rate=16000)
    assert found.tolist() == [wanted]


def test_frames_beyond_the_labels_are_cut_and_in_the_originals_way_for_all_alike() -> None:
    given = batch(6000, 6000)
    guides = [row[:, :count] for row, count in zip(given.guidance or [], (17, 16), strict=True)]
    given = dataclasses.replace(given, guidance=guides)
    exact, original = fresh(), fresh(dataclasses.replace(QUIET, compat="original"))
    assert original.crops_to_shortest(original.config) and not exact.crops_to_shortest(exact.config)
    assert exact(given, update=0, seed=0).figures["masked_share"][1] == 33
    assert original(given, update=0, seed=0).figures["masked_share"][1] == 32
    with pytest.raises(OptionError, match="do not reach into its crop"):
        exact(dataclasses.replace(given, starts=[0, 9600]), update=0, seed=0)
    with pytest.raises(OptionError, match="no labels"):
        exact(dataclasses.replace(given, guidance=None), update=0, seed=0)


def test_labels_are_found_by_path_or_name_and_checked_against_the_audio(tmp_path: Path) -> None:
    config = dataclasses.replace(QUIET, clusters=(20, 6))
    for number, top in enumerate((20, 6)):
        own = np.arange(50) % top
        write_units(tmp_path / f"{number}.npz", {"en/a": Units(own, durations=np.ones(50, np.int64))})
        write_units(tmp_path / f"{number}-more.txt", {"b.flac": Units(own[:48])})
    files = [tmp_path / name for name in ("0.npz", "0-more.txt", "1.npz", "1-more.txt")]
    labels = Labels.open(files, config, 16000)
    assert "en/a.flac" in labels and "b.flac" in labels and "c.flac" not in labels and len(labels) == 2
    assert labels.read("en/a.flac", samples=16000)[:, 7].tolist() == [7, 1]
    with pytest.raises(ExtractionError, match=r"lasts 2.00 s, but its 50 labels last 1.00 s at 50 a second"):
        labels.read("en/a.flac", samples=32000)
    with pytest.raises(KeyError):
        labels["c.flac"]
    with pytest.raises(OptionError, match=r"has the unit 19, and objective.clusters is 6.*at least 20"):
        Labels.open(files, dataclasses.replace(QUIET, clusters=(6, 20)), 16000)
    with pytest.raises(OptionError, match=r"has 3 files, and objective\.clusters has 2"):
        Labels.open(files[:3], config, 16000)
    with pytest.raises(OptionError, match=r"en/a has units in .*1.npz and in another file.*two sets of labels"):
        Labels.open(files[::2], dataclasses.replace(QUIET, clusters=(20,)), 16000)


def test_deduplicated_units_last_as_long_as_they_say() -> None:
    labels = Labels(
        [{"a": Units(np.array([5, 2]), np.array([30, 20]))}], ["u"], dataclasses.replace(QUIET, clusters=(6,)), 16000
    )
    assert labels["a"].tolist() == [[5] * 30 + [2] * 20]


def test_a_run_needs_units_of_every_utterance_and_only_hubert_takes_them(tmp_path: Path) -> None:
    manifest, units = tmp_path / "train.tsv", tmp_path / "units.npz"
    manifest.write_text(f"{SPEECH}\nen_1.flac\t47203\nen_2.flac\t47203\n")
    write_units(units, {"en_1": Units(np.zeros(147, np.int64))})
    with pytest.raises(OptionError, match=r"data.units is empty, but hubert learns from units.*hubcore units apply"):
        prepare(read_recipe("hubert_tiny", [f"data.train={manifest}"]))
    with pytest.raises(OptionError, match=r"there are no units of 1 of 2 utterances: en_2.flac.*hubcore units apply"):
        prepare(read_recipe("hubert_tiny", [f"data.train={manifest}", f"data.units={units}"]))
    with pytest.raises(OptionError, match=r"data.units is set, but wav2vec2 learns from audio alone"):
        prepare(read_recipe("tiny", [f"data.train={manifest}", f"data.units={units}"]))
    with pytest.raises(OptionError, match=r"data.segments is set, but hubert learns from units"):
        prepare(read_recipe("hubert_tiny", [f"data.train={manifest}", f"data.segments={units}"]))


# Other programs --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["group", "layer"])
def trained(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, HubertPretraining]:
    """A model file as pre-training leaves it, heads included."""
    config = CONFIGS["tiny"]
    if request.param == "layer":
        config = dataclasses.replace(config, conv_norm="layer", conv_bias=True, pre_norm=True, normalize=True)
    objective = fresh(dataclasses.replace(QUIET, clusters=(20,), final_dim=16), config).eval()
    path = tmp_path / "model.safetensors"
    write_native(path, objective.state_dict(), config=config, upstream="HubertUpstream")
    return path, objective


@pytest.mark.slow
def test_fairseqs_file_reads_back_with_its_heads(trained: tuple[Path, HubertPretraining], tmp_path: Path) -> None:
    path, objective = trained
    made = export(path, tmp_path / "out.pt", format="fairseq")
    assert made.heads and made.upstream == "hubert" and made.layers == 5
    again = fresh(objective.config, objective.model_config)
    assert again.load_weights(tmp_path / "out.pt")[1] == []
    for name, value in again.state_dict().items():
        assert torch.equal(value, objective.state_dict()[name]), name
    with open_checkpoint(tmp_path / "out.pt") as checkpoint:
        embeddings = checkpoint.read(["label_embs_concat"])["label_embs_concat"]
    assert embeddings.shape == (24, 16) and not embeddings[:4].any(), "fairseq's four special symbols come first"


@pytest.mark.slow
def test_fairseqs_names_and_options_are_those_of_fairseqs_own_file(tmp_path: Path) -> None:
    original = gold_file("upstreams/hubert_tiny.fairseq.pt")
    upstream: Any = HubertUpstream.from_checkpoint(original)
    objective = HubertPretraining(upstream.config, HubertObjective(clusters=(20,), final_dim=16))
    assert objective.load_weights(original)[1] == []
    native = tmp_path / "native.safetensors"
    write_native(native, objective.state_dict(), config=upstream.config, upstream="HubertUpstream")
    export(native, tmp_path / "out.pt", format="fairseq")
    with open_checkpoint(original) as wanted, open_checkpoint(tmp_path / "out.pt") as got:
        assert {n: i.shape for n, i in got.tensors.items()} == {n: i.shape for n, i in wanted.tensors.items()}
        assert set(got.config) == set(wanted.config) and set(got.task) == set(wanted.task)
        theirs, ours = wanted.read(wanted.tensors), got.read(got.tensors)
        for key in ("label_rate", "final_dim", "untie_final_proj", "encoder_embed_dim", "conv_pos", "layer_norm_first"):
            assert got.config[key] == wanted.config[key], key
    for name, tensor in theirs.items():
        own = slice(4, None) if name == "label_embs_concat" else slice(None)  # without the special symbols
        assert torch.equal(ours[name][own], tensor[own].float()), name


@pytest.mark.slow
def test_transformers_gives_the_same_hidden_states(trained: tuple[Path, HubertPretraining], tmp_path: Path) -> None:
    path, objective = trained
    export(path, tmp_path / "hf", format="hf")
    theirs, info = transformers.HubertModel.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert torch.equal(theirs.masked_spec_embed, objective.mask_embedding)
    wav = gold_wavs()[0]
    heard = functional.layer_norm(wav, wav.shape) if objective.model_config.normalize else wav
    with torch.no_grad():
        out = theirs.eval()(heard[None], output_hidden_states=True)
        states = hub.load("hubert", checkpoint=path)([wav]).hidden_states
    for ours, wanted in zip(states, [*out.hidden_states[:-1], out.last_hidden_state], strict=True):
        assert (ours - wanted).abs().max() < 2e-5 * wanted.abs().max()


def test_a_run_starts_from_weights_and_heads_of_other_units_stay_fresh(tmp_path: Path) -> None:
    objective, path = fresh(), tmp_path / "model.safetensors"
    write_native(path, objective.state_dict(), config=SMALL, upstream="HubertUpstream")
    assert HubertPretraining(SMALL, QUIET).load_weights(path)[1] == []
    taken, left = HubertPretraining(SMALL, dataclasses.replace(QUIET, clusters=(9,))).load_weights(path)
    assert left == ["label_embeddings", "project_predictions.bias", "project_predictions.weight"] and "mask_embedding" in taken
    with pytest.raises(CheckpointLayoutError, match="dim"):
        HubertPretraining(dataclasses.replace(SMALL, dim=32), QUIET).load_weights(path)
    write_native(path, {}, config=SMALL, upstream="Wav2Vec2Upstream")
    with pytest.raises(CheckpointLayoutError, match="not of the HuBERT family"):
        objective.load_weights(path)
