"""Numbers as people read them, and the tables made of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from picollm.eval import tables
from picollm.eval.comparison import Comparison


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0%"),
        (1.0, "100%"),
        (0.5, "50%"),
        (0.0049, "0.5%"),
        (0.9951, "99.5%"),
        (1e-6, "<0.1%"),
        (1 - 1e-6, ">99.9%"),
        (0.305, "30%"),
        (0.95, "95%"),
    ],
)
def test_percent_never_rounds_to_all_or_none(value: float, text: str) -> None:
    assert tables.percent(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(8.44, "8.4 s"), (59.9, "59.9 s"), (200, "3 min 20 s"), (3900, "1 h 5 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert tables.duration(seconds) == text


def test_every_table_is_rectangular_and_says_what_was_measured(comparison: Comparison) -> None:
    shown = tables.terminal_tables(comparison)
    assert [table.title.split(":")[0] for table in shown] == [
        *("Facts", "Tasks", "Replies to the same prompts", "Loss on text neither has seen")
    ]
    for table in [*shown, tables.stages_table(comparison), tables.architecture_table(comparison)]:
        assert {len(row) for row in table.rows} == {len(table.header)}
    assert shown[0].rows[1] == (
        *("B: in pretraining, never asked in SFT", "160", "94% (89–97)", "0.6% (0–3)", "76% (68–82)"),
    )
    assert shown[1].rows[2][2] == tables.NONE


def test_empty_tables_do_not_reach_the_terminal(comparison: Comparison) -> None:
    bare = replace(comparison, tasks=(), prompts=(), differences=(), losses=(), bits=None)
    assert tables.terminal_tables(bare) == []
