"""The tables of a comparison as rows of strings: the terminal, report.md and report.html all show these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from picollm.eval.comparison import Comparison, Difference, FactsRow
from picollm.eval.properties import PROPERTIES
from picollm.eval.score import Interval, Share
from picollm.eval.weights import overall_movement

NONE = "–"


@dataclass(frozen=True)
class Table:
    """A titled table: names in the first column, at the left; numbers in the others, at the right."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def percent(value: float) -> str:
    """Return a share as a percentage; 100% and 0% are only written for exactly all and none.

    >>> percent(0.5), percent(0.996), percent(1.0), percent(0.0004)
    ('50%', '99.6%', '100%', '<0.1%')
    """
    if 0.0 < value < 0.001:
        return "<0.1%"
    if 0.999 < value < 1.0:
        return ">99.9%"
    return f"{value:.1%}" if 0.0 < value < 0.01 or 0.99 < value < 1.0 else f"{value:.0%}"


def interval(low_high: Interval) -> str:
    """Return an interval of shares as text, such as ``81–94``, in percent."""
    return f"{low_high[0] * 100:.0f}–{low_high[1] * 100:.0f}"


def share(score: Share | None) -> str:
    """Return a score with its 95% interval, or a dash where nothing was measured."""
    return NONE if score is None or not score.num else f"{percent(score.value)} ({interval(score.interval)})"


def facts_table(rows: Sequence[FactsRow]) -> Table:
    """Return the A/B/C table: what was taught, where, and what each checkpoint answers."""
    taught = {
        "A": "in pretraining, asked in SFT",
        "B": "in pretraining, never asked in SFT",
        "C": "taught nowhere",
    }
    header = ("facts", "questions", "base, completing", "base, in chat form", "SFT, in chat form")
    return Table(
        "Facts: % right (95% interval)",
        header,
        tuple((f"{row.group}: {taught[row.group]}", *_facts_cells(row)) for row in rows),
    )


def _facts_cells(row: FactsRow) -> tuple[str, str, str, str]:
    scores = (row.base_completion, row.base_chat, row.sft_chat)
    num = max((score.num for score in scores if score), default=0)
    return (str(num), share(row.base_completion), share(row.base_chat), share(row.sft_chat))


def scores_table(comparison: Comparison) -> Table:
    """Return one row per task: the three scores, chance, and how often SFT replies end by themselves."""
    header = (
        "task",
        "questions",
        "base, completing",
        "base, in chat form",
        "SFT, in chat form",
        "chance",
        "SFT stops",
    )
    rows = []
    for task in comparison.tasks:
        scores = [score for score in (task.sft_chat, task.base_chat, task.base_completion) if score]
        stops = task.sft_chat.stop_rate if task.sft_chat else None
        rows.append(
            (
                task.task,
                str(max(score.num for score in scores)) if scores else "0",
                share(task.base_completion),
                share(task.base_chat),
                share(task.sft_chat),
                percent(scores[0].chance) if scores and scores[0].chance else NONE,
                NONE if stops is None else percent(stops),
            )
        )
    return Table("Tasks: % right (95% interval)", header, tuple(rows))


def properties_table(differences: Sequence[Difference]) -> Table:
    """Return one row per measured property of the replies to the prompt set, with the paired difference."""
    header = ("reply property", "prompts", "base", "SFT", "difference (95%)")
    return Table(
        "Replies to the same prompts",
        header,
        tuple(_difference_row(difference) for difference in differences),
    )


def _difference_row(difference: Difference) -> tuple[str, ...]:
    label, is_share = PROPERTIES[difference.property]
    scale, digits, unit = (100, 0, " pp") if is_share else (1, 1, "")
    means = (difference.base, difference.sft)
    cells = [percent(mean) if is_share else f"{mean:.1f}" for mean in means]
    change, low, high = (
        _signed(scale * value, digits) for value in (difference.difference, *difference.interval)
    )
    return (label, str(difference.num), *cells, f"{change} ({low} to {high}){unit}")


def _signed(value: float, digits: int) -> str:
    text = f"{value:+.{digits}f}".replace("-", "−")
    return text if text.strip("+−0.") else "0"


def losses_table(comparison: Comparison) -> Table:
    """Return the loss per assistant token of held-out conversations, and bits per byte of documents."""
    header = ("held-out text", "items", "tokens or bytes", "base", "SFT")
    rows = [
        (
            f"{loss.source} (nats per assistant token)",
            f"{loss.sft.num_conversations:,}",
            f"{loss.sft.num_tokens:,}",
            NONE if loss.base is None else f"{loss.base.value:.3f}",
            f"{loss.sft.value:.3f}",
        )
        for loss in comparison.losses
    ]
    if comparison.bits is not None:
        base, sft = comparison.bits.base, comparison.bits.sft
        rows.append(
            (
                "documents (bits per byte)",
                f"{sft.num_texts:,}",
                f"{sft.num_bytes:,}",
                f"{base.value:.3f}",
                f"{sft.value:.3f}",
            )
        )
    return Table("Loss on text neither has seen", header, tuple(rows))


def stages_table(comparison: Comparison) -> Table:
    """Return what each stage of the story took."""
    rows = tuple(
        (
            stage.name,
            duration(stage.seconds),
            NONE if stage.peak_rss_mib is None else f"{stage.peak_rss_mib:,.0f} MiB",
        )
        for stage in comparison.stages
    )
    return Table("What each stage took", ("stage", "time", "peak memory"), rows)


def overlaps_table(comparison: Comparison) -> Table:
    """Return the test rows that training data hold, by source; none where nothing was found or compared."""
    rows = tuple(
        (o.source, o.evaluation, f"{o.found:,} of {o.rows:,}", f"{o.whole:,}", f"{o.texts:,}", f"{o.grams:,}")
        for o in comparison.overlaps
    )
    header = ("trained on", "test set", "rows found", "whole", "a text of 8 words", "13 words")
    return Table("Test rows in the training data", header, rows)


def architecture_table(comparison: Comparison) -> Table:
    """Return what is the same and what differs between the two networks."""
    base, sft = comparison.base, comparison.sft
    rows = [
        ("parameters", f"{base.num_parameters:,}", f"{sft.num_parameters:,}"),
        ("vocabulary", f"{base.vocab_size:,}", f"{sft.vocab_size:,}"),
        ("chat format", base.format or NONE, sft.format or NONE),
    ]
    rows += [
        (d.field, str(d.base), str(d.sft)) for d in comparison.config_differences if d.field != "vocab_size"
    ]
    if comparison.movement:
        rows.append(("weights moved (relative)", NONE, f"{overall_movement(comparison.movement):.1%}"))
    return Table("The two networks", ("", "base", "SFT"), tuple(rows))


def terminal_tables(comparison: Comparison) -> list[Table]:
    """Return the tables worth a place on a terminal, most important first; empty ones are left out."""
    tables = [
        facts_table(comparison.facts()),
        scores_table(comparison),
        properties_table(comparison.differences),
        losses_table(comparison),
    ]
    return [table for table in tables if table.rows]


def duration(seconds: float) -> str:
    """Return seconds for people: ``8.4 s``, ``3 min 20 s``, ``1 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
