"""What `FbankUpstream` promises beside its numbers: batches, lengths, gradients, devices and dtypes, errors."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from hubcore.errors import AudioError, OptionError
from hubcore.protocol import Upstream
from hubcore_fbank import CONFIGS, FbankConfig, FbankUpstream

LENGTHS = (400, 16000, 559, 560, 3217, 880, 7041)


def noise(lengths: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, generator=generator, dtype=torch.float64).to(dtype) * 0.1 for n in lengths]


@pytest.mark.parametrize("name", CONFIGS)
def test_features_do_not_depend_on_batch_mates(name):
    upstream = FbankUpstream.from_config(name)
    wavs = noise(LENGTHS)
    wavs[3] = wavs[3] * 1000  # a loud mate between two quiet ones
    alone = [upstream([wav]).last_hidden_state[0] for wav in wavs]
    for order in (range(7), (6, 2, 0, 5, 1, 3, 4)):
        out = upstream([wavs[i] for i in order])
        for row, count, i in zip(out.last_hidden_state, out.lengths.tolist(), order, strict=True):
            assert count == len(alone[i])
            torch.testing.assert_close(row[:count], alone[i], rtol=0, atol=2e-5)
            assert not row[count:].any()


@pytest.mark.parametrize("name", CONFIGS)
def test_padded_tensor_with_lengths_is_the_list(name):
    upstream = FbankUpstream.from_config(name)
    wavs = noise((3217, 880))
    padded = torch.full((2, 3217), 9.0)
    for row, wav in zip(padded, wavs, strict=True):
        row[: len(wav)] = wav
    from_list, from_tensor = upstream(wavs), upstream(padded, torch.tensor([3217, 880]))
    assert torch.equal(from_tensor.lengths, from_list.lengths)
    assert torch.equal(from_tensor.last_hidden_state, from_list.last_hidden_state)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("fbank", {}, {399: 0, 400: 1, 559: 1, 560: 2, 16000: 98, 16079: 98, 16080: 99}),
        ("fbank", {"snip_edges": False}, {199: 0, 200: 1, 239: 1, 240: 2, 16000: 100, 16080: 101}),
        ("mel", {}, {200: 0, 201: 2, 319: 2, 320: 3, 16000: 101, 16159: 101, 16160: 102}),
    ],
)
def test_frame_counts_come_from_the_number_of_samples(name, options, expected):
    upstream = FbankUpstream.from_config(name, **options)
    assert {n: upstream.config.num_frames(n) for n in expected} == expected
    assert upstream.min_samples == min(n for n, frames in expected.items() if frames)
    for samples, frames in expected.items():
        if frames:
            assert upstream([torch.zeros(samples)]).lengths.tolist() == [frames]
        else:
            with pytest.raises(AudioError, match=f"item 1 has {samples} samples"):
                upstream([torch.zeros(1000), torch.zeros(samples)])


def test_contract_attributes():
    upstream = FbankUpstream.from_config("fbank")
    assert isinstance(upstream, Upstream)
    assert (upstream.sample_rate, upstream.frame_stride, upstream.receptive_field, upstream.min_samples) == (
        16000,
        160,
        400,
        400,
    )
    assert (upstream.num_layers, upstream.layer_names, upstream.card) == (0, ("features",), None)
    dims = {name: FbankUpstream.from_config(name).hidden_sizes[0] for name in CONFIGS}
    assert dims == {"fbank": 240, "fbank_no_cmvn": 240, "mfcc": 39, "spectrogram": 257, "mel": 80, "linear": 201}
    assert not upstream.state_dict()


def test_one_layer_only():
    upstream = FbankUpstream.from_config("mel")
    out = upstream(noise((800,)), layers=[-1])
    assert out.layers == (0,)
    assert len(out.hidden_states) == 1
    with pytest.raises(OptionError, match="Choose from -1 to 0"):
        upstream(noise((800,)), layers=[1])
    with pytest.raises(OptionError, match="no option called 'lambd'"):
        upstream(noise((800,)), lambd=0.5)


def test_frame_times():
    wavs = noise((880, 400))
    times = FbankUpstream.from_config("fbank")(wavs).frame_times()
    assert times.shape == (2, 4, 2)
    assert times[0, 3].tolist() == [480 / 16000, 880 / 16000]
    assert not times[1, 1:].any()
    centred = FbankUpstream.from_config("mel")(wavs).frame_times()
    torch.testing.assert_close(centred[0].mean(1), torch.arange(6, dtype=torch.float64) * 0.01)
    mirrored = FbankUpstream.from_config("fbank", snip_edges=False)(wavs).frame_times()
    assert mirrored[0, 0].tolist() == [-120 / 16000, 280 / 16000]


@pytest.mark.parametrize("name", CONFIGS)
def test_silence_constants_and_single_frames_give_finite_features(name):
    upstream = FbankUpstream.from_config(name)
    shortest = noise((upstream.min_samples,))[0]
    out = upstream([torch.zeros(1600), torch.full((1600,), 0.5), shortest])
    assert out.last_hidden_state.isfinite().all()
    if upstream.config.cmvn:
        assert not out.last_hidden_state[0].any(), "a column that does not change is 0, not amplified rounding"
    if upstream.config.cmvn and upstream.config.snip_edges:
        assert out.lengths[2] == 1
        assert not out.last_hidden_state[2].any()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fbank", {"num_mel_bins": 5}),
        ("fbank_no_cmvn", {"num_mel_bins": 5, "snip_edges": False}),
        ("mfcc", {"num_mel_bins": 5, "num_ceps": 3, "use_energy": True, "energy_floor": 0.0}),
        ("spectrogram", {"raw_energy": False, "energy_floor": 0.0}),
        ("mel", {"num_mel_bins": 5, "power": 1.0}),
        ("linear", {}),
    ],
)
@pytest.mark.slow
def test_gradients_are_those_of_finite_differences(name, options):
    config = replace(CONFIGS[name], frame_length_ms=2.0, frame_shift_ms=1.0, fft_size=None, **options)
    upstream = FbankUpstream(config)
    wavs = tuple(wav.requires_grad_() for wav in noise((97, 64), dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda *rows: upstream(rows).last_hidden_state, wavs, eps=1e-7, atol=1e-3)


def test_gradients_of_silence_are_finite():
    wav = torch.zeros(1600, requires_grad=True)
    for name in CONFIGS:
        (gradient,) = torch.autograd.grad(FbankUpstream.from_config(name)([wav]).last_hidden_state.sum(), wav)
        assert gradient.isfinite().all(), name


def test_a_call_in_inference_mode_does_not_spoil_later_gradients():
    upstream = FbankUpstream.from_config("mfcc")
    with torch.inference_mode():
        upstream(noise((1600,)))
    wav = noise((1600,))[0].requires_grad_()
    upstream([wav]).last_hidden_state.square().sum().backward()
    assert wav.grad is not None
    assert wav.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_waveforms_are_computed_in_float32(dtype):
    upstream = FbankUpstream.from_config("fbank_no_cmvn")
    wavs = noise((1600, 900), dtype=dtype)
    out = upstream(wavs).last_hidden_state
    assert out.dtype == dtype
    assert torch.equal(out, upstream([wav.float() for wav in wavs]).last_hidden_state.to(dtype))


def test_autocast_changes_nothing():
    upstream = FbankUpstream.from_config("mfcc")
    plain = upstream(noise((1600,))).last_hidden_state
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(upstream(noise((1600,))).last_hidden_state, plain)


def test_one_upstream_serves_dtypes_in_turn():
    upstream = FbankUpstream.from_config("fbank")
    for dtype in (torch.float32, torch.float64, torch.float32):
        assert upstream(noise((800,), dtype=dtype)).last_hidden_state.dtype == dtype


def test_input_scale_is_a_multiplication():
    wavs = noise((1600, 900))
    scaled = FbankUpstream.from_config("fbank", input_scale=32768.0)(wavs).last_hidden_state
    assert torch.equal(scaled, FbankUpstream.from_config("fbank")([wav * 32768 for wav in wavs]).last_hidden_state)


def test_only_dither_is_random():
    wavs = noise((1600,))
    plain, dithered = FbankUpstream.from_config("fbank"), FbankUpstream.from_config("fbank", dither=0.01)
    assert torch.equal(plain(wavs).last_hidden_state, plain(wavs).last_hidden_state)
    first = dithered(wavs).last_hidden_state
    assert not torch.equal(first, dithered(wavs).last_hidden_state)
    assert not torch.equal(first, plain(wavs).last_hidden_state)


def test_a_long_recording_is_computed_in_parts_without_seams():
    wavs = noise((160 * 1200,), dtype=torch.float64)
    raw = FbankUpstream.from_config("fbank", delta_order=0, cmvn=False)
    whole = raw(wavs).last_hidden_state[0]
    for frame in (0, 511, 512, 1023, 1024, 1197):
        own = raw([wavs[0][frame * 160 : frame * 160 + 400]]).last_hidden_state[0, 0]
        torch.testing.assert_close(whole[frame], own, rtol=0, atol=1e-10)


def test_copies_and_pickles():
    upstream = FbankUpstream.from_config("mel")
    expected = upstream(noise((800,))).last_hidden_state
    for twin in (copy.deepcopy(upstream), pickle.loads(pickle.dumps(upstream))):
        assert torch.equal(twin(noise((800,))).last_hidden_state, expected)


def test_configs_are_read_only():
    with pytest.raises(TypeError):
        CONFIGS["mine"] = FbankConfig()  # type: ignore[index]
    with pytest.raises(FrozenInstanceError):
        CONFIGS["fbank"].num_mel_bins = 40  # type: ignore[misc]
    assert list(CONFIGS) == ["fbank", "fbank_no_cmvn", "mfcc", "spectrogram", "mel", "linear"]
    assert CONFIGS["fbank"] == FbankConfig()


def test_named_config_with_an_option_overridden():
    assert FbankUpstream.from_config("fbank", num_mel_bins=40).hidden_sizes == (120,)
    with pytest.raises(OptionError, match=r"no option called 'num_mels'.*num_mel_bins"):
        FbankUpstream.from_config("fbank", num_mels=40)
    with pytest.raises(OptionError, match="no config called 'fbnk'"):
        FbankUpstream.from_config("fbnk")


def test_there_is_no_checkpoint():
    with pytest.raises(OptionError, match=r"without weights.*from_config"):
        FbankUpstream.from_file("weights.pt")


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("fbank", "kind", "fbanks"),
        ("fbank", "window", "hann"),
        ("fbank", "mel_triangles", "bark"),
        ("fbank", "sample_rate", 0),
        ("fbank", "sample_rate", 16000.5),
        ("fbank", "sample_rate", True),
        ("fbank", "input_scale", 0.0),
        ("fbank", "input_scale", float("nan")),
        ("fbank", "frame_length_ms", "25"),
        ("fbank", "frame_length_ms", 0.1),
        ("fbank", "frame_shift_ms", 0.0),
        ("fbank", "frame_shift_ms", 30.0),
        ("fbank", "center", True),
        ("fbank", "snip_edges", 1),
        ("fbank", "fft_size", 256),
        ("fbank", "fft_size", 401),
        ("fbank", "dither", -1.0),
        ("fbank", "preemphasis", 1.5),
        ("fbank", "power", 3.0),
        ("fbank", "num_mel_bins", 0),
        ("fbank", "low_freq_hz", 8000.0),
        ("fbank", "high_freq_hz", 9000.0),
        ("fbank", "high_freq_hz", -7990.0),
        ("fbank", "log_floor", 0.0),
        ("fbank", "log_offset", -1.0),
        ("fbank", "energy_floor", -1.0),
        ("mfcc", "num_ceps", 24),
        ("mfcc", "cepstral_lifter", -1.0),
        ("fbank", "delta_order", -1),
        ("fbank", "delta_window", 4),
        ("fbank", "cmvn_epsilon", 0.0),
        ("fbank", "num_ceps", 20),
        ("mfcc", "use_log", False),
        ("linear", "num_mel_bins", 40),
    ],
)
def test_an_impossible_or_idle_value_is_an_error_that_names_it(name, field, value):
    with pytest.raises(OptionError, match=rf"^{field} must be "):
        FbankUpstream.from_config(name, **{field: value})
