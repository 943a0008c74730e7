"""OFA wav2vec 2.0 against the original's numbers, and what its options do."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hubcore import Featurizer, UpstreamOutput, hub
from hubcore.audio import load_audio
from hubcore.errors import CheckpointLayoutError, OptionError
from hubcore_ofa_wav2vec2 import CONFIGS, AdaptiveLambda, OfaWav2Vec2Upstream, fire, mix, upsample
from hubcore_ofa_wav2vec2.lambd import lambd_for_period
from hubcore_wav2vec2 import Wav2Vec2Config, Wav2Vec2Upstream
from tests.gold import gold_arrays, gold_file, gold_wavs, relative_error
from tests.paths import SPEECH

pytestmark = pytest.mark.slow

REFERENCE = "ofa_tiny.ref.npz"
LAMBDAS = [float(x) for x in gold_arrays(REFERENCE)["lambdas"]]
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def model() -> OfaWav2Vec2Upstream:
    return hub.load("ofa_wav2vec2", checkpoint=gold_file("ofa_tiny.pt"))


@pytest.fixture(scope="module")
def bundled() -> OfaWav2Vec2Upstream:
    return hub.load("ofa_wav2vec2_tiny_prompts")


@pytest.fixture(scope="module")
def speech() -> list[Tensor]:
    """Forty real utterances: the ten clips, and thirty pieces of them."""
    clips = [load_audio(path) for path in sorted(SPEECH.glob("*.flac"))]
    return clips + [clip[start : start + 24000] for clip in clips for start in (0, 5000, 10000)]


# Against the original --------------------------------------------------------------------------------------------------


def compare(out: UpstreamOutput, row: int, utterance: int, lambd: float) -> None:
    gold = gold_arrays(REFERENCE)
    key = f"u{utterance}/lambda_{lambd:g}"
    frames, count = len(gold[f"u{utterance}/alpha"]), int(gold[f"{key}/cif_length"])
    assert out.lengths[row] == count
    assert out.extras["conv_lengths"][row] == frames
    assert relative_error(out.extras["alpha"][row, :frames], gold[f"u{utterance}/alpha"]) <= TOLERANCE
    assert relative_error(out.extras["mixed_alpha"][row, :frames].float(), gold[f"{key}/mixed_alpha"]) <= TOLERANCE
    assert relative_error(out["hidden_state_3"][row, :count], gold[f"{key}/encoder_layer2"]) <= TOLERANCE
    assert relative_error(out.last_hidden_state[row, :count], gold[f"{key}/encoder_last"]) <= TOLERANCE
    assert (out.last_hidden_state[row, count:] == 0).all()


@torch.no_grad()
@pytest.mark.parametrize("lambd", LAMBDAS)
def test_alone_and_in_a_ragged_batch_equal_the_original_alone(model: OfaWav2Vec2Upstream, lambd: float) -> None:
    wavs = gold_wavs()
    for index, wav in enumerate(wavs):
        compare(model([wav], lambd=lambd), 0, index, lambd)
    order = (2, 0, 1)
    out = model([wavs[i] for i in order], lambd=lambd)
    for row, index in enumerate(order):
        compare(out, row, index, lambd)


@torch.no_grad()
@pytest.mark.parametrize("lambd", LAMBDAS)
def test_the_merged_features_equal_the_original(model: OfaWav2Vec2Upstream, lambd: float) -> None:
    from hubcore_ofa_wav2vec2 import fire, mix

    gold = gold_arrays(REFERENCE)
    for index, wav in enumerate(gold_wavs()):
        key = f"u{index}/lambda_{lambd:g}"
        features, frames = model.model.extract([wav])
        assert (features.sum(1) - gold[f"u{index}/features_ln_rowsum"]).abs().max() <= 5e-4
        alpha = model.model.alpha_predictor(features, frames)
        fired = fire(features, mix(alpha, torch.tensor([lambd], dtype=torch.float64), frames), frames)
        assert (fired.frames.sum(1) - gold[f"{key}/cif_out_rowsum"]).abs().max() <= 5e-4
        if f"{key}/cif_out" in gold:
            assert relative_error(fired.frames, gold[f"{key}/cif_out"]) <= TOLERANCE
        durations = fired.spans[:, 1] - fired.spans[:, 0]
        assert (durations - gold[f"{key}/reverse_alpha"].double()).abs().max() <= 1e-3


@torch.no_grad()
def test_lambda_0_is_wav2vec2_with_the_same_weights(model: OfaWav2Vec2Upstream) -> None:
    values = {field.name: getattr(model.config, field.name) for field in dataclasses.fields(Wav2Vec2Config)}
    plain = Wav2Vec2Upstream(Wav2Vec2Config(**values)).eval()
    weights = {name: weight for name, weight in model.state_dict().items() if not name.startswith("model.alpha_predictor.")}
    plain.load_state_dict(weights)
    wavs = list(gold_wavs())
    ours, theirs = model(wavs, lambd=0), plain(wavs)
    assert torch.equal(ours.lengths, theirs.lengths)
    for k in range(5):
        assert relative_error(ours.hidden_states[k], theirs.hidden_states[k]) <= 1e-6
    assert torch.allclose(ours.frame_times()[0, :5, 0], torch.arange(5, dtype=torch.float64) * 0.02)


# The frame rate --------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.slow
def test_every_utterance_gives_the_floor_of_its_mixed_alpha(model: OfaWav2Vec2Upstream, speech: list[Tensor]) -> None:
    assert len(speech) == 40
    periods = []
    for lambd in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0):
        out = model(speech, lambd=lambd)
        assert torch.equal(out.lengths, out.extras["mixed_alpha"].sum(1).floor().long().clamp_min(1))
        periods.append(float(out.extras["mean_frame_period_ms"].mean()))
    assert periods[0] == 20
    assert all(slower > faster for faster, slower in pairwise(periods))


@torch.no_grad()
@pytest.mark.parametrize("period", [30.0, 45.0, 55.0, 65.0])
@pytest.mark.slow
def test_a_frame_period_is_hit(bundled: OfaWav2Vec2Upstream, speech: list[Tensor], period: float) -> None:
    out = bundled(speech, frame_period_ms=period)
    got = out.extras["mean_frame_period_ms"]
    assert abs(float(got.mean()) / period - 1) <= 0.02
    wanted = out.extras["conv_lengths"] * 20 / period
    assert ((out.lengths - wanted).abs() <= 0.5 + 1e-6).all()  # as near as whole frames allow
    corpus = bundled.find_lambd([speech[:20], speech[20:]], frame_period_ms=period)
    fixed = bundled(speech, lambd=corpus)
    mean = 20 * float(fixed.extras["conv_lengths"].sum()) / float(fixed.lengths.sum())
    assert abs(mean / period - 1) <= 0.02


@torch.no_grad()
def test_lambda_may_be_set_in_every_place(bundled: OfaWav2Vec2Upstream) -> None:
    wavs = list(gold_wavs())
    wanted = bundled(wavs, lambd=0.7).lengths.tolist()
    loaded = hub.load("ofa_wav2vec2_tiny_prompts", lambd=0.7)
    assert loaded.lambd == 0.7
    assert loaded(wavs).lengths.tolist() == wanted
    own = copy.deepcopy(bundled)
    own.lambd = 0.7
    assert own(wavs).lengths.tolist() == wanted
    assert bundled.lambd == 0.5
    assert bundled(wavs).lengths.tolist() == bundled(wavs, lambd=0.5).lengths.tolist()
    each = bundled(wavs, lambd=[0.0, 0.5, 1.0])
    for row, (wav, lambd) in enumerate(zip(wavs, (0.0, 0.5, 1.0), strict=True)):
        alone = bundled([wav], lambd=lambd)
        assert each.lengths[row] == alone.lengths[0]
        assert torch.allclose(each.last_hidden_state[row, : alone.lengths[0]], alone.last_hidden_state[0], atol=1e-5)
    assert each.extras["lambd"].tolist() == [0.0, 0.5, 1.0]
    own.frame_period_ms = 40
    assert own.lambd is None
    assert own(wavs).lengths.tolist() == bundled(wavs, frame_period_ms=40).lengths.tolist()
    assert pickle.loads(pickle.dumps(own)).frame_period_ms == 40


def test_nothing_is_drawn_at_random(bundled: OfaWav2Vec2Upstream) -> None:
    wavs = list(gold_wavs())
    first = bundled(wavs)
    torch.manual_seed(99)
    assert torch.equal(first.last_hidden_state, bundled(wavs).last_hidden_state)


@torch.no_grad()
def test_lambda_outside_the_trained_range_warns_once_and_works() -> None:
    model = hub.load("ofa_wav2vec2_tiny_prompts")
    wav = gold_wavs()[1]
    with pytest.warns(UserWarning, match=r"lambda -0\.5 is outside the 0 to 1"):
        more = model([wav], lambd=-0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fewer, none = model([wav], lambd=1.5), model([wav], lambd=2.0)
    assert more.lengths.item() == 94 * 1.5
    assert fewer.lengths < model([wav], lambd=1.0).lengths
    assert none.lengths.item() == 1
    for out in (more, fewer, none):
        assert out.last_hidden_state.isfinite().all()


@pytest.mark.parametrize(
    "wrong",
    [
        float("nan"),
        float("inf"),
        "0.5",
        True,
        None.__class__,
        2.1,
        [0.1, 0.2],
        torch.tensor([[0.5]]),
        torch.tensor(True),
        [0.5, "x", 1],
    ],
)
def test_a_lambda_that_is_none_is_an_error(bundled: OfaWav2Vec2Upstream, wrong: object) -> None:
    with pytest.raises(OptionError):
        bundled(list(gold_wavs()), lambd=wrong)


@pytest.mark.parametrize("wrong", [0, -45, float("nan"), "45", True])
def test_a_period_that_is_none_is_an_error(bundled: OfaWav2Vec2Upstream, wrong: object) -> None:
    with pytest.raises(OptionError, match="frame_period_ms"):
        bundled([gold_wavs()[0]], frame_period_ms=wrong)
    with pytest.raises(OptionError, match="frame_period_ms"):
        hub.load("ofa_wav2vec2_tiny_prompts", frame_period_ms=wrong)


def test_two_choices_at_once_are_an_error(bundled: OfaWav2Vec2Upstream) -> None:
    with pytest.raises(OptionError, match="Choose one"):
        bundled([gold_wavs()[0]], lambd=0.5, frame_period_ms=45)
    with pytest.raises(OptionError, match="Choose one"):
        OfaWav2Vec2Upstream(CONFIGS["tiny"], lambd=0.5, frame_period_ms=45)
    with pytest.raises(OptionError, match="'drop' or 'keep'"):
        OfaWav2Vec2Upstream(CONFIGS["tiny"], tail="half")
    with pytest.raises(OptionError, match="waveforms"):
        bundled.find_lambd([], frame_period_ms=45)


def test_a_checkpoint_without_mixing_says_so(tmp_path: Path) -> None:
    tree = torch.load(gold_file("ofa_tiny.pt"), weights_only=True)
    tree["cfg"]["model"]["mixup"] = False
    torch.save(tree, tmp_path / "fixed.pt")
    fixed = OfaWav2Vec2Upstream.from_checkpoint(tmp_path / "fixed.pt")
    assert fixed.lambd is None
    wav = gold_wavs()[0]
    full = OfaWav2Vec2Upstream.from_checkpoint(gold_file("ofa_tiny.pt"))([wav], lambd=1.0)
    out = fixed([wav])
    assert torch.equal(out.last_hidden_state, full.last_hidden_state)
    assert "lambd" not in out.extras
    for options in ({"lambd": 0.5}, {"frame_period_ms": 45}):
        with pytest.raises(OptionError, match="without mixing"):
            fixed([wav], **options)
    with pytest.raises(OptionError, match="without mixing"):
        OfaWav2Vec2Upstream.from_checkpoint(tmp_path / "fixed.pt", lambd=0.5)


def test_a_plain_wav2vec2_checkpoint_is_refused() -> None:
    with pytest.raises(CheckpointLayoutError, match="subsample"):
        hub.load("ofa_wav2vec2", checkpoint=gold_file("fairseq_tiny_w2v2_groupnorm.pt"))


# Inputs at the edge ----------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("lambd", [0.0, 0.5, 1.0])
def test_short_silent_and_loud_inputs_give_frames(model: OfaWav2Vec2Upstream, lambd: float) -> None:
    torch.manual_seed(0)
    wavs = [0.1 * torch.randn(n) for n in (400, 720, 1360)]
    wavs += [torch.zeros(16000), torch.zeros(400), 2 * torch.rand(16000) - 1, torch.ones(8000)]
    batch = model(wavs, lambd=lambd)
    for row, wav in enumerate(wavs):
        alone = model([wav], lambd=lambd)
        mixed = alone.extras["mixed_alpha"].sum()
        assert alone.lengths.item() == batch.lengths[row] == max(1, int(mixed))
        assert alone.last_hidden_state.isfinite().all()
        assert relative_error(batch.last_hidden_state[row, : alone.lengths[0]], alone.last_hidden_state[0]) <= TOLERANCE
        times = alone.frame_times()[0]
        assert times[0, 0] == 0
        assert (times[:, 1] > times[:, 0]).all()


@torch.no_grad()
@pytest.mark.slow
def test_a_kept_tail_is_at_most_one_more_frame(speech: list[Tensor]) -> None:
    drop, keep = (hub.load("ofa_wav2vec2_tiny_prompts", tail=tail)(speech) for tail in ("drop", "keep"))
    more = keep.lengths - drop.lengths
    left = drop.extras["mixed_alpha"].sum(1) - drop.lengths
    assert torch.equal(more, (left >= 0.5).long())
    assert 0 < int(more.sum()) < 40


# Time ------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_times_follow_each_other_and_end_within_the_audio(bundled: OfaWav2Vec2Upstream, speech: list[Tensor]) -> None:
    out = bundled(speech, lambd=0.8)
    for row, wav in enumerate(speech):
        times = out.frame_times()[row, : out.lengths[row]]
        assert times[0, 0] == 0
        assert torch.equal(times[1:, 0], times[:-1, 1])
        assert float(times[-1, 1]) <= len(wav) / 16000
        assert (out.frame_times()[row, out.lengths[row] :] == 0).all()


@torch.no_grad()
def test_upsampling_repeats_each_frame_over_its_own_time(bundled: OfaWav2Vec2Upstream) -> None:
    out = bundled(list(gold_wavs()), lambd=0.8)
    wide = upsample(out)
    for row in range(3):
        times = out.frame_times()[row, : out.lengths[row]]
        for frame in range(int(wide.lengths[row])):
            centre = (frame + 0.5) * 0.02
            inside = int(((times[:, 0] <= centre) & (centre < times[:, 1])).nonzero()[0])
            assert torch.equal(wide.last_hidden_state[row, frame], out.last_hidden_state[row, inside])
        assert (
            float(times[-1, 1]) - 0.02 <= float(wide.frame_times()[row, wide.lengths[row] - 1, 1]) <= float(times[-1, 1]) + 1e-6
        )
        assert (wide.last_hidden_state[row, wide.lengths[row] :] == 0).all()
    same = upsample(bundled(list(gold_wavs()), lambd=0.0))
    assert same.lengths.tolist() == [34, 94, 159]
    with pytest.raises(OptionError):
        upsample(out, stride=0)


@torch.no_grad()
def test_a_featurizer_takes_the_variable_rate(bundled: OfaWav2Vec2Upstream) -> None:
    wavs = list(gold_wavs())
    out = bundled(wavs, lambd=0.6)
    features = Featurizer(bundled)(wavs, out)
    assert [len(f) for f in features] == out.lengths.tolist()
    assert bundled.frame_stride is None


# Learning lambda -------------------------------------------------------------------------------------------------------


def test_gradients_reach_a_lambda_tensor(bundled: OfaWav2Vec2Upstream) -> None:
    lambd = torch.tensor(0.4, requires_grad=True)
    bundled(list(gold_wavs()), lambd=lambd).last_hidden_state.square().mean().backward()
    assert lambd.grad is not None
    assert lambd.grad.isfinite()
    assert lambd.grad != 0


@pytest.mark.slow
def test_adaptive_lambda_finds_a_known_optimum(bundled: OfaWav2Vec2Upstream) -> None:
    """A task whose best lambda is known: features as in a recording that was compressed with 0.62, at its frame rate.

    What is compared is the running sum of the merged features, which moves with every frame boundary.
    """
    wavs, model = list(gold_wavs())[:2], copy.deepcopy(bundled).requires_grad_(False)

    def spent(lambd: Tensor | float) -> Tensor:
        return model(wavs, layers=[0], lambd=lambd).extras["mixed_alpha"].cumsum(1)

    target = spent(0.62)
    adaptive = AdaptiveLambda(0.2)
    optimizer = torch.optim.Adam(adaptive.parameters(), lr=0.2)
    for _ in range(60):
        optimizer.zero_grad()
        (spent(adaptive()) - target).square().mean().backward()
        optimizer.step()
    assert abs(adaptive().item() - 0.62) < 0.01


@pytest.mark.slow
def test_adaptive_lambda_learns_from_a_downstream_loss(bundled: OfaWav2Vec2Upstream) -> None:
    """A regression on the hidden states themselves: the loss leads to the lambda that made its targets."""
    wav, model = gold_wavs()[1], copy.deepcopy(bundled).requires_grad_(False)
    start = 0.5
    count = int(model([wav], lambd=start).lengths)
    best = max(x / 1000 for x in range(500, 560) if int(model([wav], lambd=x / 1000).lengths) == count)
    wanted = model([wav], layers=[0], lambd=best).hidden_states[0]
    adaptive = AdaptiveLambda(start)
    optimizer = torch.optim.Adam(adaptive.parameters(), lr=0.005)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        got = model([wav], layers=[0], lambd=adaptive()).hidden_states[0]
        frames = min(got.shape[1], wanted.shape[1])
        loss = (got[:, :frames] - wanted[:, :frames]).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4
    assert abs(adaptive().item() - best) < abs(start - best) / 2


@pytest.mark.parametrize("options", [{"initial": 1.0}, {"initial": 0.5, "low": 0.6}, {"initial": 0.5, "high": 3.0}])
def test_an_adaptive_lambda_needs_a_range(options: dict[str, float]) -> None:
    with pytest.raises(OptionError):
        AdaptiveLambda(**options)


# Saving ----------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_our_own_file_reads_back(model: OfaWav2Vec2Upstream, tmp_path: Path) -> None:
    model.save_checkpoint(tmp_path / "ofa.safetensors")
    again = hub.load("ofa_wav2vec2", checkpoint=tmp_path / "ofa.safetensors", lambd=0.25)
    assert again.config == model.config
    wav = gold_wavs()[0]
    assert torch.equal(again([wav]).last_hidden_state, model([wav], lambd=0.25).last_hidden_state)


def test_the_bundled_model_was_really_trained() -> None:
    """Its frames of clips in the repository are as long as the paper's formula says, and its alpha follows the sound."""
    from hubcore.audio import load_audio
    from hubcore.sources.resolve import resolve
    from tests.paths import SPEECH

    model = OfaWav2Vec2Upstream.from_checkpoint("ofa_wav2vec2_tiny_prompts")
    wavs = [load_audio(path) for path in sorted(SPEECH.glob("*.flac"))]
    with torch.no_grad():
        outputs = {lambd: model(wavs, lambd=lambd) for lambd in (0.0, 0.5, 1.0)}
    frames = {lambd: int(out.lengths.sum()) for lambd, out in outputs.items()}
    periods = {lambd: 20 * frames[0.0] / count for lambd, count in frames.items()}
    assert 28 < periods[0.5] < 38 and 75 < periods[1.0] < 105
    alpha = torch.cat([row[:n] for row, n in zip(*(outputs[1.0].extras[k] for k in ("alpha", "conv_lengths")), strict=True)])
    assert 0.17 < alpha.mean() < 0.28 and alpha.std() > 0.05
    bundled = Path(resolve("ofa_wav2vec2_tiny_prompts"))
    assert bundled.stat().st_size < 3e6 and "Allison Smith" in bundled.with_name("README.md").read_text()


