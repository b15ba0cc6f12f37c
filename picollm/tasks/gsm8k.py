"""GSM8K: word problems whose arithmetic the calculator does."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Any

from picollm.chat.conversation import Message
from picollm.errors import DataError
from picollm.tasks.task import Task, last_number
from picollm.tools.calculator import FAILED, calculate

_MARK = re.compile(r"<<([^<>=]+)=([^<>]*)>>")
_FINAL = re.compile(rf"####[ \t]*(-?[\d,]*\.?\d+|{FAILED}\b)")


class Gsm8k(Task):
    """Rows ``{"question", "answer"}``; answers carry ``<<48/2=24>>`` marks and end with ``#### n``."""

    def messages(self, index: int) -> list[dict[str, Any]]:
        """Return the question, and the answer as text, calculator calls and their output."""
        return [
            {"role": "user", "content": self.rows.field(index, "question", str)},
            {"role": "assistant", "content": worked(self.rows.field(index, "answer", str))},
        ]

    def expected(self, index: int) -> str:
        """Return the number after ``####``.

        Raises:
            DataError: The row's answer does not end with one.
        """
        found = final_number(self.rows.field(index, "answer", str))
        if found is None:
            raise DataError(f"{self.rows.where(index)}: 'answer' has no final '#### number'.")
        return found

    def check(self, index: int, reply: Message) -> bool:
        """Return whether the number after the reply's last ``####`` is the right one."""
        return _same(final_number(reply.text), self.expected(index))

    def completion(self, index: int) -> str:
        """Return the question in the form in which textbooks ask and answer."""
        return f"Question: {self.rows.field(index, 'question', str)}\nAnswer:"

    def check_completion(self, index: int, text: str) -> bool:
        """Return whether the answer in ``text`` is right: ``#### n``, or else its last number.

        The answer ends at a blank line or where the next question starts.
        """
        answer = re.split(r"\n\s*\n|\nQuestion:", text)[0]
        return _same(final_number(answer) or last_number(answer), self.expected(index))

    def group(self, index: int) -> str | None:
        """Return the operation, which the rows of the primer name."""
        return self.rows[index].get("group")


def worked(answer: str) -> list[dict[str, str]]:
    """Return ``answer`` as parts: text, the expression of each mark, and what the calculator prints for it.

    The output is the tool's, not the file's, because that is what the model will be given: ``144`` where
    the file says ``144.00``. A mark that the calculator cannot compute stays out, as the text has its result,
    unless the mark itself expects the calculator to fail.

    >>> worked("He has <<3*4=12.0>>12 pens.\\n#### 12")[1:3]
    [{'type': 'python', 'text': '3*4'}, {'type': 'python_output', 'text': '12'}]
    """
    parts: list[dict[str, str]] = []
    text, position = "", 0
    for mark in _MARK.finditer(answer):
        text += answer[position : mark.start()]
        position = mark.end()
        expression, written = mark.groups()
        result = calculate(expression)
        if result == FAILED != written:
            continue
        if text:
            parts.append({"type": "text", "text": text})
        parts += [{"type": "python", "text": expression}, {"type": "python_output", "text": result}]
        text = ""
    return [*parts, {"type": "text", "text": text + answer[position:]}]


def final_number(text: str) -> str | None:
    """Return what follows the last ``####``: a number without thousands separators, ``error``, or None."""
    found = _FINAL.findall(text)
    return found[-1].replace(",", "") if found else None


def _same(first: str | None, second: str) -> bool:
    try:
        return first is not None and Decimal(first) == Decimal(second)
    except InvalidOperation:  # where the calculator failed there is no number
        return first == second
