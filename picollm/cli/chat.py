"""``picollm chat``: talk to a checkpoint in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from picollm import paths
from picollm.cli.console import console
from picollm.errors import CheckpointError, InputError, PicoError
from picollm.infer.params import SamplingParams

if TYPE_CHECKING:
    from picollm.checkpoint import Checkpoint
    from picollm.cli.talk import Talk
    from picollm.infer.engine import Engine

AllowMismatch = Annotated[
    bool, tyro.conf.arg(help="load it even if its chat format is not the installed one; its record says so")
]
HELP = """\
/system TEXT   set the system message (without TEXT: none) and start over
/reset         start over          /undo   take the last exchange back
/regen         another reply       /base   what the base model says to the same, side by side
/tokens        the conversation as the model sees it, token by token
/save FILE     keep the conversation          /load FILE   go on with one
/help          this list           /quit   leave (or Ctrl-D); Ctrl-C stops a reply
Alt-Enter, or \\ at the end of a line, begins another line of one message."""


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
    base: Annotated[
        str | None, tyro.conf.arg(help="checkpoint for /base; default: what this one came from")
    ] = None,
    allow_format_mismatch: AllowMismatch = False,
) -> int:
    """Talk to a chat model; with --prompt or piped text it answers once, on stdout."""
    params = SamplingParams(max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.read().removesuffix("\n")
        if not prompt.strip():
            raise InputError("nothing came on standard input; expected a message, or pass --prompt TEXT.")
    loaded = open_chat(checkpoint, allow_format_mismatch)

    def base_engine() -> Engine | None:
        from picollm.infer.engine import Engine

        parent = open_base(loaded, base)
        return None if parent is None else Engine(parent, num_slots=1)

    from picollm.cli.talk import Talk
    from picollm.infer.engine import Engine

    talk = Talk(Engine(loaded, num_slots=1), params, system or None, base_engine)
    if prompt is not None:
        return 130 if talk.say(prompt).finish_reason == "cancelled" else 0
    _interactive(talk, checkpoint or str(paths.chat_checkpoint()))
    return 0


def open_chat(name: str | None, allow_format_mismatch: bool = False) -> Checkpoint:
    """Return the checkpoint ``name``, by default the one that the speedrun leaves.

    Raises:
        CheckpointError: there is none, or it cannot chat.
    """
    from picollm.checkpoint import Checkpoint
    from picollm.recipes.compare import locate

    place = locate(name or default_checkpoint())
    loaded = Checkpoint.load(place, allow_format_mismatch=allow_format_mismatch)
    if loaded.format is None:
        raise CheckpointError(f"{place} has no chat format: it is a base model. Fine-tune it: picollm sft.")
    return loaded


def default_checkpoint() -> str:
    """Return where the speedrun leaves its chat model. Raises CheckpointError when it is not there yet."""
    place = paths.chat_checkpoint()
    if not place.is_dir():
        raise CheckpointError(
            f"no chat model at {place} yet. Run `bash speedrun.sh` first, or name a checkpoint's directory."
        )
    return str(place)


def open_base(checkpoint: Checkpoint, name: str | None) -> Checkpoint | None:
    """Return the base checkpoint ``name``, by default the one ``checkpoint`` came from, if it is still there.

    Raises:
        CheckpointError: ``name`` cannot be loaded, or has no chat format in which it could be asked.
    """
    from picollm.checkpoint import Checkpoint
    from picollm.recipes.compare import locate

    parent = checkpoint.record.parent or {}
    place = locate(name or parent.get("name", ""))
    if name is None and not (parent and Path(place).is_dir()):
        return None
    base = Checkpoint.load(place)
    if name is None and (base.format is None or base.weights_sha256 != parent.get("sha256")):
        return None
    if base.format is None:
        raise CheckpointError(f"{place} has no chat format, so it cannot be asked the same. Choose another.")
    return base


def _interactive(talk: Talk, name: str) -> None:
    from picollm.cli.prompt import Prompt

    prompt = Prompt(COMMANDS, lambda: f"{talk.num_tokens} of {talk.engine.context_length} tokens")
    console.print(
        f"{name}, format {talk.engine.format.name}. /help lists the commands.", style="dim", markup=False
    )
    while True:
        try:
            line = prompt.read()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        if line.strip() == "/quit":
            return
        try:
            answer_line(talk, line)
        except PicoError as error:
            console.print(f"picollm: {error}", style="red", markup=False)


def answer_line(talk: Talk, line: str) -> None:
    """Do what a typed line asks for: a command, or a message to be answered.

    Raises:
        PicoError: it cannot be done, and nothing has changed.
    """
    if line.startswith("/"):
        name, _, rest = line.strip().partition(" ")
        if name not in COMMANDS:
            raise InputError(f"no command {name}; /help lists them.")
        COMMANDS[name](talk, rest.strip())
    elif line.strip():
        talk.say(line)


COMMANDS: dict[str, Callable[[Talk, str], object]] = {
    "/help": lambda talk, rest: console.print(HELP, markup=False),
    "/system": lambda talk, rest: talk.restart(rest or None),
    "/reset": lambda talk, rest: talk.restart(talk.system),
    "/undo": lambda talk, rest: talk.undo(),
    "/regen": lambda talk, rest: talk.regenerate(),
    "/tokens": lambda talk, rest: talk.show_tokens(),
    "/base": lambda talk, rest: talk.compare(),
    "/save": lambda talk, rest: talk.save(_named(rest, "/save")),
    "/load": lambda talk, rest: talk.load(_named(rest, "/load")),
    "/quit": lambda talk, rest: None,
}


def _named(text: str, command: str) -> Path:
    if not text:
        raise InputError(f"{command} needs a file: {command} talk.json")
    return Path(text).expanduser()
