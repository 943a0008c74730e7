"""Bulk extraction: folders of audio in, one feature file per utterance and a manifest out.

`extract` is the whole of it. It plans batches from the headers (`plan`), computes and writes one batch at a time
(`run.run_batch`), and records what is finished (`manifest`), so that a run that was killed goes on where it stopped.
"""

from __future__ import annotations

from hubcore.extract.manifest import MANIFEST_KEYS, Manifest, Settings
from hubcore.extract.plan import Failure, LayerChoice, Plan, Utterance, choose_layers, make_plan, name_utterances
from hubcore.extract.run import BatchResult, Progress, Summary, extract, run_batch
from hubcore.extract.writers import FeatureWriter, NpyWriter, find_writer

__all__ = [
    "MANIFEST_KEYS",
    "BatchResult",
    "Failure",
    "FeatureWriter",
    "LayerChoice",
    "Manifest",
    "NpyWriter",
    "Plan",
    "Progress",
    "Settings",
    "Summary",
    "Utterance",
    "choose_layers",
    "extract",
    "find_writer",
    "make_plan",
    "name_utterances",
    "run_batch",
]
