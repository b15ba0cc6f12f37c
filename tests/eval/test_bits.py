"""Packed losses against one text at a time through full logits."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

from picollm.chat.conversation import Conversation
from picollm.checkpoint import Checkpoint
from picollm.data import primer
from picollm.errors import InputError
from picollm.eval.bits import assistant_losses, bits_per_byte, document_bits
from picollm.model.llama import Model


def nats(model: Model, ids: list[int], targets: list[bool]) -> float:
    """Return the surprise at the target tokens of one text: the slow way."""
    with torch.no_grad():
        log_p = model(torch.tensor(ids), torch.arange(len(ids))).log_softmax(-1)
    return -sum(float(log_p[t - 1, ids[t]]) for t in range(1, len(ids)) if targets[t])


def test_bits_per_byte_equals_one_document_at_a_time(checkpoint: Checkpoint) -> None:
    assert checkpoint.format is not None
    texts = ["", "é", *itertools.islice(primer.documents(5), 12)]
    context = checkpoint.model.config.max_position_embeddings
    texts = [text for text in texts if len(checkpoint.tokenizer.encode(text)) < context]
    total = 0.0
    for text in texts:
        ids = checkpoint.format.render_document(text).ids
        total += nats(checkpoint.model, ids, [True] * len(ids))
    expected = total / math.log(2) / sum(len(text.encode()) for text in texts)
    found = document_bits(checkpoint, texts)
    assert found.value == pytest.approx(expected, rel=1e-5)
    assert bits_per_byte(checkpoint.model, checkpoint.format, texts) == found.value
    assert found.interval[0] < found.value < found.interval[1]
    assert found.num_bytes == sum(len(text.encode()) for text in texts)


def test_a_document_longer_than_the_context_is_read_in_stretches_that_predict_every_token_once(
    checkpoint: Checkpoint,
) -> None:
    assert checkpoint.format is not None
    text = " ".join(itertools.islice(primer.documents(6), 8))
    ids = checkpoint.format.render_document(text).ids
    context = checkpoint.model.config.max_position_embeddings
    assert len(ids) > 2 * context
    total = 0.0
    for start in range(0, len(ids) - 1, context):
        window = ids[start : start + context + 1]
        with torch.no_grad():
            log_p = checkpoint.model(torch.tensor(window[:-1]), torch.arange(len(window) - 1)).log_softmax(-1)
        total -= float(log_p.gather(-1, torch.tensor(window[1:])[:, None]).sum())
    assert document_bits(checkpoint, [text]).value == pytest.approx(
        total / math.log(2) / len(text.encode()), rel=1e-5
    )


def test_without_a_format_the_first_token_is_only_read(checkpoint: Checkpoint) -> None:
    text = "A token is a piece of text."
    ids = checkpoint.tokenizer.encode(text)
    unread = len(checkpoint.tokenizer.token_bytes(ids[0]))
    found = document_bits(replace(checkpoint, format=None), [text])
    expected = nats(checkpoint.model, ids, [True] * len(ids)) / math.log(2) / (len(text) - unread)
    assert found.value == pytest.approx(expected, rel=1e-5)


def test_assistant_losses_equal_one_conversation_at_a_time(checkpoint: Checkpoint) -> None:
    assert checkpoint.format is not None
    rows = primer.rows("smoltalk", "validation", limit=12)
    conversations = [Conversation.from_dict({"messages": row["messages"]}) for row in rows]
    context = checkpoint.model.config.max_position_embeddings
    fitting = [c for c in conversations if len(checkpoint.format.render_conversation(c).ids) <= context]
    assert fitting
    total, num = 0.0, 0
    for conversation in fitting:
        rendered = checkpoint.format.render_conversation(conversation)
        total += nats(checkpoint.model, rendered.ids, [bool(bit) for bit in rendered.loss_mask])
        num += sum(rendered.loss_mask)
    (found,) = assistant_losses(checkpoint.model, checkpoint.format, {"smoltalk": conversations})
    assert found.value == pytest.approx(total / num, rel=1e-5)
    assert (found.source, found.num_tokens, found.num_conversations) == ("smoltalk", num, len(fitting))


def test_nothing_to_measure_is_an_error(checkpoint: Checkpoint) -> None:
    assert checkpoint.format is not None
    with pytest.raises(InputError, match="got 1 without"):
        document_bits(checkpoint, [""])
    with pytest.raises(InputError, match="no held-out conversation of 'mine' fits"):
        assistant_losses(checkpoint.model, checkpoint.format, {"mine": []})
