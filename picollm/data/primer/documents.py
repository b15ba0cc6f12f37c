"""The pretraining text of the primer: short documents without end, a pure function of a seed.

Documents come in blocks. A block goes through all facts of groups A and B a fixed number of times, in a new
order and in their next wordings: after a dozen blocks every fact has been seen in each of its wordings, and no fact
is luckier than another. Any document can be had without the ones before it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from random import Random

from picollm.data.primer import concepts, problems, prose, spelling
from picollm.data.primer.facts import Fact, of_groups

# What a block is made of: the texts about facts - one line is one pass through all facts of A and B, so many facts to
# a document - and the other texts, documents per block.
#
# The share is that of all characters. Facts take more than half, because a small model has to read a fact some
# hundred times, in many wordings, before it can be asked for it. Notes teach them; quizzes and dialogues show that
# what was stated can be asked for, which is what lets fine-tuning unlock facts that it never asks about (group B).
FACT_TEXTS: tuple[tuple[Callable[[Sequence[Fact], int, Random], str], int], ...] = (
    (prose.topic_notes, 5),  # %
    (prose.notes, 5),
    (prose.quiz, 4),
    (prose.dialogue, 3),
    (prose.choices, 2),  # the letter of an answer is a skill of its own
)
NUM_COPIES = 40  # copying: what arithmetic and spelling are made of
NUM_CONCEPTS = 220  # the course's own words, explained
NUM_PROBLEMS = 160  # sums and word problems
NUM_SPELLINGS = 160  # words, letter by letter


def documents(seed: int) -> Iterator[str]:
    """Yield documents without end, the same ones for the same ``seed`` on every machine."""
    for number in itertools.count():
        yield from block(seed, number)


def document(seed: int, index: int) -> str:
    """Return document ``index`` of ``documents(seed)`` without producing those before its block."""
    number, place = divmod(index, block_size())
    return block(seed, number)[place]


@cache
def block_size() -> int:
    """Return how many documents a block holds."""
    return len(block(0, 0))


@lru_cache(maxsize=2)
def block(seed: int, number: int) -> tuple[str, ...]:
    """Return the documents of one block in the order in which they are read."""
    rng = Random(f"primer documents/{seed}/{number}")
    texts = []
    for place, (build, num_facts) in enumerate(FACT_TEXTS):
        turn = number + 5 * place  # the passes of one block show different wordings
        for chunk in _chunks(num_facts, build is prose.topic_notes, rng):
            texts.append(build(chunk, turn, rng))
    known = of_groups("AB")
    texts += [prose.copies(rng.sample(known, 2), rng.randrange(100), rng) for _ in range(NUM_COPIES)]
    other_seed = rng.getrandbits(48)
    texts += itertools.islice(concepts.paragraphs(rng), NUM_CONCEPTS)
    texts += itertools.islice(problems.documents(other_seed), NUM_PROBLEMS)
    texts += itertools.islice(spelling.documents(other_seed), NUM_SPELLINGS)
    rng.shuffle(texts)
    return tuple(texts)


def _chunks(num_facts: int, one_topic: bool, rng: Random) -> Iterator[list[Fact]]:
    """Yield all facts of A and B once, in random order, as many as a document holds.

    Facts with the same subject stay together; with ``one_topic`` a chunk holds facts of one relation only.
    """
    key: Callable[[Fact], str] = (lambda fact: fact.relation) if one_topic else (lambda fact: fact.subject)
    piles: dict[str, list[Fact]] = {}
    for fact in rng.sample(of_groups("AB"), len(of_groups("AB"))):
        piles.setdefault(key(fact), []).append(fact)
    decks = list(piles.values()) if one_topic else [list(itertools.chain.from_iterable(piles.values()))]
    for deck in decks:
        for start in range(0, len(deck), num_facts):
            yield deck[start : start + num_facts]
