"""An inspection loses no token, and its page shows every one of them."""

from __future__ import annotations

import html
import re
from collections.abc import Callable

import pytest

from picollm.chat.conversation import Conversation, Message
from picollm.chat.format import ChatFormat
from picollm.chat.format_specification import SPECIFICATIONS
from picollm.chat.inspect import Inspection, to_html

TALK = Conversation(
    [Message("system", "S\n"), Message("user", "\u65e5\u672c <b>\t"), Message("assistant", "A\u00e9"),
     Message("user", "B"), Message("assistant", "C", 0)]
)  # fmt: skip


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_tokens_and_turns_are_those_of_the_render(
    name: str, make_format: Callable[[str], ChatFormat]
) -> None:
    fmt = make_format(name)
    inspection = Inspection.of(fmt, TALK)
    ids, mask = fmt.render_conversation(TALK)
    assert [token.id for token in inspection.tokens] == ids and [t.bit for t in inspection.tokens] == mask
    assert b"".join(token.bytes for token in inspection.tokens).decode() == fmt.tokenizer.decode(ids)
    assert [turn.role for turn in inspection.turns] == [message.role for message in TALK.messages]
    assert sum(turn.tokens for turn in inspection.turns) == len(ids)
    assert [bool(turn.supervised) for turn in inspection.turns] == [False, False, True, False, False]
    assert inspection.num_supervised == sum(mask) == sum(turn.supervised for turn in inspection.turns)


def test_the_page_is_one_file_with_every_token(make_format: Callable[[str], ChatFormat]) -> None:
    inspection = Inspection.of(make_format("picollm"), TALK)
    page = to_html([inspection, inspection], "a <title> & more")
    ids = [int(found) for found in re.findall(r'data-id="(\d+)"', page)]
    assert ids == [token.id for token in inspection.tokens] * 2
    assert "<title>a &lt;title&gt; &amp; more</title>" in page and "prefers-color-scheme: dark" in page
    shown = re.findall(r'data-bit="(\d)">(.*?)</i>', page, re.DOTALL)
    assert [html.unescape(text) for _, text in shown[: len(inspection.tokens)]] == [
        token.visible for token in inspection.tokens
    ]
    assert not re.search(r"(src|href)=|https?:", page)


def test_colors_and_ids_for_a_terminal(make_format: Callable[[str], ChatFormat]) -> None:
    inspection = Inspection.of(make_format("picollm"), TALK)
    text = inspection.to_text(show_ids=True)
    assert str(inspection.tokens[0].id) in text.plain and "green" in str(text.spans)
    for turn in inspection.turns:
        assert f"{turn.role}, {turn.tokens} tokens, {turn.supervised} supervised" in text.plain
