"""s3prl's classes on hubcore give s3prl's numbers for an utterance alone, and s3prl's lengths where asked to."""

from __future__ import annotations

import copy
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

import hubcore
from hubcore.compat.s3prl import Featurizer, S3PRLUpstream, hub, set_dir
from hubcore.compat.s3prl.download import get_dir, urls_to_filepaths
from hubcore.errors import AudioError, CheckpointError, OfflineError, OptionError, UnknownUpstreamError
from hubcore_fbank import CONFIGS
from hubcore_ofa_wav2vec2 import OfaWav2Vec2Upstream
from hubcore_wav2vec2 import Wav2Vec2Upstream
from tests.conftest import Installer
from tests.faults.http_server import Answer, Server, running
from tests.faults.test_hugging_face import a_hub_lab
from tests.gold import gold_arrays, gold_file, gold_wavs, relative_error
from tests.plugins.hubcore_fbank.rounding import assert_within, rounding

pytestmark = pytest.mark.slow

TOLERANCE = 2e-5
CHECKPOINT = gold_file("fairseq_tiny_w2v2_groupnorm.pt")
REAL, NOMINAL = [34, 94, 159], [36, 96, 161]
TINY = "wav2vec2_tiny_prompts"
OFA = "ofa_wav2vec2_tiny_prompts"


@pytest.fixture
def gold() -> dict[str, Tensor]:
    prefix = "wav2vec2_groupnorm/"
    return {key.removeprefix(prefix): value for key, value in gold_arrays("s3prl_api.npz").items() if key.startswith(prefix)}


def batch() -> tuple[Tensor, Tensor]:
    """The gold utterances as s3prl's recipes pass them; the padding is not zero, to show that it does not matter."""
    wavs = gold_wavs()
    return pad_sequence(list(wavs), batch_first=True, padding_value=0.3), torch.tensor([len(wav) for wav in wavs])


def alone_states(index: int) -> list[Tensor]:
    reference = gold_arrays("fairseq_tiny_w2v2_groupnorm.ref.npz")
    return [reference[f"alone/u{index}/hidden_{k}"] for k in range(4)]


def weighted(states: list[Tensor], weights: Tensor, normalize: bool = False) -> Tensor:
    """The sum in float64, written another way than in the library."""
    stacked = torch.stack(states).double()
    if normalize:
        centred = stacked - stacked.mean(-1, keepdim=True)
        stacked = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    shares = weights.double().exp() / weights.double().exp().sum()
    return torch.einsum("l,lfd->fd", shares, stacked).float()


# Numbers of the original ----------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("name", ["wav2vec2", "wav2vec2_custom", "wav2vec2_local"])
def test_nominal_frames_are_those_of_the_original(gold: dict[str, Tensor], name: str) -> None:
    model = S3PRLUpstream(name, path_or_url=CHECKPOINT, frames="s3prl")
    assert model.num_layers == int(gold["num_layers"])
    assert model.hidden_sizes == gold["hidden_sizes"].tolist()
    assert model.downsample_rates == gold["downsample_rates"].tolist()
    all_hs, all_lens = model(*batch())
    assert torch.equal(torch.stack(all_lens), gold["lens"])
    assert [list(hs.shape) for hs in all_hs] == gold["hs_shape"].tolist()
    assert relative_error(all_hs[-1][2], gold["last_hs"][2]) <= TOLERANCE  # its longest row was right in the original too
    for row, (real, nominal) in enumerate(zip(REAL, NOMINAL, strict=True)):
        for hs, wanted in zip(all_hs, alone_states(row), strict=True):
            assert relative_error(hs[row, :real], wanted) <= TOLERANCE
            assert torch.equal(hs[row, real:nominal], hs[row, real - 1].expand(nominal - real, -1))
            assert (hs[row, nominal:] == 0).all()


@torch.no_grad()
def test_real_frames_are_the_default() -> None:
    all_hs, all_lens = S3PRLUpstream("wav2vec2", path_or_url=CHECKPOINT)(*batch())
    assert [lengths.tolist() for lengths in all_lens] == [REAL] * 4
    assert all(lengths.dtype == torch.int64 for lengths in all_lens)
    for row, real in enumerate(REAL):
        for hs, wanted in zip(all_hs, alone_states(row), strict=True):
            assert hs.shape == (3, 159, 48)
            assert relative_error(hs[row, :real], wanted) <= TOLERANCE
            assert (hs[row, real:] == 0).all()


