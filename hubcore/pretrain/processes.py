"""`Processes`: the processes of a run, one or many, behind the few calls that the loop needs. They are accelerate's."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
from torch import nn

from hubcore.errors import HubcoreError
from hubcore.text import logger

_log = logger("pretrain")
_TIMEOUT = timedelta(minutes=30)
"""Longest time that a process waits for the others, for instance while one of them reads a slow disk."""
_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Numbers of processes as torchrun, srun and kinds of mpirun set them; accelerate would join a group by any of them."""


class Processes:
    """All processes of a run, started by `hubcore pretrain` (one) or by torchrun (one for each device).

    Args:
        device: `auto` or `cpu`.

    Raises:
        HubcoreError: accelerate is not installed, or something other than torchrun started several.
    """

    def __init__(self, device: str = "auto") -> None:
        size = next((name for name in _SIZES if os.environ.get(name, "1") not in ("0", "1")), None)
        if size and "LOCAL_RANK" not in os.environ:
            raise HubcoreError(
                f"{size} says that {os.environ[size]} processes were started, but not by torchrun. Each would train alone.",
                fix=f"Start one torchrun a machine (srun --ntasks-per-node=1 torchrun ...), or unset {size} to run one.",
            )
        try:
            from accelerate import Accelerator
            from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
        except ImportError as error:
            raise HubcoreError(
                f"accelerate cannot be imported ({error}). Pre-training runs on it. Run pip install 'hubcore[train]'."
            ) from error
        # It takes the group that exists when it is first imported as a default argument. Imported later, with the first
        # DistributedDataParallel, it would keep the group's threads alive after `close`, and these may abort the process.
        importlib.import_module("torch.distributed.nn")
        self._ddp = DistributedDataParallelKwargs()
        # No mixed precision and no accumulation of its own: on a CPU its fp16 is fp32, and it scales losses.
        self._accelerator = Accelerator(
            # Without cpu=True, accelerate sees no group of processes on a machine that has nothing but a CPU.
            cpu=device == "cpu" or not _has_accelerator(),
            mixed_precision="no",
            kwargs_handlers=[self._ddp, InitProcessGroupKwargs(timeout=_TIMEOUT)],
        )
        self.device: torch.device = self._accelerator.device
        self.rank: int = self._accelerator.process_index
        self.world: int = self._accelerator.num_processes
        self.is_main: bool = self._accelerator.is_main_process
        started = int(os.environ.get("WORLD_SIZE", "1"))
        if self.world != started:
            raise HubcoreError(
                f"{started} processes were started, but this one sees {self.world}. Each would train alone. Start them with "
                "torchrun, or unset WORLD_SIZE for a run in one process."
            )

    def wrap(self, model: nn.Module, *, skips_parameters: bool) -> nn.Module:
        """The model on this process's device, wrapped if there are several, so that gradients are averaged over them.

        With `skips_parameters` it looks for parameters without a gradient at each update, which takes time.
        """
        self._ddp.find_unused_parameters = skips_parameters
        prepared: nn.Module = self._accelerator.prepare(model)
        return prepared

    @contextlib.contextmanager
    def accumulating(self, model: nn.Module, *, last: bool) -> Iterator[None]:
        """Within it gradients stay here, unless this is the update's last micro-batch."""
        if last or self.world == 1:
            yield
        else:
            with self._accelerator.no_sync(model):
                yield

    def gather(self, values: list[Any]) -> list[Any]:
        """The values of all processes, those of process 0 first; every process gets them."""
        if self.world == 1:
            return values
        parts: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(parts, values)
        return [value for part in parts for value in part]

    def close(self) -> None:
        """Leaves the group and ends its threads. The model that `wrap` gave must be unused by then."""
        self._accelerator.free_memory()
        self._accelerator.end_training()


def _has_accelerator() -> bool:
    """True if there is a device that accelerate would take before the CPU."""
    if hasattr(torch, "accelerator"):
        return torch.accelerator.is_available()
    return torch.cuda.is_available() or torch.backends.mps.is_available()


def warn_of_restarts() -> None:
    """Warns where torchrun's restarts are known to hang.

    Restarted processes find their group by a store that torchrun shares with the attempt that died, and may wait for it. The
    variable that turns the sharing off is read by torchrun itself, before this process exists.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" and os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0":
        _log.warning(
            "torchrun may hang when it restarts processes. They then share its store with those that died. Start it with "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in the environment."
        )
