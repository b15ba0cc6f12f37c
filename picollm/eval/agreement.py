"""Does an independent reading of the checkpoint answer alike? transformers, opened on the same directory.

Nothing of our own is on the other side but the results that a tool forces into a reply: prompts come from the
chat template through ``apply_chat_template``, logits and greedy tokens from transformers, one question at a
time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from picollm.chat.decode import ToolCall
from picollm.errors import InputError, UnavailableError
from picollm.infer.params import SamplingParams
from picollm.progress import SILENT, Progress
from picollm.tools.calculator import calculate

if TYPE_CHECKING:
    from picollm.chat.format import ChatFormat
    from picollm.checkpoint import Checkpoint
    from picollm.infer.engine import Engine
    from picollm.tasks.task import Task


@dataclass(frozen=True)
class Agreement:
    """How many questions of a task both sides answered alike: the same letter, or the same reply ids."""

    task: str
    num: int
    num_same: int
    different: tuple[int, ...]
    """The questions answered otherwise, by their index."""


class Transformers:
    """A checkpoint as transformers opens it.

    Raises:
        UnavailableError: transformers is not installed.
        InputError: the checkpoint has no chat format, and so no template.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        try:
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError as error:
            raise UnavailableError(
                "the independent path needs transformers; install it: pip install transformers."
            ) from error
        if checkpoint.format is None:
            raise InputError(f"{checkpoint.path} has no chat format; there are no chat prompts to compare.")
        self._format: ChatFormat = checkpoint.format
        self._tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint.path)
        model: Any = AutoModelForCausalLM.from_pretrained(checkpoint.path, dtype="float32")
        self._model = model.eval()

    def prompt_ids(self, task: Task, index: int) -> list[int]:
        """Return the prompt of a question as the template renders it."""
        messages = task.prompt(index).to_dict()["messages"]
        found = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        return [int(token) for token in found]

    def letter(self, prompt_ids: Sequence[int], letters: Sequence[str]) -> str:
        """Return the letter with the highest logit right after the prompt."""
        import torch

        candidates = [self._tokenizer.encode(letter, add_special_tokens=False)[-1] for letter in letters]
        with torch.inference_mode():
            logits = self._model(torch.tensor([list(prompt_ids)])).logits[0, -1]
        return letters[int(logits[candidates].argmax())]

    def reply(self, prompt_ids: Sequence[int], max_tokens: int) -> list[int]:
        """Return the ids of the greedy reply; a calculator call is answered as the engine answers it."""
        decoder, ids = self._format.turn_decoder(), list[int]()
        while len(ids) < max_tokens:
            for token in self._generate([*prompt_ids, *ids], max_tokens - len(ids)):
                ids.append(token)
                events = decoder.feed(token)
                if decoder.ended:
                    return ids
                call = next((event for event in events if isinstance(event, ToolCall)), None)
                if call is not None:
                    forced = self._format.render_tool_output(calculate(call.expression))
                    if len(ids) + len(forced) > max_tokens:
                        return ids
                    for token_id in forced:
                        ids.append(token_id)
                        decoder.feed(token_id)
                    break  # what was generated after the call did not know its result
        return ids

    def _generate(self, ids: list[int], num: int) -> list[int]:
        import torch

        with torch.inference_mode():
            out = self._model.generate(
                torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                max_new_tokens=num,
                do_sample=False,
                eos_token_id=sorted(self._format.stop_ids),
                pad_token_id=self._format.pad_id,
            )
        return [int(token) for token in out[0, len(ids) :]]


def agreement(
    engine: Engine,
    other: Transformers,
    task: Task,
    indices: Sequence[int],
    *,
    max_tokens: int = 256,
    progress: Progress = SILENT,
) -> Agreement:
    """Return on how many of the questions ``indices`` both agree; those without room for a reply stay out."""
    prompts = {index: other.prompt_ids(task, index) for index in indices}
    prompts = {i: ids for i, ids in prompts.items() if len(ids) + max_tokens <= engine.context_length}
    different = []
    by_letter = task.scoring == "letters"
    ours = (
        _letters(engine, task, list(prompts))
        if by_letter
        else _replies(engine, task, list(prompts), max_tokens)
    )
    with progress.bar(f"{task.name} by transformers", len(prompts), "questions") as bar:
        for index, prompt in prompts.items():
            theirs: object
            if by_letter:
                theirs = other.letter(prompt, task.letters(index) or [])
            else:
                theirs = other.reply(prompt, max_tokens)
            if theirs != ours[index]:
                different.append(index)
            bar.advance()
    return Agreement(task.name, len(prompts), len(prompts) - len(different), tuple(different))


def _letters(engine: Engine, task: Task, indices: list[int]) -> dict[int, object]:
    from picollm.eval.answers import ask

    return {index: given.text for index, given in ask(engine, task, indices, "chat", 1)}


def _replies(engine: Engine, task: Task, indices: list[int], max_tokens: int) -> dict[int, object]:
    params = SamplingParams(max_tokens=max_tokens, temperature=0.0)
    replies = engine.complete_many([task.prompt(index) for index in indices], params)
    return {index: reply.ids for index, reply in zip(indices, replies, strict=True)}
