"""What a checkpoint remembers of its chat format, so that a change of it cannot go unnoticed."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from picollm.chat.conversation import Conversation, Message, Part

if TYPE_CHECKING:
    from picollm.chat.format import ChatFormat

VERSION = 1
"""Raised when the renderer itself changes which token or mask bit comes out."""

MASK_RULE = "assistant words, calculator calls with their markers, and the end of the turn are supervised"


def format_record(format: ChatFormat) -> dict[str, Any]:
    """Return everything that decides a token or a mask bit of ``format``, and its hash as ``fingerprint``."""
    template = format.chat_template.encode("utf-8")
    decided = {
        "name": format.name,
        "version": VERSION,
        "mask_rule": MASK_RULE,
        "specification": format.specification.to_dict(),
        "special_ids": {token: format.tokenizer.special_id(token) for token in format.specification.tokens},
        "tokenizer_sha256": format.tokenizer.sha256,
        "chat_template_sha256": hashlib.sha256(template).hexdigest(),
        "golden": [
            list(map(list, format.render_conversation(c))) for c in golden_conversations(format.has_tools)
        ],
    }
    canonical = json.dumps(decided, sort_keys=True, ensure_ascii=True).encode("ascii")
    return {**decided, "fingerprint": "sha256:" + hashlib.sha256(canonical).hexdigest()}


def golden_conversations(tools: bool) -> list[Conversation]:
    """Return a few conversations that cross every border; their tokens are part of the fingerprint."""
    calls = [Part("text", "2+2 "), Part("python", "2+2"), Part("python_output", "4"), Part("text", " is 4.")]
    answer = Message("assistant", calls if tools else "2+2 is 4.")
    accents = [
        Message("user", "Na\u00efve \n\n"),
        Message("assistant", "\nA", 0),
        Message("user", "B"),
        answer,
    ]
    return [
        Conversation([Message("user", "Hi"), Message("assistant", "Hello.")]),
        Conversation([Message("system", " Be brief.\n"), Message("user", "2+2?"), answer]),
        Conversation(accents),
    ]
