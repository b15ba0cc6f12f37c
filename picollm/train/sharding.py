"""FSDP2: every process keeps a share of the weights, of their gradients and of the optimizer's state.

A layer is whole only while it computes; what is saved and what the run ends with is whole again, so that
checkpoints and training states are those of a run without shards.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from picollm.errors import InputError
from picollm.model.llama import Model
from picollm.train.batches import Batch
from picollm.train.distributed import Ranks
from picollm.train.precision import DTYPES, Precision


class ShardedWeights:
    """The weights of a model that is spread over all processes; the same face as ``precision.Weights``."""

    separate = False

    def __init__(self, whole: Model, precision: Precision, device: torch.device) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import (
            FSDPModule,
            MixedPrecisionPolicy,
            fully_shard,
            register_fsdp_forward_method,
        )

        mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
        policy = MixedPrecisionPolicy(
            param_dtype=DTYPES[precision], reduce_dtype=torch.float32, cast_forward_inputs=False
        )
        self._whole, self._device = whole, whole.lm_head_weight.device
        shared = {id(parameter): parameter for parameter in whole.parameters()}
        self.model = copy.deepcopy(
            whole, shared
        )  # modules of its own, until they are spread the same weights
        for layer, own in zip(self.model.model.layers, whole.model.layers, strict=True):
            fully_shard(layer, mesh=mesh, mp_policy=policy)  # on its way, one layer is whole on the device
            own.to("meta")
        fully_shard(self.model, mesh=mesh, mp_policy=policy)
        register_fsdp_forward_method(self.model, "hidden")
        for module in self.model.modules():
            if isinstance(module, FSDPModule):
                # Gradients are sums already divided by the targets of the whole step; gloo knows sums only.
                module.set_force_sum_reduction_for_comms(True)
                module.set_gradient_divide_factor(1.0)
        whole.to("meta")
        self.masters: dict[str, nn.Parameter] = {
            name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad
        }

    def publish(self) -> None:
        """Do nothing: layers are gathered from the masters whenever they compute."""

    def collect(self) -> None:
        """Do nothing: gradients are reduced into the masters' own."""

    @contextmanager
    def in_full(self) -> Iterator[None]:
        """Change nothing: validation computes in the precision of the run."""
        yield

    def restore(self) -> None:
        """Give the model that was handed in its weights, now trained. Every process must call it."""
        self._whole.to_empty(device=self._device)
        own = dict(self._whole.named_parameters())
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                own[name].copy_(gathered(parameter))


def gathered(tensor: Tensor) -> Tensor:
    """Return a tensor whole, whether or not it is spread. Every process must call it."""
    whole: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole.detach()


def spread_like(whole: Tensor, model: Tensor) -> Tensor:
    """Return this process's share of ``whole`` when ``model`` is spread and of its shape, else ``whole``."""
    if not hasattr(model, "device_mesh") or whole.shape != model.shape:
        return whole
    from torch.distributed.tensor import distribute_tensor

    parts: Any = model
    return distribute_tensor(whole.to(model.device), parts.device_mesh, parts.placements)


def check_shards(ranks: Ranks) -> None:
    """Return when there is somebody to share with.

    Raises:
        InputError: one process alone.
    """
    if ranks.size < 2:
        raise InputError(
            "--shard full spreads the model over processes, and there is only one. Start two or more: "
            "torchrun --nproc-per-node 2 -m picollm sft --shard full"
        )


def most_batches(numbers: range, num_processes: int) -> int:
    """Return how many batches the busiest process has of a step; see ``Batches.share``."""
    return len(numbers) if len(numbers) % num_processes else len(numbers) // num_processes


def idle_batch() -> Batch:
    """Return a batch that counts nothing, for a process that has no share: all must compute together."""
    one = torch.zeros(1, dtype=torch.int64)
    return Batch(one, one.clone(), one.clone(), 0)
