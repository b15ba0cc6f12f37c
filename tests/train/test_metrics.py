"""A tally's means and rates, and the file that follows the curve."""

from __future__ import annotations

import json
from pathlib import Path

from picollm.train.metrics import Metrics, Tally


def test_a_tally_weighs_each_step_by_its_targets() -> None:
    tally = Tally()
    tally.add(Tally(1, loss=10.0, targets=5, tokens=8, flops=40.0, gradient_norm=1.0, seconds=2.0, busy=4.0))
    tally.add(
        Tally(1, loss=60.0, targets=15, tokens=32, flops=40.0, gradient_norm=3.0, seconds=3.0, busy=4.0)
    )
    assert tally.point(matrix_rate=20.0) == {
        "loss": 3.5,
        "gradient_norm": 2.0,
        "tokens_per_s": 8.0,
        "supervised_tokens_per_s": 4.0,
        "mfu": 0.5,
    }


def test_lines_after_the_resumed_state_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = Metrics(path, [])
    for step in (1, 2, 3):
        metrics.add({"step": step})
    Metrics(path, [{"step": 1}]).add({"step": 2, "loss": 0.5})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1},
        {"step": 2, "loss": 0.5},
    ]
