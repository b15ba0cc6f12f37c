"""Pictures of a run's curve, for the run directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from picollm.paths import atomic_file
from picollm.train.metrics import Point


def draw_curves(run_dir: Path, curve: Sequence[Point]) -> list[Path]:
    """Return the files drawn: ``loss.svg``, with validation losses, and ``learning_rate.svg``."""
    validations = sorted({n for p in curve for n in p if n.startswith("validation/") and "bits" not in n})
    return [
        _draw(run_dir / "loss.svg", curve, ["loss", *validations], "nats per supervised token"),
        _draw(run_dir / "learning_rate.svg", curve, ["learning_rate"], "learning rate"),
    ]


def _draw(path: Path, curve: Sequence[Point], names: Sequence[str], label: str) -> Path:
    from matplotlib.figure import Figure  # takes half a second to import

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel=label)
    for name in names:
        points = [(point["step"], point[name]) for point in curve if name in point]
        axes.plot(*zip(*points, strict=True), marker="o" if len(points) < 12 else "", label=name)
    axes.grid(alpha=0.3)
    if len(names) > 1:
        axes.legend(fontsize="small")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
    return path
