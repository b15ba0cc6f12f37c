"""picoLLM turns a base language model into a chat assistant and keeps training and serving in one format.

The public names below are loaded on first use, so that ``import picollm`` stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from picollm.chat.conversation import Conversation, Message, format_messages
    from picollm.chat.format import ChatFormat
    from picollm.checkpoint import Checkpoint
    from picollm.infer.engine import Engine
    from picollm.infer.params import SamplingParams
    from picollm.tokenizer import Tokenizer

_HOME = {
    "ChatFormat": "picollm.chat.format",
    "Checkpoint": "picollm.checkpoint",
    "Conversation": "picollm.chat.conversation",
    "Engine": "picollm.infer.engine",
    "Message": "picollm.chat.conversation",
    "SamplingParams": "picollm.infer.params",
    "Tokenizer": "picollm.tokenizer",
    "format_messages": "picollm.chat.conversation",
}

__all__ = [
    "ChatFormat",
    "Checkpoint",
    "Conversation",
    "Engine",
    "Message",
    "SamplingParams",
    "Tokenizer",
    "format_messages",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'picollm' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
