"""One conversation in the terminal, and what can be done with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.table import Table
from rich.text import Text

from picollm import paths
from picollm.chat.conversation import Conversation, Message
from picollm.chat.decode import Event, TextDelta, ToolCall
from picollm.chat.inspect import Inspection
from picollm.cli.console import console
from picollm.cli.show import print_tokens
from picollm.errors import ConversationError, InputError
from picollm.infer.engine import Engine
from picollm.infer.params import SamplingParams
from picollm.infer.request import Reply
from picollm.serve.memory import ReplyMemory
from picollm.train.interrupt import Interrupt

_CALL = "[calculator: {}]"


@dataclass
class Talk:
    """A conversation with an engine; replies go to stdout, everything else to stderr."""

    engine: Engine
    params: SamplingParams
    system: str | None = None
    open_base: Callable[[], Engine | None] = lambda: None
    """Loads the base model when it is first asked for; None if there is none."""
    messages: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._memory = ReplyMemory(self.engine.format)
        self._base: Engine | None = None

    def conversation(self, *more: Message) -> Conversation:
        """Return the conversation so far and ``more``, the system message first."""
        system = [Message("system", self.system)] if self.system else []
        return Conversation([*system, *self.messages, *more])

    @property
    def num_tokens(self) -> int:
        """Return how many tokens the conversation takes."""
        return len(self.engine.format.render_conversation(self.conversation()).ids) if self.messages else 0

    def say(self, text: str, params: SamplingParams | None = None) -> Reply:
        """Add what the user says, and stream the reply. Ctrl-C ends the reply; what came of it is kept.

        Raises:
            PicoError: it cannot be answered, say because the context is full; nothing is added then.
        """
        asked = self.conversation(Message("user", text))
        reply = self._answer(self.engine, asked, params or self.params, _show)
        print(flush=True)
        if reply.finish_reason != "stop":
            console.print(f"({reply.finish_reason})", style="dim", markup=False)
        if not reply.parts:
            console.print("(an empty reply: the exchange is taken back)", style="dim", markup=False)
            return reply
        self.messages += [asked.messages[-1], reply.message]
        return reply

    def compare(self) -> None:
        """Show the last reply beside what the base model says to the same conversation.

        Raises:
            InputError: there is no reply yet, or no base model.
        """
        if not self.messages:
            raise InputError("there is no reply yet to compare with.")
        self._base = self._base or self.open_base()
        if self._base is None:
            raise InputError("no base checkpoint is known; name one with --base.")
        *before, last = self.conversation().messages
        with console.status("the base model answers"):
            theirs = self._answer(self._base, Conversation(before), self.params, lambda _: None)
        table = Table(expand=True, show_lines=False)
        for title in ("base", "this model"):
            table.add_column(title, ratio=1, overflow="fold")
        table.add_row(*(_text(m) for m in (theirs.message, last)))
        console.print(table)
        if theirs.finish_reason != "stop":
            console.print(f"(base: {theirs.finish_reason})", style="dim", markup=False)

    def regenerate(self) -> None:
        """Answer the last user message again, by chance: the likeliest reply would be the same one."""
        if not self.messages:
            raise InputError("there is no reply yet to make again.")
        *before, asked, _ = kept = self.messages
        self.messages = before
        other = replace(self.params, temperature=self.params.temperature or 0.8, seed=None)
        try:
            if not self.say(asked.text, other).parts:
                self.messages = kept
        except BaseException:
            self.messages = kept
            raise

    def undo(self) -> None:
        """Take the last exchange back."""
        if not self.messages:
            raise InputError("there is nothing to take back.")
        del self.messages[-2:]

    def restart(self, system: str | None) -> None:
        """Start over under ``system``."""
        self.system = system
        self.messages.clear()

    def show_tokens(self) -> None:
        """Show the conversation as the model sees it, token by token."""
        if not self.messages:
            raise InputError("there is no conversation yet to show.")
        inspection = Inspection.of(self.engine.format, self.conversation())
        print_tokens(inspection)
        probe = self.conversation(Message("user", "."))
        canonical = self.engine.format.render_for_completion(probe)
        if self._memory.next_prompt(probe)[1] != canonical:
            console.print(
                "some reply was written in other tokens than these; the model goes on from its own.",
                style="dim",
                markup=False,
            )

    def save(self, path: Path) -> None:
        """Write the conversation as JSON in the canonical schema."""
        if not self.messages:
            raise InputError("there is no conversation yet to save.")
        with paths.atomic_file(path) as temporary:
            text = json.dumps(self.conversation().to_dict(), ensure_ascii=False, indent=1)
            temporary.write_text(text, encoding="utf-8")
        console.print(f"saved {path}", style="dim", markup=False)

    def load(self, path: Path) -> None:
        """Go on with a saved conversation. Raises InputError, and changes nothing, if it cannot be."""
        try:
            messages = list(Conversation.from_dict(json.loads(path.read_text(encoding="utf-8"))).messages)
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"cannot load {path}: {error}") from error
        if messages[-1].role != "assistant":
            raise ConversationError(f"cannot load {path}: its last message is not the assistant's.")
        self.system = messages.pop(0).text if messages[0].role == "system" else None
        self.messages = messages
        for message in messages:
            console.print(f"{'> ' if message.role == 'user' else ''}{message.text}", markup=False)

    def _answer(
        self,
        engine: Engine,
        asked: Conversation,
        params: SamplingParams,
        show: Callable[[list[Event]], None],
    ) -> Reply:
        """Return the reply to ``asked``, shown as it is written; Ctrl-C ends it between two steps."""
        ids = self._memory.next_prompt(asked)[1] if engine is self.engine else None
        request = engine.submit(engine.new_request(asked, params, ids))
        with Interrupt() as interrupt:
            while request.finish_reason is None and not interrupt.asked:
                engine.step()
                show(request.take_events())
        engine.cancel(request)
        show(request.take_events())
        reply = request.reply()
        if engine is self.engine:
            self._memory.remember(asked, request.prompt_ids, reply)
        return reply


def _text(message: Message) -> Text:
    """Return a message as ``_show`` shows it, with its calls and without their results, which it repeats."""
    text = Text()
    for part in message.parts:
        if part.type == "text":
            text.append(part.text)
        elif part.type == "python":
            text.append(_CALL.format(part.text), style="dim")
    return text


def _show(events: list[Event]) -> None:
    for event in events:
        if isinstance(event, TextDelta):
            print(event.text, end="", flush=True)
        elif isinstance(event, ToolCall):
            console.print(_CALL.format(event.expression), style="dim", end="", markup=False)
