"""Train the tokenizer of a model that starts from nothing."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from picollm.chat.format import ChatFormat
from picollm.data.documents import open_corpus
from picollm.progress import SILENT, Progress
from picollm.recipes.config import Recipe
from picollm.recipes.stage import Stage
from picollm.tokenizer import Tokenizer


def train_tokenizer(
    recipe: Recipe, out: Path, *, data_root: Path | None = None, progress: Progress = SILENT
) -> dict[str, Any]:
    """Train a tokenizer on the recipe's documents, save it in ``out`` and return a summary of it.

    The control tokens of the chat format are part of the vocabulary from the start, so that SFT teaches their
    meaning and changes no shape.
    """
    corpus = open_corpus(recipe.pretrain.sources, data_root=data_root, seed=recipe.seed, num_validation=200)
    stage = Stage(
        out, {"tokenizer": recipe.tokenizer, "data": corpus.provenance, "format": recipe.sft.format}
    )
    if stage.finished():
        progress.note(f"tokenizer: {out} is up to date")
    else:
        with stage.running():
            tokenizer = _train(recipe, corpus.training, progress)
            tokenizer.save(out)
    tokenizer = Tokenizer.load(out)
    text = "\n".join(corpus.validation)
    return {
        "vocab_size": tokenizer.vocab_size,
        "bytes_per_token": len(text.encode()) / max(1, len(tokenizer.encode(text))),
        "sha256": tokenizer.sha256,
        "data": json.loads(json.dumps(corpus.provenance)),
    }


def _train(recipe: Recipe, documents: Any, progress: Progress) -> Tokenizer:
    num_documents = recipe.tokenizer.num_documents
    with progress.bar("reading documents for the tokenizer", num_documents, "documents") as bar:

        def texts() -> Any:
            for text in itertools.islice(documents, num_documents):
                bar.advance()
                yield text

        special = ChatFormat.required_tokens(recipe.sft.format)
        return Tokenizer.train(texts(), recipe.tokenizer.vocab_size, special)
