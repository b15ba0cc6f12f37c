"""One checkpoint on one task: multiple choice by the option letters, the rest by what the model writes."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from picollm.chat.conversation import format_messages
from picollm.errors import InputError
from picollm.eval.score import Failure, Score, Share
from picollm.infer.params import SamplingParams
from picollm.progress import SILENT, Bar, Progress

if TYPE_CHECKING:
    from picollm.chat.conversation import Conversation
    from picollm.infer.engine import Engine
    from picollm.infer.request import Reply
    from picollm.tasks.task import Task
    from picollm.tokenizer import Tokenizer

Form = Literal["chat", "completion"]

COMPLETION_ROOM = 16  # a continuation may be this many tokens longer than the right answer
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
    _check_form(task, form)
    outcomes: list[_Outcome] = []
    start = time.perf_counter()
    with progress.bar(f"{task.name} ({form})", len(indices), "questions") as bar:
        for first in range(0, len(indices), _CHUNK):
            chunk = indices[first : first + _CHUNK]
            outcomes += _answer(engine, task, chunk, form, max_tokens, bar)
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
    # The beginning of one permutation: a smaller limit asks a part of what a larger one asks.
    drawn = np.random.default_rng(seed).permutation(len(task))[:limit]
    return sorted(int(index) for index in drawn)


def leaks_role(reply: Reply, tokenizer: Tokenizer) -> bool:
    """Return whether ``reply`` opens somebody else's turn, or spells a role or its marker."""
    spelled = any(token in reply.text for token in tokenizer.special_tokens)
    return reply.finish_reason == "foreign_role" or spelled or _SPEAKER.search(reply.text) is not None


def _check_form(task: Task, form: Form) -> None:
    if task.scoring is None:
        raise InputError(f"the task {task.name!r} is only trained on; it has no rule for right answers.")
    if form == "completion" and task.completion(0) is None:
        raise InputError(f"the task {task.name!r} has no completion form; score it in chat form.")


def _answer(
    engine: Engine, task: Task, indices: Sequence[int], form: Form, max_tokens: int, bar: Bar
) -> list[_Outcome]:
    """Return what became of the questions ``indices``, in their order."""
    ids = {index: _prompt_ids(engine, task, index, form) for index in indices}
    by_letter = task.scoring == "letters"
    room = engine.context_length - (0 if by_letter else 1)
    fitting = {index: prompt for index, prompt in ids.items() if len(prompt) <= room}
    bar.advance(len(ids) - len(fitting))
    if by_letter:
        outcomes = _by_letter(engine, task, fitting, bar)
    elif form == "chat":
        outcomes = _by_reply(engine, task, list(fitting), max_tokens, bar)
    else:
        outcomes = _by_continuation(engine, task, fitting, max_tokens, bar)
    return [outcomes.get(index, _TOO_LONG) for index in indices]


def _prompt_ids(engine: Engine, task: Task, index: int, form: Form) -> list[int]:
    """Return what the model reads; in completion form, a document's beginning as training had them."""
    if form == "chat":
        return engine.format.render_for_completion(task.prompt(index))
    text = task.completion(index) or ""
    try:
        return engine.format.render_completion_prompt(text)
    except InputError:
        return engine.tokenizer.encode(text)  # a foreign base model


def _by_reply(
    engine: Engine, task: Task, indices: Sequence[int], max_tokens: int, bar: Bar
) -> dict[int, _Outcome]:
    """Let the model answer in chat form and check what it writes; a reply that never ends answers nothing."""
    params = SamplingParams(max_tokens=max_tokens, temperature=0.0)
    outcomes = {}
    for place, reply in engine.as_completed([task.prompt(index) for index in indices], params):
        index = indices[place]
        ends = reply.finish_reason == "stop"
        outcomes[index] = _Outcome(
            ends and task.check(index, reply.message),
            readable_reply(reply),
            ends,
            leaks_role(reply, engine.tokenizer),
        )
        bar.advance(1, right=sum(outcome.right for outcome in outcomes.values()) / len(outcomes))
    return outcomes


def readable_prompt(conversation: Conversation) -> str:
    """Return what is asked as a person can read it; who speaks is only said where several do."""
    messages = conversation.messages
    return messages[0].text if len(messages) == 1 else format_messages(messages)


def readable_reply(reply: Reply) -> str:
    """Return a reply as a person can read it, calculator calls and results included."""
    shown = {"text": "{}", "python": "«{}", "python_output": " = {}»"}
    return "".join(shown[part.type].format(part.text) for part in reply.parts)


def _by_letter(engine: Engine, task: Task, prompts: Mapping[int, list[int]], bar: Bar) -> dict[int, _Outcome]:
    """Take the most probable option letter at the place where the answer begins."""
    letters = {index: task.letters(index) or [] for index in prompts}
    candidates, asked = [], []
    for index, prompt in prompts.items():
        start, ids = _letter_tokens(engine.tokenizer, letters[index])
        asked.append([*prompt, *start])
        candidates.append(ids)
    scores = engine.score(asked, candidates)
    chosen = {index: letters[index][int(np.argmax(row))] for index, row in zip(prompts, scores, strict=True)}
    bar.advance(len(prompts))
    return {index: _Outcome(letter == task.answer_letter(index), letter) for index, letter in chosen.items()}


def _letter_tokens(tokenizer: Tokenizer, letters: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return what every letter begins with, and the one token of each behind it.

    Tokenizers in the manner of SentencePiece begin any text with a space: "A" is a space and an A.
    """
    encoded = [tokenizer.encode(letter) for letter in letters]
    if any(len(ids) != len(encoded[0]) or ids[:-1] != encoded[0][:-1] for ids in encoded):
        raise InputError(
            f"the option letters {', '.join(letters)} are not one token each; multiple choice needs that."
        )
    return encoded[0][:-1], [ids[-1] for ids in encoded]


def _by_continuation(
    engine: Engine, task: Task, prompts: Mapping[int, list[int]], max_tokens: int, bar: Bar
) -> dict[int, _Outcome]:
    """Let a base model continue plain text and check the continuation."""
    answers = [engine.tokenizer.encode(task[index].messages[-1].text) for index in prompts]
    params = [
        SamplingParams(max_tokens=min(max_tokens, len(answer) + COMPLETION_ROOM), temperature=0.0)
        for answer in answers
    ]
    replies = dict(zip(prompts, engine.complete_ids(list(prompts.values()), params), strict=True))
    bar.advance(len(prompts))
    return {i: _Outcome(task.check_completion(i, reply.text), reply.text) for i, reply in replies.items()}


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
        groups={group: Share(right[group], num[group]) for group in sorted(filter(None, num))},
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
    return readable_prompt(task.prompt(index))
