"""``picollm show``: a conversation as the model sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from rich.text import Text

from picollm import paths
from picollm.chat.conversation import Conversation
from picollm.chat.format import ChatFormat
from picollm.cli.console import console, print_json
from picollm.data.rows import load_rows
from picollm.errors import InputError

SUPERVISED, GIVEN, CONTROL = "black on green", "default", "bold"


def show(
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(help="JSON, JSON lines, parquet, also .gz")],
    index: Annotated[int, tyro.conf.arg(help="which conversation of the file, from 0")] = 0,
    format: Annotated[str | None, tyro.conf.arg(help="chat format; default: the checkpoint's own")] = None,
    checkpoint: Annotated[
        str | None, tyro.conf.arg(help="whose tokenizer; default: runs/sft or the base")
    ] = None,
    json: Annotated[bool, tyro.conf.arg(help="print ids, loss mask, tokens and fingerprint as JSON")] = False,
) -> None:
    """Show a conversation token by token: green is what the loss sees, everything else is given."""
    rows = load_rows(file)
    if not 0 <= index < len(rows):
        raise InputError(f"{file} has {len(rows)} conversations, counted from 0; there is no number {index}.")
    conversation = Conversation.from_dict(rows[index])
    fmt = open_format(checkpoint, format)
    if json:
        rendered = fmt.render_conversation(conversation)
        tokens = [fmt.tokenizer.decode([token_id]) for token_id in rendered.ids]
        found = {"ids": rendered.ids, "loss_mask": rendered.loss_mask, "tokens": tokens}
        print_json({**found, "fingerprint": fmt.fingerprint})
    else:
        print_tokens(fmt, conversation)


def print_tokens(fmt: ChatFormat, conversation: Conversation) -> None:
    """Show the tokens of ``conversation`` in color on stderr, with a line of counts."""
    rendered = fmt.render_conversation(conversation)
    control = set(fmt.tokenizer.special_tokens.values())
    line = Text()
    for token_id, supervised in zip(rendered.ids, rendered.loss_mask, strict=True):
        style = SUPERVISED if supervised else GIVEN
        line.append(fmt.tokenizer.decode([token_id]), f"{CONTROL} {style}" if token_id in control else style)
    console.print(line)
    num = sum(rendered.loss_mask)
    console.print(
        f"{len(rendered.ids)} tokens, {num} supervised; {fmt.name} {fmt.fingerprint[:19]}", style="dim"
    )


def open_format(checkpoint: str | None, name: str | None) -> ChatFormat:
    """Return the chat format ``name`` for the tokenizer of ``checkpoint``: by default the chat model's.

    Raises:
        InputError: there is no such tokenizer or format.
    """
    from picollm.tokenizer import Tokenizer

    place = paths.PICO_BASE if checkpoint == "pico-base" else Path(checkpoint or paths.chat_checkpoint())
    if checkpoint is None and not place.is_dir():
        place = paths.PICO_BASE
    tokenizer = Tokenizer.load(place)
    name = name or "picollm"
    return ChatFormat.named(name, tokenizer.with_special_tokens(ChatFormat.required_tokens(name)))
