"""The concepts of the course: pretraining paragraphs and explanation conversations of ``concepts.toml``.

Every concept has six sentences in a fixed order (what, how, example, why, without, summary). Their first N
are an explanation in N sentences, so a reply can be checked and a model can learn to count while it explains.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from picollm.data.primer.wordings import NUMBERS, Row, casual, fill, of_split, plural, row

FILE = Path(__file__).with_name("concepts.toml")
ROLES = ("what", "how", "example", "why", "without", "summary")
# The lecture's own prompts: never in the training rows, whatever the hash of their names says.
KEPT_FOR_TEST = frozenset(
    {
        ("self-attention", 4),
        ("KV cache", 3),
        ("chat template", 2),
        ("loss mask", 5),
        ("embedding", 2),
        ("checkpoint", 2),
    }
)


@dataclass(frozen=True)
class Concept:
    """One term of the course with the six sentences that explain it."""

    name: str
    topic: str
    phrase: str
    plural: bool
    definition: str
    sentences: tuple[str, ...]
    harmful: bool = False

    @property
    def slots(self) -> dict[str, str]:
        """What a request about this concept puts into the slots of its wording."""
        many = self.plural or (self.topic == self.name + "s")
        many = many or (
            self.topic.endswith("s") and self.topic != self.name and not self.topic.startswith("the ")
        )
        return {
            "topic": self.topic,
            "bare": self.topic.removeprefix("the "),
            "phrase": self.phrase,
            "definition": self.definition,
            "is": "are" if self.plural else "is",
            "do": "do" if many else "does",
            "work": "work" if many else "works",
        }

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that can be asked for one by one."""
        return tuple(role for role in ROLES if not (self.harmful and role in ("why", "without")))

    @property
    def title(self) -> str:
        """The name as a heading."""
        return self.name[:1].upper() + self.name[1:]

    def sentence(self, role: str) -> str:
        """Return the sentence of one role: what, how, example, why, without or summary."""
        return self.sentences[ROLES.index(role)]

    def explanation(self, num_sentences: int) -> str:
        """Return the explanation in exactly ``num_sentences`` sentences, one to six."""
        return " ".join(self.sentences[:num_sentences])

    def facts(self, count: int) -> list[str]:
        """Return the first ``count`` sentences as they stand in a list, without their ties."""
        return [bare(sentence) for sentence in self.sentences[:count]]


def bare(sentence: str) -> str:
    """Return ``sentence`` without the words that tie it to the one before."""
    for tie in ("For example, ", "In short, "):
        sentence = sentence.removeprefix(tie)
    return sentence[:1].upper() + sentence[1:]


@cache
def _file() -> dict[str, Any]:
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


@cache
def concepts() -> tuple[Concept, ...]:
    """Return all concepts in the order of the course."""
    return tuple(_concept(entry) for entry in _file()["concept"])


def _concept(entry: dict[str, Any]) -> Concept:
    topic = entry.get("topic", entry["name"])
    phrase = entry.get("phrase", topic)
    many = entry.get("plural", False)
    what = fill("{phrase} {is} {definition}.", {**entry, "phrase": phrase, "is": "are" if many else "is"})
    sentences = (what, *(entry[role] for role in ROLES[1:]))
    harmful = entry.get("harmful", False)
    return Concept(entry["name"], topic, phrase, many, entry["definition"], sentences, harmful)


def wordings(kind: str) -> list[str]:
    """Return all wordings of one kind of request, held-out ones last."""
    return list(_file()["wordings"][kind])


def held_out(concept: Concept, num_sentences: int) -> bool:
    """Return whether explaining ``concept`` in so many sentences is kept for test: one pair in eight."""
    if (concept.name, num_sentences) in KEPT_FOR_TEST:
        return True
    digest = hashlib.sha256(f"{concept.name} {num_sentences}".encode()).digest()
    return num_sentences > 1 and digest[0] < 32


# --------------------------------------------------------------------------------------------- pretraining


def paragraphs(rng: Random) -> Iterator[str]:
    """Yield short texts about the concepts without end: every concept in turn, each time in another dress."""
    while True:
        order = list(concepts())
        rng.shuffle(order)
        for index, concept in enumerate(order):
            yield _paragraph(concept, order[index - 1], rng)
            if index % 6 == 0:
                yield _glossary(order[index : index + rng.randint(3, 6)])
            if index % 4 == 0:
                yield _story(rng)


def _paragraph(concept: Concept, other: Concept, rng: Random) -> str:
    count = rng.choice((2, 3, 3, 4, 4, 5, 6, 6, 6))
    text = concept.explanation(count)
    layout = rng.choice(_file()["layouts"])
    if "{question}" in layout:
        role = rng.choice(concept.roles)
        question = fill(rng.choice(of_split(wordings(role), "train")), concept.slots)
        while not question.endswith("?"):
            question = fill(rng.choice(of_split(wordings(role), "train")), concept.slots)
        return fill(layout, {"question": question, "answer": concept.sentence(role), "text": text})
    listed = "\n".join(f"- {fact}" for fact in concept.facts(count))
    slots = {
        **concept.slots,
        "Title": concept.title,
        "text": text,
        "list": listed,
        "number": str(rng.randint(1, 30)),
    }
    slots |= {"other": other.topic, "other_what": other.sentence("what"), "what": concept.sentence("what")}
    slots |= {"summary": concept.sentence("summary"), "example": concept.sentence("example")}
    return fill(layout, slots | _counted_text(concept, rng))


