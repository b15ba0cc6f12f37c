"""The comparison on real small checkpoints: with itself, with a moved twin, with a foreign base."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from picollm.chat.conversation import Conversation, Message
from picollm.chat.format import ChatFormat
from picollm.checkpoint import Checkpoint, grow_embeddings
from picollm.data import primer
from picollm.errors import InputError
from picollm.eval.bits import assistant_losses, document_bits
from picollm.eval.compare import Limits, compare
from picollm.eval.comparison import Comparison, StageTime
from picollm.eval.prompts import Prompt
from picollm.eval.report import write_report
from picollm.record import Record
from picollm.tasks.registry import load_task
from picollm.tokenizer import Tokenizer

from_user = [Message("user", "Explain a token in 2 sentences.")]
PROMPTS = [
    Prompt("explain", "explanation", Conversation(from_user), {"kind": "sentences", "count": 2}),
    Prompt("hello", "talk", Conversation([Message("user", "Hello there")])),
]
LIMITS = Limits(questions=6, base_chat_questions=2, per_task={"facts": 9}, max_tokens=8)


def talk(name: str = "gsm8k", num: int = 6) -> dict[str, list[Conversation]]:
    task = load_task(name, "validation", limit=num)
    return {name: [task[index] for index in range(num)]}


def test_a_checkpoint_compared_with_itself_differs_in_nothing(checkpoint: Checkpoint) -> None:
    tasks = [load_task(name, "test") for name in ("facts", "mmlu", "identity")]
    texts = list(itertools.islice(primer.documents(3), 4))
    found = compare(
        checkpoint, checkpoint, tasks=tasks, prompts=PROMPTS, conversations=talk(), texts=texts, limits=LIMITS
    )
    assert all(difference.difference == 0 == difference.interval[0] for difference in found.differences)
    assert all(prompt.base == prompt.sft for prompt in found.prompts)
    assert found.same_architecture and not found.notes
    assert {movement.relative for movement in found.movement} == {0.0}
    assert found.bits is not None and found.bits.base == found.bits.sft == document_bits(checkpoint, texts)
    assert all(loss.base == loss.sft for loss in found.losses)
    asked = [
        (t.sft_chat.num, t.base_chat.num, t.base_completion and t.base_completion.num)
        for t in found.tasks
        if t.sft_chat and t.base_chat
    ]
    assert asked == [(9, 3, 9), (6, 6, 6), (6, 2, None)]


def test_the_comparison_survives_json_and_its_report_is_written(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    curve = [{"step": 1, "loss": 2.0, "validation/talk": 1.5, "precision": "fp32"}]
    trained = replace(checkpoint, record=Record("sft", curve=curve))
    found = compare(
        checkpoint,
        trained,
        prompts=PROMPTS,
        conversations=talk(),
        limits=LIMITS,
        stages=[StageTime("all", 3.0)],
    )
    assert found.curves == {"sft": [{"step": 1.0, "loss": 2.0, "validation/talk": 1.5}]}
    assert any(token.supervised for token in found.mask) and found.mask[0].control
    written = write_report(found, tmp_path / "report")
    assert sorted(path.name for path in written.values()) == ["comparison.json", "report.html", "report.md"]
    assert Comparison.from_dict(found.to_dict()) == found


def test_a_foreign_base_is_asked_as_fine_tuning_met_it(tokenizer: Tokenizer, checkpoint: Checkpoint) -> None:
    grown = tokenizer.with_special_tokens(ChatFormat.required_tokens("chatml"))
    fmt = ChatFormat.named("chatml", grown)
    size = len(grown)
    model = grow_embeddings(checkpoint.model, size, range(len(tokenizer), size), len(tokenizer))
    sft = Checkpoint(model, grown, fmt, Record("sft"), Path("chatml"))
    base = replace(checkpoint, format=None, record=Record("import"))
    found = compare(base, sft, prompts=PROMPTS, conversations=talk("identity"), limits=LIMITS)
    # This "fine-tuned" model is the base with fresh control tokens: exactly what the base is asked as.
    assert all(prompt.base == prompt.sft for prompt in found.prompts)
    assert found.losses[0].base == found.losses[0].sft == assistant_losses(model, fmt, talk("identity"))[0]
    assert len(found.notes) == 1 and "without this chat format" in found.notes[0]
    assert found.same_architecture and [d.field for d in found.config_differences] == ["vocab_size"]


def test_what_cannot_be_compared_says_why(checkpoint: Checkpoint) -> None:
    with pytest.raises(InputError, match="the second checkpoint of a comparison is the fine-tuned one"):
        compare(checkpoint, replace(checkpoint, format=None), prompts=PROMPTS)
    other = Tokenizer.train(
        ["another text altogether, of other words"] * 3, 300, ChatFormat.required_tokens("picollm")
    )
    stranger = replace(checkpoint, tokenizer=other, format=ChatFormat.named("picollm", other))
    with pytest.raises(InputError, match="have different tokenizers"):
        compare(stranger, checkpoint, prompts=PROMPTS)


def test_the_base_model_in_chat_form_gets_its_share_of_the_questions() -> None:
    limits = Limits(questions=150, base_chat_questions=50, per_task={"facts": 600, "mmlu": 2})
    assert [limits.of_base_chat(task) for task in ("facts", "gsm8k", "mmlu")] == [200, 50, 1]
    assert Limits(questions=None, base_chat_questions=50).of_base_chat("gsm8k") == 50
    assert Limits(questions=150, base_chat_questions=None).of_base_chat("gsm8k") == 150
    assert Limits(questions=None, base_chat_questions=50, per_task={"facts": 9}).of_base_chat("facts") == 9
