"""Necessary operations equal those that torch counts in a model that wastes none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch.utils.flop_counter import FlopCounterMode

from picollm.model.llama import Model
from picollm.train.arithmetic import necessary_flops
from picollm.train.batches import join
from picollm.train.examples import Examples
from picollm.train.step import summed_loss


def test_matrix_operations_equal_those_torch_counts(
    new_model: Callable[..., Model], examples: Examples
) -> None:
    model = new_model(tie_word_embeddings=False)
    batch = join(examples, np.array([5]))
    with FlopCounterMode(display=False) as counter:
        summed_loss(model, batch).backward()
    products = {"aten.mm", "aten.addmm"}
    counted = sum(
        n
        for op, n in counter.get_flop_counts()["Global"].items()
        if str(op).rsplit(".", 1)[0] in products or str(op) in products
    )
    q = model.config.num_attention_heads * model.config.head_dim
    seen = batch.positions + 1
    pairs = int(seen.sum() + seen[batch.targets >= 0].sum())
    assert necessary_flops(model.config, batch) == counted + 6 * 2 * q * pairs


def test_documents_side_by_side_cost_the_sum_of_what_they_cost_alone(
    model: Model, examples: Examples
) -> None:
    members = np.array([2, 9, 4])
    together = necessary_flops(model.config, join(examples, members))
    assert together == sum(
        necessary_flops(model.config, join(examples, members[i : i + 1])) for i in range(3)
    )