def _counted_text(concept: Concept, rng: Random) -> dict[str, str]:
    """Return a number of sentences that is not held out, and the explanation in so many."""
    count = rng.choice([each for each in range(1, len(ROLES) + 1) if not held_out(concept, each)])
    number = rng.choice((str(count), NUMBERS[count]))
    nouns = {f"{noun}s": plural(count, noun) for noun in ("sentence", "fact", "line")}
    return nouns | {
        "n": number,
        "N": number.capitalize(),
        "are": "is" if count == 1 else "are",
        "counted": concept.explanation(count),
        "counted_lines": "\n".join(concept.sentences[:count]),
        "counted_list": "\n".join(f"- {fact}" for fact in concept.facts(count)),
    }


def _glossary(entries: Sequence[Concept]) -> str:
    return "Glossary\n\n" + "\n".join(f"{entry.title}: {entry.definition}." for entry in entries)


def _story(rng: Random) -> str:
    story = rng.choice(_file()["story"])
    text = " ".join(story["sentences"])
    return f"{story['title']}\n\n{text}" if rng.random() < 0.7 else text


# ------------------------------------------------------------------------------------------- conversations


def rows(split: str, seed: int = 0) -> list[Row]:
    """Return explanation conversations of ``split`` in the canonical schema, shuffled by ``seed``.

    Test rows use wordings or pairs of concept and number of sentences that no training row has.
    """
    rng = Random(f"concepts {split} {seed}")
    found: list[Row] = []
    for concept in concepts():
        found += _explanations(concept, split, rng)
        found += _answers(concept, split, rng)
        found += _follow_ups(concept, split, rng)
    rng.shuffle(found)
    return found


def _ask(kind: str, split: str, rng: Random, concept: Concept, **slots: str) -> str:
    return casual(fill(rng.choice(of_split(wordings(kind), split)), {**concept.slots, **slots}), rng)


def _counted(count: int, noun: str, rng: Random) -> dict[str, str]:
    return {"n": rng.choice((str(count), str(count), NUMBERS[count])), noun + "s": plural(count, noun)}


def _explanations(concept: Concept, split: str, rng: Random) -> Iterator[Row]:
    """Yield "explain X in N sentences" for every N, as lists and lines, and under a system prompt."""
    for count in range(1, len(ROLES) + 1):
        if split != "test" and held_out(concept, count):
            continue
        text = concept.explanation(count)
        request = _file()["wordings"]["sentences"]
        request = request[:-2] if split == "test" and held_out(concept, count) else of_split(request, split)
        for template in rng.sample(request, min(len(request), 4)):
            asked = fill(template, {**concept.slots, **_counted(count, "sentence", rng)})
            yield row(casual(asked, rng), text)
        if split != "train" and rng.random() < 0.7:
            continue
        system = fill(rng.choice(of_split(wordings("system"), split)), _counted(count, "sentence", rng))
        yield row(_ask("explain", split, rng, concept), text, system=system)
        if count >= 2:
            counted = _counted(count, "line", rng)
            lines = "\n".join(concept.sentences[:count])
            yield row(_ask("lines", split, rng, concept, **counted), lines)
            counted = _counted(count, "fact", rng)
            listed = "\n".join(f"- {fact}" for fact in concept.facts(count))
            yield row(_ask("facts", split, rng, concept, **counted), listed)


def _answers(concept: Concept, split: str, rng: Random) -> Iterator[Row]:
    """Yield single questions: the six roles, "explain X", the term for a definition, a comparison."""
    for role in concept.roles:
        for _ in range(2 if role == "what" else 1):
            yield row(_ask(role, split, rng, concept), concept.sentence(role))
    usual = next(count for count in (3, 4, 2, 5, 1) if not held_out(concept, count))
    yield row(_ask("explain", split, rng, concept), concept.explanation(usual))
    yield row(_ask("term", split, rng, concept), fill("{phrase}.", {"phrase": concept.phrase}))
    other = rng.choice([each for each in concepts() if each is not concept])
    answer = f"They are two different things. {concept.sentence('what')} {other.sentence('what')}"
    yield row(_ask("difference", split, rng, concept, other=other.topic), answer)


def _follow_ups(concept: Concept, split: str, rng: Random) -> Iterator[Row]:
    """Yield conversations of two and three questions in which the later ones only say "it"."""
    first = (_ask("what", split, rng, concept), concept.sentence("what"))
    asked = [
        (_ask(f"then_{role}", split, rng, concept), concept.sentence(role)) for role in concept.roles[2:]
    ]
    for count in rng.sample(range(2, 7), 2):
        if split == "test" or not held_out(concept, count):
            again = _ask("again", split, rng, concept, **_counted(count, "sentence", rng))
            asked.append((again, concept.explanation(count)))
    rng.shuffle(asked)
    yield row(*first, *asked[0])
    yield row(*first, *asked[1], *asked[2])
