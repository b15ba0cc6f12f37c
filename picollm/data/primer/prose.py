"""How facts become text: notes, quizzes, dialogues, and exercises in copying.

Every function takes the facts of one document, the turn that decides which of a fact's wordings comes
next, and a source of chance for the dress around them. No text here looks like a chat format: a chat's
roles are learned in fine-tuning.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TypeVar

from picollm.data.primer import choice
from picollm.data.primer.facts import Fact

T = TypeVar("T")

_OPENINGS = (
    "Here are some things worth knowing.",
    "Some facts for today.",
    "From a schoolbook.",
    "A page of a notebook.",
    "Things that everybody should know.",
    "Did you know this?",
    "What we learned this week.",
    "Read this and remember it.",
)
_ABOUT = (
    "This page is about {title}.",
    "Let us learn about {title}.",
    "Notes about {title}.",
    "What we know about {title}.",
    "Today's lesson is about {title}.",
    "Facts about {title}",
)
_QUIZ_OPENINGS = (
    "A short quiz.",
    "Questions and answers.",
    "Test what you know.",
    "Practice for the exam.",
    "Ask a friend these questions.",
)
_QUIZ_FRAMES = (
    "Question: {question}\nAnswer: {reply}",
    "Question: {question} Answer: {reply}",
    "Q: {question}\nA: {reply}",
    "{question} {reply}",
    "{question}\n{reply}",
    "Question: {question}\nAnswer: {answer}.",
    "Q: {question} A: {answer}.",
)
_DIALOGUE_FRAMES = (
    "{asker}: {question}\n{knower}: {reply}",
    "{asker}: {question}\n{knower}: {reply}\n{asker}: {thanks}",
    '{asker} asks: "{question}" {knower} answers: "{reply}"',
    '"{question}" asks {asker}. {knower} says: "{reply}"',
    '{asker} wants to know something. "{question}" The answer of {knower} is right: "{reply}"',
    '{knower} hears the question of {asker}: "{question}" {knower} knows the answer: "{reply}"',
)
_PAIRS = (
    ("Teacher", "Pupil"),
    ("Visitor", "Guide"),
    ("Child", "Mother"),
    ("Child", "Grandfather"),
    ("Guest", "Host"),
    ("Reader", "Librarian"),
)
_NAMES = (
    *("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Hugo", "Ida", "Jonas"),
    *("Lucy", "Max", "Nora", "Oscar", "Paula", "Sam", "Tara", "Tom", "Vera", "Yusuf"),
)
_THANKS = ("Thank you.", "Good to know.", "Now I know it.", "Thanks, I will remember that.", "I see.")
_COPIES = (
    "Copy this sentence: {text}\n{text}",
    "Original: {text}\nCopy: {text}",
    "Say it again: {text} {text}",
    'Write down what I say: "{text}" He writes: "{text}"',
)


def next_of(wordings: Sequence[T], turn: int) -> T:
    """Return the wording of this turn; as many turns as there are wordings show each one once."""
    return wordings[turn % len(wordings)]


def notes(facts: Sequence[Fact], turn: int, rng: Random) -> str:
    """Return statements one after the other."""
    lines = [next_of(fact.statements, turn + fact.number) for fact in facts]
    layout = rng.random()
    if layout < 0.5:
        return " ".join(lines)
    if layout < 0.65:
        return "\n".join(lines)
    if layout < 0.8:
        return f"{pick(_OPENINGS, rng)} {' '.join(lines)}"
    opening = pick(_OPENINGS, rng)
    return "\n".join([opening, *(f"- {line}" for line in lines)])


def topic_notes(facts: Sequence[Fact], turn: int, rng: Random) -> str:
    """Return statements about one topic, mostly below a heading that names it."""
    lines = [next_of(fact.statements, turn + fact.number) for fact in facts]
    title = facts[0].title
    layout = rng.random()
    if layout < 0.25:
        return " ".join(lines)
    if layout < 0.5:
        return f"{title[0].upper()}{title[1:]}\n\n{' '.join(lines)}"
    opening = pick(_ABOUT, rng).format(title=title)
    if layout < 0.75:
        return f"{opening.rstrip('.')}. {' '.join(lines)}"
    return "\n".join([opening, *(f"- {line}" for line in lines)])


def quiz(facts: Sequence[Fact], turn: int, rng: Random) -> str:
    """Return questions with their answers, in one frame throughout."""
    frame = pick(_QUIZ_FRAMES, rng)
    lines = [
        frame.format(
            question=next_of(fact.questions, turn + fact.number),
            reply=fact.reply,
            answer=fact.answer[0].upper() + fact.answer[1:],
        )
        for fact in facts
    ]
    if rng.random() < 0.3:
        lines.insert(0, pick(_QUIZ_OPENINGS, rng))
    return "\n".join(lines)


def dialogue(facts: Sequence[Fact], turn: int, rng: Random) -> str:
    """Return a talk of two people of whom one asks and the other one knows."""
    asker, knower = rng.sample(_NAMES, 2)
    frame = pick(_DIALOGUE_FRAMES, rng)
    if frame.startswith("{asker}:") and rng.random() < 0.5:
        asker, knower = pick(_PAIRS, rng)
    return "\n".join(
        frame.format(
            asker=asker,
            knower=knower,
            question=next_of(fact.questions, turn + fact.number),
            reply=fact.reply,
            thanks=pick(_THANKS, rng),
        )
        for fact in facts
    )


def choices(facts: Sequence[Fact], turn: int, rng: Random) -> str:
    """Return multiple-choice questions with their answers."""
    return "\n\n".join(choice.document(fact, rng) for fact in facts)


def copies(facts: Sequence[Fact], turn: int, rng: Random) -> str:
    """Return a sentence, or its answer alone, and the same words again: practice in copying."""
    frame = pick(_COPIES, rng)
    return "\n".join(frame.format(text=next_of(fact.statements, turn + fact.number)) for fact in facts)


def pick(options: Sequence[T], rng: Random) -> T:
    """Return one of ``options``; faster than ``rng.choice``, which is all that matters here."""
    return options[int(rng.random() * len(options))]
