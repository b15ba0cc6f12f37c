"""The engine: conversations in, replies out, many at a time.

``step()`` is the whole of it: the scheduler plans, the runner computes, each request takes its token.
Requests join and leave at every step. Not thread-safe: one thread submits and steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from picollm.chat.conversation import Conversation
from picollm.chat.decode import TextDelta
from picollm.chat.format import ChatFormat
from picollm.errors import ContextError, InputError
from picollm.infer.params import SamplingParams
from picollm.infer.request import PlainDecoder, Reply, Request
from picollm.infer.runner import Runner
from picollm.infer.sampling import sample
from picollm.infer.scheduler import Plan, Scheduler
from picollm.infer.score import Likelihood, likelihoods, score
from picollm.model.llama import Model
from picollm.progress import SILENT, Progress
from picollm.tokenizer import Tokenizer
from picollm.tools.calculator import calculate

if TYPE_CHECKING:
    from torch import Tensor

    from picollm.checkpoint import Checkpoint

# Decode steps of more rows gain little.
_MAX_SLOTS = 128
_MAX_CACHE_BYTES = 2 * 2**30

Tool = Callable[[str], str]
Params = SamplingParams | Sequence[SamplingParams] | None


def many_slots(model: Model) -> int:
    """Return how many requests to run at a time where nobody waits for a single one, as in an evaluation.

    At most 128, and no more texts of full length than 2 GiB of keys and values hold, but always 16.
    """
    config = model.config
    width = config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    text = 2 * width * model.lm_head_weight.element_size() * config.max_position_embeddings
    return max(16, min(_MAX_SLOTS, _MAX_CACHE_BYTES // text))


class Engine:
    """Continues conversations and plain prompts with one checkpoint.

    Args:
        checkpoint: what ``Checkpoint.load`` returned.
        num_slots: how many requests run at the same time; more wait.
        tools: what answers the calls inside a reply, text to text, never raising; None leaves calls
        unanswered. max_step_tokens: prompt tokens per step; lower keeps running replies flowing while a long
        prompt is read.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        num_slots: int = 16,
        tools: Tool | None = calculate,
        max_step_tokens: int = 512,
    ) -> None:
        if num_slots < 1 or max_step_tokens < 1:
            raise InputError(
                f"num_slots is {num_slots} and max_step_tokens {max_step_tokens}; expected at least 1."
            )
        self.model: Model = checkpoint.model
        self.tokenizer: Tokenizer = checkpoint.tokenizer
        self.context_length = self.model.config.max_position_embeddings
        self._format: ChatFormat | None = checkpoint.format
        self._tools = tools
        self._scheduler = Scheduler(num_slots, max_step_tokens)
        self._runner = Runner(self.model, num_slots)

    @property
    def format(self) -> ChatFormat:
        """Return the checkpoint's chat format.

        Raises:
            InputError: a base model, which has none.
        """
        if self._format is None:
            raise InputError(
                "the checkpoint has no chat format: it is a base model; use raw completion, or fine-tune it."
            )
        return self._format

    @property
    def is_busy(self) -> bool:
        """Return whether any request is waiting or running."""
        return bool(self._scheduler.running or self._scheduler.waiting)

    def complete(self, conversation: Conversation, params: SamplingParams | None = None) -> Reply:
        """Return the assistant's reply to ``conversation``, which ends with a user turn.

        Raises:
            ContextError: the conversation leaves no room for a reply; says by how many tokens.
        """
        return self.complete_many([conversation], params)[0]

    def complete_many(
        self, conversations: Sequence[Conversation], params: Params = None, progress: Progress = SILENT
    ) -> list[Reply]:
        """Return one reply per conversation, in their order, as ``complete`` would give each alone."""
        return self._finish(self._chat_requests(conversations, params), progress)

    def complete_samples(
        self, conversation: Conversation, num_samples: int, params: SamplingParams | None = None
    ) -> list[Reply]:
        """Return several replies to one conversation, whose prompt is read once.

        With a seed, sample ``i`` is the reply that ``seed + i`` gives.
        """
        params = params or SamplingParams()
        seeds = [None if params.seed is None else params.seed + i for i in range(num_samples)]
        return self.complete_many(
            [conversation] * num_samples, [replace(params, seed=seed) for seed in seeds]
        )

    def complete_ids(
        self, prompts: Sequence[Sequence[int]], params: Params = None, progress: Progress = SILENT
    ) -> list[Reply]:
        """Return raw continuations of token ids, the form of base models; any special token ends one."""
        each = _one_per(prompts, params)
        requests = [self.new_completion_request(ids, p) for ids, p in zip(prompts, each, strict=True)]
        return self._finish(requests, progress)

    def as_completed(
        self, conversations: Sequence[Conversation], params: Params = None
    ) -> Iterator[tuple[int, Reply]]:
        """Yield ``(index, reply)`` as replies finish, so that a caller can keep each at once."""
        yield from self.as_finished(self._chat_requests(conversations, params))

    def as_finished(self, requests: Sequence[Request]) -> Iterator[tuple[int, Reply]]:
        """Submit ``requests`` and yield ``(index, reply)`` as they finish; closing cancels the rest."""
        index_of = {id(self.submit(request)): index for index, request in enumerate(requests)}
        try:
            while index_of:
                for request in self.step():
                    if request.finish_reason and id(request) in index_of:
                        yield index_of.pop(id(request)), request.reply()
        finally:
            for index in index_of.values():
                self.cancel(requests[index])

    def stream(self, conversation: Conversation, params: SamplingParams | None = None) -> Iterator[str]:
        """Yield the reply's text as it is written; closing the iterator cancels the rest."""
        request = self.submit(self.new_request(conversation, params))
        try:
            while request.finish_reason is None:
                self.step()
                yield from _texts(request)
            # The last ones, if it was another caller's steps that finished it.
            yield from _texts(request)
        finally:
            self.cancel(request)

    def score(
        self, prompts: Sequence[Sequence[int]], candidates: Sequence[int] | Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """Return the log-probability of each candidate token right after each prompt.

        ``candidates`` is one list for all prompts or one list per prompt. Prompts are packed without padding,
        and a beginning that many of them share is read once.
        """
        for prompt in prompts:
            self._check_prompt(prompt, room=0)
        return score(self._runner.model, prompts, candidates)

    def likelihoods(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[Likelihood]:
        """Return how likely each continuation is after its prompt, packed and shared as in ``score``."""
        for prompt, continuation in zip(prompts, continuations, strict=True):
            self._check_prompt([*prompt, *continuation[:-1]], room=0)
        return likelihoods(self._runner.model, prompts, continuations)

    def new_request(
        self,
        conversation: Conversation,
        params: SamplingParams | None = None,
        prompt_ids: Sequence[int] | None = None,
    ) -> Request:
        """Return a request for the next turn of ``conversation``, ready to ``submit``.

        ``prompt_ids`` is for callers that keep the ids of earlier replies (``ChatFormat.render_after``).
        """
        if prompt_ids is None:
            prompt_ids = self.format.render_for_completion(conversation)
        self._check_prompt(prompt_ids, room=1)
        return Request(
            list(prompt_ids),
            params or SamplingParams(),
            self.format.turn_decoder(),
            self._answer if self._tools else None,
        )

    def new_completion_request(
        self, prompt_ids: Sequence[int], params: SamplingParams | None = None
    ) -> Request:
        """Return a request for the raw continuation of ``prompt_ids``, ready to ``submit``."""
        self._check_prompt(prompt_ids, room=1)
        return Request(list(prompt_ids), params or SamplingParams(), PlainDecoder(self.tokenizer))

    def submit(self, request: Request) -> Request:
        """Queue a request for the next steps and return it."""
        self._scheduler.add(request)
        return request

    def cancel(self, request: Request) -> None:
        """End a request where it is; a finished one stays as it is."""
        if request.finish_reason is None:
            request.finish("cancelled")
            self._scheduler.remove(request)

    def step(self) -> list[Request]:
        """Advance every running request and return those that took a token.

        One step reads one token of each reply and the next piece of each prompt. What a request gained is in
        its ``take_events()``; once its ``finish_reason`` is set, ``reply()`` is the whole.
        """
        plan = self._scheduler.schedule()
        if not plan.work:
            return []
        logits = self._runner.run(plan)
        return self._postprocess(plan, logits)

    def _postprocess(self, plan: Plan, logits: Tensor) -> list[Request]:
        """Let each request whose tokens have all been read take its next one; remove those that finished."""
        for request, _, length in plan.work:
            request.num_computed += length
        requests = [work.request for work in plan.work if not work.request.num_pending]
        # A model's vocabulary may be padded beyond the tokenizer's: those rows name no token.
        known = logits[:, : self.tokenizer.vocab_size]
        sampled = sample(
            known, [r.params for r in requests], [r.ids for r in requests], [r.draw() for r in requests]
        )
        for request, id, logprob in zip(requests, *sampled, strict=True):
            request.append(id, logprob, self.context_length)
            if request.finish_reason:
                self._scheduler.remove(request)
        return requests

    def _chat_requests(self, conversations: Sequence[Conversation], params: Params) -> list[Request]:
        each = _one_per(conversations, params)
        return [self.new_request(c, p) for c, p in zip(conversations, each, strict=True)]

    def _finish(self, requests: list[Request], progress: Progress) -> list[Reply]:
        replies: dict[int, Reply] = {}
        with progress.bar("replies", len(requests), "reply") as bar:
            for index, reply in self.as_finished(requests):
                replies[index] = reply
                bar.advance()
        return [replies[index] for index in range(len(requests))]

    def _answer(self, expression: str) -> list[int]:
        assert self._tools is not None
        return self.format.render_tool_output(self._tools(expression))

    def _check_prompt(self, prompt_ids: Sequence[int], room: int) -> None:
        length, context = len(prompt_ids), self.context_length
        if not length:
            raise InputError("the prompt has no tokens; expected at least one.")
        vocab_size = self.model.config.vocab_size
        unknown = next((id for id in prompt_ids if not 0 <= id < vocab_size), None)
        if unknown is not None:
            raise InputError(f"token {unknown} of the prompt is not in the vocabulary of {vocab_size}.")
        if length + room > context:
            raise ContextError(
                f"the prompt is {length} tokens and the context {context}: {length + room - context} too many"
                f"{' to begin a reply' if room else ''}. Shorten the prompt, or drop earlier turns."
            )


def _texts(request: Request) -> Iterator[str]:
    return (event.text for event in request.take_events() if isinstance(event, TextDelta))


def _one_per(prompts: Sequence[object], params: Params) -> Sequence[SamplingParams | None]:
    """Return one ``SamplingParams`` per prompt."""
    if params is None or isinstance(params, SamplingParams):
        return [params] * len(prompts)
    if len(params) != len(prompts):
        raise InputError(
            f"{len(params)} sampling parameters for {len(prompts)} prompts; expected one or one each."
        )
    return params
