"""The comparison as Markdown, for a terminal pager or a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterator

from picollm.eval import findings, tables
from picollm.eval.comparison import Answer, Comparison, PromptComparison
from picollm.eval.tables import Table


def render_markdown(comparison: Comparison) -> str:
    """Return the report as Markdown: the same tables, sentences and texts as the HTML page, without plots."""
    return "\n".join(_lines(comparison)).rstrip() + "\n"


def _lines(comparison: Comparison) -> Iterator[str]:
    c = comparison
    yield from (f"# Base versus SFT: {c.base.name} → {c.sft.name}", "")
    alike = "the same architecture" if c.same_architecture else "different architectures"
    yield from (
        f"Two checkpoints with {alike} ({c.sft.num_parameters:,} parameters), the same {len(c.prompts)} "
        f"prompts, greedy decoding, seed {c.seed}, at most {c.prompt_tokens} tokens a reply.",
        "",
    )
    for note in c.notes:
        yield from (note, "")
    yield from _table(tables.facts_table(c.facts()))
    if sentence := findings.facts_sentence(c.facts()):
        yield from (f"**{sentence}**", "")
    if c.prompts:
        yield from ("## The same prompt, both models", "", *_pair(c.prompts[0]))
    for table in (
        tables.properties_table(c.differences),
        tables.scores_table(c),
        tables.losses_table(c),
        tables.architecture_table(c),
        tables.overlaps_table(c),
        tables.stages_table(c),
    ):
        yield from _table(table)
    if price := findings.price_sentence(c):
        yield from (price, "")
    yield from ("## What fine-tuning does not do", "")
    for limit in findings.limits(c):
        yield from (f"**{limit.title}** {limit.text}", "")
        for example in limit.examples:
            yield from (
                *_quote(example.prompt),
                ">",
                *_quote(example.reply or "(nothing)"),
                ">",
                f"> ({example.note})",
                "",
            )
    if len(c.prompts) > 1:
        yield from ("## All prompts, side by side", "")
        for prompt in c.prompts[1:]:
            yield from _pair(prompt)


def _table(table: Table) -> Iterator[str]:
    if not table.rows:
        return
    yield from (f"## {table.title}", "")
    yield "| " + " | ".join(map(_cell, table.header)) + " |"
    yield "|" + " --- |" + " ---: |" * (len(table.header) - 1)
    for row in table.rows:
        yield "| " + " | ".join(map(_cell, row)) + " |"
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _pair(prompt: PromptComparison) -> Iterator[str]:
    yield from (f"### {_cell(prompt.id)}", "", *_quote(prompt.prompt), "")
    for name, answer in (("base", prompt.base), ("SFT", prompt.sft)):
        yield from (f"{name} ({_summary(answer)}):", "", *_fenced(answer.text), "")


def _summary(answer: Answer) -> str:
    p = answer.properties
    parts = [] if p.passes is None else ["obeys" if p.passes else "does not obey"]
    parts += ["ends by itself" if p.ends_by_itself else "does not end", f"{p.num_tokens} tokens"]
    return ", ".join(parts)


def _quote(text: str) -> list[str]:
    return [f"> {line}".rstrip() for line in text.strip().splitlines()] or [">"]


def _fenced(text: str) -> list[str]:
    """Return ``text`` in a fence longer than any run of backticks inside it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}text", text.strip() or "(nothing)", fence]
