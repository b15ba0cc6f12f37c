"""Base versus SFT: the same prompts, the same questions and the same seed for both checkpoints."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from picollm.chat.conversation import Conversation
from picollm.errors import InputError
from picollm.eval.answers import Form, leaks_role, readable_prompt, readable_reply
from picollm.eval.bits import assistant_losses, document_bits
from picollm.eval.comparison import (
    Answer,
    BitsComparison,
    CheckpointFacts,
    Comparison,
    LossComparison,
    MaskToken,
    PromptComparison,
    StageTime,
    TaskComparison,
    paired_differences,
)
from picollm.eval.evaluate import evaluate
from picollm.eval.prompts import Prompt, load_prompts, reply_properties
from picollm.eval.weights import config_differences, weight_movement
from picollm.infer.engine import Engine, many_slots
from picollm.infer.params import SamplingParams
from picollm.progress import SILENT, Progress
from picollm.weights import grow_embeddings

if TYPE_CHECKING:
    from picollm.chat.format import ChatFormat
    from picollm.checkpoint import Checkpoint
    from picollm.eval.score import Score
    from picollm.infer.request import Reply
    from picollm.tasks.task import Task

_MOST_PICTURE_TOKENS = 160
_PROBE = "The same text, split by both: naïve 1234 x_y\n\tend."
_GROWN = (
    "The base checkpoint was made without this chat format. To be asked in it, its vocabulary was given the "
    "control tokens with the mean embedding, as at the start of fine-tuning; completing text it is as it was."
)


@dataclass(frozen=True)
class Limits:
    """How much of everything is asked; None asks all.

    The base model in chat form answers nothing and never stops, so each of its questions costs a full reply:
    it gets fewer of the same questions.
    """

    questions: int | None = 150
    base_chat_questions: int | None = 50
    """Of ``questions``; in proportion where ``per_task`` asks more or fewer."""
    per_task: Mapping[str, int] | None = None
    """Questions of single tasks, in place of ``questions``."""
    max_tokens: int = 96
    """The longest reply to a question of a task."""

    @property
    def prompt_tokens(self) -> int:
        """The longest reply to a prompt of the set: explanations take longer than answers."""
        return 2 * self.max_tokens

    def of(self, task: str) -> int | None:
        """Return the number of questions for ``task``."""
        return (self.per_task or {}).get(task, self.questions)

    def of_base_chat(self, task: str) -> int | None:
        """Return the number of these questions that the base model in chat form gets."""
        num, fewer = self.of(task), self.base_chat_questions
        if num is None or fewer is None or self.questions is None:
            return fewer if num is None else num
        return min(num, max(1, round(num * fewer / self.questions)))


def compare(
    base: Checkpoint,
    sft: Checkpoint,
    *,
    tasks: Sequence[Task] = (),
    prompts: Sequence[Prompt] | None = None,
    conversations: Mapping[str, Sequence[Conversation]] | None = None,
    texts: Sequence[str] = (),
    limits: Limits | None = None,
    seed: int = 0,
    stages: Sequence[StageTime] = (),
    progress: Progress = SILENT,
) -> Comparison:
    """Return everything that can be measured between ``base`` and ``sft``, its fine-tuned descendant.

    Args:
        base: the checkpoint before. In chat form it is asked in the format of ``sft``.
        sft: the checkpoint after; must have a chat format.
        tasks: scored for SFT in chat form and for base in chat and in completion form, where they have it.
        prompts: answered by both; None takes the shipped prompt set.
        conversations: held-out conversations per source, for the loss per assistant token.
        texts: held-out documents, for bits per byte.
        limits: how much of everything is asked.
        seed: decides which questions are asked.
        stages: what the stages of the story took, for the report.
        progress: shows bars.

    Raises:
        InputError: ``sft`` has no chat format, its tokenizer is not that of ``base``, or a limit is below 1.
    """
    if sft.format is None:
        raise InputError(
            f"{sft.path} has no chat format; the second checkpoint of a comparison is the fine-tuned one."
        )
    start = time.perf_counter()
    limits = limits or Limits()
    prompts = load_prompts() if prompts is None else prompts
    spoken_to = _grown(base, sft)
    completing, before, after = (Engine(c, num_slots=many_slots(c.model)) for c in (base, spoken_to, sft))
    answered = _answer_prompts(before, after, prompts, limits.prompt_tokens, progress)
    return Comparison(
        base=_facts(base),
        sft=_facts(sft),
        seed=seed,
        max_tokens=limits.max_tokens,
        prompt_tokens=limits.prompt_tokens,
        prompts=answered,
        differences=paired_differences(answered, seed),
        tasks=tuple(_score(task, completing, before, after, limits, seed, progress) for task in tasks),
        losses=_losses(spoken_to, sft, conversations or {}, progress),
        bits=_bits(base, sft, texts, progress),
        config_differences=tuple(config_differences(base.model.config, sft.model.config)),
        movement=tuple(weight_movement(base.model, sft.model)),
        curves=_curves(base, sft),
        stages=tuple(stages),
        mask=_mask_picture(sft.format, [c for source in (conversations or {}).values() for c in source]),
        notes=() if spoken_to is base else (_GROWN,),
        seconds=round(time.perf_counter() - start, 1),
    )


def _grown(base: Checkpoint, sft: Checkpoint) -> Checkpoint:
    """Return ``base`` as fine-tuning met it: with the tokenizer and the chat format of ``sft``.

    Control tokens that the base vocabulary lacks get the mean embedding, as at the start of fine-tuning.

    Raises:
        InputError: The tokenizers split text differently, so that the two are no base and its descendant.
    """
    assert sft.format is not None
    if base.format is not None and base.format.fingerprint == sft.format.fingerprint:
        return base
    if base.tokenizer.encode(_PROBE) != sft.tokenizer.encode(_PROBE):
        raise InputError(
            f"{base.path} and {sft.path} have different tokenizers, so one was not made from the other. "
            "Compare a base checkpoint with what was fine-tuned from it."
        )
    old, new = base.tokenizer.special_tokens, sft.tokenizer.special_tokens
    added = [token_id for token, token_id in new.items() if token not in old]
    model = grow_embeddings(base.model, sft.tokenizer.vocab_size, added, base.tokenizer.vocab_size)
    return replace(base, model=model, tokenizer=sft.tokenizer, format=sft.format)


def _facts(checkpoint: Checkpoint) -> CheckpointFacts:
    return CheckpointFacts(
        name=checkpoint.path.name,
        stage=checkpoint.record.stage,
        num_parameters=checkpoint.model.config.num_parameters,
        vocab_size=checkpoint.model.config.vocab_size,
        format=checkpoint.format.name if checkpoint.format else None,
        fingerprint=checkpoint.format.fingerprint if checkpoint.format else None,
    )


def _answer_prompts(
    base: Engine, sft: Engine, prompts: Sequence[Prompt], max_tokens: int, progress: Progress
) -> tuple[PromptComparison, ...]:
    """Return every prompt with the greedy replies of both engines."""
    params = SamplingParams(max_tokens=max_tokens, temperature=0.0)
    asked = [prompt.conversation for prompt in prompts]
    answers = []
    for engine in (base, sft):
        replies = engine.complete_many(asked, params, progress)
        answers.append(
            [_answer(engine, prompt, reply) for prompt, reply in zip(prompts, replies, strict=True)]
        )
    return tuple(
        PromptComparison(
            id=prompt.id,
            category=prompt.category,
            prompt=readable_prompt(prompt.conversation),
            check=dict(prompt.check) if prompt.check else None,
            base=before,
            sft=after,
        )
        for prompt, before, after in zip(prompts, *answers, strict=True)
    )


def _answer(engine: Engine, prompt: Prompt, reply: Reply) -> Answer:
    leaks = leaks_role(reply, engine.tokenizer)
    return Answer(readable_reply(reply), reply_properties(prompt, reply, engine.tokenizer, leaks_role=leaks))


def _score(
    task: Task, completing: Engine, base: Engine, sft: Engine, limits: Limits, seed: int, progress: Progress
) -> TaskComparison:
    """Score one task in the three forms; the base model's questions are among those of the SFT model."""
    num = limits.of(task.name)
    fewer = num if task.scoring == "letters" else limits.of_base_chat(task.name)

    def score(engine: Engine, limit: int | None, form: Form = "chat") -> Score:
        return evaluate(
            engine, task, limit=limit, form=form, seed=seed, max_tokens=limits.max_tokens, progress=progress
        )

    return TaskComparison(
        task=task.name,
        sft_chat=score(sft, num),
        base_chat=score(base, fewer),
        base_completion=score(completing, num, "completion") if task.completion(0) is not None else None,
    )


