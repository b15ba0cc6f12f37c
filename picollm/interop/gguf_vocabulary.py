"""A ``tokenizer.json`` as a GGUF file says it, and what llama.cpp makes of that.

Two kinds exist there. **Byte-level BPE** ("gpt2"): merges, and the name of a pattern that cuts words, of
which llama.cpp knows a fixed list. **SentencePiece-like BPE** ("llama"): no merges but a score for each
token; any two neighbors whose text together is a token are joined, the best score first. A merge's rank,
negative, is the score of what it makes; whether that joins as the merges do is checked on texts before a file
is written.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from picollm.errors import InputError
from picollm.fast_bpe import (
    DIGITS_GPT2_PATTERN,
    GPT2_PATTERN,
    LLAMA3_PATTERN,
    QWEN2_PATTERN,
    split_pattern,
)
from picollm.tokenizer import Tokenizer

_PRE = {
    QWEN2_PATTERN: "qwen2",
    LLAMA3_PATTERN: "llama-bpe",
    GPT2_PATTERN: "gpt-2",
    DIGITS_GPT2_PATTERN: "smollm",
}
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
_SPACE = "\u2581"
_PROBES = (
    "Once upon a time there was a little girl named Lily. She didn't like 12,345 apples!",
    "  two  spaces, a\ttab,\n\n\nlines and \r\n more \n",
    "def f(x):\n    return {'a': [x ** 2, \"b\"]}  # 3.14159e-10\n",
    "I'll we're THEY'D it's 'quoted' \"double\" -- - ... ?!?! <x> A=>B",
    "Naïve café, 日本語, русский, \u0627\u0644, \U0001f642\U0001f468\u200d\U0001f469",
    "aaaaaaaaaaaaaaaa 0000000000 ................ ----====",
)


@dataclass(frozen=True)
class Vocabulary:
    """The tokenizer of a GGUF file."""

    model: str
    """``gpt2`` or ``llama``, llama.cpp's names of the two kinds."""
    pre: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    space_prefix: bool = False
    begin: int | None = None
    """The token that the tokenizer itself puts in front of a text."""
    unknown: int | None = None

    @classmethod
    def of(cls, source: Mapping[str, Any], size: int) -> Vocabulary:
        """Return the vocabulary of a ``tokenizer.json`` for an embedding of ``size`` rows.

        Raises:
            InputError: llama.cpp has no tokenizer of this kind.
        """
        model = source["model"]
        if model.get("type") != "BPE":
            raise InputError(
                f"llama.cpp files are written for BPE tokenizers; this one is {model.get('type')}."
            )
        merges = tuple(pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"])
        tokens = {token_id: token for token, token_id in model["vocab"].items()}
        types = {i: _BYTE if re.fullmatch("<0x[0-9A-F]{2}>", t) else _NORMAL for i, t in tokens.items()}
        for added in source["added_tokens"]:
            tokens[added["id"]] = added["content"]
            types[added["id"]] = _CONTROL if added["special"] else _USER_DEFINED
        unknown = model["vocab"].get(model.get("unk_token"))
        if unknown is not None:
            types[unknown] = _UNKNOWN
        common = {
            "tokens": tuple(tokens.get(i, f"[PAD{i}]") for i in range(size)),
            "types": tuple(types.get(i, _UNUSED) for i in range(size)),
            "begin": _begin(source),
            "unknown": unknown,
        }
        pattern = split_pattern(source["pre_tokenizer"])
        if pattern in _PRE:
            return cls("gpt2", _PRE[pattern], merges=merges, **common)
        prefix = _space_prefix(source)
        if prefix is None:
            raise InputError(
                "llama.cpp does not know how this tokenizer cuts words; a GGUF file would misread text."
            )
        ranks = {
            model["vocab"]["".join(pair.split(" "))]: rank for rank, pair in reversed([*enumerate(merges)])
        }
        scores = tuple(-float(ranks.get(i, len(merges))) for i in range(size))
        return cls("llama", "default", scores=scores, space_prefix=prefix, **common)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Vocabulary:
        """Return the vocabulary of a GGUF file's metadata, the inverse of ``to_fields``."""
        name = "tokenizer.ggml."
        return cls(
            model=fields[name + "model"],
            pre=fields[name + "pre"],
            tokens=tuple(fields[name + "tokens"]),
            types=tuple(fields[name + "token_type"]),
            merges=tuple(fields.get(name + "merges", ())),
            scores=tuple(fields.get(name + "scores", ())),
            space_prefix=fields.get(name + "add_space_prefix", False),
            unknown=fields.get(name + "unknown_token_id"),
        )

    def to_fields(self) -> dict[str, Any]:
        """Return the metadata of a GGUF file that say all this, special ids of the chat format aside."""
        found: dict[str, Any] = {"model": self.model, "pre": self.pre, "tokens": list(self.tokens)}
        found |= {"token_type": list(self.types), "add_space_prefix": self.space_prefix}
        found |= {"merges": list(self.merges)} if self.merges else {}
        found |= {"scores": list(self.scores)} if self.scores else {}
        found |= {} if self.unknown is None else {"unknown_token_id": self.unknown}
        return {f"tokenizer.ggml.{name}": value for name, value in found.items()}

    @property
    def limits(self) -> str | None:
        """What this tokenizer cannot do in llama.cpp, for people."""
        if self.model == "llama" and _BYTE not in self.types:
            return (
                "the tokenizer has no byte tokens: on a character outside them llama.cpp stops with "
                "an error, where transformers and picoLLM read the unknown token"
            )
        return None

    def begins_with(self, token_id: int) -> bool:
        """Return whether the tokenizer itself puts ``token_id`` in front of every text."""
        return self.begin == token_id

    def check(self, tokenizer: Tokenizer) -> None:
        """Raise InputError unless llama.cpp's way of tokenizing gives the ids that ``tokenizer`` gives."""
        encode = self.encoder()
        for text in _PROBES:
            words = " ".join(w for w in re.split(" ", text) if self.unknown not in tokenizer.encode(w))
            expected, found = tokenizer.encode(words), encode(words)
            if expected != found:
                at = next((i for i, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b), 0)
                raise InputError(
                    f"llama.cpp would read the text {words[:40]!r} in other tokens than tokenizer.json does "
                    f"(from token {at} on: {found[at : at + 3]}, not {expected[at : at + 3]})."
                )

    def encoder(self) -> Encoder:
        """Return what turns a text into ids as llama.cpp does: control tokens that it spells are meant."""
        return Encoder(self)


class Encoder:
    """llama.cpp's tokenizer, from nothing but what the file says."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._ids = {token: token_id for token_id, token in enumerate(vocabulary.tokens)}
        kinds = (_UNKNOWN, _CONTROL, _USER_DEFINED)
        spelled = [t for t, kind in zip(vocabulary.tokens, vocabulary.types, strict=True) if kind in kinds]
        longest_first = sorted(spelled, key=lambda token: -len(token))
        self._special = re.compile(
            "(" + "|".join(map(re.escape, longest_first)) + ")" if spelled else "((?!))"
        )
        self._bpe = _bpe(vocabulary) if vocabulary.model == "gpt2" else None

    def __call__(self, text: str) -> list[int]:
        """Return the ids of ``text``. Raises InputError where llama.cpp stops."""
        ids: list[int] = []
        for index, piece in enumerate(self._special.split(text)):
            if index % 2:
                ids.append(self._ids[piece])
            elif piece:
                ids += self._encode(piece)
        return ids

    def _encode(self, text: str) -> Sequence[int]:
        if self._bpe is not None:
            return self._bpe.encode(text, add_special_tokens=False).ids
        return self._join((" " if self._vocabulary.space_prefix else "") + text)

    def _join(self, text: str) -> list[int]:
        """Join neighbors whose text together is a token, the best score first, the leftmost of equals."""
        pieces: list[str | None] = list(text.replace(" ", _SPACE))
        before, behind = [i - 1 for i in range(len(pieces))], [i + 1 for i in range(len(pieces))]
        scores, queue = self._vocabulary.scores, list[tuple[float, int, int, str]]()

        def offer(left: int, right: int) -> None:
            if left < 0 or right >= len(pieces):
                return
            joined = f"{pieces[left]}{pieces[right]}"
            if joined in self._ids:
                heapq.heappush(queue, (-scores[self._ids[joined]], left, right, joined))

        for left in range(len(pieces) - 1):
            offer(left, left + 1)
        while queue:
            _, left, right, joined = heapq.heappop(queue)
            if pieces[left] is None or pieces[right] is None or f"{pieces[left]}{pieces[right]}" != joined:
                continue
            pieces[left], pieces[right] = joined, None
            behind[left] = behind[right]
            if behind[right] < len(pieces):
                before[behind[right]] = left
            offer(before[left], left)
            offer(left, behind[left])
        return [token_id for piece in pieces if piece is not None for token_id in self._of_piece(piece)]

    def _of_piece(self, piece: str) -> list[int]:
        if piece in self._ids:
            return [self._ids[piece]]
        try:
            return [self._ids[f"<0x{byte:02X}>"] for byte in piece.encode("utf-8")]
        except KeyError:
            raise InputError(
                f"{piece!r} is outside the vocabulary and there are no byte tokens; llama.cpp stops"
            ) from None


def _bpe(vocabulary: Vocabulary) -> Backend:
    pattern = next(pattern for pattern, name in _PRE.items() if name == vocabulary.pre)
    ids = {token: token_id for token_id, token in enumerate(vocabulary.tokens)}
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in vocabulary.merges)]
    backend = Backend(models.BPE(vocab=ids, merges=pairs))
    cut = pre_tokenizers.Split(Regex(pattern), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([cut, to_bytes])
    backend.decoder = decoders.ByteLevel()
    return backend


def _begin(source: Mapping[str, Any]) -> int | None:
    """Return the token that the post-processor of a ``tokenizer.json`` puts in front of a text."""
    for step in (source.get("post_processor") or {}).get("processors", [source.get("post_processor") or {}]):
        if step.get("type") == "TemplateProcessing" and "SpecialToken" in step["single"][0]:
            name = step["single"][0]["SpecialToken"]["id"]
            return int(step["special_tokens"][name]["ids"][0])
    return None


def _space_prefix(source: Mapping[str, Any]) -> bool | None:
    """Return whether a text gets a space in front, None when spaces are not written as SentencePiece does."""
    normalizer, cut = source.get("normalizer") or {}, source.get("pre_tokenizer") or {}
    steps = normalizer.get("normalizers", [normalizer])
    if cut.get("type") == "Metaspace":
        return bool(cut.get("prepend_scheme", "always") != "never")
    replaces = any(step.get("type") == "Replace" and step.get("content") == _SPACE for step in steps)
    if cut or not replaces:
        return None
    return any(step.get("type") == "Prepend" and step.get("prepend") == _SPACE for step in steps)
