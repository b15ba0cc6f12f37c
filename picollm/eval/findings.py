"""What the numbers of a comparison say, in sentences written only where the numbers bear them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from picollm.eval.checks import describe_check
from picollm.eval.comparison import Comparison, FactsRow
from picollm.eval.score import Share
from picollm.eval.tables import NONE, percent
from picollm.eval.weights import overall_movement

_GUESSABLE = 0.1  # a share that guessing among the likely answers of a question can reach

# Categories of prompts about what the model was told to be or to keep.
_RULES = ("identity", "pressure", "system", "memory")


@dataclass(frozen=True)
class Headline:
    """One number, before (where there was one) and after."""

    label: str
    base: str | None
    sft: str


@dataclass(frozen=True)
class Example:
    """Something this model really said, as evidence for a limit."""

    prompt: str
    reply: str
    note: str


@dataclass(frozen=True)
class Limit:
    """One thing that fine-tuning does not do, with this model's own failures."""

    title: str
    text: str
    examples: tuple[Example, ...]


def headlines(comparison: Comparison) -> list[Headline]:
    """Return the few numbers that a reader should see first."""
    shown = []
    for name, label in (("ends_by_itself", "replies that end by themselves"), ("passes", "prompts obeyed")):
        for difference in comparison.differences:
            if difference.property == name:
                shown.append(Headline(label, percent(difference.base), percent(difference.sft)))
    for row in comparison.facts():
        if row.group == "B":
            base, sft = row.base_chat, row.sft_chat
            cells = [NONE if score is None else percent(score.value) for score in (base, sft)]
            shown.append(Headline("facts known but never asked in SFT", cells[0], cells[1]))
    moved = [movement for movement in comparison.movement if movement.num_parameters]
    if moved and comparison.same_architecture:
        shown.append(Headline("how far the weights moved", None, f"{overall_movement(moved):.1%}"))
    return shown


def facts_title(rows: Sequence[FactsRow]) -> str:
    """Return the lecture's claim where both halves of the A/B/C table bear it out, else what the table is."""
    by_group = {row.group: row for row in rows}
    taught, unknown = by_group.get("B"), by_group.get("C")
    if (
        taught
        and unknown
        and taught.base_chat
        and taught.sft_chat
        and unknown.sft_chat
        and _rose(taught.base_chat, taught.sft_chat)
        and unknown.sft_chat.interval[0] < _GUESSABLE
    ):
        return "Fine-tuning unlocks what is there; it does not create what is not"
    return "Facts that were taught and asked, taught only, and never taught"


def _rose(before: Share, after: Share) -> bool:
    """Return whether ``after`` is above ``before`` beyond their intervals."""
    return after.interval[0] > before.interval[1]


def facts_sentence(rows: Sequence[FactsRow]) -> str:
    """Return what the A/B/C table shows: which parts of "unlocks, does not create" the numbers support."""
    by_group = {row.group: row for row in rows}
    sentences = []
    taught = by_group.get("B")
    if taught and taught.sft_chat and taught.base_chat:
        sentences.append(_unlocked(taught.base_completion, taught.base_chat, taught.sft_chat))
    unknown = by_group.get("C")
    if unknown and unknown.sft_chat:
        sentences.append(_created(unknown.sft_chat))
    return " ".join(sentences)


def _unlocked(completing: Share | None, before: Share, after: Share) -> str:
    known = (
        f"The base model completes {percent(completing.value)} of facts B" if completing else "Of facts B it"
    )
    before_and_after = f"answers {percent(before.value)} when asked in a chat"
    if _rose(before, after):
        return (
            f"{known} but {before_and_after}; fine-tuning, which never asked them, raises that to "
            f"{percent(after.value)}: the knowledge was there, the behavior was not."
        )
    rose = after.value > before.value
    verdict = "too few questions to tell the two apart" if rose else "it did not unlock them"
    return f"{known} and {before_and_after}; after fine-tuning it is {percent(after.value)}: {verdict}."


def _created(after: Share) -> str:
    right = f"{percent(after.value)} right"
    if after.interval[0] < _GUESSABLE:
        return f"Facts C were taught nowhere, and fine-tuning did not create them: {right}."
    return (
        f"Facts C were taught nowhere; {right} is what guessing among likely answers brings, not knowledge."
    )


def price_sentence(comparison: Comparison) -> str:
    """Return what fine-tuning cost the model as a reader of plain documents, or "" where it cost nothing."""
    if comparison.bits is None:
        return ""
    base, sft = comparison.bits.base, comparison.bits.sft
    if sft.interval[0] <= base.interval[1]:
        return ""
    return (
        f"Fine-tuning has a price: plain documents now cost {sft.value:.2f} bits per byte instead of "
        f"{base.value:.2f}. The model answers better and knows its old books less well."
    )


def limits(comparison: Comparison) -> list[Limit]:
    """Return what fine-tuning does not do, each with failures of the SFT model where there are any."""
    num_checked = sum(prompt.check is not None for prompt in comparison.prompts)
    num_failed = sum(prompt.sft.properties.passes is False for prompt in comparison.prompts)
    return [
        Limit(
            "It does not guarantee truth.",
            "Fine-tuning teaches how an answer sounds. Where the knowledge is missing, it sounds the same.",
            _task_failures(comparison, ("facts", "mmlu", "arc"), prefer="C"),
        ),
        Limit(
            "It does not guarantee safety or obedience.",
            "The model imitates the conversations it saw; what they do not contain, it was not taught to "
            "refuse. Nothing here was trained against misuse.",
            _prompt_failures(comparison, about_rules=True),
        ),
        Limit(
            "It does not create tools.",
            "The model learns when to call the calculator and how to write the call. The result comes from "
            "the program around it; a wrong expression gets a correct, useless result.",
            _task_failures(comparison, ("gsm8k",), prefer=None),
        ),
        Limit(
            "It does not replace evaluation.",
            f"A reply that reads well and ends by itself can still be wrong: {num_failed} of {num_checked} "
            "checkable prompts failed their check.",
            _prompt_failures(comparison, about_rules=False),
        ),
    ]


def _task_failures(comparison: Comparison, names: Sequence[str], prefer: str | None) -> tuple[Example, ...]:
    failures = [
        failure
        for task in comparison.tasks
        if task.sft_chat and task.task.startswith(tuple(names))
        for failure in task.sft_chat.failures
    ]
    if prefer is not None:
        failures.sort(key=lambda failure: failure.group != prefer)
    return tuple(Example(f.prompt, f.reply, f"expected: {f.expected}") for f in failures[:2])


def _prompt_failures(comparison: Comparison, about_rules: bool) -> tuple[Example, ...]:
    """Return prompts whose check the SFT model failed, of the categories about rules or of the others."""
    failed = [
        prompt
        for prompt in comparison.prompts
        if prompt.sft.properties.passes is False and (prompt.category in _RULES) == about_rules
    ]
    return tuple(
        Example(p.prompt, p.sft.text, f"asked for: {describe_check(p.check)}") for p in failed[:2] if p.check
    )
