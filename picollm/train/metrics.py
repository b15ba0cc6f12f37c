"""What a run says about itself: one record per interval, in metrics.jsonl and on the progress bar."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

from picollm.paths import atomic_file, disk_errors
from picollm.progress import Bar, Progress

Point = dict[str, float]


@dataclass
class Tally:
    """Sums over the steps since the last record, over all processes."""

    steps: int = 0
    loss: float = 0.0
    targets: int = 0
    tokens: int = 0
    flops: float = 0.0
    gradient_norm: float = 0.0
    seconds: float = 0.0
    """Wall time of the first process."""
    busy: float = 0.0
    """Working time of all devices, as ``calibrate.clock`` counts it."""

    def add(self, other: Tally) -> None:
        """Add the sums of one more step."""
        for name in (field.name for field in fields(self)):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def point(self, matrix_rate: float) -> Point:
        """Return means and rates; ``matrix_rate`` is what one device could do per second of ``busy``."""
        return {
            "loss": self.loss / self.targets,
            "gradient_norm": self.gradient_norm / self.steps,
            "tokens_per_s": round(self.tokens / self.seconds, 1),
            "supervised_tokens_per_s": round(self.targets / self.seconds, 1),
            "mfu": round(self.flops / (self.busy * matrix_rate), 4),
        }


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
                file.write(json.dumps(point, allow_nan=False) + "\n")


def show(bar: Bar, progress: Progress, point: Point, num_steps: int) -> None:
    """Put a record on the bar and on a line that stays."""
    left = point["seconds"] / point["step"] * (num_steps - point["step"])
    figures = {
        "loss": f"{point['loss']:.4f}",
        "lr": f"{point['learning_rate']:.2e}",
        "tok/s": f"{point['tokens_per_s']:,.0f}",
        "supervised/s": f"{point['supervised_tokens_per_s']:,.0f}",
        "mfu": f"{point['mfu']:.0%}",
        "left": _duration(left),
    }
    figures |= {name: f"{value:.4f}" for name, value in point.items() if name.startswith("validation/")}
    bar.advance(0, **figures)
    words = "  ".join(f"{name} {value}" for name, value in figures.items())
    progress.note(f"step {int(point['step'])}/{num_steps}  {words}")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"
