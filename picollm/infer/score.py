"""Log-probabilities after many prompts: of candidate next tokens, or of whole continuations.

Prompts are sorted, so that those with a common beginning (a system prompt, few-shot examples) stand together.
A common beginning is read once into one cache slot; every prompt's rest then continues it, each overwriting
the last.

::

    prompts    P P P P a a      one pass    P P P P         stays in the slot
               P P P P b        next pass   a a | b | c c   each attends to P and to itself
               P P P P c c

Shapes: N wanted positions of one pass, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from picollm.errors import InputError
from picollm.infer.fused import FusedModel
from picollm.infer.scheduler import num_shared
from picollm.model.cache import KVCache, Segment

# A pass of its own costs about as much as this many tokens in a larger pass; sharing must save more.
MIN_SAVED = 128
MAX_PASS_TOKENS = 2048

_Candidates = Sequence[int] | Sequence[Sequence[int]]


class Likelihood(NamedTuple):
    """The summed log-probability of a continuation, its tokens, and whether greedy decoding writes it."""

    logprob: float
    num_tokens: int
    is_greedy: bool


@torch.inference_mode()
def score(model: FusedModel, prompts: Sequence[Sequence[int]], candidates: _Candidates) -> list[list[float]]:
    """Return ``log p(candidate | prompt)`` for each prompt and each of its candidates, in the order given.

    Raises:
        InputError: not one list of candidates per prompt, or a candidate outside the vocabulary.
    """
    wanted = _per_prompt(len(prompts), candidates, model.config.vocab_size)
    results: list[list[float]] = [[] for _ in prompts]
    for some, logits_NV in _read(model, prompts, [1] * len(prompts)):
        logprobs_NV = logits_NV.log_softmax(-1)
        for row, index in enumerate(some):
            results[index] = logprobs_NV[row, wanted[index]].tolist()
    return results


@torch.inference_mode()
def likelihoods(
    model: FusedModel, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
) -> list[Likelihood]:
    """Return how likely each continuation is after its prompt; both have at least one token."""
    texts = [[*prompt, *rest[:-1]] for prompt, rest in zip(prompts, continuations, strict=True)]
    lengths = [len(rest) for rest in continuations]
    results: dict[int, Likelihood] = {}
    for some, logits_NV in _read(model, texts, lengths):
        targets = torch.tensor([id for i in some for id in continuations[i]], device=logits_NV.device)
        found = logits_NV.gather(1, targets[:, None])[:, 0] - logits_NV.logsumexp(-1)
        hits = logits_NV.argmax(-1) == targets
        sizes = [lengths[i] for i in some]
        for index, logprobs, right in zip(
            some, torch.split(found, sizes), torch.split(hits, sizes), strict=True
        ):
            results[index] = Likelihood(float(logprobs.double().sum()), len(logprobs), bool(right.all()))
    return [results[index] for index in range(len(texts))]


def _read(
    model: FusedModel, prompts: Sequence[Sequence[int]], num_wanted: Sequence[int]
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield ``(members, logits_NV)``: indices of prompts, and the logits at their last wanted tokens."""
    cache = KVCache(model.config, 1, max(map(len, prompts), default=1), model.dtype, model.device)
    resident: Sequence[int] = []
    for members, prefix in _groups(prompts, num_wanted):
        kept = num_shared(resident, prefix)
        if kept < len(prefix):
            _logits(model, cache, [(kept, prefix[kept:])], [1])
        resident = prefix
        for some in _passes(members, prompts, len(prefix)):
            rests = [(len(prefix), prompts[i][len(prefix) :]) for i in some]
            yield some, _logits(model, cache, rests, [num_wanted[i] for i in some])


def _logits(
    model: FusedModel,
    cache: KVCache,
    pieces: Sequence[tuple[int, Sequence[int]]],
    num_wanted: Sequence[int],
) -> Tensor:
    """Return the logits at the last tokens of each piece, ``[N, V]``; a piece is its start and its ids."""
    segments = [Segment(0, start, len(ids)) for start, ids in pieces]
    ids = [id for _, piece in pieces for id in piece]
    positions = [p for s in segments for p in range(s.start, s.start + s.length)]
    ends = accumulate(s.length for s in segments)
    select = [at for end, num in zip(ends, num_wanted, strict=True) for at in range(end - num, end)]
    as_tensor = partial(torch.tensor, dtype=torch.long, device=model.device)
    return model(as_tensor(ids), as_tensor(positions), as_tensor(select), cache.view([], segments))


def _groups(
    prompts: Sequence[Sequence[int]], num_wanted: Sequence[int]
) -> Iterator[tuple[list[int], Sequence[int]]]:
    """Yield ``(members, prefix)``: indices of prompts, and the beginning they share that is worth a pass.

    This walks the tree of common beginnings from the root. A branch that would save at least ``MIN_SAVED``
    tokens becomes a group of its own, after its parent, so that it only adds to what its parent left in the
    slot; the prompts of other branches stay with their parent.
    """
    order = sorted(range(len(prompts)), key=lambda i: list(prompts[i]))
    # Tokens whose logits are asked for are never shared.
    shareable = (prompts[i][: len(prompts[i]) - num_wanted[i]] for i in order)
    shared = [num_shared(one, other) for one, other in pairwise(shareable)]
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
