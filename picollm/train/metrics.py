"""What a run says about itself: one record per interval, in metrics.jsonl and on the progress bar."""

from __future__ import annotations

import json
from pathlib import Path

from picollm.paths import atomic_file, disk_errors
from picollm.progress import Bar, Progress

Point = dict[str, float]


class Metrics:
    """The records of a run so far: a list in memory and the same lines in ``run_dir/metrics.jsonl``."""

    def __init__(self, path: Path | None, curve: list[Point]) -> None:
        """Start from ``curve``: lines after the state that a run resumes from are forgotten."""
        self.path, self.curve = path, curve
        if path is not None:
            with atomic_file(path) as temporary:
                temporary.write_text("".join(json.dumps(point) + "\n" for point in curve), encoding="utf-8")

    def add(self, point: Point) -> None:
        """Append one record."""
        self.curve.append(point)
        if self.path is not None:
            with disk_errors(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(point) + "\n")


def show(bar: Bar, progress: Progress, point: Point, num_steps: int, seconds_left: float) -> None:
    """Put the newest record on the bar and, when it closes an interval, on a line that stays."""
    figures = {
        "loss": f"{point['loss']:.4f}",
        "lr": f"{point['learning_rate']:.2e}",
        "tok/s": f"{point['tokens_per_s']:,.0f}",
        "supervised/s": f"{point['supervised_tokens_per_s']:,.0f}",
        "mfu": f"{point['mfu']:.0%}" if "mfu" in point else "-",
        "left": _duration(seconds_left),
    }
    bar.advance(0, **figures)
    words = "  ".join(f"{name} {value}" for name, value in figures.items())
    progress.note(f"step {int(point['step'])}/{num_steps}  {words}")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"
