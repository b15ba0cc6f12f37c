"""Fine-tuning against TRL's SFTTrainer: same conversations, same matrix parameters, AdamW, two threads each.

TRL gets its best CPU setting: best-fit packing, one packed row per device batch and as many accumulation
steps as the step has rows, no activation checkpointing. Two shapes: a tiny model with 4,096 tokens a step,
and SmolLM2-135M's with 2,048.

Every side lives in a process of its own and takes a step when it is told to, so that the sides alternate
step by step on a machine whose speed changes, and each one's peak memory is its own. What counts is
supervised tokens per second of CPU time; the first two steps of each side are not counted. Threads that wait
for each other sleep instead of spinning, on both sides: on a machine with other work to do, a spinning
thread would count as a busy one. ``mfu_*`` is the share of the rate that matrix products of the model's own
shapes reach in a third process, which has its turns too, counting only necessary arithmetic; ``memory_*`` is
our peak memory over TRL's.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

THREADS = 2
WARM_UP = 2  # the first step compiles kernels; the second meets the optimizer's state for the first time
_NOT_COUNTED = {"peak_rss_mib": 0, "matrix_parameters": 0}
BATCH_TOKENS = 1024  # ours: larger batches keep more alive for backward


class Rendered(NamedTuple):
    ids: list[int]
    loss_mask: list[int]


@dataclass(frozen=True)
class Shape:
    """A Llama, the rows TRL packs for it, and how many steps are timed."""

    sizes: dict[str, int]
    row_tokens: int
    rows_per_step: int
    median_length: int
    num_rounds: int


TINY = Shape(
    {"vocab_size": 8192, "hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 6}
    | {"num_attention_heads": 6, "num_key_value_heads": 6},
    row_tokens=512,
    rows_per_step=8,
    median_length=240,
    num_rounds=5,
)
SMOL = Shape(
    {"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30}
    | {"num_attention_heads": 9, "num_key_value_heads": 3},
    row_tokens=1024,
    rows_per_step=2,
    median_length=430,
    num_rounds=2,
)


def run() -> dict[str, Any]:
    """Return the ratios, and one row per side and shape."""
    ratios: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    for label, shape, precisions in (("", TINY, ("fp32", "bf16")), ("_135m", SMOL, ("bf16",))):
        sides = {(side, p): (worker, shape, p) for p in precisions for side, worker in WORKERS.items()}
        rates = {} if label else {("products", p): (_products, shape, p) for p in precisions}
        measured = _alternate(sides | rates, shape.num_rounds)
        for precision in precisions:
            ours, theirs = measured["picollm", precision], measured["trl", precision]
            pairs = zip(ours["rates"], theirs["rates"], strict=True)
            ratios[f"vs_trl{label}_{precision}"] = median(our / their for our, their in pairs)
            ratios[f"memory{label}_{precision}"] = ours["peak_rss_mib"] / theirs["peak_rss_mib"]
            if not label:
                reached = zip(ours["flops"], measured["products", precision]["flops"], strict=True)
                ratios[f"mfu_{precision}"] = median(step / product for step, product in reached)
        rows += [_row(label, *side, measured[side]) for side in sides]
    return {"ratios": ratios, "rows": rows}


def _row(label: str, side: str, precision: str, taken: dict[str, Any]) -> dict[str, Any]:
    return {
        "shape": label.lstrip("_") or "tiny",
        "side": side,
        "precision": precision,
        "supervised_tokens_per_cpu_s": round(median(taken["rates"]), 1),
        "tokens_per_cpu_s": round(median(taken["token_rates"]), 1),
        "peak_rss_mib": taken["peak_rss_mib"],
        "matrix_parameters": taken["matrix_parameters"],
    }


def _alternate(
    sides: dict[Any, tuple[Callable[..., None], Shape, str]], num_rounds: int
) -> dict[Any, dict[str, Any]]:
    """Return what each side measured when all take turns, one step at a time."""
    os.environ.update(
        OMP_NUM_THREADS=str(THREADS), OMP_WAIT_POLICY="PASSIVE"
    )  # read by the libraries of a child
    context = multiprocessing.get_context("spawn")
    connections, processes = {}, []
    for name, (worker, *arguments) in sides.items():
        connections[name], theirs = context.Pipe()
        processes.append(context.Process(target=worker, args=(theirs, *arguments), daemon=True))
        processes[-1].start()
        connections[name].recv()  # ready: one at a time, so that imports do not disturb steps
    steps: dict[Any, list[dict[str, Any]]] = {name: [] for name in sides}
    for _ in range(num_rounds + WARM_UP):
        for name, connection in connections.items():
            connection.send("step")
            steps[name].append(connection.recv())
    for connection, process in zip(connections.values(), processes, strict=True):
        connection.send("stop")
        process.join()
    return {name: _summary(taken) for name, taken in steps.items()}


def _summary(steps: list[dict[str, Any]]) -> dict[str, Any]:
    timed = steps[WARM_UP:]
    return {
        "rates": [step["supervised"] / step["cpu_s"] for step in timed],
        "token_rates": [step["tokens"] / step["cpu_s"] for step in timed],
        "flops": [step["flops"] / step["cpu_s"] for step in timed],
        "peak_rss_mib": steps[-1]["peak_rss_mib"],
        "matrix_parameters": steps[-1]["matrix_parameters"],
    }


def conversations(shape: Shape) -> Iterator[Rendered]:
    """Yield conversations that fit a row: log-normal lengths, 1 to 3 exchanges, 55 % supervised."""
    rng = np.random.default_rng(0)
    needed = shape.row_tokens * shape.rows_per_step * (shape.num_rounds + WARM_UP + 2)
    while needed > 0:
        length = int(np.clip(rng.lognormal(np.log(shape.median_length), 0.55), 24, shape.row_tokens))
        num_exchanges = int(rng.integers(1, 4))
        place = np.arange(length) * num_exchanges / length % 1.0
        ids = np.minimum(rng.zipf(1.3, length) + 3, shape.sizes["vocab_size"] - 1)
        yield Rendered(ids.tolist(), (place >= rng.uniform(0.4, 0.5)).astype(int).tolist())
        needed -= length


def _picollm(connection: Connection, shape: Shape, precision: str) -> None:
    import torch

    from picollm.model.config import ModelConfig
    from picollm.model.llama import Model
    from picollm.progress import SILENT
    from picollm.train.batches import Batches
    from picollm.train.config import TrainConfig
    from picollm.train.distributed import Ranks
    from picollm.train.examples import Examples
    from picollm.train.loop import Run

    torch.set_num_threads(THREADS)
    examples = Examples()
    for rendered in conversations(shape):
        examples.append(rendered)
    tokens_per_step = shape.row_tokens * shape.rows_per_step
    batches = Batches(examples, BATCH_TOKENS)
    model = Model(ModelConfig(**shape.sizes, model_type="llama"))
    config = TrainConfig(
        num_steps=10**6, tokens_per_step=tokens_per_step, precision=precision, schedule="constant"
    )
    with tempfile.TemporaryDirectory() as directory:
        run = Run(model, batches, config, Ranks(), Path(directory), None, SILENT)
        before = {"tokens": 0, "supervised_tokens": 0}

        def counts() -> dict[str, Any]:
            taken = {name: getattr(run.state, name) - before[name] for name in before}
            before.update({name: getattr(run.state, name) for name in before})
            flops, run.state.tally = run.state.tally.flops, type(run.state.tally)()
            return {"tokens": taken["tokens"], "supervised": taken["supervised_tokens"], "flops": flops}

        turns = _turns(connection, model.config.num_matrix_parameters, counts)
        next(turns)
        while True:
            try:
                next(turns)
            except StopIteration:
                return
            run.step()


def _products(connection: Connection, shape: Shape, precision: Any) -> None:
    import torch

    from picollm.model.config import ModelConfig
    from picollm.train.calibrate import matrix_rate

    torch.set_num_threads(THREADS)
    config = ModelConfig(**shape.sizes, model_type="llama")
    connection.send("ready")
    while connection.recv() == "step":
        rate = matrix_rate(config, precision, torch.device("cpu"))
        connection.send({"flops": rate, "cpu_s": 1.0, "supervised": 0, "tokens": 0} | _NOT_COUNTED)


def _trl(connection: Connection, shape: Shape, precision: str) -> None:
    os.dup2(2, 1)  # it prints a summary; stdout is for the result
    warnings.simplefilter("ignore")
    import datasets
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback
    from transformers.utils import logging
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(THREADS)
    logging.set_verbosity_error()
    datasets.disable_progress_bars()
    seen = {"tokens": 0, "supervised": 0}

    class Counting(SFTTrainer):
        def training_step(self, model: Any, inputs: Any, *rest: Any) -> Any:
            seen["tokens"] += inputs["input_ids"].numel()
            seen["supervised"] += int((inputs["labels"] != -100).sum())
            return super().training_step(model, inputs, *rest)

    def counts() -> dict[str, Any]:
        taken = {**seen, "flops": 0.0}
        seen.update(tokens=0, supervised=0)
        return taken

    model = LlamaForCausalLM(
        LlamaConfig(**shape.sizes, max_position_embeddings=2048, tie_word_embeddings=True)
    )
    embedding = shape.sizes["vocab_size"] * shape.sizes["hidden_size"]
    matrices = embedding + sum(p.numel() for p in model.model.layers.parameters() if p.ndim == 2)
    turns = _turns(connection, matrices, counts)

    class Turns(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            next(turns)
            next(turns)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = next(turns, "stop") == "stop"

    data = [{"input_ids": r.ids, "assistant_masks": r.loss_mask} for r in conversations(shape)]
    with tempfile.TemporaryDirectory() as directory:
        config = SFTConfig(
            output_dir=directory, max_steps=10**6, per_device_train_batch_size=1,
            gradient_accumulation_steps=shape.rows_per_step, packing=True, max_length=shape.row_tokens,
            gradient_checkpointing=False, learning_rate=1e-3, lr_scheduler_type="constant", weight_decay=0.1,
            bf16=precision == "bf16", use_cpu=True, save_strategy="no", report_to="none", disable_tqdm=True,
            logging_strategy="no",
        )  # fmt: skip
        trainer = Counting(
            model, config, train_dataset=datasets.Dataset.from_list(data), processing_class=_tokenizer(shape),
            callbacks=[Turns()],
        )  # fmt: skip
        trainer.train()


def _turns(
    connection: Connection, matrix_parameters: int, counts: Callable[[], dict[str, Any]]
) -> Iterator[str]:
    """Yield once when ready and then before every step; report a step when asked for the next turn."""
    connection.send("ready")
    yield "ready"
    while connection.recv() == "step":
        start = time.process_time()
        yield "step"
        taken = {"cpu_s": time.process_time() - start, "matrix_parameters": matrix_parameters, **counts()}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        connection.send({**taken, "peak_rss_mib": peak})


def _tokenizer(shape: Shape) -> Any:
    """Return a tokenizer that TRL only asks for its padding: the rows are token ids already."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {f"w{i}": i for i in range(shape.sizes["vocab_size"] - 2)} | {
        "<pad>": shape.sizes["vocab_size"] - 2
    }
    words["<eos>"] = shape.sizes["vocab_size"] - 1
    plain = Tokenizer(models.WordLevel(words, unk_token="w0"))
    return PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", eos_token="<eos>")


WORKERS = {"picollm": _picollm, "trl": _trl}
