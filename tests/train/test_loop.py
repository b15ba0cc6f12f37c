"""The loop: learns, stops where it should, and goes on as if nothing had happened."""

from __future__ import annotations

import json
import math
import os
import random
import re
import resource
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from picollm.errors import CheckpointError, DivergedError, InputError, UnavailableError
from picollm.model.llama import Model
from picollm.progress import SILENT
from picollm.train.batches import Batches
from picollm.train.config import TrainConfig
from picollm.train.examples import Examples
from picollm.train.loop import TrainResult, train
from picollm.train.optimizer import Optimizer
from picollm.train.plan import Plan
from picollm.train.step import summed_loss
from picollm.train.tracking import Trackers

STEPS = {"num_steps": 12, "tokens_per_step": 128, "precision": "fp32", "learning_rate": 3e-3, "log_every": 3}
TIMES = {"seconds", "tokens_per_s", "supervised_tokens_per_s", "mfu"}


def _untimed(result: TrainResult) -> list[dict[str, float]]:
    return [{k: v for k, v in point.items() if k not in TIMES} for point in result.curve]


def _weights(model: Model) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def _assert_identical(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(tensor.equal(other[name]) for name, tensor in one.items())


@pytest.fixture
def batches(examples: Examples) -> Batches:
    return Batches(examples, 64, seed=3)


@pytest.mark.parametrize(("optimizer", "precision"), [("adamw", "fp32"), ("muon", "bf16")])
def test_training_learns_its_examples(
    new_model: Callable[..., Model], batches: Batches, tmp_path: Path, optimizer: str, precision: str
) -> None:
    model = new_model()
    config = TrainConfig(**{**STEPS, "num_steps": 60, "optimizer": optimizer, "precision": precision})
    result = train(model, batches, config, run_dir=tmp_path)
    assert result.steps == 60
    assert result.curve[-1]["loss"] < 0.6 * result.curve[0]["loss"]
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.curve


def test_an_epoch_trains_on_every_target_once(model: Model, batches: Batches, tmp_path: Path) -> None:
    examples = batches.examples
    config = TrainConfig(epochs=2, tokens_per_step=192, precision="fp32")
    result = train(model, batches, config, run_dir=tmp_path)
    assert result.supervised_tokens == 2 * sum(examples.num_targets_of(i) for i in range(len(examples)))
    assert result.tokens == 2 * examples.costs.sum()


def test_a_horizon_in_tokens_is_known_at_the_start(model: Model, batches: Batches, tmp_path: Path) -> None:
    config = TrainConfig(num_tokens=1000, tokens_per_step=128, precision="fp32", log_every=1)
    result = train(model, batches, config, run_dir=tmp_path)
    assert result.steps == 8
    assert [p["learning_rate"] for p in result.curve] == [pytest.approx(1e-3 * (1 - s / 8)) for s in range(8)]


def test_a_time_limit_shortens_the_run(model: Model, batches: Batches, tmp_path: Path) -> None:
    config = TrainConfig(num_steps=10_000, max_seconds=1e-9, precision="fp32", log_every=1)
    result = train(model, batches, config, run_dir=tmp_path)
    assert result.steps == 8
    assert result.seconds > 0


def test_validation_sees_full_precision_and_enters_the_curve(
    model: Model, batches: Batches, tmp_path: Path
) -> None:
    seen = []

    def validate(trained: Model) -> dict[str, float]:
        seen.append({parameter.dtype for parameter in trained.parameters()})
        assert not torch.is_grad_enabled()
        return {"chat": len(seen)}

    config = TrainConfig(**{**STEPS, "precision": "bf16", "validate_every": 5, "log_every": 4})
    result = train(model, batches, config, run_dir=tmp_path, validate=validate)
    assert seen == [{torch.float32}] * 3
    assert {p["step"]: p["validation/chat"] for p in result.curve if "validation/chat" in p} == {
        5: 1,
        10: 2,
        12: 3,
    }


@pytest.mark.parametrize(("optimizer", "precision"), [("adamw", "fp32"), ("muon", "bf16")])
def test_an_interrupted_run_goes_on_bit_for_bit(
    new_model: Callable[..., Model], batches: Batches, tmp_path: Path, optimizer: str, precision: str
) -> None:
    config = TrainConfig(**{**STEPS, "optimizer": optimizer, "precision": precision, "validate_every": 3})
    straight, stopped = new_model(), new_model()
    whole = train(straight, batches, config, run_dir=tmp_path / "whole", validate=lambda _: {"x": 1.0})

    def interrupt(_: Model) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGINT)
        return {"x": 1.0}

    with pytest.raises(KeyboardInterrupt):
        train(stopped, batches, config, run_dir=tmp_path / "parts", validate=interrupt)
    again = new_model()
    rest = train(again, batches, config, run_dir=tmp_path / "parts", validate=lambda _: {"x": 1.0})
    _assert_identical(_weights(straight), _weights(again))
    assert _untimed(whole) == _untimed(rest)
    assert (rest.tokens, rest.supervised_tokens) == (whole.tokens, whole.supervised_tokens)


