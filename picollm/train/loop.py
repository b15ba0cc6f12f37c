"""The training loop: base training and SFT, from the first step or from where a run was interrupted."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from picollm.errors import DivergedError
from picollm.model import native
from picollm.model.llama import Model
from picollm.paths import bound_kernel_caches
from picollm.progress import SILENT, Progress
from picollm.train.arithmetic import necessary_flops
from picollm.train.batches import Batches
from picollm.train.calibrate import clock, faster_precision, matrix_rate
from picollm.train.compiling import compiled, uncompiled
from picollm.train.config import TrainConfig
from picollm.train.distributed import Ranks, joined
from picollm.train.divergence import check_alive, diverged, is_sane
from picollm.train.interrupt import Interrupt
from picollm.train.memory import keep_freed_memory
from picollm.train.metrics import Metrics, Point, Tally, show
from picollm.train.optimizer import Optimizer
from picollm.train.plan import Plan, identity
from picollm.train.precision import Precision, Weights
from picollm.train.schedule import learning_rate_factor
from picollm.train.sharding import (
    ShardedWeights,
    check_shards,
    gathered,
    idle_batch,
    most_batches,
    spread_like,
)
from picollm.train.state import (
    RunState,
    best_damage,
    clear_half_written,
    load_best,
    load_state,
    save_best,
    save_state,
)
from picollm.train.step import accumulate
from picollm.train.tracking import NONE, Trackers

Validate = Callable[[Model], dict[str, float]]
STEPS_TO_JUDGE_PACE = 8
VALIDATIONS = 10  # at most, of a run whose best weights are wanted, where nobody says how often
NUM_KERNELS = {"fp32": 16, "bf16": 64, "auto": 64}  # those of one batch; in fp32 each holds up to 6 MB


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
    best_step: int | None
    """The step whose weights the model has when ``config.keep`` is "best"."""

    @property
    def measured(self) -> dict[str, Any]:
        """What a record says of the run."""
        return {"tokens_per_s": self.tokens / max(self.seconds, 1e-9), "precision": self.precision}


def train(
    model: Model,
    batches: Batches,
    config: TrainConfig,
    *,
    run_dir: Path,
    validate: Validate | None = None,
    progress: Progress = SILENT,
    trackers: Trackers = NONE,
    shard: bool = False,
    beside: str = "",
) -> TrainResult:
    """Return the result of training ``model`` in place on ``batches``.

    A run that was interrupted in ``run_dir`` goes on from its newest state and ends with the weights it would
    have had without the interruption, bit for bit on a CPU with the same number of processes.

    Args:
        model: has fp32 parameters, and has them again at the end.
        batches: the stream of packed examples.
        config: everything else that decides what is learned.
        run_dir: gets ``metrics.jsonl`` and ``state/``.
        validate: returns named losses of the model as it is; they enter the curve as ``validation/name``.
            Names with ``bits`` in them are figures in another unit and do not decide which weights are best.
        progress: shows a bar and lines.
        trackers: gets every record as well.
        shard: spreads weights, gradients and the optimizer's state over all processes (FSDP2).
        beside: a digest of what decides the run beside all these; a run with another one is not continued.

    Raises:
        InputError: when a step cannot be cut into batches, or ``run_dir`` holds a different run.
        DivergedError: when the loss explodes or is not a number.
        CheckpointError: when every saved state is damaged.
        KeyboardInterrupt: after SIGINT or SIGTERM, with the state saved.
    """
    with joined(config.device) as ranks:
        model = model if shard else model.to(config.device)
        run = Run(model, batches, config, ranks, run_dir, validate, progress, trackers, shard, beside)
        try:
            with compiled(run.model.model.layers, config.compile):
                run.go()
        finally:
            trackers.close()
            if not shard:
                run.weights.restore()
        if shard:  # together with all others; after an error of one, they would wait forever
            run.weights.restore()
        if config.keep == "best" and run.state.best_step is not None:
            model.load_state_dict(load_best(run_dir), strict=False)
    s = run.state
    return TrainResult(
        s.step, s.tokens, s.supervised_tokens, s.seconds, s.precision, run.metrics.curve, s.best_step
    )


class Run:
    """One run in one process: what is fixed, and the state that steps change."""

    def __init__(
        self,
        model: Model,
        batches: Batches,
        config: TrainConfig,
        ranks: Ranks,
        run_dir: Path,
        validate: Validate | None,
        progress: Progress = SILENT,
        trackers: Trackers = NONE,
        shard: bool = False,
        beside: str = "",
    ) -> None:
        bound_kernel_caches(NUM_KERNELS[config.precision])
        keep_freed_memory()
        if shard:
            check_shards(ranks)
        self.batches, self.config, self.ranks, self.shard = batches, config, ranks, shard
        self.run_dir, self.validate, self.trackers = run_dir, validate, trackers
        self.progress = progress if ranks.first else SILENT
        self.device = torch.device(config.device)
        self.plan = ranks.alike(lambda: Plan.of(config, batches, ranks.size))
        self.validate_every = config.validate_every
        if self.validate_every is None and config.keep == "best":
            self.validate_every = math.ceil(self.plan.num_steps / VALIDATIONS)
        self.identity = identity(model, batches, config, ranks.size, beside)
        if ranks.first:
            clear_half_written(run_dir)
        found = ranks.alike(lambda: load_state(run_dir, self.identity, self.progress))
        if found is None:
            if config.warmup_steps > self.plan.num_steps:
                self.progress.note(
                    f"the warm-up of {config.warmup_steps} steps is longer than the run "
                    f"({self.plan.num_steps}): the learning rate never reaches its peak"
                )
            self.state = RunState(ranks.agree(self._precision(model)), self.plan.num_steps)
            if config.precision == "auto" and not shard:
                self.progress.note(f"computing in {self.state.precision}, the faster one here")
        else:
            self.state = found[0]
        self.matrix_rate = matrix_rate(model.config, self.state.precision, self.device)
        self.weights: Weights | ShardedWeights
        if shard:
            self.weights = ShardedWeights(model, self.state.precision, self.device)
            self.model = self.weights.model
        else:
            self.weights, self.model = Weights(model, self.state.precision), model
        self.optimizer = Optimizer(self.weights.masters, config)
        self.frozen = not all(parameter.requires_grad for parameter in self.model.parameters())
        if found is not None:
            self._restore(found[1])
        self.metrics = Metrics(run_dir / "metrics.jsonl" if ranks.first else None, self.state.curve)
        if self.device.type == "cpu" and not native.is_available():
            self.progress.note("the native kernels were not built (no C compiler at installation): slower")

    def _precision(self, model: Model) -> Precision:
        if self.config.precision != "auto":
            return self.config.precision
        if self.shard:  # the whole model may fit nowhere
            return "bf16" if self.device.type == "cuda" else "fp32"
        return faster_precision(model, self.batches[0])

    def go(self) -> None:
        """Take the remaining steps."""
        state, config = self.state, self.config
        with Interrupt() as interrupt, self.progress.bar("training", state.num_steps, "step") as bar:
            bar.advance(state.step)
            while state.step < state.num_steps:
                stop = self.step(interrupt.asked)
                bar.advance(1)
                last = state.step == state.num_steps
                due = last or bool(self.validate_every and state.step % self.validate_every == 0)
                saving = stop or last or (state.step % config.save_every == 0 and is_sane(state))
                if due or saving:
                    self._check_weights()
                if last and not is_sane(state):
                    self.progress.note(
                        f"the last step's loss was above {config.explosion_factor:g} times the lowest: look "
                        "at the curve before you use what came out"
                    )
                if due or state.step % config.log_every == 0:
                    show(bar, self.progress, self._close_interval(due), state.num_steps)
                if saving:
                    self.save()
                if stop and not last:
                    self.progress.note(
                        f"interrupted after step {state.step} of {state.num_steps}; everything is saved in "
                        f"{self.run_dir}. The same command goes on from there."
                    )
                    raise KeyboardInterrupt

    def step(self, stop: bool = False) -> bool:
        """Take one optimizer step, and return whether any process was asked to ``stop``."""
        start, busy = time.perf_counter(), clock(self.device)
        state, ranks = self.state, self.ranks
        numbers = self.plan.numbers(state.step)
        num_targets = sum(self.batches.num_targets(number) for number in numbers)
        mine = self.batches.share(numbers, ranks.rank, ranks.size)
        if self.shard:
            mine += [idle_batch()] * (most_batches(numbers, ranks.size) - len(mine))
        flops = sum(necessary_flops(self.model.config, batch, frozen=self.frozen) for batch in mine)
        summed = accumulate(self.model, self.weights, mine, num_targets)
        if not self.shard:
            ranks.sum_gradients(self.weights.masters.values())
        own = [float(summed), sum(len(batch.ids) for batch in mine if batch.num_targets), flops, stop]
        total_loss, tokens, flops, stops = ranks.sum(torch.tensor(own, dtype=torch.float64)).tolist()
        norm = self._clip()
        loss = total_loss / num_targets
        check_alive(state, self.config, self.batches, numbers, loss, norm, self._place)
        self.optimizer.step(learning_rate_factor(self.config, state.step, state.num_steps))
        self.weights.publish()
        seconds, busy = time.perf_counter() - start, (clock(self.device) - busy) * ranks.size
        state.step += 1
        state.tokens += int(tokens)
        state.supervised_tokens += num_targets
        state.seconds += seconds
        state.tally.add(Tally(1, total_loss, num_targets, int(tokens), flops, norm, seconds, busy))
        self._judge_pace()
        return bool(stops)

    @property
    def _place(self) -> Path | None:
        return self.run_dir if self.ranks.first else None

    def _check_weights(self) -> None:
        """Raise DivergedError when weights are not numbers: a loss says nothing of the update after it."""
        finite = [bool(gathered(weight).isfinite().all()) for weight in self.weights.masters.values()]
        if not all(finite):
            raise self._diverged("after its update weights are no longer numbers,")

    def _diverged(self, what: str) -> DivergedError:
        state, numbers = self.state, self.plan.numbers(self.state.step - 1)
        what = f"step {state.step}: {what}"
        return diverged(what, state, self.config, self.batches, numbers, self._place)

    def _clip(self) -> float:
        norm = torch.nn.utils.clip_grad_norm_(
            self.weights.masters.values(), self.config.clip_norm or math.inf
        )
        return float(gathered(norm))

    def _close_interval(self, validation_due: bool) -> Point:
        """Return the record of the steps since the last one."""
        state, config = self.state, self.config
        factor = learning_rate_factor(config, state.step - 1, state.num_steps)
        point: Point = {
            "step": state.step,
            "epoch": self.batches.epoch(self.plan.numbers(state.step - 1)[-1]),
            "learning_rate": config.learning_rate * factor,
            "tokens": state.tokens,
            "supervised_tokens": state.supervised_tokens,
            "seconds": round(state.seconds, 3),
            **state.tally.point(self.matrix_rate),
        }
        state.tally = Tally()
        if self.validate and validation_due:
            with self.weights.in_full(), torch.no_grad(), uncompiled(config.compile):
                losses = self.validate(self.model)
            point |= {f"validation/{name}": value for name, value in losses.items()}
            judged = [value for name, value in losses.items() if "bits" not in name] or [*losses.values()]
            for name, value in losses.items():
                if not math.isfinite(value):
                    raise self._diverged(f"the validation loss of {name} is {value},")
            loss = sum(judged) / len(judged)
            guess = math.log(self.model.config.vocab_size)
            if state.step == state.num_steps and loss > guess and len(judged) < len(losses):
                self.progress.note(
                    f"the validation loss, {loss:.2f}, is worse than a uniform guess ({guess:.2f}): what "
                    "came out is no language model. Lower the learning rate."
                )
            self._keep_if_best(loss)
        self.metrics.add(point)
        self.trackers.add(point)
        return point

    def _keep_if_best(self, loss: float) -> None:
        state = self.state
        if self.config.keep == "best" and (state.best_loss is None or loss < state.best_loss):
            step = state.step
            state.best_loss, state.best_step = loss, step
            weights = self._whole(self.weights.masters)
            self.ranks.first_does(lambda: save_best(self.run_dir, step, weights))

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

    def save(self) -> None:
        """Write the state of the run; only the first process does."""
        masters = {f"model/{name}": master for name, master in self.weights.masters.items()}
        optimizer = {f"optimizer/{name}": tensor for name, tensor in self.optimizer.tensors().items()}
        tensors = {**self._whole({**masters, **optimizer}), "rng": torch.get_rng_state()}
        keep = self.config.keep_states
        self.ranks.first_does(lambda: str(save_state(self.run_dir, self.state, self.identity, tensors, keep)))

    def _whole(self, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """Return tensors that are not spread, in the first process; the others only help to gather them."""
        if not self.shard:
            return tensors
        whole = {}
        for name, tensor in tensors.items():
            full = gathered(tensor)
            if self.ranks.first:
                whole[name] = full.cpu()
        return whole

    def _restore(self, tensors: dict[str, torch.Tensor]) -> None:
        if self.state.best_step is not None:
            damage = self.ranks.first_does(lambda: best_damage(self.run_dir))
            if damage:
                self.progress.note(f"{damage}; what counts are the validations to come, or the last weights")
                self.state.best_loss = self.state.best_step = None
        torch.set_rng_state(tensors.pop("rng"))
        with torch.no_grad():
            for name, master in self.weights.masters.items():
                master.copy_(spread_like(tensors.pop(f"model/{name}"), master))
        kept = {name.removeprefix("optimizer/"): tensor.to(self.device) for name, tensor in tensors.items()}
        owners = {name: self.weights.masters[name.rpartition("/")[0]] for name in kept}
        self.optimizer.load((name, spread_like(tensor, owners[name])) for name, tensor in kept.items())
        self.weights.publish()
        self.progress.note(
            f"going on after step {self.state.step} of {self.state.num_steps} in {self.run_dir}"
        )
