"""Pretraining documents that spell words: the knowledge that spelling conversations later unlock."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from picollm.data.primer.words import pseudo_word, words


def spell(word: str) -> str:
    """Return the letters of ``word`` after its name: the one way a word is spelled out in this project.

    Commas without spaces let a tokenizer hold each ``,letter`` as one token.

    >>> spell("apple")
    'apple: a,p,p,l,e'
    """
    return f"{word}: {','.join(word)}"


def count_call(word: str, letter: str) -> str:
    """Return the calculator expression that counts ``letter`` in ``word``.

    Double quotes, because common tokenizers split ``'s`` and ``'t`` off as contractions.

    >>> count_call("apple", "p")
    '"apple".count("p")'
    """
    return f'"{word}".count("{letter}")'


def documents(seed: int) -> Iterator[str]:
    """Yield spelling documents without end; a pure function of ``seed``.

    Only words of the training split and pseudo-words are spelled.
    """
    rng = Random(f"spelling/{seed}")
    while True:
        kind = rng.random()
        if kind < 0.5:
            yield "\n".join(spell(_word(rng)) for _ in range(rng.randint(4, 10)))
        elif kind < 0.75:
            yield "\n".join(_sentence(_word(rng), rng) for _ in range(rng.randint(2, 5)))
        else:
            yield _profile(_word(rng), rng)


def _word(rng: Random) -> str:
    return rng.choice(words("train")) if rng.random() < 0.3 else pseudo_word(rng)


def _sentence(word: str, rng: Random) -> str:
    letters = ",".join(word)
    return rng.choice(
        (
            f"The word {word} is spelled {letters}.",
            f'The letters of "{word}" are {letters}.',
            f'How do you spell "{word}"? {spell(word)}',
            f"How is {word} spelled? {spell(word)}",
            f"Spell {word}.\n{spell(word)}",
            f"Spell the word {word}: {letters}",
            f"To spell {word}, say its letters in order: {letters}.",
            f"Word: {word}\nLetters: {letters}",
        )
    )


def _profile(word: str, rng: Random) -> str:
    """Return several sentences about one word: its spelling, length, ends, and how often a letter occurs."""
    letter = rng.choice(word) if rng.random() < 0.9 else rng.choice("abcdefghijklmnopqrstuvwxyz")
    times = word.count(letter)
    facts = [
        f"The word {word} has {len(word)} letters.",
        f"It starts with {word[0]} and ends with {word[-1]}.",
        f"The first letter of {word} is {word[0]}.",
        f"The last letter of {word} is {word[-1]}.",
        f"How many {letter} are in {word}? {count_call(word, letter)} is {times}.",
        f"The letter {letter} occurs {times} {'time' if times == 1 else 'times'} in {word}: "
        f"{count_call(word, letter)} = {times}.",
    ]
    rng.shuffle(facts)
    return "\n".join([spell(word), " ".join(facts[: rng.randint(2, 4)])])
