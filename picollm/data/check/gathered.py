"""What all chunks showed together, and the problems that only show between rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from picollm.data.check.counts import Counts
from picollm.data.check.duplicates import Twin, exact_twins, near_twins
from picollm.data.check.examiner import Examined
from picollm.data.check.overlap import EvaluationTexts, Overlap
from picollm.data.check.places import Places
from picollm.data.check.problem import Finding, Problem
from picollm.data.check.report import Found, Place


class Gathered:
    """The sum of what chunks showed; about 160 bytes for each conversation."""

    def __init__(self, places: Places, examples: int) -> None:
        """Start with nothing; of each problem the first ``examples`` places are kept."""
        self.sources: dict[str, Counts] = {}
        self._found: dict[Problem, Found] = {}
        self._last_row: dict[Problem, int] = {}
        self._examined: list[Examined] = []
        self._places = places
        self._examples = examples

    def add(self, examined: Examined) -> None:
        """Add what the next chunk showed."""
        for finding in examined.findings:
            self._add_finding(finding)
        for source, counts in examined.sources.items():
            self.sources.setdefault(source, Counts()).add(counts)
        examined.findings.clear()
        self._examined.append(examined)

    def compare_rows(self) -> None:
        """Find the rows that repeat earlier ones; after the last chunk."""
        if not self._examined:
            return
        rows = np.concatenate([each.rows for each in self._examined])
        exact = exact_twins(np.concatenate([each.keys for each in self._examined]))
        self._add_twins(Problem.DUPLICATE, exact, rows)
        first = np.ones(len(rows), np.bool_)
        first[[twin.row for twin in exact]] = False
        signatures = np.concatenate([each.signatures for each in self._examined])
        self._add_twins(Problem.NEAR_DUPLICATE, near_twins(signatures[first]), rows[first])

    def problems(self) -> list[Found]:
        """Return the problems in the order of ``Problem``, the damaging ones first."""
        return [self._found[problem] for problem in Problem if problem in self._found]

    def lengths(self) -> dict[str, int]:
        """Return how many tokens the median, 90 %, 99 % and the longest conversation have."""
        lengths = np.concatenate([np.empty(0, np.int64), *(each.lengths for each in self._examined)])
        if not len(lengths):
            return {}
        values = np.percentile(lengths, (50, 90, 99, 100), method="higher")
        return dict(zip(("median", "p90", "p99", "longest"), map(int, values), strict=True))

    def overlaps(self, evaluation: EvaluationTexts) -> list[Overlap]:
        """Return for each evaluation set how many of its rows the data hold."""
        return evaluation.overlaps([each.matches for each in self._examined])

    def _add_finding(self, finding: Finding) -> None:
        problem, row, text = finding
        found = self._found.setdefault(problem, Found(problem))
        found.rows += self._last_row.get(problem) != row
        self._last_row[problem] = row
        if len(found.examples) < self._examples:
            found.examples.append(Place(*self._places.file_and_row(row), text))

    def _add_twins(self, problem: Problem, twins: Sequence[Twin], rows: npt.NDArray[np.int64]) -> None:
        for twin in twins:
            row, of = int(rows[twin.row]), int(rows[twin.of])
            file, place = self._places.file_and_row(of)
            same_file = file == self._places.file_and_row(row)[0]
            like = "the same as" if problem is Problem.DUPLICATE else f"{twin.similarity:.2f} like"
            self._add_finding(Finding(problem, row, f"{like} {'' if same_file else f'{file}, '}row {place}"))
