"""Changes the configs of every layout at random and loads the files: `python -m tests.faults.fuzz_configs --mutations 20000`.

A mutation changes types, sizes and nesting of what a config says; the tensors stay honest. Each file is loaded or refused with
one of our errors, within seconds of processor time and a small multiple of the file's size in memory. The same seed makes the
same files.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import shutil
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hubcore.errors import HubcoreError
from hubcore_hubert import HubertUpstream
from hubcore_ofa_wav2vec2 import OfaWav2Vec2Upstream
from hubcore_wav2vec2 import Wav2Vec2Upstream
from tests.paths import DATA

SECONDS, MEMORY = 2.0, 10
"""Processor time for one file, and memory in sizes of the file (and no less than a few megabytes)."""
SMALLEST = 8 << 20
Write = Callable[[Any], None]
"""Writes the file again with another config."""


@dataclass
class Found:
    """The outcome of a run."""

    loaded: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    largest: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        total = self.loaded + sum(self.refused.values()) + len(self.wrong)
        kinds = ", ".join(f"{count} {name}" for name, count in sorted(self.refused.items()))
        return (
            f"{total} mutations: {self.loaded} loaded, refused {kinds}; slowest {self.slowest:.2f} s, most memory "
            f"{self.largest:.1f} times the file, {len(self.wrong)} findings"
        )


EXTREMES: list[Any] = [
    *(0, -1, 1, 2, 10_000, 2**31, 2**62, 2**63, 10**200, -(2**63), 0.5, -1.0, 1e308, 1e-320, float("nan"), float("inf")),
    *(True, False, None, "", "text", "12", "1e9", "[(1,1,1)]*64*64*64", "-" * 500 + "1", "x" * 5000, "\0", "\ud800"[:0]),
    *([], {}, [[]], [1, 2, 3], [[8, 3, 2]] * 200, {"a": {"b": {}}}, [None] * 64, {"model": []}),
]


def extreme(rng: random.Random) -> Any:
    """One of them, for the caller to change."""
    return copy.deepcopy(rng.choice(EXTREMES))


def deep(levels: int) -> Any:
    """Lists in lists."""
    made: Any = 1
    for _ in range(levels):
        made = [made]
    return made


def mutate(config: Any, rng: random.Random) -> Any:
    """The config with one to three values changed, taken out, moved or wrapped, anywhere in it."""
    config = copy.deepcopy(config)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        holders = [holder for holder in walk(config) if holder]
        if not holders:
            return extreme(rng)
        holder = rng.choice(holders)
        key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        kind = rng.randrange(6)
        if kind == 0 and isinstance(holder, dict):
            del holder[key]
        elif kind == 1:
            holder[key] = rng.choice([[holder[key]], {"value": holder[key]}, str(holder[key]), deep(rng.choice((5, 200)))])
        elif kind == 2 and isinstance(holder[key], int | float):
            holder[key] = holder[key] * rng.choice((-1, 0, 2, 1000, 2**40)) + rng.choice((-1, 0, 1))
        elif kind == 3 and isinstance(holder, dict):
            holder[rng.choice(["extra", "_name", "model", "w2v_args", "num_layers", "", "\n"])] = extreme(rng)
        else:
            holder[key] = extreme(rng)
    return config if rng.random() > 0.01 else extreme(rng)


def walk(node: Any) -> Iterator[Any]:
    """Every dictionary and list inside a config."""
    if isinstance(node, dict | list):
        yield node
        for value in node.values() if isinstance(node, dict) else node:
            yield from walk(value)


def layouts(folder: Path) -> Iterator[tuple[str, Path, Any, Write, type[Any]]]:
    """Name, path, config, writer and class of an honest checkpoint in every layout."""
    gold = DATA / "gold"
    torch_files = {
        "fairseq, cfg": (gold / "fairseq_tiny_w2v2_groupnorm.pt", "cfg", Wav2Vec2Upstream),
        "OFA": (gold / "ofa_tiny.pt", "cfg", OfaWav2Vec2Upstream),
        "s3prl converted": (gold / "s3prl_converted_tiny_w2v2_groupnorm.pt", "model_cfg", Wav2Vec2Upstream),
    }
    for name, (source, key, cls) in torch_files.items():
        kept = (key, "model", "model_weight", "task_cfg")
        tree = {name: value for name, value in torch.load(source, weights_only=False).items() if name in kept}
        path = folder / f"{len(name)}{source.name}"

        def write(config: Any, tree: dict[str, Any] = tree, key: str = key, path: Path = path) -> None:
            torch.save({**tree, key: config}, path)

        yield name, path, tree[key], write, cls
    plain = torch.load(torch_files["fairseq, cfg"][0], weights_only=False)
    tuned = {f"w2v_encoder.w2v_model.{name}": weight for name, weight in plain["model"].items()}

    def write_tuned(config: Any) -> None:
        torch.save({"cfg": config, "model": tuned}, folder / "tuned.pt")

    cfg = {"model": {"_name": "wav2vec_ctc", "w2v_args": plain["cfg"]}, "task": {"normalize": False}}
    yield "fairseq, cfg, fine-tuned", folder / "tuned.pt", cfg, write_tuned, Wav2Vec2Upstream
    old = torch.load(gold / "fairseq_tiny_w2v2_oldargs.pt", weights_only=False)

    def write_args(config: Any) -> None:
        args = argparse.Namespace(**config) if isinstance(config, dict) and all(isinstance(k, str) for k in config) else config
        torch.save({"args": args, "model": old["model"]}, folder / "args.pt")

    yield "fairseq, args", folder / "args.pt", vars(old["args"]), write_args, Wav2Vec2Upstream
    for file, cls in (("hf_hubert_large", HubertUpstream), ("hf_hubert_pos_batch_norm", HubertUpstream)):
        shutil.copytree(DATA / "gold2" / file, folder / file)

        def write_json(config: Any, path: Path = folder / file / "config.json") -> None:
            path.write_text(json.dumps(config))

        yield file, folder / file, json.loads((folder / file / "config.json").read_text()), write_json, cls
    shutil.copytree(DATA / "gold2/espnet_hubert_base_style", folder / "espnet", ignore=shutil.ignore_patterns("wav2vec2_*"))

    def write_yaml(config: Any) -> None:
        (folder / "espnet/config.yaml").write_text(yaml.safe_dump(config))

    about = yaml.safe_load((folder / "espnet/config.yaml").read_text())
    yield "ESPnet", folder / "espnet", about, write_yaml, HubertUpstream
    path = folder / "mine.safetensors"
    Wav2Vec2Upstream.from_checkpoint("wav2vec2_tiny_prompts").save_checkpoint(path)
    weights = load_file(path)
    with safe_open(path, "pt") as opened:
        native = json.loads(opened.metadata()["hubcore"])

    def write_native(config: Any) -> None:
        save_file(weights, path, metadata={"hubcore": json.dumps(config)})

    yield "hubcore safetensors", path, native, write_native, Wav2Vec2Upstream


def run(mutations: int, seed: int) -> Found:
    """Loads that many mutated files, the layouts in turn."""
    found, rng = Found(), random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        made = list(layouts(Path(name)))
        for number in range(mutations):
            layout, path, config, write, cls = made[number % len(made)]
            mutated = mutate(config, rng)
            try:
                write(mutated)
            except (TypeError, ValueError, yaml.YAMLError, RecursionError, UnicodeError):
                continue  # the writer's own format cannot hold it
            load(found, cls, path, f"{layout}, mutation {number} of seed {seed}", measured=rng.random() < 0.1)
    return found


def load(found: Found, cls: type[Any], path: Path, title: str, *, measured: bool) -> None:
    """Loads one file and notes how it went; memory, which is slow to measure, only where it is asked for."""
    size = sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.stat().st_size
    if measured:
        tracemalloc.start()
    began = time.process_time()
    try:
        cls.from_checkpoint(path)
        found.loaded += 1
    except HubcoreError as error:
        found.refused[type(error).__name__] += 1
    except Exception as error:  # what a fuzzer is for
        found.wrong.append(f"{title}: {type(error).__name__}: {error}")
    seconds, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1] if measured else 0
    tracemalloc.stop()
    found.slowest, found.largest = max(found.slowest, seconds), max(found.largest, peak / size)
    if seconds > SECONDS or peak > max(MEMORY * size, SMALLEST):
        found.wrong.append(f"{title}: {seconds:.1f} s, {peak} bytes for {size}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    outcome = run(asked.mutations, asked.seed)
    print(outcome, *outcome.wrong[:20], sep="\n")
