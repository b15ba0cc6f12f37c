"""A state on disk is whole or it does not count: damage is named, and the state before it is taken."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from picollm.errors import CheckpointError, InputError
from picollm.train.metrics import Tally
from picollm.train.state import RunState, load_state, save_state

INPUTS = {"learning_rate": 0.1, "data": "abc"}


class Notes:
    """A real Progress that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


def _save(run_dir: Path, step: int, keep: int = 3) -> Path:
    tensors = {"model/w": torch.full((7,), float(step)), "scalar": torch.tensor(step)}
    return save_state(run_dir, RunState("fp32", 10, step=step), INPUTS, tensors, keep)


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    state = RunState(
        "bf16", 9, 4, 100, 50, 1.5, 3.0, 2.5, 3, 2.0, 3, Tally(1, 1.25), [{"step": 2, "loss": 0.1 + 0.2}]
    )
    tensors = {"a": torch.randn(3, 4), "b": torch.randn(4, 3).T, "c": torch.tensor(2.0, dtype=torch.bfloat16)}
    save_state(tmp_path, state, INPUTS, tensors, keep=1)
    loaded, found = load_state(tmp_path, INPUTS)
    assert loaded == state
    assert found.keys() == tensors.keys()
    assert all(
        found[name].equal(tensor) and found[name].dtype == tensor.dtype for name, tensor in tensors.items()
    )


def test_no_state_is_none(tmp_path: Path) -> None:
    assert load_state(tmp_path, INPUTS) is None


def test_the_newest_are_kept_and_the_newest_is_loaded(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        _save(tmp_path, step, keep=2)
    assert sorted(p.name for p in (tmp_path / "state").iterdir()) == ["00000002", "00000010"]
    assert load_state(tmp_path, INPUTS)[0].step == 10


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), cut=st.booleans(), bit=st.integers(0, 7))
def test_any_truncation_or_flipped_bit_falls_back(
    tmp_path: Path, name: str, place: float, cut: bool, bit: int
) -> None:
    _save(tmp_path, 1)
    newest = _save(tmp_path, 2)
    content = bytearray((newest / name).read_bytes())
    at = int(place * len(content))
    if cut:
        del content[at:]
    else:
        content[at] ^= 1 << bit
    (newest / name).write_bytes(content)
    notes = Notes()
    state, tensors = load_state(tmp_path, INPUTS, notes)
    if state.step == 2:  # white space of the manifest is the only byte that may change without a trace
        assert name == "manifest.json"
        assert tensors["model/w"].eq(2.0).all()
    else:
        assert state.step == 1
        assert tensors["model/w"].eq(1.0).all()
        assert "00000002" in notes.lines[0]


def test_a_state_that_cannot_be_read_falls_back(tmp_path: Path) -> None:
    _save(tmp_path, 1)
    tensors = _save(tmp_path, 2) / "tensors.safetensors"
    tensors.unlink()
    tensors.symlink_to("/proc/self/mem")  # a file, but every read is an error of the device
    if not tensors.is_file():
        pytest.skip("no /proc here")
    notes = Notes()
    assert load_state(tmp_path, INPUTS, notes)[0].step == 1
    assert "tensors.safetensors cannot be read (" in notes.lines[0]


def test_when_all_are_damaged_the_damage_is_named(tmp_path: Path) -> None:
    (_save(tmp_path, 1) / "state.json").unlink()
    with pytest.raises(CheckpointError, match=r"00000001/state.json is missing") as error:
        load_state(tmp_path, INPUTS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("inputs", [{**INPUTS, "learning_rate": 0.2}, {**INPUTS, "new": 1}, {"data": "abc"}])
def test_a_state_of_another_run_is_refused(tmp_path: Path, inputs: dict) -> None:
    _save(tmp_path, 1)
    with pytest.raises(InputError, match=r"holds an unfinished run with (learning_rate|new)"):
        load_state(tmp_path, inputs)


def test_a_state_after_a_damaged_one_is_kept_and_the_damaged_one_is_not(tmp_path: Path) -> None:
    _save(tmp_path, 10)
    (_save(tmp_path, 20) / "manifest.json").write_text("{}")
    found = load_state(tmp_path, INPUTS, Notes())
    assert found is not None and found[0].step == 10
    _save(tmp_path, 15, keep=1)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["00000015"]
