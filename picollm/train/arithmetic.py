"""How many floating-point operations a batch cannot do without."""

from __future__ import annotations

from picollm.model.config import ModelConfig
from picollm.train.batches import NO_TARGET, Batch


def necessary_flops(config: ModelConfig, batch: Batch, *, frozen: bool = False) -> int:
    """Return the operations of the matrix products that forward and backward of ``batch`` need.

    Counted: every matrix on every token, attention on the pairs that the causal mask leaves, the head on
    supervised positions only, and so the last layer's queries, output projection and MLP. Not counted:
    recomputation, the optimizer, all that is between the products. Backward costs twice what forward does;
    for ``frozen`` matrices, beside which adapters are trained, only as much. The adapters themselves and the
    first layer, whose input needs no gradient then, are taken as if they evened out.
    """
    width, inner = config.hidden_size, config.intermediate_size
    q, kv = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    keys_and_values, others = 2 * width * kv, 2 * width * q + 3 * width * inner
    matrices, attention = batch.num_targets * config.vocab_size * width, 0
    seen_T = batch.positions + 1
    last = config.num_hidden_layers - 1
    for layer in range(config.num_hidden_layers):
        window = config.window(layer)
        seen = seen_T if window is None else seen_T.clamp(max=window)
        asking = seen[batch.targets != NO_TARGET] if layer == last else seen
        matrices += len(seen) * keys_and_values + len(asking) * others
        attention += 2 * q * int(asking.sum())
    return (4 if frozen else 6) * matrices + 6 * attention