@torch.no_grad()
@pytest.mark.parametrize("case", ["featurizer_norm0", "featurizer_norm1", "featurizer_layers_1_3"])
def test_the_featurizer_gives_the_numbers_of_the_original(gold: dict[str, Tensor], case: str) -> None:
    model = S3PRLUpstream("wav2vec2", path_or_url=CHECKPOINT, frames="s3prl")
    layers = [3, 1] if case == "featurizer_layers_1_3" else None  # in any order: the weights are those of layers 1 and 3
    normalize = case == "featurizer_norm1"
    featurizer = Featurizer(model, layer_selections=layers, normalize=normalize)
    assert (featurizer.output_size, featurizer.downsample_rate) == (48, 320)
    assert featurizer.weights is not None
    weights = torch.tensor([0.4, -0.6]) if layers else gold["featurizer_weights"]
    featurizer.load_state_dict({"weights": weights})
    hs, hs_len = featurizer(*model(*batch()))
    assert hs_len.tolist() == NOMINAL
    assert relative_error(hs[2], gold[case][2]) <= TOLERANCE
    for row, real in enumerate(REAL):
        states = [alone_states(row)[k] for k in sorted(layers or range(4))]
        assert relative_error(hs[row, :real], weighted(states, weights, normalize)) <= TOLERANCE
        assert (hs[row, NOMINAL[row] :] == 0).all()


@torch.no_grad()
def test_the_older_featurizer_gives_the_numbers_of_the_original(gold: dict[str, Tensor]) -> None:
    model = hub.wav2vec2_local(ckpt=str(CHECKPOINT))
    featurizer = hubcore.Featurizer(upstream=model, feature_selection="hidden_states", upstream_device="cpu")
    featurizer.load_state_dict({"weights": gold["featurizer_weights"]})
    wavs = list(gold_wavs())
    features = featurizer(wavs, model(wavs))
    assert [len(rows) for rows in features] == REAL
    assert relative_error(features[2], gold["old_featurizer/u2"]) <= TOLERANCE
    for index, rows in enumerate(features):
        assert relative_error(rows, weighted(alone_states(index), gold["featurizer_weights"])) <= TOLERANCE


@torch.no_grad()
def test_an_utterance_below_50_ms_is_filled_up_as_in_the_original(gold: dict[str, Tensor]) -> None:
    wav = gold_wavs()[0][4000:4640]
    model = S3PRLUpstream("wav2vec2", path_or_url=CHECKPOINT, frames="s3prl")
    all_hs, all_lens = model(wav[None], torch.tensor([640]))
    assert all_lens[-1].tolist() == gold["short640/lens"].tolist()
    assert relative_error(all_hs[-1], gold["short640/last_hs"]) <= TOLERANCE
    wavs = pad_sequence([wav, gold_wavs()[1], wav[:1]], batch_first=True)
    mixed, lengths = model(wavs, torch.tensor([640, len(gold_wavs()[1]), 1]))
    assert lengths[-1].tolist() == [2, 96, 1]
    assert relative_error(mixed[-1][:1, :2], gold["short640/last_hs"]) <= TOLERANCE
    assert (mixed[-1][0, 2:] == 0).all() and (mixed[-1][2, 1:] == 0).all()
    real, real_lengths = S3PRLUpstream("wav2vec2", path_or_url=CHECKPOINT)(wav[None], torch.tensor([640]))
    assert real[-1].shape == (1, 1, 48) and real_lengths[-1].tolist() == [1]


