"""``picollm COMMAND``: a table of commands, each a typed function whose signature is its flags."""

from __future__ import annotations

import importlib
import os
import sys

from picollm.errors import PicoError, nearest
from picollm.paths import let_waiting_threads_sleep

# command -> (module, function, what it does); in the order of the story
COMMANDS: dict[str, tuple[str, str, str]] = {
    "tokenizer": ("picollm.cli.train", "tokenizer", "train a tokenizer with the chat control tokens"),
    "pretrain": ("picollm.cli.train", "pretrain", "train a base model from scratch"),
    "sft": ("picollm.cli.train", "sft", "fine-tune a base checkpoint on a mixture of conversations"),
    "eval": ("picollm.cli.evaluate", "evaluate", "score a checkpoint on tasks"),
    "compare": ("picollm.cli.evaluate", "compare", "base versus SFT on the same prompts, as a report"),
    "chat": ("picollm.cli.chat", "chat", "talk to a checkpoint in the terminal"),
    "serve": ("picollm.cli.serve", "serve", "an OpenAI-compatible API and a chat page"),
    "show": ("picollm.cli.show", "show", "a conversation as the model sees it: tokens and loss mask"),
    "check": ("picollm.cli.check", "check", "what would damage training in conversations, and what is twice"),
    "export": ("picollm.cli.export", "export", "a checkpoint as GGUF for llama.cpp, or for Ollama"),
    "certify": ("picollm.cli.export", "certify", "does every runtime read a checkpoint's chat format alike?"),
    "push": ("picollm.cli.export", "push", "upload a checkpoint to the Hugging Face Hub, with a model card"),
    "identity": (
        "picollm.cli.identity",
        "ACTIONS",
        "verify, build, scan or start an identity; test a model's",
    ),
    "mixture": ("picollm.cli.mixture", "ACTIONS", "what SFT is made of, by rows and by supervised tokens"),
    "verify": ("picollm.cli.verify", "verify", "is a checkpoint whole, and are the data what it saw?"),
}


def usage() -> str:
    """Return the help text of ``picollm`` itself; fits one screen."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {text}" for name, (_, _, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: picollm COMMAND [OPTIONS]        picollm COMMAND --help for its options",
            "",
            "Turn a base language model into a chat assistant, served in the format it was trained in.",
            "",
            *lines,
            "",
            "Start with `bash speedrun.sh`, then `picollm chat`.",
        ]
    )


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code; every PicoError becomes one line on stderr."""
    try:
        code = _main(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # a closed `| head` is not an error
        return 0
    return code


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from picollm import __version__

        print(f"picollm {__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        print(f"picollm: no command {name!r}; {nearest(name, COMMANDS)}", file=sys.stderr)
        return 2
    return _run(name, rest)


def _run(name: str, arguments: list[str]) -> int:
    if name not in ("chat", "serve"):  # one text at a time is a tenth faster with threads that spin
        let_waiting_threads_sleep()
    module, function, _ = COMMANDS[name]
    try:
        from picollm.cli.arguments import parse
        from picollm.cli.help import command_help

        command, title = getattr(importlib.import_module(module), function), name
        if isinstance(command, dict) and arguments and arguments[0] in command:
            command, title, arguments = command[arguments[0]], f"{name} {arguments[0]}", arguments[1:]
        if {"-h", "--help"} & {*arguments}:
            print(command_help(title, command))
            return 0
        return int(parse(title, command, arguments)() or 0)
    except PicoError as error:
        if not error.told:
            print(f"picollm: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("picollm"):
            raise
        print(
            f"picollm: the package {error.name} is missing. Run `bash scripts/install`, "
            "or install picollm again with pip.",
            file=sys.stderr,
        )
        return 3
    except KeyboardInterrupt:
        print("\npicollm: interrupted; nothing is half-written. The same command continues.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
