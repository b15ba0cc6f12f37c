"""The shape of a LoRA adapter. Apart from ``lora.py``, because recipes are read without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from picollm.errors import InputError

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Lora:
    """Which matrices get a low-rank update, and how large it is."""

    rank: int = 8
    """The inner width of every update."""
    alpha: float = 16.0
    """The update counts ``alpha / rank``."""
    targets: tuple[str, ...] = TARGETS
    """The kinds of matrices that get one; all of them by default."""

    def __post_init__(self) -> None:
        if self.rank < 1 or not 0 < self.alpha < math.inf:
            raise InputError(
                f"LoRA rank {self.rank} and alpha {self.alpha:g}; expected a rank of 1 or more, usually 8, "
                "and an alpha above 0, usually twice the rank."
            )
        unknown = [name for name in self.targets if name not in TARGETS]
        if unknown or not self.targets:
            raise InputError(
                f"LoRA targets {', '.join(unknown) or '(none)'}; expected some of {', '.join(TARGETS)}."
            )
