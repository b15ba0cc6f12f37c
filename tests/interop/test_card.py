"""The card says what the record says, and scores with their size and uncertainty."""

from __future__ import annotations

from typing import Any

from picollm.checkpoint import verify
from picollm.interop.card import CardScore, last_parts, model_card


def test_a_card_tells_base_data_format_scores_and_limits(chat_checkpoint: Any) -> None:
    directory = chat_checkpoint()
    record = verify(directory)
    card = model_card(directory, record, "org/name", [CardScore("gsm8k", 150, 0.5, (0.42, 0.58))])
    assert card.startswith("---\nlibrary_name: transformers\n") and 'base_model: "org/base"' in card
    assert "`Qwen3ForCausalLM`" in card and "`org/base` (weights sha256 `cdcdcdcdcdcdcdcd`)" in card
    assert "| smoltalk: `primer` | 5 | 1.0 | - | `abababababababab` |" in card
    assert record.format is not None and record.format["fingerprint"] in card
    assert "| gsm8k | 50 % | 42 to 58 % | 150 | 0 % |" in card
    assert "no guarantee that what it writes is true or safe" in card
    assert "picollm chat org/name" in card and "picollm certify org/name" in card
    assert "None were measured" in model_card(directory, record, "org/name")


def test_local_paths_keep_their_ends_only() -> None:
    assert last_parts("/home/me/data/chat/train.parquet") == "chat/train.parquet"
    assert last_parts("org/name") == "org/name" and last_parts("hub:org/name@abc") == "hub:org/name@abc"
