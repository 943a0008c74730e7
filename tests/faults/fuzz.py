"""Damages checkpoint files at random and watches what reading them does: `python -m tests.faults.fuzz --mutations 20000`.

Each mutation is read, or refused with a `CheckpointError`; a second is too long, and opening a file for writing, importing,
compiling, connecting and starting a process are findings. The same seed makes the same files.
"""

from __future__ import annotations

import argparse
import io
import pickle
import random
import struct
import sys
import tempfile
import time
import zipfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import save_file

from hubcore.checkpoints.layouts import open_checkpoint
from hubcore.errors import CheckpointError
from tests.hubcore.checkpoints import hostile_pieces as build
from tests.hubcore.checkpoints.watching import suspicious, watching

PICKLE = "pickle"
"""The pickle of a zip archive alone."""
FORMATS = ("fairseq zip", "legacy", "safetensors", PICKLE)
EXTREMES = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\0\0\0\x80")
SECONDS = 1.0
"""Of processor time, for one file."""


@dataclass
class Findings:
    """What came of a run."""

    read: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    wrong: list[str] = field(default_factory=list)
    """Everything that must not happen, with the file that made it happen."""

    def summary(self, seed: int) -> str:
        total = self.read + sum(self.refused.values())
        kinds = ", ".join(f"{count} {name}" for name, count in sorted(self.refused.items())) or "none"
        return (
            f"{total} mutations of {len(FORMATS)} formats, seed {seed}: {self.read} read, refused {kinds}, "
            f"slowest {self.slowest:.3f} s, {len(self.wrong)} findings"
        )


def _tree(canary: Path) -> dict[str, Any]:
    """A small fairseq checkpoint: dict and namespace configs, tied and strided weights, Adam's state."""
    torch.manual_seed(0)
    base = torch.randn(6, 4)
    weights = {"encoder.a.weight": base, "encoder.tied.weight": base, "encoder.row": base[1], "half": base.t().half()}
    config = {"_name": "wav2vec2", "encoder_layers": 3, "conv_feature_layers": "[(8, 10, 5)] * 2", "dropout": 0.1}
    return {
        "args": argparse.Namespace(arch="wav2vec2", seed=1, path=canary / "made"),
        "cfg": {"model": config, "task": {"normalize": True, "labels": None}, "table": {0: (1, None), 1: b"bytes"}},
        "model": weights,
        "last_optimizer_state": {"state": {0: {"step": 7, "exp_avg": torch.zeros(5)}}},
    }


class _Numbered(pickle.Pickler):
    """Pickles as torch.save did before zip archives, except that storages are numbered and not named after addresses."""

    def __init__(self, file: IO[bytes], protocol: int) -> None:
        super().__init__(file, protocol)
        self.storages: dict[int, tuple[str, int, bytes]] = {}

    def persistent_id(self, value: object) -> object:
        if not isinstance(value, torch.storage.TypedStorage):
            return None
        raw = value._untyped_storage
        fresh = (str(len(self.storages)), value._size(), bytes(raw.tolist()))
        key, size, _ = self.storages.setdefault(raw._cdata, fresh)
        return "storage", getattr(torch, value._pickle_storage_type()), key, "cpu", size, None


def _legacy(tree: object, protocol: int) -> bytes:
    """A file as torch.save wrote it before version 1.6; its own option for that would give other bytes in every run."""
    body = io.BytesIO()
    pickler = _Numbered(body, protocol)
    pickler.dump(tree)
    storages = list(pickler.storages.values())
    header = build.MAGIC + build.VERSION + build.SYSTEM + body.getvalue()
    keys = pickle.dumps([key for key, _, _ in storages], protocol)
    return header + keys + b"".join(struct.pack("<q", size) + data for _, size, data in storages)


def _without_checksums(data: bytes, folder: Path) -> bytes:
    """The archive again with its CRCs set to none, so that damage reaches the code behind them."""
    (folder / "seed.zip").write_bytes(data)
    with zipfile.ZipFile(folder / "seed.zip") as archive:
        records = [build.Record(info.filename, archive.read(info), crc=0) for info in archive.infolist()]
    return build.archive(*records)