@torch.no_grad()
def test_fbank_has_the_lengths_of_the_original() -> None:
    gold = gold_arrays("s3prl_api.npz")
    model = S3PRLUpstream("fbank", frames="s3prl")
    assert model.num_layers == int(gold["fbank/num_layers"])
    assert model.hidden_sizes == gold["fbank/hidden_sizes"].tolist()
    assert model.downsample_rates == gold["fbank/downsample_rates"].tolist()
    all_hs, all_lens = model(*batch())
    assert torch.equal(torch.stack(all_lens), gold["fbank/lens"])
    assert [list(hs.shape) for hs in all_hs] == gold["fbank/hs_shape"].tolist()
    wanted = gold_arrays("baseline.ref.npz")["fbank/u0"]
    bound = 2 * rounding(CONFIGS["fbank"], gold_wavs()[0])  # both are float32, each with its own processor's rounding
    assert_within(bound, all_hs[0][0, : len(wanted)], wanted)
    for row, wav in enumerate(gold_wavs()):
        real = hubcore.hub.load("fbank")([wav]).last_hidden_state[0]
        assert relative_error(all_hs[0][row, : len(real)], real) <= TOLERANCE
        repeated = all_hs[0][row, len(real) : all_lens[0][row]]
        assert len(repeated) in (2, 3) and torch.equal(repeated, all_hs[0][row, len(real) - 1].expand_as(repeated))


@torch.no_grad()
def test_frames_beyond_the_nominal_length_are_cut() -> None:
    """A centred STFT has one frame more than s3prl's formula where the samples are a multiple of the stride."""
    wavs, lengths = torch.randn(2, 16000), torch.tensor([16000, 8000])
    real, real_lens = S3PRLUpstream("mel")(wavs, lengths)
    nominal, nominal_lens = S3PRLUpstream("mel", frames="s3prl")(wavs, lengths)
    assert real_lens[0].tolist() == [101, 51] and nominal_lens[0].tolist() == [100, 50]
    assert torch.equal(nominal[0][0], real[0][0, :100]) and torch.equal(nominal[0][1, :50], real[0][1, :50])
    assert (nominal[0][1, 50:] == 0).all()


# S3PRLUpstream --------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("frames", ["real", "s3prl"])
def test_an_utterance_is_what_it_is_alone(frames: str) -> None:
    model = S3PRLUpstream(TINY, frames=frames)
    wavs, lengths = torch.randn(4, 20000), torch.tensor([20000, 700, 9000, 1000])
    all_hs, all_lens = model(wavs, lengths)
    for row, samples in enumerate(lengths.tolist()):
        alone, alone_lens = model(wavs[row : row + 1, :samples], torch.tensor([samples]))
        count = int(alone_lens[0])
        assert all(int(each[row]) == count for each in all_lens)
        for hs, wanted in zip(all_hs, alone, strict=True):
            assert relative_error(hs[row, :count], wanted[0]) <= TOLERANCE
            assert (hs[row, count:] == 0).all()


@torch.no_grad()
def test_a_channel_dimension_and_lists_of_lengths_are_taken() -> None:
    model, wavs = S3PRLUpstream(TINY), torch.randn(2, 8000)
    wanted, _ = model(wavs, torch.tensor([8000, 4000]))
    got, _ = model(wavs[..., None], [8000, 4000])
    assert torch.equal(got[-1], wanted[-1])


