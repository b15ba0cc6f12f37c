"""IFEval: prompts with one to three instructions that a program can verify.

Published by Zhou et al., "Instruction-Following Evaluation for Large Language Models" (2023).
"""

from __future__ import annotations

from typing import Any

from picollm.chat.conversation import Message
from picollm.data.rows import Rows
from picollm.errors import DataError, InputError
from picollm.tasks.ifeval.instruction import Instruction, read_instruction
from picollm.tasks.task import Task


class Ifeval(Task):
    """Rows ``{"prompt", "instruction_id_list", "kwargs"}``, without answers: for scoring only.

    Right is a reply that follows all instructions of its prompt (the published "prompt-level strict" score);
    ``followed`` tells each of them, strictly and loosely. Many prompts ask for 300 words and more: a score
    needs a ``max_tokens`` of 1,000 or so.
    """

    def __init__(self, name: str, rows: Rows, split: str) -> None:
        if split != "test":
            raise InputError(f"{name} has no {split} rows: its prompts have no answers. Use it to score.")
        super().__init__(name, rows, split)

    def messages(self, index: int) -> list[dict[str, Any]]:
        """Return the prompt alone."""
        return [{"role": "user", "content": self.rows.field(index, "prompt", str)}]

    def instructions(self, index: int) -> list[Instruction]:
        """Return the instructions in the prompt of row ``index``.

        Raises:
            DataError: One of them is not known, or its arguments are not those it needs.
        """
        names = self.rows.field(index, "instruction_id_list", list)
        arguments = self.rows.field(index, "kwargs", list)
        if not names or len(names) != len(arguments) or not all(isinstance(each, dict) for each in arguments):
            raise DataError(
                f"{self.rows.where(index)}: {len(names)} instructions and arguments {arguments!r:.40}; "
                "expected at least one, and an object of arguments for each."
            )
        try:
            return [read_instruction(*each) for each in zip(map(str, names), arguments, strict=True)]
        except ValueError as error:
            raise DataError(f"{self.rows.where(index)}: {error}.") from error

    def expected(self, index: int) -> str:
        """Return what the instructions ask for."""
        return "; ".join(map(str, self.instructions(index)))

    def check(self, index: int, reply: Message) -> bool:
        """Return whether the reply follows every instruction."""
        return all(self.followed(index, reply.text))

    def followed(self, index: int, text: str, *, loosely: bool = False) -> list[bool]:
        """Return for each instruction whether ``text`` follows it, strictly or loosely."""
        return [
            each.is_followed_loosely(text) if loosely else each.is_followed(text)
            for each in self.instructions(index)
        ]

    def group(self, index: int) -> str:
        """Return the family of the instruction, or "several" where there are more than one."""
        found = self.instructions(index)
        return found[0].family if len(found) == 1 else "several"
