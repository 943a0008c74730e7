"""`train_probes`: probes for the layers of a folder of features, trained, measured and saved."""

from __future__ import annotations

import itertools
import json
import os
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex

import numpy as np
import torch
from torch import Tensor

from hubcore.errors import OptionError
from hubcore.extract.batches import choose_layers
from hubcore.features.folder import FeatureFolder
from hubcore.files import output_folder, write_whole
from hubcore.probes.heads import Fitted, HeadShape, Recipe, Targets, best_path, fit, outputs_of
from hubcore.probes.inputs import Told, layers_held, open_inputs
from hubcore.probes.labels import Labels, tokens_of
from hubcore.probes.measures import Classified, Outcome, Regressed, Transcribed, edits, scores_of
from hubcore.probes.report import LayerReport, Report
from hubcore.probes.saved import Probe, write_probe
from hubcore.probes.splits import SHARES, parts_of
from hubcore.text import listed, printable


def train_probes(
    folder: FeatureFolder,
    labels: Labels,
    out_dir: str | os.PathLike[str],
    *,
    layers: str | SupportsIndex | Sequence[str | SupportsIndex] = "each",
    recipe: Recipe | None = None,
    pool: str | None = None,
    tokens: str = "characters",
    device: torch.device | str = "cpu",
    report: Told | None = None,
) -> Report:
    """Trains probes on stored features and measures them on utterances of other groups; writes them and `report.json`.

    Each seed draws its own train, validation and test part, unless the labels have parts. No group is in two of them.

    Args:
        folder: an open folder of `hubcore extract`.
        labels: of utterances; features without a label are left out, and labels without features too.
        out_dir: the folder for probes and report; created if need be.
        layers: `each` of the folder's layers by itself, those that `hubcore.extract.choose_layers` takes, each by itself; or
            `weighted`, the learned sum of all.
        recipe: settings of the training.
        pool: `mean` (if None), `mean+std` or `max` over the frames of an utterance; not for `ctc`.
        tokens: `characters` or `phones` of `ctc`.
        device: where to train.
        report: called as features are read, then for each training.

    Raises:
        OptionError: labels, layers or settings do not fit together.
        ExtractionError: features cannot be read.
        CheckpointError: a probe cannot be written.
    """
    recipe = recipe or Recipe()
    target = output_folder(out_dir)
    chosen = _chosen_layers(folder, layers)
    named, left_out = _usable(folder, labels, tokens)
    texts = labels.task == "ctc"
    inputs = open_inputs(
        folder, named, frames=texts, pool=pool, batch=recipe.batch, batch_frames=recipe.batch_frames, report=report
    )
    splits = [_indices(parts_of(labels, named, seed)) for seed in range(recipe.seeds)]
    coded = [_Coded.of(labels, named, split, tokens) for split in splits]
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"{printable(target)} cannot be made: {error.strerror or error}.", fix="Choose another.") from error
    settings = folder.record.settings
    held, done = layers_held(folder), 0
    reports = []
    for name, places in chosen:
        fits: list[Fitted] = []
        outcomes: list[Outcome] = []
        chances: list[Outcome] = []
        for seed, (split, code) in enumerate(zip(splits, coded, strict=True)):
            shape = HeadShape(len(places), inputs.width, code.outputs, recipe.hidden)
            where = torch.device(device)
            fits.append(fit(inputs, places, code.targets, split["train"], split["valid"], shape, recipe, seed, where))
            outputs = outputs_of(fits[-1].head, inputs, places, split["test"], where)
            outcome, chance = code.outcomes(outputs, split)
            outcomes.append(outcome)
            chances.append(chance)
            done += 1
            if report:
                report(done, len(chosen) * recipe.seeds, f"layer {name}")
        groups = [[labels.group_of(named[index]) for index in split["test"]] for split in splits]
        scores = scores_of(outcomes, groups, chances)
        best = min(range(recipe.seeds), key=lambda seed: fits[seed].loss)
        file = f"{name if name == 'weighted' else f'layer_{_number(folder, places[0])}'}.safetensors"
        probe = Probe(
            head=fits[best].head,
            record=folder.record,
            places=tuple(places),
            task=labels.task,
            labels=coded[best].names,
            pool=None if texts else settings["pool"] or pool or "mean",
            tokens=tokens if texts else None,
            scale=coded[best].scale,
            scores={measure: score.plain() for measure, score in scores.items()},
        )
        write_probe(target / file, probe)
        reports.append(LayerReport(name, scores, tuple(one.epoch for one in fits), _weights(fits, held), file))
    found = Report(
        task=labels.task,
        upstream=settings["upstream"],
        group=labels.group,
        seeds=recipe.seeds,
        parts={part: len(splits[0][part]) for part in SHARES},
        groups={part: len({labels.group_of(named[index]) for index in splits[0][part]}) for part in SHARES},
        labels=len(coded[0].names) or None,
        left_out=left_out,
        layers=tuple(reports),
    )
    with write_whole(target / "report.json") as temporary:
        temporary.write_text(json.dumps(found.plain(), indent=2) + "\n", encoding="utf-8")
    return found


