"""One forward pass of the model for a plan. Tensors without policy.

Shapes: T tokens, S sampled requests, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from picollm.infer.fused import FusedModel
from picollm.infer.scheduler import Plan
from picollm.model.cache import KVCache, Segment
from picollm.model.llama import Model
from picollm.paths import bound_kernel_caches

_NUM_KERNELS = 32  # a pass needs six, and every number of rows has its own


class Runner:
    """A model with its cache."""

    def __init__(self, model: Model, num_slots: int) -> None:
        bound_kernel_caches(_NUM_KERNELS)
        self.model = FusedModel(model)
        weight = model.lm_head_weight
        self.device = weight.device
        self.cache = KVCache(model.config, num_slots, dtype=weight.dtype, device=weight.device)

    @torch.inference_mode()
    def run(self, plan: Plan) -> Tensor:
        """Return the logits after each request whose known tokens have all been read, float32 ``[S, V]``."""
        for move in plan.moves:
            (self.cache.swap if move.kind == "swap" else self.cache.copy)(*move[1:])
        ids: list[int] = []
        positions: list[int] = []
        select: list[int] = []
        segments = []
        num_decode = sum(length == 1 for _, _, length in plan.work)
        for request, slot, length in plan.work:
            start = request.num_computed
            end = start + length
            ids += request.ids[start:end]
            positions += range(start, end)
            segments.append(Segment(slot, start, length))
            if end == len(request.ids):
                select.append(len(ids) - 1)
        self.cache.reserve(max(s.start + s.length for s in segments))
        view = self.cache.view(segments[:num_decode], segments[num_decode:])
        wanted = None if len(select) == len(ids) else self._tensor(select)
        return self.model(self._tensor(ids), self._tensor(positions), wanted, view)

    def _tensor(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self.device)
