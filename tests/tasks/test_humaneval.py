"""HumanEval: which part of a reply runs, and that running decides."""

from __future__ import annotations

from pathlib import Path

import pytest

from picollm.chat.conversation import Message
from picollm.data.rows import rows_of
from picollm.errors import DataError
from picollm.tasks.humaneval import HumanEval
from picollm.tasks.registry import load_task

PROMPT = '''import math


def half(x: int) -> int:
    return x // 2


def area(r: float) -> float:
    """ The area of a circle.
    >>> area(0)
    0.0
    """
'''
BODY = "    return math.pi * r * r\n"
TEST = (
    "def check(candidate):\n    assert candidate(0) == 0.0\n    assert math.isclose(candidate(1), math.pi)\n"
)
WHOLE = "def area(r):\n    return math.pi * r**2\n"


@pytest.fixture(scope="module")
def task() -> HumanEval:
    row = {"prompt": PROMPT, "canonical_solution": BODY, "test": TEST, "entry_point": "area"}
    return HumanEval("humaneval", rows_of([row], "made"), "test")


def test_the_prompt_is_the_user_s_turn_and_the_published_function_the_answer(task: HumanEval) -> None:
    assert [message.text for message in task[0].messages] == [PROMPT, PROMPT + BODY]
    assert (task.completion(0), task.expected(0)) == (PROMPT, BODY)


@pytest.mark.parametrize(
    "reply",
    [
        PROMPT + BODY,
        f"Sure!\n\n```python\n{WHOLE}```\nIt squares the radius.",
        f"```\n{PROMPT}{BODY}```",
        f"```python\n{WHOLE}",
        f"First this:\n```bash\npip install math\n```\nThen:\n  ```py\n{WHOLE}  ```",
        BODY,
        f"```python\n{BODY}```",
        "def square(r):\n    return r * r\n\ndef area(r):\n    return math.pi * square(r) * half(2)\n",
    ],
)
def test_replies_in_many_forms_are_right(task: HumanEval, reply: str) -> None:
    assert task.check(0, Message("assistant", reply))


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "The area is pi times r squared.",
        "```python\ndef area(r):\n    return 0.0\n```",
        "```python\ndef surface(r):\n    return math.pi * r**2\n```",
        "import sys\nsys.exit(0)",
        "```python\nimport os\nos._exit(0)\n```",
        "def check(candidate): pass",
    ],
)
def test_wrong_replies(task: HumanEval, reply: str) -> None:
    assert not task.check(0, Message("assistant", reply))


def test_a_completion_ends_at_the_next_definition(task: HumanEval) -> None:
    assert task.check_completion(0, BODY + "\ndef next_one(:")
    assert task.check_completion(0, BODY + "\nprint(area(")
    assert not task.check_completion(0, "    return 0.0\n" + WHOLE)
    assert not task.check_completion(0, " a circle is round")


def test_a_broken_row_is_named() -> None:
    task = HumanEval("humaneval", rows_of([{"prompt": PROMPT}], "made"), "test")
    with pytest.raises(DataError, match="made, row 0 has no 'canonical_solution'"):
        task[0]


def test_published_solutions_pass_and_their_absence_does_not(shared_data: Path) -> None:
    task = load_task("humaneval", "test", data_root=shared_data)
    assert len(task) == 82
    for index in range(0, 82, 20):
        assert task.check(index, task[index].messages[-1])
        assert task.check_completion(index, task.expected(index))
        assert not task.check_completion(index, "    pass")
    with pytest.raises(DataError, match="has no train files; it has test"):
        load_task("humaneval", "train", data_root=shared_data)
