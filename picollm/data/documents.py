"""Pretraining text: documents from the offline primer, or from folders of text in the published layouts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from picollm.data.rows import load_rows
from picollm.errors import DataError, InputError

PRIMER = "primer"
_VALIDATION_SEED_OFFSET = (
    1_000_003  # the primer's held-out documents are another stream of the same generator
)


@dataclass(frozen=True)
class Corpus:
    """Text to learn from, and held-out text of the same kind.

    Attributes:
        training: Endless documents in an order that is a function of the seed alone.
        validation: Documents that training never draws.
        provenance: For each source its name, digest and number of documents.
    """

    training: Iterator[str]
    validation: list[str]
    provenance: list[dict[str, Any]]


def open_corpus(sources: Sequence[str], *, data_root: Path | None, seed: int, num_validation: int) -> Corpus:
    """Return the documents of ``sources``: ``primer`` alone, or text folders below ``data_root`` and Hub ids.

    In a folder the last file (by name) is for validation and the others for training, nanochat's convention.

    Raises:
        InputError: ``sources`` is empty or mixes the primer with real text.
        DataError: A folder has no text for training, or a row has no string ``text``.
    """
    if not sources:
        raise InputError("pretrain.sources is empty; expected 'primer', or folders with a 'text' column.")
    if PRIMER in sources:
        if len(sources) > 1:
            raise InputError("pretrain.sources mixes 'primer' with other text; expected one or the other.")
        return _primer(seed, num_validation)
    return _folders(sources, data_root, seed, num_validation)


def _primer(seed: int, num_validation: int) -> Corpus:
    from picollm.data import primer

    held_out = list(itertools.islice(primer.documents(seed + _VALIDATION_SEED_OFFSET), num_validation))
    provenance = [{"source": PRIMER, "sha256": primer.digest(seed), "seed": seed}]
    return Corpus(primer.documents(seed), held_out, provenance)


def _folders(sources: Sequence[str], data_root: Path | None, seed: int, num_validation: int) -> Corpus:
    training: list[Sequence[dict[str, Any]]] = []
    validation: list[str] = []
    provenance: list[dict[str, Any]] = []
    for source in sources:
        rows, held_out = _open_folder(source, data_root)
        training.append(rows)
        validation += [_text(row, source, index) for index, row in enumerate(held_out[:num_validation])]
        files = {Path(name).name: digest for name, digest in rows.files.items()}
        about = {"source": source, "sha256": rows.digest, "files": files, "documents": len(rows)}
        provenance.append(about)
    return Corpus(_endless(training, sources, seed), validation[:num_validation], provenance)


def _open_folder(source: str, data_root: Path | None) -> tuple[Any, Sequence[dict[str, Any]]]:
    """Return the training rows and the held-out rows of one source."""
    if source.startswith("hub:"):
        rows = load_rows(source, split="train")
        return rows, []
    folder = Path(source) if data_root is None else data_root / source
    files = sorted(path for path in folder.glob("*") if path.suffix in (".parquet", ".jsonl", ".gz"))
    if len(files) < 2:
        raise DataError(
            f"{folder} has {len(files)} data files; expected at least two: the last one is for validation, "
            "the others for training."
        )
    return load_rows(files[:-1]), load_rows(files[-1])


def _text(row: dict[str, Any], source: str, index: int) -> str:
    text = row.get("text")
    if not isinstance(text, str):
        raise DataError(f"{source}, row {index}: 'text' is {text!r:.60}; expected a string.")
    return text


def _endless(rows: Sequence[Sequence[dict[str, Any]]], names: Sequence[str], seed: int) -> Iterator[str]:
    """Yield the documents of all sources, shuffled together anew in every epoch."""
    places = [(source, index) for source, held in enumerate(rows) for index in range(len(held))]
    if not places:
        raise DataError(f"no documents in {', '.join(names)}; expected rows with a 'text' column.")
    for epoch in itertools.count():
        for place in np.random.default_rng([seed, epoch]).permutation(len(places)):
            source, index = places[place]
            yield _text(rows[source][index], names[source], index)
