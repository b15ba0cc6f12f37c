"""SmolTalk-style chat: turn-taking, style, and following instructions."""

from __future__ import annotations

from typing import Any

from picollm.tasks.task import Task


class SmolTalk(Task):
    """Rows ``{"messages": [{"role", "content"}, ...]}``, any number of turns; trained on, not scored."""

    scoring = None

    def messages(self, index: int) -> list[dict[str, Any]]:
        """Return the row's messages; other columns and fields of a message are left behind."""
        found = self.rows.field(index, "messages", list)
        return [_plain(message) if isinstance(message, dict) else message for message in found]


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    return {"role": message.get("role"), "content": message.get("content")}
