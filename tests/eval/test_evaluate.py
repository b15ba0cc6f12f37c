"""Scores against an independent path: naive greedy decoding and full logits, one question at a time."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from picollm.chat.conversation import Conversation, Message
from picollm.chat.format import ChatFormat
from picollm.checkpoint import Checkpoint
from picollm.data.rows import rows_of
from picollm.errors import InputError
from picollm.eval.answers import leaks_role, readable_reply
from picollm.eval.evaluate import choose, evaluate
from picollm.infer.engine import Engine
from picollm.infer.request import Reply
from picollm.model.llama import Model
from picollm.tasks.facts import Facts
from picollm.tasks.mmlu import Mmlu
from picollm.tasks.registry import load_task
from picollm.tasks.task import Task
from picollm.train.batches import Batches
from picollm.train.config import TrainConfig
from picollm.train.examples import Examples
from picollm.train.loop import train


def format_of(checkpoint: Checkpoint) -> ChatFormat:
    assert checkpoint.format is not None
    return checkpoint.format


def logits_after(checkpoint: Checkpoint, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return checkpoint.model(torch.tensor(ids), torch.arange(len(ids)))[-1, : len(checkpoint.tokenizer)]


def greedy(checkpoint: Checkpoint, ids: list[int], num: int, stop: set[int]) -> list[int]:
    """Return the greedy continuation, recomputed from the start at every token."""
    reply: list[int] = []
    while len(reply) < num and not (reply and reply[-1] in stop):
        reply.append(int(logits_after(checkpoint, ids + reply).argmax()))
    return reply


def facts_like(checkpoint: Checkpoint, num: int = 6) -> tuple[Facts, list[bool]]:
    """Return questions of which this random model answers some rightly: the first word of its own reply."""
    special = set(checkpoint.tokenizer.special_tokens.values())
    rows: list[dict[str, Any]] = []
    expected = []
    for index in range(num):
        question = f"Which one is number {index}?"
        prompt = Conversation([Message("user", question)])
        ids = greedy(checkpoint, format_of(checkpoint).render_for_completion(prompt), 12, special)
        said = checkpoint.tokenizer.decode([token_id for token_id in ids if token_id not in special])
        answer = said.strip() if index % 2 and said.strip() else "nowhere"
        rows.append(
            {
                "question": question,
                "reply": f"It is {answer}.",
                "answer": answer,
                "group": "AB"[index % 2],
                "completion": "It is",
                "relation": "r",
                "subject": "s",
            }
        )
        expected.append(index % 2 == 1 and bool(said.strip()))
    return Facts("facts", rows_of(rows, "mine"), "test"), expected


def test_a_reply_counts_when_it_ends_and_is_right(checkpoint: Checkpoint) -> None:
    fields = {"relation": "r", "subject": "s", "completion": "It is"}
    known = {"question": "Where?", "reply": "It is Rome.", "answer": "Rome", "group": "A", **fields}
    wrong = {"question": "Which one?", "reply": "It is Oslo.", "answer": "Bern", "group": "B", **fields}
    task = Facts("facts", rows_of([known, wrong], "mine"), "test")
    engine = Engine(replace(checkpoint, model=taught(checkpoint, [task[0], task[1]])))
    score = evaluate(engine, task, max_tokens=12)
    assert {name: group.num_right for name, group in score.groups.items()} == {"A": 1, "B": 0}
    assert (score.num_right, score.num, score.stop_rate, score.chance) == (1, 2, 1.0, 0.0)
    assert [(failure.expected, failure.reply) for failure in score.failures] == [("Bern", "It is Oslo.")]
    length = len(checkpoint.tokenizer.encode("It is Rome."))
    assert evaluate(engine, task, max_tokens=length).num_right == 0  # all said, and not ended


def taught(checkpoint: Checkpoint, conversations: list[Conversation]) -> Model:
    """Return a copy of the model that has learned these conversations by heart."""
    model, fmt = copy.deepcopy(checkpoint.model), format_of(checkpoint)
    examples = Examples()
    for rendered in fmt.render_batch(conversations):
        examples.append(rendered)
    with tempfile.TemporaryDirectory() as run_dir:
        config = TrainConfig(num_steps=60, learning_rate=1e-2, precision="fp32")
        train(model, Batches(examples, 256), config, run_dir=Path(run_dir))
    return model


def test_letters_are_the_argmax_of_full_logits_in_both_forms(checkpoint: Checkpoint) -> None:
    choices = [["red", "blue", "one", "tin"], ["ant", "cat", "map", "sea"], ["a", "b", "c", "d"]]
    rows = [
        {
            "question": f"Which of these, {number}?",
            "subject": "s",
            "choices": choices[number % 3],
            "answer": number % 4,
        }
        for number in range(9)
    ]
    task = Mmlu("mmlu", rows_of(rows, "mine"), "test")
    letters = [checkpoint.tokenizer.encode(letter)[0] for letter in "ABCD"]
    fmt = format_of(checkpoint)
    prompts = {
        "chat": [fmt.render_for_completion(task.prompt(index)) for index in range(9)],
        "completion": [fmt.render_completion_prompt(task.completion(index)) for index in range(9)],
    }
    for form, prompt_ids in prompts.items():
        chosen = [int(logits_after(checkpoint, ids)[letters].argmax()) for ids in prompt_ids]
        score = evaluate(Engine(checkpoint), task, form=form)  # type: ignore[arg-type]
        assert score.num_right == sum(
            row["answer"] == choice for row, choice in zip(rows, chosen, strict=True)
        )
        assert (score.chance, score.stop_rate) == (0.25, None)


def test_a_base_model_continues_the_beginning_of_a_document(checkpoint: Checkpoint) -> None:
    task, _ = facts_like(checkpoint)
    special = set(checkpoint.tokenizer.special_tokens.values())
    ids = greedy(checkpoint, format_of(checkpoint).render_completion_prompt("It is"), 20, special)
    said = checkpoint.tokenizer.decode([token_id for token_id in ids if token_id not in special])
    score = evaluate(Engine(checkpoint), task, form="completion", max_tokens=20)
    assert score.num_right == sum(task.check_completion(index, said) for index in range(len(task)))
    assert score.failures[0].reply and score.failures[0].prompt == "It is"
    foreign = evaluate(Engine(replace(checkpoint, format=None)), task, form="completion", max_tokens=4)
    assert foreign.num == len(task)


def test_a_question_beyond_the_context_counts_as_wrong_and_is_counted(checkpoint: Checkpoint) -> None:
    task, _ = facts_like(checkpoint, num=4)
    rows = [dict(task.rows[index]) for index in range(4)]
    rows[1]["question"] = "long " * 300
    score = evaluate(Engine(checkpoint), Facts("facts", rows_of(rows, "mine"), "test"), max_tokens=12)
    assert (score.num_too_long, score.num) == (1, 4)


class Silent(Task):
    scoring = None

    def messages(self, index: int) -> list[dict[str, object]]:
        return [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]


def test_what_cannot_be_scored_says_why(checkpoint: Checkpoint) -> None:
    engine = Engine(checkpoint)
    task, _ = facts_like(checkpoint, num=2)
    with pytest.raises(InputError, match="a limit of 0 asks nothing"):
        evaluate(engine, task, limit=0)
    with pytest.raises(InputError, match="has no questions"):
        evaluate(engine, Facts("facts", rows_of([], "mine"), "test"))
    with pytest.raises(InputError, match="only trained on"):
        evaluate(engine, Silent("chat", rows_of([{}], "mine"), "test"))
    with pytest.raises(InputError, match="has no completion form"):
        evaluate(engine, load_task("identity", "test"), form="completion")
    with pytest.raises(InputError, match="no chat format"):
        evaluate(Engine(replace(checkpoint, format=None)), task)


def test_a_smaller_limit_asks_a_part_of_what_a_larger_one_asks() -> None:
    task = load_task("facts", "test")
    fewer, more = choose(task, 20, seed=3), choose(task, 60, seed=3)
    assert set(fewer) < set(more) and len(set(more)) == 60 and more == sorted(more)
    assert choose(task, None, 3) == choose(task, 10**9, 3) == list(range(len(task)))
    assert choose(task, 20, seed=4) != fewer


@pytest.mark.parametrize(
    ("text", "reason", "leaks"),
    [
        ("Hello.", "stop", False),
        ("Hello.", "foreign_role", True),
        ("Hello.\nUser: and you?", "stop", True),
        ("The user: a person.", "stop", False),
    ],
)
def test_role_leaks(checkpoint: Checkpoint, text: str, reason: Any, leaks: bool) -> None:
    assert leaks_role(Reply(Message("assistant", text), [1], reason, 3), checkpoint.tokenizer) is leaks


def test_a_marker_spelled_as_text_is_a_leak_and_calls_are_readable(checkpoint: Checkpoint) -> None:
    marker = next(iter(checkpoint.tokenizer.special_tokens))
    assert leaks_role(Reply(Message("assistant", f"so {marker}"), [1], "stop", 3), checkpoint.tokenizer)
    parts = [
        {"type": "python", "text": "2+3"},
        {"type": "python_output", "text": "5"},
        {"type": "text", "text": "It is 5."},
    ]
    conversation = Conversation.from_dict(
        {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": parts}]}
    )
    assert readable_reply(Reply(conversation.messages[-1], [1], "stop", 3)) == "«2+3 = 5»It is 5."
