"""``picollm chat``: talk to a checkpoint in the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from picollm import paths
from picollm.chat.conversation import Conversation, Message
from picollm.cli.console import console
from picollm.errors import CheckpointError, InputError, PicoError
from picollm.infer.params import SamplingParams

if TYPE_CHECKING:
    from picollm.infer.engine import Engine

HELP = """\
/system TEXT   set the system message (without TEXT: none) and start over
/reset         start over          /undo   take the last exchange back
/regen         another reply       /tokens what the model sees, token by token
/save FILE     keep the conversation          /load FILE   go on with one
/help          this list           /quit   leave (or Ctrl-D); Ctrl-C stops a reply
A line that ends in \\ goes on in the next one."""


def chat(
    checkpoint: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(help="default: runs/sft")] = None,
    prompt: Annotated[
        str | None, tyro.conf.arg(aliases=["-p"], help="answer this one message and end")
    ] = None,
    system: Annotated[str | None, tyro.conf.arg(help="system message")] = None,
    temperature: Annotated[float, tyro.conf.arg(help="0 always takes the likeliest token")] = 0.0,
    top_p: float = 1.0,
    max_tokens: Annotated[int, tyro.conf.arg(help="longest reply, in tokens")] = 256,
    seed: int | None = None,
) -> None:
    """Talk to a chat model; with --prompt or piped text it answers once, on stdout."""
    params = SamplingParams(max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.read().removesuffix("\n")
        if not prompt.strip():
            raise InputError("nothing came on standard input; expected a message, or pass --prompt TEXT.")
    talk = Talk(_engine(checkpoint), params, system)
    if prompt is not None:
        talk.say(prompt)
        return
    _interactive(talk, checkpoint or str(paths.chat_checkpoint()))


def _engine(name: str | None) -> Engine:
    from picollm.recipes.compare import locate

    place = locate(name) if name else paths.chat_checkpoint()
    if name is None and not paths.chat_checkpoint().is_dir():
        raise CheckpointError(
            f"no chat model at {place} yet. Run `bash speedrun.sh` first, or name one: picollm chat DIR."
        )
    from picollm.checkpoint import Checkpoint
    from picollm.infer.engine import Engine

    engine = Engine(Checkpoint.load(place), num_slots=1)
    _ = engine.format  # a base model cannot chat: say so before the first message
    return engine


@dataclass
class Talk:
    """One conversation with the engine, and what can be done with it."""

    engine: Engine
    params: SamplingParams
    system: str | None = None
    messages: list[Message] = field(default_factory=list)

    def conversation(self) -> Conversation:
        """Return the conversation so far, the system message first."""
        system = [Message("system", self.system)] if self.system else []
        return Conversation([*system, *self.messages])

    def say(self, text: str) -> None:
        """Add what the user says, and stream the reply to stdout. Ctrl-C ends the reply, which is kept."""
        from picollm.chat.decode import TextDelta, ToolCall

        self.messages.append(Message("user", text))
        try:
            request = self.engine.submit(self.engine.new_request(self.conversation(), self.params))
        except PicoError:
            self.messages.pop()
            raise
        try:
            while request.finish_reason is None:
                self.engine.step()
                for event in request.take_events():
                    if isinstance(event, TextDelta):
                        print(event.text, end="", flush=True)
                    elif isinstance(event, ToolCall):
                        console.print(f"[calculator: {event.expression}]", style="dim", end="", markup=False)
        except KeyboardInterrupt:
            self.engine.cancel(request)
        print(flush=True)
        reply = request.reply()
        if reply.finish_reason != "stop":
            console.print(f"({reply.finish_reason})", style="dim")
        self.messages.append(reply.message)

    def regenerate(self) -> None:
        """Answer the last user message again."""
        if len(self.messages) < 2:
            raise InputError("there is no reply yet to make again.")
        self.messages.pop()
        self.say(self.messages.pop().text)

    def save(self, path: Path) -> None:
        """Write the conversation as JSON in the canonical schema."""
        with paths.atomic_file(path) as temporary:
            text = json.dumps(self.conversation().to_dict(), ensure_ascii=False, indent=1)
            temporary.write_text(text, encoding="utf-8")

    def load(self, path: Path) -> None:
        """Go on with a saved conversation."""
        try:
            found = Conversation.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise InputError(f"cannot load {path}: {error}") from error
        messages = list(found.messages)
        self.system = messages.pop(0).text if messages[0].role == "system" else None
        self.messages = messages


def _interactive(talk: Talk, name: str) -> None:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.history import FileHistory

    paths.home().mkdir(parents=True, exist_ok=True)
    words = sorted({word for word in HELP.split() if word.startswith("/")})
    session: PromptSession[str] = PromptSession(
        history=FileHistory(str(paths.home() / "chat_history")),
        completer=WordCompleter(words, sentence=True),
        complete_while_typing=False,
    )
    console.print(
        f"{name}, format {talk.engine.format.name}. /help lists the commands.", style="dim", markup=False
    )
    while True:
        try:
            line = _read(session)
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        try:
            if line.strip() == "/quit":
                return
            if line.startswith("/"):
                _command(talk, line)
            elif line.strip():
                talk.say(line)
        except PicoError as error:
            console.print(f"picollm: {error}", style="red", markup=False)


def _read(session: object) -> str:
    """Return one message; a line that ends in a backslash goes on in the next."""
    line: str = session.prompt("> ")  # type: ignore[attr-defined]
    while line.endswith("\\"):
        line = line[:-1] + "\n" + session.prompt("  ")  # type: ignore[attr-defined]
    return line


def _command(talk: Talk, line: str) -> None:
    name, _, rest = line.strip().partition(" ")
    rest = rest.strip()

    def reset() -> None:
        talk.messages.clear()

    def set_system() -> None:
        talk.system = rest or None
        reset()

    def undo() -> None:
        del talk.messages[-2:]

    def tokens() -> None:
        from picollm.chat.inspect import Inspection
        from picollm.cli.show import print_tokens

        if talk.messages:
            print_tokens(Inspection.of(talk.engine.format, talk.conversation()))

    commands: dict[str, Callable[[], None]] = {
        "/help": lambda: console.print(HELP, markup=False),
        "/system": set_system,
        "/reset": reset,
        "/undo": undo,
        "/regen": talk.regenerate,
        "/tokens": tokens,
        "/save": lambda: talk.save(_named(rest, "/save")),
        "/load": lambda: talk.load(_named(rest, "/load")),
    }
    if name not in commands:
        raise InputError(f"no command {name}; /help lists them.")
    commands[name]()


def _named(text: str, command: str) -> Path:
    if not text:
        raise InputError(f"{command} needs a file: {command} talk.json")
    return Path(text).expanduser()
