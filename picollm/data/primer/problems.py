"""Word problems in GSM8K's schema, and pretraining documents about the same arithmetic.

The calculator does the arithmetic; what a model has to learn is to copy the operands exactly and to choose
the operator. An expression (``23+45``) belongs to one split forever, and some stories of ``stories.toml`` are
told in no training text.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from picollm.data.primer.wordings import alternatives, check_split, fill
from picollm.data.primer.words import split_of

OPERATION = {"+": "addition", "-": "subtraction", "*": "multiplication", "/": "division"}
DOING = {"+": "Adding", "-": "Subtracting", "*": "Multiplying", "/": "Dividing"}
DEFAULT_ROWS = {"train": 6000, "validation": 200, "test": 400}
NO_VALUE_SHARE = 0.02  # so that the calculator's "error", and what to say then, is not new to a model
_TABLES = {  # slots that are filled together, and the table that fills them
    "box boxes": "containers",
    "ware wares": "wares",
    "person people": "people",
    "site sites": "sites",
    "unit units": "units",
    "makes make made": "verbs",
}
_MARK = re.compile(r"<<([^<>]*)>>\d+")


@dataclass(frozen=True)
class Step:
    """One exact calculation ``a operator b = result``."""

    a: int
    operator: str
    b: int

    @property
    def result(self) -> int:
        """The value; ``/`` is only used where it is exact."""
        if self.operator == "/":
            return self.a // self.b
        return {"+": self.a + self.b, "-": self.a - self.b, "*": self.a * self.b}[self.operator]

    @property
    def expression(self) -> str:
        """The text the calculator is given, such as ``23+45``."""
        return f"{self.a}{self.operator}{self.b}"

    @property
    def mark(self) -> str:
        """GSM8K's annotation followed by the result: ``<<23+45=68>>68``."""
        return f"<<{self.expression}={self.result}>>{self.result}"


def rows(split: str, seed: int = 0, limit: int | None = None) -> list[dict[str, Any]]:
    """Return ``{"question", "answer", "group"}`` rows; ``group``: the operation, ``two steps``, ``no value``.

    No expression and therefore no question of one split occurs in another; half of the one-step rows of
    ``validation`` and ``test`` tell a story that no training text tells.

    Raises:
        InputError: for an unknown split.
    """
    check_split(split)
    rng = Random(f"problems/{split}/{seed}")
    wanted = DEFAULT_ROWS[split] if limit is None else limit
    made: dict[str, dict[str, Any]] = {}
    while len(made) < wanted:
        row = _no_value(split, rng) if rng.random() < NO_VALUE_SHARE else _problem(split, rng)
        made.setdefault(row["question"], row)
    return list(made.values())


def documents(seed: int) -> Iterator[str]:
    """Yield arithmetic documents without end; a pure function of ``seed``.

    Only expressions of the training split and training stories occur.
    """
    rng = Random(f"arithmetic/{seed}")
    while True:
        kind = rng.random()
        if kind < 0.2:
            yield "\n".join(_equation(rng) for _ in range(rng.randint(4, 12)))
        elif kind < 0.35:
            yield "\n".join(_spoken(rng) for _ in range(rng.randint(2, 4)))
        else:
            yield "\n\n".join(_told(rng) for _ in range(rng.randint(1, 3)))


@cache
def _setting() -> dict[str, Any]:
    """Return the content of ``stories.toml``."""
    return tomllib.loads(Path(__file__).with_name("stories.toml").read_text(encoding="utf-8"))


@cache
def _stories(operators: str, new: bool) -> tuple[dict[str, Any], ...]:
    """Return the stories that are solved by ``operators``, in this order."""
    found = [story for story in _setting()["story"] if story["operators"] == operators]
    return tuple(story for story in found if story.get("new", False) == new)


@cache
def _two_step_operators() -> tuple[str, ...]:
    return tuple(
        sorted({story["operators"] for story in _setting()["story"] if len(story["operators"]) == 2})
    )


def _step(operator: str, split: str, rng: Random) -> Step:
    """Return a random calculation of ``split``; half of the sums and differences stay below 100."""
    while True:
        top = 99 if rng.random() < 0.5 else 999
        if operator in "+-":
            a, b = rng.sample(range(1, top + 1), 2)
            if operator == "-":
                a, b = max(a, b), min(a, b)
        else:
            a, b = rng.randint(2, 99), rng.randint(2, 12)
            if operator == "/":
                a *= b
        step = Step(a, operator, b)
        if split_of(step.expression) == split:
            return step


