"""HumanEval: the body of a Python function from its signature and docstring, judged by running its tests.

Published by Chen et al., "Evaluating Large Language Models Trained on Code" (2021). Replies are programs that
nobody has read: they run in ``tools.sandbox``, whose head says what that does and does not protect from.
"""

from __future__ import annotations

import re
from typing import Any

from picollm.chat.conversation import Message
from picollm.tasks.task import Task
from picollm.tools.sandbox import Limits, Run, run_python

LIMITS = Limits(seconds=5.0)

_FENCED = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
# Where the paper cuts a continuation: at the next thing that stands at the left margin.
_NEXT = re.compile(r"\n(?:class|def|#|if|print)")


class HumanEval(Task):
    """Rows ``{"prompt", "canonical_solution", "test", "entry_point"}``; the prompt is the user's turn."""

    def messages(self, index: int) -> list[dict[str, Any]]:
        """Return the prompt, and the whole function as published."""
        prompt = self.rows.field(index, "prompt", str)
        return [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": prompt + self.expected(index)},
        ]

    def expected(self, index: int) -> str:
        """Return the published body of the function, one of many that are right."""
        return self.rows.field(index, "canonical_solution", str)

    def check(self, index: int, reply: Message) -> bool:
        """Return whether the code in a reply passes the tests."""
        return self.run(index, self._in_reply(index, reply.text)).finished

    def completion(self, index: int) -> str:
        """Return the prompt as published: a file that ends where the body begins."""
        return self.rows.field(index, "prompt", str)

    def check_completion(self, index: int, text: str) -> bool:
        """Return whether the prompt and ``text``, up to the next definition, pass the tests."""
        return self.run(index, self.completion(index) + _NEXT.split(text)[0]).finished

    def run(self, index: int, program: str) -> Run:
        """Return how ``program``, followed by the tests of row ``index``, ended."""
        tests, entry_point = (self.rows.field(index, key, str) for key in ("test", "entry_point"))
        return run_python(f"{program}\n{tests}\ncheck({entry_point})\n", LIMITS)

    def _in_reply(self, index: int, text: str) -> str:
        """Return the program of a reply: in code fences or not, the whole function or only its body.

        The prompt stands before it in any case. It is a complete file, a function that is only a docstring,
        and has the imports and the helpers that the tests and a reply may use.
        """
        entry_point = re.escape(self.rows.field(index, "entry_point", str))
        defines = re.compile(rf"^def[ \t]+{entry_point}[ \t]*\(", re.MULTILINE)
        blocks = _FENCED.findall(text) or [text]
        code: str = next((block for block in blocks if defines.search(block)), blocks[0])
        border = "\n" if defines.search(code) else ""
        return self.completion(index) + border + code
