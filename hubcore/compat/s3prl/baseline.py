"""s3prl's files of baseline features, such as its `fbank.yaml`, as options of the fbank family. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from hubcore.errors import OptionError
from hubcore.files import read_small
from hubcore.strict_yaml import parse_yaml

_KALDI = {
    "cepstral_lifter": "cepstral_lifter",
    "dither": "dither",
    "energy_floor": "energy_floor",
    "frame_length": "frame_length_ms",
    "frame_shift": "frame_shift_ms",
    "high_freq": "high_freq_hz",
    "low_freq": "low_freq_hz",
    "num_ceps": "num_ceps",
    "num_mel_bins": "num_mel_bins",
    "preemphasis_coefficient": "preemphasis",
    "raw_energy": "raw_energy",
    "remove_dc_offset": "remove_dc_offset",
    "sample_frequency": "sample_rate",
    "snip_edges": "snip_edges",
    "use_energy": "use_energy",
    "use_log_fbank": "use_log",
    "window_type": "window",
    "order": "delta_order",
    "win_length": "delta_window",
    "use_cmvn": "cmvn",
}
_STFT = {
    "win_ms": "frame_length_ms",
    "hop_ms": "frame_shift_ms",
    "n_mels": "num_mel_bins",
    "log": "use_log",
    "delta": "delta_order",
    "cmvn": "cmvn",
}
_MEANINGLESS = ("channel", "n_freq", "n_mfcc", "feat_type")


def baseline_settings(path: str | os.PathLike[str]) -> tuple[str, dict[str, Any]]:
    """The name and the options that a file for s3prl's `baseline_local` means.

    Raises:
        OptionError: the file cannot be read, or asks for what no name here has.
    """
    try:
        given = parse_yaml(read_small(os.path.expanduser(path), 1 << 20).decode("utf-8-sig"))
        if "kaldi" in given:
            kind, table = given["kaldi"]["feat_type"], _KALDI
            parts: list[Mapping[str, Any]] = [given["kaldi"].get(kind) or {}, given.get("delta") or {}, given.get("cmvn") or {}]
            known = ["fbank", "mfcc", "spectrogram"]
        else:
            kind, table = given["input"]["feat_type"], _STFT
            parts = [{key: value for key, value in given.items() if not isinstance(value, Mapping)}, given["input"]]
            known = ["mel", "linear"]
        settings = {key: value for part in parts for key, value in part.items() if key not in _MEANINGLESS}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise OptionError(f"{path} is no file of s3prl's baseline features ({error}). Its fbank.yaml is one.") from error
    unknown = [key for key in settings if key not in table]
    if kind not in known or unknown:
        what = f"asks for {kind!r} features" if kind not in known else f"sets {', '.join(map(str, unknown))}"
        raise OptionError(
            f"{path} {what}, which is not available here. There are {', '.join(known)}, with {', '.join(table)}. "
            "Load one of these names, with its options."
        )
    return kind, {table[key]: value for key, value in settings.items()}
