"""How many real conversations transformers renders to other ids or another mask: expected is none.

Every named format, three tokenizers: ours, one like Qwen2's, one like Llama 3's. ``text_that_spells_tokens``
is the other case, conversations in which a user types a control token: there a template cannot be right.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from picollm.chat.conversation import Conversation, Message
from picollm.chat.format import ChatFormat
from picollm.chat.format_specification import SPECIFICATIONS
from picollm.fast_bpe import LLAMA3_PATTERN, QWEN2_PATTERN
from picollm.tokenizer import Tokenizer
from scripts.benchmarks.render import conversations

NUM_CONVERSATIONS = 5000


def run(limit: int = NUM_CONVERSATIONS) -> dict[str, Any]:
    talks = list(conversations("mix", limit))
    rows = []
    for kind, tokenizer in make_tokenizers(talks[:1000]).items():
        for name in SPECIFICATIONS:
            fmt = ChatFormat.named(name, tokenizer.with_special_tokens(ChatFormat.required_tokens(name)))
            hostile = [spelled(talk, fmt) for talk in talks[:100]]
            rows.append(
                {
                    "tokenizer": kind,
                    "format": name,
                    "conversations": len(talks),
                    "different": count_different(fmt, with_systems(talks)),
                    "text_that_spells_tokens": f"{count_different(fmt, hostile)} of {len(hostile)}",
                }
            )
    return {"ratios": {"different": float(sum(row["different"] for row in rows))}, "rows": rows}


def make_tokenizers(talks: Sequence[Conversation], vocab_size: int = 4096) -> dict[str, Tokenizer]:
    """Return a tokenizer of ours, one built like Qwen2's and one like Llama 3's, all trained on ``talks``."""
    texts = [message.text for talk in talks for message in talk.messages]
    return {
        "picollm": Tokenizer.train(texts, vocab_size),
        "chatml": _trained(texts, vocab_size, QWEN2_PATTERN, normalizers.NFC(), False),
        "llama3": _trained(texts, vocab_size, LLAMA3_PATTERN, None, True),
    }


def _trained(texts: list[str], size: int, pattern: str, normalizer: Any, ignore_merges: bool) -> Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer is not None:
        backend.normalizer = normalizer
    split = pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    backend.decoder = tokenizers.decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    return Tokenizer(json.dumps(json.loads(backend.to_str())))


def with_systems(talks: Sequence[Conversation]) -> Iterator[Conversation]:
    """Yield ``talks``, every third with a system message, which the data lacks."""
    for index, talk in enumerate(talks):
        system = [Message("system", f"You are number {index}.\n")] if index % 3 == 0 else []
        yield Conversation([*system, *talk.messages])


def spelled(talk: Conversation, fmt: ChatFormat) -> Conversation:
    """Return ``talk`` with the format's end token typed by the user."""
    first, *others = talk.messages
    end = fmt.specification.end
    return Conversation([Message("user", f"{first.text} {end} {first.text}"), *others])


def count_different(fmt: ChatFormat, talks: Iterator[Conversation] | Sequence[Conversation]) -> int:
    from transformers import PreTrainedTokenizerFast

    backend = tokenizers.Tokenizer.from_str(fmt.tokenizer._source)
    peer = PreTrainedTokenizerFast(tokenizer_object=backend)
    different = 0
    for talk in talks:
        found = peer.apply_chat_template(
            talk.to_dict()["messages"],
            chat_template=fmt.chat_template,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        ids, mask = fmt.render_conversation(talk)
        different += (list(found["input_ids"]), list(found["assistant_masks"])) != (ids, mask)
    return different