def test_the_report_names_the_heads() -> None:
    report = OfaWav2Vec2Upstream.from_checkpoint(gold_file("ofa_tiny.pt")).load_report
    assert "cif_subsampler.alpha_fn.cnn.weight" in report.used
    assert set(report.ignored) == {
        "mask_emb",
        "final_proj.bias",
        "final_proj.weight",
        "project_q.bias",
        "project_q.weight",
        "quantizer.vars",
        "quantizer.weight_proj.bias",
        "quantizer.weight_proj.weight",
    }


# What a second reader found ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mean_alpha", [0.1, 2 / 9, 0.5])
def test_a_period_that_divides_the_frames_loses_none(mean_alpha: float) -> None:
    generator = torch.Generator().manual_seed(0)
    for frames, per_output in ((36, 1.5), (72, 2.25), (90, 3.0), (100, 1.0), (45, 2.25), (200, 2.0), (30, 0.5)):
        alpha = (2 * mean_alpha * torch.rand(frames, generator=generator)).clamp(0.001, 0.999)
        lambd = lambd_for_period(alpha, [frames], per_output)
        assert fire(torch.ones(frames, 1), mix(alpha, lambd, [frames]), [frames]).lengths == [round(frames / per_output)]


@torch.no_grad()
@pytest.mark.parametrize("given", [torch.tensor(0.3), np.float32(0.3), np.array(0.3), 0.3, torch.tensor([0.3])])
def test_a_default_may_be_any_number_and_is_kept_as_plain_data(given: object) -> None:
    model = hub.load("ofa_wav2vec2_tiny_prompts", lambd=given)
    assert np.allclose(model.options["lambd"], 0.3)
    json.dumps(model.options)
    wav = gold_wavs()[0]
    assert model([wav]).lengths.tolist() == model([wav], lambd=0.3).lengths.tolist()


