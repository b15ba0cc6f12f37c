"""Draws follow the distribution that transformers' own processors define, row by row."""

from __future__ import annotations

import pytest
import torch

from picollm.infer.params import SamplingParams
from picollm.infer.sampling import sample

V = 600


def logits(rows: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(rows, V, generator=torch.Generator().manual_seed(seed))


def reference(row_V: torch.Tensor, p: SamplingParams, history: list[int]) -> torch.Tensor:
    """Return the probabilities after transformers' processors, in its order."""
    from transformers import (
        LogitsProcessorList,
        MinPLogitsWarper,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    processors = LogitsProcessorList()
    if p.repetition_penalty != 1:
        processors.append(RepetitionPenaltyLogitsProcessor(p.repetition_penalty))
    processors.append(TemperatureLogitsWarper(float(p.temperature)))
    if p.top_k:
        processors.append(TopKLogitsWarper(p.top_k))
    if p.top_p < 1:
        processors.append(TopPLogitsWarper(p.top_p))
    if p.min_p > 0:
        processors.append(MinPLogitsWarper(p.min_p))
    return processors(torch.tensor([history]), row_V[None].clone())[0].softmax(-1)


CASES = [
    SamplingParams(),
    SamplingParams(temperature=0.7),
    SamplingParams(top_k=5),
    SamplingParams(top_k=1),
    SamplingParams(top_k=10**6, temperature=2.0),
    SamplingParams(top_p=0.6),
    SamplingParams(top_p=0.9999, temperature=5.0),
    SamplingParams(top_p=1e-9),
    SamplingParams(min_p=0.1, temperature=1.5),
    SamplingParams(min_p=1e-7, temperature=3.0),
    SamplingParams(top_k=50, top_p=0.8, min_p=0.02, temperature=1.3, repetition_penalty=1.3),
    SamplingParams(repetition_penalty=0.8),
]
HISTORY = [0, 5, 5, 17, 200, 599]


@pytest.mark.parametrize("p", CASES)
def test_even_draws_hit_each_token_as_often_as_transformers_says(p: SamplingParams) -> None:
    row, draws = logits(1)[0], 4000
    expected = reference(row, p, HISTORY)
    every = [(i + 0.5) / draws for i in range(draws)]
    ids, _ = sample(row.repeat(draws, 1), [p] * draws, [HISTORY] * draws, every)
    found = torch.bincount(torch.tensor(ids), minlength=V) / draws
    # Evenly spaced draws visit each token's interval to within one draw at either end.
    assert (found - expected).abs().max() <= 2 / draws
    assert not found[expected == 0].any()


def test_rows_of_a_mixed_batch_equal_rows_alone() -> None:
    params = [*CASES, SamplingParams(temperature=0), SamplingParams(temperature=0, repetition_penalty=2.0)]
    all_logits = logits(len(params))
    draws = torch.rand(len(params), generator=torch.Generator().manual_seed(3)).tolist()
    histories = [[i, i + 1, 40] for i in range(len(params))]
    together, _ = sample(all_logits.clone(), params, histories, draws)
    apart = [
        sample(all_logits[i : i + 1].clone(), [p], [histories[i]], [draws[i]])[0][0]
        for i, p in enumerate(params)
    ]
    assert together == apart


def test_greedy_takes_the_most_likely() -> None:
    rows = logits(8)
    ids, _ = sample(rows.clone(), [SamplingParams(temperature=0)] * 8, [[]] * 8, [0.0] * 8)
    assert ids == rows.argmax(-1).tolist()


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-53])
def test_extreme_draws_never_choose_an_impossible_token(draw: float) -> None:
    row = torch.full((1, 9), -torch.inf)
    row[0, 3:5] = 0.0
    (id,), _ = sample(row, [SamplingParams()], [[]], [draw])
    assert id == (3 if draw == 0 else 4)


def test_logprobs_are_of_the_model_before_penalty_and_temperature() -> None:
    rows = logits(2)
    expected = rows.log_softmax(-1)
    params = [SamplingParams(temperature=0, repetition_penalty=5.0, logprobs=3), SamplingParams()]
    ids, (first, second) = sample(rows.clone(), params, [rows[0].topk(3).indices.tolist(), []], [0.0, 0.5])
    assert second is None
    assert first is not None
    assert first.id == ids[0]
    assert first.logprob == pytest.approx(expected[0, ids[0]].item())
    values, best = expected[0].topk(3)
    assert [id for id, _ in first.top] == best.tolist()
    assert [logprob for _, logprob in first.top] == pytest.approx(values.tolist())
