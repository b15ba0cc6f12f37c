"""What this process replied, so that a client that sends only the text back loses nothing.

A reply is more than its text: it may have called the calculator, and it consists of certain tokens, which are
not always those that its text is tokenized to. The API's clients keep text. So a reply is looked up by the
text of the conversation that it ends, and the next prompt goes on from the very ids that were written.
"""

from __future__ import annotations

import hashlib
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from picollm.chat.conversation import Conversation, Message
from picollm.chat.format import ChatFormat
from picollm.errors import ConversationError
from picollm.infer.request import Reply


class Written(NamedTuple):
    """A conversation that ends with a reply, and its ids through the reply's end token, where it has one."""

    messages: tuple[Message, ...]
    ids: array[int]
    num_tokens: int


class ReplyMemory:
    """The last replies, up to ``max_tokens`` tokens with their prompts; the longest unused go first."""

    def __init__(self, format: ChatFormat, max_tokens: int = 4_000_000) -> None:
        self._format = format
        self._max_tokens = max_tokens
        self._num_tokens = 0
        self._lock = threading.Lock()
        self._written: OrderedDict[bytes, Written] = OrderedDict()

    def remember(self, conversation: Conversation, prompt_ids: Sequence[int], reply: Reply) -> None:
        """Keep the reply to ``conversation``, unless it is one that no conversation can hold."""
        try:
            messages = Conversation([*conversation.messages, reply.message]).messages
        except ConversationError:
            return
        # What a limit or a stop string cut off is not what the client was shown: only its parts are kept.
        ended = bool(reply.ids) and reply.ids[-1] == self._format.end_id
        ids = [*prompt_ids, *reply.ids]
        written = Written(messages, array("q", ids if ended else []), len(ids))
        *_, key = _keys(messages)
        with self._lock:
            old = self._written.pop(key, None)
            self._num_tokens += written.num_tokens - (old.num_tokens if old else 0)
            self._written[key] = written
            while self._num_tokens > self._max_tokens:
                self._num_tokens -= self._written.popitem(last=False)[1].num_tokens

    def next_prompt(self, conversation: Conversation) -> tuple[Conversation, list[int]]:
        """Return ``conversation`` with the parts its replies had, and the ids of the prompt it makes.

        Raises:
            ConversationError: it does not end with a user message.
        """
        messages = list(conversation.messages)
        latest: tuple[int, Written] | None = None
        for index, key in enumerate(_keys(conversation.messages)):
            written = self._find(key)
            if written is None:
                continue
            if messages[index].content == written.messages[-1].text:
                messages[index] = written.messages[-1]
            if written.ids and written.messages == tuple(messages[: index + 1]):
                latest = index + 1, written
        restored = Conversation(messages)
        if latest is None:
            return restored, self._format.render_for_completion(restored)
        num_messages, written = latest
        return restored, self._format.render_after(written.ids.tolist(), num_messages, restored)

    def _find(self, key: bytes) -> Written | None:
        with self._lock:
            if key in self._written:
                self._written.move_to_end(key)
            return self._written.get(key)


def _keys(messages: Sequence[Message]) -> Iterator[bytes]:
    """Yield, for each message, a digest of the roles and texts up to it."""
    digest = hashlib.sha256()
    for message in messages:
        text = message.text.encode()
        digest.update(f"{message.role} {len(text)} ".encode() + text)
        yield digest.digest()