@torch.no_grad()
def test_normalize_layer_norms_each_hidden_state() -> None:
    wavs, lengths = torch.randn(2, 8000), torch.tensor([8000, 4000])
    plain, _ = S3PRLUpstream(TINY)(wavs, lengths)
    normalized, _ = S3PRLUpstream(TINY, normalize=True)(wavs, lengths)
    for raw, got in zip(plain, normalized, strict=True):
        wanted = (raw - raw.mean(-1, keepdim=True)) / (raw.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        assert torch.allclose(got, wanted, atol=1e-5)
        assert (got[1, 12:] == 0).all()
    assert all(not torch.allclose(raw, got, atol=1e-3) for raw, got in zip(plain, normalized, strict=True))


def test_a_new_model_is_in_eval_mode_and_trains_all_parameters() -> None:
    model = S3PRLUpstream(TINY)
    assert not model.training and not model.upstream.training
    model.train()
    all_hs, _ = model(torch.randn(2, 8000), torch.tensor([8000, 4000]))
    torch.stack([hs.square().sum() for hs in all_hs]).sum().backward()
    assert len(all_hs) == model.num_layers
    assert not [name for name, weight in model.named_parameters() if weight.grad is None]


def test_gradients_pass_through_nominal_frames() -> None:
    model = S3PRLUpstream(TINY, frames="s3prl")
    wavs = torch.randn(2, 8000, requires_grad=True)
    all_hs, _ = model(wavs, torch.tensor([8000, 4000]))
    all_hs[-1].square().sum().backward()
    assert wavs.grad is not None and (wavs.grad[1, :4000] != 0).any() and (wavs.grad[1, 4000:] == 0).all()


@torch.no_grad()
def test_the_state_goes_round() -> None:
    model, other = S3PRLUpstream(TINY), S3PRLUpstream(TINY, randomize=True)
    wavs, lengths = torch.randn(1, 8000), torch.tensor([8000])
    wanted, _ = model(wavs, lengths)
    assert not torch.allclose(other(wavs, lengths)[0][-1], wanted[-1], atol=0.1)
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    assert torch.equal(other(wavs, lengths)[0][-1], wanted[-1])


def test_randomize_gives_another_model_each_time_and_says_so() -> None:
    model = S3PRLUpstream(TINY)
    first, second = (S3PRLUpstream(TINY, randomize=True) for _ in range(2))
    weight = "upstream.model.encoder.blocks.0.attention.q_proj.weight"
    name = next((key for key in model.state_dict() if key == weight), next(k for k in model.state_dict() if "blocks.0" in k))
    states = [each.state_dict()[name] for each in (model, first, second)]
    assert not torch.equal(states[0], states[1]) and not torch.equal(states[1], states[2])
    assert model.upstream.card is not None and first.upstream.card is None and first.upstream.load_report is None
    assert S3PRLUpstream("fbank", randomize=True).hidden_sizes == [240]  # there is nothing to randomise


def test_randomize_needs_a_config(install: Installer) -> None:
    code = "from tests.toys import ToyUpstream\nclass OddUpstream(ToyUpstream): pass\n"
    install("odd", entry_points="[hubcore.upstreams]\nodd = odd:OddUpstream\n", files={"odd.py": code})
    assert S3PRLUpstream("odd").num_layers == 3
    with pytest.raises(OptionError, match="randomize=True needs"):
        S3PRLUpstream("odd", randomize=True)


def test_copies_and_pickles_answer_for_themselves() -> None:
    model = S3PRLUpstream(OFA, extra_conf={"frame_period_ms": 40})
    copied = copy.deepcopy(model)
    copied.upstream.frame_period_ms = 60
    buffer = io.BytesIO()
    torch.save(copied, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    assert [each.upstream.get_downsample_rates("hidden_states") for each in (model, copied, loaded)] == [640, 960, 960]


def test_options_are_passed_on_and_checked() -> None:
    assert S3PRLUpstream("fbank", extra_conf={"num_mel_bins": 40}).hidden_sizes == [120]
    with pytest.raises(OptionError, match=r"no option called 'num_mel_bin'. The nearest are num_mel_bins"):
        S3PRLUpstream("fbank", extra_conf={"num_mel_bin": 40})
    with pytest.raises(OptionError, match=r"model_config is 'fbank.yaml'.*hubcore info fbank"):
        S3PRLUpstream("fbank", extra_conf={"model_config": "fbank.yaml"})
    with pytest.raises(OptionError, match="path_or_url"):
        S3PRLUpstream("wav2vec2", extra_conf={"checkpoint": "a.pt"})
    assert S3PRLUpstream("wav2vec2", extra_conf={"ckpt": CHECKPOINT, "refresh": False}).hidden_sizes == [48] * 4
    assert S3PRLUpstream("wav2vec2", CHECKPOINT, extra_conf={"ckpt": "nowhere.pt"}).hidden_sizes == [48] * 4
    assert S3PRLUpstream(TINY, extra_conf={"legacy": False, "fairseq": True}).num_layers == 5
    assert S3PRLUpstream(TINY, extra_conf={"frames": "s3prl"}).frames == "s3prl"
    with pytest.raises(OptionError, match="must be 'real' or 's3prl'"):
        S3PRLUpstream(TINY, frames="nominal")


@torch.no_grad()
def test_layers_that_are_chosen_in_advance_are_all_there_is() -> None:
    model, few = S3PRLUpstream(TINY), S3PRLUpstream(TINY, extra_conf={"layers": [0, 3]})
    assert (few.num_layers, few.hidden_sizes, few.downsample_rates) == (2, [96, 96], [320, 320])
    wavs, lengths = torch.randn(2, 8000), torch.tensor([8000, 4000])
    all_hs, _ = model(wavs, lengths)
    some_hs, some_lens = few(wavs, lengths)
    assert len(some_hs) == len(some_lens) == 2
    assert torch.equal(some_hs[0], all_hs[0]) and torch.equal(some_hs[1], all_hs[3])
    assert Featurizer(few)(some_hs, some_lens)[0].shape == (2, 24, 96)


@pytest.mark.parametrize(
    ("wavs", "lengths", "message"),
    [
        (torch.randn(2, 4000), [4000, 300], "item 1 has 300 samples"),
        (torch.randn(2, 4000), [4000, -1], "none above 4000"),
        (torch.randn(2, 4000), [4000], "for each of the 2 rows"),
        (torch.randn(2, 4000, 2), [4000, 4000], r"have shape \(2, 4000, 2\)"),
        ([torch.randn(4000)], [4000], "are a list"),
    ],
)
def test_unusable_waveforms_are_named(wavs: Tensor, lengths: list[int], message: str) -> None:
    with pytest.raises(AudioError, match=message):
        S3PRLUpstream(TINY)(wavs, torch.tensor(lengths))


def test_an_empty_waveform_has_no_frame_to_repeat() -> None:
    with pytest.raises(AudioError, match="item 1 has 0 samples"):
        S3PRLUpstream(TINY, frames="s3prl")(torch.randn(2, 4000), torch.tensor([4000, 0]))


# A frame rate that depends on the input -------------------------------------------------------------------------------


@torch.no_grad()
def test_a_variable_rate_gives_real_frames_and_no_number() -> None:
    model = S3PRLUpstream(OFA, extra_conf={"lambd": 0.5})
    featurizer = Featurizer(model)
    wavs, lengths = torch.randn(2, 16000), torch.tensor([16000, 9000])
    hs, hs_len = featurizer(*model(wavs, lengths))
    wanted = OfaWav2Vec2Upstream.from_checkpoint(OFA, lambd=0.5)(wavs, lengths)
    assert torch.equal(hs_len, wanted.lengths) and hs.shape == wanted.last_hidden_state.shape
    for ask in (
        lambda: model.downsample_rates,
        lambda: featurizer.downsample_rate,
        lambda: model.upstream.get_downsample_rates("hidden_states"),
        lambda: S3PRLUpstream(OFA, frames="s3prl")(wavs, lengths),
    ):
        with pytest.raises(OptionError, match=r"no fixed number of samples.*Set a mean"):
            ask()


@torch.no_grad()
def test_a_mean_period_is_a_rate() -> None:
    model = S3PRLUpstream(OFA, extra_conf={"frame_period_ms": 40}, frames="s3prl")
    assert model.downsample_rates == [640] * model.num_layers and Featurizer(model).downsample_rate == 640
    all_hs, all_lens = model(torch.randn(2, 16000), torch.tensor([16000, 9000]))
    assert all_lens[0].tolist() == [25, 15] and all_hs[0].shape[1] == 25
    _, real_lens = S3PRLUpstream(OFA, extra_conf={"frame_period_ms": 40})(torch.randn(2, 16000), torch.tensor([16000, 9300]))
    assert real_lens[0].tolist() == [24, 14]


# Featurizer -----------------------------------------------------------------------------------------------------------


def test_a_single_hidden_state_is_handed_through() -> None:
    model = S3PRLUpstream("fbank")
    featurizer = Featurizer(model)
    assert featurizer.weights is None and featurizer.state_dict() == {}
    all_hs, all_lens = model(torch.randn(2, 8000), torch.tensor([8000, 4000]))
    hs, hs_len = featurizer(all_hs, all_lens)
    assert hs is all_hs[0] and hs_len is all_lens[0]
    deep = Featurizer(S3PRLUpstream(TINY), normalize=True)
    assert deep(all_hs, all_lens)[0] is all_hs[0]


def test_the_weights_learn() -> None:
    model = S3PRLUpstream(TINY)
    featurizer = Featurizer(model)
    assert featurizer.weights is not None and (featurizer.weights == 0).all()
    with torch.no_grad():
        all_hs, all_lens = model(torch.randn(2, 8000), torch.tensor([8000, 4000]))
    featurizer(all_hs, all_lens)[0].square().sum().backward()
    assert featurizer.weights.grad is not None and (featurizer.weights.grad != 0).all()


@pytest.mark.parametrize("selection", [[5], [-6], [0, 0], [0, -5], [], ["1"], [1.0], [None], 3])
def test_impossible_layers_are_refused(selection: list[int]) -> None:
    with pytest.raises(OptionError, match="at least one of the 5 hidden states"):
        Featurizer(S3PRLUpstream(TINY), layer_selections=selection)


def test_negative_layers_count_from_the_end() -> None:
    assert Featurizer(S3PRLUpstream(TINY), layer_selections=[-1, 0]).layer_selections == [0, 4]


def test_any_whole_number_names_a_layer() -> None:
    model = S3PRLUpstream(TINY)
    for selection in ([np.int64(1), np.int32(3)], torch.tensor([1, 3]), range(1, 4, 2), (3, 1)):
        assert Featurizer(model, layer_selections=selection).layer_selections == [1, 3]


def test_hidden_states_of_another_upstream_are_refused() -> None:
    model = S3PRLUpstream(TINY)
    all_hs, all_lens = model(torch.randn(1, 8000), torch.tensor([8000]))
    with pytest.raises(OptionError, match="there are 3 hidden states and 3 lengths, but this featurizer was made for 5"):
        Featurizer(model)(all_hs[:3], all_lens[:3])


class _TwoWidths:
    num_layers = 3

    def __init__(self) -> None:
        self.hidden_sizes = [8, 8, 4]
        self.downsample_rates = [160, 160, 160]


def test_widths_must_agree_among_the_chosen_layers() -> None:
    with pytest.raises(OptionError, match=r"widths \[8, 8, 4\]"):
        Featurizer(_TwoWidths())
    assert Featurizer(_TwoWidths(), layer_selections=[0, 1]).output_size == 8


# The hub --------------------------------------------------------------------------------------------------------------


def test_names_are_the_hubs_and_the_loaders_of_families() -> None:
    names = S3PRLUpstream.available_names()
    assert set(hubcore.hub.list()) <= set(names) and names == hub.options() and set(names) <= set(dir(hub))
    added = set(names) - set(S3PRLUpstream.available_names(only_registered_ckpt=True))
    for family in ("wav2vec2", "ofa_wav2vec2"):
        assert {f"{family}_custom", f"{family}_local", f"{family}_url", f"hf_{family}_custom"} <= added
    assert all(name.endswith(("_custom", "_local", "_url")) and "fbank" not in name for name in added - {"baseline"})
    registered = set(S3PRLUpstream.available_names(only_registered_ckpt=True))
    assert {"fbank", "mel", "wav2vec2", "wav2vec2_base_960", "ofa_wav2vec2"} <= registered <= {*hubcore.hub.list(), "baseline"}


def test_a_third_party_family_gets_loaders_too(install: Installer) -> None:
    install("acme", entry_points="[hubcore.upstreams]\nacme = acme:AcmeUpstream\n")
    assert {"acme", "acme_custom", "acme_local", "acme_url", "hf_acme_custom"} <= set(hub.options())
    assert "acme" not in sys.modules


def test_a_model_is_the_class_itself_and_answers_rates() -> None:
    model = getattr(hub, TINY)(refresh=False)
    assert type(model) is Wav2Vec2Upstream and not model.training
    assert {model.get_downsample_rates(key) for key in ("hidden_states", "last_hidden_state", "hidden_state_4")} == {320}
    with pytest.raises(OptionError, match="no feature called 'hidden_state_5'"):
        model.get_downsample_rates("hidden_state_5")
    out = model([torch.randn(8000)])
    assert len(out["hidden_states"]) == 5 and out.get("last_hidden_state") is out["hidden_states"][-1]


def test_calls_of_s3prls_runner_work() -> None:
    model = hub.fbank(ckpt=None, model_config=None, refresh=False)
    assert model.get_downsample_rates("hidden_states") == 160
    assert hub.wav2vec2(ckpt=str(CHECKPOINT)).config.dim == 48
    assert hub.wav2vec2_custom(str(CHECKPOINT), fairseq=True, legacy=False, refresh=True).config.dim == 48
    with pytest.raises(OptionError, match=r"refresh is 'a\.pt'"):
        hub.wav2vec2("a.pt")


def test_a_repository_is_named_as_in_s3prl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBCORE_OFFLINE", "1")
    with pytest.raises(OfflineError, match="hf://org/repo"):
        hub.hf_wav2vec2_custom("org/repo")
    assert hub.hf_wav2vec2_custom(str(CHECKPOINT)).config.dim == 48


def test_unknown_names_and_missing_checkpoints_are_errors() -> None:
    assert not hasattr(hub, "wav2vec2_bas_960")
    with pytest.raises(UnknownUpstreamError, match="wav2vec2_base_960"):
        S3PRLUpstream("wav2vec2_bas_960")
    with pytest.raises(OptionError, match="path_or_url= to S3PRLUpstream"):
        S3PRLUpstream("wav2vec2_custom")
    with pytest.raises(CheckpointError, match="does not exist"):
        hub.wav2vec2_local(ckpt="nowhere.pt")
    with pytest.raises(AttributeError):
        hub.__wrapped__  # noqa: B018


# Downloads ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[Server]:
    with running(Server()) as made:
        yield made


def age(folder: Path) -> None:
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))


