"""The state of a run on disk: enough to go on bit for bit, never half of it.

::

    run_dir/state/00000400/   tensors.safetensors  state.json  manifest.json    the newest
    run_dir/state/00000200/   ...                                               for when the newest is damaged

The manifest holds the SHA-256 of the other two and is read first; a state that does not match it is damaged.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from picollm.errors import CheckpointError, InputError
from picollm.paths import atomic_directory
from picollm.progress import SILENT, Progress
from picollm.train.metrics import Point, Tally
from picollm.train.precision import Precision

FILES = ("tensors.safetensors", "state.json")
VERSION = 2  # of what state.json says; raise it when RunState changes
Tensors = Mapping[str, torch.Tensor]


@dataclass
class RunState:
    """Everything about a run that changes and is not a tensor."""

    precision: Precision
    num_steps: int
    step: int = 0
    tokens: int = 0
    supervised_tokens: int = 0
    seconds: float = 0.0
    smoothed_loss: float | None = None
    lowest_loss: float | None = None
    """The lowest that the smoothed loss has been."""
    sane_step: int = 0
    """The last step whose own loss was no sign of trouble."""
    best_loss: float | None = None
    best_step: int | None = None
    tally: Tally = field(default_factory=Tally)
    curve: list[Point] = field(default_factory=list)


def save_state(
    run_dir: Path, state: RunState, identity: Mapping[str, Any], tensors: Tensors, keep: int
) -> Path:
    """Return the directory of the state just written; afterwards only the newest ``keep`` are left."""
    target = run_dir / "state" / f"{state.step:08d}"
    _write(target, {"version": VERSION, "identity": dict(identity), "state": asdict(state)}, tensors)
    # A later one was damaged when the run went on from before it.
    later = [directory for directory in _directories(run_dir) if directory.name > target.name]
    for directory in [*later, *_directories(run_dir)[len(later) + keep :]]:
        _drop(directory)
    return target


def _drop(directory: Path) -> None:
    """Remove a state in one step: what is left when this is killed is no state."""
    hidden = directory.with_name(f".{directory.name}.dropped")
    with suppress(OSError):
        directory.rename(hidden)
        shutil.rmtree(hidden)


def clear_half_written(run_dir: Path) -> None:
    """Remove what runs left that were killed while saving. Nobody else may be saving there."""
    for half in [*run_dir.glob(".best.*"), *(run_dir / "state").glob(".*")]:
        shutil.rmtree(half, ignore_errors=True)


def load_state(
    run_dir: Path, identity: Mapping[str, Any], progress: Progress = SILENT
) -> tuple[RunState, dict[str, torch.Tensor]] | None:
    """Return the newest undamaged state of ``run_dir`` and its tensors, or None when there is none at all.

    Raises:
        CheckpointError: when states exist and every one of them is damaged.
        InputError: when the state belongs to a run with other data or another configuration.
    """
    damages = []
    for directory in _directories(run_dir):
        damage = _damage(directory)
        if damage:
            damages.append(damage)
            progress.note(f"{damage}; trying the state before it")
            continue
        content = json.loads((directory / FILES[1]).read_text(encoding="utf-8"))
        if content.get("version") != VERSION:
            raise CheckpointError(
                f"{directory} is of another version of picollm (state version {content.get('version')}, "
                f"this one reads {VERSION}). Finish the run with that version, or delete the directory."
            )
        _check_identity(directory, content["identity"], identity)
        state = RunState(**{**content["state"], "tally": Tally(**content["state"]["tally"])})
        return state, load_file(directory / FILES[0])
    if damages:
        raise CheckpointError(
            f"no state in {run_dir / 'state'} can be read: {'; '.join(damages)}. "
            "Delete that directory to start the run anew, or restore it from a backup."
        )
    return None


def save_best(run_dir: Path, step: int, weights: Tensors) -> None:
    """Keep ``weights`` in ``run_dir/best``, in place of those kept before."""
    _write(run_dir / "best", {"step": step}, weights)


def best_damage(run_dir: Path) -> str | None:
    """Return what is wrong with the weights that ``save_best`` kept last, or None."""
    return _damage(run_dir / "best")


def load_best(run_dir: Path) -> dict[str, torch.Tensor]:
    """Return the weights that ``save_best`` kept last.

    Raises:
        CheckpointError: when they are damaged, or there are none because the run never validated.
    """
    damage = _damage(run_dir / "best")
    if damage:
        raise CheckpointError(
            f"the best weights cannot be read: {damage}. Train with keep last, or validate."
        )
    return load_file(run_dir / "best" / FILES[0])


def _write(target: Path, content: dict[str, Any], tensors: Tensors) -> None:
    with atomic_directory(target) as directory:
        contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, directory / FILES[0])
        text = json.dumps(content, indent=1, sort_keys=True)
        (directory / FILES[1]).write_text(text, encoding="utf-8")
        manifest = {name: _sha256(directory / name) for name in FILES}
        (directory / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def saved_steps(run_dir: Path) -> list[int]:
    """Return the steps whose states are there, the oldest first."""
    return sorted(int(directory.name) for directory in _directories(run_dir))


def _directories(run_dir: Path) -> list[Path]:
    """Return the states of a run, newest first."""
    return sorted((p for p in (run_dir / "state").glob("[0-9]*") if p.is_dir()), reverse=True)


def _damage(directory: Path) -> str | None:
    """Return what is wrong with a state, or None."""
    try:
        manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
        expected = {name: manifest[name] for name in FILES}
    except (OSError, ValueError, KeyError, TypeError):
        return f"{directory / 'manifest.json'} is missing or damaged"
    for name, digest in expected.items():
        path = directory / name
        if not path.is_file():
            return f"{path} is missing"
        try:
            found = _sha256(path)
        except OSError as error:
            return f"{path} cannot be read ({error.strerror})"
        if found != digest:
            return f"{path} is damaged (its SHA-256 is not the one in the manifest)"
    return None


def _check_identity(directory: Path, saved: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    for name in sorted(saved.keys() | given.keys(), key=lambda name: (name == "other settings", name)):
        if saved.get(name) != given.get(name):
            raise another_run(directory.parent.parent, name, saved.get(name), given.get(name))


def another_run(run_dir: Path, name: str, saved: Any, given: Any) -> InputError:
    """Return the error of a run that would have to continue one in which ``name`` was ``saved``."""
    return InputError(
        f"{run_dir} holds an unfinished run with {name} {_short(saved)}, this one has {_short(given)}. "
        f"Use the same to go on, choose another --out, or delete {run_dir / 'state'} to start over."
    )


def _short(value: Any) -> Any:
    """Return a value as a message shows it: of a hash, its beginning."""
    return f"{value[:12]}..." if isinstance(value, str) and len(value) > 40 else value


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
