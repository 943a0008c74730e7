"""`--format lhotse`: one `.npy` file per utterance, and `features.jsonl`, a `FeatureSet`, without needing lhotse."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubcore.extract.writers import NpyWriter, no_bfloat16

if TYPE_CHECKING:
    from hubcore.extract.settings import Settings


class LhotseWriter(NpyWriter):
    """`features/<utterance>.npy` and `features.jsonl`, with absolute paths: run the same command again after a move.

    Example:
        >>> import tempfile, numpy as np
        >>> writer = LhotseWriter(Path(tempfile.mkdtemp()))
        >>> row = {"utterance": "a", "file": writer.write("a", np.zeros((3, 2), np.float32)), "frames": 3, "shape": [3, 2]}
        >>> writer.index([{**row, "frame_stride": 320, "sample_rate": 16000, "upstream": "mine"}])
        >>> json.loads((writer.folder / "features.jsonl").read_text())["duration"]
        0.06
    """

    @classmethod
    def refuses(cls, settings: Settings) -> str:
        """A FeatureSet has matrices of a fixed frame rate."""
        matrix = not settings.pool and not settings.stacked
        return why_not_lhotse(settings.frame_stride, matrix=matrix) or no_bfloat16(settings)

    def index(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes the manifest."""
        with self.new_file("features.jsonl") as partial, open(partial, "w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(item) + "\n" for item in lhotse_items(self.folder, rows))


def why_not_lhotse(frame_stride: int | None, *, matrix: bool) -> str:
    """The reason why lhotse cannot have features of this rate and kind; empty if it can.

    Example:
        >>> why_not_lhotse(320, matrix=True)
        ''
    """
    if frame_stride is None:
        return "lhotse's features have a fixed frame rate, and that of this upstream depends on the input."
    if not matrix:
        return "lhotse's features are (frames, width): choose one layer (--layers last, or 9, or --mix), without --pool."
    return ""


def lhotse_items(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows of a manifest of `.npy` files as lhotse's `Features`.

    lhotse demands that the duration be that of the frames, so it is, though the audio may be a fraction of a frame longer.
    """
    for row in rows:
        shift = row["frame_stride"] / row["sample_rate"]
        yield {
            "type": row["upstream"],
            "num_frames": row["frames"],
            "num_features": row["shape"][-1],
            "frame_shift": shift,
            "sampling_rate": row["sample_rate"],
            "start": 0,
            "duration": round(row["frames"] * shift, 6),
            "storage_type": "numpy_files",
            "storage_path": os.path.abspath(folder),
            "storage_key": row["file"],
            "recording_id": row["utterance"],
            "channels": 0,
        }
