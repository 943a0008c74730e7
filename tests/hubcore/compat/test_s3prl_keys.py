"""Models that ESPnet and WeSpeaker trained with s3prl's frontend: their names of weights become ours, and theirs again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hubcore.compat.s3prl import Featurizer, S3PRLUpstream
from hubcore.compat.s3prl.keys import to_hubcore, to_s3prl
from hubcore.errors import CheckpointLayoutError, OptionError
from tests.paths import DATA

pytestmark = pytest.mark.slow

FILES = {
    "wav2vec2": "gold/fairseq_tiny_w2v2_groupnorm.pt",
    "wav2vec2-layernorm": "gold/fairseq_tiny_w2v2_layernorm.pt",
    "hubert": "gold/upstreams/hubert_tiny.s3prl.pt",
    "wavlm": "gold/upstreams/wavlm_tiny.pt",
    "wavlm-large": "gold/upstreams/wavlm_tiny_large_style.pt",
}
"""A family (and a variant) -> a checkpoint; fairseq's model, whose names s3prl's upstream has, holds these tensors."""
SPELLINGS = ("frontend.upstream.upstream.model.", "frontend.upstream.model.")
"""Of s3prl since 2022, and of ESPnet in 2021."""


class Recogniser(nn.Module):
    """A model as ESPnet builds it: the frontend's parts have s3prl's names, the rest is its own."""

    def __init__(self, upstream: str, path: Path) -> None:
        super().__init__()
        self.frontend = nn.Module()
        self.frontend.upstream = S3PRLUpstream(f"{upstream}_local", path_or_url=path)
        self.frontend.featurizer = Featurizer(self.frontend.upstream)
        self.encoder = nn.Linear(4, 4)


def trained(file: str, spelling: str, layers: int) -> dict[str, Tensor]:
    """The state dict of such a model on s3prl, heads of pre-training included."""
    tree = torch.load(DATA / file, weights_only=True)
    inside = tree.get("model_weight", tree.get("model"))
    state = {f"{spelling}{name}": tensor.float() + 0.25 for name, tensor in inside.items()}
    own = {
        "frontend.featurizer.weights": torch.randn(layers),
        "encoder.weight": torch.randn(4, 4),
        "encoder.bias": torch.ones(4),
    }
    return {**state, **own}


@pytest.mark.parametrize("spelling", SPELLINGS, ids=["now", "2021"])
@pytest.mark.parametrize("family", FILES)
def test_both_spellings_become_ours_and_theirs_again(family: str, spelling: str) -> None:
    upstream, file = family.partition("-")[0], FILES[family]
    model = Recogniser(upstream, DATA / file)
    theirs = trained(file, spelling, model.frontend.upstream.num_layers)
    ours = to_hubcore(theirs, upstream)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(ours, strict=True)
    for name, tensor in model.frontend.upstream.upstream.state_dict().items():
        torch.testing.assert_close(tensor, before[f"frontend.upstream.upstream.{name}"] + 0.25)
    assert torch.equal(model.frontend.featurizer.weights, theirs["frontend.featurizer.weights"])
    assert to_hubcore(ours, upstream).keys() == ours.keys()  # once is enough

    back = to_s3prl(model.state_dict(), theirs, upstream)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in theirs.items())
    assert any(name.endswith("mask_emb") for name in back) and not any("mask_emb" in name for name in ours)


@pytest.mark.parametrize("family", FILES)
def test_a_model_on_hubcore_loads_what_was_trained_on_s3prl_as_it_is(family: str) -> None:
    upstream, file = family.partition("-")[0], FILES[family]
    model = Recogniser(upstream, DATA / file)
    theirs = trained(file, SPELLINGS[0], model.frontend.upstream.num_layers)
    given = dict(theirs)
    expected = to_hubcore(theirs, upstream)
    over_ours = {**{name: tensor.clone() for name, tensor in model.state_dict().items()}, **theirs}  # ESPnet's --init_param
    model.load_state_dict(theirs, strict=True)
    assert theirs == given and all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    model = Recogniser(upstream, DATA / file)
    model.load_state_dict(over_ours, strict=True)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


def test_transformers_names_of_hf_upstreams_become_ours_too() -> None:
    folder = DATA / "gold2/hf_hubert_base"
    theirs = {f"upstream.upstream.model.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    model = S3PRLUpstream("hubert_local", path_or_url=folder)
    state = model.state_dict()
    ours = to_hubcore({f"frontend.{name}": tensor for name, tensor in theirs.items()}, "hubert")
    assert all(torch.equal(ours[f"frontend.upstream.{name}"], tensor) for name, tensor in state.items())
    model.load_state_dict({name.removeprefix("upstream."): tensor for name, tensor in theirs.items()})


def test_what_does_not_fit_is_an_error_that_names_it() -> None:
    theirs = trained(FILES["hubert"], SPELLINGS[0], 3)
    with pytest.raises(CheckpointLayoutError, match="holds no wav2vec2"):
        to_hubcore({"encoder.weight": torch.zeros(1)}, "wav2vec2")
    with pytest.raises(CheckpointLayoutError, match=r"frontend\.upstream\.upstream\.model\.label_embs_concat has no place"):
        to_hubcore(theirs, "wav2vec2")
    with pytest.raises(OptionError, match="'fbank' has no table of names"):
        to_hubcore(theirs, "fbank")
    ours = to_hubcore(theirs, "hubert")
    with pytest.raises(CheckpointLayoutError, match="not of one model"):
        to_s3prl({name: tensor for name, tensor in ours.items() if "blocks.1" not in name}, theirs, "hubert")
    with pytest.raises(CheckpointLayoutError, match="names already"):
        to_s3prl(theirs, theirs, "hubert")
