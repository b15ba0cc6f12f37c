"""The comparison as data: JSON and back, paired differences, the rows of the A/B/C table."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from picollm.errors import DataError
from picollm.eval.comparison import Comparison, paired_differences


def test_json_and_back(comparison: Comparison) -> None:
    text = json.dumps(comparison.to_dict(), allow_nan=False)
    assert Comparison.from_dict(json.loads(text)) == comparison


@pytest.mark.parametrize("broken", [{}, {"base": 3}, {"base": {}, "surprise": 1}])
def test_a_file_of_another_version_is_a_data_error(broken: dict[str, object]) -> None:
    with pytest.raises(DataError, match="Run the comparison again"):
        Comparison.from_dict(broken)


def test_paired_differences_use_the_prompts_where_both_replies_have_the_property(
    comparison: Comparison,
) -> None:
    found = {difference.property: difference for difference in comparison.differences}
    assert (found["passes"].num, found["passes"].base, found["passes"].sft) == (4, 0.0, 0.75)
    assert found["ends_by_itself"].difference == 1.0 and found["ends_by_itself"].interval == (1.0, 1.0)
    lengths = [prompt.sft.properties.num_tokens - 96 for prompt in comparison.prompts]
    assert found["num_tokens"].difference == pytest.approx(sum(lengths) / len(lengths))
    assert "directness" not in found  # no base reply ever came to the point
    assert (found["on_topic"].base, found["on_topic"].sft) == (0.0, 1.0)
    assert paired_differences([]) == ()


def test_facts_come_from_the_task_that_has_these_groups(comparison: Comparison) -> None:
    rows = comparison.facts()
    assert [row.group for row in rows] == ["A", "B", "C"]
    assert rows[1].sft_chat is not None and rows[1].sft_chat.num_right == 121
    assert replace(comparison, tasks=comparison.tasks[1:]).facts() == []
