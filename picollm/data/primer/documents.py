"""The pretraining text of the primer: short documents without end, a pure function of a seed.

Documents come in blocks. A block goes through the facts of groups A and B a fixed number of times, in a
new order and in their next wordings, so after a dozen blocks every fact has been told in each of its
wordings, and none is luckier than another. Any document can be had without the ones before its block.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from random import Random

from picollm.data.primer import concepts, drills, instructions, people, problems, prose, smalltalk, spelling
from picollm.data.primer.facts import Fact, of_groups

# What a block is made of. Texts about facts: how they are told, the share of all facts that a block tells
# so, and how many one document holds. Other texts: documents per block. Behind each, its share of all
# tokens.
#
# Facts take most of it, because a small model has to read a fact some hundred times, in many wordings,
# before it can be asked for it. Notes teach them; quizzes and dialogues show that what was stated can be
# asked for, which is what lets fine-tuning unlock facts that it never asks about (group B).
Telling = Callable[[Sequence[Fact], int, Random], str]
FACT_TEXTS: tuple[tuple[Telling, float, int], ...] = (
    (prose.topic_notes, 1.0, 5),  # 6 %
    (prose.notes, 1.0, 5),  # 6 %
    (prose.quiz, 1.0, 4),  # 9 %
    (prose.dialogue, 1.0, 3),  # 13 %
    (prose.choices, 0.4, 2),  # 8 %: to say the letter of an answer is a skill of its own
    (prose.copies, 0.1, 2),  # 1 %
)
NUM_CONCEPTS = 240  # 10 %: the course's own words, explained
NUM_INSTRUCTIONS = 100  # 7 %: tasks and their solutions
NUM_TALKS = 100  # 4 %: talks in prose, without a chat format
NUM_PEOPLE = 160  # 5 %: who somebody is, and who made something
NUM_PROBLEMS = 240  # 11 %: sums and word problems
NUM_SPELLINGS = 320  # 11 %: words, letter by letter
NUM_DRILLS = 360  # 13 %: copying and remembering, which arithmetic and spelling are made of


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


@cache
def digest(seed: int) -> str:
    """Return a sha256 over the first blocks of ``documents(seed)``: enough to use every wording of a fact."""
    total = hashlib.sha256()
    for number in range(12):
        total.update("\0".join(block(seed, number)).encode())
    return total.hexdigest()


@lru_cache(maxsize=2)
def block(seed: int, number: int) -> tuple[str, ...]:
    """Return the documents of one block in the order in which they are read."""
    rng = Random(f"primer documents/{seed}/{number}")
    texts = []
    for place, (build, share, num_facts) in enumerate(FACT_TEXTS):
        turn = number + 5 * place  # the texts of one block show different wordings of a fact
        for chunk in _chunks(share, num_facts, build is prose.topic_notes, rng):
            texts.append(build(chunk, turn, rng))
    other_seed = rng.getrandbits(48)
    texts += itertools.islice(concepts.paragraphs(rng), NUM_CONCEPTS)
    texts += itertools.islice(instructions.paragraphs(rng), NUM_INSTRUCTIONS)
    texts += itertools.islice(smalltalk.paragraphs(rng), NUM_TALKS)
    texts += itertools.islice(people.documents(other_seed), NUM_PEOPLE)
    texts += itertools.islice(problems.documents(other_seed), NUM_PROBLEMS)
    texts += itertools.islice(spelling.documents(other_seed), NUM_SPELLINGS)
    texts += itertools.islice(drills.documents(other_seed), NUM_DRILLS)
    rng.shuffle(texts)
    return tuple(texts)


def _chunks(share: float, num_facts: int, one_topic: bool, rng: Random) -> Iterator[list[Fact]]:
    """Yield a share of the facts of A and B, each once and in random order, as many as a document holds.

    Facts with the same subject stay together; with ``one_topic`` a chunk holds facts of one relation only.
    """
    key: Callable[[Fact], str] = (lambda fact: fact.relation) if one_topic else (lambda fact: fact.subject)
    piles: dict[str, list[Fact]] = {}
    known = of_groups("AB")
    for fact in rng.sample(known, round(share * len(known))):
        piles.setdefault(key(fact), []).append(fact)
    decks = list(piles.values()) if one_topic else [list(itertools.chain.from_iterable(piles.values()))]
    for deck in decks:
        for start in range(0, len(deck), num_facts):
            yield deck[start : start + num_facts]