def test_one_lambda_for_each_utterance_may_be_an_array(bundled: OfaWav2Vec2Upstream) -> None:
    out = bundled(list(gold_wavs()), lambd=np.array([0.1, 0.5, 0.9]))
    assert out.extras["lambd"].tolist() == [0.1, 0.5, 0.9]


@pytest.mark.parametrize("name", ["lambd", "frame_period_ms"])
def test_a_module_as_a_default_is_refused(name: str) -> None:
    model = hub.load("ofa_wav2vec2_tiny_prompts")
    for value in (AdaptiveLambda(0.5), torch.nn.Parameter(torch.tensor(0.5))):
        with pytest.raises(OptionError, match="at each call"):
            setattr(model, name, value)
    assert not any("lambd" in key for key in model.state_dict())


@torch.no_grad()
def test_a_period_far_off_warns_too_and_points_at_the_caller() -> None:
    model = hub.load("ofa_wav2vec2_tiny_prompts")
    with pytest.warns(UserWarning, match="outside the 0 to 1") as caught:
        model([gold_wavs()[1]], frame_period_ms=300)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("draw", "upper", "wanted"),
    [
        ("uniform", 2.0, (0, 1)),
        ("uniform-fr", 1.0, (0, 1)),
        ("scale", 2.0, (1, 2)),
        ("both", 2.0, (0, 2)),
        ("both", 1.5, (0, 1.5)),
    ],
)
def test_the_trained_range_is_what_training_drew_from(
    tmp_path: Path, draw: str, upper: float, wanted: tuple[float, float]
) -> None:
    tree = torch.load(gold_file("ofa_tiny.pt"), weights_only=True)
    tree["cfg"]["model"].update(mixup_distro=draw, upper_lambd=upper)
    torch.save(tree, tmp_path / "drawn.pt")
    assert OfaWav2Vec2Upstream.from_checkpoint(tmp_path / "drawn.pt").config.lambd_range == wanted


