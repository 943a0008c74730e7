"""Codebooks: what they are used with, what they refuse, files and cards."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from hubcore import hub
from hubcore.errors import CheckpointError, ChecksumError, OptionError
from hubcore.ragged import pad_packed
from hubcore.units import Codebook, load, record_of
from hubcore.units.codebook import final_norm_in
from tests.running import command
from tests.toys import ToyUpstream

TINY, OFA = "wav2vec2_tiny_prompts", "ofa_wav2vec2_tiny_prompts"


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model():
    return hub.load(TINY)


@pytest.fixture(scope="module")
def codebook(model):
    return Codebook(random(7, 96), record_of(model, 3), final_norm=final_norm_in(model, 3))


@pytest.fixture(scope="module")
def out(model):
    with torch.inference_mode():
        return model([random(16000), random(9000, seed=1)], layers=[1, 3])


# Units


def test_units_are_of_real_frames_and_do_not_depend_on_the_batch(model, codebook, out):
    units = codebook(out)
    assert [one.dtype for one in units] == [torch.int64] * 2
    assert [len(one) for one in units] == out.lengths.tolist()
    with torch.inference_mode():
        alone = codebook(model([random(9000, seed=1)]))
    assert torch.equal(alone[0], units[1])


def test_the_unit_is_the_nearest_centroid(codebook, out):
    for units, states in zip(codebook(out), out.unpad(), strict=True):
        assert torch.equal(units, torch.cdist(states[1], codebook.centroids).argmin(1))


def test_standardised_features_are_compared_as_such(model, out):
    mean, scale = random(96), random(96, seed=1).exp()
    codebook = Codebook(random(7, 96), record_of(model, 3), mean=mean, scale=scale)
    expected = torch.cdist((out.unpad()[0][1] - mean) / scale, codebook.centroids).argmin(1)
    assert torch.equal(codebook(out)[0], expected)
    assert codebook.normalize == "standard"


def test_soft_units_have_gradients(model, codebook):
    wav = random(8000).requires_grad_()
    out = model([wav])
    soft = codebook.soft(out, temperature=2.0)[0]
    distances = torch.cdist(out.unpad()[0][3], codebook.centroids).square()
    assert torch.allclose(soft, (-distances / 2).softmax(1), atol=1e-5)
    (soft * torch.arange(7.0)).sum().backward()
    assert float(wav.grad.abs().sum()) > 0
    assert not any(parameter.requires_grad for parameter in codebook.parameters())
    with pytest.raises(OptionError, match=r"temperature is 0. It must be above 0"):
        codebook.soft(out, temperature=0)


# What it refuses


def refused(what, wrong, codebook):
    with pytest.raises(CheckpointError, match=r"this codebook is of other features: .*" + wrong) as caught:
        what()
    assert str(caught.value).endswith(
        f"It is for {codebook.layer_name} of {TINY}, loaded with the same checkpoint and options."
    )


def test_another_upstream_is_refused(codebook):
    refused(lambda: codebook.check(hub.load(OFA)), r"checkpoint_sha256 is .*options is \{\} there and \{'lambd'", codebook)


def test_an_upstream_without_such_a_layer_is_refused(codebook):
    refused(lambda: codebook.check(hub.load("fbank")), r"layer is 3 \(block_3\) there, and FbankUpstream has it not", codebook)


def test_another_checkpoint_is_refused(model, codebook, tmp_path):
    model.save_checkpoint(tmp_path / "other.safetensors")
    other = hub.load("wav2vec2", checkpoint=tmp_path / "other.safetensors")
    refused(lambda: codebook.check(other), r"checkpoint_sha256 is '[0-9a-f]{64}' there and '[0-9a-f]{64}' here", codebook)
    codebook.check(model)


def test_an_output_without_its_layer_is_refused(model, codebook):
    wrong = r"layer is 3 \(block_3\) there and 1 \(block_1\), 2 \(block_2\) here"
    refused(lambda: codebook(model([random(4000)], layers=[1, 2])), wrong, codebook)


def test_a_layer_of_another_name_is_refused(codebook, out):
    renamed = dataclasses.replace(out, hidden_states=out.hidden_states, layer_names=("block_1", "conv_3"))
    refused(lambda: codebook(renamed), r"layer is 3 \(block_3\) there and .* 3 \(conv_3\) here", codebook)


def test_another_width_is_refused(model, out):
    narrow = Codebook(random(7, 95), record_of(model, 3))
    refused(lambda: narrow(out), "width is 95 there and 96 here", narrow)


def test_another_stride_is_refused(codebook, out):
    slow = dataclasses.replace(out, hidden_states=out.hidden_states, times=out.times * 2)
    refused(lambda: codebook(slow), "frame_stride is 320 there and 640 here", codebook)
    settings = {**codebook.record.settings, "frame_stride": 160, "sample_rate": 8000}
    wrong = "frame_stride is 320 there and 160 here; sample_rate is 16000 there and 8000 here"
    refused(lambda: codebook.check_record(dataclasses.replace(codebook.record, settings=settings)), wrong, codebook)


def test_the_end_of_an_utterance_is_no_other_stride(codebook, out):
    """The last frame's start may be moved to the utterance's own end, and the first one's to its beginning."""
    times = out.times.clone()
    times[0, 0, 0], times[0, int(out.lengths[0]) - 1, 0] = 0.013, 0.9999
    codebook(dataclasses.replace(out, hidden_states=out.hidden_states, times=times))


