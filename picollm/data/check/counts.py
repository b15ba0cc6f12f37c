"""What the rows of one source hold, in numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

import numpy as np

from picollm.chat.conversation import Conversation
from picollm.chat.format import Rendered


@dataclass
class Counts:
    """Sums over rows; tokens are those of whole conversations, before any limit."""

    rows: int = 0
    conversations: int = 0
    tokens: int = 0
    supervised_tokens: int = 0
    assistant_turns: int = 0
    supervised_ends: int = 0
    too_long: int = 0
    cut_supervised_tokens: int = 0
    """Supervised tokens behind the limit: what cutting rows would lose."""
    dropped_supervised_tokens: int = 0
    """Supervised tokens of all rows over the limit: what leaving those rows out would lose."""

    @classmethod
    def of(cls, conversation: Conversation, rendered: Rendered, end_id: int, limit: int | None) -> Counts:
        """Return the counts of one conversation; ``end_id`` ends a turn of the assistant."""
        ids, mask = np.array(rendered.ids), np.array(rendered.loss_mask, np.bool_)
        supervised = int(mask.sum())
        counts = cls(
            rows=1,
            conversations=1,
            tokens=len(ids),
            supervised_tokens=supervised,
            assistant_turns=sum(message.role == "assistant" for message in conversation.messages),
            supervised_ends=int(np.count_nonzero(mask & (ids == end_id))),
        )
        if limit is not None and len(ids) > limit:
            counts.too_long = 1
            counts.cut_supervised_tokens = int(mask[limit:].sum())
            counts.dropped_supervised_tokens = supervised
        return counts

    @property
    def supervised_share(self) -> float:
        """Supervised tokens by all tokens; 0 where there are none."""
        return self.supervised_tokens / max(1, self.tokens)

    @property
    def supervised_end_share(self) -> float:
        """Assistant turns whose end token is supervised by all assistant turns; 0 where there are none."""
        return self.supervised_ends / max(1, self.assistant_turns)

    def to_dict(self) -> dict[str, float]:
        """Return the sums and shares by name."""
        shares = {
            "supervised_share": self.supervised_share,
            "supervised_end_share": self.supervised_end_share,
        }
        return {**asdict(self), **shares}

    def add(self, other: Counts) -> None:
        """Add the numbers of ``other``."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))
