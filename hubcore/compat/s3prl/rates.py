"""How many samples lie between two frames, in the one whole number that s3prl's interface has for it. Imports no torch."""

from __future__ import annotations

from typing import Any

from hubcore.errors import OptionError


def downsample_rate(upstream: Any) -> int:
    """Samples from one frame to the next: the upstream's stride, or the frame period that it is set to keep on average.

    Raises:
        OptionError: the frame rate depends on the input, and no period is set.

    Example:
        >>> from hubcore import hub
        >>> downsample_rate(hub.load("fbank"))
        160
        >>> downsample_rate(hub.load("ofa_wav2vec2_tiny_prompts", frame_period_ms=40))
        640
    """
    if upstream.frame_stride is not None:
        return int(upstream.frame_stride)
    period = getattr(upstream, "frame_period_ms", None)
    if period is not None:
        return max(1, round(float(period) * int(upstream.sample_rate) / 1000))
    raise OptionError(
        f"{type(upstream).__name__} has no fixed number of samples between frames: it depends on the input. s3prl's interface "
        "can only name one number. Set a mean period, such as extra_conf={'frame_period_ms': 40}, or use the lengths that come "
        "with the frames."
    )


class DownsampleRates:
    """`get_downsample_rates` of one upstream, the method that s3prl's models have."""

    def __init__(self, upstream: Any) -> None:
        self._upstream = upstream

    def __call__(self, key: str = "hidden_states") -> int:
        """The `downsample_rate` of a feature; all features of an upstream share one.

        Raises:
            OptionError: there is no such feature, or the rate depends on the input.
        """
        count = len(self._upstream.layer_names)
        prefix, _, index = key.rpartition("_")
        if key not in ("hidden_states", "last_hidden_state") and not (
            prefix == "hidden_state" and index.isdecimal() and int(index) < count
        ):
            raise OptionError(
                f"there is no feature called {key!r}. There are hidden_states, last_hidden_state, and hidden_state_0 to "
                f"hidden_state_{count - 1}."
            )
        return downsample_rate(self._upstream)
