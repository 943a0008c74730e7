"""Probes: small classifiers on frozen features, which tell what each layer of an upstream knows.

`read_labels` reads a table, `train_probes` trains a probe for each layer and measures it, and `load` gives a trained one back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore.probes.heads import Recipe as Recipe
    from hubcore.probes.labels import Labels as Labels
    from hubcore.probes.labels import read_labels as read_labels
    from hubcore.probes.report import LayerReport as LayerReport
    from hubcore.probes.report import Report as Report
    from hubcore.probes.run import train_probes as train_probes
    from hubcore.probes.saved import Prediction as Prediction
    from hubcore.probes.saved import Probe as Probe
    from hubcore.probes.saved import load as load
    from hubcore.probes.splits import split_groups as split_groups

__getattr__, __dir__ = lazy_exports(__name__)
