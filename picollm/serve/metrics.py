"""What the server counts, for Prometheus. Numbers only: no text of any conversation is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from picollm.infer.request import Reply
from picollm.serve.worker import Call

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The counters of one server."""

    def __init__(self, num_requests: Callable[[], int]) -> None:
        self.registry = registry = CollectorRegistry()
        self.responses = Counter(
            "picollm_responses", "Responses by path and status", ["path", "status"], registry=registry
        )
        self.cancelled = Counter("picollm_cancelled", "Calls whose client went away", registry=registry)
        self._tokens = Counter("picollm_tokens", "Tokens read and written", ["kind"], registry=registry)
        self._finished = Counter("picollm_replies", "Replies by their end", ["reason"], registry=registry)
        self._first_token = Histogram(
            "picollm_first_token_seconds",
            "From a streaming call to its first token",
            buckets=_SECONDS,
            registry=registry,
        )
        self._seconds = Histogram(
            "picollm_call_seconds", "From a call to its last token", buckets=_SECONDS, registry=registry
        )
        Gauge("picollm_requests", "Requests in the engine", registry=registry).set_function(num_requests)

    def finished(self, call: Call, seconds: float, replies: Iterable[Reply]) -> None:
        """Count a call that came to its end."""
        self._seconds.observe(seconds)
        if call.streams and call.first_token is not None:
            self._first_token.observe(call.first_token - call.started)
        self._tokens.labels("prompt").inc(len(call.requests[0].prompt_ids))
        for reply in replies:
            self._tokens.labels("reply").inc(len(reply.ids))
            self._finished.labels(reply.finish_reason).inc()

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)