def _chosen_layers(folder: FeatureFolder, layers: Any) -> list[tuple[str, list[int]]]:
    """The name of each probe, and the places of the layers that it reads."""
    held = layers_held(folder)
    if layers == "weighted":
        if len(held) < 2:
            raise OptionError(f"{printable(folder.folder)} holds one layer.", fix="A weighted sum needs several.")
        return [("weighted", list(range(len(held))))]
    if layers in ("each", "all"):
        return [(name, [place]) for place, name in enumerate(held)]
    numbers = [0] if folder.record.settings["mix"] is not None else folder.record.settings["layers"]
    place_of = {number: place for place, number in enumerate(numbers)}
    every = [held[place_of[number]] if number in place_of else f"layer {number}" for number in range(max(numbers) + 1)]
    wanted = choose_layers(layers, every).indices  # numbers of the upstream's layers, as in every command
    missing = [str(number) for number in wanted if number not in place_of]
    if missing:
        what = f"{printable(folder.folder)} does not hold layer {listed(missing)}."
        raise OptionError(what, fix=f"It holds {listed(map(str, numbers), 50)}.")
    return [(every[number], [place_of[number]]) for number in wanted]


def _number(folder: FeatureFolder, place: int) -> str:
    """The number of a layer in the upstream, for the name of a file."""
    return "mix" if folder.record.settings["mix"] is not None else str(folder.record.settings["layers"][place])


def _usable(folder: FeatureFolder, labels: Labels, tokens: str) -> tuple[list[str], dict[str, int]]:
    """The labelled utterances of a folder, in its order, and how many were left out for what reason."""
    named = [name for name in folder if name in labels.targets]
    if not named:
        ours, theirs = listed(map(printable, labels.targets), 3), listed(map(printable, folder), 3)
        what = f"no utterance of {printable(folder.folder)} has a label: labels are of {ours}; features of {theirs}."
        raise OptionError(what, fix="The column utterance must have the names of the features: `hubcore stats` lists them.")
    if labels.task == "classify" and len({labels.targets[name] for name in named}) < 2:
        what = f"all utterances have the label {printable(str(labels.targets[named[0]]))!r}."
        raise OptionError(what, fix="A probe tells two or more apart.")
    left_out = {"without features": len(labels.targets) - len(named), "without a label": len(folder) - len(named)}
    if labels.task == "ctc":
        fitting = [
            name for name in named if _steps(tokens_of(str(labels.targets[name]), tokens)) <= folder.rows[name]["frames"]
        ]
        left_out["shorter than their text"] = len(named) - len(fitting)
        named = fitting
    return named, {reason: count for reason, count in left_out.items() if count}


def _steps(text: Sequence[str]) -> int:
    """The fewest frames that CTC needs: one for each token, and a blank between two that are equal."""
    return len(text) + sum(one == other for one, other in itertools.pairwise(text))


