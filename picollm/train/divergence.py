"""When to stop a run whose loss has left all reason, and which of its states were still good."""

from __future__ import annotations

import json
import math
from pathlib import Path

from picollm.errors import DivergedError, UnavailableError
from picollm.paths import atomic_file
from picollm.train.batches import Batches
from picollm.train.config import TrainConfig
from picollm.train.state import RunState, saved_steps

MEMORY = 0.9
NAMED = 8


LEAST = 1.0  # nats: the loss of a model that knows its data well may well triple


def check_alive(
    state: RunState,
    config: TrainConfig,
    batches: Batches,
    numbers: range,
    loss: float,
    norm: float,
    run_dir: Path | None,
) -> None:
    """Return when the run may go on; call before gradients are applied. ``state`` gets the new smoothed loss.

    ``run_dir`` gets ``diverged.json``; None in all processes but the first.

    Raises:
        DivergedError: loss or gradient is not a number, or the smoothed loss is ``explosion_factor`` times
            the lowest so far; names the step, its conversations, and the newest good state.
    """
    if batches.turn_in(numbers):
        state.smoothed_loss = state.lowest_loss = None
    before = loss if state.smoothed_loss is None else state.smoothed_loss
    state.smoothed_loss = MEMORY * before + (1 - MEMORY) * loss
    lowest = before if state.lowest_loss is None else state.lowest_loss
    limit = config.explosion_factor * max(LEAST, lowest)
    finite = math.isfinite(loss) and math.isfinite(norm)
    if finite and loss <= limit:
        state.sane_step = state.step + 1
        state.lowest_loss = min(lowest, state.smoothed_loss)
    if finite and state.smoothed_loss <= limit:
        return
    what = (
        f"step {state.step + 1}: loss {loss:.4g}, gradient norm {norm:.4g}, smoothed loss "
        f"{state.smoothed_loss:.4g} (at most {limit:.4g} is sane)"
    )
    raise diverged(what, state, config, batches, numbers, run_dir)


def diverged(
    what: str, state: RunState, config: TrainConfig, batches: Batches, numbers: range, run_dir: Path | None
) -> DivergedError:
    """Return the error that says ``what`` happened, at which conversations, and what can be done."""
    error = DivergedError(
        f"{what} at {_named(batches, numbers, run_dir)}. "
        f"{_good_state(state, config, run_dir)}Lower the learning rate ({config.learning_rate:g}) or "
        f"lengthen the warm-up ({config.warmup_steps} steps), in another --out."
    )
    error.told = run_dir is None  # every process sees the same loss
    return error


def is_sane(state: RunState) -> bool:
    """Return whether the loss of the step just taken was: what comes out of another must not be kept."""
    return state.sane_step == state.step


def _named(batches: Batches, numbers: range, run_dir: Path | None) -> str:
    """Return the first rows of a step in words; all of them are in ``run_dir/diverged.json``."""
    examples = batches.examples
    members = [int(member) for number in numbers for member in batches.members(number)]
    rows = [{"source": examples.source(member), "row": examples.row(member)} for member in members]
    named = ", ".join(f"{row['source']} row {row['row']}".strip() for row in rows[:NAMED])
    more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    if run_dir is None:
        return named + more
    path = run_dir / "diverged.json"
    try:
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    except UnavailableError:  # a full disk is not what the user must hear of now
        return named + more
    return f"{named}{more} (all in {path})"


def _good_state(state: RunState, config: TrainConfig, run_dir: Path | None) -> str:
    """Say which saved state came before the trouble: its weights gave a sane loss one step later."""
    if run_dir is None:
        return ""
    good = [step for step in saved_steps(run_dir) if step < state.sane_step]
    if good:
        return f"The last good state is that after step {good[-1]}, in {run_dir / 'state'}. "
    return f"No good state had been saved by then (save_every is {config.save_every}). "