def test_refresh_downloads_anew_and_accepts_a_change(server: Server, tmp_path: Path) -> None:
    set_dir(tmp_path / "cache")
    old, new = CHECKPOINT.read_bytes(), gold_file("fairseq_tiny_w2v2_layernorm.pt").read_bytes()
    url = server.answers(Answer(old), Answer(new))
    assert not hub.wav2vec2_url(ckpt=url).config.pre_norm
    assert not hub.wav2vec2_url(ckpt=url).config.pre_norm and len(server.log) == 1
    assert not hub.wav2vec2_url(ckpt=url, refresh=True).config.pre_norm  # another process fetched it a moment ago
    assert len(server.log) == 1
    age(tmp_path / "cache" / "files")
    assert S3PRLUpstream("wav2vec2", path_or_url=url, refresh=True).upstream.config.pre_norm
    assert len(server.log) == 2


def test_refresh_of_a_card_downloads_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    registry = tmp_path / "mine.yaml"
    registry.write_text(
        "version: 1\nupstreams:\n  mine:\n    upstream: wav2vec2\n    aliases: [my_alias]\n    license: unknown\n"
        "    sources: [{uri: 'hf://org/mine@main/a.pt', sha256: null, size: null}]\n"
    )
    monkeypatch.setenv("HUBCORE_REGISTRY", str(registry))
    with a_hub_lab(tmp_path, monkeypatch, caplog) as lab:
        lab.hub.add("org/mine", {"a.pt": CHECKPOINT.read_bytes()}, ("a.pt",))
        assert S3PRLUpstream("my_alias").hidden_sizes == [48] * 4
        assert S3PRLUpstream("my_alias", refresh=True).num_layers == 4  # fetched a moment ago
        age(tmp_path / "hf")
        monkeypatch.setenv("HUBCORE_OFFLINE", "1")
        with pytest.raises(OfflineError, match="The cached file was kept"):
            S3PRLUpstream("my_alias", refresh=True)
        assert S3PRLUpstream("my_alias").num_layers == 4
        monkeypatch.delenv("HUBCORE_OFFLINE")
        assert len(lab.server.log) == 1
        assert S3PRLUpstream("my_alias", refresh=True).num_layers == 4
        assert len(lab.server.log) == 2


def test_the_download_folder_is_hubcores_cache(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    set_dir("downloads")
    assert get_dir() == tmp_path / "downloads" and get_dir().is_dir()
    assert os.environ["HUBCORE_CACHE"] == str(tmp_path / "downloads")
    first, second = (server.answers(Answer(body), path=f"/{name}") for name, body in (("a", b"\0first"), ("b", b"\0second")))
    path = urls_to_filepaths(first)
    assert isinstance(path, str) and Path(path).read_bytes() == b"\0first" and Path(path).is_relative_to(tmp_path / "downloads")
    assert [Path(each).read_bytes() for each in urls_to_filepaths(first, second)] == [b"\0first", b"\0second"]
