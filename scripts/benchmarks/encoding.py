"""The fast encoder against the ``tokenizers`` library, on every text of the data: expected is no difference.

Every string in every parquet, JSON-lines and text file under ``../shared/data`` (else the package's own
conversations), for three tokenizers: ours, one like Qwen2's, one like Llama 3's. ``vs_tokenizers`` compares
CPU time.
"""

from __future__ import annotations

import gzip
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from picollm.data.rows import load_rows
from scripts.benchmarks.agreement import make_tokenizers
from scripts.benchmarks.render import SHARED, conversations

BATCH = 1000
PIECE = 20_000  # characters; longer texts are left to the library anyway


def run(full: bool = False) -> dict[str, Any]:
    """Return the number of texts that differ; without ``full``, of at most 2,000 rows of each file."""
    kinds = make_tokenizers(list(conversations("mix", 1000)))
    rows = [{"tokenizer": kind, "texts": 0, "characters": 0, "different": 0} for kind in kinds]
    seconds = {"fast": 0.0, "slow": 0.0}
    for batch in batches(texts(None if full else 2000)):
        for row, tokenizer in zip(rows, kinds.values(), strict=True):
            begin = time.process_time()
            fast = tokenizer.encode_batch(batch)
            middle = time.process_time()
            slow = [tokenizer.encode_with_offsets(text)[0] for text in batch]
            seconds["fast"] += middle - begin
            seconds["slow"] += time.process_time() - middle
            row["texts"] += len(batch)
            row["characters"] += sum(map(len, batch))
            row["different"] += sum(map(list.__ne__, fast, slow))
    ratios = {
        "different": float(sum(row["different"] for row in rows)),
        "vs_tokenizers": seconds["slow"] / seconds["fast"],
    }
    return {"ratios": ratios, "rows": rows}


def texts(limit: int | None) -> Iterator[str]:
    if not SHARED.is_dir():
        yield from (message.text for talk in conversations("mix", 2000) for message in talk.messages)
        return
    for file in sorted(SHARED.rglob("*")):
        if file.suffix in (".parquet", ".jsonl"):
            yield from itertools.chain.from_iterable(map(strings, itertools.islice(load_rows(file), limit)))
        elif file.suffix in (".txt", ".md") or file.name.endswith(".txt.gz"):
            whole = read(file)
            yield from (whole[start : start + PIECE] for start in range(0, len(whole), PIECE))


def strings(value: Any) -> Iterator[str]:
    """Yield every string inside ``value``."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from itertools.chain.from_iterable(map(strings, value.values()))
    elif isinstance(value, list | tuple):
        yield from itertools.chain.from_iterable(map(strings, value))


def read(file: Path) -> str:
    data = file.read_bytes()
    return (gzip.decompress(data) if file.suffix == ".gz" else data).decode("utf-8")


def batches(found: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(itertools.islice(found, BATCH)):
        yield batch
