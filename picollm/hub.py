"""Where a checkpoint is: a directory here, or a model on the Hugging Face Hub, downloaded once."""

from __future__ import annotations

import os
import re
from pathlib import Path

from picollm.errors import CheckpointError, InputError, UnavailableError

# Weights and descriptions only: no pickle, no Python, nothing that a checkpoint could run.
_PATTERNS = ["*.json", "*.jinja", "*.safetensors"]
_NESTED = ["*/*"]
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def resolve(location: str | Path, revision: str | None = None) -> Path:
    """Return the local directory of ``location``, a directory or a Hub id such as ``org/name``.

    Raises:
        CheckpointError: it is neither a directory nor an id, or the Hub has no such model.
        UnavailableError: the Hub cannot be reached, or the model needs a login.
    """
    path = Path(location).expanduser()
    if path.is_dir():
        if not os.access(path, os.R_OK | os.X_OK):
            raise CheckpointError(f"{path} may not be read by this user. Change its permissions.")
        return path
    if path.exists():
        raise CheckpointError(f"{path} is a file; expected a directory or a Hub id such as org/name.")
    # "runs/sft" looks like an id, but where "runs" is a directory here the person meant a directory.
    if isinstance(location, Path) or not HUB_ID.fullmatch(location) or path.parent.is_dir():
        raise CheckpointError(
            f"there is no checkpoint at {location}; expected a directory with config.json and "
            "model.safetensors, or a Hub id such as org/name."
        )
    return _download(location, revision)


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=_PATTERNS, ignore_patterns=_NESTED)
        )
    except errors.GatedRepoError as error:
        raise UnavailableError(
            f"the model {name} needs a login and an accepted license: `hf auth login`."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"the model {name} has no revision {revision!r} on the Hub.") from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{name} is neither a directory here nor a public model on the Hub; a private one needs "
            "`hf auth login`."
        ) from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnavailableError(
            f"{name} is no directory here, and the Hub did not answer ({first})."
        ) from error
