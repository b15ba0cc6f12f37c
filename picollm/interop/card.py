"""The model card: what a checkpoint is, from its own record, for people who meet it on the Hub."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picollm.files import read_json
from picollm.record import Record


@dataclass(frozen=True)
class CardScore:
    """One score of the card: the share of right answers among ``num``, with its 95 % interval."""

    task: str
    num: int
    value: float
    interval: tuple[float, float]
    chance: float = 0.0


def model_card(directory: Path, record: Record, name: str, scores: Sequence[CardScore] = ()) -> str:
    """Return the ``README.md`` of the checkpoint in ``directory`` under the Hub id ``name``."""
    config = read_json(directory / "config.json")
    architecture = (config.get("architectures") or ["unknown"])[0]
    sections = [
        _front_matter(record),
        f"# {name.rpartition('/')[2]}",
        _what(record, architecture, config),
        _chat(record, name),
        _data(record),
        _scores(scores),
        _limits(record),
        _made(record),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def last_parts(location: str, count: int = 2) -> str:
    """Return the end of a local path; who reads a card has no use for the directories of who wrote it."""
    if "\\" in location or location.startswith(("/", "~", "./", "../")):
        return "/".join(location.replace("\\", "/").rstrip("/").split("/")[-count:])
    return location


def _front_matter(record: Record) -> str:
    lines = ["library_name: transformers", "pipeline_tag: text-generation", "tags:", "- picollm"]
    lines += [f"- {record.stage}"]
    parent = (record.parent or {}).get("name", "")
    if parent.count("/") == 1 and parent == last_parts(parent):
        lines.append(f"base_model: {json.dumps(parent)}")
    return "\n".join(["---", *lines, "---"])


def _what(record: Record, architecture: str, config: dict[str, Any]) -> str:
    shape = f"{config.get('num_hidden_layers')} layers, width {config.get('hidden_size')}, "
    shape += f"{config.get('vocab_size'):,} tokens" if isinstance(config.get("vocab_size"), int) else "tokens"
    how = {
        "sft": "fine-tuned to chat from",
        "pretrain": "trained from scratch as a base model",
        "import": "imported from",
    }
    base = record.parent or {}
    origin = f" `{last_parts(base['name'])}` (weights sha256 `{base['sha256'][:16]}`)" if base else ""
    return f"A `{architecture}` ({shape}), {how[record.stage]}{origin}, made with picoLLM."


def _chat(record: Record, name: str) -> str:
    if record.format is None:
        return "It is a base model: it continues text and knows no chat format."
    chat_format = record.format
    added = (
        f" Added to the base's tokenizer: {len(record.added_tokens)} tokens." if record.added_tokens else ""
    )
    return "\n".join(
        [
            "## How to chat",
            "",
            f"Chat format `{chat_format['name']}`, fingerprint `{chat_format['fingerprint']}`.{added}",
            "",
            "```bash",
            f"picollm chat {name}",
            f"picollm certify {name}    # does every runtime read it alike?",
            "```",
            "",
            "```python",
            "from transformers import pipeline",
            f'chat = pipeline("text-generation", "{name}")',
            'chat([{"role": "user", "content": "Hi"}])',
            "```",
            "",
            "The template is in `chat_template.jinja`; what ends a reply in `generation_config.json`.",
        ]
    )


def _data(record: Record) -> str:
    if not record.data:
        return ""
    lines = [
        "## Trained on",
        "",
        "| source | rows | weight | tokens | sha256 of the data |",
        "|---|---|---|---|---|",
    ]
    for entry in record.data:
        source = last_parts(str(entry.get("source", "?")))
        task = f"{entry['task']}: " if "task" in entry else ""
        rows, tokens = (_count(entry.get(key)) for key in ("rows", "tokens"))
        weight, digest = entry.get("weight", 1), str(entry.get("sha256", "-"))[:16]
        lines.append(f"| {task}`{source}` | {rows} | {weight} | {tokens} | `{digest}` |")
    return "\n".join(lines)


def _scores(scores: Sequence[CardScore]) -> str:
    if not scores:
        return "## Scores\n\nNone were measured for this card."
    lines = [
        "## Scores",
        "",
        "| task | right | 95 % interval | questions | chance |",
        "|---|---|---|---|---|",
    ]
    for s in scores:
        low, high = (f"{100 * end:.0f}" for end in s.interval)
        lines.append(
            f"| {s.task} | {100 * s.value:.0f} % | {low} to {high} % | {s.num:,} | {100 * s.chance:.0f} % |"
        )
    return "\n".join(lines)


def _limits(record: Record) -> str:
    first = "It answers questions in a chat." if record.format else "It continues text."
    return (
        f"## Limits\n\n{first} There is no guarantee that what it writes is true or safe: nothing here was "
        "trained or tested to refuse harm, and a small model invents facts. Do not use it to decide anything "
        "about people."
    )


def _made(record: Record) -> str:
    environment = ", ".join(f"{name} {value}" for name, value in record.environment.items())
    seconds = record.measured.get("seconds")
    cost = f"Training took {seconds:,.0f} s. " if isinstance(seconds, int | float) else ""
    return f"## How it was made\n\n{cost}Seed {record.seed}; {environment}. All of it is in `record.json`."


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "-"