def _cast(rng: Random) -> dict[str, str]:
    """Return who and what a story is about."""
    setting = _setting()
    cast: dict[str, str] = {}
    for slots, table in (
        ("name other", "names"),
        ("things others", "things"),
        ("here there", "spots"),
        ("day later", "days"),
    ):
        cast |= zip(slots.split(), rng.sample(setting[table], 2), strict=True)
    worker, name = rng.choice(setting["workers"]), cast["name"]
    cast["who"], cast["they"] = (name, name) if rng.random() < 0.5 else (f"A {worker}", f"the {worker}")
    cast["adjective"] = rng.choice(setting["adjectives"])
    for slots, table in _TABLES.items():
        cast |= zip(slots.split(), rng.choice(setting[table]), strict=True)
    return cast


def _tell(story: dict[str, Any], steps: Sequence[Step], rng: Random, **operands: int) -> dict[str, Any]:
    """Return the row of ``story``: a reading of its question, and an answer that says what is done."""
    cast = _cast(rng) | {slot: str(number) for slot, number in operands.items()}
    question = "".join(rng.choice(options) for options in alternatives(story["question"]))
    what = fill(story.get("what", "{things}"), cast).lower()
    said = [f"{DOING[step.operator]} gives {step.mark}" for step in steps]
    answer = ". ".join(said) + (f" {what}." if what else ".")
    return {
        "question": fill(question, cast),
        "answer": f"{answer}\n#### {steps[-1].result}",
        "group": OPERATION[steps[0].operator] if len(steps) == 1 else "two steps",
    }


def _problem(split: str, rng: Random) -> dict[str, Any]:
    """Return one row; one in eight needs two steps."""
    if rng.random() < 0.125:
        return _two_steps(split, rng)
    operator = rng.choice("+-*/")
    new = split != "train" and rng.random() < 0.5
    story = rng.choice(_stories(operator, new))
    step = _step(operator, split, rng)
    return _tell(story, [step], rng, a=step.a, b=step.b)


def _two_steps(split: str, rng: Random) -> dict[str, Any]:
    """Return a row whose second calculation starts from the result of the first."""
    operators = rng.choice(_two_step_operators())
    story = rng.choice(_stories(operators, new=False))
    first_operator, second_operator = operators[0], operators[1]
    while True:
        first = _step(first_operator, split, rng)
        second = _follow(first.result, second_operator, rng)
        if second is not None and split_of(second.expression) == split:
            break
    return _tell(story, [first, second], rng, a=first.a, b=first.b, c=second.b)


def _no_value(split: str, rng: Random) -> dict[str, Any]:
    """Return a division by zero, on which the calculator fails."""
    while split_of(f"{(a := rng.randint(1, 999))}/0") != split:
        pass
    asked = rng.choice(
        ("What is {a} divided by 0?", "What is {a}/0?", "Divide {a} by 0.", "How much is {a} / 0?")
    )
    answer = f"<<{a}/0=error>>A number cannot be divided by 0.\n#### error"
    return {"question": asked.format(a=a), "answer": answer, "group": "no value"}


def _follow(start: int, operator: str, rng: Random) -> Step | None:
    """Return a calculation that goes on from ``start``, or None when none fits."""
    if operator == "-":
        return Step(start, "-", rng.randint(1, min(start - 1, 999))) if start > 1 else None
    if operator == "+":
        return Step(start, "+", rng.randint(1, 99))
    if operator == "*":
        return Step(start, "*", rng.randint(2, 12))
    divisors = [d for d in range(2, 13) if start % d == 0]
    return Step(start, "/", rng.choice(divisors)) if divisors else None


def _equation(rng: Random) -> str:
    step = _step(rng.choice("+-*/"), "train", rng)
    if rng.random() < 0.5:
        return f"{step.a} {step.operator} {step.b} = {step.result}"
    return f"{step.expression}={step.result}"


def _spoken(rng: Random) -> str:
    """Return one calculation said in words and written as an expression."""
    step = _step(rng.choice("+-*/"), "train", rng)
    a, b = step.a, step.b
    said = {
        "+": (f"the sum of {a} and {b}", f"{a} plus {b}", f"{b} more than {a}"),
        "-": (f"the difference of {a} and {b}", f"{a} minus {b}", f"{b} less than {a}"),
        "*": (f"the product of {a} and {b}", f"{a} times {b}"),
        "/": (f"{a} divided by {b}", f"{a} split into {b} equal parts"),
    }[step.operator]
    words = rng.choice(said)
    return rng.choice(
        (
            f"What is {words}? It is {step.expression}={step.result}.",
            f"To find {words}, compute {step.expression}. The result is {step.result}.",
            f"{words[0].upper()}{words[1:]} is {step.expression}={step.result}.",
        )
    )


def _told(rng: Random) -> str:
    """Return a training problem with its answer, the expression standing where the calculator is called."""
    row = _problem("train", rng)
    question = row["question"]
    answer = _MARK.sub(r"\1", row["answer"].split("\n#### ")[0])
    return f"Question: {question}\nAnswer: {answer}" if rng.random() < 0.6 else f"{question} {answer}"
