"""What a command says about itself: one line an option, those that matter first, on one screen."""

from __future__ import annotations

import inspect
import textwrap
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tyro

Command = Callable[..., Any]

_NUM_FIRST = 5
_MOST_TOGETHER = 12  # with more options than this, the first ones stand apart
_WIDTH = 100
_METAVARS = {Path: "PATH", str: "TEXT", int: "N", float: "X"}


def command_help(name: str, command: Command | Mapping[str, Command]) -> str:
    """Return the help text of ``picollm NAME``; a mapping is a command with actions of its own."""
    if isinstance(command, Mapping):
        width = max(map(len, command))
        lines = [f"  {action:{width}}  {_first_line(function)}" for action, function in command.items()]
        usage = f"usage: picollm {name} ACTION [OPTIONS]        picollm {name} ACTION --help for its options"
        return "\n".join([usage, "", *lines])
    hints = typing.get_type_hints(command, include_extras=True)
    places, options = [], []
    for parameter in inspect.signature(command).parameters.values():
        kind, settings = unwrapped(hints[parameter.name])
        help_text = next((s.help for s in settings if getattr(s, "help", None)), "")
        if tyro.conf.Positional in settings:
            word = parameter.name.upper() + (" ..." if typing.get_origin(kind) is tuple else "")
            needed = parameter.default is inspect.Parameter.empty
            places.append((word if needed else f"[{word}]", help_text))
        else:
            aliases = [a for s in settings for a in getattr(s, "aliases", None) or ()]
            flags = ", ".join([*aliases, f"--{parameter.name.replace('_', '-')}"])
            options.append((f"{flags} {_metavar(kind)}".rstrip(), help_text + _default(parameter, help_text)))
    width = max(len(left) for left, _ in [*places, *options])
    blocks = [places, options]
    if len(options) > _MOST_TOGETHER:
        blocks = [places, options[:_NUM_FIRST], options[_NUM_FIRST:]]
    words = "".join(f" {word}" for word, _ in places)
    lines = [f"usage: picollm {name}{words} [OPTIONS]", "", _first_line(command)]
    for block in filter(None, blocks):
        lines += ["", *(line for left, right in block for line in _entry(left, right, width))]
    return "\n".join(lines)


def _first_line(command: Command) -> str:
    return (inspect.getdoc(command) or "").split("\n\n")[0].replace("\n", " ")


def unwrapped(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return the type without Optional, and the settings that tyro reads."""
    settings = getattr(hint, "__metadata__", ())
    kind = typing.get_args(hint)[0] if settings else hint
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kind = next(one for one in typing.get_args(kind) if one is not type(None))
    return kind, settings


def _metavar(kind: Any) -> str:
    if kind is bool:
        return ""
    if typing.get_origin(kind) is typing.Literal:
        return "|".join(map(str, typing.get_args(kind)))
    if typing.get_origin(kind) in (tuple, list):
        return f"{_metavar(typing.get_args(kind)[0])} ..."
    return _METAVARS.get(kind, "VALUE")


def _default(parameter: inspect.Parameter, help_text: str) -> str:
    """Return the default where it says something that the help does not."""
    default = parameter.default
    if default in (inspect.Parameter.empty, None, ()) or default is False or "default" in help_text:
        return ""
    return f"{' ' * bool(help_text)}(default {parameter.default})"


def _entry(left: str, right: str, width: int) -> list[str]:
    lines = textwrap.wrap(right, _WIDTH - width - 4) or [""]
    return [f"  {left:{width}}  {lines[0]}".rstrip(), *(f"{'':{width + 4}}{line}" for line in lines[1:])]
