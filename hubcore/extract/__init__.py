"""Bulk extraction: folders of audio in, one feature file per utterance and a manifest out.

`extract` is the whole of it. It makes batches from the headers (`batches`), computes and writes one at a time (`run_batch`),
and records what is finished (`finished`), so that a run that was killed resumes where it stopped.
"""

from __future__ import annotations

from hubcore.extract.batches import Batches, Failure, LayerChoice, Utterance, choose_layers, make_batches, name_utterances
from hubcore.extract.finished import ROW_KEYS, Finished
from hubcore.extract.run import BatchResult, Summary, extract, run_batch
from hubcore.extract.settings import Settings
from hubcore.extract.writers import FeatureWriter, NpyWriter, find_writer

__all__ = [
    "ROW_KEYS",
    "BatchResult",
    "Batches",
    "Failure",
    "FeatureWriter",
    "Finished",
    "LayerChoice",
    "NpyWriter",
    "Settings",
    "Summary",
    "Utterance",
    "choose_layers",
    "extract",
    "find_writer",
    "make_batches",
    "name_utterances",
    "run_batch",
]
