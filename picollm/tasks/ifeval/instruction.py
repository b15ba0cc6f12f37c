"""The 25 kinds of instructions by their published names, and reading them from a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from picollm.tasks.ifeval import checkers as check
from picollm.tasks.ifeval.language import ASKED_FOR


@dataclass(frozen=True)
class Kind:
    """One kind of instruction.

    Attributes:
        check: Called with the reply and the values of ``needs``, in order.
        says: What it asks for, the values of ``needs`` in braces.
        needs: The names of its arguments in the data, with their types.
    """

    check: Callable[..., bool]
    says: str
    needs: Mapping[str, type]


KINDS = {
    "keywords:existence": Kind(check.keywords, "the keywords {}", {"keywords": list}),
    "keywords:frequency": Kind(
        check.keyword_frequency,
        "the keyword {!r} {} {} times",
        {"keyword": str, "relation": str, "frequency": int},
    ),
    "keywords:forbidden_words": Kind(check.forbidden_words, "none of {}", {"forbidden_words": list}),
    "keywords:letter_frequency": Kind(
        check.letter_frequency,
        "the letter {!r} {} {} times",
        {"letter": str, "let_relation": str, "let_frequency": int},
    ),
    "language:response_language": Kind(check.response_language, "in the language {!r}", {"language": str}),
    "length_constraints:number_sentences": Kind(
        check.number_sentences, "{} {} sentences", {"relation": str, "num_sentences": int}
    ),
    "length_constraints:number_paragraphs": Kind(
        check.number_paragraphs, "{} paragraphs separated by ***", {"num_paragraphs": int}
    ),
    "length_constraints:number_words": Kind(
        check.number_words, "{} {} words", {"relation": str, "num_words": int}
    ),
    "length_constraints:nth_paragraph_first_word": Kind(
        check.nth_paragraph_first_word,
        "{} paragraphs separated by blank lines, paragraph {} beginning with {!r}",
        {"num_paragraphs": int, "nth_paragraph": int, "first_word": str},
    ),
    "detectable_content:number_placeholders": Kind(
        check.number_placeholders, "at least {} [placeholders]", {"num_placeholders": int}
    ),
    "detectable_content:postscript": Kind(
        check.postscript, "a postscript beginning with {!r}", {"postscript_marker": str}
    ),
    "detectable_format:number_bullet_lists": Kind(
        check.number_bullets, "exactly {} bullet points", {"num_bullets": int}
    ),
    "detectable_format:constrained_response": Kind(
        check.constrained_response, "one of the answers yes, no, maybe as a whole sentence", {}
    ),
    "detectable_format:number_highlighted_sections": Kind(
        check.number_highlights, "at least {} *highlighted* parts", {"num_highlights": int}
    ),
    "detectable_format:multiple_sections": Kind(
        check.multiple_sections,
        "sections marked {!r} with a number, at least {}",
        {"section_spliter": str, "num_sections": int},
    ),
    "detectable_format:json_format": Kind(check.json_format, "all of it JSON", {}),
    "detectable_format:title": Kind(check.title, "a <<title>>", {}),
    "combination:two_responses": Kind(check.two_responses, "two different responses separated by ******", {}),
    "combination:repeat_prompt": Kind(
        check.repeat_prompt, "first the request, word for word: {!r}", {"prompt_to_repeat": str}
    ),
    "startend:end_checker": Kind(check.end_checker, "ending with {!r}", {"end_phrase": str}),
    "startend:quotation": Kind(check.quotation, "in double quotation marks", {}),
    "change_case:capital_word_frequency": Kind(
        check.capital_word_frequency,
        "{} {} words in capitals",
        {"capital_relation": str, "capital_frequency": int},
    ),
    "change_case:english_capital": Kind(check.english_capital, "English in capitals", {}),
    "change_case:english_lowercase": Kind(check.english_lowercase, "English in small letters", {}),
    "punctuation:no_comma": Kind(check.no_comma, "no comma", {}),
}


@dataclass(frozen=True)
class Instruction:
    """One instruction of a prompt: a kind, and the values of its arguments in the order of ``Kind.needs``."""

    kind: str
    values: tuple[Any, ...]

    @property
    def family(self) -> str:
        """Return the first half of the kind's name."""
        return self.kind.split(":")[0]

    def is_followed(self, reply: str) -> bool:
        """Return whether ``reply`` follows it; an empty reply follows nothing."""
        return bool(reply.strip()) and KINDS[self.kind].check(reply, *self.values)

    def is_followed_loosely(self, reply: str) -> bool:
        """Return whether ``reply`` follows it without its first line, its last line, or its asterisks.

        The published loose criterion: every combination of the three is tried, none of them as well.
        """
        lines = reply.split("\n")
        cuts = [reply, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
        return any(self.is_followed(text) for cut in cuts for text in (cut, cut.replace("*", "")))

    def __str__(self) -> str:
        """Return what it asks for."""
        shown = (", ".join(map(repr, value)) if isinstance(value, list) else value for value in self.values)
        return KINDS[self.kind].says.format(*shown)


def read_instruction(name: str, arguments: Mapping[str, Any]) -> Instruction:
    """Return the instruction with the published ``name`` and ``arguments``.

    Arguments that other kinds have may stand beside its own, as None, as tables have it. A prefix ``en:`` is
    that of multilingual copies.

    Raises:
        ValueError: An unknown name, or an argument that is missing or of another type.
    """
    kind = KINDS.get(name.removeprefix("en:"))
    if kind is None:
        raise ValueError(f"no instruction is called {name!r}; expected one of {', '.join(KINDS)}")
    values = tuple(_value(name, key, type_, arguments.get(key)) for key, type_ in kind.needs.items())
    return Instruction(name.removeprefix("en:"), values)


def _value(name: str, key: str, type_: type, value: Any) -> Any:
    if type_ is int and isinstance(value, float) and value.is_integer():
        value = int(value)  # a column with gaps may be one of floats
    problem = _problem(key, type_, value)
    if problem:
        raise ValueError(f"instruction {name!r}: {key!r} is {value!r:.60}; expected {problem}")
    return value


def _problem(key: str, type_: Any, value: Any) -> str | None:
    """Return what was expected in place of ``value``, or None where it is fine."""
    if type(value) is not type_ or value in ("", []):
        return f"a {type_.__name__}"
    if type_ is int and value < 0:
        return "0 or more"
    if type_ is list and not all(isinstance(each, str) and each for each in value):
        return "a list of texts"
    if key.endswith("relation") and value not in (check.LESS, check.AT_LEAST):
        return f"{check.LESS!r} or {check.AT_LEAST!r}"
    if key == "language" and value not in ASKED_FOR:
        return f"one of {', '.join(sorted(ASKED_FOR))}"
    return None
