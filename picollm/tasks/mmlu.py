"""MMLU: multiple choice over many subjects, so that broad knowledge stays alive.

The published ``auxiliary_train`` split, which ``train`` reads, is a collection of other sets: ARC and
OpenBookQA questions are part of it, so ARC's training rows are not news to a model trained on it.
"""

from __future__ import annotations

from picollm.tasks.choice import Item, MultipleChoice


class Mmlu(MultipleChoice):
    """Rows ``{"question", "subject", "choices": [4 texts], "answer": 0..3}``."""

    def item(self, index: int) -> Item:
        """Return the question of row ``index``."""
        question = self.rows.field(index, "question", str)
        choices = self.rows.field(index, "choices", list)
        return self.checked(index, question, choices, self.rows.field(index, "answer", int))

    def group(self, index: int) -> str | None:
        """Return the subject, or None where the row names none."""
        return self.rows[index].get("subject") or None
