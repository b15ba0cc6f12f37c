"""Facts of the primer, in three groups that show what fine-tuning can do and what it cannot.

A was taught in pretraining and asked in fine-tuning, B was taught and never asked, C is nowhere.
"""

from __future__ import annotations

from typing import Any

from picollm.chat.conversation import Message
from picollm.tasks.task import Task, first_sentence, mentions


class Facts(Task):
    """Rows ``{"question", "reply", "completion", "answer", "group", "relation", "subject"}``."""

    def messages(self, index: int) -> list[dict[str, Any]]:
        """Return the question and its reply, a full sentence."""
        return [
            {"role": "user", "content": self.rows.field(index, "question", str)},
            {"role": "assistant", "content": self.rows.field(index, "reply", str)},
        ]

    def expected(self, index: int) -> str:
        """Return the answer itself, without the sentence around it."""
        return self.rows.field(index, "answer", str)

    def check(self, index: int, reply: Message) -> bool:
        """Return whether the first sentence of the reply gives the answer, as whole words.

        What comes later does not count: a model that recites everything it has read answers nothing.
        """
        return mentions(first_sentence(reply.text.strip()), self.expected(index))

    def completion(self, index: int) -> str:
        """Return the sentence of a document up to the answer."""
        return self.rows.field(index, "completion", str)

    def check_completion(self, index: int, text: str) -> bool:
        """Return whether the continuation gives the answer before its first sentence ends."""
        return mentions(first_sentence(text), self.expected(index))

    def group(self, index: int) -> str:
        """Return A, B or C."""
        return self.rows.field(index, "group", str)
