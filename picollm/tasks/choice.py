"""Multiple choice: one way to ask it, for every data set that does.

Each choice stands on a line ``- text=>A``. Two decisions are behind that:

* The letter comes after its text, so that at the letter a model has already read what it stands for.
* ``=>`` is two signs and no space. The split patterns of common tokenizers (GPT-4, Llama 3, Qwen, ours) glue
  a single sign or space to the letters after it, so ``=A`` or `` A`` may be another token than the ``A`` that
  a reply starts with. After two signs the letter is always cut off: the same token as in the reply.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from picollm.chat.conversation import Message
from picollm.errors import DataError
from picollm.tasks.task import Task

LETTERS = "ABCDEFGHIJ"
REQUEST = "Reply with only the letter."


@dataclass(frozen=True)
class Item:
    """A question, its choices, and the place of the right one."""

    question: str
    choices: tuple[str, ...]
    answer: int


def ask(item: Item) -> str:
    """Return the question and its choices, one per line.

    >>> print(ask(Item("What barks?", ("a cat", "a dog"), 1)))
    What barks?
    - a cat=>A
    - a dog=>B
    """
    lines = [f"- {choice}=>{letter}" for choice, letter in zip(item.choices, LETTERS, strict=False)]
    return "\n".join([item.question, *lines])


class MultipleChoice(Task):
    """Questions answered with one letter; the reply is that letter and nothing else."""

    scoring: ClassVar = "letters"

    @abstractmethod
    def item(self, index: int) -> Item:
        """Return the question of row ``index``.

        Raises:
            DataError: The row does not have the schema of this data set.
        """

    def messages(self, index: int) -> list[dict[str, Any]]:
        """Return the question with its choices, and the letter of the right one."""
        item = self.item(index)
        return [
            {"role": "user", "content": f"{ask(item)}\n{REQUEST}"},
            {"role": "assistant", "content": LETTERS[item.answer]},
        ]

    def letters(self, index: int) -> list[str]:
        """Return one letter per choice."""
        return list(LETTERS[: len(self.item(index).choices)])

    def answer_letter(self, index: int) -> str:
        """Return the letter of the right choice."""
        return LETTERS[self.item(index).answer]

    def check(self, index: int, reply: Message) -> bool:
        """Return whether a generated reply is the right letter and nothing else."""
        return reply.text.strip() == self.answer_letter(index)

    def completion(self, index: int) -> str:
        """Return the question as a text whose next token is the letter."""
        return f"{ask(self.item(index))}\nAnswer=>"

    def check_completion(self, index: int, text: str) -> bool:
        """Return whether ``text`` starts with the right letter."""
        return text.startswith(self.answer_letter(index))

    def checked(self, index: int, question: str, choices: list[Any], answer: int) -> Item:
        """Return the item after a look at its choices.

        Raises:
            DataError: Fewer than 2 or more than 10 choices, one that is no text, or an answer beside them.
        """
        where = self.rows.where(index)
        if not 2 <= len(choices) <= len(LETTERS) or not all(isinstance(choice, str) for choice in choices):
            raise DataError(f"{where}: 'choices' is {choices!r:.80}; expected 2 to {len(LETTERS)} texts.")
        if not 0 <= answer < len(choices):
            raise DataError(f"{where}: answer {answer} is none of its {len(choices)} choices.")
        return Item(question, tuple(choices), answer)
