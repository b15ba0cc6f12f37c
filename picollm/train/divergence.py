"""When to stop a run whose loss has left all reason."""

from __future__ import annotations

import math

from picollm.errors import DivergedError
from picollm.train.batches import Batches
from picollm.train.config import TrainConfig
from picollm.train.state import RunState

MEMORY = 0.9
NAMED = 8


def check_alive(
    state: RunState, config: TrainConfig, batches: Batches, numbers: range, loss: float, norm: float
) -> None:
    """Return when the run may go on; call before gradients are applied. ``state`` gets the new smoothed loss.

    Raises:
        DivergedError: loss or gradient is not a number, or the smoothed loss is ``explosion_factor`` times
            that of the first step; names the step and its examples.
    """
    state.first_loss = loss if state.first_loss is None else state.first_loss
    before = loss if state.smoothed_loss is None else state.smoothed_loss
    state.smoothed_loss = MEMORY * before + (1 - MEMORY) * loss
    limit = config.explosion_factor * state.first_loss
    if math.isfinite(loss) and math.isfinite(norm) and state.smoothed_loss <= limit:
        return
    members = [int(member) for number in numbers for member in batches.members(number)]
    sources = [batches.examples.source(member) for member in members[:NAMED]]
    named = ", ".join(
        f"{m} ({source})" if source else str(m) for m, source in zip(members, sources, strict=False)
    )
    more = f" and {len(members) - NAMED} more" if len(members) > NAMED else ""
    raise DivergedError(
        f"step {state.step + 1}: loss {loss:.4g}, gradient norm {norm:.4g}, smoothed loss "
        f"{state.smoothed_loss:.4g} (at most {limit:.4g} is sane) at examples {named}{more}. The last good "
        f"state is kept; lower the learning rate ({config.learning_rate:g}) or lengthen the warm-up "
        f"({config.warmup_steps} steps)."
    )
