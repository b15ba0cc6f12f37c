"""A foreign chat template as a function from conversations to text, without trusting it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import markupsafe

from picollm.chat.conversation import Message
from picollm.errors import InputError
from picollm.tokenizer import Tokenizer
from picollm.tools.sandbox import Limits, run_python

_CHILD = Path(__file__).with_name("format_child.py")
_LIBRARIES = sorted({str(Path(str(module.__file__)).parents[1]) for module in (jinja2, markupsafe)})
_LIMITS = Limits(seconds=5, memory_mib=512, file_kib=32 << 10, kept_kib=32 << 10)

NOW, LATER = "2024-02-29T11:59:00", "2031-12-05T23:01:02"
"""Two moments that no format of a date writes alike."""

# Which tokens are likely to be meant by the names that templates use.
USUAL_NAMES = {
    "bos_token": ("<s>", "<bos>", "<|bos|>", "<|begin_of_text|>", "<|startoftext|>", "[BOS]",
                  "<\uff5cbegin\u2581of\u2581sentence\uff5c>"),
    "eos_token": ("</s>", "<eos>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>", "[EOS]",
                  "<\uff5cend\u2581of\u2581sentence\uff5c>"),
    "pad_token": ("<pad>", "<|pad|>", "[PAD]", "<|endoftext|>", "<|end_of_text|>", "<unk>"),
    "unk_token": ("<unk>", "[UNK]"),
}  # fmt: skip


class Refused(InputError):
    """A template that no specification describes; ``property`` names what it lacks."""

    def __init__(self, property: str, found: str) -> None:
        super().__init__(
            f"this chat template is not of the kind that is understood. It does not {property}: {found}"
        )
        self.property = property


class Probe(NamedTuple):
    """What a template is asked to render; ``prompt``: up to where the assistant starts to speak."""

    messages: Sequence[Message]
    prompt: bool = False
    now: str = NOW


class Rendering(NamedTuple):
    """What a template answered: its text, or the error that it raised."""

    text: str | None
    error: str | None


def render_foreign(template: str, probes: Sequence[Probe], special: Mapping[str, str]) -> list[Rendering]:
    """Return what ``template`` makes of each of ``probes``; ``special`` are its ``bos_token`` and the like.

    It runs in a child process with limits on time, memory, output and everything else a program can do.

    Raises:
        Refused: it does not keep within the limits.
        InputError: it is no Jinja template, or needs a special token that ``special`` lacks.
    """
    if not isinstance(template, str):
        raise InputError(f"a chat template is a string, not {type(template).__name__}")
    rows = [
        {
            "messages": [message.to_dict() for message in probe.messages],
            "prompt": probe.prompt,
            "now": probe.now,
        }
        for probe in probes
    ]
    request = json.dumps({"template": template, "probes": rows, "special": dict(special)})
    source = _CHILD.read_text(encoding="utf-8")
    run = run_python(f"{source}\nmain({request!r}, {_LIBRARIES!r})\n", _LIMITS)
    head, *lines = run.output.splitlines() or ["{}"]
    _check_head(json.loads(head) if head.startswith("{") else {}, special)
    if not run.finished or len(lines) != len(probes):
        limits = {"time": f"{_LIMITS.seconds:g} seconds", "memory": f"{_LIMITS.memory_mib} MiB of memory"}
        limit = limits.get(run.outcome) or run.error
        raise Refused("keep within its limits", f"{limit} did not suffice for {len(probes)} conversations")
    return [Rendering(*json.loads(line)) for line in lines]


def _check_head(head: dict[str, Any], special: Mapping[str, str]) -> None:
    if "error" in head:
        raise InputError(f"not a Jinja template: {head['error']}")
    for name in head.get("names", ()):
        if name.endswith("_token") and name not in special:
            raise InputError(
                f"the chat template uses {name}, and the tokenizer does not tell which token that is; "
                f"pass special_tokens={{{name!r}: ...}}"
            )


def special_names(tokenizer: Tokenizer, given: Mapping[str, str]) -> dict[str, str]:
    """Return what templates call ``bos_token`` and so on: as ``given``, else where only one is likely.

    Raises:
        InputError: the tokenizer lacks a token of ``given``.
    """
    for name, token in given.items():
        if token not in tokenizer.added_tokens:
            raise InputError(f"{name} is to be {token!r}, which the tokenizer lacks")
    likely = {
        name: [token for token in tokens if token in tokenizer.added_tokens]
        for name, tokens in USUAL_NAMES.items()
    }
    return {name: tokens[0] for name, tokens in likely.items() if len(tokens) == 1} | dict(given)
