"""Loading a checkpoint: time against reading the file, memory against the size of the weights.

The shape is SmolLM2-135M's (30 layers, width 576, 49,152 tokens, tied) with random weights in bf16. Each
measurement is a process of its own. Time is told twice: what a person waits for, the best of all rounds,
since on a busy machine a clock measures others too; and processor time of all threads, the median. Linux
only: the peak is the kernel's VmHWM.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_SHAPE = {
    "vocab_size": 49_152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "model_type": "llama",
    "max_position_embeddings": 8192,
}
_SETUP = """
import json, re, time
import torch
from picollm.checkpoint import Checkpoint
torch.set_num_threads(1)
def status(name):
    return 1024 * int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1])
held, before = status("VmRSS"), (time.process_time(), time.perf_counter())
"""
_REPORT = """
cpu_s, wall_s = time.process_time() - before[0], time.perf_counter() - before[1]
print(json.dumps({"cpu_s": cpu_s, "wall_s": wall_s, "peak_bytes": status("VmHWM") - held}))
"""
_WAYS = {
    # What nobody can do without: every byte from the page cache into memory of one's own.
    "read": "data = open({file!r}, 'rb').read()",
    "load_bf16": "c = Checkpoint.load({place!r}, dtype=torch.bfloat16, verify=False)",
    "load_fp32": "c = Checkpoint.load({place!r}, dtype=torch.float32, verify=False)",
    "load_bf16_verified": "c = Checkpoint.load({place!r}, dtype=torch.bfloat16)",
}


def run(repeats: int = 9) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory) / "checkpoint"
        num_bytes = _save(place)
        measured: dict[str, list[dict[str, float]]] = {name: [] for name in _WAYS}
        for _ in range(repeats):
            for name, code in _WAYS.items():
                file = str(place / "model.safetensors")
                measured[name].append(_measure(code.format(file=file, place=str(place))))
    rows, median = [], {}
    best = {name: min(one["wall_s"] for one in runs) for name, runs in measured.items()}
    for name, runs in measured.items():
        median[name] = {key: statistics.median(one[key] for one in runs) for key in runs[0]}
        weights = num_bytes * (2 if name == "load_fp32" else 1)
        peak = round(median[name]["peak_bytes"] / weights, 3)
        rows.append(
            {"way": name, **{k: round(v, 3) for k, v in median[name].items()}, "peak_of_weights": peak}
        )
    ratios = {f"{name}_vs_read": best[name] / best["read"] for name in _WAYS if name != "read"}
    ratios |= {
        f"{name}_cpu_vs_read": median[name]["cpu_s"] / median["read"]["cpu_s"]
        for name in _WAYS
        if name != "read"
    }
    ratios |= {f"{row['way']}_peak_of_weights": row["peak_of_weights"] for row in rows}
    return {"ratios": ratios, "rows": rows}


def _save(place: Path) -> int:
    import torch

    from picollm.checkpoint import Checkpoint, Record
    from picollm.model.config import ModelConfig
    from picollm.model.llama import Model
    from picollm.tokenizer import Tokenizer

    tokenizer = Tokenizer.train(["a small text " * 9], 300)
    Checkpoint.save(place, Model(ModelConfig(**_SHAPE)), tokenizer, None, Record("pretrain"), torch.bfloat16)
    return (place / "model.safetensors").stat().st_size


def _measure(code: str) -> dict[str, float]:
    program = [sys.executable, "-c", _SETUP + code + _REPORT]
    run = subprocess.run(program, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(run.stdout)
    return found
