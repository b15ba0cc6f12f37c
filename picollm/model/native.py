"""``native.c`` for Python: kernels for CPUs that a compiler made at installation, where there was one.

A kernel takes tensors, checks nothing that its callers know, and writes where it is told to. Without the
library (``is_available`` says so) callers use torch, which gives the same numbers up to rounding.
"""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from picollm.paths import environment

VERSION = 3
DTYPES = {torch.float32: "f32", torch.bfloat16: "bf16"}

_POINTER, _LONG, _FLOAT = ctypes.c_void_p, ctypes.c_long, ctypes.c_float
_SIGNATURES = {  # p: a tensor or None, f: a float, l: an integer; the number of threads comes last
    "norm": "ppfllpp",
    "norm_backward": "pppppllpp",
    "gate": "pplllp",
    "gate_backward": "ppplpp",
    "rotate": "pppflllp",
    "cross_entropy": "ppllfp",
    "add": "ppl",
    "attention": "ppppppllflllpppplpp",
    "attention_backward": "pppppppppllflllppp",
    "heads": "pppfppllllppp",
    "keep": "pppllllp",
    "attend": "ppppplflllllp",
    "product": "pppplllp",
    "decode": "ppppplppppfflllllllpplp",
}


@functools.cache
def _functions() -> dict[tuple[str, torch.dtype], Any] | None:
    """Return the kernels by name and dtype; None where they were not built or cannot run."""
    if environment("PICOLLM_NATIVE") == "0":
        return None
    found = [Path(__file__).with_name("_native" + suffix) for suffix in EXTENSION_SUFFIXES]
    try:
        _share_openmp()
        library = next(ctypes.CDLL(str(path)) for path in found if path.exists())
        if library.picollm_native_version() != VERSION:
            return None
        return {
            (name, dtype): _function(library, f"{name}_{suffix}", signature)
            for name, signature in _SIGNATURES.items()
            for dtype, suffix in DTYPES.items()
        }
    except (OSError, StopIteration, AttributeError):
        return None


def _function(library: ctypes.CDLL, name: str, signature: str) -> Any:
    function = getattr(library, name)
    types = {"p": _POINTER, "f": _FLOAT, "l": _LONG}
    function.argtypes = [*(types[letter] for letter in signature), ctypes.c_int]
    function.restype = None
    return function


def _share_openmp() -> None:
    """Let the library find the OpenMP that torch has loaded: a second one would bring threads of its own."""
    mapped = set(re.findall(r"/\S*/lib(?:g|i|)omp\S*", Path("/proc/self/maps").read_text()))
    for path in sorted(mapped, key=lambda path: ("/torch/" not in path, path))[:1]:
        ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)


def is_available() -> bool:
    """Return whether the kernels were built and can run here."""
    return _functions() is not None


def takes(*tensors: Tensor) -> bool:
    """Return whether the kernels are there and work on such tensors: on a CPU, of one known dtype, dense."""
    first = tensors[0]
    return (
        first.device.type == "cpu"
        and first.dtype in DTYPES
        and all(x.dtype == first.dtype and x.is_contiguous() for x in tensors)
        and is_available()
    )


def addresses(tensors: Sequence[Tensor | None]) -> Tensor:
    """Return where the numbers of each tensor are, as a kernel wants a list of tensors; 0 for None."""
    return torch.tensor([0 if x is None else x.data_ptr() for x in tensors], dtype=torch.int64)


def is_plain(x: Tensor) -> bool:
    """Return whether nobody but the operation itself looks at ``x``: no autocast, no ``torch.compile``."""
    return (
        x.device.type == "cpu" and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()
    )


def call(name: str, dtype: torch.dtype, *arguments: Tensor | float | int | None) -> None:
    """Run the kernel ``name`` for numbers of ``dtype`` with torch's number of threads.

    ``native_kernels.h`` says what each takes.
    """
    functions = _functions()
    assert functions is not None
    functions[name, dtype](
        *(x.data_ptr() if isinstance(x, Tensor) else x for x in arguments), torch.get_num_threads()
    )
