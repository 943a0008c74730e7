"""Which language a prompt is in, told from single frames: a linear probe on prompts that no probe was trained on.

`python -m tests.benchmarks.language_probe FOLDER NAME ...` needs the folder of prompts that
`python -m hubcore_ofa_wav2vec2.bundled.make_prompts` makes: one folder for each language, the same file names in each. NAME is
a name of the hub, `family=checkpoint`, or `family:config` for fresh weights; `@0.5` behind it sets OFA's lambda.

A mean over an utterance would not do: it knows the studio, and every language here was recorded in its own.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hubcore import hub
from hubcore.audio import load_audio
from hubcore.loading import import_class
from hubcore.registry.names import current_registry
from tests.benchmarks.measure import table

SPLITS = ("train", "choose", "test")
SHORTEST = 8000
LONGEST = 160000
FRAMES = 20
"""Taken from each utterance, evenly spaced."""


@dataclass(frozen=True)
class Prompts:
    """The utterances of all languages."""

    wavs: list[Tensor]
    labels: Tensor
    """`(B,)` number of the language."""
    splits: list[str]
    """Train (60 %), choose (20 %) or test (20 %)."""


def split_of(prompt: str) -> str:
    """The split of a prompt, by its own name: all languages of one prompt are in the same."""
    share = int(hashlib.sha256(prompt.encode()).hexdigest(), 16) % 100
    return SPLITS[0] if share < 60 else SPLITS[1] if share < 80 else SPLITS[2]


def read_prompts(folder: Path) -> Prompts:
    """Every prompt of half a second or more, its first ten seconds."""
    languages = sorted(path.name for path in folder.iterdir() if path.is_dir())
    wavs, labels, splits = [], [], []
    for number, language in enumerate(languages):
        for path in sorted((folder / language).rglob("*.flac")):
            wav = load_audio(path)[:LONGEST]
            if len(wav) >= SHORTEST:
                wavs.append(wav)
                labels.append(number)
                splits.append(split_of(str(path.relative_to(folder / language))))
    return Prompts(wavs, torch.tensor(labels), splits)


@torch.inference_mode()
def frames_of(model: Any, wavs: Sequence[Tensor], options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """`(L, N, D)` frames of each hidden state, and `(N,)` the utterance of each."""
    rows, owners = [], []
    for begin in range(0, len(wavs), 16):
        out = model(wavs[begin : begin + 16], **options)
        for item, length in enumerate(out.lengths.tolist()):
            places = torch.linspace(0, length - 1, min(FRAMES, length)).round().long()
            rows.append(torch.stack([state[item, places] for state in out.hidden_states]))
            owners.append(torch.full((len(places),), begin + item))
    return torch.cat(rows, dim=1).double(), torch.cat(owners)


def accuracy(features: Tensor, labels: Tensor, splits: Sequence[str], owners: Tensor) -> tuple[float, float, float]:
    """Share of right frames in `choose` and in `test`, and of right utterances in `test`, their frames voting together."""
    where = {name: torch.tensor([split == name for split in splits])[owners] for name in SPLITS}
    train = features[where["train"]]
    x = (features - train.mean(0)) / train.std(0).clamp_min(1e-6)
    wanted = labels[owners]
    classes = int(labels.max()) + 1
    weight = torch.zeros(x.shape[1], classes, dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(classes, dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=150, line_search_fn="strong_wolfe")
    inputs, targets = x[where["train"]], wanted[where["train"]]

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(inputs @ weight + bias, targets) + 1e-4 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        logits = (x @ weight + bias).log_softmax(-1)
        right = logits.argmax(-1) == wanted
        votes = torch.zeros(len(labels), classes, dtype=x.dtype).index_add(0, owners, logits)
        tested = torch.tensor([split == "test" for split in splits])
        utterances = (votes.argmax(-1) == labels)[tested]
    return tuple(float(part.double().mean()) for part in (right[where["choose"]], right[where["test"]], utterances))  # type: ignore[return-value]


def load(name: str) -> tuple[Any, dict[str, Any]]:
    """The model that a name on the command line means, and the options of its calls."""
    name, _, lambd = name.partition("@")
    options = {"lambd": float(lambd)} if lambd else {}
    if ":" in name:
        family, _, config = name.partition(":")
        torch.manual_seed(0)
        found = current_registry().find(family).family
        if found is None:
            sys.exit(f"there is no family {family!r}")
        return import_class(found).from_config(config).eval(), options
    family, _, checkpoint = name.partition("=")
    return hub.load(family, checkpoint=checkpoint or None), options


def main(folder: str, names: Sequence[str]) -> str:
    """The table, one row for each model: its best layer on `choose`."""
    prompts = read_prompts(Path(folder))
    rows = []
    for name in names:
        model, options = load(name)
        states, owners = frames_of(model, prompts.wavs, options)
        results = [accuracy(layer, prompts.labels, prompts.splits, owners) for layer in states]
        best = max(range(len(results)), key=lambda layer: results[layer][0])
        rows.append([name, model.layer_names[best], f"{100 * results[best][1]:.1f} %", f"{100 * results[best][2]:.1f} %"])
        print(*rows[-1], flush=True)
    counts = ", ".join(f"{prompts.splits.count(name)} to {name}" for name in SPLITS)
    headers = ["features", "layer", "frames right", "prompts right, by vote"]
    return f"{len(prompts.wavs)} prompts, {counts}; {FRAMES} frames of each\n\n" + table(headers, rows)


if __name__ == "__main__":
    print(main(sys.argv[1], sys.argv[2:]))
