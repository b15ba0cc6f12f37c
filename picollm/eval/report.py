"""The comparison as pages for people: ``report.html`` (one file, no requests) and ``report.md``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from picollm.eval import findings, plots, tables
from picollm.eval.comparison import Comparison, PromptComparison, TaskComparison
from picollm.eval.markdown import render_markdown
from picollm.eval.properties import Properties
from picollm.eval.score import Score
from picollm.eval.weights import Movement
from picollm.paths import atomic_file

_TEMPLATE = Path(__file__).with_name("report.html")
_STYLE = Path(__file__).with_name("report.css")


def write_report(comparison: Comparison, directory: Path) -> dict[str, Path]:
    """Write ``report.html``, ``report.md`` and ``comparison.json``; return their paths by suffix."""
    texts = {
        "report.html": render_html(comparison),
        "report.md": render_markdown(comparison),
        "comparison.json": json.dumps(comparison.to_dict(), ensure_ascii=False, allow_nan=False, indent=1),
    }
    written = {}
    for name, text in texts.items():
        with atomic_file(directory / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
        written[name.rsplit(".", 1)[1]] = directory / name
    return written


def read_comparison(directory: Path) -> Comparison:
    """Return the comparison that ``write_report`` left in ``directory``."""
    return Comparison.from_dict(json.loads((directory / "comparison.json").read_text(encoding="utf-8")))


def render_html(comparison: Comparison) -> str:
    """Return the whole report as one HTML page that needs nothing else."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        c=comparison,
        css=Markup(_STYLE.read_text(encoding="utf-8")),
        headlines=findings.headlines(comparison),
        facts=tables.facts_table(comparison.facts()),
        facts_title=findings.facts_title(comparison.facts()),
        facts_sentence=findings.facts_sentence(comparison.facts()),
        first=comparison.prompts[0] if comparison.prompts else None,
        properties=tables.properties_table(comparison.differences),
        lengths=Markup(_lengths(comparison.prompts)),
        bars=[_bars(task) for task in comparison.tasks],
        scores=tables.scores_table(comparison),
        losses=tables.losses_table(comparison),
        price=findings.price_sentence(comparison),
        architecture=tables.architecture_table(comparison),
        heat=_heat(comparison.movement),
        curves=_curves(comparison.curves),
        overlaps=tables.overlaps_table(comparison),
        stages=tables.stages_table(comparison),
        limits=findings.limits(comparison),
        categories=_categories(comparison.prompts),
        chips=_chips,
        percent=tables.percent,
        seconds=tables.duration(comparison.seconds),
    )


def _chips(properties: Properties) -> list[dict[str, str]]:
    """Return the properties of one reply as short labels, the verdicts with a mood."""
    p = properties
    chips = []
    if p.passes is not None:
        chips.append(("obeys" if p.passes else "does not obey", "good" if p.passes else "bad"))
    chips.append(("ends by itself", "good") if p.ends_by_itself else ("does not end", "bad"))
    if p.leaks_role:
        chips.append(("speaks for another role", "bad"))
    chips.append((_count(p.num_tokens, "token"), ""))
    chips.append((_count(p.num_sentences, "sentence"), ""))
    if p.num_list_items:
        chips.append((_count(p.num_list_items, "list item"), ""))
    if p.num_code_fences:
        chips.append((_count(p.num_code_fences, "code block"), ""))
    if p.repetition >= 0.2:
        chips.append((f"{tables.percent(p.repetition)} repeated", "bad"))
    return [{"text": text, "mood": mood} for text, mood in chips]


def _count(num: int, noun: str) -> str:
    return f"{num} {noun}{'' if num == 1 else 's'}"


def _bars(task: TaskComparison) -> dict[str, Any]:
    sides: list[tuple[str, str, Score | None]] = [
        ("base, completing", "swatch-completion", task.base_completion),
        ("base, in chat form", "swatch-base", task.base_chat),
        ("SFT, in chat form", "swatch-sft", task.sft_chat),
    ]
    return {
        "task": task.task,
        "num": max((score.num for _, _, score in sides if score), default=0),
        "stops": task.sft_chat.stop_rate if task.sft_chat else None,
        "bars": [
            {
                "label": label,
                "swatch": swatch,
                "text": tables.share(score),
                "value": round(100 * score.value, 1),
                "low": round(100 * score.interval[0], 1),
                "high": round(100 * score.interval[1], 1),
                "chance": round(100 * score.chance, 1),
            }
            for label, swatch, score in sides
            if score is not None
        ],
    }


def _lengths(prompts: Sequence[PromptComparison]) -> str:
    series = {
        side: [getattr(prompt, side).properties.num_tokens for prompt in prompts] for side in ("base", "sft")
    }
    return (
        plots.histogram(series, title="Length of the replies in tokens", x_label="tokens") if prompts else ""
    )


def _curves(curves: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    shown = []
    for name, points in curves.items():
        series = {
            ("base" if name == "pretrain" else "sft"): [
                (p["step"], p["loss"]) for p in points if "loss" in p
            ],
            "validation": [(p["step"], loss) for p in points if (loss := _validation_loss(p)) is not None],
        }
        title = {"pretrain": "Base training", "sft": "Fine-tuning"}.get(name, name)
        svg = plots.line_chart(series, title=title, x_label="step", y_label="loss")
        if svg:
            gray = "; gray: on held-out text" if series["validation"] else ""
            shown.append({"svg": Markup(svg), "caption": f"{title}: nats per supervised token{gray}."})
    return shown


def _validation_loss(point: dict[str, float]) -> float | None:
    """Return the mean of a point's validation losses; bits per byte are of another unit and stay out."""
    losses = [v for name, v in point.items() if name.startswith("validation/") and "bits" not in name]
    return sum(losses) / len(losses) if losses else None


def _heat(movement: Sequence[Movement]) -> dict[str, Any] | None:
    inside = [m for m in movement if m.layer is not None]
    if not inside:
        return None
    strongest = max(m.relative for m in inside) or 1.0
    kinds = list(dict.fromkeys(m.kind for m in inside))
    cells = {(m.layer, m.kind): m for m in inside}
    rows = []
    for layer in sorted({m.layer for m in inside if m.layer is not None}):
        row = [cells.get((layer, kind)) for kind in kinds]
        rows.append(
            {
                "name": f"layer {layer}",
                "cells": [
                    m and {"heat": round(60 * m.relative / strongest), "text": f"{m.relative:.1%}"}
                    for m in row
                ],
            }
        )
    outside = ", ".join(f"{m.kind} {m.relative:.1%}" for m in movement if m.layer is None)
    return {"kinds": kinds, "rows": rows, "outside": outside}


def _categories(prompts: Sequence[PromptComparison]) -> list[dict[str, Any]]:
    found = []
    for name in dict.fromkeys(prompt.category for prompt in prompts):
        members = [prompt for prompt in prompts if prompt.category == name]
        checked = [prompt for prompt in members if prompt.check is not None]
        found.append(
            {
                "name": name.replace("_", " "),
                "prompts": members,
                "checked": len(checked),
                "base": sum(bool(prompt.base.properties.passes) for prompt in checked),
                "sft": sum(bool(prompt.sft.properties.passes) for prompt in checked),
            }
        )
    return found