def seeds(folder: Path) -> dict[str, list[bytes]]:
    """Honest files of each format, and some with a call in them; byte for byte the same in every run."""
    canary = folder / "canary"
    canary.mkdir(exist_ok=True)
    trap = build.call("os.mkdir", build.text("canary/made"))
    made: dict[str, list[bytes]] = {name: [] for name in FORMATS}
    path = folder / "seed.pt"
    for protocol in (2, 4, 5):
        tree = _tree(Path("canary"))
        torch.save(tree, path, pickle_protocol=protocol)
        made["fairseq zip"].append(path.read_bytes())
        made["legacy"].append(_legacy(tree, protocol))
    made["fairseq zip"].append(_without_checksums(made["fairseq zip"][0], folder))
    config = pickle.dumps({"lr": [0.1, 1e-3], "name": "tiny", "on": True, "table": {0: (1, None), 1: b"bytes"}}, 2)[2:-1]
    for args in (trap, config):
        both = build.P2 + b"}" + build.text("args") + args + b"s" + build.text("model") + b"}" + build.text("w")
        made[PICKLE].append(both + build.tensor() + b"ss.")
        made["legacy"].append(build.legacy(both + build.tensor(build.storage(legacy=True)) + b"ss."))
    save_file({"a": torch.ones(2, 3), "b": torch.zeros(4).half()}, folder / "seed.safetensors", {"k": "v"})
    made["safetensors"].append((folder / "seed.safetensors").read_bytes())
    header = {"hubcore": '{"config": {"dim": 4}, "upstream": "Toy"}'}
    save_file({"model.weight": torch.ones(2, 3)}, folder / "seed.safetensors", header)
    made["safetensors"].append((folder / "seed.safetensors").read_bytes())
    return made


def mutated(data: bytes, seed: int) -> bytes:
    """The data with one to five changes: bits, bytes, bytes lost, put in, copied, extreme numbers, the end cut off."""
    chance = random.Random(seed)
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5))):
        if not changed:
            break
        at = chance.randrange(len(changed))
        other = chance.randrange(len(changed))
        changed = chance.choice(
            (
                changed[:at] + bytes([changed[at] ^ 1 << chance.randrange(8)]) + changed[at + 1 :],
                changed[:at] + chance.randbytes(1) + changed[at + 1 :],
                changed[:at] + changed[at + chance.randrange(1, 40) :],
                changed[:at] + chance.randbytes(chance.randrange(1, 10)) + changed[at:],
                changed[:at] + changed[other : other + 8] + changed[at + 8 :],
                changed[:at] + chance.choice(EXTREMES) + changed[at + 4 :],
                changed[: at + 1],
            )
        )
    return bytes(changed)


def read_all(path: Path) -> None:
    """Opens a checkpoint and reads all of it, in float32 as a model does."""
    with open_checkpoint(path) as checkpoint:
        for tensor in checkpoint.read(checkpoint.tensors, torch.float32).values():
            tensor.flatten()[-1:].tolist()
        str(checkpoint.config), str(checkpoint.task)


def write(folder: Path, name: str, content: bytes) -> Path:
    """A file of one of the formats. The archive around a pickle alone is whole, so that damage reaches the code behind it."""
    path = folder / ("a.safetensors" if name == "safetensors" else "a.pt")
    whole = name != PICKLE
    path.write_bytes(content if whole else build.archive(*(replace(record, crc=0) for record in build.parts(content))))
    return path


def fuzz(folder: Path, mutations: int, seed: int) -> Findings:
    """Reads that many mutations, the formats in turn."""
    found = Findings()
    made = seeds(folder)
    room = folder / "room"
    room.mkdir()
    for name in FORMATS:  # whatever is imported on first use
        for data in (*made[name], b""):
            path = write(room, name, data)
            _attempt(path, Findings())
            path.unlink()
    modules = set(sys.modules)
    for number in range(mutations):
        name = FORMATS[number % len(FORMATS)]
        choice = made[name][number // len(FORMATS) % len(made[name])]
        path = write(room, name, mutated(choice, seed * 1_000_003 + number))
        label = f"mutation {number} of seed {seed} ({name})"
        with watching() as events:
            began = time.process_time()
            problem = _attempt(path, found)
            spent = time.process_time() - began
        found.slowest = max(found.slowest, spent)
        found.wrong += [f"{label}: {what}" for what in (*suspicious(events), *problem)]
        if spent > SECONDS:
            found.wrong.append(f"{label}: took {spent:.2f} s")
        path.unlink()
    left = [path.name for place in (room, folder / "canary") for path in place.iterdir()]
    found.wrong += [f"a file was left: {name}" for name in left]
    found.wrong += [f"a module was imported: {name}" for name in sorted(set(sys.modules) - modules)]
    return found


def _attempt(path: Path, found: Findings) -> list[str]:
    """Reads one file and counts what came of it; an exception that is not ours is returned."""
    try:
        read_all(path)
    except CheckpointError as error:
        found.refused[type(error).__name__] += 1
    except Exception as error:  # the very thing that is looked for
        return [f"{type(error).__name__}: {error}"]
    else:
        found.read += 1
    return []


def main() -> int:
    """The command line; exits with 1 if something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fuzz", description=__doc__)
    parser.add_argument("--mutations", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = fuzz(Path(folder), given.mutations, given.seed)
    print(found.summary(given.seed))
    print("\n".join(found.wrong[:50]))
    return bool(found.wrong)


if __name__ == "__main__":
    sys.exit(main())
