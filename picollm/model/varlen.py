"""Attention over a whole stream of texts in one call: torch's ``varlen_attn``, FlashAttention on CUDA.

Source: arXiv 2307.08691. In other places, and with torch before 2.11, there is no ``Varlen``.

Shapes: T tokens, N texts, H heads, K kv heads, D head width.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

DTYPES = (torch.bfloat16, torch.float16)
WIDEST_HEAD, HEAD_STEP = 256, 8  # what its kernels are built for
LEAST_CAPABILITY = (8, 0)  # Ampere


@dataclass(frozen=True)
class Varlen:
    """Where the texts of one stream lie, and who answers.

    ``offsets[N + 1]`` are 0 and the end of each text as int32; ``longest`` is the length of the longest.
    ``shares_heads`` says whether ``function`` lets query heads share a kv head by itself (torch 2.12).
    """

    function: Callable[..., Any]
    shares_heads: bool
    offsets: Tensor
    longest: int

    @classmethod
    def of(cls, ends_N: Tensor) -> Varlen | None:
        """Return the plan for texts with these ends, on their device; None where it cannot be done."""
        if not is_possible(ends_N.device):
            return None
        from torch.nn.attention.varlen import varlen_attn

        offsets = F.pad(ends_N, (1, 0)).to(torch.int32)
        shares_heads = "enable_gqa" in inspect.signature(varlen_attn).parameters
        return cls(varlen_attn, shares_heads, offsets, int(offsets.diff().max()))

    def takes(self, q_THD: Tensor) -> bool:
        """Return whether queries of this dtype and width can be answered."""
        width = q_THD.shape[-1]
        return q_THD.dtype in DTYPES and width <= WIDEST_HEAD and width % HEAD_STEP == 0

    def attend(self, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, scale: float, window: int | None) -> Tensor:
        """Return what each query reads from its own text up to itself, ``[T, H, D]``.

        With ``window``, only from the last ``window`` tokens, itself included.
        """
        share = {"enable_gqa": True} if self.shares_heads else {}
        if not share:
            heads = q_THD.shape[1] // k_TKD.shape[1]
            k_TKD, v_TKD = k_TKD.repeat_interleave(heads, 1), v_TKD.repeat_interleave(heads, 1)
        sizes = (self.offsets, self.offsets, self.longest, self.longest)
        before = -1 if window is None else window - 1
        out_THD: Tensor = self.function(
            q_THD, k_TKD, v_TKD, *sizes, scale=scale, window_size=(before, 0), **share
        )
        return out_THD


def is_possible(device: torch.device) -> bool:
    """Return whether this torch has the function, with windows, and ``device`` the kernels."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < LEAST_CAPABILITY:
        return False
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:  # before torch 2.10
        return False
    return "window_size" in inspect.signature(varlen_attn).parameters
