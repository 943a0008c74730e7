"""`split_groups`: train, validation and test parts that no group crosses, with every class in each."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from hubcore.errors import OptionError
from hubcore.probes.labels import Labels
from hubcore.text import listed, printable

SHARES = {"train": 0.7, "valid": 0.1, "test": 0.2}
"""The share of the utterances that each part gets, about."""
_WITHOUT_VALID = {"train": 0.85, "valid": 0.15}


def split_groups(
    groups: Sequence[str], classes: Sequence[str], seed: int, shares: Mapping[str, float] | None = None
) -> list[str]:
    """The part of each item: no group is in two, and each part has about its share of every class.

    Groups come in random order, the larger ones first; each goes where its classes are furthest below their share. A class with
    no more groups left than parts that lack it goes to one of those.

    Args:
        groups: the group of each item, such as its speaker.
        classes: the class of each item.
        seed: another number gives other parts.
        shares: the share of each part; 0.7 for `train`, 0.1 for `valid` and 0.2 for `test` if None.

    Example:
        >>> split_groups(["anna", "anna", "ben", "cleo", "dan"], ["x"] * 5, seed=0)
        ['train', 'train', 'test', 'train', 'valid']
    """
    shares = SHARES if shares is None else shares
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for group, name in zip(groups, classes, strict=True):
        counts[group][name] += 1
    names = sorted(counts)
    order = [names[index] for index in np.random.default_rng(seed).permutation(len(names)).tolist()]
    order.sort(key=lambda group: -counts[group].total().bit_length())  # those of about one size stay in random order
    totals = Counter(classes)
    left = Counter(name for group in order for name in counts[group])
    there: dict[tuple[str, str], int] = Counter()
    found: dict[str, str] = {}
    for group in order:
        own = counts[group]
        lacking = {
            part for part in shares for name in own if left[name] <= _lack(there, shares, name) and not there[part, name]
        }
        costs = {
            part: sum(
                n * (n + 2 * (there[part, name] - shares[part] * totals[name])) / totals[name] ** 2 for name, n in own.items()
            )
            for part in shares
            if not lacking or part in lacking
        }
        part = min(costs, key=costs.__getitem__)
        found[group] = part
        for name, n in own.items():
            there[part, name] += n
            left[name] -= 1
    return [found[group] for group in groups]


def _lack(there: Mapping[tuple[str, str], int], shares: Mapping[str, float], name: str) -> int:
    """The number of parts that have nothing of a class yet."""
    return sum(not there[part, name] for part in shares)


def parts_of(labels: Labels, utterances: Sequence[str], seed: int) -> list[str]:
    """The part of each utterance: that of the labels, or drawn by `split_groups`.

    Where labels have parts and none is `valid`, some groups of `train` are taken for it.

    Raises:
        OptionError: a group crosses parts, or a class cannot be both learned and tested.
    """
    groups = [labels.group_of(name) for name in utterances]
    classes = [str(labels.targets[name]) if labels.task == "classify" else "" for name in utterances]
    if labels.parts is None:
        _check_groups(labels.group, groups, classes, labels.task)
        return split_groups(groups, classes, seed)
    parts = [labels.parts[name] for name in utterances]
    _check_apart(labels.group, groups, parts)
    if "valid" not in parts:
        taken = [place for place, part in enumerate(parts) if part == "train"]
        drawn = split_groups([groups[place] for place in taken], [classes[place] for place in taken], seed, _WITHOUT_VALID)
        for place, part in zip(taken, drawn, strict=True):
            parts[place] = part
    for part in SHARES:
        if part not in parts:
            raise OptionError(f"no utterance is in the part {part}.", fix="Correct the column split, or leave it out.")
    strange = {name for name, part in zip(classes, parts, strict=True) if part != "train"}.difference(
        name for name, part in zip(classes, parts, strict=True) if part == "train"
    )
    if strange:
        what = f"no utterance of the part train has the label {listed(sorted(map(printable, strange)))}, which others have."
        raise OptionError(what, fix="A probe learns only labels that it is shown. Correct the column split.")
    return parts


def _check_groups(group: str, groups: Sequence[str], classes: Sequence[str], task: str) -> None:
    """Raises `OptionError` if a class has too few groups to be in every part."""
    there: dict[str, set[str]] = defaultdict(set)
    for name, one in zip(classes, groups, strict=True):
        there[name].add(one)
    few = {name: sorted(map(printable, found)) for name, found in there.items() if len(found) < len(SHARES)}
    if few:
        name = min(few)
        who = f"the label {printable(name)!r}" if task == "classify" else "this set"
        more = f", and {len(few) - 1} other labels have as few" if len(few) > 1 else ""
        what = f"{who} has {len(few[name])} of {group} ({', '.join(few[name])}){more}. Parts that share none need 3 or more."
        fix = "Leave such labels out, group by another column (--group), or name the parts yourself in a column split."
        raise OptionError(what, fix)


def _check_apart(group: str, groups: Sequence[str], parts: Sequence[str]) -> None:
    """Raises `OptionError` if a group is in two parts."""
    there: dict[str, str] = {}
    for one, part in zip(groups, parts, strict=True):
        if there.setdefault(one, part) != part:
            what = f"{printable(one)!r} of {group} is in the parts {there[one]} and {part}. What is tested would be known."
            raise OptionError(what, fix="Correct the column split, or name another column with --group.")
