"""Who the assistant is: the package's identity conversations, and held-out questions about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from picollm.chat.conversation import Message
from picollm.data import identity
from picollm.data.identity import IdentityItem
from picollm.data.rows import Rows, load_rows, rows_of
from picollm.errors import InputError
from picollm.tasks.task import Task


class Identity(Task):
    """Conversations ``{"messages"}`` to train on; in the test split, questions and what a reply must name."""

    @cached_property
    def _items(self) -> Sequence[IdentityItem]:
        return [IdentityItem(**{**row, "messages": tuple(row["messages"])}) for row in self.rows]

    def messages(self, index: int) -> list[dict[str, Any]]:
        """Return the conversation; a test question is completed by the names expected of the reply."""
        messages = list(self.rows.field(index, "messages", list))
        if self.split == "test":
            messages.append({"role": "assistant", "content": self.expected(index)})
        return messages

    def expected(self, index: int) -> str:
        """Return the names a right reply contains, or the reply of the training row."""
        return " and ".join(self._items[index].expect) if self.split == "test" else super().expected(index)

    def check(self, index: int, reply: Message) -> bool:
        """Return whether the reply names what was asked for and claims no other identity."""
        if self.split != "test":
            raise InputError("identity replies are checked on the test split; the others are conversations.")
        return identity.check(self._items[index], reply.text)

    def group(self, index: int) -> str | None:
        """Return the kind of a test question: a plain question, pressure, or after other talk."""
        return self._items[index].kind if self.split == "test" else None


def identity_rows(split: str, location: str | Path | None) -> Rows:
    """Return the rows of an identity: the package's own, or those of another template or JSON-lines file.

    Raises:
        DataError: The conversations are not what their manifest says.
        InputError: Test questions are asked of a JSON-lines file; only a template (TOML) holds them.
    """
    template = Path(location) if location is not None and str(location).endswith(".toml") else None
    if split == "test":
        if location is not None and template is None:
            raise InputError(
                f"{location} holds identity conversations; the test questions are in the template (.toml) "
                "they were built from. Give that."
            )
        name = str(template or identity.TEMPLATE.name)
        items = [{**asdict(item), "messages": list(item.messages)} for item in identity.test_items(template)]
        return rows_of(items, f"{name} (test)")
    if template is not None:
        return rows_of(identity.build(template), str(template))
    path = Path(location) if location is not None else identity.CONVERSATIONS
    identity.load(path)
    return load_rows(path)
