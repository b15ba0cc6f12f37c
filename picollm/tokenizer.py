"""Text to token ids and back, where text stays text.

``tokenizer.json`` is the file format, so that transformers, vLLM and llama.cpp open what we write. Two things
differ from the ``tokenizers`` library that reads it:

* No text can become a special token. Encoding uses a copy of the tokenizer that has never heard of any added
  token; ids of control tokens come from :meth:`Tokenizer.special_id`, and nowhere else.
* Byte-level BPE is encoded by ``tiktoken`` from the same merges, about five times faster, wherever
  :mod:`picollm.fast_bpe` can show that both give the same ids.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from picollm.errors import InputError
from picollm.fast_bpe import QWEN2_PATTERN, FastEncoder, bytes_of_piece, bytes_of_symbol
from picollm.paths import atomic_file

FILE_NAME = "tokenizer.json"
CONFIG_NAME = "tokenizer_config.json"


class Tokenizer:
    """One ``tokenizer.json``, immutable; the same bytes always give the same ids."""

    def __init__(self, source: str) -> None:
        """Build from the text of a ``tokenizer.json``. Raises InputError when it is not one."""
        try:
            specification = json.loads(source)
            self._backend = tokenizers.Tokenizer.from_str(source)
            self._added = {token["content"]: token for token in specification["added_tokens"]}
            text_only = _only_text(specification)
            self._text_backend = tokenizers.Tokenizer.from_str(json.dumps(text_only))
            self.is_byte_level = _has(specification["decoder"], "ByteLevel")
            self._fast = FastEncoder.build(text_only, [token["id"] for token in self._added.values()])
        except Exception as error:  # the Rust library raises bare Exception
            raise InputError(
                f"not a tokenizer.json ({error}); expected the file of the tokenizers library"
            ) from error
        self._source = source
        self._specification: dict[str, Any] = specification

    # -- making one ----------------------------------------------------------------------------------------

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, special_tokens: Sequence[str] = ()) -> Tokenizer:
        """Return a byte-level BPE tokenizer learned from ``texts``, the same one for the same texts.

        The 256 bytes come first, then the merges, then ``special_tokens``: ``vocab_size`` in all, or fewer
        when the texts hold too few different pairs. Words are split like Qwen2's, each digit alone.

        Raises:
            InputError: ``vocab_size`` has no room for the bytes and the special tokens.
        """
        room = vocab_size - len(special_tokens)
        if room < 256:
            raise InputError(
                f"vocab_size {vocab_size} is too small; expected at least {256 + len(special_tokens)}: "
                f"256 bytes and {len(special_tokens)} special tokens"
            )
        backend = tokenizers.Tokenizer(models.BPE())
        split = pre_tokenizers.Split(tokenizers.Regex(QWEN2_PATTERN), "isolated")
        to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=room, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        )
        backend.train_from_iterator(texts, trainer)
        return cls(backend.to_str(pretty=True)).with_special_tokens(special_tokens)

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Return the tokenizer in ``path``, a ``tokenizer.json`` or a directory that holds one.

        Raises:
            InputError: there is no such file, or it is not a tokenizer.
        """
        file = Path(path)
        if file.is_dir():
            file = file / FILE_NAME
        try:
            return cls(file.read_bytes().decode("utf-8"))
        except OSError as error:
            raise InputError(f"no tokenizer at {file} ({error.strerror}); expected a {FILE_NAME}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{file} is not UTF-8 (byte {error.start}); expected a {FILE_NAME}") from error

    def save(self, directory: str | Path, **config: Any) -> None:
        """Write ``tokenizer.json`` byte for byte, and a ``tokenizer_config.json`` for transformers.

        ``config`` adds entries to the latter, such as ``eos_token`` or ``model_max_length``.
        """
        directory = Path(directory)
        with atomic_file(directory / FILE_NAME) as file:
            file.write_bytes(self._source.encode("utf-8"))
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            **config,
        }
        with atomic_file(directory / CONFIG_NAME) as file:
            file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def with_special_tokens(self, tokens: Iterable[str]) -> Tokenizer:
        """Return a tokenizer that also has ``tokens`` as special tokens; no existing id moves.

        A token that is there already keeps its id; a new one gets the next free id.
        """
        missing = [token for token in dict.fromkeys(tokens) if not self._is_special(token)]
        if not missing:
            return self
        vocabulary = self._backend.get_vocab(with_added_tokens=True)
        added = [token for token in self._specification["added_tokens"] if token["content"] not in missing]
        next_id = self.vocab_size
        for token in missing:
            token_id = vocabulary.get(token)
            if token_id is None:
                token_id, next_id = next_id, next_id + 1
            flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            added.append({"id": token_id, "content": token, **flags, "special": True})
        added.sort(key=lambda token: token["id"])
        return Tokenizer(
            json.dumps({**self._specification, "added_tokens": added}, indent=2, ensure_ascii=False)
        )

    # -- text to ids ---------------------------------------------------------------------------------------

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``; whatever it spells, never the id of an added token.

        Raises:
            InputError: ``text`` holds a lone surrogate, so it is no Unicode text.
        """
        if self._fast is not None:
            ids = self._fast.encode(text)
            if ids is not None:
                return ids
        return self._slow_encode(text).ids  # type: ignore[no-any-return]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return ``[self.encode(text) for text in texts]``."""
        return [self.encode(text) for text in texts]

    def encode_around(self, texts: Sequence[str], between: Sequence[tuple[int, ...]]) -> list[int]:
        """Return the ids of all ``texts``, each encoded by itself, with ``between[i]`` after text ``i``.

        This is how a chat format is tokenized. Each of ``between`` starts and ends with a special token; no
        text, whatever it spells, adds another one.
        """
        ids = self._fast.encode_around(texts, between) if self._fast is not None else None
        if ids is None:
            ids = []
            for index, text in enumerate(texts):
                ids += [*self.encode(text), *(between[index] if index < len(between) else ())]
        return ids

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the ids of ``text`` and, for each, the half-open range of characters it covers."""
        encoding = self._slow_encode(text)
        return encoding.ids, encoding.offsets

    def count_within(self, ids: Sequence[int], text: str, length: int) -> int:
        """Return how many of ``ids``, the ids of ``text``, lie within its first ``length`` characters."""
        if not (self.is_byte_level and self._specification["normalizer"] is None):
            return sum(end <= length for _, end in self.encode_with_offsets(text)[1])
        room = len(text[:length].encode("utf-8"))
        for count, token_id in enumerate(ids):
            room -= len(self._bytes[token_id])
            if room < 0:
                return count
        return len(ids)

    def split_at_added_tokens(self, text: str) -> list[str | int]:
        """Return ``text`` cut at the added tokens it spells, as ids: for a format's text, never a user's.

        >>> tokenizer.split_at_added_tokens("<s>Hi")  # doctest: +SKIP
        [1, 'Hi']
        """
        ids = {name.strip(): token_id for name, token_id in self.added_tokens.items()}
        pieces = enumerate(self.cut_at_added_tokens(text))
        cut = [ids[piece.strip()] if index % 2 else piece for index, piece in pieces]
        return [piece for piece in cut if piece != ""]

    def cut_at_added_tokens(self, text: str) -> list[str]:
        """Return the pieces of ``text``, in turn ordinary text, perhaps empty, and a spelled added token."""
        return self._added_pattern.split(text)

    def encode_template(self, text: str) -> list[int]:
        """Return the ids of what a template printed, where spelled added tokens are meant; for proofs."""
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    @cached_property
    def _added_pattern(self) -> re.Pattern[str]:
        def spelled(token: dict[str, Any]) -> str:  # some tokens swallow the white space beside them
            return str(r"\s*" * token["lstrip"] + re.escape(token["content"]) + r"\s*" * token["rstrip"])

        longest_first = sorted(self._added.values(), key=lambda token: -len(token["content"]))
        return re.compile("(" + "|".join(map(spelled, longest_first)) + ")" if longest_first else r"((?!))")

    def _slow_encode(self, text: str) -> Any:
        try:
            return self._text_backend.encode(text, add_special_tokens=False)
        except (UnicodeEncodeError, TypeError) as error:
            raise InputError(
                f"not Unicode text ({error}); expected a string without lone surrogates"
            ) from error
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # what Rust raises is no Exception
                raise
            raise InputError(
                f"the tokenizer gives up on this text ({error}); its split pattern takes too long"
            ) from None

    # -- ids to text ---------------------------------------------------------------------------------------

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``, special tokens spelled out; broken UTF-8 becomes U+FFFD."""
        if self.is_byte_level:
            return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")
        self.token_bytes(max(ids, default=0))  # an unknown id is an error here, not an empty string
        return str(self._backend.decode(list(ids), skip_special_tokens=False))

    def token_bytes(self, token_id: int) -> bytes:
        """Return the UTF-8 bytes that ``token_id`` stands for; they may be a part of a character.

        Raises:
            InputError: no token has this id.
        """
        try:
            return self._bytes[token_id]
        except KeyError:
            raise InputError(
                f"token id {token_id} does not exist; expected 0 to {self.vocab_size - 1}"
            ) from None

    @cached_property
    def lead(self) -> str:
        """What stands before every encoded text and is taken off again by ``decode``: a space or nothing."""
        return " " if self.token_bytes(self.encode("a")[0]).startswith(b" ") else ""

    @cached_property
    def _bytes(self) -> dict[int, bytes]:
        special = {token["id"]: token["content"].encode("utf-8") for token in self._added.values()}
        vocabulary = self._backend.get_vocab(with_added_tokens=False)
        spell = bytes_of_symbol if self.is_byte_level else bytes_of_piece
        plain = {token_id: spell(symbol) for symbol, token_id in vocabulary.items()}
        return {**plain, **special}

    # -- what it holds -------------------------------------------------------------------------------------

    def _is_special(self, token: str) -> bool:
        return token in self._added and bool(self._added[token]["special"])

    @cached_property
    def special_tokens(self) -> dict[str, int]:
        """The special tokens with their ids: what no text can produce."""
        return {content: token["id"] for content, token in self._added.items() if token["special"]}

    @cached_property
    def control_ids(self) -> frozenset[int]:
        """The ids that no text has: all special tokens but the one that stands for unknown characters."""
        unknown = self._specification["model"].get("unk_token")
        return frozenset(i for token, i in self.special_tokens.items() if token != unknown)

    @cached_property
    def added_tokens(self) -> dict[str, int]:
        """All added tokens with their ids: the special ones, and others that are not made by merges."""
        return {content: token["id"] for content, token in self._added.items()}

    def special_id(self, token: str) -> int:
        """Return the id of the added token ``token``. Raises InputError when the tokenizer lacks it."""
        if token not in self._added:
            raise InputError(
                f"the tokenizer has no special token {token!r}; add it with "
                "tokenizer.with_special_tokens([...]) before training"
            )
        return int(self._added[token]["id"])

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest id: how many rows an embedding needs."""
        return max(self._backend.get_vocab(with_added_tokens=True).values()) + 1

    def __len__(self) -> int:
        return self.vocab_size

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the bytes of ``tokenizer.json``, in hexadecimal."""
        return hashlib.sha256(self._source.encode("utf-8")).hexdigest()

    def __repr__(self) -> str:
        return f"Tokenizer(vocab_size={self.vocab_size}, special_tokens={len(self.special_tokens)})"

    def __reduce__(self) -> tuple[type[Tokenizer], tuple[str]]:
        return Tokenizer, (self._source,)


def _has(node: Any, kind: str) -> bool:
    """Return whether a processing step of ``tokenizer.json``, or one inside it, is of type ``kind``."""
    if not isinstance(node, dict):
        return False
    inner = [*node.get("decoders", ()), *node.get("pretokenizers", ()), *node.get("normalizers", ())]
    return node.get("type") == kind or any(_has(child, kind) for child in inner)


def _only_text(specification: dict[str, Any]) -> dict[str, Any]:
    """Return ``specification`` without any way to reach a special token from text."""
    special = {token["content"] for token in specification["added_tokens"] if token["special"]}
    model = dict(specification["model"])
    if model.get("type") == "BPE":
        special.discard(model.get("unk_token"))
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        gone = special & set(model["vocab"])
        model["merges"] = [pair for pair in pairs if not gone.intersection((*pair, "".join(pair)))]
        model["vocab"] = {
            symbol: token_id for symbol, token_id in model["vocab"].items() if symbol not in gone
        }
    nothing = dict.fromkeys(("post_processor", "truncation", "padding"))
    return {**specification, **nothing, "model": model, "added_tokens": []}
