"""Sentences are written only where the numbers bear them out."""

from __future__ import annotations

from dataclasses import replace

from picollm.eval.comparison import Comparison, FactsRow
from picollm.eval.findings import facts_sentence, facts_title, headlines, limits, price_sentence
from picollm.eval.score import Share


def row(group: str, completing: int, before: int, after: int, num: int = 100) -> FactsRow:
    return FactsRow(group, *(Share(right, num) for right in (completing, before, after)))


def test_unlocking_is_claimed_only_when_the_intervals_are_apart() -> None:
    unlocked = facts_sentence([row("B", 94, 1, 78), row("C", 0, 0, 1)])
    assert "raises that to 78%: the knowledge was there" in unlocked
    assert "did not create them: 1% right" in unlocked
    same = facts_sentence([row("B", 94, 10, 12)])
    assert "after fine-tuning it is 12%: too few questions" in same and "the knowledge was there" not in same
    assert "9%: it did not unlock them" in facts_sentence([row("B", 94, 10, 9)])
    assert facts_sentence([]) == ""
    assert "unlocks" in facts_title([row("B", 94, 1, 78), row("C", 0, 0, 1)])
    assert "unlocks" not in facts_title([row("B", 94, 10, 12), row("C", 0, 0, 1)])
    assert "unlocks" not in facts_title([row("B", 94, 1, 78), row("C", 0, 0, 40)])


def test_many_right_answers_on_untaught_facts_are_not_called_knowledge() -> None:
    assert "guessing" in facts_sentence([row("C", 0, 0, 40)])


def test_headlines_show_before_and_after(comparison: Comparison) -> None:
    shown = {headline.label: (headline.base, headline.sft) for headline in headlines(comparison)}
    assert shown["replies that end by themselves"] == ("0%", "100%")
    assert shown["facts known but never asked in SFT"] == ("0.6%", "76%")
    assert shown["how far the weights moved"][0] is None


def test_limits_are_shown_with_this_models_own_failures(comparison: Comparison) -> None:
    truth, obedience, tools, evaluation = limits(comparison)
    assert truth.examples[0].reply == "It is in Lisbon." and "Ghent" in truth.examples[0].note
    assert obedience.examples[0].prompt.startswith("System: Answer in one word.")
    assert tools.examples == ()
    assert "1 of 4" in evaluation.text and evaluation.examples == ()
    assert all(not limit.examples for limit in limits(replace(comparison, prompts=(), tasks=())))


def test_the_price_is_named_where_it_is_certain(comparison: Comparison) -> None:
    assert "0.78 bits per byte instead of 0.71" in price_sentence(comparison)
    assert comparison.bits is not None
    same = replace(comparison.bits, sft=comparison.bits.base)
    assert price_sentence(replace(comparison, bits=same)) == ""
    assert price_sentence(replace(comparison, bits=None)) == ""
