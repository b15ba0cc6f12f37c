"""LoRA: frozen matrices, each with a trained product of two thin ones beside it (Hu et al. 2021).

Names and numbers are PEFT's: ``lora_A [rank, in]`` starts random, ``lora_B [out, rank]`` at zero, and their
product counts ``alpha / rank``.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from picollm.errors import InputError
from picollm.model.llama import Linear, Model
from picollm.model.lora_config import Lora


class LoraLinear(Linear):
    """A linear layer whose own weight is frozen and which trains ``lora_A`` and ``lora_B``."""

    lora_A: nn.Parameter
    lora_B: nn.Parameter
    scaling: float

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x @ (weight + scaling * lora_B @ lora_A).T + bias``."""
        update = F.linear(F.linear(x, self.lora_A), self.lora_B)
        return F.linear(x, self.weight, self.bias) + self.scaling * update

    @torch.no_grad()
    def merge(self) -> None:
        """Put the update into the weight and become a plain linear layer."""
        self.weight += self.scaling * (self.lora_B.float() @ self.lora_A.float()).to(self.weight.dtype)
        del self.lora_A, self.lora_B
        self.__class__ = Linear  # type: ignore[assignment]


def add_lora(model: Model, lora: Lora, seed: int = 0) -> None:
    """Freeze ``model`` and give its ``lora.targets`` updates that change nothing yet.

    Raises:
        InputError: when the rank is larger than a matrix is wide.
    """
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, layer in model.named_modules():
        if name.rpartition(".")[2] not in lora.targets or not isinstance(layer, Linear):
            continue
        limit = min(layer.in_features, layer.out_features)
        if lora.rank > limit:
            raise InputError(f"LoRA rank {lora.rank} is more than {name} has; expected 1 to {limit}.")
        device = layer.weight.device
        bound = math.sqrt(1 / layer.in_features)  # PEFT's: Kaiming uniform with a = sqrt(5)
        start = torch.empty(lora.rank, layer.in_features).uniform_(-bound, bound, generator=generator)
        layer.__class__ = LoraLinear
        assert isinstance(layer, LoraLinear)
        layer.lora_A = nn.Parameter(start.to(device))
        layer.lora_B = nn.Parameter(torch.zeros(layer.out_features, lora.rank, device=device))
        layer.scaling = lora.alpha / lora.rank


def merge_lora(model: Model) -> Model:
    """Return ``model`` itself, with every update inside the matrix that it belongs to."""
    for layer in model.modules():
        if isinstance(layer, LoraLinear):
            layer.merge()
    return model.requires_grad_(True)
