"""The processes of a run: one, or several that `accelerate launch` or `torchrun` started on one machine or many."""

import atexit
import os
import re
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache

import torch
from torch import Tensor, nn

from luring.errors import InputError
from luring.progress import progress
from luring.stopping import LOST, Stopped

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for another one that is silent. One that has ended is noticed at once on the CPU, and by the launcher on GPUs."""

BROKEN = re.compile(r"gloo|nccl|connection|peer|timed? ?out|process group", re.IGNORECASE)


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this one is.

    Attributes:
        rank: from 0, which is the one that writes files and shows progress.
        count: of all machines together.
        device: that this process computes on; None where the caller chooses.
    """

    rank: int = 0
    count: int = 1
    device: torch.device | None = None

    @property
    def main(self) -> bool:
        """Whether this process writes and shows."""
        return self.rank == 0

    def add(self, tensor: Tensor) -> Tensor:
        """The sum of all processes' tensors, in place."""
        if self.count > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def follow_main(self, network: nn.Module) -> None:
        """Give every process the buffers of the main one: batch-norm statistics, which each took from images of its own."""
        if self.count > 1:
            for buffer in network.buffers():
                torch.distributed.broadcast(buffer, 0)

    def meet(self) -> None:
        """Wait until all are here."""
        if self.count > 1:
            torch.distributed.barrier()

    def joined(self, network: nn.Module) -> nn.Module:
        """The network as it is called in training: gradients are averaged over all processes before `backward` returns.

        Weights are the main process's from the start. On GPUs batch normalisation takes its statistics over all processes, on the CPU each
        process over its own images.
        """
        if self.count == 1:
            return network
        device = next(network.parameters()).device
        if device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return nn.parallel.DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)

    def spread(
        self, function: Callable[[Tensor], Tensor], images: Tensor, part: int, *, told: str | None = None
    ) -> Tensor:
        """`function` of all images, each process taking some; every process gets the whole.

        Args:
            function: from some images to a tensor with a row for each.
            images: [n, channels, height, width], the same in every process.
            part: images given to `function` at a time: the same parts, whatever the number of processes, and so the same numbers.
            told: what the progress over this process's share calls it; `None` shows none.

        Returns:
            [n, …], bit for bit what one process gives.
        """
        parts = images.split(part)
        share = range(self.rank, len(parts), self.count)
        own: dict[int, Tensor] = {}
        with progress(told or "", sum(len(parts[index]) for index in share), show=told is not None) as advance:
            for index in share:
                own[index] = function(parts[index])
                advance(len(parts[index]), "")
        if self.count == 1:
            return torch.cat(list(own.values()))
        like = own[self.rank] if own else function(parts[0])
        whole = torch.zeros((len(images), *like.shape[1:]), dtype=like.dtype, device=like.device)
        for index, found in own.items():
            whole[index * part :][: len(found)] = found
        return self.add(whole)

    @contextmanager
    def together(self, saved: str) -> Generator[None]:
        """A failed exchange with another process, told in one sentence; `saved` says what of the work is kept."""
        try:
            yield
        except RuntimeError as error:
            if self.count == 1 or not BROKEN.search(str(error)):
                raise
            reason = str(error).strip().splitlines()[0]
            atexit.register(_end, LOST)
            raise Stopped(f"another process of this run was lost ({reason}). {saved}", LOST) from error


def _end(code: int) -> None:
    """End at once: where a neighbour is gone, the exchange's own threads may abort an orderly end."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@cache
def here(cpu: bool = False) -> Processes:
    """This process, and how many it is one of; the others are waited for.

    Args:
        cpu: compute on the CPU, also where there is a GPU.

    Raises:
        InputError: `accelerate` is set to cut networks up (FSDP, DeepSpeed, Megatron).
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Processes()
    for way in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
        if os.environ.get(f"ACCELERATE_USE_{way}", "false").lower() == "true":
            raise InputError(f"a lure is trained whole in every process, not cut up by {way}: launch without it.")
    from accelerate import PartialState

    state = PartialState(cpu=cpu or not torch.cuda.is_available(), timeout=TIMEOUT)
    return Processes(state.process_index, state.num_processes, state.device)


def leave() -> None:
    """Take leave of the other processes, at the end of a run that went well: the interpreter ends with code 0."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    if torch.distributed.get_backend() == "gloo":  # whose end is now and then an abort, when the other one ended first
        atexit.register(_end, 0)
    else:
        torch.distributed.destroy_process_group()
