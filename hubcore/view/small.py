"""Arrays of a page made small: pooled along time, quantised, compressed, as text.

Shapes: `F` frames, `D` dim.
"""

from __future__ import annotations

import base64
import io
import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

Array = NDArray[Any]
COLUMNS = 2400
"""Columns of a picture at most: more than any screen has."""
_TYPES = {"f4": "Float32Array", "i1": "Int8Array", "u1": "Uint8Array", "u2": "Uint16Array"}
"""Types of arrays that a page may have, and their names in JavaScript."""
_AUDIO = (("OGG", "OPUS", "audio/ogg"), ("FLAC", "PCM_16", "audio/flac"), ("WAV", "PCM_16", "audio/wav"))
"""Formats of the audio, the smallest first; which of them libsndfile writes depends on how it was built."""


def edges_of(times: Array) -> Array:
    """`(F + 1,)` seconds: frames may overlap or leave gaps, and each is drawn up to the middle between it and the next.

    Example:
        >>> edges_of(np.array([[0.0, 0.025], [0.02, 0.045]])).round(4).tolist()
        [0.0, 0.0225, 0.045]
    """
    inner = (times[:-1, 1] + times[1:, 0]) / 2
    return np.concatenate([times[:1, 0], inner, times[-1:, 1]])


def pooled(values: Array, edges: Array, most: int = COLUMNS) -> tuple[Array, Array]:
    """Means over neighbouring frames, as even as can be, that leave at most `most`; and their edges.

    Example:
        >>> values, edges = pooled(np.array([1.0, 3.0, 5.0]), np.arange(4), most=2)
        >>> values.tolist(), edges.tolist()
        ([1.0, 4.0], [0, 1, 3])
    """
    count = min(len(values), most)
    starts = np.arange(count) * len(values) // count
    counts = np.diff([*starts, len(values)])
    sums = np.add.reduceat(values.astype(np.float64), starts, axis=0)
    return sums / counts.reshape(-1, *[1] * (values.ndim - 1)), edges[[*starts, len(values)]]


def similarities(state: Array, edges: Array, most: int) -> tuple[Array, Array]:
    """Cosine of each pair of frames, less their mean over the utterance, `(N, N)`, and the `(N + 1,)` edges.

    Without the mean, which all frames of a layer share, every pair of speech would look alike.

    Example:
        >>> similarities(np.array([[1.0, 9.0], [-1.0, 9.0]]), np.arange(3), 100)[0].tolist()
        [[1.0, -1.0], [-1.0, 1.0]]
    """
    means, edges = pooled(np.nan_to_num(state, posinf=0, neginf=0), edges, most)
    means = means - means.mean(0)
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    unit = means / np.where(norms > 0, norms, 1)
    cosines: Array = np.clip(np.matmul(unit, unit.T), -1, 1)
    return cosines, edges


def quantised(values: Array, low: float, high: float) -> Array:
    """Values as uint8: `low` is 0, `high` is 255; what is no number is 0.

    Example:
        >>> quantised(np.array([-1.0, 0.0, 1.0, np.nan]), -1, 1).tolist()
        [0, 128, 255, 0]
    """
    scaled = (values.astype(np.float64) - low) * (255 / (high - low) if high > low else 0)
    found: Array = np.nan_to_num(scaled.clip(0, 255), nan=0).round().astype(np.uint8)
    return found


def outline(wav: Array) -> Array:
    """`(N, 2)` int8: lowest and highest sample of each column, the loudest of all being 127.

    Example:
        >>> outline(np.array([0.5, -0.25])).tolist()
        [[127, 127], [-64, -64]]
    """
    columns = np.arange(0, len(wav), max(1, math.ceil(len(wav) / (2 * COLUMNS))))
    both = np.stack([np.minimum.reduceat(wav, columns), np.maximum.reduceat(wav, columns)], 1)
    return (both * (127 / max(float(np.abs(wav).max()), 1e-4))).round().astype(np.int8)


def packed(arrays: Mapping[str, Array]) -> tuple[list[tuple[str, str, list[int]]], str]:
    r"""Arrays in one text, zlib and base64, and for each name, type in JavaScript, and shape.

    Example:
        >>> index, text = packed({"a": np.zeros((2, 3), np.uint8)})
        >>> index, zlib.decompress(base64.b64decode(text))
        ([('a', 'Uint8Array', [2, 3])], b'\x00\x00\x00\x00\x00\x00\x00\x00')
    """
    index, parts = [], []
    for name, array in arrays.items():
        index.append((name, _TYPES[array.dtype.str[1:]], [*array.shape]))
        data = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()
        parts.append(data + bytes(-len(data) % 4))  # in JavaScript, each begins at a multiple of its size
    return index, base64.b64encode(zlib.compress(b"".join(parts), 9)).decode("ascii")


def sound(wav: Array, sample_rate: int) -> tuple[str, str]:
    """The type of media and the base64 of a waveform: Opus at about 30 kbit/s, else FLAC, else WAV.

    Example:
        >>> sound(np.zeros(16000), 16000)[0]
        'audio/ogg'
    """
    for format, subtype, mime in _AUDIO[:-1]:
        file = io.BytesIO()
        try:
            soundfile.write(file, wav, sample_rate, format=format, subtype=subtype)
        except (soundfile.SoundFileError, ValueError):
            continue
        return mime, base64.b64encode(file.getvalue()).decode("ascii")
    format, subtype, mime = _AUDIO[-1]
    file = io.BytesIO()
    soundfile.write(file, wav, sample_rate, format=format, subtype=subtype)
    return mime, base64.b64encode(file.getvalue()).decode("ascii")
