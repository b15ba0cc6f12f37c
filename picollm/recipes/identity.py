"""Does a checkpoint know who it is? Held-out questions of an identity file, answered greedily."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from picollm.chat.conversation import Conversation
from picollm.checkpoint import Checkpoint
from picollm.data import identity
from picollm.data.identity import IdentityItem
from picollm.errors import InputError
from picollm.eval.score import Share
from picollm.infer.engine import Engine
from picollm.infer.params import SamplingParams
from picollm.progress import SILENT, Progress
from picollm.recipes.compare import locate


@dataclass(frozen=True)
class Answer:
    """What a checkpoint said to one question, and whether that is right."""

    item: IdentityItem
    reply: str
    right: bool


@dataclass(frozen=True)
class IdentityScore:
    """The share of right answers, with its 95 % interval: of all questions, by their kind and language."""

    all: Share
    kinds: dict[str, Share]
    languages: dict[str, Share]
    wrong: tuple[Answer, ...]

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> IdentityScore:
        """Return the score of ``answers``."""
        kinds, languages = defaultdict(list), defaultdict(list)
        for answer in answers:
            kinds[answer.item.kind].append(answer.right)
            languages[answer.item.language].append(answer.right)
        return cls(
            _share([answer.right for answer in answers]),
            {name: _share(found) for name, found in sorted(kinds.items())},
            {name: _share(found) for name, found in sorted(languages.items())},
            tuple(answer for answer in answers if not answer.right),
        )


def _share(right: Sequence[bool]) -> Share:
    return Share(sum(right), len(right))


def ask_identity(
    checkpoint: str,
    template: Path | None = None,
    *,
    max_tokens: int = 96,
    progress: Progress = SILENT,
) -> IdentityScore:
    """Return how many held-out questions of an identity file (default: the package's own) are answered right.

    Decoding is greedy. A reply that does not end by itself, or that claims another identity beside the right
    one, is wrong.

    Raises:
        CheckpointError: The checkpoint cannot be loaded.
        InputError: It has no chat format, or the identity file no [[test]] tables.
    """
    items = identity.test_items(template)
    if not items:
        raise InputError(f"{template} has no [[test]] tables; there is nothing to ask.")
    loaded = Checkpoint.load(locate(checkpoint))
    if loaded.format is None or loaded.record.stage == "pretrain":
        raise InputError(
            f"{checkpoint} was not taught to chat; fine-tune it first: picollm sft --base {checkpoint}"
        )
    engine = Engine(loaded, num_slots=32)
    asked = [Conversation.from_dict({"messages": list(item.messages)}) for item in items]
    answers: dict[int, Answer] = {}
    with progress.bar("identity", len(items), "questions") as bar:
        for place, reply in engine.as_completed(
            asked, SamplingParams(max_tokens=max_tokens, temperature=0.0)
        ):
            right = reply.finish_reason == "stop" and identity.check(items[place], reply.text)
            answers[place] = Answer(items[place], reply.text, right)
            bar.advance(1, right=sum(each.right for each in answers.values()) / len(answers))
    return IdentityScore.of([answers[place] for place in range(len(items))])
