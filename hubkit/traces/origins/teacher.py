"""Generation: a teacher answers each problem several times.

    Problem {"id": "chain_sum-2f6c", "problem": "State the final answer … 47 + 38 - 12 =", …}
    -> Trace {"id": "chain_sum-2f6c", "sample": 0, "teacher": "nano-teacher", "reasoning": "I need to work
       out 47 + 38 - 12. First …", "solution": "The answer is \\\\boxed{73}.", "thinking": "closed",
       "finish_reason": "stop", "prompt_tokens": 38, "completion_tokens": 187, "error": ""}

A shard [i, n] takes every n-th problem from the i-th on, so shards are of equal difficulty.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import Field, model_validator

from hubkit.engines import Request, Response
from hubkit.engines.check import check_engine
from hubkit.errors import EngineError, GateError
from hubkit.records import TRACE_SCHEMA, Trace, count_rows, read_rows, write_rows
from hubkit.section import ModelRef, Sampling, Section
from hubkit.store import CheckContext, StepContext, digest
from hubkit.traces.join import reject_reason
from hubkit.traces.journal import Journal, Key, answer, request_hash, request_seed, step_engine, step_journal
from hubkit.traces.origins.base import Origin
from hubkit.traces.thinking import split

__all__ = ["VERSION", "Teacher", "Thinking", "check", "requests_of", "run"]

VERSION: Final = 2
GATE: Final = 32
"""Responses after which a teacher is stopped if none of them can be used."""
REMEDIES: Final = {
    "error": "fix the engine's settings",
    "length": "raise the teacher's sampling.max_tokens",
    "unfinished": "ask the server's documentation what this finish reason means; filters may be turned off there",
    "no_thinking": "use a reasoning model, or turn thinking on in its chat template or system message; marks that "
    "hubkit does not know are named by the teacher's thinking: {open: …, close: …}",
    "unclosed": "raise the teacher's sampling.max_tokens, or name the marks it uses: thinking: {open: …, close: …}",
    "no_solution": "look at what the server returns as content: its reasoning parser may take all of the text",
}
"""Most frequent reason why answers cannot be used -> remedy."""

_ASKED: Final = ["id", "problem"]
"""Columns of problems that requests need."""


class Thinking(Section):
    """The marks around a teacher's reasoning, if they are not in `engines/marks.py`."""

    open: str = Field(min_length=1)
    close: str = Field(min_length=1)

    @model_validator(mode="after")
    def _differ(self) -> Thinking:
        if self.open == self.close or not self.open.strip() or not self.close.strip():
            raise ValueError("`open` and `close` are two different marks, such as <r> and </r>")
        return self


class Teacher(Origin, ModelRef):
    """A model that answers each problem: an entry of a recipe's `teachers`."""

    step = "hubkit.traces.origins.teacher:run"
    LATER = frozenset({"thinking"})

    samples: int = Field(default=1, gt=0)
    """Responses per problem."""
    sampling: Sampling
    system: str = ""
    """System message; empty for none."""
    thinking: Thinking | None = None
    """Only for marks that hubkit does not know: docs/engines.md."""

    def generator(self) -> ModelRef:
        return self

    def count(self, problems: int) -> int:
        return problems * self.samples

    def longest(self) -> int:
        return self.sampling.max_tokens

    def describe(self) -> str:
        return f"{self.name} ({self.model}) answered each problem {self.samples} time(s) with {self.sampling.words()}"

    def texts(self) -> dict[str, str]:
        return {f"System message of {self.name}": self.system} if self.system else {}


def check(context: CheckContext) -> None:
    """Check that the teacher can be reached."""
    if context.here:
        check_engine(context.runtime["engine"], context.step)


def run(context: StepContext) -> None:
    """Write traces.parquet: one row per problem and sample, in the problems' order."""
    config = context.config
    index, shards = config["shard"]
    path = context.inputs["problems"] / "problems.parquet"
    total = len(range(index, count_rows(path), shards)) * config["samples"]

    def requests() -> Iterator[tuple[Key, Request]]:
        return requests_of(config, context.inputs["problems"])

    gate = _Gate(context.step, min(GATE, total), config)
    fingerprint = digest([config, context.models["teacher"]["revision"]])
    with step_journal(context, "teacher", "journal.sqlite", fingerprint) as journal:
        if journal.left(requests()):
            with step_engine(context, "teacher") as engine:
                answer(context, engine, journal, requests(), total, on_response=gate.see)
        rows = _rows(context, journal, requests())
        context.count("traces", write_rows(context.out / "traces.parquet", rows, TRACE_SCHEMA))


