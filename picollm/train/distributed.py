"""The processes of a run, and the few things they tell each other.

Every process knows the whole stream of batches, so nothing is exchanged but gradients, the loss and the wish
to stop.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from picollm import paths
from picollm.errors import InputError, PicoError

Choice = TypeVar("Choice")
BUCKET_ELEMENTS = 16 << 20  # 64 MiB of fp32 gradients per message


@dataclass(frozen=True)
class Ranks:
    """Which process this is, of how many."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and lines."""
        return self.rank == 0

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over all processes; a missing one counts as zero."""
        if self.size == 1:
            return
        gradients = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            dist.all_reduce(flat)
            for gradient, total in zip(bucket, torch.split(flat, [g.numel() for g in bucket]), strict=True):
                gradient.copy_(total.view_as(gradient))

    def sum(self, values: Tensor) -> Tensor:
        """Return the element-wise sum of ``values`` over all processes."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def agree(self, choice: Choice) -> Choice:
        """Return what the first process chose."""
        if self.size == 1:
            return choice
        choices = [choice]
        dist.broadcast_object_list(choices)
        return choices[0]

    def first_does(self, action: Callable[[], Choice]) -> Choice:
        """Return what ``action`` returned in the first process; what it raised there, all processes raise."""
        if self.size == 1:
            return action()
        outcome: list[Any] = [None, None]
        failed: Exception | None = None
        if self.first:
            try:
                outcome[0] = action()
            except Exception as error:
                # Not every error survives the way to another process; its words do.
                outcome[1] = error if isinstance(error, PicoError) else PicoError(f"process 0: {error!r}")
                failed = error
        dist.broadcast_object_list(outcome)
        if failed is not None:
            raise failed
        if outcome[1] is not None:
            outcome[1].told = True
            raise outcome[1]
        return cast(Choice, outcome[0])

    def alike(self, action: Callable[[], Choice]) -> Choice:
        """Return what ``action`` returned here; every process does it, and none goes on when one failed.

        What all find wrong alike is said by the first process only. ``action`` exchanges nothing.
        """
        if self.size == 1:
            return action()
        failed: PicoError | None = None
        try:
            found = action()
        except PicoError as error:
            failed = error
        said = self.gather(None if failed is None else str(failed))
        if failed is not None:
            failed.told = str(failed) in said[: self.rank]
            raise failed
        elsewhere = next((text for text in said if text is not None), None)
        if elsewhere is not None:
            error_of_another = PicoError(elsewhere)
            error_of_another.told = True
            raise error_of_another
        return found

    def gather(self, value: Choice) -> list[Choice]:
        """Return what every process brought, in the order of their ranks."""
        if self.size == 1:
            return [value]
        found: list[Choice | None] = [None] * self.size
        dist.all_gather_object(found, value)
        return cast(list[Choice], found)

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.size > 1:
            dist.barrier()


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    elements = 0
    for tensor in tensors:
        bucket.append(tensor)
        elements += tensor.numel()
        if elements >= BUCKET_ELEMENTS:
            yield bucket
            bucket, elements = [], 0
    if bucket:
        yield bucket


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Yield this process's Ranks: alone, or as one of those that torchrun started.

    Raises:
        InputError: torch has no such device here.
    """
    local = paths.environment("LOCAL_RANK") or "0"
    try:
        if device == "cuda" and paths.environment("WORLD_SIZE") is not None:
            torch.cuda.set_device(int(local))  # before anything: each process opens its own GPU only
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = textwrap.shorten(str(error).strip().splitlines()[0].rstrip("."), 100)
        raise InputError(
            f"device {device!r} cannot be used here ({reason}); expected cpu, or cuda or mps where one is."
        ) from error
    if dist.is_available() and dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size())
        return
    if paths.environment("WORLD_SIZE") is None:
        yield Ranks()
        return
    # Gradients lie on the GPU; the few numbers of a step and the wish to stop lie on the CPU.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
