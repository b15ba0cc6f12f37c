"""What a chat format is, as data: the frames around each kind of text, nothing that a program must decide.

A rendered conversation is the texts of its messages with fixed strings between them. ``Specification`` holds
those strings. They are written as a Jinja template would print them: where a string spells a special token of
the tokenizer, that token is meant; everything else is ordinary text, tokenized together with its neighbors.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from picollm.errors import InputError, nearest


@dataclass(frozen=True)
class Frame:
    """The strings around one kind of text: ``opens`` ``says`` text ``closes`` ``after``.

    For the assistant, what it says itself - ``says``, its text, ``closes`` - is supervised; ``opens`` and
    ``after`` are given to it. ``closes`` holds the token that ends its turn.
    """

    opens: str
    closes: str
    says: str = ""
    after: str = ""


@dataclass(frozen=True)
class Specification:
    """One chat grammar; ``merge_system``: a system message stands in the first user turn, before its text."""

    system: Frame | None
    """None in a grammar that has no place for a system message."""
    user: Frame
    assistant: Frame
    end: str
    """The special token in ``assistant.closes``: sampling it ends a reply."""
    tokens: tuple[str, ...]
    """The special tokens that a tokenizer must have."""
    begin: str = ""
    """What stands before everything."""
    finish: str | None = None
    """What stands behind the last reply in place of ``assistant.after``; None: just that."""
    python: Frame | None = None
    python_output: Frame | None = None
    merge_system: bool = False
    default_system: str | None = None
    """A system message that stands where a conversation brings none."""
    strip: tuple[str, ...] = ()
    """The roles whose text loses its surrounding white space; none in any format of ours, many elsewhere."""
    bos: str | None = None
    pad: str | None = None
    also_ends: tuple[str, ...] = ()
    """Special tokens besides ``end`` that end a reply."""

    def to_dict(self) -> dict[str, Any]:
        """Return the specification as JSON values, without what is as by default."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        unusual = [item.name for item in fields(self) if values[item.name] != item.default]
        return {name: _to_json(values[name]) for name in unusual}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Specification:
        """Return the specification that ``to_dict`` described. Raises InputError when it is not one."""
        try:
            return cls(**{"system": None, **{name: _from_json(value) for name, value in values.items()}})
        except (TypeError, AttributeError) as error:
            raise InputError(f"not a chat format specification: {error}") from error


def _to_json(value: Any) -> Any:
    if isinstance(value, Frame):
        return {name: text for name, text in asdict(value).items() if text}
    return list(value) if isinstance(value, tuple) else value


def _from_json(value: Any) -> Any:
    if isinstance(value, dict):
        return Frame(**{"opens": "", "closes": "", **value})
    return tuple(value) if isinstance(value, list) else value


def _native(role: str) -> Frame:
    return Frame(f"<|{role}_start|>", f"<|{role}_end|>")


def _chatml(role: str) -> Frame:
    return Frame(f"<|im_start|>{role}\n", "<|im_end|>", after="\n")


def _llama3(role: str) -> Frame:
    return Frame(f"<|start_header_id|>{role}<|end_header_id|>\n\n", "<|eot_id|>")


def _zephyr(role: str) -> Frame:
    return Frame(f"<|{role}|>\n", "</s>", after="\n")


def _gemma(role: str) -> Frame:
    return Frame(f"<start_of_turn>{role}\n", "<end_of_turn>", after="\n")


def _markers(*kinds: str) -> tuple[str, ...]:
    return tuple(f"<|{kind}_{edge}|>" for kind in kinds for edge in ("start", "end"))


_PARAGRAPH = Frame("", "\n\n")  # a system message as the first paragraph of the first user turn

SPECIFICATIONS: dict[str, Specification] = {
    "picollm": Specification(
        tokens=("<|bos|>", *_markers("system", "user", "assistant", "python", "output"), "<|pad|>"),
        bos="<|bos|>",
        pad="<|pad|>",
        begin="<|bos|>",
        system=_native("system"),
        user=_native("user"),
        assistant=_native("assistant"),
        end="<|assistant_end|>",
        python=_native("python"),
        python_output=_native("output"),
    ),
    "nanochat": Specification(
        tokens=("<|bos|>", *_markers("user", "assistant", "python", "output")),
        bos="<|bos|>",
        pad="<|bos|>",
        begin="<|bos|>",
        merge_system=True,
        system=_PARAGRAPH,
        user=_native("user"),
        assistant=_native("assistant"),
        end="<|assistant_end|>",
        python=_native("python"),
        python_output=_native("output"),
    ),
    # Qwen, SmolLM2 and many others.
    "chatml": Specification(
        tokens=("<|im_start|>", "<|im_end|>", "<|endoftext|>"),
        pad="<|endoftext|>",
        system=_chatml("system"),
        user=_chatml("user"),
        assistant=_chatml("assistant"),
        end="<|im_end|>",
        also_ends=("<|endoftext|>",),
    ),
    "llama3": Specification(
        tokens=(
            "<|begin_of_text|>",
            "<|end_of_text|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eot_id|>",
        ),
        bos="<|begin_of_text|>",
        pad="<|end_of_text|>",
        begin="<|begin_of_text|>",
        system=_llama3("system"),
        user=_llama3("user"),
        assistant=_llama3("assistant"),
        end="<|eot_id|>",
        also_ends=("<|end_of_text|>",),
    ),
    # The reply begins with a space that the model says itself, and ends with one.
    "llama2": Specification(
        tokens=("<s>", "</s>", "<unk>"),
        bos="<s>",
        pad="<unk>",
        merge_system=True,
        system=Frame("<<SYS>>\n", "\n<</SYS>>\n\n"),
        user=Frame("<s>[INST] ", " [/INST]"),
        assistant=Frame("", " </s>", says=" "),
        end="</s>",
    ),
    "mistral": Specification(
        tokens=("<s>", "</s>", "<unk>", "[INST]", "[/INST]"),
        bos="<s>",
        pad="<unk>",
        begin="<s>",
        merge_system=True,
        system=_PARAGRAPH,
        user=Frame("[INST] ", "[/INST]"),
        assistant=Frame("", "</s>", says=" "),
        end="</s>",
    ),
    "zephyr": Specification(
        tokens=("<s>", "</s>", "<unk>"),
        bos="<s>",
        pad="<unk>",
        system=_zephyr("system"),
        user=_zephyr("user"),
        assistant=_zephyr("assistant"),
        end="</s>",
    ),
    "gemma": Specification(
        tokens=("<bos>", "<eos>", "<pad>", "<start_of_turn>", "<end_of_turn>"),
        bos="<bos>",
        pad="<pad>",
        begin="<bos>",
        merge_system=True,
        system=_PARAGRAPH,
        user=_gemma("user"),
        assistant=_gemma("model"),
        end="<end_of_turn>",
        also_ends=("<eos>",),
    ),
    # For tokenizers with nothing but an end-of-text token, such as GPT-2's.
    "plain": Specification(
        tokens=("<|endoftext|>",),
        bos="<|endoftext|>",
        system=Frame("System: ", "\n"),
        user=Frame("User: ", "\n"),
        assistant=Frame("Assistant:", "<|endoftext|>", says=" ", after="\n"),
        end="<|endoftext|>",
    ),
}


def named_specification(name: str) -> Specification:
    """Return the specification called ``name``. Raises InputError when there is none."""
    if name not in SPECIFICATIONS:
        raise InputError(f"no chat format is called {name!r}; {nearest(name, SPECIFICATIONS)}")
    return SPECIFICATIONS[name]
