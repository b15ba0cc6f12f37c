"""One checkpoint on one task: what it answers, which answers are right, and how sure the score is."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from picollm.chat.conversation import Message, Part
from picollm.errors import InputError
from picollm.eval.answers import Form, ask, readable_prompt
from picollm.eval.journal import Given, Journal
from picollm.eval.score import Failure, Score, Share
from picollm.progress import SILENT, Progress
from picollm.train.distributed import Ranks

if TYPE_CHECKING:
    from picollm.infer.engine import Engine
    from picollm.tasks.core import CoreTask
    from picollm.tasks.task import Task

_Judged = Mapping[int, tuple[Given, bool]]


def evaluate(
    engine: Engine,
    task: Task,
    *,
    limit: int | None = None,
    form: Form = "chat",
    seed: int = 0,
    max_tokens: int = 256,
    num_failures: int = 6,
    journal: Journal | None = None,
    ranks: Ranks | None = None,
    progress: Progress = SILENT,
) -> Score:
    """Return the score of the engine's checkpoint on ``task``, decoding greedily.

    In "chat" form a question is the user's turn of a conversation: multiple choice is decided by the most
    probable option letter, other tasks by the reply of at most ``max_tokens``. In "completion" form a base
    model continues a plain text. With ``limit``, a random part of the task that depends on ``seed`` and the
    task's length only. A question that does not fit into the context counts as wrong, and in
    ``num_too_long``. Answers that ``journal`` knows are not asked again, new ones are added to it. Several
    processes share the questions among them, and each returns the whole score.

    Raises:
        InputError: ``limit`` below 1, an empty task, or a form that the checkpoint or the task does not have.
    """
    ranks = ranks or Ranks()
    indices = choose(task, limit, seed)
    check_form(task, form)
    start = time.perf_counter()
    judged = _judge_all(engine, task, indices[ranks.rank :: ranks.size], form, max_tokens, journal, progress)
    seconds = time.perf_counter() - start + (journal.seconds if journal else 0.0)
    everybody = ranks.gather((judged, seconds))
    together = {index: entry for some, _ in everybody for index, entry in some.items()}
    return _score(task, form, indices, together, max(s for _, s in everybody), num_failures)


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


def check_form(task: Task, form: Form) -> None:
    """Raise InputError where ``task`` cannot be asked in this form."""
    if task.scoring is None:
        raise InputError(f"the task {task.name!r} is only trained on; it has no rule for right answers.")
    if form == "completion" and task.completion(0) is None:
        raise InputError(f"the task {task.name!r} has no completion form; score it in chat form.")
    if form == "chat" and task.scoring == "likelihood":
        raise InputError(f"the task {task.name!r} is plain text; score it with --form completion.")


def _judge_all(
    engine: Engine,
    task: Task,
    indices: Sequence[int],
    form: Form,
    max_tokens: int,
    journal: Journal | None,
    progress: Progress,
) -> _Judged:
    """Return the answers to ``indices`` and whether they are right; asks only what is not known yet."""
    known = journal.known if journal else {}
    judged = {i: (known[i], _is_right(task, i, form, known[i])) for i in indices if i in known}
    rest = [index for index in indices if index not in known]
    start = time.perf_counter()
    with progress.bar(f"{task.name} ({form})", len(indices), "questions") as bar:
        bar.advance(len(judged))
        for index, given in ask(engine, task, rest, form, max_tokens):
            if journal:
                journal.add(index, given, time.perf_counter() - start)
            judged[index] = (given, _is_right(task, index, form, given))
            bar.advance(1, right=sum(right for _, right in judged.values()) / len(judged))
    return judged


def _is_right(task: Task, index: int, form: Form, given: Given) -> bool:
    """Return whether an answer is right; a chat reply that never ends answers nothing."""
    if given.too_long:
        return False
    if task.scoring == "likelihood":
        return given.choice == cast("CoreTask", task).answer(index)
    if task.scoring == "letters":
        return given.text == task.answer_letter(index)
    if form == "completion":
        return task.check_completion(index, given.text)
    parts = [Part(**part) for part in given.parts]  # type: ignore[arg-type]
    return bool(given.ended) and task.check(index, Message("assistant", parts or ""))


def _score(
    task: Task, form: Form, indices: Sequence[int], judged: _Judged, seconds: float, num_failures: int
) -> Score:
    groups = [task.group(index) for index in indices]
    answers = [judged[index] for index in indices]
    num, right = Counter(groups), Counter(g for g, (_, right) in zip(groups, answers, strict=True) if right)
    stopped = [given.ended for given, _ in answers if given.ended is not None]
    leaked = [given.leaked for given, _ in answers if given.leaked is not None]
    return Score(
        task=task.name,
        form=form,
        num_right=sum(right for _, right in answers),
        num=len(answers),
        chance=sum(task.chance(index) for index in indices) / len(indices),
        seconds=round(seconds, 2),
        groups={group: Share(right[group], num[group]) for group in sorted(filter(None, num))},
        stop_rate=sum(stopped) / len(stopped) if stopped else None,
        role_leaks=sum(leaked) if leaked else None,
        num_too_long=sum(given.too_long for given, _ in answers),
        num_shortened=sum(given.num_dropped > 0 for given, _ in answers),
        failures=_failures(task, form, indices, judged, num_failures),
    )


def _failures(
    task: Task, form: Form, indices: Sequence[int], judged: _Judged, most: int
) -> tuple[Failure, ...]:
    """Return at most ``most`` wrong answers, from as many different groups as there are."""
    seen: Counter[str | None] = Counter()
    wrong = []
    for index in indices:
        given, right = judged[index]
        if not right:
            group = task.group(index)
            wrong.append((seen[group], index, group, given))
            seen[group] += 1
    wrong.sort(key=lambda entry: entry[:2])
    return tuple(
        Failure(index, group, _question(task, form, index), given.text, task.expected(index))
        for _, index, group, given in wrong[:most]
    )


def _question(task: Task, form: Form, index: int) -> str:
    if form == "completion":
        return task.completion(index) or ""
    return readable_prompt(task.prompt(index))
