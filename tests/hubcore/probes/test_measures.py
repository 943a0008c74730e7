"""Measures of probes beside scikit-learn's, intervals, and parts that no group crosses."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from hubcore.errors import ExtractionError, OptionError
from hubcore.probes import Labels, read_labels, split_groups
from hubcore.probes.labels import tokens_of
from hubcore.probes.measures import Classified, Regressed, edits, scores_of
from hubcore.probes.splits import parts_of

# Measures --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 5])
def test_classes_are_measured_as_scikit_learn_does(classes: int) -> None:
    random = np.random.default_rng(classes)
    truth, scores = random.integers(classes, size=200), random.normal(size=(200, classes)).round(1)  # with ties
    scores[np.arange(200), truth] += 1
    scores -= np.logaddexp.reduce(scores, axis=1, keepdims=True)
    weights = random.integers(0, 3, 200).astype(np.float64)
    found = Classified(truth, scores).measures(weights)
    said = scores.argmax(1)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(truth, said, sample_weight=weights))
    assert found["macro F1"] == pytest.approx(metrics.f1_score(truth, said, sample_weight=weights, average="macro"))
    odds = np.log(np.exp(scores) / (1 - np.exp(scores)))
    columns = [1] if classes == 2 else range(classes)
    rejects, accepts, _ = metrics.roc_curve(
        np.concatenate([truth == column for column in columns]),
        np.concatenate([odds[:, column] for column in columns]),
        sample_weight=np.tile(weights, len(columns)),
        drop_intermediate=False,
    )
    line = np.linspace(0, 1, 100_001)
    gap = np.abs(1 - np.interp(line, rejects, accepts) - line)
    assert found["EER"] == pytest.approx(line[gap.argmin()], abs=2e-3)


def test_numbers_are_measured_as_scikit_learn_does() -> None:
    random = np.random.default_rng(0)
    truth, weights = random.normal(3, 2, 50), random.integers(0, 3, 50).astype(np.float64)
    said = truth + random.normal(size=50)
    found = Regressed(truth, said).measures(weights)
    assert found["MSE"] == pytest.approx(metrics.mean_squared_error(truth, said, sample_weight=weights))
    assert found["R2"] == pytest.approx(metrics.r2_score(truth, said, sample_weight=weights))
    every = np.repeat(np.arange(50), weights.astype(int))
    assert found["Pearson"] == pytest.approx(np.corrcoef(truth[every], said[every])[0, 1])
    assert Regressed(truth, np.full(50, 3.0)).measures(weights)["Pearson"] == 0


def test_edits_are_the_fewest() -> None:
    assert [edits(*pair) for pair in (("", "abc"), ("abc", ""), ("abc", "abc"), ("intention", "execution"))] == [3, 3, 0, 5]
    assert tokens_of(" SH  IY ", "phones") == ["SH", "IY"]


def test_an_interval_knows_that_utterances_of_a_speaker_are_alike() -> None:
    # Ten speakers, each all right or all wrong: there are ten observations and not 200.
    said = np.repeat(np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 1]), 20)
    scores = np.log(np.where(said[:, None] == [0, 1], 0.9, 0.1))
    outcome = Classified(np.zeros(200, dtype=np.int64), scores)
    speakers = [str(number // 20) for number in range(200)]
    of_speakers = scores_of([outcome], [speakers], [outcome])["accuracy"]
    alone = scores_of([outcome], [[str(number) for number in range(200)]], [outcome])["accuracy"]
    assert of_speakers.value == alone.value == 0.5
    assert alone.high - alone.low == pytest.approx(2 * 1.96 * (0.25 / 200) ** 0.5, rel=0.15)
    assert of_speakers.high - of_speakers.low == pytest.approx(2 * 1.96 * (0.25 / 10) ** 0.5, rel=0.15)
    two = scores_of([outcome, outcome], [speakers, speakers], [outcome, outcome])["accuracy"]
    assert two == of_speakers, "a second seed with the same test part adds no knowledge of speakers"


# Parts -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_no_group_crosses_and_every_class_is_in_every_part(seed: int) -> None:
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 30, 40)
    groups = [f"speaker {number}" for number in np.repeat(np.arange(40), sizes)]
    classes = [f"class {number}" for number in np.repeat(np.arange(40) % 4, sizes)]  # a speaker has one language
    parts = split_groups(groups, classes, seed)
    there = defaultdict(set)
    for group, part in zip(groups, parts, strict=True):
        there[group].add(part)
    assert all(len(found) == 1 for found in there.values())
    assert len(set(zip(classes, parts, strict=True))) == 4 * 3
    assert [parts.count(part) / len(parts) for part in ("train", "valid", "test")] == pytest.approx([0.7, 0.1, 0.2], abs=0.06)
    assert parts == split_groups(groups, classes, seed) != split_groups(groups, classes, seed + 100)


def test_three_groups_of_a_class_are_enough() -> None:
    groups = [f"{name}{number}" for name in "abc" for number in range(3) for _ in range(10)]
    parts = split_groups(groups, [group[0] for group in groups], 0)
    assert {(group[0], part) for group, part in zip(groups, parts, strict=True)} == {
        (name, part) for name in "abc" for part in ("train", "valid", "test")
    }


def test_a_class_with_one_speaker_is_named() -> None:
    names = [f"{language}{number}" for language in ("en", "ru") for number in range(6)]
    groups = {name: name if name.startswith("en") else "maxim" for name in names}
    labels = Labels("classify", {name: name[:2] for name in names}, "speaker", groups)
    with pytest.raises(OptionError, match=r"'ru' has 1 of speaker \(maxim\).*need 3 or more.*--group"):
        parts_of(labels, names, 0)


def test_a_column_split_is_kept_and_its_faults_are_named() -> None:
    names = [f"{language}{number}" for language in ("en", "ru") for number in range(6)]
    targets = {name: name[:2] for name in names}
    given = {name: "test" if name.endswith(("4", "5")) else "train" for name in names}
    drawn = parts_of(Labels("classify", targets, parts=given), names, 0)
    assert [part == "test" for part in drawn] == [given[name] == "test" for name in names]
    assert drawn.count("valid") == 2, "without any, some of train"
    speakers = {name: "anna" if name in ("en0", "en5") else name for name in names}
    with pytest.raises(OptionError, match=r"'anna' of speaker is in the parts train and test"):
        parts_of(Labels("classify", targets, "speaker", speakers, given), names, 0)
    alone = {name: "test" if name.startswith("ru") else given[name] for name in names}
    with pytest.raises(OptionError, match=r"no utterance of the part train has the label ru"):
        parts_of(Labels("classify", targets, parts=alone), names, 0)


@pytest.mark.parametrize(
    ("text", "task", "message"),
    [
        ("utterance,label\na,en\na,fr\n", "classify", r"l.csv:3: the utterance 'a' has a label above"),
        ("utterance,label\na,en\nb,\n", "classify", r"l.csv:3: the label is empty"),
        ("utterance,label\na,1.5\nb,inf\n", "regress", r"l.csv:3: the label is 'inf', not a number"),
        ("utterance,label,split\na,en,eval\n", "classify", r"l.csv:2: split is 'eval'.*train, valid \(or dev\) or test"),
        ("name,label\na,en\n", "classify", r"no column 'utterance'"),
        ("utterance,label\n", "classify", "no row below"),
    ],
)
def test_malformed_labels_are_refused_with_their_line(text: str, task: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises((ExtractionError, OptionError), match=message):
        read_labels(tmp_path / "l.csv", task)


def test_speakers_are_groups_unless_told_otherwise(tmp_path: Path) -> None:
    (tmp_path / "l.tsv").write_text("utterance\tlabel\tspeaker\tsplit\na\t1\tanna\tdev\n")
    assert read_labels(tmp_path / "l.tsv", "regress") == Labels("regress", {"a": 1.0}, "speaker", {"a": "anna"}, {"a": "valid"})
    assert read_labels(tmp_path / "l.tsv", "regress", "utterance").groups is None
