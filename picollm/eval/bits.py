"""How surprised a model is by text it has not seen: bits per byte of documents, loss per assistant token.

S supervised positions of one packed batch, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from picollm.errors import InputError
from picollm.eval.score import Interval, bootstrap_ratio_interval
from picollm.progress import SILENT, Progress
from picollm.train.batches import NO_TARGET, join
from picollm.train.examples import Examples
from picollm.train.packing import spread

if TYPE_CHECKING:
    from picollm.chat.conversation import Conversation
    from picollm.chat.format import ChatFormat
    from picollm.checkpoint import Checkpoint
    from picollm.model.llama import Model

_BATCH_TOKENS = 2048
_LOGIT_ELEMENTS = 1 << 22  # logits alive at once


@dataclass(frozen=True)
class BitsPerByte:
    """The compression of held-out text: total surprise in bits over its length in UTF-8 bytes.

    Unlike loss per token it does not depend on the tokenizer, so any two checkpoints compare.
    """

    value: float
    interval: Interval
    num_texts: int
    num_bytes: int


@dataclass(frozen=True)
class SourceLoss:
    """The loss per assistant token, in nats, on held-out conversations of one source.

    ``bits_per_byte`` is the same surprise over the bytes of what the assistant says, so that models with
    different tokenizers compare; the end of a turn costs bits but has no bytes.
    """

    source: str
    value: float
    interval: Interval
    num_conversations: int
    num_tokens: int
    bits_per_byte: float = math.nan


@dataclass(frozen=True)
class _Window:
    """A stretch of a document; its first token is only context."""

    ids: Sequence[int]
    loss_mask: Sequence[int]


@torch.inference_mode()
def summed_losses(
    model: Model, examples: Examples, *, title: str, progress: Progress = SILENT
) -> list[float]:
    """Return for each example the sum of -log p, in nats, over its supervised tokens.

    Examples are packed into flat batches for speed; what shares a batch does not change a value.
    """
    device = model.lm_head_weight.device
    costs = examples.costs
    losses = np.zeros(len(examples))
    with progress.bar(title, int(costs.sum()), "tokens") as bar:
        for group in spread(costs.tolist(), max(_BATCH_TOKENS, int(costs.max(initial=0)))):
            members = np.asarray(group, np.int64)
            batch = join(examples, members).to(device)
            select = (batch.targets != NO_TARGET).nonzero().flatten()
            hidden_SE = model.hidden(batch.ids, batch.positions, select)
            loss_S = _token_losses(hidden_SE, model.lm_head_weight, batch.targets[select])
            document_S = ((batch.positions == 0).cumsum(0) - 1)[select]
            sums = torch.zeros(len(group), dtype=torch.float64, device=device)
            losses[members] = sums.index_add_(0, document_S, loss_S.double()).cpu().numpy()
            bar.advance(int(costs[members].sum()))
    return [float(loss) for loss in losses]


def _token_losses(hidden_SE: torch.Tensor, weight_VE: torch.Tensor, targets_S: torch.Tensor) -> torch.Tensor:
    rows = max(1, _LOGIT_ELEMENTS // weight_VE.shape[0])
    pieces = [
        torch.nn.functional.cross_entropy((hidden @ weight_VE.T).float(), targets, reduction="none")
        for hidden, targets in zip(torch.split(hidden_SE, rows), torch.split(targets_S, rows), strict=True)
    ]
    return torch.cat(pieces)


def bits_per_byte(model: Model, format: ChatFormat, texts: Sequence[str]) -> float:
    """Return the bits per byte of ``model`` on documents, rendered by ``format``: the number to watch."""
    documents = [format.render_document(text).ids for text in texts]
    return _bits(model, documents, [len(text.encode()) for text in texts], SILENT).value


def document_bits(
    checkpoint: Checkpoint, texts: Sequence[str], *, progress: Progress = SILENT
) -> BitsPerByte:
    """Return the bits per byte of ``checkpoint`` on ``texts``, each read from its beginning as one document.

    Where a checkpoint has no format, and so no token to begin with, the first token of each text is not
    predicted and its bytes do not count.

    Raises:
        InputError: Nothing to predict: no text, or only empty ones.
    """
    if checkpoint.format is not None:
        documents = [checkpoint.format.render_document(text).ids for text in texts]
        unread = [0] * len(texts)
    else:
        documents = checkpoint.tokenizer.encode_batch(texts)
        unread = [len(checkpoint.tokenizer.token_bytes(ids[0])) if ids else 0 for ids in documents]
    num_bytes = [len(text.encode()) - skipped for text, skipped in zip(texts, unread, strict=True)]
    return _bits(checkpoint.model, documents, num_bytes, progress)


def _bits(
    model: Model, documents: Sequence[Sequence[int]], num_bytes: Sequence[int], progress: Progress
) -> BitsPerByte:
    """Return the bits per byte of documents given as ids; those beyond the context are read in stretches.

    Stretches share one token, so every token but a document's first is predicted once.
    """
    context = model.config.max_position_embeddings
    examples, owners = Examples(), []
    for index, ids in enumerate(documents):
        for start in range(0, len(ids) - 1, context):
            window = ids[start : start + context + 1]
            examples.append(_Window(window, [0] + [1] * (len(window) - 1)))
            owners.append(index)
    if not owners:
        raise InputError(
            f"bits per byte needs a text with something to predict; got {len(documents)} without."
        )
    bits = np.zeros(len(documents))
    losses = summed_losses(model, examples, title="bits per byte", progress=progress)
    np.add.at(bits, owners, np.asarray(losses) / math.log(2))
    interval = bootstrap_ratio_interval(bits.tolist(), num_bytes)
    return BitsPerByte(float(bits.sum()) / sum(num_bytes), interval, len(documents), sum(num_bytes))


def assistant_losses(
    model: Model,
    format: ChatFormat,
    sources: Mapping[str, Sequence[Conversation]],
    *,
    progress: Progress = SILENT,
) -> list[SourceLoss]:
    """Return the loss of ``model`` at the supervised tokens of held-out conversations, one entry per source.

    Conversations longer than the context are left out; ``num_conversations`` counts those that were read.

    Raises:
        InputError: A source has no conversation that fits.
    """
    context = model.config.max_position_embeddings
    found = []
    for source, conversations in sources.items():
        examples, num_bytes = Examples(), 0
        for rendered, conversation in zip(
            format.render_batch(list(conversations)), conversations, strict=True
        ):
            if len(rendered.ids) <= context and examples.append(rendered):
                num_bytes += _supervised_bytes(conversation)
        if not len(examples):
            raise InputError(
                f"no held-out conversation of {source!r} fits into the context of {context} tokens."
            )
        losses = summed_losses(model, examples, title=f"loss on {source}", progress=progress)
        nums = [examples.num_targets_of(np.asarray([index], np.int64)) for index in range(len(examples))]
        interval = bootstrap_ratio_interval(losses, nums)
        bits = sum(losses) / math.log(2) / max(1, num_bytes)
        found.append(SourceLoss(source, sum(losses) / sum(nums), interval, len(examples), sum(nums), bits))
    return found


def _supervised_bytes(conversation: Conversation) -> int:
    """Return the UTF-8 bytes of what the assistant says itself, without answers of tools."""
    spoken = (message for message in conversation.messages if message.role == "assistant" and message.weight)
    return sum(
        len(part.text.encode())
        for message in spoken
        for part in message.parts
        if part.type != "python_output"
    )
