"""Every error a user can meet, with its exit code and HTTP status in one table.

::

    PicoError                       1  500   anything this project reports on purpose
    |-- InputError (ValueError)     2  400   an argument, a configuration, a request
    |   |-- ConversationError       2  400   a conversation that breaks the schema (names the message)
    |   |-- DataError               2  400   a file or a row of a data set (names file and row)
    |   `-- ContextError            2  400   more tokens than a context or a budget holds
    |-- CheckpointError             3  503   missing, damaged, or of an architecture we do not run
    |   `-- FormatMismatchError     3  503   a checkpoint whose chat format is not the installed one
    |-- UnavailableError            3  503   a data set, a host, a port, or room on a disk
    `-- DivergedError               4  500   a training run whose loss is no longer a number

A message is one line: what happened, with its value - what was expected - what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection


class PicoError(Exception):
    """Anything picoLLM reports on purpose; its text is one line for a person."""

    exit_code = 1
    http_status = 500
    told = False
    """Whether another process of the same run says it already."""


class InputError(PicoError, ValueError):
    """Something the user gave cannot be used: an argument, a configuration value, a request field."""

    exit_code = 2
    http_status = 400


class ConversationError(InputError):
    """A conversation breaks the schema; the text names the message index and what is allowed."""


class DataError(InputError):
    """A data file or one of its rows cannot be used; the text names the file and the row."""


class ContextError(InputError):
    """More tokens than a context or a token budget holds; the text says by how many."""


class CheckpointError(PicoError):
    """A checkpoint is missing, damaged, or of an architecture picoLLM does not run."""

    exit_code = 3
    http_status = 503


class FormatMismatchError(CheckpointError):
    """A checkpoint was trained in a chat format that is not the one installed; the text names the field."""


class UnavailableError(PicoError):
    """Something outside the program is missing: a data set, a host, a port, room on a disk."""

    exit_code = 3
    http_status = 503


class DivergedError(PicoError):
    """A training run was stopped because its loss exploded or is not a number."""

    exit_code = 4
    http_status = 500


def nearest(word: str, known: Collection[str]) -> str:
    """Return what to say of a ``word`` that is not in ``known``: the one that was meant, or all there are.

    >>> nearest("chtml", ["chatml", "llama3"])
    "did you mean 'chatml'?"
    >>> nearest("gpt", ["chatml", "llama3"])
    'expected one of chatml, llama3.'
    """
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}."
