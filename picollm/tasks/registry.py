"""Tasks by name, and where their rows come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from picollm.data.primer.wordings import SPLITS
from picollm.data.rows import HUB, Filter, Rows, load_rows, rows_of, split_names
from picollm.data.wordlist import load_words
from picollm.errors import DataError, InputError, nearest
from picollm.tasks.arc import Arc
from picollm.tasks.facts import Facts
from picollm.tasks.gsm8k import Gsm8k
from picollm.tasks.humaneval import HumanEval
from picollm.tasks.identity import Identity, identity_rows
from picollm.tasks.ifeval.task import Ifeval
from picollm.tasks.joined import MEMBERS, joined_rows
from picollm.tasks.jsonl import Jsonl
from picollm.tasks.mmlu import Mmlu
from picollm.tasks.smoltalk import SmolTalk
from picollm.tasks.spelling import SimpleSpelling, SpellingBee
from picollm.tasks.task import Task

HOLDOUT = 50  # where a set was published without validation rows, every 50th training row is one


@dataclass(frozen=True)
class Entry:
    """How a task gets its rows.

    Attributes:
        kind: The class.
        twin: The name of the primer's rows, where the primer has such.
        published: Directories below a data root where the set may lie, in the order of preference.
        splits: The set's own name of a split, where it differs.
    """

    kind: type[Task]
    twin: str | None = None
    published: tuple[str, ...] = ()
    splits: tuple[tuple[str, tuple[str, ...]], ...] = ()


_MMLU_SPLITS = (("train", ("auxiliary_train", "auxiliary_train_small")),)
_WORDS = ("words/words_alpha.txt", "words/words_alpha.txt.gz", "words_alpha.txt")

TASKS = {
    "smoltalk": Entry(SmolTalk, "smoltalk", ("smol-smoltalk", "smoltalk/all", "smoltalk", "chat/mix")),
    "identity": Entry(Identity),
    "mmlu": Entry(Mmlu, "mmlu", ("mmlu/all",), _MMLU_SPLITS),
    "arc_easy": Entry(Arc, None, ("ai2_arc/ARC-Easy",)),
    "arc_challenge": Entry(Arc, None, ("ai2_arc/ARC-Challenge",)),
    "gsm8k": Entry(Gsm8k, "gsm8k", ("gsm8k/main",)),
    "humaneval": Entry(HumanEval, None, ("openai_humaneval",)),
    "ifeval": Entry(Ifeval, None, ("ifeval", "IFEval"), (("test", ("test", "train")),)),
    "spelling": Entry(SimpleSpelling, "words", _WORDS),
    "spelling_bee": Entry(SpellingBee, "words", _WORDS),
    "facts": Entry(Facts, "facts"),
    "jsonl": Entry(Jsonl),
    "joined": Entry(SmolTalk),
}


def load_task(
    name: str,
    split: str,
    *,
    data_root: Path | None = None,
    location: str | Path | None = None,
    filter: Filter | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Task:
    """Return the task ``name`` on the rows of ``split`` that have the values of ``filter``, by column.

    The rows come from ``location`` (a file or directory, looked up below ``data_root`` first, or
    ``hub:org/name@revision``); without one from the set's published place below ``data_root``; without that
    from the package's own generator. Facts and identity are always the package's own unless a location is
    given, and so are words where the data root has no word list; ``joined`` is made of the rows of other
    tasks. A set without validation rows of its own,
    and a single file, gives up every 50th training row for them.

    Raises:
        InputError: An unknown task or split, or a limit below 1.
        DataError: The rows are missing or damaged; the text says where they were looked for.
        UnavailableError: The Hub cannot be reached.
    """
    entry = TASKS.get(name)
    if entry is None:
        raise InputError(f"no task is called {name!r}; {nearest(name, TASKS)}")
    if split not in SPLITS:
        raise InputError(f"task {name!r} has no split {split!r}; expected one of {', '.join(SPLITS)}.")
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; expected at least 1 row, or no limit.")
    rows = _rows(name, entry, split, data_root, location, seed)
    # Few rows are held out; none of them may be of the wanted kind.
    rows = rows.filtered(filter or {}, may_be_empty=split == "validation")
    return entry.kind(name, rows.limited(limit), split)


def has_rows(name: str, split: str, data_root: Path | None) -> bool:
    """Return whether the task ``name`` has rows of ``split`` without a location: published or generated."""
    entry = TASKS[name]
    places = [data_root / place for place in entry.published] if data_root is not None else []
    place = next((place for place in places if place.exists()), None)
    if place is None:
        generated = entry.twin is not None and (data_root is None or entry.twin == "words" or not places)
        return generated or entry.kind is Identity
    wanted = dict(entry.splits).get(split, (split,))
    return entry.twin == "words" or not split_names(place) or not split_names(place).isdisjoint(wanted)


def _rows(
    name: str,
    entry: Entry,
    split: str,
    data_root: Path | None,
    location: str | Path | None,
    seed: int,
) -> Rows:
    if name == "joined":
        published = "test" if split == "test" else "train"  # validation rows may be some of training's
        names = [member for member in MEMBERS if has_rows(member, published, data_root)]
        tasks = [load_task(member, split, data_root=data_root, seed=seed) for member in names]
        return rows_of(joined_rows(tasks, split, seed), f"joined/{split} of {', '.join(names)} (seed {seed})")
    place = _place(name, entry, data_root, location)
    if entry.kind is Identity:
        rows = identity_rows(split, place)
        return rows if split == "test" else _held_out(rows, split)
    if place is None:
        return _generated(name, entry, split, seed)
    if entry.twin == "words":
        return load_words(place, split, seed=seed)
    return _published(entry, place, split)


def _place(name: str, entry: Entry, data_root: Path | None, location: str | Path | None) -> str | Path | None:
    """Return where the rows lie, or None where the package generates them."""
    if location is not None:
        if str(location).startswith(HUB):
            return str(location)
        below = (data_root or Path()) / location
        return below if below.exists() else location
    if data_root is None or not entry.published:
        return None
    if not data_root.is_dir():
        raise DataError(f"the data root {data_root} is no directory; expected one in the published layouts.")
    for published in entry.published:
        if (data_root / published).exists():
            return data_root / published
    if entry.twin == "words":
        return None
    raise DataError(
        f"{data_root} has no rows for task {name!r}; looked for {', '.join(entry.published)}. "
        "Put the set there, name its place with 'location', or leave the task out."
    )


def _generated(name: str, entry: Entry, split: str, seed: int) -> Rows:
    from picollm.data import primer

    if entry.twin is None:
        raise InputError(
            f"task {name!r} needs data: pass --data-root, or name a file or Hub id as its location."
        )
    return rows_of(primer.rows(entry.twin, split, seed=seed), f"primer/{entry.twin}/{split} (seed {seed})")


def _published(entry: Entry, place: str | Path, split: str) -> Rows:
    """Return the rows of ``split``; without validation rows of its own, a set gives up some training rows.

    Whatever is chosen of them afterwards, a row that is held out is held out of every source.
    """
    has = split_names(place)
    shares = split != "test" and "validation" not in has
    wanted = "train" if shares else split
    names = dict(entry.splits).get(wanted, (wanted,))
    rows = load_rows(place, split=next((name for name in names if name in has), names[0]))
    return _held_out(rows, split) if shares else rows


def _held_out(rows: Rows, split: str) -> Rows:
    """Return the training rows without every 50th, or those that were left out for validation."""
    held_out = np.arange(len(rows)) % HOLDOUT == HOLDOUT - 1
    return rows.select(np.flatnonzero(held_out if split == "validation" else ~held_out), split)
