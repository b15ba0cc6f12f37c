"""The result of a base-versus-SFT comparison, as plain data that survives a trip through JSON."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from picollm.errors import DataError
from picollm.eval.bits import BitsPerByte, SourceLoss
from picollm.eval.properties import PROPERTIES, Properties, figure
from picollm.eval.score import Interval, Score, Share, bootstrap_interval
from picollm.eval.weights import ConfigDifference, Movement

T = TypeVar("T")


@dataclass(frozen=True)
class CheckpointFacts:
    """Which checkpoint was measured."""

    name: str
    stage: str
    num_parameters: int
    vocab_size: int
    format: str | None
    fingerprint: str | None


@dataclass(frozen=True)
class Answer:
    """One checkpoint's reply to one prompt, with what was measured on it."""

    text: str
    properties: Properties


@dataclass(frozen=True)
class PromptComparison:
    """The same prompt answered by both checkpoints."""

    id: str
    category: str
    prompt: str
    check: dict[str, Any] | None
    base: Answer
    sft: Answer


@dataclass(frozen=True)
class Difference:
    """The means of one property over the prompts and their paired difference, sft - base."""

    property: str
    base: float
    sft: float
    difference: float
    interval: Interval
    num: int


@dataclass(frozen=True)
class TaskComparison:
    """The scores on one task: SFT in chat form, base in chat form, base in its own completion form."""

    task: str
    sft_chat: Score | None = None
    base_chat: Score | None = None
    base_completion: Score | None = None


@dataclass(frozen=True)
class LossComparison:
    """The loss per assistant token on the same held-out conversations of one source."""

    source: str
    sft: SourceLoss
    base: SourceLoss | None = None


@dataclass(frozen=True)
class BitsComparison:
    """Bits per byte on the same held-out documents: what fine-tuning cost the language model."""

    base: BitsPerByte
    sft: BitsPerByte


@dataclass(frozen=True)
class StageTime:
    """What one stage of the story took."""

    name: str
    seconds: float
    peak_rss_mib: float | None = None


@dataclass(frozen=True)
class SourceOverlap:
    """How many ``rows`` of an evaluation set one source of the SFT model's training data holds."""

    source: str
    evaluation: str
    rows: int
    found: int
    whole: int
    texts: int
    grams: int


@dataclass(frozen=True)
class MaskToken:
    """One token of the mask picture: its text, whether the loss sees it, whether it is a control token."""

    text: str
    supervised: bool
    control: bool


@dataclass(frozen=True)
class FactsRow:
    """One group of facts (A, B or C) and the share that is answered rightly, None where not measured."""

    group: str
    base_completion: Share | None
    base_chat: Share | None
    sft_chat: Share | None


@dataclass(frozen=True)
class Comparison:
    """Everything the report shows."""

    base: CheckpointFacts
    sft: CheckpointFacts
    seed: int
    max_tokens: int
    prompt_tokens: int
    prompts: tuple[PromptComparison, ...] = ()
    differences: tuple[Difference, ...] = ()
    tasks: tuple[TaskComparison, ...] = ()
    losses: tuple[LossComparison, ...] = ()
    bits: BitsComparison | None = None
    config_differences: tuple[ConfigDifference, ...] = ()
    movement: tuple[Movement, ...] = ()
    curves: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    stages: tuple[StageTime, ...] = ()
    overlaps: tuple[SourceOverlap, ...] = ()
    mask: tuple[MaskToken, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def same_architecture(self) -> bool:
        """Whether the two configurations agree in everything but the size of the vocabulary."""
        return all(difference.field == "vocab_size" for difference in self.config_differences)

    def facts(self) -> list[FactsRow]:
        """Return the rows of the A/B/C table, empty when no task has these groups."""
        for task in self.tasks:
            scores = (task.base_completion, task.base_chat, task.sft_chat)
            groups = sorted({name for score in scores if score for name in score.groups} & {"A", "B", "C"})
            if groups:
                return [
                    FactsRow(g, *(score.groups.get(g) if score else None for score in scores)) for g in groups
                ]
        return []

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON values; ``from_dict`` reads them back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Comparison:
        """Return the comparison that ``to_dict`` wrote.

        Raises:
            DataError: A field is missing or of another kind, as in a file of another version.
        """
        try:
            found: Comparison = _read(cls, value)
        except (TypeError, KeyError, AttributeError) as error:
            raise DataError(
                f"this is not a comparison that this version wrote ({error}). Run the comparison again."
            ) from error
        return found


def paired_differences(prompts: Sequence[PromptComparison], seed: int = 0) -> tuple[Difference, ...]:
    """Return the means and paired difference of each property, over prompts where both replies have it."""
    found = []
    for name in PROPERTIES:
        pairs = [
            (figure(prompt.base.properties, name), figure(prompt.sft.properties, name)) for prompt in prompts
        ]
        both = [(before, after) for before, after in pairs if before is not None and after is not None]
        if not both:
            continue
        before, after = (sum(side) / len(both) for side in zip(*both, strict=True))
        interval = bootstrap_interval([second - first for first, second in both], seed=seed)
        found.append(Difference(name, before, after, after - before, interval, len(both)))
    return tuple(found)


def _read(kind: Any, value: Any) -> Any:
    """Return ``value``, made of JSON values, as the annotated ``kind``."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _read(arguments[0], value)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        derived = {entry.name for entry in dataclasses.fields(kind) if not entry.init}
        given = {name: entry for name, entry in value.items() if name not in derived}
        return kind(**{name: _read(hints[name], entry) for name, entry in given.items()})  # type: ignore[operator]
    if origin is tuple:
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(_read(part, entry) for part, entry in zip(kinds, value, strict=True))
    if origin is dict:
        return {key: _read(arguments[1], entry) for key, entry in value.items()}
    if origin is list:
        return [_read(arguments[0], entry) for entry in value]
    return value
