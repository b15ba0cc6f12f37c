"""fp32 master weights, and what the model computes with.

In fp32 both are the same. In bf16 the model's parameters are bf16 copies, written once per step; every
micro-batch's gradient is added to an fp32 sum. Nothing is cast inside the model, so the casts cost one pass
over the weights per step instead of one per use.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from picollm.model.kernels import add_

Precision = Literal["fp32", "bf16"]
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Weights:
    """The master weights of ``model``, and the model's own parameters in the precision of the run.

    What does not require gradients has no master: its fp32 values only wait for the end.
    """

    def __init__(self, model: nn.Module, precision: Precision) -> None:
        self._parameters = dict(model.named_parameters())
        self._frozen = {n: p.data for n, p in self._parameters.items() if not p.requires_grad}
        self._computing = {n: p for n, p in self._parameters.items() if p.requires_grad}
        self.masters = self._computing
        if precision == "bf16":
            self.masters = {n: nn.Parameter(p.detach().clone()) for n, p in self._computing.items()}
            for parameter in self._parameters.values():
                parameter.data = parameter.data.bfloat16()

    @property
    def separate(self) -> bool:
        """Whether the model computes with copies of the masters."""
        return self.masters is not self._computing

    def publish(self) -> None:
        """Make the model compute with the current masters. Call after every change of them."""
        if self.separate:
            with torch.no_grad():
                torch._foreach_copy_(list(self._computing.values()), list(self.masters.values()))

    def collect(self) -> None:
        """Add the gradients of one micro-batch to the fp32 gradients of the masters."""
        if not self.separate:
            return
        for name, parameter in self._computing.items():
            if parameter.grad is None:
                continue
            master = self.masters[name]
            if master.grad is None:
                master.grad = parameter.grad.float()
            else:
                add_(master.grad, parameter.grad)
            parameter.grad = None

    @contextmanager
    def in_full(self) -> Iterator[None]:
        """Let the model compute with the masters themselves while the block runs."""
        if not self.separate:
            yield
            return
        copies = {name: parameter.data for name, parameter in self._parameters.items()}
        self._show({**self._frozen, **self.masters})
        try:
            yield
        finally:
            self._show(copies)

    def restore(self) -> None:
        """Leave the model with its fp32 master weights. The end of a run."""
        if self.separate:
            self._show({**self._frozen, **self.masters})

    def _show(self, tensors: dict[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.data = tensors[name].data
            parameter.grad = None
