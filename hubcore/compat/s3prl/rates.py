"""Samples between two frames as one whole number, which s3prl's interface asks for. Imports no torch."""

from __future__ import annotations

from typing import Any

from hubcore.errors import OptionError


def downsample_rate(upstream: Any) -> int:
    """Samples from one frame to the next: the upstream's stride, or the mean that it is set to keep.

    An upstream whose frame rate depends on the input may have `mean_frame_stride`, None while no mean is set.

    Raises:
        OptionError: the frame rate depends on the input, and no mean is set.

    Example:
        >>> from hubcore import hub
        >>> downsample_rate(hub.load("fbank"))
        160
        >>> downsample_rate(hub.load("ofa_wav2vec2_tiny_prompts", frame_period_ms=40))
        640
    """
    stride = upstream.frame_stride or getattr(upstream, "mean_frame_stride", None)
    if stride is None:
        raise OptionError(
            f"{type(upstream).__name__} has no fixed number of samples between frames: it depends on the input.",
            fix="Set a mean with an option of this upstream, as `hubcore info` lists them, or use the lengths that come with "
            "the frames.",
        )
    return int(stride)


def rate_of_feature(upstream: Any, key: str = "hidden_states") -> int:
    """The `downsample_rate` of a feature, as `get_downsample_rates` of s3prl's models; all features of an upstream share one.

    Raises:
        OptionError: there is no such feature, or the rate depends on the input.
    """
    last = len(upstream.layer_names) - 1
    if key not in ("hidden_states", "last_hidden_state", *(f"hidden_state_{layer}" for layer in range(last + 1))):
        raise OptionError(
            f"there is no feature called {key!r}. There are hidden_states, last_hidden_state, and hidden_state_0 to "
            f"hidden_state_{last}."
        )
    return downsample_rate(upstream)
