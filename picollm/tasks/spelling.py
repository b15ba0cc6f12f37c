"""Spelling: an exact format to learn, letters inside tokens, and counting through the calculator."""

from __future__ import annotations

from random import Random
from typing import Any

from picollm.chat.conversation import Message
from picollm.data.primer.spelling import count_call, spell
from picollm.tasks.task import Task, last_number
from picollm.tools.calculator import calculate

# One in eight questions is asked in another language than English.
FOREIGN_SHARE = 0.125

SPELL_ASKS = (
    "Spell the word {word}",
    "Spell the word {word}.",
    'Spell the word "{word}".',
    "Spell {word}",
    'Spell "{word}"',
    "Spell this word: {word}",
    "spell {word}",
    "Please spell the word {word}.",
    'Please spell "{word}".',
    "Can you spell {word}?",
    'Can you spell the word "{word}"?',
    "Could you spell {word} for me?",
    "How do you spell {word}?",
    'How do you spell "{word}"?',
    "How is the word {word} spelled?",
    "How is {word} spelled?",
    "Write out the letters of {word}.",
    'Write the letters of the word "{word}", one by one.',
    "List the letters of {word}.",
    "Which letters are in the word {word}, in order?",
    "Take the word {word} apart, letter by letter.",
    "Spelling: {word}",
)
SPELL_ASKS_FOREIGN = (
    "Épelle le mot {word}",
    "Comment s'écrit le mot {word} ?",
    "Deletrea la palabra {word}",
    "¿Cómo se escribe {word}?",
    "Buchstabiere das Wort {word}",
    "Wie schreibt man {word}?",
    "Come si scrive {word}?",
    "Soletra a palavra {word}",
)
COUNT_ASKS = (
    "How many {letter} are in {word}?",
    "How many {letter} are in the word {word}?",
    'How many {letter} are in "{word}"?',
    "How many {letter}s are in {word}?",
    "How many {letter}'s are there in {word}?",
    'How many "{letter}" are there in "{word}"?',
    "how many {letter} in {word}",
    "How many times does {letter} occur in {word}?",
    "How many times does the letter {letter} occur in {word}?",
    'How often does "{letter}" appear in the word "{word}"?',
    "How often is the letter {letter} in {word}?",
    "Count the letter {letter} in {word}.",
    "Count the {letter} in {word}",
    "Count how many times {letter} appears in the word {word}.",
    "What is the number of {letter} in {word}?",
    "In the word {word}, how many {letter} are there?",
    "Tell me how many {letter} the word {word} has.",
)
COUNT_ASKS_FOREIGN = (
    "Combien de {letter} y a-t-il dans {word} ?",
    "Combien de fois la lettre {letter} est-elle dans {word} ?",
    "¿Cuántas {letter} hay en {word}?",
    "¿Cuántas veces está la letra {letter} en {word}?",
    "Wie viele {letter} hat das Wort {word}?",
    "Wie oft kommt {letter} in {word} vor?",
    "Quante {letter} ci sono in {word}?",
    "Quantas letras {letter} tem a palavra {word}?",
)


class _WordTask(Task):
    """Rows ``{"word"}`` of the primer, or ``{"text"}`` of a word list."""

    def word(self, index: int) -> str:
        """Return the word of row ``index``."""
        return self.rows.field(index, "word" if "word" in self.rows[index] else "text", str)

    def rng(self, index: int) -> Random:
        """Return what chooses the wording: a function of task, split and word, not of the row's place."""
        return Random(f"{self.name}/{self.split}/{self.word(index)}")


class SimpleSpelling(_WordTask):
    """``Spell the word apple`` -> ``apple: a,p,p,l,e``, and nothing else."""

    def messages(self, index: int) -> list[dict[str, Any]]:
        """Return the request in one of many wordings, and the word with its letters."""
        word, rng = self.word(index), self.rng(index)
        asks = SPELL_ASKS_FOREIGN if rng.random() < FOREIGN_SHARE else SPELL_ASKS
        return [
            {"role": "user", "content": rng.choice(asks).format(word=word)},
            {"role": "assistant", "content": spell(word)},
        ]

    def check(self, index: int, reply: Message) -> bool:
        """Return whether the reply is the word with its letters, exactly."""
        return reply.text.strip() == spell(self.word(index))

    def completion(self, index: int) -> str:
        """Return the line of a document up to the letters."""
        return f"{self.word(index)}:"

    def check_completion(self, index: int, text: str) -> bool:
        """Return whether the rest of the line is the letters."""
        return text.split("\n")[0].strip() == ",".join(self.word(index))


class SpellingBee(_WordTask):
    """``How many r are in strawberry?``: spell the word, then let the calculator count."""

    def letter(self, index: int) -> str:
        """Return the letter that is asked for: nine times in ten one of the word."""
        rng = Random(f"letter/{self.split}/{self.word(index)}")
        return rng.choice(self.word(index) if rng.random() < 0.9 else "abcdefghijklmnopqrstuvwxyz")

    def messages(self, index: int) -> list[dict[str, Any]]:
        """Return the question, and the spelling, the count by the calculator, and the answer."""
        word, letter, rng = self.word(index), self.letter(index), self.rng(index)
        asks = COUNT_ASKS_FOREIGN if rng.random() < FOREIGN_SHARE else COUNT_ASKS
        call = count_call(word, letter)
        count = calculate(call)
        times = "time" if count == "1" else "times"
        return [
            {"role": "user", "content": rng.choice(asks).format(word=word, letter=letter)},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": f"{spell(word)}\n"},
                    {"type": "python", "text": call},
                    {"type": "python_output", "text": count},
                    {"type": "text", "text": f"\nThe letter {letter} occurs {count} {times}."},
                ],
            },
        ]

    def expected(self, index: int) -> str:
        """Return the count."""
        return str(self.word(index).count(self.letter(index)))

    def check(self, index: int, reply: Message) -> bool:
        """Return whether the last number the reply says is the count."""
        return last_number(reply.text) == self.expected(index)

    def completion(self, index: int) -> str:
        """Return a sentence of a document up to the count."""
        return f"{spell(self.word(index))}\nThe letter {self.letter(index)} occurs"

    def check_completion(self, index: int, text: str) -> bool:
        """Return whether the continuation starts with the count."""
        words = text.split()
        return bool(words) and words[0] == self.expected(index)
