"""Audio files: every format, rate and channel count that is read, and every damage that must be named."""

from __future__ import annotations

import errno
import io
import logging
import os
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

from hubcore import audio, audio_headers
from hubcore.audio import AUDIO_EXTENSIONS, AudioBytes, Embedded, find_audio, load_audio, probe
from hubcore.audio_headers import _mpeg_frame, _ogg_pages, damage, mpeg_samples, mpeg_with_length, shortage
from hubcore.errors import AudioError, HubcoreError

DATA = Path(__file__).parents[1] / "data"
SPEECH = sorted((DATA / "speech").glob("*.flac"))


@pytest.fixture(autouse=True)
def forget_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "_said", set())


def tone(samples: int = 8000, channels: int = 1, rate: int = 16000) -> np.ndarray:
    """`(samples, channels)` a different low tone in each channel."""
    time = np.arange(samples)[:, None] / rate
    return 0.4 * np.sin(2 * np.pi * (200 + 50 * np.arange(channels)) * time)


def encode(
    samples: np.ndarray | None = None, rate: int = 16000, container: str = "WAV", subtype: str | None = None, **options: object
) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone() if samples is None else samples, rate, format=container, subtype=subtype, **options)
    return buffer.getvalue()


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


# What is read ---------------------------------------------------------------------------------------------------------

