"""What a chat format is, as data: the frames around each kind of text, nothing that a program must decide.

A rendered conversation is the texts of its messages with fixed strings between them. ``Specification`` holds
those strings. They are written as a Jinja template would print them: where a string spells a special token of
the tokenizer, that token is meant; everything else is ordinary text, tokenized together with its neighbors.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from picollm.errors import InputError


@dataclass(frozen=True)
class Frame:
    """The strings around one kind of text: ``opens`` ``says`` text ``closes`` ``after``.

    For the assistant, what it says itself - ``says``, its text, ``closes`` - is supervised; ``opens`` and
    ``after`` are given to it. ``closes`` holds the token that ends its turn.
    """

    opens: str
    closes: str
    says: str = ""
    after: str = ""


@dataclass(frozen=True)
class Specification:
    """One chat grammar; ``merge_system``: a system message stands in the first user turn, before its text."""

    begin: str
    system: Frame
    user: Frame
    assistant: Frame
    end: str
    """The special token in ``assistant.closes``: sampling it ends a reply."""
    python: Frame | None = None
    python_output: Frame | None = None
    merge_system: bool = False
    default_system: str | None = None
    """A system message that stands where a conversation brings none."""
    strip: tuple[str, ...] = ()
    """The roles whose text loses its surrounding white space; () in every format of ours."""
    bos: str | None = None
    pad: str | None = None
    also_ends: tuple[str, ...] = ()
    """Special tokens besides ``end`` that end a reply."""
    tokens: tuple[str, ...] = field(default=())
    """The special tokens that a tokenizer must have."""

    def to_dict(self) -> dict[str, Any]:
        """Return the specification as JSON values."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Specification:
        """Return the specification that ``to_dict`` described. Raises InputError when it is not one."""
        try:
            given = dict(values)
            for name in ("system", "user", "assistant", "python", "python_output"):
                given[name] = None if given[name] is None else Frame(**given[name])
            for name in ("strip", "also_ends", "tokens"):
                given[name] = tuple(given[name])
            return cls(**given)
        except (KeyError, TypeError) as error:
            raise InputError(
                f"not a chat format specification ({error}); expected what to_dict() returns"
            ) from error


def _turn(role: str, frame: str = "<|{}_{}|>", **more: str) -> Frame:
    return Frame(frame.format(role, "start"), frame.format(role, "end"), **more)


def _chatml(role: str) -> Frame:
    return Frame(f"<|im_start|>{role}\n", "<|im_end|>", after="\n")


def _llama3(role: str) -> Frame:
    return Frame(f"<|start_header_id|>{role}<|end_header_id|>\n\n", "<|eot_id|>")


def _gemma(role: str) -> Frame:
    return Frame(f"<start_of_turn>{role}\n", "<end_of_turn>", after="\n")


SPECIFICATIONS: dict[str, Specification] = {
    "picollm": Specification(
        begin="<|bos|>",
        system=_turn("system"),
        user=_turn("user"),
        assistant=_turn("assistant"),
        python=_turn("python"),
        python_output=_turn("output"),
        end="<|assistant_end|>",
        bos="<|bos|>",
        pad="<|pad|>",
        tokens=(
            "<|bos|>",
            *(f"<|{kind}_{edge}|>" for kind in ("system", "user", "assistant") for edge in ("start", "end")),
            *(f"<|{kind}_{edge}|>" for kind in ("python", "output") for edge in ("start", "end")),
            "<|pad|>",
        ),
    ),
}
