"""Packing, lengths, masks, and what may not come in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from hubcore.errors import AudioError
from hubcore.ragged import check_wavs, conv_length, frame_mask, pack_on_grid, pad_packed, receptive_field, regular_frame_times

WAV2VEC2 = [(10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)]


def check(wavs: object, lengths: object = None) -> list[torch.Tensor]:
    return check_wavs(wavs, lengths, min_samples=400, sample_rate=16000)


def test_conv_length_is_what_convolutions_give() -> None:
    for samples in [0, 1, 399, 400, 719, 720, 721, 1359, 1360, 16000, 32000, 160000]:
        x = torch.zeros(1, 1, samples)
        for kernel, stride in WAV2VEC2:
            x = functional.conv1d(x, torch.zeros(1, 1, kernel), stride=stride) if x.shape[-1] >= kernel else x[..., :0]
        assert conv_length(samples, WAV2VEC2) == x.shape[-1]
    assert [conv_length(n, WAV2VEC2) for n in (400, 720, 16000, 32000, 160000)] == [1, 2, 49, 99, 499]


def test_receptive_field() -> None:
    assert receptive_field(WAV2VEC2) == 400
    assert receptive_field([(3, 1), (3, 1)]) == 5
    assert receptive_field([]) == 1


def test_every_start_is_on_the_grid_and_gaps_are_zero() -> None:
    wavs = [torch.full((n,), float(n)) for n in (1, 8, 7, 9)]
    signal, starts = pack_on_grid(wavs, 4)
    assert starts == [0, 1, 3, 5]
    assert len(signal) == 32
    for wav, start in zip(wavs, starts, strict=True):
        assert torch.equal(signal[4 * start : 4 * start + len(wav)], wav)
    assert signal.count_nonzero() == 25


def test_padding_is_zero_and_differentiable() -> None:
    packed = torch.ones(5, 2, requires_grad=True)
    padded = pad_packed(packed, [2, 3])
    assert padded.shape == (2, 3, 2)
    assert (padded[0, 2] == 0).all()
    padded.sum().backward()
    assert (packed.grad == 1).all()
    assert pad_packed(torch.arange(6.0).view(6, 1), [3, 3])[1, :, 0].tolist() == [3, 4, 5]


def test_masks_and_times() -> None:
    lengths = torch.tensor([1, 3])
    assert frame_mask(lengths, 3).sum(1).tolist() == [1, 3]
    times = regular_frame_times(lengths, 3, stride=160, span=400, sample_rate=16000)
    wanted = torch.tensor([[0, 0.025], [0.01, 0.035], [0.02, 0.045]], dtype=torch.float64)
    assert torch.allclose(times[1], wanted, atol=1e-12)
    assert (times[0, 1:] == 0).all()


def test_what_is_accepted() -> None:
    rows = check(torch.zeros(2, 900), torch.tensor([900, 400]))
    assert [len(row) for row in rows] == [900, 400]
    assert len(check(np.zeros((2, 500), dtype=np.float32))) == 2
    assert check([np.zeros(500)])[0].dtype == torch.float64
    wav = torch.zeros(500)
    assert check([wav])[0] is wav
    assert check([np.zeros(500, dtype=">f4")])[0].dtype == torch.float32
    assert len(check([np.frombuffer(bytes(2000), dtype=np.float32)])[0]) == 500


GOOD = torch.zeros(500)
BAD = {
    "empty list": ([], None, "batch is empty"),
    "no rows": (torch.zeros(0, 500), None, "batch is empty"),
    "one tensor": (GOOD, None, r"pass \[wav\]"),
    "3-D": (torch.zeros(1, 1, 500), None, r"\(B, T\)"),
    "2-D item": ([GOOD, torch.zeros(2, 500)], None, "item 1 has shape"),
    "0-D item": ([torch.tensor(1.0)], None, "item 0 has shape"),
    "integers": ([GOOD, torch.zeros(500, dtype=torch.int16)], None, "item 1 has dtype torch.int16"),
    "complex": ([torch.zeros(500, dtype=torch.complex64)], None, "item 0 has dtype"),
    "short": ([GOOD, GOOD, torch.zeros(399)], None, "item 2 has 399 samples"),
    "no samples": ([torch.zeros(0)], None, "item 0 has 0 samples"),
    "nan": ([GOOD, torch.full((500,), float("nan"))], None, "item 1 has the value nan at sample 0"),
    "inf": ([torch.cat([GOOD, torch.tensor([float("-inf")])])], None, "item 0 has the value -inf at sample 500"),
    "two dtypes": ([GOOD, GOOD.double()], None, "item 1 is torch.float64"),
    "a string": ("audio.wav", None, "load_audio"),
    "strings": (["audio.wav"], None, "item 0 is a str"),
    "a number": (3, None, "they must be a list"),
    "lengths with a list": ([GOOD], [500], "lengths came with a list"),
    "lengths too long": (torch.zeros(1, 500), [501], "none above 500"),
    "lengths too few": (torch.zeros(2, 500), [500], "each of the 2 rows"),
    "negative length": (torch.zeros(1, 500), [-1], "none above 500"),
    "a number of lengths": (torch.zeros(1, 500), 500, "lengths is 500"),
    "fractional lengths": (torch.zeros(1, 500), [499.7], "whole number"),
    "lengths of text": (torch.zeros(1, 500), ["a"], "whole number"),
    "two-dimensional lengths": (torch.zeros(1, 500), torch.tensor([[500]]), "whole number"),
    "one array": (np.zeros(500), None, r"pass \[wav\]"),
    "objects": ([np.array([None] * 500)], None, "array of object"),
    "long doubles": ([np.zeros(500, dtype=np.longdouble)], None, "at most 64 bits"),
    "sparse": ([torch.zeros(500).to_sparse()], None, "dense tensor"),
    "meta": ([torch.zeros(500, device="meta")], None, "in memory"),
    "length too short": (torch.zeros(2, 500), [500, 3], "item 1 has 3 samples"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused_names_the_item(name: str) -> None:
    wavs, lengths, message = BAD[name]
    with pytest.raises(AudioError, match=f"(?i){message}"):
        check(wavs, lengths)
