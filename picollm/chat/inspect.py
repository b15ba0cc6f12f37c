"""A conversation as the model sees it: every token with its bytes, its speaker and its place in the loss.

Nothing here prints. ``to_text`` colors tokens for a terminal, ``to_html`` makes one self-contained page.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from picollm.chat.conversation import Conversation
from picollm.chat.format import ChatFormat

if TYPE_CHECKING:
    from rich.text import Text

_PAGE = Path(__file__).with_name("inspect.html")
_VISIBLE = str.maketrans({"\n": "\u21b5\n", "\r": "\u240d", "\t": "\u21e5\t", "\0": "\u2400"})


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a rendered conversation; ``bit`` is its loss mask, ``message`` the index of its turn.

    ``visible`` is its text with line breaks and tabs made visible. Of the tokens that share one character the
    last shows it, and the others a dot.
    """

    id: int
    bytes: bytes
    text: str
    visible: str
    bit: int
    role: str
    message: int
    special: bool


@dataclass(frozen=True, slots=True)
class Turn:
    """How many tokens one message takes, its markers included, and how many of them are supervised."""

    role: str
    tokens: int
    supervised: int


@dataclass(frozen=True)
class Inspection:
    """A rendered conversation, token by token and turn by turn."""

    format: str
    fingerprint: str
    tokens: tuple[Token, ...]
    turns: tuple[Turn, ...]

    @classmethod
    def of(cls, format: ChatFormat, conversation: Conversation) -> Inspection:
        """Return ``conversation`` as ``format`` renders it."""
        rendered = format.render_conversation(conversation)
        utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        tokens: list[Token] = []
        turns: list[Turn] = []
        for index, end in enumerate(format.turn_ends(conversation)):
            role = conversation.messages[index].role
            start = len(tokens)
            for token_id, bit in zip(rendered.ids[start:end], rendered.loss_mask[start:end], strict=True):
                raw = format.tokenizer.token_bytes(token_id)
                text = raw.decode("utf-8", errors="replace")
                visible = utf8.decode(raw).translate(_VISIBLE) or "\u00b7"
                special = token_id in format.control_ids
                tokens.append(Token(token_id, raw, text, visible, bit, role, index, special))
            turns.append(Turn(role, end - start, sum(rendered.loss_mask[start:end])))
        return cls(format.name, format.fingerprint, tuple(tokens), tuple(turns))

    @property
    def num_supervised(self) -> int:
        """How many tokens are supervised."""
        return sum(token.bit for token in self.tokens)

    def to_dict(self) -> dict[str, Any]:
        """Return what programs want to know, as JSON values."""
        return {
            "ids": [token.id for token in self.tokens],
            "loss_mask": [token.bit for token in self.tokens],
            "tokens": [token.text for token in self.tokens],
            "fingerprint": self.fingerprint,
            "format": self.format,
            "turns": [{"role": t.role, "tokens": t.tokens, "supervised": t.supervised} for t in self.turns],
        }

    def to_text(self, show_ids: bool = False) -> Text:
        """Return the tokens for a terminal: learned ones green, given ones gray, every other one shaded.

        A line above each turn says how many tokens it takes and how many of them are supervised.
        """
        from rich.text import Text

        text = Text()
        for index, token in enumerate(self.tokens):
            if index == 0 or token.message != self.tokens[index - 1].message:
                turn = self.turns[token.message]
                counts = f"{turn.tokens} tokens, {turn.supervised} supervised"
                text.append("\n" * (index > 0) + f"{turn.role}, {counts}\n", "dim")
            text.append(token.visible, _style(token, index))
            if show_ids:
                text.append(f"{token.id}", "dim italic")
        return text


def to_html(inspections: Sequence[Inspection], title: str) -> str:
    """Return one self-contained page that shows ``inspections``, for light and for dark screens.

    Moving over a token, or touching it, shows its id, bytes, role and loss mask bit.
    """
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_PAGE.read_text(encoding="utf-8")).render(
        inspections=inspections, title=title
    )


def _style(token: Token, index: int) -> str:
    shade = index % 2
    if token.bit:
        ground = "black on green" if shade else "black on bright_green"
    else:
        ground = "white on grey23" if shade else "white on grey30"
    return f"bold {ground}" if token.special else ground
