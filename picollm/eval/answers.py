"""How a task is asked: by the letters of its options, by a reply, by a continuation, or by likelihood."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from picollm.chat.conversation import format_messages
from picollm.errors import InputError
from picollm.eval.journal import Given
from picollm.infer.params import SamplingParams
from picollm.infer.scheduler import num_shared

if TYPE_CHECKING:
    from picollm.chat.conversation import Conversation
    from picollm.infer.engine import Engine
    from picollm.infer.request import Reply, Request
    from picollm.tasks.core import CoreTask
    from picollm.tasks.task import Task
    from picollm.tokenizer import Tokenizer

Form = Literal["chat", "completion"]

COMPLETION_ROOM = 16  # a continuation may be this many tokens longer than the right answer
_CHUNK = 256  # questions scored in one go: enough for shared beginnings, few enough that progress shows
_SPEAKER = re.compile(r"^\s*(?:user|assistant|system)\s*:", re.IGNORECASE | re.MULTILINE)
_TOO_LONG = Given("(the question does not fit into the context)", too_long=True)


def ask(
    engine: Engine, task: Task, indices: Sequence[int], form: Form, max_tokens: int
) -> Iterator[tuple[int, Given]]:
    """Yield what the model gives for each question of ``indices``, as the answers come."""
    if task.scoring == "reply":
        # All at once: with many requests waiting, the engine is never half empty.
        yield from _by_reply(engine, task, indices, form, max_tokens)
        return
    for first in range(0, len(indices), _CHUNK):
        chunk = indices[first : first + _CHUNK]
        if task.scoring == "letters":
            yield from _by_letter(engine, task, chunk, form)
        else:
            yield from _by_likelihood(engine, cast("CoreTask", task), chunk)


def leaks_role(reply: Reply, tokenizer: Tokenizer) -> bool:
    """Return whether ``reply`` opens somebody else's turn, or spells a role or its marker."""
    control = (token for token, i in tokenizer.special_tokens.items() if i in tokenizer.control_ids)
    spelled = any(token in reply.text for token in control)
    return reply.finish_reason == "foreign_role" or spelled or _SPEAKER.search(reply.text) is not None


def readable_prompt(conversation: Conversation) -> str:
    """Return what is asked as a person can read it; who speaks is only said where several do."""
    messages = conversation.messages
    return messages[0].text if len(messages) == 1 else format_messages(messages)


def readable_reply(reply: Reply) -> str:
    """Return a reply as a person can read it, calculator calls and results included."""
    shown = {"text": "{}", "python": "«{}", "python_output": " = {}»"}
    return "".join(shown[part.type].format(part.text) for part in reply.parts)


def _prompt_ids(engine: Engine, task: Task, index: int, form: Form) -> list[int]:
    """Return what the model reads; in completion form, a document's beginning as training had them."""
    if form == "chat":
        return engine.format.render_for_completion(task.prompt(index))
    return _document_ids(engine, task.completion(index) or "")


def _document_ids(engine: Engine, text: str) -> list[int]:
    try:
        return engine.format.render_completion_prompt(text)
    except InputError:
        return engine.tokenizer.encode(text)  # a foreign base model


def _by_reply(
    engine: Engine, task: Task, indices: Sequence[int], form: Form, max_tokens: int
) -> Iterator[tuple[int, Given]]:
    """Let the model write: a reply in chat form, or the continuation of a plain text."""
    asked: list[tuple[int, Request]] = []
    for index in indices:
        if len(prompt_ids := _prompt_ids(engine, task, index, form)) >= engine.context_length:
            yield index, _TOO_LONG
            continue
        if form == "chat":
            params = SamplingParams(max_tokens=max_tokens, temperature=0.0)
            request = engine.new_request(task.prompt(index), params)
        else:
            room = len(engine.tokenizer.encode(task[index].messages[-1].text)) + COMPLETION_ROOM
            params = SamplingParams(max_tokens=min(max_tokens, room), temperature=0.0)
            request = engine.new_completion_request(prompt_ids, params)
        asked.append((index, request))
    # Texts of similar length run side by side, and the longest do not come last, when slots are empty.
    asked.sort(key=lambda pair: -len(pair[1].prompt_ids))
    for place, reply in engine.as_finished([request for _, request in asked]):
        index = asked[place][0]
        if form == "completion":
            yield index, Given(reply.text)
            continue
        yield (
            index,
            Given(
                readable_reply(reply),
                tuple({"type": part.type, "text": part.text} for part in reply.parts),
                ended=reply.finish_reason == "stop",
                leaked=leaks_role(reply, engine.tokenizer),
            ),
        )


def _by_letter(engine: Engine, task: Task, indices: Sequence[int], form: Form) -> Iterator[tuple[int, Given]]:
    """Take the most probable option letter at the place where the answer begins."""
    prompts: dict[int, list[int]] = {}
    candidates = []
    for index in indices:
        start, ids = _letter_tokens(engine.tokenizer, task.letters(index) or [])
        prompt = [*_prompt_ids(engine, task, index, form), *start]
        if len(prompt) > engine.context_length:
            yield index, _TOO_LONG
        else:
            prompts[index] = prompt
            candidates.append(ids)
    scores = engine.score(list(prompts.values()), candidates)
    for index, row in zip(prompts, scores, strict=True):
        yield index, Given((task.letters(index) or [])[int(np.argmax(row))])


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


def _by_likelihood(engine: Engine, task: CoreTask, indices: Sequence[int]) -> Iterator[tuple[int, Given]]:
    """Take the ending with the highest mean log-probability; an only one must be what is decoded greedily."""
    asked: dict[int, tuple[int, int]] = {}
    prompts: list[list[int]] = []
    endings: list[list[int]] = []
    for index in indices:
        fitting = _fitting_options(engine, task, index)
        if fitting is None:
            yield index, _TOO_LONG
            continue
        pairs, num_dropped = fitting
        asked[index] = (len(pairs), num_dropped)
        prompts += [prompt for prompt, _ in pairs]
        endings += [ending for _, ending in pairs]
    found = iter(engine.likelihoods(prompts, endings))
    for index, (num, num_dropped) in asked.items():
        some = [next(found) for _ in range(num)]
        if num == 1:
            choice = 0 if some[0].is_greedy else None
        else:
            choice = int(np.argmax([each.logprob / each.num_tokens for each in some]))
        text = "(other text)" if choice is None else task.options(index, 0)[choice].ending
        yield index, Given(text, choice=choice, num_dropped=num_dropped)


def _fitting_options(
    engine: Engine, task: CoreTask, index: int
) -> tuple[list[tuple[list[int], list[int]]], int] | None:
    """Return ``(prompt, ending)`` ids per option and how many examples had to be dropped for them to fit."""
    for num in range(task.num_examples, -1, -1):
        pairs = [_split(engine, *option) for option in task.options(index, num)]
        if max(len(prompt) + len(ending) - 1 for prompt, ending in pairs) <= engine.context_length:
            return pairs, task.num_examples - num
    return None


def _split(engine: Engine, context: str, ending: str) -> tuple[list[int], list[int]]:
    """Return the ids of a text, cut where its ending begins.

    The text is tokenized as a whole, as training met it; a space before the ending is part of its first
    token.
    """
    whole = _document_ids(engine, context + ending)
    border = max(1, num_shared(whole[:-1], _document_ids(engine, context.rstrip(" "))))
    return whole[:border], whole[border:]
