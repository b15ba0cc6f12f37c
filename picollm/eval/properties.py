"""What can be measured about one reply without judging it: length, structure, directness, repetition."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_FENCE = re.compile(r"^[ \t]*(```|~~~)", re.MULTILINE)
_FENCED = re.compile(r"^[ \t]*(```|~~~).*?(?:^[ \t]*\1[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_LIST_ITEM = re.compile(r"^[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+\S", re.MULTILINE)
_LIST_MARK = re.compile(r"^[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+", re.MULTILINE)
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|vs|cf|mr|mrs|ms|dr|prof|approx)\.$", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?]+[\"')\]»”’]*(?=\s|$)")
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")

# Words that say how to answer or carry no topic: a reply that repeats only these has not come to the point.
_FORM_WORDS = """
a about above again all also always an and answer any are as at be because been before begin being below
between both briefly but by can capital capitals choose complete could define describe different do does
doing down each end ending every exactly example examples explain few first five following for four from
full further get give had has have having her here him his how i if in into is it its itself just know let
letter letters line lines list make many may me mean means more most must my name need no nor not now number
of off on once one only or other our out over own please question reply respond same say second sentence
sentences short should show simple simply single six so some something start starts state step such system
tell ten text than that the their them then there these they thing things third this those three through to
too two under until up use user using very want was way we well were what when where which while who whom
whose why will with without word words would write yes you your beginner child student someone new
"""
_NOT_A_TOPIC = frozenset(_FORM_WORDS.split())


def split_sentences(text: str) -> list[str]:
    """Return the sentences of ``text``: code fences are left out, every list item or line end closes one.

    A last piece without a full stop counts as a sentence when it has a word. Abbreviations ("e.g.") and the
    dots inside numbers do not end one.
    """
    sentences = []
    for line in _LIST_MARK.sub("", _FENCED.sub("\n", text)).splitlines():
        start = 0
        for match in _SENTENCE_END.finditer(line):
            piece = line[start : match.end()]
            if match.end() < len(line) and match.group().startswith(".") and _ABBREVIATION.search(piece):
                continue
            sentences.append(piece)
            start = match.end()
        sentences.append(line[start:])
    return [sentence.strip() for sentence in sentences if _WORD.search(sentence)]


def words(text: str) -> list[str]:
    """Return the words of ``text`` in order, as written (numbers are words)."""
    return _WORD.findall(text)


def nonempty_lines(text: str) -> list[str]:
    """Return the lines of ``text`` that hold more than white space."""
    return [line for line in text.splitlines() if line.strip()]


def count_list_items(text: str) -> int:
    """Return how many lines of ``text`` start with a bullet or an item number."""
    return len(_LIST_ITEM.findall(_FENCED.sub("\n", text)))


def count_code_fences(text: str) -> int:
    """Return the number of fenced code blocks; one that is never closed counts too."""
    return (len(_FENCE.findall(text)) + 1) // 2


def topic_words(prompt: str) -> list[str]:
    """Return the lower-case words of ``prompt`` that name what it is about, without words about the form."""
    found = [word.lower() for word in words(prompt)]
    return list(dict.fromkeys(word for word in found if len(word) > 2 and word not in _NOT_A_TOPIC))


def _stem(word: str) -> str:
    """Return ``word`` without the most common English endings, so that "tokens" meets "token"."""
    for ending in ("ing", "ies", "es", "s", "ed"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word


def first_mention(text: str, wanted: Sequence[str]) -> int | None:
    """Return the index where one of the ``wanted`` words or phrases first stands in ``text``, or None.

    Case does not matter, words match whole, and a single word also matches its plural or "-ing" form.
    """
    phrases = [phrase.lower() for phrase in wanted if not _WORD.fullmatch(phrase)]
    stems = {_stem(word.lower()) for word in wanted if _WORD.fullmatch(word)}
    places = [index for phrase in phrases if phrase and (index := text.lower().find(phrase)) >= 0]
    for match in _WORD.finditer(text):
        parts = {_stem(part) for part in (match.group().lower(), *re.split(r"['’-]", match.group().lower()))}
        if parts & stems:
            places.append(match.start())
            break
    return min(places, default=None)


def repetition(ids: Sequence[int], n: int = 4) -> float:
    """Return the share of ``n``-grams of tokens that were there before: 0 is fresh, near 1 is a loop."""
    grams = [tuple(ids[start : start + n]) for start in range(len(ids) - n + 1)]
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


@dataclass(frozen=True)
class Properties:
    """The measured properties of one reply.

    ``directness`` is the number of tokens before the answer (or, where no answer is known, a topic word of
    the prompt) appears; None when it never does. ``passes`` is the verdict of the prompt's checker, None
    without one.
    """

    ends_by_itself: bool
    leaks_role: bool
    passes: bool | None
    num_tokens: int
    num_sentences: int
    num_list_items: int
    num_code_fences: int
    directness: int | None
    repetition: float


# property -> (what people call it, whether it is a share)
PROPERTIES: dict[str, tuple[str, bool]] = {
    "ends_by_itself": ("ends by itself", True),
    "leaks_role": ("leaks a role", True),
    "passes": ("does what was asked (checked)", True),
    "on_topic": ("mentions the topic or the answer", True),
    "directness": ("tokens before topic or answer", False),
    "num_tokens": ("length in tokens", False),
    "num_sentences": ("sentences", False),
    "num_list_items": ("list items", False),
    "num_code_fences": ("code blocks", False),
    "repetition": ("repeated 4-grams", True),
}


def figure(properties: Properties, name: str) -> float | None:
    """Return one of ``PROPERTIES`` as a number, None where this reply does not have it."""
    value = properties.directness is not None if name == "on_topic" else getattr(properties, name)
    return None if value is None else float(value)
