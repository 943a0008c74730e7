"""Audio that libsndfile does not read, decoded by FFmpeg through PyAV (`pip install 'hubcore[av]'`).

Shapes: `C` channels, `T` samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubcore.errors import AudioError
from hubcore.lazy import needs

_STATE_LENGTH = ("mov", "matroska")
"""Containers whose stated duration is exact enough to show that a file is cut off."""
_WITHOUT_HEADER = {"g722": "g722"}
"""FFmpeg's name of the format by the ending of a file whose content does not tell it."""
_TOLERANCE = 0.1
"""Seconds by which it may differ, as codecs add and drop samples at both ends."""


def decode_with_ffmpeg(file: Any, name: str) -> tuple[NDArray[np.float32], int]:
    """The first audio stream of a file: `(C, T)` and its rate in Hz.

    Args:
        file: with `read`, `seek` and `tell`.
        name: that of the file, for messages.

    Raises:
        AudioError: it has no audio, is damaged or cut off; it names the file.
        OptionError: PyAV is not installed.

    Example:
        >>> import io, soundfile
        >>> file = io.BytesIO()
        >>> soundfile.write(file, [0.5, -0.5], 16000, format="WAV")
        >>> decode_with_ffmpeg(io.BytesIO(file.getvalue()), "a.wav")
        (array([[ 0.5, -0.5]], dtype=float32), 16000)
    """
    av = needs("av", "av")
    blocks: list[NDArray[np.float32]] = []
    try:
        with av.open(file, format=_WITHOUT_HEADER.get(name.rpartition(".")[2].lower())) as container:
            stream = next(iter(container.streams.audio), None)
            if stream is None:
                raise AudioError(f"{name} has no audio stream.", fix="Leave it out.")
            rate = int(stream.rate)
            plain = av.AudioResampler(format="fltp", layout=stream.layout, rate=rate)
            frames = (frame for packet in container.demux(stream) for frame in packet.decode())
            blocks += [part.to_ndarray() for frame in frames for part in plain.resample(frame)]
            blocks += [part.to_ndarray() for part in plain.resample(None)]
            stated = stream.duration * stream.time_base if stream.duration else (container.duration or 0) / av.time_base
            exact = any(kind in container.format.name for kind in _STATE_LENGTH)
    except av.error.FFmpegError as error:
        what = f"{name} cannot be decoded by FFmpeg: {error.strerror or error}."
        raise AudioError(what, fix="Fetch or make it again, or leave it out.") from error
    samples = np.concatenate(blocks, axis=1) if blocks else np.zeros((1, 0), np.float32)
    seconds = samples.shape[1] / rate
    if not seconds:
        raise AudioError(f"{name} has no sample that FFmpeg could decode.", fix="Fetch it again, or leave it out.")
    if exact and seconds < float(stated) - _TOLERANCE:
        what = f"{name} is cut off: it promises {float(stated):.2f} s, and {seconds:.2f} s could be decoded."
        raise AudioError(what, fix="Fetch or make it again.")
    return samples, rate
