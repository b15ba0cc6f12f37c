"""The chat format: the one place where a conversation becomes tokens, and where prompts are built.

A rendered conversation is its texts with fixed *borders* between them, one for each pair of neighbors (a
user's text followed by an assistant's, an assistant's words followed by a calculator call, ...)::

    <|bos|><|user_start|> What is 2+3? <|user_end|><|assistant_start|> Five. <|assistant_end|>
    `----- border -----'  ` content '  `---------- border -----------' ` content ' `- border -'
           0  0               0  0            0          0                1  1           1        loss_mask

Borders are tokenized once, when a format is built for a tokenizer. Text that touches text - ChatML's header
``user\n`` and the content behind it - is tokenized together, exactly as a template's output would be, and the
loss mask follows the characters. Text from a message can never become a special token.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from picollm.chat.conversation import Conversation, Message, Part, PartType
from picollm.chat.decode import ReplyGrammar, TurnDecoder
from picollm.chat.format_borders import (
    END,
    OUTPUT,
    PROMPT,
    PYTHON,
    START,
    SUPERVISED,
    TEXT,
    Piece,
    border_pieces,
    kind_of,
    tool_frame,
)  # fmt: skip
from picollm.chat.format_jinja import jinja_template
from picollm.chat.format_parse import Parser
from picollm.chat.format_specification import SPECIFICATIONS, Specification
from picollm.errors import ConversationError, InputError
from picollm.tokenizer import Tokenizer

VERSION = 1
"""Raised when the renderer itself changes which token or mask bit comes out."""

MASK_RULE = "assistant words, calculator calls with their markers, and the end of the turn are supervised"


class Rendered(NamedTuple):
    """A conversation as tokens: ``loss_mask[t]`` is 1 when token ``t`` is supervised, else 0."""

    ids: list[int]
    loss_mask: list[int]


@dataclass(frozen=True)
class Border:
    """What stands between two contents. ``ids`` runs from the first to the last special token in it.

    ``head`` is text that touches the content before, ``tail`` text that touches the content behind. Without a
    special token ``ids`` is empty and everything is ``head``: then both contents are one run of text.
    """

    head: tuple[Piece, ...]
    ids: tuple[int, ...]
    loss_mask: tuple[int, ...]
    tail: tuple[Piece, ...]


class ChatFormat:
    """A chat grammar bound to a tokenizer; immutable, and safe to use from several threads."""

    def __init__(self, name: str, specification: Specification, tokenizer: Tokenizer) -> None:
        """Bind ``specification`` to ``tokenizer``. Raises InputError when a special token is missing."""
        missing = [token for token in specification.tokens if token not in tokenizer.special_tokens]
        if missing:
            raise InputError(
                f"the tokenizer lacks {', '.join(missing)} of the chat format {name!r}; add them with "
                f"tokenizer.with_special_tokens(ChatFormat.required_tokens({name!r})) before training"
            )
        self.name = name
        self.specification = specification
        self.tokenizer = tokenizer
        special = specification
        self.end_id: int = tokenizer.special_id(special.end)
        self.stop_ids = frozenset({self.end_id, *map(tokenizer.special_id, special.also_ends)})
        self.pad_id = None if special.pad is None else tokenizer.special_id(special.pad)
        self.bos_id = None if special.bos is None else tokenizer.special_id(special.bos)
        self.control_ids = frozenset(tokenizer.special_tokens.values())
        """The tokens that no text can hold."""
        self._borders: dict[tuple[int, int, int, int], Border] = {}

    @classmethod
    def named(cls, name: str, tokenizer: Tokenizer) -> ChatFormat:
        """Return the format ``name`` for ``tokenizer``.

        Raises:
            InputError: no format has this name, or the tokenizer lacks one of its special tokens.
        """
        return cls(name, _specification(name), tokenizer)

    @staticmethod
    def required_tokens(name: str) -> tuple[str, ...]:
        """Return the special tokens a tokenizer must have for the format ``name``."""
        return _specification(name).tokens

    @property
    def has_tools(self) -> bool:
        """Whether the grammar has a place for calculator calls and their answers."""
        return self.specification.python is not None

    # -- rendering -------------------------------------------------------------------------------------

    def render_conversation(self, conversation: Conversation) -> Rendered:
        """Return the tokens of the whole conversation and which of them are supervised; nothing is cut.

        Raises:
            ConversationError: it calls the calculator and the format has no place for that.
        """
        return self._render(conversation, END)

    def render_for_completion(self, conversation: Conversation) -> list[int]:
        """Return the ids of a prompt: the conversation up to where the assistant starts to speak.

        Raises:
            ConversationError: the conversation does not end with a user message.
        """
        last = conversation.messages[-1].role
        if last != "user":
            raise ConversationError(
                f"the last message is from the {last}; expected the user, so that the assistant can answer"
            )
        return self._render(conversation, PROMPT).ids

    def render_batch(self, conversations: Iterable[Conversation]) -> list[Rendered]:
        """Return ``[self.render_conversation(c) for c in conversations]``."""
        return [self._render(conversation, END) for conversation in conversations]

    def render_document(self, text: str) -> Rendered:
        """Return a pretraining document: bos, not supervised, and the tokens of ``text``, supervised."""
        ids = self.tokenizer.encode(text)
        start = [] if self.bos_id is None else [self.bos_id]
        return Rendered(start + ids, [0] * len(start) + [1] * len(ids))

    def render_completion_prompt(self, text: str) -> list[int]:
        """Return the prompt of a base model, which continues ``text``: bos and the tokens of ``text``."""
        return self.render_document(text).ids

    def render_tool_output(self, text: str) -> list[int]:
        """Return the ids that a tool's answer adds to a reply, markers included.

        Raises:
            ConversationError: the format has no place for it.
        """
        frame = tool_frame(self.specification, OUTPUT)
        before, after = (self._compile([Piece(edge, 0)]).ids for edge in (frame.opens, frame.closes))
        return [*before, *self.tokenizer.encode(text), *after]

    def _render(self, conversation: Conversation, last: int) -> Rendered:
        ids: list[int] = []
        mask: list[int] = []
        run: list[Piece] = []  # the text since the last special token
        kind, weight = START, 1
        for message in conversation.messages:
            next_weight = message.weight
            for part in message.parts:
                next_kind = kind_of(message, part)
                run = self._cross(self._border(kind, weight, next_kind, next_weight), run, ids, mask)
                kind, weight = next_kind, next_weight
                run.append(Piece(self._stripped(part, message.role), weight if kind in SUPERVISED else 0))
        run = self._cross(self._border(kind, weight, last, 1), run, ids, mask)
        self._close(run, ids, mask)
        return Rendered(ids, mask)

    def _stripped(self, part: Part, role: str) -> str:
        return part.text.strip() if role in self.specification.strip else part.text

    def _cross(self, border: Border, run: list[Piece], ids: list[int], mask: list[int]) -> list[Piece]:
        """Append ``border`` and the text before it to ``ids`` and ``mask``; return the run behind it."""
        run.extend(border.head)
        if not border.ids:
            return run
        self._close(run, ids, mask)
        ids.extend(border.ids)
        mask.extend(border.loss_mask)
        return list(border.tail)

    def _close(self, run: list[Piece], ids: list[int], mask: list[int]) -> None:
        """Append the tokens of a finished run of text."""
        if not run:
            return
        if len(run) == 1:
            new = self.tokenizer.encode(run[0].text)
            ids.extend(new)
            mask.extend([run[0].bit] * len(new))
            return
        text = "".join(piece.text for piece in run)
        bits = {piece.bit for piece in run if piece.text}
        new = self.tokenizer.encode(text)
        ids.extend(new)
        mask.extend([bits.pop()] * len(new) if len(bits) == 1 else self._mask_of_run(run, text, new))

    def _mask_of_run(self, run: Sequence[Piece], text: str, ids: Sequence[int]) -> list[int]:
        """Return the mask of a run that is supervised in part: every token that touches such a character."""
        bits = "".join(str(piece.bit) * len(piece.text) for piece in run)
        given = bits.index("1")
        if "0" not in bits[given:]:  # the usual case: a header, then what the assistant says
            given = self.tokenizer.count_within(ids, text, given)
            return [0] * given + [1] * (len(ids) - given)
        return [int("1" in bits[start:end]) for start, end in self.tokenizer.encode_with_offsets(text)[1]]

    # -- borders ---------------------------------------------------------------------------------------

    def _border(self, kind: int, weight: int, next_kind: int, next_weight: int) -> Border:
        key = (kind, weight, next_kind, next_weight)
        border = self._borders.get(key)
        if border is None:
            closing, opening = border_pieces(self.specification, kind, next_kind)
            pieces = [Piece(text, bit and weight) for text, bit in closing]
            pieces += [Piece(text, bit and next_weight) for text, bit in opening]
            border = self._borders[key] = self._compile(pieces)
        return border

    def _compile(self, pieces: Iterable[Piece]) -> Border:
        """Return the border that ``pieces`` spell."""
        runs: list[list[Piece]] = [[]]
        specials: list[tuple[int, int]] = []
        for piece in pieces:
            for item in self.tokenizer.split_at_added_tokens(piece.text):
                if isinstance(item, int):
                    specials.append((item, piece.bit))
                    runs.append([])
                else:
                    runs[-1].append(Piece(item, piece.bit))
        ids: list[int] = []
        mask: list[int] = []
        for run, (token_id, bit) in zip(runs[:-1], specials, strict=True):
            if ids:
                self._close(run, ids, mask)
            ids.append(token_id)
            mask.append(bit)
        return Border(tuple(runs[0]), tuple(ids), tuple(mask), tuple(runs[-1]) if specials else ())

    # -- the contract ----------------------------------------------------------------------------------

    @cached_property
    def chat_template(self) -> str:
        """The grammar as a Jinja template for transformers, ``{% generation %}`` around what is learned."""
        return jinja_template(self.specification, generation=True)

    @cached_property
    def plain_chat_template(self) -> str:
        """``chat_template`` without ``{% generation %}``, for runtimes that do not know the tag."""
        return jinja_template(self.specification, generation=False)

    @cached_property
    def fingerprint(self) -> str:
        """``sha256:`` and a hash over everything that decides a token or a mask bit."""
        return str(self.to_record()["fingerprint"])

    def to_record(self) -> dict[str, Any]:
        """Return what a checkpoint stores of the format: enough to rebuild it and to name a change."""
        decided = {
            "name": self.name,
            "version": VERSION,
            "mask_rule": MASK_RULE,
            "specification": self.specification.to_dict(),
            "special_ids": {token: self.tokenizer.special_id(token) for token in self.specification.tokens},
            "tokenizer_sha256": self.tokenizer.sha256,
            "chat_template_sha256": hashlib.sha256(self.chat_template.encode("utf-8")).hexdigest(),
            "golden": [
                list(map(list, self.render_conversation(c))) for c in golden_conversations(self.has_tools)
            ],
        }
        canonical = json.dumps(decided, sort_keys=True, ensure_ascii=True).encode("ascii")
        return {**decided, "fingerprint": "sha256:" + hashlib.sha256(canonical).hexdigest()}

    # -- back ------------------------------------------------------------------------------------------

    def parse(self, ids: Sequence[int], loss_mask: Sequence[int] | None = None) -> Conversation:
        """Return the conversation that renders to ``ids``; with ``loss_mask``, its turns' weights too.

        Raises:
            ConversationError: ``ids`` is no rendered conversation; the text names the token.
        """
        return self._parser.parse(ids, loss_mask)

    @cached_property
    def _parser(self) -> Parser:
        return Parser(self)

    def turn_decoder(self) -> TurnDecoder:
        """Return a decoder for one reply of the assistant, token by token."""
        return TurnDecoder(self.tokenizer, self._reply_grammar)

    @cached_property
    def _reply_grammar(self) -> ReplyGrammar:
        """What the inside of a reply looks like, found by looking at the borders around its parts."""
        steps: dict[tuple[PartType, int], PartType] = {}
        output_id = None
        if self.has_tools:
            (call_id,) = self._border(TEXT, 1, PYTHON, 1).ids
            (called_id,) = self._border(PYTHON, 1, TEXT, 1).ids
            (output_id, answered_id) = self.render_tool_output("")
            steps = {
                ("text", call_id): "python",
                ("python", called_id): "text",
                ("python_output", answered_id): "text",
            }
        head = self._border(TEXT, 1, END, 1).head
        return ReplyGrammar(
            control_ids=self.control_ids,
            stop_ids=self.stop_ids,
            steps=steps,
            output_id=output_id,
            says=self.specification.assistant.says,
            tail="".join(piece.text for piece in head),
            foreign=(),
        )


def _specification(name: str) -> Specification:
    if name not in SPECIFICATIONS:
        raise InputError(f"no chat format is called {name!r}; expected one of {', '.join(SPECIFICATIONS)}")
    return SPECIFICATIONS[name]


def golden_conversations(tools: bool) -> list[Conversation]:
    """Return a few conversations that touch every border; their tokens are part of the fingerprint."""
    calls = [Part("text", "2+2 "), Part("python", "2+2"), Part("python_output", "4"), Part("text", " is 4.")]
    answer = Message("assistant", calls if tools else "2+2 is 4.")
    return [
        Conversation([Message("user", "Hi"), Message("assistant", "Hello.")]),
        Conversation([Message("system", " Be brief.\n"), Message("user", "2+2?"), answer]),
        Conversation(
            [Message("user", "Na\u00efve \n\n"), Message("assistant", "\nA", 0), Message("user", "B"), answer]
        ),
    ]
