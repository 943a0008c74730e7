"""Which language a prompt is in, from mean features: a linear probe on prompts that no probe was trained on.

`python -m tests.benchmarks.language_probe FOLDER NAME_OR_CHECKPOINT ...` needs the folder of prompts that
`python -m hubcore_ofa_wav2vec2.bundled.make_prompts` makes: one folder for each language, the same file names in each.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hubcore import hub
from hubcore.audio import load_audio
from tests.benchmarks.measure import table

SPLITS = ("train", "choose", "test")
SHORTEST = 8000
LONGEST = 160000


def split_of(prompt: str) -> str:
    """Train (60 %), choose (20 %) or test (20 %), by the prompt's own name: all languages of a prompt are in one of them."""
    share = int(hashlib.sha256(prompt.encode()).hexdigest(), 16) % 100
    return SPLITS[0] if share < 60 else SPLITS[1] if share < 80 else SPLITS[2]


def find_prompts(folder: Path) -> list[tuple[Path, int, str]]:
    """File, number of its language and split, of every prompt of half a second or more."""
    languages = sorted(path.name for path in folder.iterdir() if path.is_dir())
    return [
        (path, number, split_of(str(path.relative_to(folder / language))))
        for number, language in enumerate(languages)
        for path in sorted((folder / language).rglob("*.flac"))
    ]


@torch.inference_mode()
def pooled(model: Any, wavs: Sequence[Tensor], options: dict[str, Any]) -> Tensor:
    """`(L, B, 2 D)`: mean and standard deviation over the frames of each utterance, for each hidden state."""
    rows = []
    for begin in range(0, len(wavs), 16):
        out = model(wavs[begin : begin + 16], **options)
        for item, length in enumerate(out.lengths.tolist()):
            states = [state[item, :length].double() for state in out.hidden_states]
            rows.append(torch.stack([torch.cat([x.mean(0), x.std(0, unbiased=False)]) for x in states]))
    return torch.stack(rows, dim=1)


def accuracy(features: Tensor, labels: Tensor, splits: Sequence[str]) -> tuple[float, float]:
    """Accuracy on `choose` and on `test` of a linear classifier trained on `train`, `(B, D)` features."""
    where = {name: torch.tensor([split == name for split in splits]) for name in SPLITS}
    train = features[where["train"]]
    mean, spread = train.mean(0), train.std(0).clamp_min(1e-6)
    x = (features - mean) / spread
    classes = int(labels.max()) + 1
    weight = torch.zeros(x.shape[1], classes, dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(classes, dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(x[where["train"]] @ weight + bias, labels[where["train"]])
        loss = loss + 1e-3 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    right = (x @ weight + bias).argmax(-1) == labels
    return float(right[where["choose"]].double().mean()), float(right[where["test"]].double().mean())


def probe(model: Any, wavs: Sequence[Tensor], labels: Tensor, splits: Sequence[str], **options: Any) -> tuple[str, float]:
    """The layer that does best on `choose`, and its accuracy on `test`."""
    results = [accuracy(layer, labels, splits) for layer in pooled(model, wavs, options)]
    best = max(range(len(results)), key=lambda layer: results[layer][0])
    return model.layer_names[best], results[best][1]


def main(folder: str, names: Sequence[str]) -> str:
    """The table, one row for each name or checkpoint; `name:lambda` for OFA at that lambda."""
    items = find_prompts(Path(folder))
    wavs = [load_audio(path)[:LONGEST] for path, _, _ in items]
    kept = [i for i, wav in enumerate(wavs) if len(wav) >= SHORTEST]
    wavs, labels = [wavs[i] for i in kept], torch.tensor([items[i][1] for i in kept])
    splits = [items[i][2] for i in kept]
    rows = []
    for name in names:
        model_name, _, lambd = name.partition("@")
        family, _, checkpoint = model_name.partition("=")
        model = hub.load(family, checkpoint=checkpoint or None)
        layer, share = probe(model, wavs, labels, splits, **({"lambd": float(lambd)} if lambd else {}))
        rows.append([name, layer, f"{100 * share:.1f} %"])
        print(*rows[-1], flush=True)
    counts = ", ".join(f"{splits.count(name)} to {name}" for name in SPLITS)
    return f"{len(wavs)} prompts, {counts}\n\n" + table(["features", "layer", "language right"], rows)


if __name__ == "__main__":
    print(main(sys.argv[1], sys.argv[2:]))
