"""Log-probabilities of candidate next tokens after many prompts: multiple choice.

Prompts are sorted, so that those with a common beginning (a system prompt, few-shot examples) stand together.
A common beginning is read once into one cache slot; every prompt's rest then continues it, each overwriting
the last.

::

    prompts    P P P P a a      one pass    P P P P         stays in the slot
               P P P P b        next pass   a a | b | c c   each attends to P and to itself
               P P P P c c

Shapes: N prompts of one pass, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from picollm.errors import InputError
from picollm.infer.scheduler import num_shared
from picollm.model.cache import KVCache, Segment
from picollm.model.llama import Model

# A pass of its own costs about as much as this many tokens in a larger pass; sharing must save more.
MIN_SAVED = 128
MAX_PASS_TOKENS = 1024

_Candidates = Sequence[int] | Sequence[Sequence[int]]


@torch.inference_mode()
def score(model: Model, prompts: Sequence[Sequence[int]], candidates: _Candidates) -> list[list[float]]:
    """Return ``log p(candidate | prompt)`` for each prompt and each of its candidates, in the order given.

    Raises:
        InputError: not one list of candidates per prompt, or a candidate outside the vocabulary.
    """
    wanted = _per_prompt(len(prompts), candidates, model.config.vocab_size)
    results: list[list[float]] = [[] for _ in prompts]
    weight = model.lm_head_weight
    cache = KVCache(model.config, 1, max(map(len, prompts), default=1), weight.dtype, weight.device)
    resident: Sequence[int] = []
    for members, prefix in _groups(prompts):
        kept = num_shared(resident, prefix)
        if kept < len(prefix):
            _logits(model, cache, [(kept, prefix[kept:])])
        resident = prefix
        for some in _passes(members, prompts, len(prefix)):
            rests = [(len(prefix), prompts[i][len(prefix) :]) for i in some]
            logprobs_NV = _logits(model, cache, rests).log_softmax(-1)
            for row, index in enumerate(some):
                results[index] = logprobs_NV[row, wanted[index]].tolist()
    return results


def _logits(model: Model, cache: KVCache, pieces: Sequence[tuple[int, Sequence[int]]]) -> Tensor:
    """Return the logits after each piece, ``[N, V]``; a piece is where it starts in the slot, and its ids."""
    device = model.lm_head_weight.device
    segments = [Segment(0, start, len(ids)) for start, ids in pieces]
    ids = [id for _, piece in pieces for id in piece]
    positions = [p for s in segments for p in range(s.start, s.start + s.length)]
    ends = torch.tensor([s.length for s in segments], device=device).cumsum(0) - 1
    view = cache.view([], segments)
    logits: Tensor = model(
        torch.tensor(ids, device=device), torch.tensor(positions, device=device), ends, view
    )
    return logits


def _groups(prompts: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], Sequence[int]]]:
    """Yield ``(members, prefix)``: indices of prompts, and the beginning they share that is worth a pass.

    This walks the tree of common beginnings from the root. A branch that would save at least ``MIN_SAVED``
    tokens becomes a group of its own, after its parent, so that it only adds to what its parent left in the
    slot; the prompts of other branches stay with their parent.
    """
    order = sorted(range(len(prompts)), key=lambda i: list(prompts[i]))
    # The last token of a prompt is never shared: its logits are what is asked for.
    shared = [num_shared(one, other) for one, other in pairwise(prompts[i][:-1] for i in order)]
    groups = [(0, len(order), 0)] if order else []
    while groups:
        first, last, depth = groups.pop()
        members = []
        branches = [(first, last, depth)]
        while branches:
            for low, high in _runs(shared, *branches.pop()):
                deeper = min(shared[low : high - 1], default=depth)
                if high - low == 1:
                    members.append(order[low])
                elif (high - low - 1) * (deeper - depth) >= MIN_SAVED:
                    groups.append((low, high, deeper))
                else:
                    branches.append((low, high, deeper))
        yield members, prompts[order[first]][:depth]


def _runs(shared: Sequence[int], first: int, last: int, depth: int) -> Iterator[tuple[int, int]]:
    """Yield the runs ``[low, high)`` of ``first .. last`` whose neighbors share more than ``depth``."""
    low = first
    for high in range(first + 1, last + 1):
        if high == last or shared[high - 1] <= depth:
            yield low, high
            low = high


def _passes(members: Sequence[int], prompts: Sequence[Sequence[int]], depth: int) -> Iterator[list[int]]:
    """Yield the members of a group in passes of at most ``MAX_PASS_TOKENS`` new tokens (or one prompt)."""
    some: list[int] = []
    size = 0
    for index in members:
        new = len(prompts[index]) - depth
        if some and size + new > MAX_PASS_TOKENS:
            yield some
            some, size = [], 0
        some.append(index)
        size += new
    if some:
        yield some


def _per_prompt(num_prompts: int, candidates: _Candidates, vocab_size: int) -> list[list[int]]:
    """Return one list of candidate ids per prompt."""
    nested = [list(c) for c in candidates if not isinstance(c, int)]
    each = nested if nested else [[c for c in candidates if isinstance(c, int)]] * num_prompts
    if len(each) != num_prompts:
        raise InputError(
            f"{len(each)} lists of candidates for {num_prompts} prompts; expected one, or one each."
        )
    bad = next((c for some in each for c in some if not 0 <= c < vocab_size), None)
    if bad is not None:
        raise InputError(f"candidate id {bad} is not in the vocabulary of {vocab_size}.")
    return each