def test_another_lambda_is_refused():
    half, most = hub.load(OFA, lambd=0.5), hub.load(OFA, lambd=0.9)
    codebook = Codebook(random(7, half.hidden_sizes[2]), record_of(half, 2))
    codebook.check(half)
    with pytest.raises(CheckpointError, match=r"options is \{'lambd': 0.5.*\} there and \{'lambd': 0.9.*\} here"):
        codebook.check(most)
    with pytest.raises(CheckpointError, match=r"options is .*0.5.* there and .*0.7.* here"):
        codebook.check(half, {"lambd": 0.7})


def test_another_option_of_an_upstream_without_weights_is_refused():
    codebook = Codebook(random(7, 240), record_of(hub.load("fbank"), 0))
    with pytest.raises(CheckpointError, match=r"config_sha256 is '\w+' there and '\w+' here"):
        codebook.check(hub.load("fbank", cmvn=False))


def test_another_final_norm_is_refused(codebook):
    wrong = "the final norm is not in it there, and here"
    refused(lambda: codebook.check_record(codebook.record, final_norm=True), wrong, codebook)
    codebook.check_record(codebook.record, final_norm=None)


def test_the_final_norm_is_in_the_last_layer_of_a_pre_norm_model():
    from hubcore_wav2vec2 import CONFIGS, Wav2Vec2Upstream

    fresh = Wav2Vec2Upstream(dataclasses.replace(CONFIGS["tiny"], pre_norm=True)).eval()
    assert [final_norm_in(fresh, layer) for layer in (0, 3, 4)] == [False, False, True]
    assert final_norm_in(ToyUpstream(), 2) is None


def test_mixed_features_are_refused(codebook):
    mixed = dataclasses.replace(codebook.record, settings={**codebook.record.settings, "mix": [1.0]})
    refused(lambda: codebook.check_record(mixed), r"layer is 3 \(block_3\) there and 3 \(block_3\), mixed, here", codebook)


def test_a_centroid_must_be_a_number(model):
    for centroids in (torch.full((2, 96), torch.nan), random(96), random(0, 96), torch.ones(2, 96, dtype=torch.int64)):
        with pytest.raises(ValueError, match="its centroids"):
            Codebook(centroids, record_of(model, 3))
    with pytest.raises(ValueError, match="do not belong together"):
        Codebook(random(2, 96), record_of(model, 3), mean=random(96))
    with pytest.raises(ValueError, match="not one"):
        Codebook(random(2, 96), dataclasses.replace(record_of(model, 3), layer_names=("a", "b")))
    with pytest.raises(OptionError, match="Units are of one"):
        record_of(model, "1,2")


# Files


def test_a_codebook_is_read_back_and_written_with_the_same_bytes(model, codebook, tmp_path):
    whole = Codebook(
        codebook.centroids, codebook.record, final_norm=False, mean=random(96), scale=random(96).exp(), fitted={"seed": 3}
    )
    for name in ("a", "b"):
        whole.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    found = load(tmp_path / "a", layer=3, upstream=model)
    assert found.record.plain() == whole.record.plain()
    assert (found.final_norm, found.fitted, found.layer, found.layer_name) == (False, {"seed": 3}, 3, "block_3")
    assert all(torch.equal(one, whole.state_dict()[name]) for name, one in found.state_dict().items())
    assert found.sha256() == whole.sha256() != codebook.sha256()
    with safe_open(tmp_path / "a", "pt") as file:
        about = json.loads(file.metadata()["hubcore_codebook"])
    assert about["record"]["card"]["name"] == TINY
    assert about["record"]["settings"]["frame_stride"] == 320


def test_a_file_of_another_layer_is_refused(codebook, tmp_path):
    codebook.save(tmp_path / "a.safetensors")
    refused(lambda: load(tmp_path / "a.safetensors", layer=2), r"layer is 3 \(block_3\) there and 2 here", codebook)
    assert load(tmp_path / "a.safetensors", layer="block_3").layer == 3


