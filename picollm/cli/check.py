"""``picollm check``: what is wrong with conversations before anybody trains on them."""

from __future__ import annotations

import os
from typing import Annotated

import tyro

from picollm.cli.console import console, print_json, print_table, progress
from picollm.cli.show import open_format
from picollm.data.check.check import check as check_sets
from picollm.data.check.check import open_sets
from picollm.data.check.counts import Counts
from picollm.data.check.overlap import GRAM_WORDS
from picollm.data.check.report import Report
from picollm.errors import InputError

_SOURCES_SHOWN = 24


def check(
    data: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(help="files, directories or hub:org/name@revision"),
    ],
    format: Annotated[str | None, tyro.conf.arg(help="chat format; default: the checkpoint's own")] = None,
    checkpoint: Annotated[
        str | None, tyro.conf.arg(help="whose tokenizer; default: runs/sft or the base")
    ] = None,
    max_tokens: Annotated[
        int | None, tyro.conf.arg(help="the limit of the training run; default: none")
    ] = None,
    layout: Annotated[str | None, tyro.conf.arg(help="how rows are written; default: recognized")] = None,
    against: Annotated[
        tuple[str, ...], tyro.conf.arg(help="evaluation sets that must not occur in the data")
    ] = (),
    examples: Annotated[int, tyro.conf.arg(help="how many places to name for each problem")] = 3,
    workers: Annotated[int, tyro.conf.arg(help="processes")] = os.cpu_count() or 1,
    json: Annotated[bool, tyro.conf.arg(help="print one JSON document on stdout")] = False,
) -> int:
    """Look for whatever would damage training; exit code 1 if there is any, 0 if not."""
    if not data:
        raise InputError("`picollm check` needs DATA: files, directories or hub:org/name@revision.")
    report = check_sets(
        open_sets(data),
        open_format(checkpoint, format),
        limit=max_tokens,
        against=open_sets(against),
        layout=layout,
        examples=examples,
        workers=workers,
        progress=progress(),
    )
    print_report(report)
    if json:
        print_json(report.to_dict())
    return int(report.damaging)


def print_report(report: Report) -> None:
    """Show a report on stderr: the sources, the problems with their first places, the verdict."""
    limited = report.limit is not None
    header = ["source", "rows", "tokens", "learned", "ends"]
    header += [f"> {report.limit}", "if cut", "if dropped"] if limited else []
    rows = sorted(report.sources.items(), key=lambda item: -item[1].rows)
    shown = [_source_row(name, counts, limited) for name, counts in rows[:_SOURCES_SHOWN]]
    if len(rows) > _SOURCES_SHOWN:
        rest = Counts()
        for _, counts in rows[_SOURCES_SHOWN:]:
            rest.add(counts)
        shown.append(_source_row(f"{len(rows) - _SOURCES_SHOWN} more", rest, limited))
    if len(rows) > 1:
        shown.append(_source_row("all", report.total, limited))
    files = ", ".join(f"{each['file']} ({each['layout']})" for each in report.files)
    print_table(f"{files} as {report.format['name']}", header, shown)
    if report.lengths:
        lengths = ", ".join(f"{name} {value:,}" for name, value in report.lengths.items())
        console.print(f"tokens per conversation: {lengths}", style="dim")
    _print_overlaps(report)
    _print_problems(report)


def _source_row(name: str, counts: Counts, limited: bool) -> list[str]:
    supervised = counts.supervised_tokens
    row = [
        name,
        f"{counts.rows:,}",
        _count(counts.tokens),
        _share(supervised, counts.tokens),
        _share(counts.supervised_ends, counts.assistant_turns),
    ]
    if limited:
        lost = (counts.cut_supervised_tokens, counts.dropped_supervised_tokens)
        row += [f"{counts.too_long:,}", *(f"-{_share(tokens, supervised)}" for tokens in lost)]
    return row


def _count(number: int) -> str:
    return f"{number:,}" if number < 1_000_000 else f"{number / 1000:,.0f}k"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _print_overlaps(report: Report) -> None:
    if report.overlaps:
        header = ["evaluation set", "rows", "in the data", "whole", "a text", f"{GRAM_WORDS} words"]
        rows = [
            [each.file, each.rows, _share(each.found, each.rows), each.whole, each.texts, each.grams]
            for each in report.overlaps
        ]
        print_table("\nEvaluation rows in the data", header, rows)


def _print_problems(report: Report) -> None:
    for found in report.problems:
        style = "bold red" if found.problem.damaging else "bold yellow"
        share = _share(found.rows, report.total.rows)
        console.print(
            f"\n{found.problem.title}: {found.rows:,} row{'s' * (found.rows != 1)}, {share}",
            style=style,
            markup=False,
        )
        for place in found.examples:
            console.print(f"  {place}", markup=False, style="dim")
    damaging = sum(found.problem.damaging for found in report.problems)
    notices = len(report.problems) - damaging
    verdict = (
        f"{damaging} kinds of problems would damage training" if damaging else "nothing would damage training"
    )
    console.print(f"\n{verdict}; {notices} to know about", style="bold", markup=False)
