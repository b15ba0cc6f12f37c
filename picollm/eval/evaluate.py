"""One checkpoint on one task: multiple choice by the option letters, the rest by what the model writes."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from picollm.chat.conversation import format_messages
from picollm.errors import InputError
from picollm.eval.score import Failure, GroupScore, Score
from picollm.infer.sampling import SamplingParams
from picollm.progress import SILENT, Progress

if TYPE_CHECKING:
    from picollm.infer.engine import Engine
    from picollm.infer.request import Reply
    from picollm.tasks.task import Task
    from picollm.tokenizer import Tokenizer

Form = Literal["chat", "completion"]

COMPLETION_TOKENS = (
    32  # a fact, a number or a word; a base model that has not said it by then is telling something else
)
_CHUNK = 256  # questions handed to the engine at once: enough to keep it full, few enough that progress shows
_SPEAKER = re.compile(r"^\s*(?:user|assistant|system)\s*:", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class _Outcome:
    right: bool
    reply: str
    ended: bool | None = None
    leaked: bool | None = None


_TOO_LONG = _Outcome(right=False, reply="(the question does not fit into the context)")


def evaluate(
    engine: Engine,
    task: Task,
    *,
    limit: int | None = None,
    form: Form = "chat",
    seed: int = 0,
    max_tokens: int = 256,
    num_failures: int = 6,
    progress: Progress = SILENT,
) -> Score:
    """Return the score of the engine's checkpoint on ``task``, decoding greedily.

    In "chat" form a question is the user's turn of a conversation: multiple choice is decided by the most
    probable option letter, other tasks by the reply of at most ``max_tokens``. In "completion" form a base
    model continues a plain text. With ``limit``, a random part of the task that depends on ``seed`` and the
    task's length only. A question that does not fit into the context counts as wrong, and in
    ``num_too_long``.

    Raises:
        InputError: ``limit`` below 1, an empty task, or a form that the checkpoint or the task does not have.
    """
    indices = choose(task, limit, seed)
    answer = _form(task, indices[0], form)
    outcomes: list[_Outcome] = []
    start = time.perf_counter()
    with progress.bar(f"{task.name} ({form})", len(indices), "questions") as bar:
        for first in range(0, len(indices), _CHUNK):
            chunk = indices[first : first + _CHUNK]
            outcomes += answer(engine, task, chunk, form, max_tokens)
            bar.advance(len(chunk), right=sum(outcome.right for outcome in outcomes) / len(outcomes))
    return _score(task, form, indices, outcomes, time.perf_counter() - start, num_failures)


def choose(task: Task, limit: int | None, seed: int) -> list[int]:
    """Return the indices to ask, in order: all of the task, or ``limit`` of them drawn without replacement.

    Raises:
        InputError: ``limit`` below 1, or a task without questions.
    """
    if not len(task):
        raise InputError(f"the task {task.name!r} has no questions; there is nothing to score.")
    if limit is not None and limit < 1:
        raise InputError(
            f"a limit of {limit} asks nothing; use at least 1, or none for all {len(task)} questions."
        )
    if limit is None or limit >= len(task):
        return list(range(len(task)))
    drawn = np.random.default_rng(seed).permutation(len(task))[
        :limit
    ]  # a smaller limit asks a part of a larger one
    return sorted(int(index) for index in drawn)


def leaks_role(reply: Reply, tokenizer: Tokenizer) -> bool:
    """Return whether ``reply`` opens somebody else's turn, or spells a role or its marker."""
    spelled = any(token in reply.text for token in tokenizer.special_tokens)
    return reply.finish_reason == "foreign_role" or spelled or _SPEAKER.search(reply.text) is not None


def _form(
    task: Task, index: int, form: Form
) -> Callable[[Engine, Task, Sequence[int], Form, int], list[_Outcome]]:
    """Return how ``task`` is answered in ``form``. Raises InputError where it cannot be."""
    if task.scoring is None:
        raise InputError(f"the task {task.name!r} is only trained on; it has no rule for right answers.")
    if form == "completion" and task.completion(index) is None:
        raise InputError(f"the task {task.name!r} has no completion form; score it in chat form.")
    if task.scoring == "letters":
        return _choose_letters
    return _reply if form == "chat" else _complete


def _reply(engine: Engine, task: Task, indices: Sequence[int], form: Form, max_tokens: int) -> list[_Outcome]:
    """Let the model answer in chat form and check what it writes."""
    prompts = {index: task.prompt(index) for index in indices}
    fitting = [
        i for i, p in prompts.items() if len(engine.format.render_for_completion(p)) < engine.context_length
    ]
    replies = engine.complete_many(
        [prompts[index] for index in fitting], SamplingParams(max_tokens=max_tokens, temperature=0.0)
    )
    outcomes = {
        index: _Outcome(
            task.check(index, reply.message),
            readable_reply(reply),
            reply.finish_reason == "stop",
            leaks_role(reply, engine.tokenizer),
        )
        for index, reply in zip(fitting, replies, strict=True)
    }
    return [outcomes.get(index, _TOO_LONG) for index in indices]


