"""Bulk extraction: folders of audio in, one feature file per utterance and a manifest out.

`extract` is the whole of it. It makes batches from the headers (`batches`), computes and writes one at a time (`run_batch`),
and records what is finished (`finished`), so that a run that was killed resumes where it stopped.
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
    from hubcore.extract.run import BatchResult as BatchResult
    from hubcore.extract.run import Summary as Summary
    from hubcore.extract.run import extract as extract
    from hubcore.extract.run import run_batch as run_batch
    from hubcore.extract.settings import Settings as Settings
    from hubcore.extract.writers import FeatureWriter as FeatureWriter
    from hubcore.extract.writers import NpyWriter as NpyWriter
    from hubcore.extract.writers import find_writer as find_writer

__getattr__, __dir__ = lazy_exports(__name__)
