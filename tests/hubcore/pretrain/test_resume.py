"""A run that was killed, interrupted, or moved to another number of processes goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from hubcore.checkpoints import open_checkpoint
from hubcore.pretrain.metrics import read_rows
from hubcore.units import Units, write_units
from tests.hubcore.pretrain.conftest import RECIPE, Lab
from tests.paths import SPEECH
from tests.running import heed_signals

pytestmark = pytest.mark.slow

REAL = """\
upstream: wav2vec2
model:
  config: tiny
  conv_layers: [[16, 10, 5], [16, 8, 8], [16, 8, 8]]
  dim: 16
  num_layers: 2
  num_heads: 2
  ffn_dim: 16
  pos_conv_kernel: 8
objective: {final_dim: 8, codebook_dim: 8, codebook_entries: 8, num_negatives: 5, layerdrop: 0.2}
data: {train: [TRAIN], max_samples_per_batch: 60000, min_samples: 2000, max_samples: 30000, workers: 1}
optimization: {max_updates: 30, lr: 1e-3, accumulate: 1}
run: {seed: 1, save_every: 3, log_every: 2, tensorboard: false, device: cpu}
monitor: {patience: 0}
"""
HUBERT = REAL.replace("upstream: wav2vec2", "upstream: hubert").replace("train: [TRAIN],", "train: [TRAIN], units: [UNITS],")
HUBERT = re.sub(r"objective: .*", "objective: {clusters: [9], final_dim: 8, layerdrop: 0.2}", HUBERT)
TOY = (
    RECIPE.replace("max_updates: 12", "max_updates: 30")
    .replace("save_every: 4", "save_every: 3")
    .replace("log_every: 1", "log_every: 2")
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    ("text", "seed", "kills"), [(TOY, 5, 10), (REAL, 6, 10), (HUBERT, 7, 3)], ids=["toy", "wav2vec2", "hubert"]
)
def test_killed_again_and_again_and_the_metrics_are_those_of_an_undisturbed_run(
    lab: Lab, text: str, seed: int, kills: int
) -> None:
    if text != TOY:
        clips = sorted(SPEECH.glob("*.flac"))[:6]
        lines = [str(SPEECH), *(f"{clip.name}\t{soundfile.info(clip).frames}" for clip in clips)]
        lab.train.write_text("\n".join(lines) + "\n")
        units = {clip.stem: Units(np.arange(soundfile.info(clip).frames // 320) // 4 % 9) for clip in clips}
        write_units(lab.folder / "units.npz", units)
        text = text.replace("UNITS", str(lab.folder / "units.npz"))
    command = [sys.executable, "-m", "tests.hubcore.pretrain.kill_lab", str(lab.recipe(text)), str(lab.folder / "run")]
    done = subprocess.run(
        [*command, str(seed), str(kills)], capture_output=True, text=True, env=lab.environment, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    some = "[3-9]" if kills == 10 else "[12]"
    said = rf"killed {kills}, inside a call {some}, all the same True\n"
    assert re.fullmatch(said, done.stdout), done.stdout + done.stderr
    metrics = (lab.folder / "run-0/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["update"] for line in metrics if "grad_norm" in line] == list(range(2, 31, 2))
    assert not [*(lab.folder / "run-0/checkpoints").glob(".*")], "what the killed left behind is swept"


def weights(run: Path, update: int, name: str = "model") -> dict[str, torch.Tensor]:
    with open_checkpoint(run / f"checkpoints/update_{update:08}/{name}.safetensors") as checkpoint:
        return checkpoint.read(checkpoint.tensors)


def test_two_processes_make_the_gradients_of_one_and_one_goes_on_where_two_ended(lab: Lab) -> None:
    common = ("optimization.clip_norm=0.0", "objective.skip=true", "run.save_every=1", "run.validate_every=2")
    two = lab.run(
        lab.arguments(*common, "run.device=auto", "optimization.accumulate=4", "optimization.max_updates=2", out="two"),
        processes=2,
    )
    assert two.returncode == 0, two.stderr
    assert "2 processes on cpu, precision fp32" in two.stderr
    one = lab.run(lab.arguments(*common, "optimization.accumulate=8", "optimization.max_updates=2", out="one"))
    assert one.returncode == 0, one.stderr
    run, other = lab.folder / "one", lab.folder / "two"
    gradients, others = weights(run, 1, "optimizer"), weights(other, 1, "optimizer")
    assert set(gradients) == set(others) and any(name.endswith("/exp_avg") for name in gradients)
    for name, first in gradients.items():  # the first moment after one update is a tenth of the gradient
        scale = float(first.abs().max()) + 1e-12
        assert float((first - others[name]).abs().max()) <= 2e-5 * scale, name
    for mine, theirs in zip(read_rows(run / "metrics.jsonl"), read_rows(other / "metrics.jsonl"), strict=True):
        assert list(mine) == list(theirs)
        for name, value in mine.items():
            assert value == pytest.approx(theirs[name], rel=2e-4), name

    longer = (*common, "optimization.accumulate=8", "optimization.max_updates=4")
    gone_on = lab.run(lab.arguments(*longer, out="two"))
    assert gone_on.returncode == 0, gone_on.stderr
    assert "resumed at update 2 of 4" in gone_on.stderr
    assert "max_updates was 2 and is 4" in gone_on.stderr
    assert [row["update"] for row in read_rows(other / "metrics.jsonl") if "lr" in row] == [1, 2, 3, 4]
    assert json.loads((other / "checkpoints/update_00000002/state.json").read_text())["world_size"] == 2
    assert json.loads((other / "checkpoints/update_00000004/state.json").read_text())["world_size"] == 1


LEAVES = """\
import pathlib, torch
from hubcore.pretrain.processes import Processes
processes = Processes()
model = processes.wrap(torch.nn.Linear(2, 2), skips_parameters=False)
model(torch.ones(2)).sum().backward()
assert processes.gather([processes.rank]) == [0, 1]
del model
processes.close()
print(*(task.read_text().strip() for task in pathlib.Path("/proc/self/task").glob("*/comm")))
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs /proc")
def test_no_thread_of_the_group_is_left_to_abort_a_process_that_ends(lab: Lab) -> None:
    command = [*lab.command([], processes=2)[:-2], "--no-python", sys.executable, "-c", LEAVES]
    done = subprocess.run(command, capture_output=True, text=True, env=lab.environment, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "gloo" not in done.stdout and len(done.stdout.splitlines()) == 2, done.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1], ids=lambda one: one.name)
def test_a_signal_saves_and_the_named_command_goes_on(lab: Lab, number: signal.Signals) -> None:
    arguments = lab.arguments("optimization.max_updates=4000", "run.save_every=100000", "run.validate_every=0")
    process = subprocess.Popen(
        lab.command(arguments),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=lab.environment,
        cwd=lab.folder,
        preexec_fn=heed_signals,
    )
    metrics = lab.folder / "run/metrics.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (metrics.is_file() and metrics.stat().st_size > 2000):
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said
    match = re.search(r"interrupted at update (\d+), which is saved. To resume: hubcore (.*)", said)
    assert match, said
    update, arguments = int(match[1]), match[2].split()
    assert (lab.folder / f"run/checkpoints/update_{update:08}").is_dir()
    if number == signal.SIGTERM:
        more = [arguments[0], arguments[1], f"optimization.max_updates={update + 1}", *arguments[2:]]
        gone_on = lab.run(more)
        assert gone_on.returncode == 0, gone_on.stderr
        assert f"resumed at update {update} of {update + 1}" in gone_on.stderr