def requests_of(
    config: dict[str, Any], problems: Path, most: int | None = None
) -> Iterator[tuple[Key, Request]]:
    """Yield the requests of a step with this configuration to the output of a problems step: all, or about `most`, for
    problems spread evenly over all.

    Problems are read from disk: ten million of them are never in memory together.
    """
    index, shards = config["shard"]
    path = problems / "problems.parquet"
    rows: Iterable[dict[str, Any]]
    if most is None:
        rows = itertools.islice(read_rows(path, columns=_ASKED), index, None, shards)
    else:
        every = max(1, len(range(index, count_rows(path), shards)) * config["samples"] // most)
        rows = _some(path, shards, every)[index::shards]
    sampling = Sampling(**config["sampling"])
    system = [{"role": "system", "content": config["system"]}] if config["system"] else []
    for problem in rows:
        messages = [*system, {"role": "user", "content": problem["problem"]}]
        for sample in range(config["samples"]):
            key = Key(problem["id"], sample)
            yield key, Request(key.text, messages, sampling, request_seed(config["seed"], key))


@functools.lru_cache(maxsize=4)
def _some(path: Path, shards: int, every: int) -> list[dict[str, Any]]:
    """Of each shard's problems every n-th, for all shards together: they are read from the same table."""
    return [
        problem
        for place, problem in enumerate(read_rows(path, columns=_ASKED))
        if place // shards % every == 0
    ]


def _rows(context: StepContext, journal: Journal, requests: Iterable[tuple[Key, Request]]) -> Iterator[Trace]:
    tokens = {"prompt_tokens": 0, "completion_tokens": 0}
    for key, request in requests:
        response = journal.get(key, request_hash(request))
        assert response is not None, f"{key} was answered"
        context.count(response.finish_reason)
        tokens["prompt_tokens"] += response.prompt_tokens
        tokens["completion_tokens"] += response.completion_tokens
        yield _trace(key, response, context.config)
    context.metrics.update(tokens)


def _trace(key: Key, response: Response, config: dict[str, Any]) -> Trace:
    marks = config.get("thinking")
    thought = split(response.text, response.reasoning, (marks["open"], marks["close"]) if marks else None)
    return {
        "id": key.id,
        "sample": key.sample,
        "teacher": config["teacher"],
        "reasoning": thought.reasoning,
        "solution": thought.solution,
        "thinking": thought.form,
        "finish_reason": response.finish_reason,
        "prompt_tokens": response.prompt_tokens,
        "completion_tokens": response.completion_tokens,
        "error": response.error,
    }


class _Gate:
    """Stops early if none of the first answers can be used."""

    def __init__(self, step: str, after: int, config: dict[str, Any]) -> None:
        self._step, self._after, self._config = step, after, config
        self._reasons: Counter[str] = Counter()
        self._last: dict[str, str] = {}
        """Reason -> the last detail that went with it."""
        self._open = True

    def see(self, response: Response) -> None:
        """Raises EngineError if the first requests all failed, GateError if no first answer can be used."""
        if not self._open:
            return
        found = reject_reason(dict(_trace(Key("", 0), response, self._config)))
        if found is None:
            self._open = False
            return
        self._reasons[found[0]] += 1
        self._last[found[0]] = found[1]
        seen = self._reasons.total()
        if seen < self._after:
            return
        self._open = False
        reason, number = self._reasons.most_common(1)[0]
        if number == seen and reason == "error":
            raise EngineError(
                f"{self._step}: every request failed: {self._last[reason]}", "fix the engine's settings"
            )
        raise GateError(
            f"{self._step}: none of the first {seen} answers can be used; {number} of them: {self._last[reason]}",
            REMEDIES[reason],
        )
