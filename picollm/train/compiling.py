"""torch's compiler for a model's layers, while a run lasts."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

from picollm.errors import UnavailableError

BACKEND = "inductor"


@contextmanager
def compiled(layers: Iterable[nn.Module], asked: bool) -> Iterator[None]:
    """Let ``torch.compile`` fuse what each layer does between its matrix products while the block runs.

    Layers are compiled one by one, for streams of any length: all share one program, and the last, where only
    the selected tokens ask, has another.

    Raises:
        UnavailableError: the compiler lacks something here.
    """
    if not asked:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException

    layers = list(layers)
    for layer in layers:
        layer.compile(dynamic=True, backend=BACKEND)
    try:
        yield
    except TorchDynamoException as error:
        reason = textwrap.shorten(str(error), 200)
        raise UnavailableError(f"torch.compile does not work here: {reason} Train without it.") from error
    finally:
        for layer in layers:
            layer._compiled_call_impl = None


def uncompiled(asked: bool) -> AbstractContextManager[object]:
    """Let compiled layers run as they are in this block: validation would need programs of its own."""
    return torch.compiler.set_stance("force_eager") if asked else nullcontext()
