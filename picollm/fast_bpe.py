"""The fast twin of a byte-level BPE tokenizer: ``tiktoken`` with the same merges, where both always agree.

tiktoken knows no list of merges: it joins the two neighbors whose bytes together are the earliest token.
That is the same procedure as BPE when (1) ids grow with the merges' order, and (2) every token is what BPE
makes of its own bytes, for then only one pair of neighbors can ever stand where a token could arise. Both are
checked when a tokenizer is loaded. Words must be cut alike too, so only the split patterns below are taken; a
test compares the two regular expression engines on every code point of Unicode.
"""

from __future__ import annotations

import itertools
from typing import Any

import tiktoken
from tokenizers import models

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SIGNS_AND_SPACE = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2_PATTERN = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + _SIGNS_AND_SPACE
LLAMA3_PATTERN = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + _SIGNS_AND_SPACE
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# GPT-2's after every digit was cut out (SmolLM2): a digit ends a run of spaces, and takes none of them.
DIGITS_GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"

# In longer texts a run of white space could overflow the stack of tiktoken's regular expression engine.
_MAX_CHARACTERS = 50_000


class FastEncoder:
    """``tiktoken`` in place of a ``tokenizer.json`` whose every text it encodes to the same ids."""

    def __init__(self, encoding: tiktoken.Encoding, ascii_only: bool) -> None:
        self._encode = encoding.encode_ordinary
        self._ascii_only = ascii_only

    @classmethod
    def build(cls, specification: dict[str, Any]) -> FastEncoder | None:
        """Return the twin of ``specification`` (which has no special tokens), or None if they may differ."""
        model, normalizer = specification["model"], specification["normalizer"]
        composes = normalizer == {"type": "NFC"}  # leaves ASCII as it is
        pattern = _split_pattern(specification["pre_tokenizer"])
        odd = ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
        if pattern is None or not (normalizer is None or composes):
            return None
        if model.get("type") != "BPE" or any(model.get(name) for name in odd):
            return None
        ranks = _mergeable_ranks(model)
        if ranks is None:
            return None
        encoding = tiktoken.Encoding("twin", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        return cls(encoding, composes)

    def encode(self, text: str) -> list[int] | None:
        """Return the ids of ``text``, or None when this text must take the slow way."""
        if len(text) > _MAX_CHARACTERS:
            return None
        if not text.isascii():
            if self._ascii_only:
                return None
            try:
                text.encode("utf-8")
            except UnicodeEncodeError:
                return None  # tiktoken would repair a lone surrogate silently
        return self._encode(text)


def bytes_of_symbol(symbol: str) -> bytes:
    """Return the bytes that an entry of a byte-level vocabulary spells."""
    try:
        return bytes(_BYTE_OF_SYMBOL[character] for character in symbol)
    except KeyError:
        return symbol.encode("utf-8")  # a special token listed among the ordinary ones


def _byte_symbols() -> dict[str, int]:
    """Return GPT-2's spelling of the 256 bytes: printable ones as themselves, the others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTE_OF_SYMBOL = _byte_symbols()


def _split_pattern(pre_tokenizer: dict[str, Any] | None) -> str | None:
    """Return one regular expression that cuts words as ``pre_tokenizer`` does, or None if none is known."""
    steps = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer or {}])
    if not steps or steps[-1].get("type") != "ByteLevel" or steps[-1]["add_prefix_space"]:
        return None
    cuts_words = steps[-1].get("use_regex", True)
    if len(steps) == 1 and cuts_words:
        return GPT2_PATTERN
    if len(steps) != 2:
        return None
    first = steps[0]
    if cuts_words:
        return DIGITS_GPT2_PATTERN if first == {"type": "Digits", "individual_digits": True} else None
    pattern: str | None = first.get("pattern", {}).get("Regex")
    isolates = first["type"] == "Split" and first["behavior"] == "Isolated" and not first["invert"]
    return pattern if isolates and pattern in (QWEN2_PATTERN, LLAMA3_PATTERN) else None


def _mergeable_ranks(model: dict[str, Any]) -> dict[bytes, int] | None:
    """Return token bytes -> id when tiktoken's merging equals that of ``model``, else None."""
    vocabulary: dict[str, int] = model["vocab"]
    made = [vocabulary["".join(pair)] for pair in model["merges"]]
    if any(later < earlier for earlier, later in itertools.pairwise(made)):
        return None
    if len(vocabulary) - len(set(made)) != 256 or not all(symbol in vocabulary for symbol in _BYTE_OF_SYMBOL):
        return None
    # Without ignore_merges, which would hide a token that no merges lead to.
    bare = models.BPE(vocab=vocabulary, merges=[(left, right) for left, right in model["merges"]])
    if any(len(bare.tokenize(symbol)) != 1 for symbol in vocabulary):
        return None
    return {bytes_of_symbol(symbol): token_id for symbol, token_id in vocabulary.items()}
