"""What the checkers count in a reply: words, sentences, words in capitals.

The published checkers count with NLTK. Here its rules are stated without its tables: a sentence border is
found as by the Punkt algorithm (Kiss and Strunk, 2006) with a list of abbreviations in place of trained
statistics, and a word is split as in the Penn Treebank as far as upper case depends on it.
"""

from __future__ import annotations

import re

_TITLES, _ABBREVIATIONS, _STARTERS = (
    frozenset(text.split())
    for text in (
        # Never the end of a sentence.
        "mr mrs ms dr prof rev hon st gen col lt maj capt sgt gov sen rep pres mt vs e.g i.e",
        # The end of a sentence only where a starter follows. ("no.", "co." and "fig." are none: they stand
        # at the end of a sentence as often.)
        "jr sr etc cf al approx dept est inc ltd corp mfg ph.d jan feb mar apr jun jul aug sep sept oct nov "
        "dec ave blvd ft vol",
        # Words that, in capitals, begin a sentence even after an abbreviation or an ellipsis.
        "the a an this that these those it he she we you they i in on at as if but and so or for when while "
        "after before however then there here what how why who where my your our their his her its to with "
        "from by not no yes is are do does did let please also once some many most",
    )
)
_INITIALS = re.compile(r"(?!i$)[a-z](?:\.[a-z])*")  # of names, countries, times: j, u.s, a.m
_OPENING = "\"'“‘([{*_«"
_CLOSING = "\"'”’)]}*_»"
# What may end a sentence, what closes it, and the beginning of the next token. Possessive, so that a reply of
# nothing but exclamation marks is read once.
_CANDIDATE = re.compile(rf"(?<![.!?])([.!?]++)[{re.escape(_CLOSING)}]*+(?=\s++(\S{{1,20}}))")
_WORD = re.compile(r"\w+")
_SEPARATE = re.compile(r"[;@#$%&?!()\[\]{}<>\"“”‘’«»–—…]|--+|,(?!\d)|:(?!\d)|\.\.\.")
_CONTRACTION = re.compile(
    r"(?i)(?<=\w)(?='(?:s|m|d|ll|re|ve)\b)|(?<=\w)(?=n't\b)"
    r"|(?<=\bcan)(?=not\b)|(?<=\bgon|\bwan)(?=na\b)|(?<=\bgot)(?=ta\b)"
)


def num_words(text: str) -> int:
    """Return the number of runs of letters, digits and underscores.

    >>> num_words("I don't, really-really.")
    5
    """
    return len(_WORD.findall(text))


def sentences(text: str) -> list[str]:
    """Return the sentences of ``text``: cut after . ! ? with what closes them, and white space.

    A line break alone is no border, as in Punkt: a list without full stops is one sentence.

    >>> sentences('Dr. Who ran. "Why?" she asked... nobody. At 3.5 km (approx. 2 miles) he sat down!')
    ['Dr. Who ran.', '"Why?"', 'she asked... nobody.', 'At 3.5 km (approx. 2 miles) he sat down!']
    """
    found, start = [], 0
    for match in _CANDIDATE.finditer(text):
        before = text[max(0, match.start() - 20) : match.start()].rsplit(maxsplit=1)
        if _is_border(before[-1] if before else "", match[1], match[2]):
            found.append(text[start : match.end()].strip())
            start = match.end()
    return [sentence for sentence in [*found, text[start:].strip()] if sentence]


def _is_border(before: str, marks: str, after: str) -> bool:
    """Return whether ``before`` with ``marks`` after it ends a sentence where ``after`` comes next."""
    if marks[-1] != "." or "!" in marks or "?" in marks:
        return True
    word = before.lstrip(_OPENING + "-").lower().split("-")[-1]
    if word in _TITLES:
        return False
    if len(marks) > 1 or word in _ABBREVIATIONS or _INITIALS.fullmatch(word):
        following = after.lstrip(_OPENING)
        first = _WORD.match(following)
        return following[:1].isupper() and first is not None and first[0].lower() in _STARTERS
    return True


def words_in_capitals(text: str) -> list[str]:
    """Return the words of ``text`` that are all in capitals, contractions cut in two.

    >>> words_in_capitals("I'M at NASA-HQ, OK? No: A1 and U.S. (DON'T)")
    ['I', "'M", 'NASA-HQ', 'OK', 'A1', 'U.S', 'DO', "N'T"]
    """
    spaced = _CONTRACTION.sub(" ", _SEPARATE.sub(" ", text))
    return [word for word in (token.rstrip(".'") for token in spaced.split()) if word.isupper()]
