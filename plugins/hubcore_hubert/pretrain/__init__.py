"""Pre-training of HuBERT: `HubertPretraining` and its parts. The loop that drives it is `hubcore.pretrain`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore_hubert.pretrain.config import HubertObjective as HubertObjective
    from hubcore_hubert.pretrain.labels import Labels as Labels
    from hubcore_hubert.pretrain.labels import align as align
    from hubcore_hubert.pretrain.objective import HubertPretraining as HubertPretraining
    from hubcore_hubert.pretrain.objective import similarities as similarities

__getattr__, __dir__ = lazy_exports(__name__)
