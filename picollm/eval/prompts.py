"""The comparison's prompt set: questions with declarative checks, and what is measured on each reply."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from picollm.chat.conversation import Conversation
from picollm.errors import ConversationError, DataError, InputError
from picollm.eval import checks
from picollm.eval.properties import (
    Properties,
    count_code_fences,
    count_list_items,
    first_mention,
    repetition,
    split_sentences,
    topic_words,
)

if TYPE_CHECKING:
    from picollm.infer.request import Reply
    from picollm.tokenizer import Tokenizer

PROMPTS = Path(__file__).with_name("prompts.jsonl")


@dataclass(frozen=True)
class Prompt:
    """One prompt of the set: a conversation that ends with a user turn, and perhaps a check of the reply."""

    id: str
    category: str
    conversation: Conversation
    check: checks.Check | None = None


def load_prompts(path: Path = PROMPTS) -> list[Prompt]:
    """Return the prompts of a JSONL file with ``{"id", "category", "messages", "check"}`` per line.

    Raises DataError, naming file and line, for a line that is not such a prompt, a repeated id or an empty
    file.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the prompt file {path} cannot be read ({error}). Pass a JSONL file of prompts."
        ) from error
    prompts: dict[str, Prompt] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        prompt = _prompt(line, where)
        if prompt.id in prompts:
            raise DataError(f"{where}: the prompt id {prompt.id!r} stands there twice. Ids must differ.")
        prompts[prompt.id] = prompt
    if not prompts:
        raise DataError(
            f"the prompt file {path} holds no prompts. Each line is a JSON object with 'messages'."
        )
    return list(prompts.values())


def _prompt(line: str, where: str) -> Prompt:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where} is not JSON ({error}). Each line must be one JSON object.") from error
    if not isinstance(row, dict) or not isinstance(row.get("messages"), list):
        raise DataError(
            f"{where} has no list of 'messages'. A prompt is {{'id', 'category', 'messages', 'check'}}."
        )
    try:
        conversation = Conversation.from_dict({"messages": row["messages"]})
        if row.get("check") is not None:
            checks.validate_check(row["check"], where)
    except ConversationError as error:
        raise DataError(f"{where}: {error}") from error
    except InputError as error:
        raise DataError(str(error)) from error
    if conversation.messages[-1].role != "user":
        raise DataError(
            f"{where}: the last message is from {conversation.messages[-1].role}; it must be the user's."
        )
    return Prompt(
        str(row.get("id", where)), str(row.get("category", "other")), conversation, row.get("check")
    )


def reply_properties(prompt: Prompt, reply: Reply, tokenizer: Tokenizer, *, leaks_role: bool) -> Properties:
    """Return the measured properties of ``reply`` to ``prompt``; tokens are counted with ``tokenizer``.

    Both checkpoints of a comparison must be counted with tokenizers that split text alike, or lengths mean
    nothing.
    """
    text = reply.text
    wanted = checks.answers(prompt.check) if prompt.check else []
    wanted = wanted or topic_words(prompt.conversation.messages[-1].text)
    place = first_mention(text, wanted)
    return Properties(
        ends_by_itself=reply.finish_reason == "stop" and not leaks_role,
        leaks_role=leaks_role,
        passes=checks.passes(prompt.check, text) if prompt.check else None,
        num_tokens=len(reply.ids),
        num_sentences=len(split_sentences(text)),
        num_list_items=count_list_items(text),
        num_code_fences=count_code_fences(text),
        directness=None if place is None else len(tokenizer.encode(text[:place])),
        repetition=repetition(reply.ids),
    )
