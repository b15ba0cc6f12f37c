"""All that a check found, for people and programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from picollm.data.check.counts import Counts
from picollm.data.check.overlap import Overlap
from picollm.data.check.problem import Problem


@dataclass
class Found:
    """One kind of problem: in how many rows, and the first places of it."""

    problem: Problem
    rows: int = 0
    examples: list[Place] = field(default_factory=list)


@dataclass(frozen=True)
class Place:
    """A row of a file, counted from 0, and what is wrong there."""

    file: str
    row: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}, row {self.row}: {self.text}"


@dataclass(frozen=True)
class Report:
    """The result of a check."""

    files: list[dict[str, Any]]
    format: dict[str, str]
    limit: int | None
    total: Counts
    lengths: dict[str, int]
    """Tokens per conversation: median, p90, p99, longest."""
    sources: dict[str, Counts]
    problems: list[Found]
    overlaps: list[Overlap]

    @property
    def damaging(self) -> bool:
        """Whether anything was found that would damage training."""
        return any(found.problem.damaging for found in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        problems = [
            {
                "problem": found.problem.name.lower(),
                "title": found.problem.title,
                "damaging": found.problem.damaging,
                "rows": found.rows,
                "examples": [asdict(place) for place in found.examples],
            }
            for found in self.problems
        ]
        return {
            **asdict(self),
            "total": self.total.to_dict(),
            "sources": {name: counts.to_dict() for name, counts in self.sources.items()},
            "problems": problems,
            "damaging": self.damaging,
        }
