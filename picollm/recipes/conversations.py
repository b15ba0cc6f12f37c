"""The mixture of a run: its sources opened, rendered once and kept, and the order in which they are seen."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from picollm import paths
from picollm.chat.conversation import Conversation
from picollm.chat.format import ChatFormat
from picollm.data.check.overlap import EvaluationTexts, Overlap
from picollm.data.mixture import Source, check_epochs, epochs_of, plan_curriculum
from picollm.data.rows import file_sha256, rows_of
from picollm.data.workers import in_order
from picollm.errors import DataError, InputError
from picollm.progress import SILENT, Progress
from picollm.recipes.config import Recipe
from picollm.recipes.rendering import COUNTS, Renderer, parts, sayable
from picollm.tasks.registry import TASKS, has_rows, load_task
from picollm.tasks.task import Task
from picollm.train.examples import Int64s
from picollm.train.stored import INDEX, Shard, StoredExamples

COUNTED = "shard.json"
ROWS_PER_WORKER = 25_000  # below this, starting a process takes longer than what it saves
_CODE = ("chat", "data", "tasks", "tools", "recipes/rendering.py", "train/examples.py", "train/stored.py")


@dataclass
class Reading:
    """A rendered mixture: its examples, what each source is made of, and how often an epoch sees it."""

    examples: StoredExamples
    epochs: list[float]
    provenance: list[dict[str, Any]]

    def order(self, recipe: Recipe) -> Callable[[int], Int64s]:
        """Return which examples an epoch is made of: a pure function of (seed, epoch)."""
        members = [self.examples.members(number) for number in range(len(recipe.mixture))]
        sizes = [len(each) for each in members]
        firsts = np.array([each[0] for each in members], np.int64)

        def members_of_epoch(epoch: int) -> Int64s:
            pairs = plan_curriculum(recipe.mixture, recipe.stage, sizes, self.epochs, recipe.seed, epoch)
            return firsts[pairs[:, 0]] + pairs[:, 1]

        return members_of_epoch


def open_source(source: Source, split: str, recipe: Recipe, data_root: Path | None) -> Task:
    """Return the rows of ``split`` of a source; of another split than its own, a few for validation.

    Raises:
        DataError: The data are not what the source's ``sha256`` pins, or missing, or damaged.
        InputError: An unknown task or split.
    """
    task = load_task(
        source.task,
        split,
        data_root=data_root,
        location=source.location,
        filter=source.filter,
        limit=source.limit if split == source.split else recipe.sft.num_validation_rows,
        seed=recipe.seed,
    )
    if split == source.split and source.sha256 not in (None, task.rows.digest):
        raise DataError(
            f"{task.rows.name} changed: its sha256 is {task.rows.digest}, the recipe pins {source.sha256} "
            f"for {source.label!r}. Restore the data, or pin what it is now."
        )
    return task


def held_out(
    recipe: Recipe, data_root: Path | None, fmt: ChatFormat, context: int, progress: Progress
) -> dict[str, list[Conversation]]:
    """Return the validation rows of each source that fit ``context`` tokens, by its name; say what is lost.

    A source has none when it is small: only every 50th row of a set without a validation split is held out.
    """
    found = {}
    for source in recipe.mixture:
        task = open_source(source, "validation", recipe, data_root)
        conversations = [sayable(conversation, fmt) for conversation in task]
        lengths = [len(rendered.ids) for rendered in fmt.render_batch(conversations)]
        fitting = [c for c, n in zip(conversations, lengths, strict=True) if n <= context]
        if fitting:
            found[source.label] = fitting
        if not fitting or len(fitting) < len(conversations):
            progress.note(
                f"validation of {source.label}: {len(fitting)} of {len(conversations)} held-out "
                f"conversations fit {context} tokens{'' if fitting else ', so it has no validation loss'}"
            )
    return found


def evaluation_tasks(recipe: Recipe, data_root: Path | None) -> list[Task]:
    """Return the test rows of every task that can be scored here, which training must not have seen."""
    names = [
        name for name, entry in TASKS.items() if entry.kind.scoring and has_rows(name, "test", data_root)
    ]
    return [load_task(name, "test", data_root=data_root, seed=recipe.seed) for name in names]


def read_mixture(
    recipe: Recipe,
    tasks: Sequence[Task],
    fmt: ChatFormat,
    limit: int,
    cache: Path,
    *,
    evaluations: Sequence[Task] = (),
    workers: int | None = None,
    progress: Progress = SILENT,
) -> Reading:
    """Return every row of every source rendered once, with counts of what ``limit`` took, source by source.

    What is rendered is kept in ``cache``, under a key of all that decides it: the format's fingerprint, the
    hash of the data, the limit and this code. Of several processes one renders and the others wait.

    Raises:
        ContextError: A conversation is longer than ``limit`` tokens and the recipe says ``raise``.
        DataError: A row does not have the schema of its data set.
        InputError: Nothing of a source is left, or its share of an epoch cannot be reached.
    """
    keys = [
        _key(s, task, recipe, fmt, limit, evaluations) for s, task in zip(recipe.mixture, tasks, strict=True)
    ]
    places = [cache / key[:32] for key in keys]
    with _alone(cache, progress):
        missing = [number for number, place in enumerate(places) if not _whole(place)]
        if missing:
            renderer = Renderer(tasks, fmt, limit, recipe.sft.too_long, _texts(evaluations))
            _render(recipe.mixture, renderer, missing, places, workers, progress)
        counted = [json.loads((place / COUNTED).read_text(encoding="utf-8")) for place in places]
        examples = StoredExamples([(s.label, place) for s, place in zip(recipe.mixture, places, strict=True)])
    measure = "examples" if recipe.sft.shares == "rows" else "supervised_tokens"
    epochs = epochs_of(recipe.mixture, [counts[measure] for counts in counted])
    check_epochs(recipe.mixture, epochs, [counts["examples"] for counts in counted])
    provenance = [
        {**describe(source, task), "epochs": often, **counts}
        for source, task, often, counts in zip(recipe.mixture, tasks, epochs, counted, strict=True)
    ]
    _note_losses(provenance, limit, recipe.sft.too_long, progress)
    return Reading(examples, epochs, provenance)


def describe(source: Source, task: Task) -> dict[str, Any]:
    """Return what identifies the data of a source: files and hashes, and how many rows each step left."""
    rows = task.rows
    return {
        "task": source.task,
        "name": source.label,
        "source": rows.name,
        "split": source.split,
        "sha256": rows.digest,
        "files": {Path(name).name: digest for name, digest in rows.files.items()},
        "filter": source.filter,
        "limit": source.limit,
        "steps": rows.steps,
        "weight": source.weight,
        "share": source.share,
    }


def _render(
    mixture: Sequence[Source],
    renderer: Renderer,
    missing: Sequence[int],
    places: Sequence[Path],
    workers: int | None,
    progress: Progress,
) -> None:
    """Render the sources ``missing``, each into its place."""
    tasks = renderer.tasks
    num_rows = sum(len(tasks[number]) for number in missing)
    if workers is None:
        workers = max(1, min(len(os.sched_getaffinity(0)), num_rows // ROWS_PER_WORKER))
    work = in_order(renderer.render, _parts(tasks, missing), workers)
    with progress.bar("rendering conversations", num_rows, "conversations") as bar:
        for number in missing:
            with paths.atomic_directory(places[number]) as place:
                matches, counts = [], Counter[str]()
                with Shard(place) as shard:
                    for _ in parts(number, len(tasks[number])):
                        part = next(work)
                        shard.append(part.block)
                        matches.append(part.matches)
                        counts.update(part.counts)
                        bar.advance(part.counts["rows"])
                if not counts["examples"]:
                    raise InputError(
                        f"mixture source {mixture[number].label!r} has no row that fits {renderer.limit} "
                        "tokens and is supervised."
                    )
                overlap = renderer.evaluation.overlaps(matches)
                _write_counts(place, counts, overlap)
        next(work, None)


def _parts(tasks: Sequence[Task], missing: Sequence[int]) -> Iterator[Any]:
    for number in missing:
        yield from parts(number, len(tasks[number]))


def _write_counts(place: Path, counts: Counter[str], overlaps: Sequence[Overlap]) -> None:
    document = {
        **{name: counts[name] for name in COUNTS},
        "overlap": [asdict(each) for each in overlaps if each.found],
        "compared_with": [each.file for each in overlaps],
        "written": {path.name: file_sha256(path) for path in sorted(place.iterdir())},
    }
    document["checksum"] = _checksum(document)
    (place / COUNTED).write_text(json.dumps(document, indent=1), encoding="utf-8")


def _whole(place: Path) -> bool:
    """Return whether a shard is there with all its files as they were written."""
    try:
        document = json.loads((place / COUNTED).read_text(encoding="utf-8"))
        if document.pop("checksum") != _checksum(document):
            return False
        written = document["written"]
        return INDEX in written and all(
            file_sha256(place / name) == digest for name, digest in written.items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _checksum(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _key(
    source: Source, task: Task, recipe: Recipe, fmt: ChatFormat, limit: int, evaluations: Sequence[Task]
) -> str:
    decides = {
        "data": task.rows.digest,
        "steps": task.rows.steps,
        "task": source.task,
        "split": source.split,
        "filter": source.filter,
        "format": fmt.fingerprint,
        "limit": limit,
        "too_long": recipe.sft.too_long,
        "evaluations": [(each.name, each.rows.digest) for each in evaluations],
        "code": _code(),
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _code() -> str:
    """Return a hash of the code that decides what an example is: a cache must not outlive a change of it."""
    total = hashlib.sha256()
    for name in _CODE:
        place = paths.PACKAGE / name
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            total.update(path.read_bytes())
    return total.hexdigest()


def _texts(tasks: Sequence[Task]) -> EvaluationTexts:
    return EvaluationTexts(
        [rows_of([conversation.to_dict() for conversation in task], task.name) for task in tasks]
    )


@contextmanager
def _alone(cache: Path, progress: Progress) -> Iterator[None]:
    """Run the block in one process at a time; a process that dies lets the next one in."""
    with paths.disk_errors(cache):
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress.note(f"waiting for another process that renders into {cache}")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _note_losses(provenance: Sequence[dict[str, Any]], limit: int, too_long: str, progress: Progress) -> None:
    kept = " ({parts} parts kept, {left_out} exchanges left out)" if too_long == "split" else ""
    longer = [f"{p['name']} {p['too_long']}{kept.format(**p)}" for p in provenance if p["too_long"]]
    if longer:
        progress.note(f"longer than {limit} tokens ({too_long}): {', '.join(longer)}")
    silent = [f"{p['name']} {p['without_targets']}" for p in provenance if p["without_targets"]]
    if silent:
        progress.note(f"left out, because nothing in them is supervised: {', '.join(silent)}")