def test_a_file_is_checked_against_an_upstream(codebook, tmp_path):
    codebook.save(tmp_path / "a.safetensors")
    refused(lambda: load(tmp_path / "a.safetensors", upstream=ToyUpstream()), "", codebook)


def test_what_is_no_codebook_is_refused(model, codebook, tmp_path):
    path = tmp_path / "a.safetensors"
    model.save_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"is no codebook: it has .* Make it with `hubcore units fit`"):
        load(path)
    codebook.save(path)
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["hubcore_codebook"])
    damaged = [
        ({"centroids": torch.full((2, 96), torch.inf)}, about),
        ({"centroids": random(2, 96), "mean": random(3), "scale": random(3).exp()}, about),
        ({"centroids": random(2, 96)}, {**about, "record": None}),
        ({"centroids": random(2, 96)}, {**about, "final_norm": "yes"}),
        ({"centroids": random(2, 96)}, {**about, "record": {**about["record"], "layer_names": []}}),
        ({"centroids": random(2, 96)}, []),
    ]
    for tensors, written in damaged:
        save_file(tensors, path, metadata={"hubcore_codebook": json.dumps(written)})
        with pytest.raises(CheckpointError, match="is a damaged codebook"):
            load(path)
    path.write_bytes(b"\x80\x04N.")
    with pytest.raises(CheckpointError):
        load(path)
    with pytest.raises(CheckpointError, match=r"could not be written .* Nothing was changed there"):
        codebook.save(tmp_path / "no such folder" / "a")


# Cards


@pytest.fixture
def cards(codebook, model, tmp_path, monkeypatch):
    """A card with three codebooks: two of layer 3, and one of layer 1 whose digest is another's."""
    model.save_checkpoint(tmp_path / "ours.safetensors")
    for clusters in (7, 5):
        Codebook(codebook.centroids[:clusters], codebook.record).save(tmp_path / f"km{clusters}.safetensors")
    digest = hashlib.sha256((tmp_path / "km7.safetensors").read_bytes()).hexdigest()
    (tmp_path / "cards.yaml").write_text(
        f"""version: 1
upstreams:
  ours:
    upstream: wav2vec2
    license: MIT
    sources: [{{uri: ours.safetensors}}]
    codebooks:
      - {{uri: km7.safetensors, layer: 3, clusters: 7, sha256: {digest}}}
      - {{uri: km5.safetensors, layer: 3, clusters: 5}}
      - {{uri: km5.safetensors, layer: 1, sha256: {digest}}}
"""
    )
    monkeypatch.setenv("HUBCORE_REGISTRY", str(tmp_path / "cards.yaml"))
    hub.refresh()


@pytest.mark.usefixtures("cards")
def test_a_card_brings_codebooks_by_layer_which_are_verified():
    assert len(load("ours", layer=3, clusters=7).centroids) == 7
    assert len(load("ours", layer="3", clusters=5).centroids) == 5
    with pytest.raises(ChecksumError, match=r"has SHA-256 \w+, but km5.safetensors must have"):
        load("ours", layer=1)
    with pytest.raises(
        CheckpointError, match=r"'ours' has several codebooks of layer 3. It has: layer 3, 7 centroids; layer 3, 5"
    ):
        load("ours", layer=3)
    with pytest.raises(CheckpointError, match=r"'ours' has no codebook of layer 2. It has"):
        load("ours", layer=2)
    assert "layer 3, 7 centroids: km7.safetensors" in str(hub.info("ours"))


@pytest.mark.usefixtures("cards")
def test_a_codebook_of_a_card_that_is_not_there_is_found_by_the_check(tmp_path):
    (tmp_path / "km5.safetensors").unlink()
    found = command("registry", "check", tmp_path / "cards.yaml").output
    assert "km5.safetensors does not exist. The card ours names it. Correct the card." in found


@pytest.mark.usefixtures("cards")
def test_the_record_of_an_extraction_has_no_codebooks():
    record = record_of(hub.load("ours"), 3)
    assert len(hub.load("ours").card.codebooks) == 3
    assert "codebooks" not in record.plain()["card"]


def test_units_survive_half_precision(model, out):
    """Features that were stored in float16 are compared in float32."""
    codebook = Codebook(random(7, 96).half(), record_of(model, 3))
    half = dataclasses.replace(out, hidden_states=(out.hidden_states[0], out.hidden_states[1].half()))
    assert (np.mean([(a == b).float().mean() for a, b in zip(codebook(half), codebook(out), strict=True)])) > 0.95
    assert pad_packed(torch.cat(codebook(half))[:, None], out.lengths.tolist()).shape[:2] == out.mask.shape
