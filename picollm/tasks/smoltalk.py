"""SmolTalk-style chat: turn-taking, style, and following instructions."""

from __future__ import annotations

from typing import Any

from picollm.chat.adapters import LAYOUTS, recognize
from picollm.errors import ConversationError, DataError
from picollm.tasks.task import Task


class SmolTalk(Task):
    """Rows ``{"messages": [{"role", "content"}, ...]}``, any number of turns; trained on, not scored.

    Rows without messages may be in another layout that conversations are published in: ShareGPT, Dolly, ...
    """

    scoring = None

    def messages(self, index: int) -> list[dict[str, Any]]:
        """Return the row's messages; other columns and fields of a message are left behind."""
        row = self.rows[index]
        if "messages" not in row and any(layout.fits(row) for layout in LAYOUTS.values()):
            try:
                return list(LAYOUTS[recognize(row)].convert(row))
            except ConversationError as error:
                raise DataError(f"{self.rows.where(index)}: {error}") from error
        found = self.rows.field(index, "messages", list)
        return [_plain(message) if isinstance(message, dict) else message for message in found]


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    return {"role": message.get("role"), "content": message.get("content")}
