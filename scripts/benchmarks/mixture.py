"""Conversations rendered, kept, packed and hashed: two workers against one, and ten times the rows.

Each measurement is a process of its own, because a peak of memory never goes down again. One worker and two
take turns, and the quicker of each one's runs counts.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NUM_ROWS = 100_000
_TURNS = 3
_ROUNDS = 2


def run(num_rows: int = NUM_ROWS) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        small, large = (_write(Path(folder) / f"{n}.jsonl", n) for n in (num_rows // 10, num_rows))
        turns = [(_measured(large, 1), _measured(large, 2)) for _ in range(_ROUNDS)]
        tenth = _measured(small, 1)
    one, two = (min(runs, key=lambda run: run["seconds"]) for runs in zip(*turns, strict=True))
    assert one["digest"] == two["digest"]
    ratios = {
        "workers_2_vs_1": one["seconds"] / two["seconds"],
        "cpu_2_vs_1": two["cpu_seconds"] / one["cpu_seconds"],
        "peak_10x_rows": one["peak_mib"] / tenth["peak_mib"],
    }
    return {"ratios": ratios, "rows": [*(run for turn in turns for run in turn), tenth]}


def _write(path: Path, num_rows: int) -> Path:
    """Write conversations of three exchanges from the primer, none twice."""
    from picollm.data import primer

    said = primer.rows("smoltalk", "train", limit=3000)
    with path.open("w", encoding="utf-8") as file:
        for number in range(num_rows):
            messages: list[dict[str, str]] = []
            for turn in range(_TURNS):
                talk = said[(number * 7 + turn * 1009) % len(said)]["messages"]
                messages += [dict(each) for each in talk if each["role"] != "system"]
            messages[0]["content"] += f" ({number})"
            file.write(json.dumps({"messages": messages}) + "\n")
    return path


def _measured(path: Path, workers: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.benchmarks.mixture", str(path), str(workers)],
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _measure(path: Path, workers: int) -> dict[str, Any]:
    from picollm import paths
    from picollm.chat.format import ChatFormat
    from picollm.data.mixture import Source
    from picollm.recipes.config import Recipe
    from picollm.recipes.conversations import open_source, read_mixture
    from picollm.tokenizer import Tokenizer
    from picollm.train.batches import Batches

    fmt = ChatFormat.named("picollm", Tokenizer.load(paths.PICO_BASE))
    recipe = Recipe(mixture=(Source("smoltalk", location=str(path)),))
    start = time.perf_counter()
    tasks = [open_source(recipe.mixture[0], "train", recipe, None)]
    with tempfile.TemporaryDirectory() as cache:
        reading = read_mixture(recipe, tasks, fmt, recipe.sft.max_tokens, Path(cache), workers=workers)
        digest = Batches(reading.examples, 4096, 1, reading.order(recipe)).digest
    seconds = time.perf_counter() - start
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "rows": len(tasks[0]),
        "workers": workers,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(sum(each.ru_utime + each.ru_stime for each in (own, children)), 2),
        "tokens": reading.examples.num_tokens,
        "peak_mib": round(own.ru_maxrss / 1024, 1),
        "digest": digest[:16],
    }


if __name__ == "__main__":
    print(json.dumps(_measure(Path(sys.argv[1]), int(sys.argv[2]))))