def _losses(
    base: Checkpoint, sft: Checkpoint, sources: Mapping[str, Sequence[Conversation]], progress: Progress
) -> tuple[LossComparison, ...]:
    assert base.format is not None and sft.format is not None
    before = assistant_losses(base.model, base.format, sources, progress=progress)
    after = assistant_losses(sft.model, sft.format, sources, progress=progress)
    return tuple(LossComparison(b.source, sft=a, base=b) for b, a in zip(before, after, strict=True))


def _bits(
    base: Checkpoint, sft: Checkpoint, texts: Sequence[str], progress: Progress
) -> BitsComparison | None:
    if not texts:
        return None
    return BitsComparison(
        document_bits(base, texts, progress=progress), document_bits(sft, texts, progress=progress)
    )


def _curves(*checkpoints: Checkpoint) -> dict[str, list[dict[str, float]]]:
    """Return the recorded training curves by stage, numbers only."""
    return {
        c.record.stage: [
            {name: float(value) for name, value in point.items() if isinstance(value, int | float)}
            for point in c.record.curve
        ]
        for c in checkpoints
        if c.record.curve
    }


def _mask_picture(format: ChatFormat, conversations: Sequence[Conversation]) -> tuple[MaskToken, ...]:
    """Return the tokens of a conversation that fits a picture, rather one that uses the calculator."""
    fitting = [c for c in conversations if len(format.render_conversation(c).ids) <= _MOST_PICTURE_TOKENS]
    if not fitting:
        return ()
    chosen = max(fitting, key=lambda c: (sum(len(m.parts) > 1 for m in c.messages), len(c.messages)))
    rendered = format.render_conversation(chosen)
    control = set(format.tokenizer.special_tokens.values())
    return tuple(
        MaskToken(format.tokenizer.decode([token_id]), bool(supervised), token_id in control)
        for token_id, supervised in zip(rendered.ids, rendered.loss_mask, strict=True)
    )