def test_up_sampling_loses_no_frame_to_rounding() -> None:
    for tenths in range(1, 30):
        for frames in (10, 20, 50):
            mixed = mix(torch.full((frames,), 0.2), torch.tensor([-tenths / 10], dtype=torch.float64), [frames])
            assert fire(torch.ones(frames, 1), mixed, [frames]).lengths == [frames * (10 + tenths) // 10]


def test_what_must_be_a_mistake_is_refused(bundled: OfaWav2Vec2Upstream) -> None:
    for options in ({"lambd": -1e4}, {"frame_period_ms": 0.045}, {"lambd": 10**400}):
        with pytest.raises(OptionError):
            bundled([gold_wavs()[0]], **options)
    with pytest.raises(OptionError, match="tail must be one of"):
        fire(torch.ones(3, 1), torch.ones(3), [3], tail="kept")  # type: ignore[arg-type]


def test_where_nothing_fires_the_graph_stays_whole(bundled: OfaWav2Vec2Upstream) -> None:
    model = copy.deepcopy(bundled).requires_grad_(False)
    lambd = torch.tensor(2.0, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model([gold_wavs()[0]], lambd=lambd).last_hidden_state.sum().backward()
    assert lambd.grad is not None


def test_the_bare_model_compresses_too(bundled: OfaWav2Vec2Upstream) -> None:
    states, lengths = bundled.model([gold_wavs()[0]], [4])
    out = bundled([gold_wavs()[0]], lambd=0.5)
    assert lengths == out.lengths.tolist()
    assert torch.equal(states[0], out.last_hidden_state[0])
