"""From logits to the next token, for all requests of a step at once.

The order is the one transformers documents: repetition penalty, temperature, top-k, top-p, min-p. A draw
inverts the cumulative distribution at one number that the request brings, so a reply depends on its own seed
and never on how many neighbors it had.

Shapes: R requests, V vocabulary, N candidates (at most V).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from picollm.infer.params import SamplingParams

# Tried first when top-p has no top-k beside it: sorting the few most likely tokens is much cheaper than
# sorting all.
_NUM_LIKELY = 256


class TokenLogprob(NamedTuple):
    """One token's log-probability, and the most likely tokens at its place with theirs, best first."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@torch.inference_mode()
def sample(
    logits_RV: Tensor,
    params: Sequence[SamplingParams],
    histories: Sequence[Sequence[int]],
    draws: Sequence[float],
) -> tuple[list[int], list[TokenLogprob | None]]:
    """Return the next token id of each request, and its log-probability where asked for (else None).

    Args:
        logits_RV: the model's float32 logits; changed in place.
        params: one per row.
        histories: each request's tokens so far, prompt included; the repetition penalty is on these.
        draws: one number in [0, 1) per row; greedy rows ignore theirs.
    """
    raw = logits_RV.log_softmax(-1) if any(p.logprobs is not None for p in params) else None
    for row, (p, history) in enumerate(zip(params, histories, strict=True)):
        if p.repetition_penalty != 1.0:
            _penalize(logits_RV[row], history, p.repetition_penalty)
    # numpy looks for the highest number many times as fast as torch.
    highest = logits_RV.numpy().argmax(-1) if logits_RV.device.type == "cpu" else logits_RV.argmax(-1)
    ids: list[int] = highest.tolist()
    # Filters need sorted candidates and plain rows do not, so each kind is drawn by itself.
    for plain in (True, False):
        rows = [row for row, p in enumerate(params) if not p.is_greedy and p.is_plain == plain]
        if rows:
            some = logits_RV if len(rows) == len(params) else logits_RV[rows]
            drawn = _draw(some, [params[row] for row in rows], [draws[row] for row in rows])
            for row, token in zip(rows, drawn, strict=True):
                ids[row] = token
    if raw is None:
        return ids, [None] * len(ids)
    return ids, [_logprob(raw[row], ids[row], p.logprobs) for row, p in enumerate(params)]


def _penalize(logits_V: Tensor, history: Sequence[int], penalty: float) -> None:
    """Make every token of ``history`` less likely, by the rule of CTRL (arXiv 1909.05858)."""
    seen = torch.tensor(sorted(set(history)), device=logits_V.device)
    values = logits_V[seen]
    logits_V[seen] = torch.where(values < 0, values * penalty, values / penalty)


def _draw(logits_RV: Tensor, params: Sequence[SamplingParams], draws: Sequence[float]) -> list[int]:
    """Return one token per row, drawn from its filtered distribution; all rows are plain, or none is."""
    scaled = logits_RV / logits_RV.new_tensor([p.temperature for p in params])[:, None]
    probabilities = scaled.softmax(-1)
    if params[0].is_plain:
        return _invert(probabilities, draws).tolist()
    likely, ids = _candidates(probabilities, params)
    # Candidates are sorted, so every filter keeps a prefix of each row, and the first one always.
    rank = likely.new_tensor(range(likely.shape[1]))
    top_k = likely.new_tensor([p.top_k or likely.shape[1] for p in params])[:, None]
    likely = likely.masked_fill(rank >= top_k, 0.0)
    before = likely.cumsum(-1) - likely
    top_p = likely.new_tensor([p.top_p if p.top_p < 1 else math.inf for p in params])[:, None]
    min_p = likely.new_tensor([p.min_p for p in params])[:, None]
    dropped = (before >= top_p * likely.sum(-1, keepdim=True)) | (likely < min_p * likely[:, :1])
    dropped[:, 0] = False
    chosen = _invert(likely.masked_fill(dropped, 0.0), draws)
    return ids.gather(1, chosen[:, None])[:, 0].tolist()


def _candidates(probabilities_RV: Tensor, params: Sequence[SamplingParams]) -> tuple[Tensor, Tensor]:
    """Return enough of the most likely tokens for all filters, best first: values and ids ``[R, N]``."""
    size = probabilities_RV.shape[1]
    num = max(p.top_k if p.top_k else _NUM_LIKELY for p in params)
    if num < size:
        values, ids = probabilities_RV.topk(num, dim=-1)
        reached, least = values.sum(-1).tolist(), values[:, -1].tolist()
        first = values[:, 0].tolist()
        if all(
            p.top_k or (p.top_p < 1 and r > p.top_p) or (p.min_p > 0 and last < p.min_p * best)
            for p, r, last, best in zip(params, reached, least, first, strict=True)
        ):
            return values, ids
    return probabilities_RV.sort(dim=-1, descending=True)


def _invert(weights_RN: Tensor, draws: Sequence[float]) -> Tensor:
    """Return the index in each row where the running sum passes ``draw`` of the total, ``[R]``.

    In float64, because a float32 sum over a large vocabulary can end below the draw. A weight of zero is
    never chosen.
    """
    running = weights_RN.double().cumsum(-1)
    target = running[:, -1:] * running.new_tensor(draws)[:, None]
    return torch.searchsorted(running, target, right=True)[:, 0].clamp_(max=weights_RN.shape[1] - 1)


def _logprob(row_V: Tensor, token: int, num_top: int | None) -> TokenLogprob | None:
    if num_top is None:
        return None
    values, ids = row_V.topk(min(num_top, len(row_V)))
    return TokenLogprob(token, row_V[token].item(), tuple(zip(ids.tolist(), values.tolist(), strict=True)))
