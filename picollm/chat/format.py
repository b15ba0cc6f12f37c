r"""The chat format: the one place where a conversation becomes tokens, and where prompts are built.

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

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from picollm.chat.conversation import Conversation, Message
from picollm.chat.decode import ReplyGrammar, TurnDecoder
from picollm.chat.format_borders import (
    END,
    GIVEN,
    OUTPUT,
    PROMPT,
    START,
    Border,
    neighbors,
    spelled_text,
    stripped_neighbors,
    tool_frame,
)
from picollm.chat.format_derive import derive
from picollm.chat.format_jinja import jinja_template
from picollm.chat.format_parse import Parser, reply_grammar
from picollm.chat.format_record import format_record
from picollm.chat.format_specification import Specification, named_specification
from picollm.chat.format_template import special_names
from picollm.chat.format_verify import verify
from picollm.errors import ConversationError, InputError
from picollm.tokenizer import Tokenizer

DERIVED = "jinja"
"""The name of every format derived from a template; its record holds the specification."""


class Rendered(NamedTuple):
    """A conversation as tokens: ``loss_mask[t]`` is 1 when token ``t`` is supervised, else 0."""

    ids: list[int]
    loss_mask: list[int]


class ChatFormat:
    """A chat grammar bound to a tokenizer; immutable, and safe to use from several threads."""

    def __init__(self, name: str, specification: Specification, tokenizer: Tokenizer) -> None:
        """Bind ``specification`` to ``tokenizer``. Raises InputError when a special token is missing."""
        missing = [token for token in specification.tokens if token not in tokenizer.special_tokens]
        if missing:
            raise InputError(
                f"the tokenizer lacks the tokens {', '.join(missing)} of the chat format {name!r}; "
                f"add them with tokenizer.with_special_tokens({missing}) before training"
            )
        self.name = name
        self.specification = specification
        self.tokenizer = tokenizer
        self.end_id: int = tokenizer.special_id(specification.end)
        self.stop_ids = frozenset({self.end_id, *map(tokenizer.special_id, specification.also_ends)})
        self.pad_id = None if specification.pad is None else tokenizer.special_id(specification.pad)
        self.bos_id = None if specification.bos is None else tokenizer.special_id(specification.bos)
        self.control_ids = tokenizer.control_ids
        """The tokens that no text can hold."""
        self._stripped = stripped_neighbors(specification)
        self._borders: dict[tuple[int, int], Border] = {}

    @classmethod
    def named(cls, name: str, tokenizer: Tokenizer) -> ChatFormat:
        """Return the format ``name`` for ``tokenizer``.

        Raises:
            InputError: no format has this name, or the tokenizer lacks one of its special tokens.
        """
        return cls(name, named_specification(name), tokenizer)

    @classmethod
    def from_jinja(
        cls,
        template: str,
        tokenizer: Tokenizer,
        *,
        special_tokens: Mapping[str, str] | None = None,
    ) -> ChatFormat:
        """Return the format of a chat template: derived by probes, verified on random conversations.

        The template runs in a child process under limits, only here. ``special_tokens`` tells what it calls
        ``bos_token``, ``eos_token`` and so on, where the tokenizer leaves a choice.

        Raises:
            InputError: it is no template, or no specification describes it; the text names the property that
                it lacks, for example that it keeps earlier reasoning.
        """
        special = special_names(tokenizer, special_tokens or {})
        format = cls(DERIVED, derive(template, tokenizer, special), tokenizer)
        verify(format, template, special)
        return format

    @classmethod
    def from_record(cls, record: Mapping[str, Any], tokenizer: Tokenizer) -> ChatFormat:
        """Return the format of a checkpoint's record: the installed one of its name, or the derived one.

        Raises:
            InputError: there is none, or the tokenizer lacks one of its special tokens.
        """
        name = record.get("name")
        if name == DERIVED and isinstance(record.get("specification"), dict):
            return cls(DERIVED, Specification.from_dict(record["specification"]), tokenizer)
        return cls.named(str(name), tokenizer)

    @staticmethod
    def required_tokens(name: str) -> tuple[str, ...]:
        """Return the special tokens a tokenizer must have for the format ``name``."""
        return named_specification(name).tokens

    @property
    def has_tools(self) -> bool:
        """Whether the grammar has a place for calculator calls and their answers."""
        return self.specification.python is not None

    # -- to tokens ------------------------------------------------------------------------------------------

    def render_conversation(self, conversation: Conversation) -> Rendered:
        """Return the tokens of the whole conversation and which of them are supervised; nothing is cut.

        Raises:
            ConversationError: it calls the calculator and the format has no place for that.
        """
        return self._render(conversation.messages, END)

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
        return self._render(conversation.messages, PROMPT).ids

    def render_after(
        self, written: Sequence[int], num_messages: int, conversation: Conversation
    ) -> list[int]:
        """Return ``render_for_completion(conversation)``, its first messages in the very ids ``written``.

        A model can spell a reply in other tokens than the tokenizer would, and goes on best from what it
        wrote. ``written`` is the prompt and the reply that message ``num_messages - 1`` came from, through
        the reply's end token.
        """
        ids = self.render_for_completion(conversation)
        # No text can hold an end token, so counting them finds the reply's own.
        num_ends = self._render(conversation.messages[: num_messages - 1], PROMPT).ids.count(self.end_id)
        ends = [index for index, token_id in enumerate(ids) if token_id == self.end_id]
        assert written[-1] == self.end_id
        return [*written, *ids[ends[num_ends] + 1 :]]

    def render_batch(self, conversations: Iterable[Conversation]) -> list[Rendered]:
        """Return ``[self.render_conversation(c) for c in conversations]``."""
        return [self._render(conversation.messages, END) for conversation in conversations]

    def render_text(self, messages: Sequence[Message], *, prompt: bool = False) -> str:
        """Return what the chat template prints for ``messages``; for proofs, since tokens are not text."""
        contents = neighbors(messages, PROMPT if prompt else END, self._stripped)
        return spelled_text(self.specification, contents)

    def turn_ends(self, conversation: Conversation) -> list[int]:
        """Return, for each message, how many tokens of the rendered conversation it and those before it take.

        A token that joins the text of two turns, possible in formats that separate them by text, counts for
        the later one.
        """
        ids = self._render(conversation.messages, END).ids
        ends = []
        for count in range(1, len(conversation.messages)):
            start = self._render(conversation.messages[:count], END).ids
            same = (index for index, (one, other) in enumerate(zip(start, ids, strict=False)) if one != other)
            ends.append(next(same, len(start)))
        return [*ends, len(ids)]

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
        opens, closes = map(self.tokenizer.special_id, (frame.opens, frame.closes))
        return [opens, *self.tokenizer.encode(text), closes]

    def _render(self, messages: Sequence[Message], last: int) -> Rendered:
        # Runs of text between special tokens, of which the first `given` characters are not supervised;
        # crossed[i] stands behind runs[i]. Flat lists, not an object per run: this is the inner loop.
        runs: list[str] = []
        givens: list[int] = []
        crossed: list[Border] = []
        run, given, state = "", 0, START
        borders = self._borders
        for next_state, text in neighbors(messages, last, self._stripped):
            border = borders.get((state, next_state)) or self._new_border(state, next_state)
            state = next_state
            if border.head:
                given = len(run) + border.head_given if border.head_given else given
                run += border.head
            if border.ids:
                runs.append(run)
                givens.append(given)
                crossed.append(border)
                run, given = border.tail, border.tail_given
            run += text
            if state in GIVEN:
                given = len(run)
        runs.append(run)
        givens.append(given)
        ids = self.tokenizer.encode_around(runs, [border.ids for border in crossed])
        return Rendered(ids, self._mask(runs, givens, crossed, ids))

    def _mask(self, runs: list[str], givens: list[int], crossed: list[Border], ids: list[int]) -> list[int]:
        mask: list[int] = []
        start = 0
        for run, given, border in zip(runs, givens, crossed, strict=False):
            end = ids.index(border.ids[0], start)  # no text holds a special token
            if given == 0 or given == len(run):
                mask += [0 if given else 1] * (end - start)
            else:
                mask += self._mask_of_run(run, given, ids[start:end])
            mask += border.loss_mask
            start = end + len(border.ids)
        if start < len(ids):
            mask += self._mask_of_run(runs[-1], givens[-1], ids[start:])
        return mask

    def _mask_of_run(self, text: str, given: int, ids: list[int]) -> list[int]:
        """Return the mask of a run of text: a token that touches a supervised character is supervised."""
        count = len(ids) if given == len(text) else self.tokenizer.count_within(ids, text, given)
        return [0] * count + [1] * (len(ids) - count)

    def _new_border(self, state: int, next_state: int) -> Border:
        border = Border.between(self.specification, self.tokenizer, state, next_state)
        self._borders[state, next_state] = border
        return border

    # -- the contract ---------------------------------------------------------------------------------------

    @cached_property
    def chat_template(self) -> str:
        """The grammar as a Jinja template for transformers, ``{% generation %}`` around what is learned."""
        return jinja_template(self.specification, generation=True)

    @cached_property
    def chat_template_plain(self) -> str:
        """``chat_template`` without ``{% generation %}``, for runtimes that do not know the tag."""
        return jinja_template(self.specification, generation=False)

    @cached_property
    def fingerprint(self) -> str:
        """``sha256:`` and a hash over everything that decides a token or a mask bit."""
        return str(self.to_record()["fingerprint"])

    def to_record(self) -> dict[str, Any]:
        """Return what a checkpoint stores of the format: enough to rebuild it and to name a change."""
        return format_record(self)

    # -- from tokens ----------------------------------------------------------------------------------------

    def parse(self, ids: Sequence[int], loss_mask: Sequence[int] | None = None) -> Conversation:
        """Return the conversation that renders to ``ids``; with ``loss_mask``, its turns' weights too.

        Raises:
            ConversationError: ``ids`` is no rendered conversation; the text names the message.
        """
        return self._parser.parse(ids, loss_mask)

    def turn_decoder(self) -> TurnDecoder:
        """Return a decoder for one reply of the assistant, token by token."""
        return TurnDecoder(self.tokenizer, self._reply_grammar)

    @cached_property
    def _parser(self) -> Parser:
        return Parser(self.specification, self.tokenizer)

    @cached_property
    def _reply_grammar(self) -> ReplyGrammar:
        return reply_grammar(self.specification, self.tokenizer)
