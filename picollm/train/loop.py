"""The training loop: base training and SFT, from the first step or from where a run was interrupted."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from picollm.errors import DivergedError, InputError
from picollm.paths import bound_kernel_caches
from picollm.progress import SILENT, Progress
from picollm.train.batches import Batches
from picollm.train.calibrate import faster_precision
from picollm.train.config import TrainConfig
from picollm.train.distributed import Ranks, joined
from picollm.train.interrupt import Interrupt
from picollm.train.metrics import Metrics, Point, show
from picollm.train.optimizer import Optimizer
from picollm.train.precision import Weights
from picollm.train.schedule import learning_rate_factor
from picollm.train.state import RunState, load_state, save_state
from picollm.train.step import accumulate

Validate = Callable[[Any], dict[str, float]]
STEPS_TO_JUDGE_PACE = 8


@dataclass(frozen=True)
class TrainResult:
    """What a finished run learned and took. The weights are in the model that was handed in."""

    steps: int
    tokens: int
    supervised_tokens: int
    seconds: float
    """Time in steps, over all interrupted parts of the run."""
    precision: str
    curve: list[Point]
    """The records of metrics.jsonl: step, loss, learning_rate, tokens_per_s, validation/..."""


def train(
    model: Any,
    batches: Batches,
    config: TrainConfig,
    *,
    run_dir: Path,
    validate: Validate | None = None,
    progress: Progress = SILENT,
) -> TrainResult:
    """Return the result of training ``model`` in place on ``batches``.

    A run that was interrupted in ``run_dir`` goes on from its newest state and ends with the weights it would
    have had without the interruption, bit for bit on a CPU with the same number of processes.

    Args:
        model: has ``hidden(ids, positions, select)`` and ``lm_head_weight``; its parameters are fp32.
        batches: the stream of packed examples.
        config: everything else that decides what is learned.
        run_dir: gets ``metrics.jsonl`` and ``state/``.
        validate: returns named figures of the model as it is; they enter the curve as ``validation/name``.
        progress: shows a bar and lines.

    Raises:
        InputError: when a step cannot be cut into batches, or ``run_dir`` holds a different run.
        DivergedError: when the loss explodes or is not a number.
        CheckpointError: when every saved state is damaged.
        KeyboardInterrupt: after SIGINT or SIGTERM, with the state saved.
    """
    bound_kernel_caches()
    with joined(config.device) as ranks:
        run = Run(model, batches, config, ranks, run_dir, validate, progress)
        try:
            run.go()
        finally:
            run.weights.restore()
    state = run.state
    return TrainResult(
        state.step, state.tokens, state.supervised_tokens, state.seconds, state.precision, run.metrics.curve
    )


class Run:
    """One run in one process: what is fixed, and the state that steps change."""

    def __init__(
        self,
        model: Any,
        batches: Batches,
        config: TrainConfig,
        ranks: Ranks,
        run_dir: Path,
        validate: Validate | None,
        progress: Progress,
    ) -> None:
        self.model, self.batches, self.config, self.ranks = model.to(config.device), batches, config, ranks
        self.run_dir, self.validate = run_dir, validate
        self.progress = progress if ranks.first else SILENT
        self.batches_per_step = _batches_per_step(config, batches, ranks)
        self.num_batches, num_steps = _horizon(config, batches, self.batches_per_step)
        self.inputs = _inputs(model, batches, config, ranks)
        found = load_state(run_dir, self.inputs, self.progress)
        if found is None:
            precision = (
                faster_precision(model, batches[0]) if config.precision == "auto" else config.precision
            )
            self.state = RunState(precision, num_steps)
        else:
            self.state = found[0]
        self.weights = Weights(model, self.state.precision)
        self.optimizer = Optimizer(self.weights.masters, config)
        if found is not None:
            self._restore(found[1])
        self.metrics = Metrics(run_dir / "metrics.jsonl" if ranks.first else None, self.state.curve)

    def go(self) -> None:
        """Take the remaining steps."""
        state, config = self.state, self.config
        with Interrupt() as interrupt, self.progress.bar("training", state.num_steps, "step") as bar:
            bar.advance(state.step)
            while state.step < state.num_steps:
                stop = self.step(interrupt.asked)
                bar.advance(1)
                last = state.step == state.num_steps
                if last or state.step % config.log_every == 0:
                    show(
                        bar, self.progress, self._close_interval(last), state.num_steps, self._seconds_left()
                    )
                if stop or last or state.step % config.save_every == 0:
                    self.save()
                if stop and not last:
                    self.progress.note(
                        f"interrupted after step {state.step} of {state.num_steps}; everything is saved in "
                        f"{self.run_dir}. The same command goes on from there."
                    )
                    raise KeyboardInterrupt

    def step(self, stop: bool) -> bool:
        """Take one optimizer step, and return whether any process was asked to stop."""
        start = time.perf_counter()
        state, config, ranks = self.state, self.config, self.ranks
        first = state.step * self.batches_per_step
        numbers = range(first, min(first + self.batches_per_step, self.num_batches))
        num_targets = sum(self.batches.num_targets(i) for i in numbers)
        mine = [self.batches[i].to(config.device) for i in numbers[ranks.rank :: ranks.size]]
        loss = accumulate(self.model, self.weights, mine, num_targets)
        ranks.sum_gradients(self.weights.masters.values())
        tokens = sum(len(batch.ids) for batch in mine)
        totals = ranks.sum(torch.tensor([float(loss), tokens, stop], dtype=torch.float64)).tolist()
        norm = self._clip()
        self._check_alive(totals[0] / num_targets, norm, numbers)
        factor = learning_rate_factor(config, state.step, state.num_steps)
        self.optimizer.step(factor)
        self.weights.publish()
        seconds = time.perf_counter() - start
        state.step += 1
        state.tokens += int(totals[1])
        state.supervised_tokens += num_targets
        state.seconds += seconds
        self._count(totals[0], num_targets, totals[1], norm, factor, seconds)
        self._judge_pace()
        return bool(totals[2])

    def _clip(self) -> float:
        masters = list(self.weights.masters.values())
        norm = torch.nn.utils.clip_grad_norm_(masters, self.config.clip_norm or math.inf)
        return float(norm)

    def _check_alive(self, loss: float, norm: float, numbers: range) -> None:
        """Keep a smoothed loss; raise DivergedError before bad gradients reach the weights."""
        state = self.state
        state.first_loss = loss if state.first_loss is None else state.first_loss
        state.smoothed_loss = loss if state.smoothed_loss is None else 0.9 * state.smoothed_loss + 0.1 * loss
        limit = self.config.explosion_factor * state.first_loss
        if math.isfinite(loss) and math.isfinite(norm) and state.smoothed_loss <= limit:
            return
        examples, members = self.batches.examples, [int(m) for i in numbers for m in self.batches.members(i)]
        named = ", ".join(
            f"{m} ({examples.source(m)})" if examples.source(m) else str(m) for m in members[:8]
        )
        more = f" and {len(members) - 8} more" if len(members) > 8 else ""
        raise DivergedError(
            f"step {state.step + 1}: loss {loss:.4g}, gradient norm {norm:.4g}, smoothed loss "
            f"{state.smoothed_loss:.4g} (at most {limit:.4g} is sane) at examples {named}{more}. "
            f"The last good state is kept in {self.run_dir}; lower the learning rate "
            f"({self.config.learning_rate:g}) or lengthen the warm-up ({self.config.warmup_steps} steps)."
        )

    def _count(
        self, loss: float, targets: int, tokens: float, norm: float, factor: float, seconds: float
    ) -> None:
        interval = self.state.interval
        news = {
            "loss": loss,
            "targets": targets,
            "tokens": tokens,
            "norm": norm,
            "seconds": seconds,
            "steps": 1,
        }
        for name, value in news.items():
            interval[name] = interval.get(name, 0.0) + value
        interval["learning_rate"] = self.config.learning_rate * factor

    def _close_interval(self, last: bool) -> Point:
        """Return the record of the steps since the last one, with validation when it is due."""
        state, sums = self.state, self.state.interval
        point: Point = {
            "step": state.step,
            "loss": sums["loss"] / sums["targets"],
            "learning_rate": sums["learning_rate"],
            "gradient_norm": sums["norm"] / sums["steps"],
            "epoch": self.batches.epoch(min(state.step * self.batches_per_step, self.num_batches) - 1),
            "tokens": state.tokens,
            "supervised_tokens": state.supervised_tokens,
            "seconds": round(state.seconds, 3),
            "tokens_per_s": round(sums["tokens"] / sums["seconds"], 1),
            "supervised_tokens_per_s": round(sums["targets"] / sums["seconds"], 1),
        }
        every = self.config.validate_every
        if self.validate and (last or (every and state.step % every == 0)):
            with self.weights.in_full(), torch.no_grad():
                point |= {f"validation/{name}": value for name, value in self.validate(self.model).items()}
        self.metrics.add(point)
        state.interval = {}
        return point

    def _judge_pace(self) -> None:
        """Shorten the horizon once, from the pace of the first steps, when the run has a time limit."""
        state, limit = self.state, self.config.max_seconds
        if limit is None or state.step != STEPS_TO_JUDGE_PACE:
            return
        pace = float(self.ranks.sum(torch.tensor(state.seconds / state.step))) / self.ranks.size
        affordable = max(state.step, int(limit / pace))
        if affordable < state.num_steps:
            self.progress.note(
                f"{limit:g} s allow about {affordable} steps of {pace:.2f} s; {state.num_steps} were planned."
            )
            state.num_steps = affordable

    def _seconds_left(self) -> float:
        return self.state.seconds / self.state.step * (self.state.num_steps - self.state.step)

    def save(self) -> None:
        """Write the state of the run; only the first process does."""
        if self.ranks.first:
            masters = {f"model/{name}": master for name, master in self.weights.masters.items()}
            optimizer = {f"optimizer/{name}": tensor for name, tensor in self.optimizer.tensors().items()}
            tensors = {**masters, **optimizer, "rng": torch.get_rng_state()}
            save_state(self.run_dir, self.state, self.inputs, tensors, self.config.keep_states)
        self.ranks.wait()

    def _restore(self, tensors: dict[str, torch.Tensor]) -> None:
        torch.set_rng_state(tensors.pop("rng"))
        device = self.config.device
        with torch.no_grad():
            for name, master in self.weights.masters.items():
                master.copy_(tensors.pop(f"model/{name}"))
        kept = ((name.removeprefix("optimizer/"), tensor.to(device)) for name, tensor in tensors.items())
        self.optimizer.load(kept)
        self.weights.publish()
        self.progress.note(
            f"going on after step {self.state.step} of {self.state.num_steps} in {self.run_dir}"
        )


def _batches_per_step(config: TrainConfig, batches: Batches, ranks: Ranks) -> int:
    unit = batches.max_tokens * ranks.size
    wanted = config.tokens_per_step or unit
    if wanted % unit:
        below, above = wanted // unit * unit, (wanted // unit + 1) * unit
        nearest = f"{below} or {above}" if below else str(above)
        raise InputError(
            f"tokens_per_step is {wanted}; it must be a multiple of {batches.max_tokens} tokens x "
            f"{ranks.size} process(es) = {unit}. Nearest: {nearest}."
        )
    return wanted // batches.max_tokens


def _horizon(config: TrainConfig, batches: Batches, batches_per_step: int) -> tuple[int, int]:
    """Return how many batches and how many steps the run takes."""
    if config.epochs is not None:
        num_batches = max(1, batches.num_batches(config.epochs))
        return num_batches, math.ceil(num_batches / batches_per_step)
    steps = config.num_steps or math.ceil((config.num_tokens or 1) / (batches_per_step * batches.max_tokens))
    return steps * batches_per_step, steps


def _inputs(model: Any, batches: Batches, config: TrainConfig, ranks: Ranks) -> dict[str, Any]:
    """Return what must agree for a state to continue this run."""
    weights = hashlib.sha256()
    for name, parameter in model.named_parameters():
        weights.update(name.encode())
        weights.update(parameter.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return {
        **config.learning(),
        "data": batches.digest,
        "initial weights": weights.hexdigest(),
        "number of processes": ranks.size,
    }
