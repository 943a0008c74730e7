"""Bulk extraction: folders of audio in, one feature file per utterance and a manifest out.

`extract` is the whole of it. It plans blocks from the headers (`plan`), decodes, computes and writes them (`work`), and records
what is finished (`journal`), so that a run that was killed resumes where it stopped, and several processes fill one folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore.extract.batches import Failure as Failure
    from hubcore.extract.batches import LayerChoice as LayerChoice
    from hubcore.extract.batches import Measured as Measured
    from hubcore.extract.batches import choose_layers as choose_layers
    from hubcore.extract.batches import measure as measure
    from hubcore.extract.finished import ROW_KEYS as ROW_KEYS
    from hubcore.extract.finished import Finished as Finished
    from hubcore.extract.merge import merge as merge
    from hubcore.extract.run import Forecast as Forecast
    from hubcore.extract.run import Summary as Summary
    from hubcore.extract.run import extract as extract
    from hubcore.extract.settings import Settings as Settings
    from hubcore.extract.writers import FeatureWriter as FeatureWriter
    from hubcore.extract.writers import NpyWriter as NpyWriter
    from hubcore.extract.writers import find_writer as find_writer

__getattr__, __dir__ = lazy_exports(__name__)