EXACT = [("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "PCM_32"), ("WAV", "FLOAT"), ("WAV", "DOUBLE"), ("WAVEX", "PCM_16"),
         ("RF64", "PCM_16"), ("W64", "PCM_16"), ("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("AIFF", "PCM_16"), ("AU", "PCM_16"),
         ("CAF", "PCM_16"), ("CAF", "ALAC_16"), ("NIST", "PCM_16"), ("VOC", "PCM_16")]  # fmt: skip
LOSSY = [("WAV", "PCM_U8", 0.01), ("WAV", "ULAW", 0.03), ("WAV", "ALAW", 0.03), ("OGG", "VORBIS", 0.1), ("OGG", "OPUS", 0.2),
         ("MP3", "MPEG_LAYER_III", 0.1)]  # fmt: skip


@pytest.mark.parametrize(("container", "subtype"), EXACT, ids=str)
@pytest.mark.parametrize("channels", [1, 2])
def test_lossless_formats_decode_to_the_samples_written(tmp_path: Path, container: str, subtype: str, channels: int) -> None:
    samples = np.round(tone(channels=channels) * 32768) / 32768
    path = put(tmp_path / "sound", encode(samples, container=container, subtype=subtype))
    wav = load_audio(path)
    assert wav.dtype == torch.float32 and wav.ndim == 1 and wav.is_contiguous()
    np.testing.assert_allclose(wav.numpy(), samples.mean(1), rtol=0, atol=1e-7)
    assert probe(path).frames == len(wav) == 8000


@pytest.mark.parametrize(("container", "subtype", "tolerance"), LOSSY, ids=[f"{c}-{s}" for c, s, _ in LOSSY])
def test_lossy_formats_decode_close_to_the_samples_written(
    tmp_path: Path, container: str, subtype: str, tolerance: float
) -> None:
    path = put(tmp_path / "sound", encode(container=container, subtype=subtype))
    wav = load_audio(path)
    assert len(wav) == probe(path).frames
    middle = slice(2000, 6000)
    np.testing.assert_allclose(wav.numpy()[middle], tone()[middle, 0], rtol=0, atol=tolerance)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 96000, 12345])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_rate_and_channel_count_becomes_16_khz_mono(tmp_path: Path, rate: int, channels: int) -> None:
    samples = tone(rate // 2, channels, rate).astype(np.float32)
    path = put(tmp_path / "sound.wav", encode(samples, rate, subtype="FLOAT"))
    wav = load_audio(path)
    info = probe(path)
    assert (info.sample_rate, info.channels, info.frames) == (rate, channels, rate // 2)
    assert info.samples_at(16000) == len(wav)
    assert info.samples_at(rate) == info.frames
    mono = samples.mean(1, dtype=np.float32)
    expected = mono if rate == 16000 else soxr.resample(mono, rate, 16000, quality="HQ")
    np.testing.assert_array_equal(wav.numpy(), expected)
    ideal = tone(len(wav), channels, 16000).mean(1)
    middle = slice(1000, len(wav) - 1000)
    np.testing.assert_allclose(wav.numpy()[middle], ideal[middle], rtol=0, atol=2e-3)


def test_integers_are_divided_by_their_full_scale(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    soundfile.write(path, np.array([-32768, 0, 16384, 32767], dtype=np.int16), 16000)
    assert load_audio(path).tolist() == [-1.0, 0.0, 0.5, 32767 / 32768]


def test_floats_above_full_scale_are_kept(tmp_path: Path) -> None:
    path = put(tmp_path / "sound.wav", encode(np.array([3.0, -2.0]), subtype="FLOAT"))
    assert load_audio(path).tolist() == [3.0, -2.0]


def test_the_content_decides_not_the_ending(tmp_path: Path) -> None:
    for name in ("sound.mp3", "sound.raw", "sound.txt", "sound"):
        (tmp_path / name).write_bytes(encode(container="FLAC"))
        assert len(load_audio(tmp_path / name)) == 8000
        assert probe(tmp_path / name).format == "FLAC"


@pytest.mark.parametrize("name", ["ünï çödé.wav", "日本語.wav", "with space.wav", "-dash.wav", os.fsdecode(b"caf\xe9.wav")])
def test_any_file_name_works(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    try:
        path.write_bytes(encode())
    except (OSError, UnicodeError):
        pytest.skip("this file system does not take such a name")
    assert len(load_audio(path)) == probe(path).frames == 8000
    path.write_bytes(b"")
    with pytest.raises(AudioError) as caught:
        load_audio(path)
    str(caught.value).encode("utf-8")


def test_the_speech_clips_are_16_khz_mono(caplog: pytest.LogCaptureFixture) -> None:
    assert len(SPEECH) == 10
    for path in SPEECH:
        wav = load_audio(path)
        assert 2 <= len(wav) / 16000 <= 5
        assert 0.3 < float(wav.abs().max()) < 1
        assert probe(path).frames == len(wav)
    assert caplog.records == []


def test_the_frozen_utterances_have_the_documented_lengths() -> None:
    assert [len(load_audio(DATA / "gold" / f"u{i}.wav")) for i in range(3)] == [11237, 30411, 51203]


def test_a_wav_written_as_a_stream_is_read_to_its_end(tmp_path: Path) -> None:
    for size in (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFF0000):
        data = bytearray(encode())
        data[40:44] = struct.pack("<I", size)
        path = put(tmp_path / "sound.wav", bytes(data))
        assert len(load_audio(path)) == 8000


def test_bytes_after_the_samples_are_no_damage(tmp_path: Path) -> None:
    path = put(tmp_path / "sound.wav", encode() + b"LIST" + struct.pack("<I", 4) + b"INFO")
    assert len(load_audio(path)) == 8000


def without_index(data: bytes) -> bytes:
    """An MP3 without its first frame, the one that states the length."""
    assert b"Info" in data[:64] or b"Xing" in data[:64]
    length, _ = _mpeg_frame(data[:4]) or (0, 0)
    return data[length:]


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_an_mp3_without_a_length_record_is_counted(tmp_path: Path, mode: str) -> None:
    speech = np.concatenate([load_audio(path).numpy() for path in SPEECH[:3]])
    path = put(tmp_path / "sound.mp3", without_index(encode(speech, container="MP3", bitrate_mode=mode, compression_level=0.5)))
    assert mpeg_samples(path.read_bytes()) == probe(path).frames
    assert 0 <= probe(path).frames - len(speech) < 4 * 1152
    assert abs(len(load_audio(path)) - probe(path).frames) <= 2 * 1152


# What is said ---------------------------------------------------------------------------------------------------------


def test_resampling_and_averaging_are_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, rate in (("a", 8000), ("b", 8000), ("c", 44100)):
        (tmp_path / f"{name}.wav").write_bytes(encode(tone(4000, 2, rate), rate))
    for name in "aabbcc":
        load_audio(tmp_path / f"{name}.wav")
    messages = [record.getMessage() for record in caplog.records]
    assert {(record.name, record.levelno) for record in caplog.records} == {("hubcore.audio", logging.WARNING)}
    assert [message.split(";")[0] for message in messages] == [
        "averaging 2 channels to one",
        "resampling 8000 Hz to 16000 Hz (soxr HQ)",
        "resampling 44100 Hz to 16000 Hz (soxr HQ)",
    ]
    assert all(name in message for name, message in zip(("a.wav", "a.wav", "c.wav"), messages, strict=True))


# What is refused ------------------------------------------------------------------------------------------------------


def cut(share: float, container: str = "WAV", subtype: str | None = None) -> Callable[[], bytes]:
    def make() -> bytes:
        data = encode(container=container, subtype=subtype)
        return data[: int(len(data) * share)]

    return make


def patched(at: int, value: bytes, container: str = "WAV", subtype: str | None = None) -> Callable[[], bytes]:
    def make() -> bytes:
        data = bytearray(encode(container=container, subtype=subtype))
        data[at : at + len(value)] = value
        return bytes(data)

    return make


def with_value(value: float, subtype: str = "FLOAT", channels: int = 1) -> Callable[[], bytes]:
    def make() -> bytes:
        samples = tone(channels=channels)
        samples[123] = value
        return encode(samples, subtype=subtype)

    return make


def opposite_infinities() -> bytes:
    samples = tone(channels=2)
    samples[123] = np.inf, -np.inf
    return encode(samples, subtype="FLOAT")


def flac_of_length(frames: int) -> Callable[[], bytes]:
    """A FLAC file whose header states another length; 0 means that it states none."""

    def make() -> bytes:
        data = bytearray(encode(container="FLAC"))
        data[21] = data[21] & 0xF0 | frames >> 32 & 15
        data[22:26] = struct.pack(">I", frames & 0xFFFFFFFF)
        return bytes(data)

    return make


def png() -> bytes:
    return b"\x89PNG\r\n\x1a\n" + bytes(500)


DAMAGED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty.wav": (lambda: b"", "empty"),
    "empty.flac": (lambda: b"", "empty"),
    "one_byte.wav": (lambda: b"R", "cannot be opened as audio"),
    "zeros.wav": (lambda: bytes(4096), "cannot be opened as audio"),
    "text.wav": (lambda: b"404 Not Found\n" * 50, "cannot be opened as audio"),
    "html.mp3": (lambda: b"<!DOCTYPE html><html><body>gone</body></html>" * 20, "is an HTML page"),
    "json.flac": (lambda: b'{"error": "not found"}', "cannot be opened as audio"),
    "png.wav": (png, "cannot be opened as audio"),
    "pickle.wav": (lambda: b"\x80\x02}q\x00.", "cannot be opened as audio"),
    "no_samples.wav": (lambda: encode(np.zeros((0, 1))), "no samples"),
    "no_samples_float.wav": (lambda: encode(np.zeros((0, 1)), subtype="FLOAT"), "no samples"),
    "no_samples.aiff": (lambda: encode(np.zeros((0, 1)), container="AIFF"), "no samples"),
    "header_only.wav": (lambda: encode()[:44], "cut off"),
    "half_a_header.wav": (lambda: encode()[:20], "cannot be opened as audio"),
    "riff_tag_only.wav": (lambda: encode()[:4], "cannot be opened as audio"),
    "flac_tag_only.flac": (lambda: b"fLaC", "cannot be opened as audio"),
    "ogg_tag_only.ogg": (lambda: b"OggS", "cut off"),
    "cut_99.wav": (cut(0.99), "cut off"),
    "cut_50.wav": (cut(0.5), "cut off"),
    "cut_float.wav": (cut(0.7, subtype="FLOAT"), "cut off"),
    "cut_adpcm.wav": (cut(0.7, subtype="MS_ADPCM"), "cut off"),
    "cut_last_byte.wav": (lambda: encode()[:-1], "cut off"),
    "cut.wavex": (cut(0.5, "WAVEX"), "cut off"),
    "cut.rf64": (cut(0.5, "RF64"), "cut off"),
    "cut.w64": (cut(0.5, "W64"), "cut off"),
    "cut.aiff": (cut(0.5, "AIFF"), "cut off"),
    "cut.au": (cut(0.5, "AU"), "cut off"),
    "cut.caf": (cut(0.99, "CAF"), "cut off"),
    "cut_early.caf": (cut(0.5, "CAF"), "cut off"),
    "cut.sph": (cut(0.5, "NIST"), "cut off"),
    "cut_99.flac": (cut(0.99, "FLAC"), "damaged"),
    "cut_50.flac": (cut(0.5, "FLAC"), "damaged"),
    "cut_99.ogg": (cut(0.99, "OGG", "VORBIS"), "cut off"),
    "cut_50.ogg": (cut(0.5, "OGG", "VORBIS"), "cut off"),
    "cut_99.opus": (cut(0.99, "OGG", "OPUS"), "cut off"),
    "cut_90.mp3": (cut(0.9, "MP3"), "cut off"),
    "cut_70.mp3": (cut(0.7, "MP3"), "cut off"),
    "cut_20.mp3": (cut(0.2, "MP3"), "no audio could be found in it"),
    "promises_more.wav": (patched(40, struct.pack("<I", 16000 + 2)), "cut off"),
    "promises_more.flac": (flac_of_length(8005), "damaged"),
    "promises_gigabytes.flac": (flac_of_length(2**36 - 1), "damaged"),
    "states_no_length.flac": (flac_of_length(0), "does not state its length"),
    "flipped.flac": (patched(3000, bytes(40), "FLAC"), "damaged"),
    "rate_1_hz.wav": (lambda: encode(rate=1), "sample rate of 1 Hz"),
    "rate_900_hz.wav": (lambda: encode(rate=900), "sample rate of 900 Hz"),
    "no_channels.wav": (patched(22, b"\x00\x00"), "cannot be opened as audio"),
    "unknown_codec.wav": (patched(20, b"\x99\x99"), "cannot be opened as audio"),
    "nan.wav": (with_value(np.nan), "not finite"),
    "inf.wav": (with_value(np.inf), "not finite"),
    "minus_inf.wav": (with_value(-np.inf), "not finite"),
    "nan_double.wav": (with_value(np.nan, "DOUBLE"), "not finite"),
    "nan_stereo.wav": (with_value(np.nan, channels=2), "not finite"),
    "beyond_float32.wav": (with_value(1e300, "DOUBLE"), "not finite"),
    "opposite_infinities.wav": (opposite_infinities, "not finite"),
}  # fmt: skip


def test_there_are_more_than_thirty_kinds_of_damage() -> None:
    assert len(DAMAGED) > 30


@pytest.mark.parametrize("name", sorted(DAMAGED))
def test_a_damaged_file_is_an_audio_error_that_names_it(tmp_path: Path, name: str) -> None:
    make, expected = DAMAGED[name]
    path = put(tmp_path / name, make())
    descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with pytest.raises(AudioError, match=expected) as caught:
        load_audio(path)
    message = str(caught.value)
    assert str(path) in message
    assert caught.value.what and caught.value.fix, "what happened, what to do"
    assert os.listdir(tmp_path) == [name]
    if descriptors:
        assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.parametrize("name", [name for name in sorted(DAMAGED) if DAMAGED[name][1] not in ("not finite", "damaged")])
def test_probe_finds_the_damage_that_a_header_shows(tmp_path: Path, name: str) -> None:
    make, expected = DAMAGED[name]
    path = put(tmp_path / name, make())
    if name.endswith(".mp3") and expected == "cut off":
        assert probe(path).frames == 8000
        return
    with pytest.raises(AudioError, match=expected):
        probe(path)


def test_a_missing_file_a_folder_and_a_pipe_are_named(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"gone\.wav does not exist"):
        load_audio(tmp_path / "gone.wav")
    with pytest.raises(AudioError, match="is a folder"):
        load_audio(tmp_path)
    with pytest.raises(AudioError, match="not a regular file"):
        load_audio("/dev/null")
    with pytest.raises(AudioError, match="cannot be opened"):
        load_audio(tmp_path / ("n" * 300 + ".wav"))
    with pytest.raises(AudioError, match="cannot be opened"):
        load_audio("nul\0byte.wav")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    path = put(tmp_path / "secret.wav", encode())
    path.chmod(0)
    with pytest.raises(AudioError, match=r"secret\.wav cannot be opened"):
        load_audio(path)


@pytest.mark.parametrize("rate", [0, -16000, 10, 10**7])
def test_an_impossible_target_rate_is_refused(rate: int) -> None:
    with pytest.raises(AudioError, match="sample_rate is"):
        load_audio(SPEECH[0], rate)


def test_random_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    originals = [encode(tone(500)), encode(tone(500), container="FLAC"), encode(tone(500), container="OGG"),
                 encode(tone(500), container="AIFF"), encode(tone(500), container="CAF")]  # fmt: skip
    path = tmp_path / "sound"
    refused = 0
    for round_ in range(400):
        data = bytearray(originals[round_ % len(originals)])
        for at in random.integers(0, min(len(data), 200), size=6):
            data[at] = random.integers(0, 256)
        path.write_bytes(bytes(data))
        try:
            assert bool(load_audio(path).isfinite().all())
        except HubcoreError as error:
            assert isinstance(error, AudioError) and str(path) in str(error)
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("header", [b"RIFF\x00\x00\x00\x00WAVE", b"FORM\x00\x00\x00\x00AIFF", b"caff\x00\x01\x00\x00",
                                    b"NIST_1A\n   1024\nsample_count -i many\n", b".snd", b"RF64", b""])  # fmt: skip
def test_shortage_does_not_judge_a_header_without_a_length(header: bytes) -> None:
    assert shortage(header) is None


# What a header says that is not so ------------------------------------------------------------------------------------

JOINED = [("MP3", None), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("FLAC", None), ("AU", None), ("WAV", None), ("CAF", None),
          ("AIFF", None), ("W64", None), ("RF64", None), ("NIST", None)]  # fmt: skip


@pytest.mark.parametrize(("container", "subtype"), JOINED, ids=str)
@pytest.mark.parametrize("same", [False, True], ids=["two files", "one file twice"])
def test_joined_files_are_refused_with_the_place_where_they_meet(
    tmp_path: Path, container: str, subtype: str | None, same: bool
) -> None:
    first = encode(tone(8000), container=container, subtype=subtype)
    second = first if same else encode(tone(6000), container=container, subtype=subtype)
    path = put(tmp_path / "both", first + second)
    with pytest.raises(AudioError, match=f"joined.*last {len(second)} bytes.*`head -c {len(first)} IN`") as caught:
        load_audio(path)
    with pytest.raises(AudioError, match=f"joined.*last {len(second)} bytes"):
        probe(path)
    place = int(caught.value.fix.partition("tail -c +")[2].split()[0])
    path.write_bytes((first + second)[place - 1 :])
    assert len(load_audio(path)) == (8000 if same else 6000), "what the command for the rest gives"


@pytest.mark.parametrize("lengths", [(9000, 5000), (5000, 9000)])
def test_the_last_frame_of_a_large_flac_file_tells_that_it_is_joined(
    tmp_path: Path, lengths: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio_headers, "_SMALL", 0)
    parts = [encode(tone(samples), container="FLAC") for samples in lengths]
    with pytest.raises(AudioError, match=f"joined.*last {len(parts[1])} bytes"):
        probe(put(tmp_path / "both.flac", b"".join(parts)))
    assert [probe(put(tmp_path / "one.flac", part)).frames for part in parts] == [*lengths]


def test_a_file_that_is_cut_or_fails_while_it_is_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "a.wav", encode(tone(80_000)))

    def cut_first(data: audio_headers.Data) -> str | None:
        os.truncate(path, 100)
        assert data.find(b"data", 0) == 36  # what was read before is still there
        data[100_000:100_004]
        return None

    monkeypatch.setattr(audio, "shortage", cut_first)
    with pytest.raises(AudioError, match=r"a\.wav is cut off: it had 160044 bytes when it was opened, and then fewer"):
        probe(path)

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(AudioError, match=r"a\.wav cannot be read: Input/output error\. Check its disk"):
        audio._Bytes(Failing(bytes(1)), "a.wav")[0]


def test_a_file_of_more_samples_than_memory_holds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "_MOST_SAMPLES", 8000)
    assert len(load_audio(put(tmp_path / "a.flac", encode(container="FLAC")))) == 8000
    path = put(tmp_path / "b.flac", encode(tone(8001), container="FLAC"))
    assert probe(path).frames == 8001
    with pytest.raises(AudioError, match=r"b\.flac has 8001 samples \(0\.5 s\), more than 8000\. Cut it"):
        load_audio(path)


@pytest.mark.parametrize("record", [True, False], ids=["with a tag between", "the second without a record"])
def test_joined_mp3_files_of_other_forms_are_refused_too(tmp_path: Path, record: bool) -> None:
    first, second = encode(container="MP3"), encode(tone(30_000), container="MP3")
    second = b"ID3\4\0\0\0\0\0\x40" + bytes(64) + second if record else without_index(second)
    (tmp_path / "both.mp3").write_bytes(first + second)
    with pytest.raises(AudioError, match=f"last {len(second)} bytes"):
        probe(tmp_path / "both.mp3")


def wav(riff: int, data: int, samples: int = 8000, more: bytes = b"") -> bytes:
    """A WAV file of zeros that states these sizes."""
    head = bytearray(encode(np.zeros(1))[:44])
    head[4:8], head[40:44] = struct.pack("<I", riff), struct.pack("<I", data)
    return bytes(head) + bytes(2 * samples) + more


def test_samples_after_those_that_a_wav_file_states_are_told(tmp_path: Path) -> None:
    path = put(tmp_path / "long.wav", wav(32036, 32000, 16000, encode(tone(47216))[44:]))
    for read in (probe, load_audio):
        with pytest.raises(AudioError, match=r"94432 bytes follow that are no metadata.*--ignore-length"):
            read(path)


def test_a_wav_file_above_4_gib_whose_sizes_wrapped_is_told(tmp_path: Path) -> None:
    path = put(tmp_path / "huge.wav", wav(640036, 640000, 0))
    os.truncate(path, 44 + 640000 + 2**32)  # sparse
    with pytest.raises(AudioError, match=f"{2**32} bytes follow"):
        load_audio(path)
    path.write_bytes(wav(0, 0, 0))
    os.truncate(path, 44 + 640000 + 2**32)
    with pytest.raises(AudioError, match="640001 bytes follow"):
        load_audio(path)


@pytest.mark.parametrize("more", [
    b"LIST" + struct.pack("<I", 4) + b"INFO" + b"id3 " + struct.pack("<I", 3) + b"abc", bytes(3), bytes(1000),
    b"TAG" + bytes(125), b"ID3\4" + bytes(50), b"LIST" + struct.pack("<I", 5) + b"INFO\0\0",
])  # fmt: skip
@pytest.mark.parametrize("samples", [8000, 8001])
def test_metadata_and_padding_after_the_samples_are_no_audio(tmp_path: Path, more: bytes, samples: int) -> None:
    path = put(tmp_path / "tagged.wav", wav(36 + samples, samples, samples // 2, bytes(samples % 2) + more))
    assert len(load_audio(path)) == samples // 2


def test_an_odd_number_of_bytes_need_not_be_padded(tmp_path: Path) -> None:
    data = bytearray(encode(tone(401), subtype="PCM_U8"))[: 44 + 401] + b"LIST" + struct.pack("<I", 4) + b"INFO"
    (tmp_path / "odd.wav").write_bytes(data)
    assert len(load_audio(tmp_path / "odd.wav")) == 401


UNSTATED = {
    "WAV": (40, "<I", (0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFF0000, 0x80000000)),
    "AU": (8, ">I", (0, 0xFFFFFFFF, 0x7FFFFFFF)),
    "AIFF": (42, ">I", (0, 0xFFFFFFFF)),
    "CAF": (68, ">q", (0, -1)),
    "W64": (96, "<Q", (0, 2**64 - 1, 2**63 - 1)),
    "RF64": (28, "<Q", (0, 2**64 - 1)),
}


@pytest.mark.parametrize("container", UNSTATED)
@pytest.mark.parametrize("riff", [None, 0, 0xFFFFFFFF])
def test_a_stream_that_states_no_size_is_read_to_its_end_and_that_is_said(
    tmp_path: Path, container: str, riff: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    at, code, sizes = UNSTATED[container]
    whole = encode(container=container)
    if container == "CAF":
        at = whole.index(b"data", 60) + 4
    if container == "W64":
        at = whole.index(b"data\xf3") + 16
    if container == "AIFF":
        at = whole.index(b"SSND") + 4
    for size in sizes:
        data = bytearray(whole)
        struct.pack_into(code, data, at, size)
        if riff is not None and container == "WAV":
            struct.pack_into("<I", data, 4, riff)
        path = put(tmp_path / f"{size}", bytes(data))
        caplog.clear()
        for _ in range(2):
            assert len(load_audio(path)) == probe(path).frames == 8000
        assert [record.getMessage() for record in caplog.records] == [
            f"{path} does not state its length, as a stream; it is read to its end, 8000 samples"
        ]


def test_a_wav_file_of_3_gib_that_was_cut_is_no_stream(tmp_path: Path) -> None:
    (tmp_path / "cut.wav").write_bytes(wav(0xC0000024, 0xC0000000))
    with pytest.raises(AudioError, match="cut off: its header promises 3221225472 bytes"):
        load_audio(tmp_path / "cut.wav")


def test_an_empty_file_with_metadata_is_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").write_bytes(wav(48, 0, 0, b"LIST" + struct.pack("<I", 4) + b"INFO"))
    with pytest.raises(AudioError, match="has a header and no samples"):
        load_audio(tmp_path / "empty.wav")


def with_fact(subtype: str, samples: int, stated: int, container: str = "WAV") -> bytes:
    data = bytearray(encode(tone(samples), container=container, subtype=subtype))
    struct.pack_into(
        "<I" if container == "WAV" else "<Q", data, data.index(b"fact") + (8 if container == "WAV" else 24), stated
    )
    return bytes(data)


@pytest.mark.parametrize(
    ("subtype", "container"),
    [("IMA_ADPCM", "WAV"), ("MS_ADPCM", "WAV"), ("GSM610", "WAV"), ("G721_32", "WAV"), ("IMA_ADPCM", "W64")],
)
def test_the_padding_of_the_last_block_is_no_audio(tmp_path: Path, subtype: str, container: str) -> None:
    path = put(tmp_path / "blocks.wav", with_fact(subtype, 1216, 1216, container))
    assert probe(path).frames == len(load_audio(path)) == 1216
    for nonsense in (0, 2**32 - 1):
        path.write_bytes(with_fact(subtype, 1216, nonsense, container))
        assert probe(path).frames == len(load_audio(path)) >= 1216


def test_samples_beyond_the_count_of_a_sphere_file_are_padding(tmp_path: Path) -> None:
    path = put(tmp_path / "padded.sph", encode(container="NIST") + bytes(500))
    assert probe(path).frames == len(load_audio(path)) == 8000, "libsndfile gives 8250"


def test_a_valid_mp3_of_varying_rate_without_a_record_is_read_to_its_end(tmp_path: Path) -> None:
    speech = np.concatenate([load_audio(path).numpy() for path in SPEECH[:3]])
    path = tmp_path / "sound.mp3"
    data = without_index(encode(speech, container="MP3"))
    path.write_bytes(data)
    assert len(soundfile.read(path)[0]) < 0.8 * len(speech), "the premise: libsndfile alone drops the end in silence"
    heard = load_audio(path).numpy()
    assert abs(probe(path).frames - len(heard)) < 1152 and 0 <= len(heard) - len(speech) < 4 * 1152
    lag = int(np.argmax(np.correlate(heard[-16000:], speech[-8000:], "valid")))
    assert np.corrcoef(heard[-16000:][lag : lag + 8000], speech[-8000:])[0, 1] > 0.9
    assert soundfile.info(mpeg_with_length(data)).frames == len(heard)


def mp3_in_wav(mp3: bytes, samples: int, codec: int = 0x55) -> bytes:
    form = struct.pack("<HHIIHHHHIHHH", codec, 1, 16000, 4000, 1, 0, 12, 1, 2, 144, 1, 1393)
    chunks = ((b"fmt ", form), (b"fact", struct.pack("<I", samples)), (b"data", mp3 + bytes(len(mp3) % 2)))
    body = b"WAVE" + b"".join(name + struct.pack("<I", len(chunk)) + chunk for name, chunk in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("record", [True, False])
def test_mp3_inside_wav_is_read_with_and_without_a_record(tmp_path: Path, record: bool) -> None:
    speech = load_audio(SPEECH[0]).numpy()
    mp3 = encode(speech, container="MP3", bitrate_mode="VARIABLE", compression_level=0.5)
    path = put(tmp_path / "mp3.wav", mp3_in_wav(mp3 if record else without_index(mp3), len(speech)))
    assert 0 <= len(load_audio(path)) - len(speech) < (1 if record else 4 * 1152)


@pytest.mark.parametrize("stated", [1, 4096, 12288, 15999])
def test_a_flac_file_with_more_samples_than_its_header_states_is_told(tmp_path: Path, stated: int) -> None:
    data = bytearray(encode(tone(16000), container="FLAC"))
    data[22:26] = struct.pack(">I", stated)
    (tmp_path / "long.flac").write_bytes(data)
    assert len(soundfile.read(tmp_path / "long.flac")[0]) == stated, "the premise"
    for read in (probe, load_audio):
        with pytest.raises(AudioError, match=f"states {stated} samples, but its last frame ends at sample 16000"):
            read(tmp_path / "long.flac")


@pytest.mark.parametrize("rate", [8000, 16000, 12345, 48001, 192_000])
@pytest.mark.parametrize("samples", [20, 4096, 4097, 70_000, 800_000])
def test_a_whole_flac_file_says_so_itself(tmp_path: Path, rate: int, samples: int) -> None:
    noise = np.random.default_rng(samples).standard_normal((samples, 2 if samples < 99_999 else 1)) / 4
    data = bytearray(encode(noise, rate, container="FLAC"))
    assert damage(bytes(data)) is None
    data[22:26] = struct.pack(">I", samples - 1)
    assert f"at sample {samples}" in str(damage(bytes(data)))


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_file_with_pages_missing_or_changed_is_damaged(tmp_path: Path, subtype: str) -> None:
    data = encode(np.random.default_rng(0).standard_normal(160_000) / 8, container="OGG", subtype=subtype)
    pages = [data[at : at + length] for at, length in _ogg_pages(data)]
    assert len(pages) > 8 and b"".join(pages) == data
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    for name, damaged in {
        "missing": b"".join(pages[:4] + pages[6:]),
        "swapped": b"".join([*pages[:4], pages[5], pages[4], *pages[6:]]),
        "changed": bytes(changed),
        "zeros": data[: len(data) // 2] + bytes(50) + data[len(data) // 2 + 50 :],
    }.items():
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(AudioError, match=f"{name} is damaged: .*Ogg page"):
            load_audio(tmp_path / name)


SPHERE = b"""NIST_1A
   1024
sample_count -i 8000
sample_n_bytes -i 2
channel_count -i 1
sample_byte_format -s2 01
sample_rate -i 16000
sample_coding -s26 pcm,embedded-shorten-v2.00
end_head
""".ljust(1024)
NOT_READ = {
    "shorten.sph": (SPHERE + b"ajkg\2" + bytes(900), "NIST Sphere file compressed with shorten", "sph2pipe"),
    "pointer.wav": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "git-lfs pointer", "git lfs pull"),
    "annex.flac": (b"/annex/objects/SHA256E-s3--00.flac\n", "git-annex pointer", "git annex get"),
    "song.wav": (bytes(3) + b"\x1cftypM4A " + bytes(100), "MP4", "ffmpeg"),
    "phone.wav": (b"#!AMR\n" + bytes(100), "AMR", "ffmpeg"),
    "song.mp3": (b"\xff\xf1\x50\x80" + bytes(100), "AAC", "ffmpeg"),
    "video.ogg": (b"\x1a\x45\xdf\xa3" + bytes(100), "Matroska", "ffmpeg"),
    "packed.wav": (b"wvpk" + bytes(100), "WavPack", "wvunpack"),
    "packed.flac": (b"\x1f\x8b\x08" + bytes(100), "compressed with gzip", "gunzip"),
    "wma.wav": (mp3_in_wav(bytes(100), 8000, 0x161), "WMA inside WAV", "ffmpeg"),
}


@pytest.mark.parametrize("name", NOT_READ)
def test_what_is_not_read_is_named_for_what_it_is_with_the_command_that_helps(tmp_path: Path, name: str) -> None:
    data, kind, command = NOT_READ[name]
    (tmp_path / name).write_bytes(data)
    for read in (probe, load_audio):
        with pytest.raises(AudioError, match=f"is an? {kind}|is {kind}") as caught:
            read(tmp_path / name)
        assert command in caught.value.fix


@pytest.mark.parametrize("channels", [2, 6])
def test_channels_that_cancel_each_other_are_told_file_by_file(
    tmp_path: Path, channels: int, caplog: pytest.LogCaptureFixture
) -> None:
    half = tone(8000) + np.random.default_rng(0).standard_normal((8000, channels // 2))
    files = {
        "opposite": np.hstack([half, -half]),
        "again": np.hstack([half, -0.95 * half]),
        "fine": np.hstack([half, half]),
        "silent": np.zeros((100, channels)),
        "unrelated": np.random.default_rng(1).standard_normal((8000, channels)),
    }
    for name, samples in files.items():
        (tmp_path / name).write_bytes(encode(samples / 8))
        load_audio(tmp_path / name)
        load_audio(tmp_path / name)
    told = [record.getMessage() for record in caplog.records if "that cancel" in record.getMessage()]
    assert [Path(message.split(" has ")[0]).name for message in told] == ["opposite", "again"]


# What is found --------------------------------------------------------------------------------------------------------


@pytest.fixture
def corpus(tmp_path: Path) -> Iterator[Path]:
    for name in ("b/2.wav", "b/1.flac", "a.WAV", "c.d/e.f.mp3", ".hidden/x.wav", "b/.y.wav", "notes.txt", "wav", "b/z.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    yield tmp_path


def test_folders_are_searched_in_a_fixed_order(corpus: Path) -> None:
    names = [path.relative_to(corpus).as_posix() for path in find_audio([corpus])]
    assert names == ["a.WAV", "b/1.flac", "b/2.wav", "c.d/e.f.mp3"]


def test_files_are_taken_as_they_are_and_never_twice(corpus: Path) -> None:
    paths = find_audio([corpus / "notes.txt", corpus / "b", corpus / "b" / "2.wav", str(corpus / "b" / "..")])
    assert [path.name for path in paths] == ["notes.txt", "1.flac", "2.wav", "a.WAV", "e.f.mp3"]


def test_links_are_followed_and_loops_end(corpus: Path) -> None:
    (corpus / "b" / "up").symlink_to(corpus)
    (corpus / "c.d" / "linked").symlink_to(corpus / "b")
    names = ["a.WAV", "b/1.flac", "b/2.wav", "c.d/e.f.mp3", "c.d/linked/1.flac", "c.d/linked/2.wav"]
    assert [path.relative_to(corpus).as_posix() for path in find_audio([corpus])] == names
    (corpus / "b" / "beside").symlink_to(corpus / "c.d")
    (corpus / "c.d" / "again").symlink_to(corpus / "b")
    assert len(find_audio([corpus])) == 9, "links into one another are followed until they meet a folder above"


def test_links_into_one_another_cost_a_bounded_time(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "_MOST_AGAIN", 100)
    for here in "pqrstuv":
        (corpus / here).mkdir()
        for there in "pqrstuv":
            (corpus / here / f"to_{there}").symlink_to(corpus / there)
    with pytest.raises(AudioError, match="links that lead to the same folders more than 100 times"):
        find_audio([corpus])


def test_two_names_of_one_file_are_two_files(corpus: Path) -> None:
    (corpus / "b" / "again.wav").symlink_to(corpus / "b" / "2.wav")
    os.link(corpus / "b" / "2.wav", corpus / "b" / "third.wav")
    assert [path.name for path in find_audio([corpus / "b"])] == ["1.flac", "2.wav", "again.wav", "third.wav"]
    assert len(find_audio([corpus / "b" / "2.wav", corpus / "b" / "again.wav", corpus / "b" / ".." / "b" / "2.wav"])) == 2
    (corpus / "elsewhere").symlink_to(corpus / "b")
    (corpus / "2.wav").touch()
    paths = [corpus / "2.wav", corpus / "elsewhere" / ".." / "2.wav", corpus / "elsewhere" / "2.wav"]
    assert len(find_audio(paths)) == 2, "the second is the first, the third is not"


def test_every_path_that_is_missing_is_named(corpus: Path) -> None:
    with pytest.raises(AudioError, match=r"x\.wav, .*y\.wav do not exist\."):
        find_audio([corpus / "x.wav", corpus / "a.WAV", corpus / "y.wav"])


def test_links_that_lead_nowhere_are_each_a_file_that_cannot_be_used(corpus: Path) -> None:
    for number in range(20):
        (corpus / "b" / f"gone{number:02}.wav").symlink_to("../blobs/00")
    gone = [path for path in find_audio([corpus / "b", corpus / "b" / "gone00.wav"]) if "gone" in path.name]
    assert len(gone) == 20 and find_audio(gone) == gone
    for path in gone:
        with pytest.raises(AudioError, match=rf"{path.name} is a link to \.\./blobs/00, which does not exist\. Fetch"):
            probe(path)


def test_what_may_be_audio_and_is_not_read_is_counted_and_named(corpus: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("b/b.m4a", "c.AAC", "d.wv1", "e.wav.gz", "f.flac.part", "notes.gz", "g.json", ".h.m4a"):
        (corpus / name).touch()
    (corpus / "train").symlink_to("/mnt/not/there")
    (corpus / "README").symlink_to("notes.txt")
    find_audio([corpus])
    (told,) = [record.getMessage() for record in caplog.records]
    names = "c.AAC, d.wv1, e.wav.gz, f.flac.part, train (a link that leads nowhere), b/b.m4a"
    assert told.startswith(f"6 files in {corpus} may be audio but cannot be read: {names}. `ffmpeg")
    caplog.clear()
    for number in range(30):
        (corpus / f"{number}.m4a").touch()
    find_audio([corpus])
    assert "36 files" in caplog.text and "and 16 more" in caplog.text


def test_a_missing_path_and_a_folder_without_audio_are_errors(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="nowhere does not exist"):
        find_audio([tmp_path / "nowhere"])
    (tmp_path / "notes.txt").touch()
    with pytest.raises(AudioError, match="folder without an audio file"):
        find_audio([tmp_path])


@pytest.mark.parametrize("inner", [False, True])
def test_a_folder_that_cannot_be_listed_is_named(corpus: Path, monkeypatch: pytest.MonkeyPatch, inner: bool) -> None:
    locked = corpus / "b" if inner else corpus
    scandir = os.scandir

    def guarded(path: str) -> object:
        if Path(path) == locked:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(AudioError, match="cannot be listed: Permission denied") as caught:
        find_audio([corpus])
    assert str(caught.value).startswith(f"{locked} ")


def test_a_path_that_cannot_be_reached_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = "n" * 5000
    with pytest.raises(AudioError, match=r"n\.\.\. \(5000 characters\) cannot be reached: File name too long") as caught:
        find_audio([long])
    assert len(str(caught.value)) < 600
    with pytest.raises(AudioError, match="cannot be reached"):
        find_audio(["nul\0byte.wav"])
    (tmp_path / "a.wav").touch()
    with pytest.raises(AudioError, match=r"b\.wav does not exist"):
        find_audio([tmp_path / "a.wav" / "b.wav"])
    looked_at = os.stat

    def guarded(path: object, **options: object) -> os.stat_result:
        if os.fspath(path) == str(tmp_path / "locked" / "b.wav"):  # type: ignore[call-overload]
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return looked_at(path, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(os, "stat", guarded)
    with pytest.raises(AudioError, match=r"locked/b\.wav cannot be reached: Permission denied\. Check"):
        find_audio([tmp_path / "locked" / "b.wav"])


def test_every_extension_is_lower_case_and_without_a_dot() -> None:
    assert all(ending == ending.lower().lstrip(".") for ending in AUDIO_EXTENSIONS)


# Parts, and audio inside other files ----------------------------------------------------------------------------------


SEEKS = [("WAV", "PCM_16"), ("WAV", "MS_ADPCM"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("CAF", "ALAC_16")]
PARTS = ((0.0, 0.5), (0.4321, 1.0), (1.5, 2.5), (1.9999, None), (0.0, 2.5))


@pytest.mark.parametrize(("container", "subtype"), [*SEEKS, ("WAV", "GSM610"), ("MP3", "MPEG_LAYER_III")])
def test_a_part_is_what_the_whole_has_there(tmp_path: Path, container: str, subtype: str) -> None:
    path = put(tmp_path / "a", encode(tone(16000, rate=8000), 8000, container, subtype))
    whole = load_audio(path, 8000)
    for start, end in PARTS:
        part = load_audio(path, 8000, start=start, end=end)
        cut = whole[round(start * 8000) : None if end is None else round(end * 8000)]
        torch.testing.assert_close(part, cut, atol=2e-7 if container == "MP3" else 0, rtol=0)
        assert probe(path, start=start, end=end).frames == len(part)
        resampled = torch.from_numpy(soxr.resample(cut.numpy(), 8000, 16000, quality="HQ"))
        torch.testing.assert_close(load_audio(path, start=start, end=end), resampled, atol=1e-6, rtol=0)


def test_an_mp3_file_is_the_same_whatever_is_decoded_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "a.mp3", encode(tone(40_000), container="MP3"))
    whole = load_audio(path)
    monkeypatch.setattr(audio, "_BLOCK", 9000)
    torch.testing.assert_close(load_audio(path), whole, atol=2e-7, rtol=0)


def test_only_the_part_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "a.flac", encode(tone(160_000), container="FLAC"))
    decoded = []
    read = soundfile.SoundFile.read

    def counted(self: soundfile.SoundFile, frames: int = -1, **options: object) -> np.ndarray:
        block = read(self, frames, **options)
        decoded.append(len(block))
        return block

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    assert len(load_audio(path, start=8, end=8.5)) == sum(decoded) == 8000


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        (0.5, None, r"has 0\.500 s, and the part from 0\.5 s on goes beyond its end"),
        (0.1, 1.1, r"has 0\.500 s, and the part from 0\.1 to 1\.1 s goes beyond"),
        (0.2, 0.20001, r"the part from 0\.2 to 0\.20001 s has no sample"),
    ],
)
def test_a_part_that_is_not_there_is_an_error(tmp_path: Path, start: float, end: float | None, said: str) -> None:
    path = put(tmp_path / "a.wav", encode())
    for read in (load_audio, probe):
        with pytest.raises(AudioError, match=rf"a\.wav.* {said}|a\.wav: {said}"):
            read(path, start=start, end=end)


def test_times_in_lists_are_rounded_so_the_end_may_lie_half_a_second_beyond(tmp_path: Path) -> None:
    path = put(tmp_path / "a.wav", encode())
    assert len(load_audio(path, start=0.25, end=0.99)) == probe(path, start=0.25, end=0.99).frames == 4000


def test_a_channel_is_read_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    samples = tone(channels=2).astype(np.float32)
    path = put(tmp_path / "a.wav", encode(samples, subtype="FLOAT"))
    for channel in (0, 1):
        np.testing.assert_array_equal(load_audio(path, channel=channel), samples[:, channel])
    assert "averaging" not in caplog.text
    for read in (load_audio, probe):
        with pytest.raises(AudioError, match=r"a\.wav has 2 channels, so no channel 2, as they are counted from 0"):
            read(path, channel=2)


def test_a_damaged_file_costs_each_of_its_parts_and_is_searched_once_if_it_is_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode(tone(320_000), container="OGG", subtype="VORBIS")
    path = put(tmp_path / "a.ogg", data)
    searched = []
    damage = audio.damage
    monkeypatch.setattr(audio, "damage", lambda data, whole: searched.append(whole) or damage(data, whole=whole))
    for start in range(3):
        load_audio(path, start=start, end=start + 1)
    assert searched == [True, False, False]
    middle = len(data) // 2
    put(path, data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    os.utime(path, ns=(0, 0))
    for start in range(2):
        with pytest.raises(AudioError, match="checksum"):
            load_audio(path, start=start, end=start + 1)


@pytest.mark.parametrize(("container", "subtype"), [*SEEKS, ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16")])
def test_audio_inside_another_file_is_read_as_a_file_of_its_own(tmp_path: Path, container: str, subtype: str) -> None:
    data = encode(tone(), 8000, container, subtype)
    path = put(tmp_path / "a", data)
    outer = put(tmp_path / "b.tar", b"RIFF" * 100 + data + b"RIFF" * 100)
    for inside in (Embedded("b.tar/a", str(outer), 400, len(data)), AudioBytes("b.tar/a", data)):
        torch.testing.assert_close(load_audio(inside), load_audio(path), atol=0, rtol=0)
        assert load_audio(inside, 8000, start=0.5).equal(load_audio(path, 8000, start=0.5))
        assert probe(inside).frames == probe(path).frames


def test_broken_audio_inside_another_file_is_named(tmp_path: Path) -> None:
    data = encode()
    cut = put(tmp_path / "b.tar", data[:3000])
    cases = {
        "is cut off: its header": [Embedded("b.tar/a", str(cut), 0, len(data)), AudioBytes("b.tar/a", data[:3000])],
        "is empty": [
            Embedded("b.tar/a", str(cut), 3000, 0),
            Embedded("b.tar/a", str(cut), 9999, 9),
            AudioBytes("b.tar/a", b""),
        ],
        "cannot be opened as audio": [Embedded("b.tar/a", str(cut), 4, 1000), AudioBytes("b.tar/a", b"no audio" * 99)],
        "does not exist": [Embedded("b.tar/a", str(tmp_path / "b.tar/a"), 0, 9)],
    }
    for said, audios in cases.items():
        for inside in audios:
            for read in (load_audio, probe):
                with pytest.raises(AudioError, match=rf"b\.tar/a {said}"):
                    read(inside)


# FFmpeg ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def m4a(tmp_path_factory: pytest.TempPathFactory) -> Path:
    av = pytest.importorskip("av")
    path: Path = tmp_path_factory.mktemp("m4a") / "a.m4a"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("aac", rate=16000, layout="stereo")
        for at in range(0, 32000, 1000):
            samples = np.ascontiguousarray(tone(32000, channels=2).T[:, at : at + 1000], dtype=np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
            frame.rate, frame.pts, frame.time_base = 16000, at, Fraction(1, 16000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_ffmpeg_decodes_what_libsndfile_does_not(m4a: Path, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="an MP4 file"):
        load_audio(m4a)
    wav = load_audio(m4a, ffmpeg=True)
    assert abs(len(wav) - 32000) < 2048 and probe(m4a, ffmpeg=True).frames == len(wav)
    assert np.abs(wav[:30000].numpy() - tone(32000, channels=2).mean(axis=1)[:30000]).max() < 0.1
    assert load_audio(m4a, ffmpeg=True, start=0.5, end=1.0).equal(wav[8000:16000])
    second = load_audio(m4a, ffmpeg=True, channel=1)
    assert np.abs(second[:30000].numpy() - tone(32000, channels=2)[:30000, 1]).max() < 0.1
    assert load_audio(AudioBytes("x/a.m4a", m4a.read_bytes()), ffmpeg=True).equal(wav)
    plain = put(tmp_path / "a.wav", encode())
    assert load_audio(plain, ffmpeg=True).equal(load_audio(plain)), "libsndfile reads what it can"
    assert find_audio([m4a.parent], ffmpeg=True) == [m4a]


def test_telephone_prompts_without_a_header_are_known_by_their_ending(tmp_path: Path) -> None:
    av, data = pytest.importorskip("av"), io.BytesIO()
    with av.open(data, "w", format="g722") as container:
        stream = container.add_stream("g722", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray((tone(16000).T * 32767).astype(np.int16), format="s16", layout="mono")
        frame.rate = 16000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    path = put(tmp_path / "a.G722", data.getvalue())
    wav = load_audio(path, ffmpeg=True)
    assert len(data.getvalue()) == 8000 and len(wav) == 16000 and find_audio([tmp_path], ffmpeg=True) == [path]
    assert np.corrcoef(wav[22:].numpy(), tone(16000)[:-22].reshape(-1))[0, 1] > 0.99  # its filters delay by 22 samples


def test_broken_files_that_ffmpeg_decodes_are_named(m4a: Path, tmp_path: Path) -> None:
    data = m4a.read_bytes()
    cut = put(tmp_path / "cut.m4a", data[: len(data) * 2 // 3])
    none = put(tmp_path / "none.m4a", b"no audio" * 100)
    empty = put(tmp_path / "empty.g722", b"")
    said_of = {cut: "is cut off|cannot be decoded", none: "cannot be decoded by FFmpeg", empty: "is empty, 0 bytes"}
    for path, said in said_of.items():
        for read in (load_audio, probe):
            with pytest.raises(AudioError, match=rf"{path.name} ({said})"):
                read(path, ffmpeg=True)
