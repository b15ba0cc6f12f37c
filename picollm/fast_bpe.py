"""The fast twin of a byte-level BPE tokenizer: ``tiktoken`` with the same merges, where both always agree.

tiktoken knows no list of merges: it joins the two neighbors whose bytes together are the earliest token.
That is the same procedure as BPE when (1) ids grow with the merges' order, and (2) every token is what BPE
makes of its own bytes, for then only one pair of neighbors can ever stand where a token could arise. Both are
checked when a tokenizer is loaded. Words must be cut alike too, so only the split patterns below are taken; a
test compares the two regular expression engines on every code point of Unicode.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
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

# Where a run of spaces meets a word, these patterns look ahead, which is slow: the last space belongs to the
# word. The same words come out without looking ahead when the text is cut before that space. Texts with other
# white space inside a line are left to the pattern as it is.
_LOOK_AHEAD = r"|\s+(?!\S)"
_LAST_OF_SPACES = re.compile(r"  (?=[^ \r\n])")
_OTHER_SPACES = "\t\v\f"
_RARE_SPACES = "\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))

# Among texts, special token 7 is written as the character 0, "7;" and recognized by the twin under that name.
_MARK = "\0"

# In longer texts a run of white space could overflow the stack of tiktoken's regular expression engine.
_MAX_CHARACTERS = 50_000


class FastEncoder:
    """``tiktoken`` in place of a ``tokenizer.json``; each method returns None for texts it is not sure of."""

    def __init__(
        self, pattern: str, ranks: dict[bytes, int], special_ids: Iterable[int], ascii_only: bool
    ) -> None:
        self._special_ids = frozenset(special_ids)
        self._cut_id = max(*self._special_ids, *ranks.values()) + 1  # no token; taken out again
        special = {_mark(token_id): token_id for token_id in (*self._special_ids, self._cut_id)}

        def twin(pattern: str) -> tiktoken.Encoding:
            return tiktoken.Encoding("twin", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)

        self._any_text = twin(pattern)
        newlines_apart = pattern in (QWEN2_PATTERN, LLAMA3_PATTERN)
        self._no_runs = twin(pattern.replace(_LOOK_AHEAD, "")) if newlines_apart else None
        self._ascii_only = ascii_only
        self._spelled: dict[tuple[int, ...], str] = {}
        self._allowed = {_mark(self._cut_id)}  # the marks in use: tiktoken is faster when they are few

    @classmethod
    def build(cls, specification: dict[str, Any], special_ids: Iterable[int]) -> FastEncoder | None:
        """Return the twin of ``specification`` (which has no special tokens), or None if they may differ.

        ``special_ids`` are those that may stand between texts in ``encode_around``.
        """
        model, normalizer = specification["model"], specification["normalizer"]
        composes = normalizer == {"type": "NFC"}  # leaves ASCII as it is
        pattern = split_pattern(specification["pre_tokenizer"])
        odd = ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
        if pattern is None or not (normalizer is None or composes):
            return None
        if model.get("type") != "BPE" or any(model.get(name) for name in odd):
            return None
        ranks = _mergeable_ranks(model)
        return None if ranks is None else cls(pattern, ranks, special_ids, composes)

    def encode(self, text: str) -> list[int] | None:
        """Return the ids of ``text``."""
        return self.encode_around([text], ())

    def encode_around(self, texts: Sequence[str], between: Sequence[tuple[int, ...]]) -> list[int] | None:
        """Return the ids of all ``texts``, each encoded by itself, with ``between[i]`` after text ``i``."""
        if _MARK in "".join(texts):
            return None
        row = [""] * (len(texts) + len(between))
        row[::2] = texts
        try:
            row[1::2] = [self._spelled[ids] for ids in between]
        except KeyError:
            row[1::2] = [self._spell(ids) for ids in between]
        joined = "".join(row)
        if len(joined) > _MAX_CHARACTERS:
            return None
        if not joined.isascii() and (self._ascii_only or not _is_unicode(joined)):
            return None
        if self._no_runs is None or _has_other_spaces(joined):
            return self._encode(self._any_text, joined)
        if "  " not in joined:
            return self._encode(self._no_runs, joined)
        ids = self._encode(self._no_runs, _LAST_OF_SPACES.sub(f" {_mark(self._cut_id)} ", joined))
        return [token_id for token_id in ids if token_id != self._cut_id]

    def _encode(self, encoding: tiktoken.Encoding, joined: str) -> list[int]:
        return encoding.encode(joined, allowed_special=self._allowed, disallowed_special=())

    def _spell(self, ids: tuple[int, ...]) -> str:
        """Return the text that the twin encodes to ``ids``; the first and the last are special tokens."""
        spelled = b""
        for token_id in ids:
            if token_id in self._special_ids:
                self._allowed.add(_mark(token_id))
                spelled += _mark(token_id).encode("ascii")
            else:
                spelled += self._any_text.decode_single_token_bytes(token_id)
        self._spelled[ids] = spelled.decode("utf-8")
        return self._spelled[ids]


def _has_other_spaces(text: str) -> bool:
    """Return whether ``text`` has white space that is neither a space nor a line break."""
    if any(space in text for space in _OTHER_SPACES):  # ten times as fast as a regular expression
        return True
    return not text.isascii() and any(space in text for space in _RARE_SPACES)


def _is_unicode(text: str) -> bool:
    """Return whether ``text`` has no lone surrogate; tiktoken would replace it silently."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _mark(token_id: int) -> str:
    return f"{_MARK}{token_id};"


def bytes_of_symbol(symbol: str) -> bytes:
    """Return the bytes that an entry of a byte-level vocabulary spells."""
    try:
        return bytes(_BYTE_OF_SYMBOL[character] for character in symbol)
    except KeyError:
        return symbol.encode("utf-8")  # a special token listed among the ordinary ones


def bytes_of_piece(piece: str) -> bytes:
    """Return the bytes that an entry of a SentencePiece vocabulary spells."""
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return bytes([int(piece[3:5], 16)])
    return piece.replace("\u2581", " ").encode("utf-8")


def _byte_symbols() -> dict[str, int]:
    """Return GPT-2's spelling of the 256 bytes: printable ones as themselves, the others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTE_OF_SYMBOL = _byte_symbols()


def split_pattern(pre_tokenizer: dict[str, Any] | None) -> str | None:
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