def readable_reply(reply: Reply) -> str:
    """Return a reply as a person can read it, calculator calls and results included."""
    shown = {"text": "{}", "python": "«{}", "python_output": " = {}»"}
    return "".join(shown[part.type].format(part.text) for part in reply.parts)


def _choose_letters(
    engine: Engine, task: Task, indices: Sequence[int], form: Form, max_tokens: int
) -> list[_Outcome]:
    """Take the most probable option letter at the place where the answer begins."""
    if form == "chat":
        ids = {index: engine.format.render_for_completion(task.prompt(index)) for index in indices}
    else:
        ids = {index: completion_prompt(engine, task.completion(index) or "") for index in indices}
    fitting = [index for index in indices if len(ids[index]) <= engine.context_length]
    letters = {index: task.letters(index) or [] for index in fitting}
    candidates = [[_one_token(engine.tokenizer, letter) for letter in letters[index]] for index in fitting]
    scores = engine.score([ids[index] for index in fitting], candidates)
    chosen = {index: letters[index][int(np.argmax(row))] for index, row in zip(fitting, scores, strict=True)}
    return [
        _Outcome(chosen[index] == task.answer_letter(index), chosen[index]) if index in chosen else _TOO_LONG
        for index in indices
    ]


def _one_token(tokenizer: Tokenizer, letter: str) -> int:
    ids = tokenizer.encode(letter)
    if len(ids) != 1:
        raise InputError(
            f"the option letter {letter!r} is {len(ids)} tokens; multiple choice needs letters of one token."
        )
    return ids[0]


def _complete(
    engine: Engine, task: Task, indices: Sequence[int], form: Form, max_tokens: int
) -> list[_Outcome]:
    """Let a base model continue plain text and check the continuation."""
    ids = {index: completion_prompt(engine, task.completion(index) or "") for index in indices}
    fitting = [index for index in indices if len(ids[index]) < engine.context_length]
    params = SamplingParams(max_tokens=min(max_tokens, COMPLETION_TOKENS), temperature=0.0)
    replies = dict(zip(fitting, engine.complete_ids([ids[index] for index in fitting], params), strict=True))
    return [
        _Outcome(task.check_completion(index, replies[index].text), replies[index].text)
        if index in replies
        else _TOO_LONG
        for index in indices
    ]


def completion_prompt(engine: Engine, text: str) -> list[int]:
    """Return the ids of ``text`` as a base model reads it: the beginning of a document of its training."""
    try:
        return engine.format.render_completion_prompt(text)
    except InputError:
        return engine.tokenizer.encode(text)


def _score(
    task: Task,
    form: Form,
    indices: Sequence[int],
    outcomes: Sequence[_Outcome],
    seconds: float,
    num_failures: int,
) -> Score:
    groups = [task.group(index) for index in indices]
    num, right = Counter(groups), Counter(g for g, o in zip(groups, outcomes, strict=True) if o.right)
    stopped = [outcome.ended for outcome in outcomes if outcome.ended is not None]
    leaked = [outcome.leaked for outcome in outcomes if outcome.leaked is not None]
    letters = [task.letters(index) for index in indices]
    chances = [1 / len(options) if options else 0.0 for options in letters]
    return Score(
        task=task.name,
        form=form,
        num_right=sum(outcome.right for outcome in outcomes),
        num=len(outcomes),
        chance=sum(chances) / len(chances) if chances else 0.0,
        seconds=round(seconds, 2),
        groups={group: GroupScore(right[group], num[group]) for group in sorted(filter(None, num))},
        stop_rate=sum(stopped) / len(stopped) if stopped else None,
        role_leaks=sum(leaked) if leaked else None,
        num_too_long=sum(outcome is _TOO_LONG for outcome in outcomes),
        failures=_failures(task, form, indices, outcomes, num_failures),
    )


def _failures(
    task: Task, form: Form, indices: Sequence[int], outcomes: Sequence[_Outcome], most: int
) -> tuple[Failure, ...]:
    """Return at most ``most`` wrong answers, from as many different groups as there are."""
    seen: Counter[str | None] = Counter()
    wrong = []
    for index, outcome in zip(indices, outcomes, strict=True):
        if not outcome.right:
            group = task.group(index)
            wrong.append((seen[group], index, group, outcome))
            seen[group] += 1
    wrong.sort(key=lambda entry: entry[:2])
    return tuple(
        Failure(index, group, _question(task, form, index), outcome.reply, task.expected(index))
        for _, index, group, outcome in wrong[:most]
    )


def _question(task: Task, form: Form, index: int) -> str:
    if form == "completion":
        return task.completion(index) or ""
    messages = task.prompt(index).messages
    return messages[0].text if len(messages) == 1 else format_messages(messages)
