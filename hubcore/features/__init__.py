"""Features that `hubcore extract` wrote, read back: `open` gives a mapping from utterance to `Features`, whatever the format.

`FeatureDataset`, `LengthBuckets` and `collate` train on them with torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore.features.folder import FeatureFolder as FeatureFolder
    from hubcore.features.folder import Features as Features
    from hubcore.features.folder import open as open

__getattr__, __dir__ = lazy_exports(__name__)
