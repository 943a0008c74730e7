"""Features that `hubcore extract` wrote, read back: `open` gives a mapping from utterance to `Features`, whatever the format.

`FeatureDataset`, `LengthBuckets` and `collate` train on them with torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore.features.comparison import compare as compare
    from hubcore.features.dataset import FeatureBatch as FeatureBatch
    from hubcore.features.dataset import FeatureDataset as FeatureDataset
    from hubcore.features.dataset import FeatureItem as FeatureItem
    from hubcore.features.dataset import LengthBuckets as LengthBuckets
    from hubcore.features.dataset import collate as collate
    from hubcore.features.exports import to_datasets as to_datasets
    from hubcore.features.exports import to_lhotse as to_lhotse
    from hubcore.features.folder import FeatureFolder as FeatureFolder
    from hubcore.features.folder import Features as Features
    from hubcore.features.folder import open as open
    from hubcore.features.stats import statistics as statistics

__getattr__, __dir__ = lazy_exports(__name__)
