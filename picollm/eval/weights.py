"""What fine-tuning did to the network itself: nothing to its shape, little to its weights."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from picollm.model.config import ModelConfig
    from picollm.model.llama import Model

_LAYER = re.compile(r"\.layers\.(\d+)\.")


@dataclass(frozen=True)
class ConfigDifference:
    """A field of the model configuration in which two checkpoints differ."""

    field: str
    base: Any
    sft: Any


@dataclass(frozen=True)
class Movement:
    """How far a group of parameters moved: ``||sft - base|| / ||base||`` in the Euclidean norm.

    ``layer`` is None outside the stack of layers; ``kind`` is a projection's name, "norms" or "embeddings".
    Rows that only one of the two vocabularies has are left out, and so are parameters of different shapes.
    """

    layer: int | None
    kind: str
    relative: float
    num_parameters: int


def config_differences(base: ModelConfig, sft: ModelConfig) -> list[ConfigDifference]:
    """Return every field in which the two configurations differ; empty means the same architecture."""
    ours, theirs = asdict(base), asdict(sft)
    return [ConfigDifference(name, ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]]


def weight_movement(base: Model, sft: Model) -> list[Movement]:
    """Return how far each group of parameters moved from ``base`` to ``sft``, in the order of the network."""
    squares: dict[tuple[int | None, str], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    before = dict(base.named_parameters())
    for name, after in sft.named_parameters():
        if name not in before or not _comparable(name, before[name], after):
            continue
        old, new = _common_rows(before[name].detach(), after.detach())
        entry = squares[_group(name)]
        entry[0] += float((new - old).double().square().sum())
        entry[1] += float(old.double().square().sum())
        entry[2] += old.numel()
    return [
        Movement(layer, kind, _relative(moved, start), int(num))
        for (layer, kind), (moved, start, num) in sorted(squares.items(), key=lambda item: _order(item[0]))
    ]


def overall_movement(movements: list[Movement] | tuple[Movement, ...]) -> float:
    """Return the mean relative movement, each group weighing as much as it has parameters."""
    total = sum(movement.num_parameters for movement in movements)
    return sum(m.relative * m.num_parameters for m in movements) / total if total else 0.0


def _relative(moved: float, start: float) -> float:
    if start == 0.0:
        return 0.0 if moved == 0.0 else 1.0
    return float((moved / start) ** 0.5)


def _comparable(name: str, old: Tensor, new: Tensor) -> bool:
    """Return whether two parameters are the same one: of one shape, but for the rows of a vocabulary."""
    grows = "embed_tokens" in name or "lm_head" in name
    return old.shape == new.shape or (grows and old.shape[1:] == new.shape[1:])


def _common_rows(old: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    rows = min(len(old), len(new))
    return old[:rows].float(), new[:rows].float().to(old.device)


def _group(name: str) -> tuple[int | None, str]:
    layer = _LAYER.search(name)
    kind = "norms" if "norm" in name else name.split(".")[-2]
    kind = {"embed_tokens": "embeddings", "lm_head": "output head"}.get(kind, kind)
    return (int(layer.group(1)) if layer else None, kind)


_KINDS = ("embeddings", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "norms")


def _order(group: tuple[int | None, str]) -> tuple[int, int, int]:
    layer, kind = group
    place = _KINDS.index(kind) if kind in _KINDS else len(_KINDS)
    if layer is None:
        return (0 if kind == "embeddings" else 2, 0, place)
    return (1, layer, place)
