"""What every data set looks like to training and evaluation."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Literal

from picollm.chat.conversation import Conversation, Message
from picollm.data.rows import Rows
from picollm.errors import ConversationError, DataError


class Task(ABC):
    """Conversations made of the rows of one data set, and the rule that says when a reply is right.

    Attributes:
        name: The name it is loaded by.
        rows: The rows; ``rows.name`` and ``rows.digest`` identify them.
        split: train, validation or test.
        scoring: "letters" (the next token after the prompt is one of a few letters), "reply" (a generated
            reply is checked), "likelihood" (the most likely of some endings), or None (only trained on).
    """

    scoring: ClassVar[Literal["letters", "reply", "likelihood"] | None] = "reply"

    def __init__(self, name: str, rows: Rows, split: str) -> None:
        self.name, self.rows, self.split = name, rows, split

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Conversation]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Conversation:
        """Return row ``index`` as a conversation that ends with the assistant's answer.

        Raises:
            DataError: The row does not have the schema of this data set; the text names file and row.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} rows, not a row {index}")
        try:
            return Conversation.from_dict({"messages": self.messages(index)})
        except ConversationError as error:
            raise DataError(f"{self.rows.where(index)}: {error}") from error

    @abstractmethod
    def messages(self, index: int) -> list[dict[str, object]]:
        """Return the messages of row ``index`` in the canonical schema, the assistant's answer last."""

    def prompt(self, index: int) -> Conversation:
        """Return the conversation up to its last user turn: what a model is asked."""
        messages = self[index].messages
        last = max(place for place, message in enumerate(messages) if message.role == "user")
        return Conversation(messages[: last + 1])

    def expected(self, index: int) -> str:
        """Return the right answer of row ``index`` as a person would write it in a report."""
        return self[index].messages[-1].text

    def check(self, index: int, reply: Message) -> bool:
        """Return whether ``reply`` answers row ``index``."""
        raise NotImplementedError(f"{self.name} has no rule for replies")

    def letters(self, index: int) -> list[str] | None:
        """Return the letters row ``index`` is answered with, or None where replies are generated."""
        return None

    def answer_letter(self, index: int) -> str:
        """Return the right one of ``letters(index)``."""
        raise NotImplementedError(f"{self.name} is not answered with a letter")

    def chance(self, index: int) -> float:
        """Return the share of right answers that guessing brings."""
        letters = self.letters(index)
        return 1 / len(letters) if letters else 0.0

    def completion(self, index: int) -> str | None:
        """Return row ``index`` as text that a base model continues, or None where it has no such form.

        For a task with letters the next token is one of them.
        """
        return None

    def check_completion(self, index: int, text: str) -> bool:
        """Return whether ``text``, the continuation of ``completion(index)``, is right."""
        raise NotImplementedError(f"{self.name} has no completion form")

    def group(self, index: int) -> str | None:
        """Return what row ``index`` is counted under (a subject, a kind of fact), or None."""
        return None


def mentions(text: str, answer: str) -> bool:
    """Return whether ``answer`` occurs in ``text`` as whole words, upper and lower case alike.

    >>> mentions("It is Paris.", "paris"), mentions("Comparison", "Paris")
    (True, False)
    """
    return re.search(rf"(?<!\w){re.escape(answer.strip())}(?!\w)", text, re.IGNORECASE) is not None


def first_sentence(text: str) -> str:
    """Return the first sentence or line of ``text``: what a completion says before it wanders off.

    >>> first_sentence(" 3.5 meters. The next"), first_sentence(" Rome\\nItaly")
    (' 3.5 meters.', ' Rome')
    """
    match = re.search(r".*?(?:[.!?](?=\s|$)|$)", text.split("\n")[0])
    return match.group() if match else text


def last_number(text: str) -> str | None:
    """Return the last number in ``text`` without thousands separators, or None.

    >>> last_number("first 3, then 1,250."), last_number("none")
    ('1250', None)
    """
    found = re.findall(r"-?\d[\d,]*(?:\.\d+)?", text)
    return found[-1].replace(",", "") if found else None