def _indices(parts: Sequence[str]) -> dict[str, list[int]]:
    return {part: [index for index, one in enumerate(parts) if one == part] for part in SHARES}


def _weights(fits: Sequence[Fitted], held: Sequence[str]) -> dict[str, float] | None:
    """The learned weight of each layer, the mean of all seeds."""
    found = [fitted.head.weights.softmax(0) for fitted in fits if fitted.head.weights is not None]
    return dict(zip(held, torch.stack(found).mean(0).tolist(), strict=True)) if found else None


@dataclass(frozen=True, eq=False)
class _Coded:
    """Labels as numbers, as the training part of one seed has them."""

    targets: Targets
    names: tuple[str, ...]
    """Classes, or tokens."""
    scale: tuple[float, float]
    """Mean and deviation of numbers."""
    outputs: int
    """The number of outputs of a head."""
    truth: Sequence[Any]
    """The label of each utterance, with tokens as a list."""
    tokens: str

    @classmethod
    def of(cls, labels: Labels, named: Sequence[str], split: Mapping[str, Sequence[int]], tokens: str) -> _Coded:
        """That of a split."""
        values: list[Any] = [labels.targets[name] for name in named]
        train = [values[index] for index in split["train"]]
        if labels.task == "regress":
            mean, std = statistics.fmean(train), statistics.pstdev(train) or 1.0
            scaled = torch.tensor([(value - mean) / std for value in values], dtype=torch.float32)
            return cls(Targets("regress", scaled), (), (mean, std), 1, values, tokens)
        if labels.task == "classify":
            names = tuple(sorted({str(value) for value in values}))
            place = {name: index for index, name in enumerate(names)}
            coded = torch.tensor([place[str(value)] for value in values])
            return cls(Targets("classify", coded), names, (0.0, 1.0), len(names), values, tokens)
        pieces = [tokens_of(str(value), tokens) for value in values]
        names = tuple(sorted({piece for one in pieces for piece in one}))
        place = {name: index for index, name in enumerate(names, 1)}
        texts = [torch.tensor([place[piece] for piece in one]) for one in pieces]
        return cls(Targets("ctc", texts), names, (0.0, 1.0), len(names) + 1, pieces, tokens)

    def outcomes(self, outputs: Sequence[Tensor], split: Mapping[str, Sequence[int]]) -> tuple[Outcome, Outcome]:
        """The outcome of outputs of the test part, and that of an answer which knows nothing of the features.

        That is: how often each class comes, the mean number, and for texts what the probe said of another utterance, or
        nothing where that is better.
        """
        train, test = split["train"], split["test"]
        if self.targets.task == "regress":
            truth, (mean, std) = np.array([self.truth[index] for index in test]), self.scale
            said = np.array([float(one[0]) * std + mean for one in outputs])
            return Regressed(truth, said), Regressed(truth, np.full(len(test), mean))
        if self.targets.task == "classify":
            classes = self.targets.values[test].numpy()
            counts = Counter(self.targets.values[train].tolist())
            prior = np.log([max(counts[index], 1e-3) / len(train) for index in range(len(self.names))])
            scores = torch.stack([*outputs]).double().log_softmax(-1).numpy()
            return Classified(classes, scores), Classified(classes, np.tile(prior, (len(test), 1)))
        name = "CER" if self.tokens == "characters" else "PER"
        texts = [[self.names[token - 1] for token in best_path(one)] for one in outputs]
        rights = [self.truth[index] for index in test]
        lengths = np.array([float(len(right)) for right in rights])
        answers: list[list[list[str]]] = [texts, texts[1:] + texts[:1], [[]] * len(texts)]
        errors, others, nothing = (
            np.array([float(edits(right, text)) for right, text in zip(rights, said, strict=True)]) for said in answers
        )
        least = others if others.sum() < nothing.sum() else nothing
        return Transcribed(name, errors, lengths), Transcribed(name, least, lengths)
