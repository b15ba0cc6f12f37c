"""Train a base model: documents -> one flat stream -> next-token prediction."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import torch

from picollm.chat.format import ChatFormat, Rendered
from picollm.checkpoint import Checkpoint, Record
from picollm.data.documents import Corpus, open_corpus
from picollm.errors import CheckpointError, InputError
from picollm.eval.bits import bits_per_byte
from picollm.files import check_replaceable
from picollm.model.config import ModelConfig
from picollm.model.llama import Model
from picollm.progress import SILENT, Progress
from picollm.recipes.config import ModelShape, PretrainRecipe, Recipe
from picollm.recipes.stage import Stage
from picollm.tokenizer import Tokenizer
from picollm.train.batches import Batches
from picollm.train.distributed import Ranks, joined
from picollm.train.examples import Examples
from picollm.train.loop import train
from picollm.train.plan import Plan
from picollm.train.plots import draw_curves
from picollm.train.sharding import check_shards
from picollm.train.tracking import Trackers


def pretrain(
    recipe: Recipe,
    tokenizer_dir: Path,
    out: Path,
    *,
    data_root: Path | None = None,
    progress: Progress = SILENT,
    track: str | None = None,
    shard: bool = False,
) -> Record:
    """Train the recipe's base model, save it in ``out`` as a checkpoint and return its record.

    Under torchrun every process calls this, and the first one writes.

    Raises:
        CheckpointError: There is no tokenizer at ``tokenizer_dir``.
        DivergedError: The loss exploded; the last good training state stays in ``out.run``.
    """
    with joined(recipe.pretrain.train.device) as ranks:
        own_progress = progress if ranks.first else SILENT
        return _pretrain(recipe, tokenizer_dir, out, data_root, own_progress, ranks, track, shard)


def _pretrain(
    recipe: Recipe,
    tokenizer_dir: Path,
    out: Path,
    data_root: Path | None,
    progress: Progress,
    ranks: Ranks,
    track: str | None,
    shard: bool,
) -> Record:
    if shard:
        check_shards(ranks)
    part = recipe.pretrain

    def opened() -> tuple[Tokenizer, Corpus]:
        check_replaceable(out)
        return _opened(recipe, tokenizer_dir, data_root)

    tokenizer, corpus = ranks.alike(opened)
    fmt = ChatFormat.named(recipe.sft.format, tokenizer)
    stage = Stage(
        out,
        {
            "pretrain": {**dataclasses.asdict(part), "train": part.train.learning()},
            "seed": recipe.seed,
            "data": corpus.provenance,
            "format": fmt.fingerprint,
        },
        rows={source["source"]: source["documents"] for source in corpus.provenance if "documents" in source},
        ranks=ranks,
    )
    if stage.finished():
        progress.note(f"pretrain: {out} is up to date")
        return Checkpoint.load(out).record

    stage.check()

    def prepare() -> tuple[Trackers, Examples, Batches]:
        trackers = Trackers.of(stage.run_dir, track, dataclasses.asdict(recipe), ranks.first)
        examples = _read(corpus, fmt, part, progress)
        batches = Batches(examples, part.batch_tokens, recipe.seed)
        Plan.of(part.train, batches, ranks.size)
        return trackers, examples, batches

    # What can be wrong must show before a finished run is cleared away.
    trackers, examples, batches = ranks.alike(prepare)
    with stage.running() as measured:
        model = Model(model_config(part.shape, tokenizer), seed=recipe.seed)
        progress.note(
            f"base model: {model.config.num_parameters / 1e6:.2f} M parameters, {len(examples):,} documents, "
            f"{examples.num_tokens:,} tokens"
        )
        result = train(
            model,
            batches,
            part.train,
            run_dir=stage.run_dir,
            validate=lambda trained: {"bits_per_byte": bits_per_byte(trained, fmt, corpus.validation)},
            progress=progress,
            trackers=trackers,
            shard=shard,
            beside=stage.digest,
        )
        record = Record(
            stage="pretrain",
            config=dataclasses.asdict(recipe),
            seed=recipe.seed,
            data=[{**source, "tokens": examples.num_tokens} for source in corpus.provenance],
            parent=None,
            format=fmt.to_record(),
            curve=result.curve,
            measured={**measured(), **result.measured},
        )

        def save() -> None:
            draw_curves(stage.run_dir, result.curve)
            Checkpoint.save(out, model, tokenizer, fmt, record, dtype=torch.bfloat16)

        ranks.first_does(save)
    return record


def _opened(recipe: Recipe, tokenizer_dir: Path, data_root: Path | None) -> tuple[Tokenizer, Corpus]:
    """Return the tokenizer and the documents of a recipe."""
    part = recipe.pretrain
    if not tokenizer_dir.exists():
        raise CheckpointError(
            f"no tokenizer at {tokenizer_dir}. Run `picollm tokenizer` first, or pass --tokenizer."
        )
    if part.train.num_tokens is None:
        raise InputError("[pretrain.train] has no num_tokens; base training is measured in tokens.")
    count = part.num_validation_documents
    corpus = open_corpus(part.sources, data_root=data_root, seed=recipe.seed, num_validation=count)
    return Tokenizer.load(tokenizer_dir), corpus


def model_config(shape: ModelShape, tokenizer: Tokenizer) -> ModelConfig:
    """Return the configuration of a from-scratch model with this shape and this vocabulary."""
    return ModelConfig(vocab_size=tokenizer.vocab_size, **dataclasses.asdict(shape))


def _read(corpus: Corpus, fmt: ChatFormat, part: PretrainRecipe, progress: Progress) -> Examples:
    """Render as many documents as hold the tokens that the run will see."""
    wanted = part.train.num_tokens
    assert wanted is not None, "pretraining is measured in tokens"
    examples = Examples()
    with progress.bar("reading documents", wanted, "tokens") as bar:
        for number, text in enumerate(corpus.training):
            before = examples.num_tokens
            for piece in _pieces(fmt.render_document(text), part.shape.max_position_embeddings):
                examples.append(piece, "documents", number)
            bar.advance(examples.num_tokens - before)
            if examples.num_tokens >= wanted:
                break
    return examples


def _pieces(document: Rendered, context: int) -> Iterator[Rendered]:
    """Cut a document that is longer than the context; every piece starts as the whole one does, with bos."""
    start, bos = 0, document.ids[:1]
    yield Rendered(document.ids[:context], document.loss_mask[:context])
    for start in range(context, len(document.ids), context - 1):
        ids = document.ids[start : start + context - 1]
        yield Rendered(bos + ids, [0] + [1] * len(ids))
