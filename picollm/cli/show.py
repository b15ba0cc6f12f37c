"""``picollm show``: a conversation as the model sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from picollm import paths
from picollm.chat.adapters import LAYOUTS, conversation_from_row, recognize
from picollm.chat.format import ChatFormat
from picollm.chat.inspect import Inspection, to_html
from picollm.cli.console import console, print_json
from picollm.data.rows import load_rows
from picollm.errors import ConversationError, DataError, InputError


def show(
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(help="JSON, JSON lines, parquet, also .gz")],
    index: Annotated[int, tyro.conf.arg(help="which conversation of the file, from 0")] = 0,
    format: Annotated[str | None, tyro.conf.arg(help="chat format; default: picollm")] = None,
    layout: Annotated[str | None, tyro.conf.arg(help="how rows are written; default: recognized")] = None,
    checkpoint: Annotated[
        str | None, tyro.conf.arg(help="whose tokenizer; default: runs/sft or the base")
    ] = None,
    ids: Annotated[bool, tyro.conf.arg(help="show the id behind every token")] = False,
    html: Annotated[Path | None, tyro.conf.arg(help="write one self-contained page")] = None,
    json: Annotated[bool, tyro.conf.arg(help="print ids, loss mask, tokens and fingerprint as JSON")] = False,
) -> None:
    """Show a conversation token by token: green is what the loss sees, everything else is given."""
    rows = load_rows(file)
    if not 0 <= index < len(rows):
        raise InputError(f"{file} has {len(rows)} conversations, counted from 0; there is no number {index}.")
    try:
        layout = layout or recognize(rows[index])
        conversation = conversation_from_row(rows[index], layout)
    except ConversationError as error:
        raise DataError(f"{rows.where(index)}: {error}") from error
    console.print(
        f"{rows.where(index)}, read as {layout}: {LAYOUTS[layout].looks}", style="dim", markup=False
    )
    inspection = Inspection.of(open_format(checkpoint, format), conversation)
    if html is not None:
        with paths.atomic_file(html) as temporary:
            temporary.write_text(
                to_html([inspection], f"{file.name}, conversation {index}"), encoding="utf-8"
            )
        console.print(f"page -> {html}", markup=False)
    if json:
        print_json(inspection.to_dict())
    elif html is None:
        print_tokens(inspection, show_ids=ids)


def print_tokens(inspection: Inspection, *, show_ids: bool = False) -> None:
    """Show the tokens in color on stderr, with a line of counts."""
    console.print(inspection.to_text(show_ids))
    counts = f"{len(inspection.tokens)} tokens, {inspection.num_supervised} supervised"
    line = f"{counts}; {inspection.format} {inspection.fingerprint[:19]}"
    console.print(line, style="dim", markup=False)


def open_format(checkpoint: str | None, name: str | None) -> ChatFormat:
    """Return the chat format ``name`` for the tokenizer of ``checkpoint``, by default the newest one.

    Raises:
        InputError: there is no such tokenizer or format.
    """
    from picollm.recipes.compare import locate
    from picollm.tokenizer import Tokenizer

    place = locate(checkpoint) if checkpoint else paths.chat_checkpoint()
    if checkpoint is None and not Path(place).is_dir():
        place = paths.PICO_BASE
    tokenizer = Tokenizer.load(place)
    name = name or "picollm"
    return ChatFormat.named(name, tokenizer.with_special_tokens(ChatFormat.required_tokens(name)))