def test_a_finished_run_is_not_trained_again(
    new_model: Callable[..., Model], batches: Batches, tmp_path: Path
) -> None:
    first, second = new_model(), new_model()
    result = train(first, batches, TrainConfig(**STEPS), run_dir=tmp_path)
    assert train(second, batches, TrainConfig(**STEPS), run_dir=tmp_path).curve == result.curve
    _assert_identical(_weights(first), _weights(second))


def test_a_run_killed_anywhere_finishes_with_the_same_weights(
    new_model: Callable[..., Model], batches: Batches, tmp_path: Path, start_worker: Callable
) -> None:
    """Every second death is at a sync of a save, the others at any moment. PICOLLM_TEST_KILLS: how many."""
    settings = {**STEPS, "save_every": 2, "optimizer": "muon"}
    straight = new_model()
    start = time.monotonic()
    whole = train(straight, batches, TrainConfig(**settings), run_dir=tmp_path / "whole")
    seconds = time.monotonic() - start
    rng, killed = random.Random(os.environ.get("PICOLLM_TEST_KILLS")), 0
    for number in range(int(os.environ.get("PICOLLM_TEST_KILLS", 6))):
        place = tmp_path / str(number)
        death = {"kill_at_sync": rng.randrange(1, 37)}
        if number % 2:
            death = {"kill_after_s": rng.uniform(0, seconds)}
        process = start_worker(config=settings, run_dir=str(place), out=str(tmp_path / "out"), **death)
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        killed += process.exitcode != 0
        again = new_model()
        rest = train(again, batches, TrainConfig(**settings), run_dir=place)
        _assert_identical(_weights(straight), _weights(again))
        assert _untimed(rest) == _untimed(whole)
        assert not list((place / "state").glob(".*")), "a start clears what the killed left"
        shutil.rmtree(place)
    assert killed > number / 3


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(
    new_model: Callable[..., Model], batches: Batches, tmp_path: Path
) -> None:
    straight, stopped, again = new_model(), new_model(), new_model()
    config = TrainConfig(**{**STEPS, "save_every": 4})
    train(straight, batches, config, run_dir=tmp_path / "whole")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    train(stopped, batches, config, run_dir=tmp_path / "parts")
    shutil.rmtree(tmp_path / "parts" / "state" / "00000012")
    before = sorted((tmp_path / "parts" / "state").iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(UnavailableError, match="no room left on the disk") as error:
            train(new_model(), batches, config, run_dir=tmp_path / "parts")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert sorted((tmp_path / "parts" / "state").iterdir()) == before
    train(again, batches, config, run_dir=tmp_path / "parts")
    _assert_identical(_weights(straight), _weights(again))


def test_a_run_on_a_disk_that_is_full_at_any_moment_goes_on_when_there_is_room(
    new_model: Callable[..., Model],
    batches: Batches,
    tmp_path: Path,
    disk: Path,
    nearly_full: Callable[[int], AbstractContextManager[Path]],
) -> None:
    straight, again = new_model(), new_model()
    config = TrainConfig(**{**STEPS, "save_every": 4, "keep_states": 1})
    whole = train(straight, batches, config, run_dir=tmp_path / "whole")
    size = sum(file.stat().st_size for file in (tmp_path / "whole" / "state").rglob("*") if file.is_file())
    for room in (0, 1, size // 2, size - 4096, size + 4096, 2 * size - 4096):
        with (
            nearly_full(room) as place,
            pytest.raises(UnavailableError, match="no room left on the disk") as error,
        ):
            train(new_model(), batches, config, run_dir=place / "run")
        assert "\n" not in str(error.value)
    rest = train(again, batches, config, run_dir=disk / "run")
    _assert_identical(_weights(straight), _weights(again))
    assert _untimed(rest) == _untimed(whole)


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_examples(
    new_model: Callable[..., Model], batches: Batches, tmp_path: Path
) -> None:
    model = new_model()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(
        DivergedError, match=r"step 1: loss nan.* at (even|odd) row \d+.*No good state"
    ) as error:
        train(model, batches, TrainConfig(**STEPS), run_dir=tmp_path)
    named = json.loads((tmp_path / "diverged.json").read_text())
    members = [m for n in (0, 1) for m in batches.members(n)]
    assert named == [{"source": batches.examples.source(m), "row": int(m)} for m in members]
    assert f"{named[0]['source']} row {named[0]['row']}" in str(error.value)


def test_a_curriculum_that_turns_to_other_sources_has_not_exploded(
    new_model: Callable[..., Model], examples: Examples, tmp_path: Path
) -> None:
    config = TrainConfig(**{**STEPS, "num_steps": 60, "learning_rate": 1e-2, "explosion_factor": 1.2})
    easy = np.repeat(np.arange(1), 24)
    other = lambda epoch: easy if epoch < 4 else np.arange(1, 24)  # noqa: E731
    with pytest.raises(DivergedError):
        train(new_model(), Batches(examples, 64, 3, other), config, run_dir=tmp_path / "sudden")
    turning = Batches(examples, 64, 3, other, turns=[4])
    assert train(new_model(), turning, config, run_dir=tmp_path / "turn").steps == 60


def test_an_explosion_stops_the_run_and_leaves_the_last_good_state(
    new_model: Callable[..., Model], batches: Batches, tmp_path: Path
) -> None:
    config = TrainConfig(
        **{**STEPS, "num_steps": 200, "learning_rate": 1.0, "clip_norm": None, "save_every": 1}
    )
    with pytest.raises(DivergedError, match="Lower the learning rate") as error:
        train(new_model(), batches, config, run_dir=tmp_path)
    assert "\n" not in str(error.value)
    named = re.search(r"The last good state is that after step (\d+), in ", str(error.value))
    assert named is not None
    good = load_file(tmp_path / "state" / f"{int(named[1]):08d}" / "tensors.safetensors")
    model, batch = new_model(), batches[2 * int(named[1])]
    first = summed_loss(model, batch).item()
    model.load_state_dict({n.removeprefix("model/"): t for n, t in good.items() if n.startswith("model/")})
    assert summed_loss(model, batch).item() < config.explosion_factor * first


def test_a_step_that_cannot_be_cut_into_batches_names_the_nearest(
    model: Model, batches: Batches, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"tokens_per_step is 100; .* Nearest: 64 or 128"):
        train(model, batches, TrainConfig(num_steps=1, tokens_per_step=100), run_dir=tmp_path)


def test_more_processes_than_examples_are_refused(batches: Batches) -> None:
    with pytest.raises(InputError, match="25 processes have only 24 examples to share; start 1 to 24"):
        Plan.of(TrainConfig(num_steps=1), batches, 25)
    assert Plan.of(TrainConfig(num_steps=1), batches, 24) == Plan.of(TrainConfig(num_steps=1), batches, 1)


def test_one_process_alone_has_nobody_to_share_the_model_with(
    model: Model, batches: Batches, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"there is only one\. Start two or more: torchrun"):
        train(model, batches, TrainConfig(**STEPS), run_dir=tmp_path, shard=True)


def test_frozen_weights_stay_bit_for_bit_and_trackers_get_the_curve(
    model: Model, batches: Batches, tmp_path: Path
) -> None:
    frozen = model.model.layers[0].mlp.requires_grad_(False)
    before = _weights(model)
    told: list[dict[str, float]] = []
    trackers = Trackers(None)
    trackers.add = told.append  # type: ignore[method-assign]
    config = TrainConfig(**{**STEPS, "precision": "bf16"})
    result = train(model, batches, config, run_dir=tmp_path, trackers=trackers)
    assert told == result.curve
    moved = {name for name, tensor in _weights(model).items() if not tensor.equal(before[name])}
    assert moved == {name for name, p in model.named_parameters() if p.requires_grad}
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_damaged_best_weights_are_said_at_once_and_looked_for_anew(
    new_model: Callable[..., Model], batches: Batches, tmp_path: Path
) -> None:
    config = TrainConfig(**{**STEPS, "keep": "best", "validate_every": 4, "save_every": 4})
    losses = iter([2.0, 3.0, 1.0, 5.0])
    train(new_model(), batches, config, run_dir=tmp_path, validate=lambda model: {"a": next(losses)})
    shutil.rmtree(tmp_path / "state" / "00000012")
    (tmp_path / "best" / "tensors.safetensors").write_bytes(b"cut")
    notes: list[str] = []
    progress = type(SILENT)()
    progress.note = notes.append
    result = train(
        new_model(), batches, config, run_dir=tmp_path, validate=lambda model: {"a": 9.0}, progress=progress
    )
    assert "best/tensors.safetensors is damaged" in " ".join(notes) and result.best_step == 12


def test_another_run_in_the_same_place_is_refused(
    new_model: Callable[..., Model], batches: Batches, examples: Examples, tmp_path: Path
) -> None:
    train(new_model(), batches, TrainConfig(**STEPS), run_dir=tmp_path)
    with pytest.raises(InputError, match=r"learning_rate 0\.003, this one has 0\.1"):
        train(new_model(), batches, TrainConfig(**{**STEPS, "learning_rate": 0.1}), run_dir=tmp_path)
    with pytest.raises(InputError, match="holds an unfinished run with data"):
        train(new_model(), Batches(examples, 64, seed=4), TrainConfig(**STEPS), run_dir=tmp_path)
    with pytest.raises(InputError, match="holds an unfinished run with initial weights"):
        train(new_model(1), batches, TrainConfig(**STEPS), run_dir=tmp_path)


def test_only_damaged_states_are_an_error_that_names_them(
    new_model: Callable[..., Model], batches: Batches, tmp_path: Path
) -> None:
    train(new_model(), batches, TrainConfig(**{**STEPS, "keep_states": 1}), run_dir=tmp_path)
    (tensors,) = (tmp_path / "state").glob("*/tensors.safetensors")
    tensors.write_bytes(tensors.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"tensors\.safetensors is damaged"):
        train(new_model(), batches, TrainConfig(**STEPS), run_dir=tmp_path)


def test_the_measured_precision_is_kept_in_the_state(model: Model, batches: Batches, tmp_path: Path) -> None:
    result = train(model, batches, TrainConfig(**{**STEPS, "precision": "auto"}), run_dir=tmp_path)
    (state,) = (tmp_path / "state").glob("*/state.json")
    assert json.loads(state.read_text())["state"]["precision"] == result.precision in ("fp32", "bf16")


def test_the_best_weights_by_validation_can_be_kept(
    new_model: Callable[..., Model], batches: Batches, tmp_path: Path
) -> None:
    seen: list[dict[str, torch.Tensor]] = []

    def validate(trained: Model) -> dict[str, float]:
        seen.append(_weights(trained))
        return {"chat": [3.0, 1.0, 2.0][len(seen) - 1], "math": 1.0}

    model = new_model()
    config = TrainConfig(**{**STEPS, "keep": "best", "validate_every": 4, "save_every": 4})
    result = train(model, batches, config, run_dir=tmp_path, validate=validate)
    assert result.best_step == 8
    _assert_identical(_weights(model), seen[1])
    again = new_model()
    train(again, batches, config, run_dir=tmp_path, validate=validate)
    _assert_identical(_weights(again), seen[1])


def test_a_state_of_another_version_is_refused(
    model: Model, batches: Batches, tmp_path: Path, monkeypatch
) -> None:
    train(model, batches, TrainConfig(**STEPS), run_dir=tmp_path)
    monkeypatch.setattr("picollm.train.state.VERSION", 99)
    with pytest.raises(CheckpointError, match=r"state version 2, this one reads 99"):
        train(model, batches, TrainConfig(**STEPS), run_dir=tmp_path)


def _noted(*arguments: Any, **more: Any) -> str:
    """Train, and return the notes of it."""
    notes: list[str] = []
    progress = type(SILENT)()
    progress.note = notes.append
    train(*arguments, **more, progress=progress)
    return " ".join(notes)


def test_an_update_that_leaves_no_numbers_is_noticed_when_no_step_comes_after_it(
    new_model: Callable[..., Model], batches: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, taken = Optimizer.step, 0

    def ruin(optimizer: Optimizer, factor: float) -> None:
        nonlocal taken
        step(optimizer, factor)
        taken += 1
        if taken == 12:
            for master in optimizer._names:
                master.data.view(-1)[0] = torch.nan

    monkeypatch.setattr(Optimizer, "step", ruin)
    with pytest.raises(DivergedError, match=r"step 12: after its update.*row \d+.*that after step 8"):
        train(new_model(), batches, TrainConfig(**{**STEPS, "save_every": 4}), run_dir=tmp_path)
    assert "00000012" not in [path.name for path in (tmp_path / "state").iterdir()]


def test_a_validation_that_is_no_number_stops_the_run(
    new_model: Callable[..., Model], batches: Batches, tmp_path: Path
) -> None:
    bits = iter([2.0, math.inf])

    def validate(model: Model) -> dict[str, float]:
        return {"a": 1.0, "a/bits": next(bits)}

    config = TrainConfig(**{**STEPS, "validate_every": 6, "keep": "best"})
    with pytest.raises(DivergedError, match="step 12: the validation loss of a/bits is inf"):
        train(new_model(), batches, config, run_dir=tmp_path, validate=validate)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [3, 6, 9]


def test_what_came_out_as_no_language_model_is_said(
    new_model: Callable[..., Model], batches: Batches, tmp_path: Path
) -> None:
    def bad(model: Model) -> dict[str, float]:
        return {"a": 99.0, "a/bits_per_byte": 9.0}

    said = _noted(new_model(), batches, TrainConfig(**STEPS), run_dir=tmp_path / "bad", validate=bad)
    assert "the validation loss, 99.00, is worse than a uniform guess" in said
    good = _noted(
        new_model(), batches, TrainConfig(**STEPS), run_dir=tmp_path / "good", validate=lambda m: {"a": 1.0}
    )
    assert "guess" not in good


def test_a_warm_up_that_outlasts_the_run_is_said(
    new_model: Callable[..., Model], batches: Batches, tmp_path: Path
) -> None:
    for steps, said in ((13, True), (12, False)):
        config = TrainConfig(**{**STEPS, "warmup_steps": steps})
        notes = _noted(new_model(), batches, config, run_dir=tmp_path / str(steps))
        assert ("never reaches its peak" in notes) == said


def test_the_best_weights_are_looked_for_even_if_nobody_says_how_often(
    new_model: Callable[..., Model], batches: Batches, tmp_path: Path
) -> None:
    config = TrainConfig(**{**STEPS, "keep": "best"})
    losses = iter([5.0, 4.0, 3.0, 6.0, 7.0, 8.0])
    result = train(new_model(), batches, config, run_dir=tmp_path, validate=lambda model: {"a": next(losses)})
    assert [point["step"] for point in result.curve if "validation/a" in point] == [2, 4, 6, 8, 10, 12]
    assert result.best_step == 6
