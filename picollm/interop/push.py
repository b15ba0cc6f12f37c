"""A checkpoint on the Hugging Face Hub: the files that inference needs, and nothing else of this machine."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from picollm.errors import CheckpointError, InputError, UnavailableError
from picollm.files import RECORD, TEMPLATE
from picollm.hub import HUB_ID
from picollm.interop.card import last_parts
from picollm.progress import SILENT, Progress
from picollm.record import Record, verify

_INFERENCE = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", TEMPLATE)
ARCHIVE = "training_state"


def push(
    directory: Path,
    name: str,
    card: str,
    *,
    private: bool = False,
    archive: bool = False,
    progress: Progress = SILENT,
) -> str:
    """Upload the checkpoint in ``directory`` as ``name`` with ``card`` as its README; return its address.

    Weights, tokenizer, template and configuration go as they are, ``record.json`` without the directories of
    this machine, all in one commit. ``archive`` adds the training state beside the checkpoint, below
    ``training_state/``.

    Raises:
        CheckpointError: the checkpoint is damaged, or with ``archive`` there is no training state.
        InputError: ``name`` is no Hub id.
        UnavailableError: the Hub does not answer, or not to this account.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    if not HUB_ID.fullmatch(name):
        raise InputError(f"{name!r} is no Hub id; expected ORG/NAME.")
    record = verify(directory)
    files = {file: directory / file for file in record.files if _is_for_inference(file)}
    if archive:
        files |= _training_state(directory)
    with tempfile.TemporaryDirectory() as place, _hub_errors(name):
        published = Path(place) / RECORD
        published.write_text(publishable(record).to_json(), encoding="utf-8")
        operations = [
            CommitOperationAdd(target, source) for target, source in {**files, RECORD: published}.items()
        ]
        operations.append(CommitOperationAdd("README.md", card.encode("utf-8")))
        api = HfApi()
        progress.note(f"uploading {len(operations)} files to {name}")
        api.create_repo(name, private=private, exist_ok=True)
        commit = api.create_commit(name, operations, commit_message=f"{record.stage} checkpoint of picoLLM")
    return str(commit.repo_url if hasattr(commit, "repo_url") else name)


def publishable(record: Record) -> Record:
    """Return ``record`` with the ends of local paths in place of the whole."""

    def scrubbed(value: Any) -> Any:
        if isinstance(value, str):
            return last_parts(value)
        if isinstance(value, dict):
            return {key: scrubbed(item) for key, item in value.items()}
        return [scrubbed(item) for item in value] if isinstance(value, list | tuple) else value

    return replace(
        record, config=scrubbed(record.config), data=scrubbed(record.data), parent=scrubbed(record.parent)
    )


def _is_for_inference(file: str) -> bool:
    return file in _INFERENCE or file.endswith((".safetensors", ".safetensors.index.json"))


def _training_state(directory: Path) -> dict[str, Path]:
    state = directory.with_name(directory.name + ".run")
    files = {
        f"{ARCHIVE}/{p.relative_to(state).as_posix()}": p for p in sorted(state.rglob("*")) if p.is_file()
    }
    if not files:
        raise CheckpointError(f"there is no training state at {state}; push without --archive.")
    return files


@contextmanager
def _hub_errors(name: str) -> Iterator[None]:
    """Turn what the Hub answers into one line without any token."""
    from huggingface_hub import errors

    try:
        yield
    except errors.LocalTokenNotFoundError as error:
        raise UnavailableError(f"uploading {name} needs a login: `hf auth login`.") from error
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError, ValueError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise UnavailableError(
                f"the Hub does not let this account write to {name} (status {status}): `hf auth login` with "
                "a token that may write."
            ) from None
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnavailableError(f"uploading {name} failed ({without_token(first)}).") from None


def without_token(text: str) -> str:
    """Return ``text`` with every Hub token in it blacked out."""
    return re.sub(r"hf_\w+|Bearer \S+", "hf_...", text)
