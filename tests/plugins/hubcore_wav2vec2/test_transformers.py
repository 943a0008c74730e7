"""Models of full width saved by transformers give transformers' hidden states, in both spellings of weight norm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hubcore_wav2vec2 import Wav2Vec2Upstream
from tests.gold import gold_wavs, relative_error
from tests.hugging_face import transformers

pytestmark = pytest.mark.slow


LARGE: dict[str, Any] = {
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "conv_bias": True,
    "do_stable_layer_norm": True,
}


@pytest.fixture(scope="module", params=["base", "large_lv60k"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, list[torch.Tensor]]:
    """A folder that transformers wrote, and transformers' hidden states for the first utterance."""
    torch.manual_seed(7)
    config = transformers.Wav2Vec2Config(num_hidden_layers=3, **(LARGE if request.param == "large_lv60k" else {}))
    model = transformers.Wav2Vec2Model(config).eval()
    with torch.no_grad():
        for weight in model.parameters():  # fresh norms and biases are ones and zeros, which would hide a mistake
            weight.add_(0.02 * torch.randn_like(weight))
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    wav = gold_wavs()[0]
    if request.param == "large_lv60k":
        wav = torch.nn.functional.layer_norm(wav, wav.shape)
    with torch.no_grad():
        states = list(model(wav[None], output_hidden_states=True).hidden_states)
        if request.param == "large_lv60k":  # transformers leaves the final norm out of its last hidden state
            states[-1] = model.encoder.layer_norm(states[-1])
    return request.param, folder, [state[0] for state in states]


@torch.no_grad()
def test_hidden_states_are_equal(saved: tuple[str, Path, list[torch.Tensor]]) -> None:
    name, folder, wanted = saved
    upstream = Wav2Vec2Upstream.from_checkpoint(folder)
    assert upstream.config.normalize == (name == "large_lv60k")
    assert upstream.load_report.ignored == ("masked_spec_embed",)
    got = upstream([gold_wavs()[0]]).hidden_states
    assert len(got) == len(wanted)
    for k, (ours, theirs) in enumerate(zip(got, wanted, strict=True)):
        assert relative_error(ours[0], theirs) <= 1e-4, f"hidden state {k}"


def test_both_spellings_and_both_files_load_equal_weights(saved: tuple[str, Path, list[torch.Tensor]], tmp_path: Path) -> None:
    _, folder, _ = saved
    tensors = load_file(folder / "model.safetensors")
    wanted = Wav2Vec2Upstream.from_checkpoint(folder).state_dict()
    new = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    old = {long: short for short, long in new.items()}
    for spelling in (new, old):
        renamed = {}
        for key, value in tensors.items():
            for theirs, ours in spelling.items():
                key = key.replace(f"pos_conv_embed.conv.{theirs}", f"pos_conv_embed.conv.{ours}")
            renamed[key] = value
        save_file(renamed, tmp_path / "model.safetensors", metadata={"format": "pt"})
        (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
        for source in (tmp_path, tmp_path / "model.safetensors"):
            got = Wav2Vec2Upstream.from_checkpoint(source).state_dict()
            assert all(torch.equal(got[key], value) for key, value in wanted.items())
    (tmp_path / "model.safetensors").unlink()
    torch.save({f"wav2vec2.{key}": value for key, value in tensors.items()}, tmp_path / "pytorch_model.bin")
    got = Wav2Vec2Upstream.from_checkpoint(tmp_path).state_dict()
    assert all(torch.equal(got[key], value) for key, value in wanted.items())


def test_the_preprocessor_decides_about_normalisation(tmp_path: Path) -> None:
    config = transformers.Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, conv_dim=[16] * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    transformers.Wav2Vec2Model(config).save_pretrained(tmp_path)
    assert not Wav2Vec2Upstream.from_checkpoint(tmp_path).config.normalize
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path)
    assert Wav2Vec2Upstream.from_checkpoint(tmp_path).config.normalize
    (tmp_path / "preprocessor_config.json").unlink()
    assert not Wav2Vec2Upstream.from_checkpoint(tmp_path).config.normalize
    (tmp_path / "processor_config.json").write_text('{"feature_extractor": {"do_normalize": true}}')
    assert Wav2Vec2Upstream.from_checkpoint(tmp_path).config.normalize


def test_shards_load_like_one_file(tmp_path: Path) -> None:
    config = transformers.Wav2Vec2Config(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, conv_dim=[64] * 7
    )  # fmt: skip
    model = transformers.Wav2Vec2Model(config)
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="200KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    one, many = (Wav2Vec2Upstream.from_checkpoint(tmp_path / name).state_dict() for name in ("one", "many"))
    assert all(torch.equal(many[key], value) for key, value in one.items())
