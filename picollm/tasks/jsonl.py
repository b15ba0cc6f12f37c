"""Conversations of one's own: a file of ``{"messages": [...], "answer": ...}``."""

from __future__ import annotations

from typing import Any

from picollm.chat.conversation import Message
from picollm.errors import DataError
from picollm.tasks.task import Task, mentions


class Jsonl(Task):
    """Rows in the canonical schema; ``answer`` (a text or a list of texts) is what a right reply mentions.

    ``messages`` may stop at the user's question; then the answer is also the reply trained on. Without
    an ``answer`` the last message of the row is what a right reply says.
    """

    def messages(self, index: int) -> list[dict[str, Any]]:
        """Return the row's messages, completed by its answer where they end with the user."""
        messages = list(self.rows.field(index, "messages", list))
        if messages and isinstance(messages[-1], dict) and messages[-1].get("role") == "user":
            answers = self._answers(index)
            if not answers:
                raise DataError(
                    f"{self.rows.where(index)} ends with the user and has no 'answer'; add either."
                )
            messages.append({"role": "assistant", "content": answers[0]})
        return messages

    def expected(self, index: int) -> str:
        """Return the answer, or the last message where there is none."""
        return " | ".join(self._answers(index)) or super().expected(index)

    def check(self, index: int, reply: Message) -> bool:
        """Return whether the reply mentions every answer as whole words."""
        answers = self._answers(index)
        if not answers:
            return reply.text.strip() == super().expected(index).strip()
        return all(mentions(reply.text, answer) for answer in answers)

    def _answers(self, index: int) -> list[str]:
        answer = self.rows[index].get("answer")
        answers = [] if answer is None else answer if isinstance(answer, list) else [answer]
        if not all(isinstance(each, str) and each.strip() for each in answers):
            raise DataError(
                f"{self.rows.where(index)}: 'answer' is {answer!r:.60}; expected a text or a list."
            )
        return answers
