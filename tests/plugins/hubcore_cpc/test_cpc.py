"""CPC gives what the original gave, alone and in a batch; options that it does not have are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hubcore.errors import CheckpointLayoutError
from hubcore_cpc import CpcConfig, CpcUpstream
from hubcore_cpc.config import CONVOLUTIONS
from hubcore_cpc.model import ChannelNorm, CpcEncoder
from tests.paths import DATA
from tests.references import check_references, gold_states

FILE = DATA / "gold/upstreams/modified_cpc_tiny.pt"


def test_alone_and_in_every_ragged_batch_the_originals_numbers() -> None:
    check_references("cpc", CpcUpstream, FILE, gold_states("gold/upstreams/modified_cpc"))


class PlainEncoder(nn.Module):
    """The encoder in torch's own terms: padded convolutions over a whole utterance, `(T,)` to `(F, D)`."""

    def __init__(self, encoder: CpcEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, wav: Tensor) -> Tensor:
        x = wav[None, None]
        for conv, norm, (_, stride, padding) in zip(self.encoder.convs, self.encoder.norms, CONVOLUTIONS, strict=True):
            x = nn.functional.conv1d(x, conv.weight.transpose(1, 2), conv.bias, stride, padding)
            x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True) + 1e-5).sqrt()
            x = (x * norm.weight[:, None] + norm.bias[:, None]).relu()
        return x[0].t()


@pytest.mark.parametrize("samples", [159, 160, 318, 319, 465, 1119, 1120, 4999, 5000])
@pytest.mark.parametrize("chunk", [1, 3, 200])
def test_pieces_of_any_size_are_the_padded_convolutions_of_the_whole(chunk: int, samples: int) -> None:
    torch.manual_seed(samples)
    encoder = CpcEncoder(8, chunk).double()
    for norm in encoder.norms:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    wav = torch.randn(samples, dtype=torch.float64)
    frames = encoder([wav])
    assert len(frames) == (samples + 1) // 160 and torch.allclose(frames, PlainEncoder(encoder)(wav))


def test_the_norm_divides_by_the_unbiased_variance() -> None:
    x = torch.randn(5, 4, dtype=torch.float64)
    wanted = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True) + 1e-5).sqrt()
    assert torch.allclose(ChannelNorm(4).double()(x), wanted)


def written(path: Path, change: Callable[[dict[str, Any]], None], **options: Any) -> Path:
    """A file as the original writes it, of a model whose config has `options`; `change` edits it."""
    torch.manual_seed(0)
    model = CpcUpstream(CpcConfig(encoder_dim=8, context_dim=6, **options)).model
    nets = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}
    net = {"arMode": nets[options.get("context_net", "lstm")], "nLevelsGRU": options.get("num_levels", 1)}
    weights = CpcUpstream.reader.names.write("cpc_audio", model.state_dict())
    file = {"config": {"hiddenEncoder": 8, "hiddenGar": 6, "cpc_mode": None, **net}, "weights": weights}
    change(file)
    torch.save(file, path)
    return path


@pytest.mark.parametrize(("kind", "levels"), [("gru", 1), ("gru", 3), ("rnn", 2)])
def test_every_kind_of_recurrent_network_is_read(kind: str, levels: int, tmp_path: Path) -> None:
    file = written(tmp_path / "a.pt", lambda _: None, context_net=kind, num_levels=levels)
    model = CpcUpstream.from_checkpoint(file)
    assert (model.config.context_net, model.config.num_levels) == (kind, levels)
    encoded, context = model([torch.ones(800)]).hidden_states
    net = {"gru": nn.GRU, "rnn": nn.RNN}[kind](8, 6, levels, batch_first=True)
    net.load_state_dict(model.model.context.state_dict())
    assert torch.allclose(net(encoded)[0], context, atol=1e-6)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("samplingType", "sequential"),
        ("arMode", "transformer"),
        ("arMode", "no_ar"),
        ("cpc_mode", "reverse"),
        ("normMode", "batchNorm"),
        ("encoder_type", "mfcc"),
    ],
)
def test_an_option_that_would_change_the_numbers_is_refused_by_name(option: str, value: str, tmp_path: Path) -> None:
    file = written(tmp_path / "a.pt", lambda file: file["config"].update({option: value}))
    with pytest.raises(CheckpointLayoutError, match=f"it has {option}='{value}'"):
        CpcUpstream.from_checkpoint(file)


def test_any_other_sampling_of_the_training_data_is_read(tmp_path: Path) -> None:
    file = written(tmp_path / "a.pt", lambda file: file["config"].update(samplingType="temporalsamespeaker"))
    assert CpcUpstream.from_checkpoint(file).config.encoder_dim == 8


def test_a_weight_too_many_is_an_error(tmp_path: Path) -> None:
    file = written(tmp_path / "a.pt", lambda file: file["weights"].update({"gAR.extra.weight": torch.zeros(2)}))
    with pytest.raises(CheckpointLayoutError, match=r"gAR\.extra\.weight"):
        CpcUpstream.from_checkpoint(file)


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    model = CpcUpstream.from_checkpoint(FILE)
    model.save_checkpoint(tmp_path / "mine.safetensors")
    again = CpcUpstream.from_checkpoint(tmp_path / "mine.safetensors")
    assert again.config == model.config
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in model.state_dict().items())


def test_the_extractor_is_frozen_and_the_recurrent_network_is_a_group_of_its_own() -> None:
    model = CpcUpstream.from_checkpoint(FILE).freeze_extractor()
    assert [group["name"] for group in model.layer_groups()] == ["input", "output"]
    assert {name.split(".")[1] for name, weight in model.named_parameters() if weight.requires_grad} == {"context"}
