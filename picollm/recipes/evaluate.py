"""Score one checkpoint on tasks."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picollm import __version__, paths
from picollm.checkpoint import Checkpoint
from picollm.data.documents import PRIMER, open_corpus
from picollm.errors import DataError, InputError, nearest
from picollm.eval.agreement import Agreement, Transformers, agreement
from picollm.eval.answers import Form
from picollm.eval.bits import BitsPerByte, document_bits
from picollm.eval.evaluate import check_form, choose, evaluate
from picollm.eval.journal import Journal
from picollm.eval.score import Score, chat_core
from picollm.infer.engine import Engine, many_slots
from picollm.progress import SILENT, Progress
from picollm.recipes.compare import locate
from picollm.recipes.stage import digest
from picollm.tasks.core import CORE, PREFIX, load_core
from picollm.tasks.registry import TASKS, load_task
from picollm.tasks.task import Task
from picollm.train.distributed import Ranks, joined

BITS = "bits"
_ALL_CORE = "core"
_NUM_DOCUMENTS = 100
_MOST_COMPARED = 300


@dataclass(frozen=True)
class Evaluation:
    """The scores of one checkpoint, and bits per byte by source of text."""

    checkpoint: str
    scores: tuple[Score, ...]
    bits: dict[str, BitsPerByte]
    agreements: tuple[Agreement, ...]
    seconds: float

    @property
    def chat_core(self) -> float | None:
        """Return the mean centered score over the tasks asked in chat form."""
        chat = [score for score in self.scores if score.form == "chat"]
        return chat_core(chat) if chat else None

    @property
    def core(self) -> float | None:
        """Return the mean centered score of the CORE suite, None unless all of it was asked."""
        suite = [score for score in self.scores if score.task.startswith(PREFIX)]
        return chat_core(suite) if len(suite) == len(CORE) else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        scores = [{**dataclasses.asdict(score), "centered": score.centered} for score in self.scores]
        together = {"chat_core": self.chat_core, "core": self.core}
        bits = {source: dataclasses.asdict(found) for source, found in self.bits.items()}
        return {
            "checkpoint": self.checkpoint,
            **together,
            "bits_per_byte": bits,
            "agreements": [dataclasses.asdict(found) for found in self.agreements],
            "seconds": self.seconds,
            "scores": scores,
        }


def evaluate_checkpoint(
    checkpoint: str,
    tasks: Sequence[str],
    *,
    data_root: Path | None = None,
    limit: int | None = None,
    form: Form | None = None,
    max_tokens: int = 256,
    seed: int = 0,
    device: str = "cpu",
    agree: bool = False,
    allow_format_mismatch: bool = False,
    progress: Progress = SILENT,
) -> Evaluation | None:
    """Return the scores on the test rows of ``tasks``; None in all but the first of several processes.

    A task is a name, ``name=location``, a JSON-lines file, ``core`` (twenty tasks) or ``bits`` (bits per
    byte). Without ``form``, a base checkpoint is asked in both forms that a task has, and one that was
    fine-tuned in chat form. Answers are kept in ``eval`` below the home of artifacts until all are there: the
    same command goes on where it was interrupted. With ``agree``, transformers answers the same too,
    from the same directory (at most 300 of a task), and it is counted where it answers otherwise.

    Raises:
        InputError: No task, an unknown one, a limit below 1, or chat form of a checkpoint without format.
        DataError: A task's rows are missing or damaged.
        CheckpointError: The checkpoint cannot be loaded.
    """
    if limit is not None and limit < 1:
        raise InputError(f"a limit of {limit} asks nothing; use at least 1, or no limit for all questions.")
    start = time.perf_counter()
    opened = open_tasks([name for name in tasks if name != BITS], data_root)
    if not opened and BITS not in tasks:
        raise InputError("no task to score; expected names such as facts,gsm8k,mmlu.")
    with joined(device) as ranks:
        loaded = Checkpoint.load(
            locate(checkpoint), device=device, allow_format_mismatch=allow_format_mismatch
        )
        asked = [(task, each) for task in opened for each in _forms(checkpoint, loaded, task, form)]
        engine = Engine(loaded, num_slots=many_slots(loaded.model))
        scores, journals = [], []
        for task, each in asked:
            journals.append(_journal(loaded, task, each, max_tokens, ranks))
            scores.append(
                evaluate(
                    engine,
                    task,
                    limit=limit,
                    form=each,
                    seed=seed,
                    max_tokens=max_tokens,
                    journal=journals[-1],
                    ranks=ranks,
                    progress=progress if ranks.first else SILENT,
                )
            )
        ranks.wait()
        if not ranks.first:
            return None
        bits = _bits(loaded, data_root, limit or _NUM_DOCUMENTS, progress) if BITS in tasks else {}
        chat = [task for task, each in asked if each == "chat"] if agree else []
        agreements = _agreements(engine, loaded, chat, limit, seed, max_tokens, progress)
        for journal in journals:
            journal.remove()
    seconds = round(time.perf_counter() - start, 2)
    return Evaluation(checkpoint, tuple(scores), bits, agreements, seconds)


def open_tasks(names: Sequence[str], data_root: Path | None) -> list[Task]:
    """Return the test rows of the tasks ``names``.

    Raises:
        InputError: An unknown name; the text says which is near.
        DataError: The rows are missing or damaged.
    """
    known = [*TASKS, _ALL_CORE, BITS, *(PREFIX + label for label in CORE)]
    opened: list[Task] = []
    for name in names:
        kind, _, location = name.partition("=")
        if kind.endswith((".jsonl", ".jsonl.gz")):
            opened.append(load_task("jsonl", "test", location=kind))
        elif kind == _ALL_CORE:
            opened += [load_core(PREFIX + label, data_root) for label in CORE]
        elif kind.removeprefix(PREFIX) in CORE and kind.startswith(PREFIX):
            opened.append(load_core(kind, data_root))
        elif kind in TASKS:
            opened.append(load_task(kind, "test", data_root=data_root, location=location or None))
        else:
            raise InputError(f"no task is called {kind!r}; {nearest(kind, known)}")
    return opened


def _forms(name: str, checkpoint: Checkpoint, task: Task, form: Form | None) -> list[Form]:
    """Return the forms to ask ``task`` in: the one that was wanted, or those that are fair."""
    if form == "chat" and checkpoint.format is None:
        raise InputError(
            f"{name} has no chat format, so it cannot be asked in chat form. "
            "Fine-tune it first, or pass --form completion."
        )
    if form is not None:
        check_form(task, form)
        return [form]
    found: list[Form] = []
    if checkpoint.format is not None and task.scoring != "likelihood":
        found.append("chat")
    is_base = checkpoint.format is None or checkpoint.record.stage == "pretrain"
    if task.scoring == "likelihood" or (is_base and task.completion(0) is not None):
        found.append("completion")
    if not found:
        raise InputError(
            f"{name} has no chat format, and {task.name!r} can only be asked in a chat. "
            "Fine-tune the checkpoint first, or leave the task out."
        )
    return found


def _journal(checkpoint: Checkpoint, task: Task, form: Form, max_tokens: int, ranks: Ranks) -> Journal:
    """Return the answers so far of an evaluation with the same checkpoint, rows and form."""
    format = checkpoint.format.fingerprint if checkpoint.format else checkpoint.tokenizer.sha256
    inputs = [__version__, checkpoint.weights_sha256, format, task.name, task.rows.digest, form, max_tokens]
    name = f"{task.name.replace('/', '-')}.{form}.{digest(inputs)[:12]}"
    return Journal(paths.home() / "eval" / name, ranks.rank)


def _agreements(
    engine: Engine,
    checkpoint: Checkpoint,
    tasks: Sequence[Task],
    limit: int | None,
    seed: int,
    max_tokens: int,
    progress: Progress,
) -> tuple[Agreement, ...]:
    if not tasks:
        return ()
    other = Transformers(checkpoint)
    num = min(limit or _MOST_COMPARED, _MOST_COMPARED)
    return tuple(
        agreement(engine, other, task, choose(task, num, seed), max_tokens=max_tokens, progress=progress)
        for task in tasks
    )


def _bits(
    checkpoint: Checkpoint, data_root: Path | None, num: int, progress: Progress
) -> dict[str, BitsPerByte]:
    """Return bits per byte on held-out documents: of the primer, or of every folder of ``pretrain``."""
    if data_root is None:
        sources = [PRIMER]
    else:
        sources = sorted(f"pretrain/{path.name}" for path in data_root.glob("pretrain/*") if path.is_dir())
        if not sources:
            raise DataError(f"{data_root} has no folder pretrain/NAME with documents; {BITS!r} needs one.")
    corpora = {s: open_corpus([s], data_root=data_root, seed=0, num_validation=num) for s in sources}
    return {
        source: document_bits(checkpoint, corpus.validation, progress=progress)
        for source, corpus in corpora.items()
    }
