"""How likely each token of a prompt was: what ``echo`` with ``logprobs`` reports.

Shapes: T prompt tokens, N tokens of one piece, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from picollm.infer.sampling import TokenLogprob
from picollm.model.llama import Model

# Rows of logits at a time: a large vocabulary times a long prompt would be gigabytes.
_ROWS = 128


@torch.inference_mode()
def prompt_logprobs(
    model: Model, ids: Sequence[int], vocab_size: int, num_top: int
) -> list[TokenLogprob | None]:
    """Return each token's log-probability after those before it, with the ``num_top`` likeliest.

    None for the first token, which has nothing before it.
    """
    weight_VE = model.lm_head_weight
    ids_T = torch.tensor(ids, device=weight_VE.device)
    hidden_TE = model.hidden(ids_T, torch.arange(len(ids), device=weight_VE.device))
    found: list[TokenLogprob | None] = [None]
    for start in range(0, len(ids) - 1, _ROWS):
        hidden_NE = hidden_TE[start : min(start + _ROWS, len(ids) - 1)]
        logprobs_NV = F.linear(hidden_NE, weight_VE).float()[:, :vocab_size].log_softmax(-1)
        chosen_N1 = ids_T[start + 1 : start + 1 + len(logprobs_NV), None]
        values, tops = logprobs_NV.topk(min(num_top, vocab_size), dim=-1)
        rows = zip(
            chosen_N1[:, 0].tolist(),
            logprobs_NV.gather(1, chosen_N1)[:, 0].tolist(),
            tops.tolist(),
            values.tolist(),
            strict=True,
        )
        found += [TokenLogprob(i, p, tuple(zip(t, v, strict=True))) for i, p, t, v in rows]
    return found
