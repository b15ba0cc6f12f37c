"""A certificate: every way of serving a checkpoint reads the same conversations as the same tokens.

The reference is our renderer and our engine, in float32. What another runtime makes of the same conversation
is compared token by token, and greedy replies to the same prompts too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from picollm.checkpoint import Checkpoint
from picollm.errors import InputError
from picollm.infer.engine import Engine
from picollm.infer.params import SamplingParams
from picollm.infer.request import Reply
from picollm.interop.cases import Case, cases
from picollm.interop.runtimes import RUNTIMES, Answer, Row, check_names, installed
from picollm.paths import atomic_file
from picollm.progress import SILENT, Progress
from picollm.tokenizer import Tokenizer

FILE = "certificate.json"


@dataclass(frozen=True)
class Difference:
    """Where a runtime went another way: from token ``at`` on, ours and theirs."""

    case: str
    what: str
    """``prompt``, ``conversation`` or ``reply``."""
    at: int
    ours: list[str]
    theirs: list[str]
    error: str | None = None


@dataclass(frozen=True)
class Finding:
    """How one runtime compared with ours."""

    runtime: str
    version: str
    num_rendered: int
    num_mismatching: int
    num_injected: int
    """Renders in which the text of a message became a control token, as templates cannot avoid."""
    num_reply_tokens: int | None
    num_mismatching_replies: int | None
    differences: list[Difference] = field(default_factory=list)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Certificate:
    """What was compared, and how it went; ``certificate.json`` beside the checkpoint."""

    weights_sha256: str
    format: str
    fingerprint: str
    cases: list[str]
    findings: list[Finding]

    @property
    def holds(self) -> bool:
        """Whether nothing differed but what templates cannot do."""
        return not any(f.num_mismatching or f.num_mismatching_replies for f in self.findings)

    def to_json(self) -> str:
        """Return the text of ``certificate.json``."""
        return json.dumps({"holds": self.holds, **asdict(self)}, indent=1, ensure_ascii=False) + "\n"

    def save(self, file: Path) -> None:
        """Write the certificate to ``file``. Raises UnavailableError without room or permission."""
        with atomic_file(file) as place:
            place.write_text(self.to_json(), encoding="utf-8")


def certify(
    checkpoint: Checkpoint,
    runtimes: Sequence[str] | None = None,
    *,
    max_tokens: int = 24,
    gguf: Path | None = None,
    progress: Progress = SILENT,
) -> Certificate:
    """Return how ``runtimes`` (default: all that are installed) read ``checkpoint``, loaded in float32.

    ``gguf`` names an exported file to look at; without it a float32 one is made for the occasion.

    Raises:
        InputError: a base model without a chat format, or an unknown runtime.
        UnavailableError: a runtime that is not installed.
        CheckpointError: a runtime cannot read the checkpoint within its limits.
    """
    chat_format = checkpoint.format
    if chat_format is None:
        raise InputError("a base model has no chat format to certify; fine-tune it first.")
    names = list(runtimes) if runtimes is not None else installed()
    check_names(names)
    chosen = cases(chat_format)
    rows = [Row(case.asked, True) for case in chosen] + [Row(case.conversation, False) for case in chosen]
    expected = [chat_format.render_for_completion(case.asked) for case in chosen]
    replies, room = [], checkpoint.model.config.max_position_embeddings - max_tokens
    asked = [case for case, prompt in zip(chosen, expected, strict=True) if len(prompt) < room]
    prompts = [prompt for prompt in expected if len(prompt) < room]
    expected += [chat_format.render_conversation(case.conversation).ids for case in chosen]
    replies = Engine(checkpoint, tools=None).complete_many(
        [case.asked for case in asked], SamplingParams(max_tokens=max_tokens, temperature=0.0)
    )
    findings = []
    with progress.bar("certifying", len(names), "runtimes") as bar:
        for name in names:
            answer = RUNTIMES[name][0](checkpoint, rows, prompts, max_tokens, gguf)
            rendered = _compare_ids(chosen, expected, answer, checkpoint.tokenizer)
            findings.append(
                _finding(name, answer, rendered, _compare_replies(asked, replies, answer, checkpoint))
            )
            bar.advance()
    return Certificate(
        checkpoint.weights_sha256,
        chat_format.name,
        chat_format.fingerprint,
        [c.name for c in chosen],
        findings,
    )


def _finding(
    name: str, answer: Answer, rendered: tuple[int, list[Difference]], replied: tuple[int, list[Difference]]
) -> Finding:
    injected, differences = rendered
    num_tokens, reply_differences = replied
    generates = answer.replies is not None
    return Finding(
        name,
        answer.version,
        num_rendered=sum(ids is not None for ids in answer.ids),
        num_mismatching=len(differences),
        num_injected=injected,
        num_reply_tokens=num_tokens if generates else None,
        num_mismatching_replies=len(reply_differences) if generates else None,
        differences=differences + reply_differences,
        notes=answer.notes,
    )


def _compare_ids(
    chosen: list[Case], expected: list[list[int]], answer: Answer, tokenizer: Tokenizer
) -> tuple[int, list[Difference]]:
    injected, found = 0, []
    for index, (ours, theirs) in enumerate(zip(expected, answer.ids, strict=True)):
        case = chosen[index % len(chosen)]
        if theirs is None or ours == theirs:
            continue
        if case.spells_control and not isinstance(theirs, str):
            injected += 1
            continue
        what = "prompt" if index < len(chosen) else "conversation"
        found.append(_difference(case.name, what, ours, theirs, tokenizer))
    return injected, found


def _compare_replies(
    asked: list[Case], replies: list[Reply], answer: Answer, checkpoint: Checkpoint
) -> tuple[int, list[Difference]]:
    """Compare replies; ours ends where another role starts to speak, others only at the end tokens."""
    found, total = [], 0
    for case, reply, theirs in zip(asked, replies, answer.replies or [], strict=False):
        total += len(reply.ids)
        same = theirs[: len(reply.ids)] if reply.finish_reason == "foreign_role" else theirs
        if reply.ids != same:
            found.append(_difference(case.name, "reply", reply.ids, theirs, checkpoint.tokenizer))
    return total, found


def _difference(
    case: str, what: str, ours: list[int], theirs: list[int] | str, tokenizer: Tokenizer, around: int = 6
) -> Difference:
    if isinstance(theirs, str):
        return Difference(case, what, 0, _spelled(tokenizer, ours[:around]), [], theirs)
    at = next(i for i, (one, other) in enumerate(zip_longest(ours, theirs)) if one != other)
    window = slice(max(0, at - 1), at + around)
    return Difference(case, what, at, _spelled(tokenizer, ours[window]), _spelled(tokenizer, theirs[window]))


def _spelled(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    def spell(token_id: int) -> str:
        text: Any = (
            tokenizer.token_bytes(token_id).decode("utf-8", "replace") if token_id < len(tokenizer) else "?"
        )
        return f"{token_id} {text!r}"

    return [spell(token_id) for token_id in ids]
