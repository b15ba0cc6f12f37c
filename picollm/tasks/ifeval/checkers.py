"""One function per kind of instruction: does this reply follow it?

The meaning is that of the published checkers (Zhou et al., "Instruction-Following Evaluation for Large
Language Models", 2023), lenient and strict in the same places. In two places they are read as the prompt says
and not as the published program does: a sign that is no letter is counted like one (there a random letter is
counted in its place), and a keyword is a text, not a pattern.
"""

from __future__ import annotations

import json
import re

from picollm.tasks.ifeval.language import detect_language
from picollm.tasks.ifeval.measures import num_words, sentences, words_in_capitals

LESS, AT_LEAST = "less than", "at least"

_STARS = re.compile(r"\s?\*\*\*\s?")
_STAR_BULLET = re.compile(r"^\s*\*[^*].*$", re.MULTILINE)
_DASH_BULLET = re.compile(r"^\s*-.*$", re.MULTILINE)
_HIGHLIGHT = re.compile(r"\*([^\n*]*)\*")
_STRONG = re.compile(r"\*\*([^\n*]*)\*\*")
_TITLE = re.compile(r"<<([^\n]+)>>")
_PLACEHOLDER = re.compile(r"\[[^\]\n]*\]")
_FENCE = re.compile(r"^```(?:json|Json|JSON)?|```$")
_POSTSCRIPTS = {"P.S.": r"\s*p\.\s?s\.", "P.P.S": r"\s*p\.\s?p\.\s?s"}
_CONSTRAINED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_ENDS_FIRST_WORD = re.compile(r"[.,?!'\"]")


def _relates(num: int, relation: str, wanted: int) -> bool:
    return num < wanted if relation == LESS else num >= wanted


def _occurrences(part: str, text: str) -> int:
    return len(re.findall(re.escape(part), text, re.IGNORECASE))


def keywords(text: str, every: list[str]) -> bool:
    """Return whether each of the keywords occurs, inside another word as well."""
    return all(_occurrences(keyword, text) for keyword in every)


def keyword_frequency(text: str, keyword: str, relation: str, num: int) -> bool:
    """Return whether the keyword occurs so often, inside another word as well."""
    return _relates(_occurrences(keyword, text), relation, num)


def forbidden_words(text: str, none: list[str]) -> bool:
    """Return whether none of the words occurs as a whole word."""
    return not any(re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) for word in none)


def letter_frequency(text: str, letter: str, relation: str, num: int) -> bool:
    """Return whether the letter occurs so often, in either case."""
    return _relates(text.lower().count(letter.lower()), relation, num)


def response_language(text: str, language: str) -> bool:
    """Return whether the reply is in the language; a reply without letters is in every one."""
    return detect_language(text) in (language, None)


def number_sentences(text: str, relation: str, num: int) -> bool:
    """Return whether there are so many sentences."""
    return _relates(len(sentences(text)), relation, num)


def number_words(text: str, relation: str, num: int) -> bool:
    """Return whether there are so many words."""
    return _relates(num_words(text), relation, num)


def number_paragraphs(text: str, num: int) -> bool:
    """Return whether ``***`` separates exactly so many paragraphs; only the outer parts may be empty."""
    parts = _STARS.split(text)
    return all(part.strip() for part in parts[1:-1]) and sum(bool(part.strip()) for part in parts) == num


def nth_paragraph_first_word(text: str, num: int, nth: int, word: str) -> bool:
    """Return whether of ``num`` paragraphs, separated by blank lines, the ``nth`` begins with ``word``.

    Empty paragraphs do not count for ``num`` but do for ``nth``.
    """
    parts = text.split("\n\n")
    existing = sum(bool(part.strip()) for part in parts)
    if nth > existing or not parts[nth - 1].strip():
        return False
    first = parts[nth - 1].split()[0].lstrip("'").lstrip('"')
    return existing == num and _ENDS_FIRST_WORD.split(first)[0].lower() == word.lower()


def number_placeholders(text: str, num: int) -> bool:
    """Return whether there are at least so many ``[placeholders]``."""
    return len(_PLACEHOLDER.findall(text)) >= num


def postscript(text: str, marker: str) -> bool:
    """Return whether the marker of a postscript occurs, with or without spaces between its letters."""
    pattern = _POSTSCRIPTS.get(marker) or re.escape(marker.lower())
    return re.search(pattern, text.lower()) is not None


def number_bullets(text: str, num: int) -> bool:
    """Return whether exactly so many lines begin with ``*`` or ``-``."""
    return len(_STAR_BULLET.findall(text)) + len(_DASH_BULLET.findall(text)) == num


def constrained_response(text: str) -> bool:
    """Return whether one of the three sentences allowed occurs."""
    return any(sentence in text for sentence in _CONSTRAINED)


def number_highlights(text: str, num: int) -> bool:
    """Return whether at least so many spans stand between ``*`` or ``**``."""
    spans = [*_HIGHLIGHT.findall(text), *_STRONG.findall(text)]
    return sum(bool(span.strip()) for span in spans) >= num


def multiple_sections(text: str, splitter: str, num: int) -> bool:
    """Return whether at least so many sections begin with the splitter and a number: ``SECTION 1``."""
    return len(re.findall(rf"{re.escape(splitter)}\s?\d+", text)) >= num


def json_format(text: str) -> bool:
    """Return whether the reply is JSON, in a code fence or not."""
    try:
        json.loads(_FENCE.sub("", text.strip()))
    except (ValueError, RecursionError):
        return False
    return True


def title(text: str) -> bool:
    """Return whether a line has a ``<<title>>`` that is not empty."""
    return any(found.lstrip("<").rstrip(">").strip() for found in _TITLE.findall(text))


def two_responses(text: str) -> bool:
    """Return whether ``******`` separates two different responses; only the outer parts may be empty."""
    parts = text.split("******")
    found = [part.strip() for part in parts if part.strip()]
    return all(part.strip() for part in parts[1:-1]) and len(found) == 2 and found[0] != found[1]


def repeat_prompt(text: str, prompt: str) -> bool:
    """Return whether the reply begins with the prompt."""
    return text.strip().lower().startswith(prompt.strip().lower())


def end_checker(text: str, phrase: str) -> bool:
    """Return whether the reply ends with the phrase; quotation marks around all of it do not matter."""
    return text.strip().strip('"').lower().endswith(phrase.strip().lower())


def quotation(text: str) -> bool:
    """Return whether the reply stands between double quotation marks."""
    stripped = text.strip()
    return len(stripped) > 1 and stripped[0] == stripped[-1] == '"'


def capital_word_frequency(text: str, relation: str, num: int) -> bool:
    """Return whether there are so many words in capitals."""
    return _relates(len(words_in_capitals(text)), relation, num)


def english_capital(text: str) -> bool:
    """Return whether the reply is English without a small letter."""
    return text.isupper() and response_language(text, "en")


def english_lowercase(text: str) -> bool:
    """Return whether the reply is English without a capital letter."""
    return text.islower() and response_language(text, "en")


def no_comma(text: str) -> bool:
    """Return whether there is no comma."""
    return "," not in text
