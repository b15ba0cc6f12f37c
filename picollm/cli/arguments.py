"""What was typed behind a command becomes a call of its function, or one line that says what is wrong."""

from __future__ import annotations

import difflib
import inspect
import io
import re
import typing
from collections.abc import Collection, Mapping, Sequence
from contextlib import redirect_stderr
from functools import partial, wraps
from typing import Any

import tyro

from picollm.cli.help import Command, unwrapped
from picollm.errors import InputError

_EXPECTED = {int: "a whole number", float: "a number"}


def parse(name: str, command: Command | Mapping[str, Command], arguments: Sequence[str]) -> partial[Any]:
    """Return the call of ``command`` that ``arguments`` ask for.

    Raises:
        InputError: they ask for none; names the argument, and the nearest that exists.
    """
    if isinstance(command, Mapping):
        given = f"has no action {arguments[0]!r}. {_near(arguments[0], command)}" if arguments else ""
        raise InputError(f"`picollm {name}` {given or 'needs an action. '}There is {', '.join(command)}.")
    _refuse_unknown_options(name, command, arguments)
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            call: partial[Any] = tyro.cli(_deferred(command), prog=f"picollm {name}", args=arguments)
    except SystemExit:
        problem = _problem(said.getvalue(), name, command)
        raise InputError(f"{problem} `picollm {name} --help` says more.") from None
    return call


def _deferred(command: Command) -> Command:
    """Return a function of the same signature that does nothing yet."""

    @wraps(command)
    def bind(*args: Any, **options: Any) -> partial[Any]:
        return partial(command, *args, **options)

    return bind


def _refuse_unknown_options(name: str, command: Command, arguments: Sequence[str]) -> None:
    known = [f"--{parameter.replace('_', '-')}" for parameter in inspect.signature(command).parameters]
    for argument in arguments:
        option = argument.split("=")[0].replace("_", "-")
        if option == "--":
            return
        positive = f"--{option.removeprefix('--no-')}"
        if option.startswith("--") and not {option, positive} & {*known}:
            raise InputError(
                f"`picollm {name}` has no option {option}. {_near(option, known)}"
                f"`picollm {name} --help` lists them."
            )


def _near(word: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"Did you mean {near[0]}? " if near else ""


def _problem(box: str, name: str, command: Command) -> str:
    """Return what tyro, which draws a box, complains about as a sentence."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", f"\n{box}\n\n")
    pieces = re.split(r"\n.*(?:╭|──|---).*(?=\n)", plain)  # title, complaint, hints
    complaint = " ".join([*pieces, box][1].replace("│", " ").split()).rstrip(".")
    if found := re.match(r"Error parsing --([\w-]+):.*?'(.*?)'\]?(?:\.| Got|$)", complaint):
        hint = typing.get_type_hints(command, include_extras=True)[found[1].replace("-", "_")]
        return f"--{found[1]} is {found[2]!r}; expected {_EXPECTED.get(unwrapped(hint)[0], 'another value')}."
    if complaint.startswith("Missing from"):
        parameters = inspect.signature(command).parameters.values()
        needed = [p.name.upper() for p in parameters if p.default is inspect.Parameter.empty]
        return f"`picollm {name}` needs {' and '.join(needed)}."
    if found := re.match(r"Missing value for argument '(?:-\w/)?(--[\w-]+)'", complaint):
        return f"{found[1]} needs a value."
    return complaint.replace("Unrecognized options:", f"`picollm {name}` cannot use") + "."
