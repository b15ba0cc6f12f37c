"""How the process keeps its memory between one batch and the next."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Let glibc's allocator keep what is freed, for the next batch; call before training.

    Activations are large, and by default each is taken from the system anew and given back: all of its pages
    then cost a fault, which is slow above all in virtual machines. Without glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _NEVER)
        mallopt(_TRIM_THRESHOLD, _NEVER)
