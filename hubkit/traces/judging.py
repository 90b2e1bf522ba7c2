"""Asks a judge about traces: its engine, and the journal of its replies.

Like all generation this goes through an engine and a journal, so an answered request is never sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Final, Self, TypeVar

from hubkit.engines import Request, Response
from hubkit.errors import GateError
from hubkit.section import Sampling
from hubkit.store import StepContext, digest
from hubkit.traces.journal import (
    Key,
    answer,
    request_hash,
    request_seed,
    step_engine,
    step_journal,
)
from hubkit.traces.thinking import split
from hubkit.verifiers.base import Verdict
from hubkit.verifiers.judge import Question, fill, no_verdict, verdict_in

__all__ = ["PREFIX", "Judge", "verdict_of"]

GATE: Final = 32
"""Replies after which a judge that never gives a verdict is stopped."""
PREFIX: Final = "judge_"
"""Prefix of its engine's settings and metrics, because `compress` also has those of the compressor."""

T = TypeVar("T")
R = TypeVar("R")


class Judge:
    """A step's judge and the journal of its replies. Its engine is open only while it is asked."""

    def __init__(self, context: StepContext) -> None:
        self._context = context
        self._config = context.config["judge"]
        fingerprint = digest([self._config, context.models["judge"]["revision"]])
        self._journal = step_journal(context, "judge", "judge.sqlite", fingerprint)
        self._gate = _Gate(context.step)
        context.metrics.update({f"{PREFIX}prompt_tokens": 0, f"{PREFIX}completion_tokens": 0})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.__exit__(kind, error, trace)

    def stream(
        self, items: Callable[[], Iterable[tuple[T, R | Question]]]
    ) -> Iterator[tuple[T, R | Verdict]]:
        """Ask the questions among the pairs' second parts, then yield all pairs in order, with verdicts for questions.

        `items()` must return the same pairs each time: they are read more than once, so that none is kept in memory.
        Raises GateError if the judge never gives a verdict, EngineError as `answer` does.
        """

        def requests() -> Iterator[tuple[Key, Request]]:
            return (self._request(work) for _, work in items() if isinstance(work, Question))

        if self._journal.left(requests()):
            total = sum(1 for _ in requests())
            with step_engine(self._context, "judge", PREFIX) as engine:
                answer(
                    self._context,
                    engine,
                    self._journal,
                    requests(),
                    total,
                    on_response=self._gate.see,
                    prefix=PREFIX,
                )
        return ((payload, self._verdict(w) if isinstance(w, Question) else w) for payload, w in items())

    def _request(self, question: Question) -> tuple[Key, Request]:
        key: Key = question.key
        sampling = Sampling(**self._config["sampling"])
        messages = [{"role": "user", "content": fill(self._config["prompt"], question)}]
        return key, Request(key.text, messages, sampling, request_seed(self._context.config["seed"], key))

    def _verdict(self, question: Question) -> Verdict:
        key, request = self._request(question)
        response = self._journal.get(key, request_hash(request))
        assert response is not None, f"{key} was answered"
        self._context.metrics[f"{PREFIX}prompt_tokens"] += response.prompt_tokens
        self._context.metrics[f"{PREFIX}completion_tokens"] += response.completion_tokens
        return verdict_of(response)


def verdict_of(response: Response) -> Verdict:
    """Returns the verdict on the last line of a judge's reply, after its thinking; "unjudged" if it is incomplete."""
    if why := response.unfinished:
        return no_verdict(why)
    return verdict_in(split(response.text, response.reasoning).solution)


class _Gate:
    """Stops early if none of the first replies has a verdict: every trace would be dropped."""

    def __init__(self, step: str) -> None:
        self._step = step
        self._seen = 0
        self._useful = False

    def see(self, response: Response) -> None:
        verdict = verdict_of(response)
        self._seen += 1
        self._useful |= verdict.status != "unjudged"
        if self._seen == GATE and not self._useful:
            raise GateError(
                f"{self._step}: none of the first {GATE} replies of the judge ends with a verdict; {verdict.reason}",
                "correct its prompt, raise its max_tokens, or take another judge",
            )
