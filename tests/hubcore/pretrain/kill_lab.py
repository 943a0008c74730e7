"""Starts runs in children of one warm process, kills them at chosen moments, and lets the last one end by itself.

    python -m tests.hubcore.pretrain.kill_lab RECIPE OUT SEED KILLS

Half of the kills come after a random time, half at a random call of fsync, rename or replace: inside saving. Prints how many
children were killed, and how many of them within a call.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hubcore.pretrain import pretrain, read_recipe
from hubcore.pretrain.prepare import prepare
from hubcore.pretrain.processes import Processes

_CALLS = ("fsync", "rename", "replace")


def _die_at_call(number: int) -> None:
    left = [number]

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    for name in _CALLS:
        setattr(os, name, counted(getattr(os, name)))


def _child(recipe: str, out: str, call: int | None) -> int:
    """The process id of a child that runs the recipe."""
    child = os.fork()
    if child:
        return child
    code = 1
    with open(f"{out}.log", "w") as log, contextlib.redirect_stderr(log):
        try:
            if call is not None:
                _die_at_call(call)
            outcome = pretrain(read_recipe(recipe), out)
            code = 0 if outcome.status == "finished" else 3
        except BaseException:
            traceback.print_exc()
        finally:
            log.flush()
            os._exit(code)


def _log(out: str, run: object) -> str:
    """The end of what a child said."""
    return Path(f"{out}-{run}.log").read_text()[-3000:]


def main(recipe: str, out: str, seed: str, kills: str) -> None:
    rng = random.Random(int(seed))
    # Children find everything imported. No backward pass, whose threads would not survive a fork.
    prepare(read_recipe(recipe))
    Processes("cpu")
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    torch.optim.AdamW([weight]).step()
    began = time.monotonic()
    _, status = os.waitpid(_child(recipe, f"{out}-undisturbed", None), 0)
    duration = time.monotonic() - began
    if status:
        sys.exit(f"the undisturbed run ended with {status}: {_log(out, 'undisturbed')}")
    killed = inside = run = 0
    while killed < int(kills):
        by_call = (killed + run) % 2 == 0
        call = rng.randrange(1, 50) if by_call else None
        child = _child(recipe, f"{out}-{run}", call)
        if call is None:
            time.sleep(rng.uniform(0.05, 0.5) * duration)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            killed += 1
            inside += by_call
        elif status:
            sys.exit(f"a run ended with {status}: {_log(out, run)}")
        else:
            run += 1  # it was faster than its end; the next one is disturbed from its beginning
    _, status = os.waitpid(_child(recipe, f"{out}-{run}", None), 0)
    if status:
        sys.exit(f"the last run ended with {status}: {_log(out, run)}")
    wanted = Path(f"{out}-undisturbed", "metrics.jsonl").read_bytes()
    same = [Path(f"{out}-{number}", "metrics.jsonl").read_bytes() == wanted for number in range(run + 1)]
    print(f"killed {killed}, inside a call {inside}, all the same {all(same)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
