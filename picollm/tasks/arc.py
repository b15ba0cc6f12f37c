"""ARC: grade-school science questions, in the sets Easy and Challenge."""

from __future__ import annotations

from picollm.errors import DataError
from picollm.tasks.choice import Item, MultipleChoice


class Arc(MultipleChoice):
    """Rows ``{"question", "choices": {"text", "label"}, "answerKey"}`` with 3 to 5 choices.

    Labels are letters, in some rows digits; here the choices get letters in their order.
    """

    def item(self, index: int) -> Item:
        """Return the question of row ``index``."""
        question = self.rows.field(index, "question", str)
        choices = self.rows.field(index, "choices", dict)
        texts, labels = choices.get("text"), choices.get("label")
        if not isinstance(texts, list) or not isinstance(labels, list) or len(texts) != len(labels):
            raise DataError(
                f"{self.rows.where(index)}: 'choices' is {choices!r:.80}; "
                "expected as many texts under 'text' as labels under 'label'."
            )
        key = self.rows.field(index, "answerKey", str)
        if key not in labels:
            raise DataError(f"{self.rows.where(index)}: 'answerKey' {key!r} is none of the labels {labels}.")
        return self.checked(index, question, texts, labels.index(key))
