"""Generation: a teacher answers each problem several times.

    Problem {"id": "chain_sum-2f6c", "problem": "State the final answer … 47 + 38 - 12 =", …}
    -> Trace {"id": "chain_sum-2f6c", "sample": 0, "teacher": "nano-teacher", "reasoning": "I need to work
       out 47 + 38 - 12. First …", "solution": "The answer is \\\\boxed{73}.", "thinking": "closed",
       "finish_reason": "stop", "prompt_tokens": 38, "completion_tokens": 187, "error": ""}

A shard [i, n] takes every n-th problem from the i-th on, so shards are of equal difficulty.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, Final

import pyarrow.parquet as pq

from hubkit.engines import Request, Response
from hubkit.errors import EngineError, GateError
from hubkit.records import TRACE_SCHEMA, Trace, read_rows, write_rows
from hubkit.section import Sampling
from hubkit.store import StepContext, digest
from hubkit.traces.journal import Journal, Key, answer, request_hash, request_seed, step_engine
from hubkit.traces.thinking import split

__all__ = ["VERSION", "run"]

VERSION: Final = 2
GATE: Final = 32
"""Responses after which a teacher that never thinks, or only fails, is stopped."""


def run(context: StepContext) -> None:
    """Write traces.parquet: one row per problem and sample, in the problems' order."""
    config = context.config
    index, shards = config["shard"]
    path = context.inputs["problems"] / "problems.parquet"
    total = len(range(index, pq.read_metadata(path).num_rows, shards)) * config["samples"]

    def requests() -> Iterator[tuple[Key, Request]]:
        """Drawn from disk: ten million problems never are in memory together."""
        return _requests(config, itertools.islice(read_rows(path), index, None, shards))

    gate = _Gate(context.step, min(GATE, total))
    fingerprint = digest([config, context.models["teacher"]["revision"]])
    with Journal(context.work / "journal.sqlite", fingerprint) as journal:
        with step_engine(context, "teacher") as engine:
            answer(context, engine, journal, requests(), total, on_response=gate.see)
        rows = _rows(context, journal, requests())
        context.count("traces", write_rows(context.out / "traces.parquet", rows, TRACE_SCHEMA))


def _requests(config: dict[str, Any], problems: Iterable[dict[str, Any]]) -> Iterator[tuple[Key, Request]]:
    sampling = Sampling(**config["sampling"])
    system = [{"role": "system", "content": config["system"]}] if config["system"] else []
    for problem in problems:
        messages = [*system, {"role": "user", "content": problem["problem"]}]
        for sample in range(config["samples"]):
            key = Key(problem["id"], sample)
            yield key, Request(key.text, messages, sampling, request_seed(config["seed"], key))


def _rows(context: StepContext, journal: Journal, requests: Iterable[tuple[Key, Request]]) -> Iterator[Trace]:
    tokens = {"prompt_tokens": 0, "completion_tokens": 0}
    for key, request in requests:
        response = journal.get(key, request_hash(request))
        assert response is not None, f"{key} was answered"
        thought = split(response.text, response.reasoning)
        context.count(response.finish_reason)
        tokens["prompt_tokens"] += response.prompt_tokens
        tokens["completion_tokens"] += response.completion_tokens
        yield {
            "id": key.id,
            "sample": key.sample,
            "teacher": context.config["teacher"],
            "reasoning": thought.reasoning,
            "solution": thought.solution,
            "thinking": thought.form,
            "finish_reason": response.finish_reason,
            "prompt_tokens": response.prompt_tokens,
            "completion_tokens": response.completion_tokens,
            "error": response.error,
        }
    context.metrics.update(tokens)


class _Gate:
    """Stops early when the first answers show that all of the rest would be worthless."""

    def __init__(self, step: str, after: int) -> None:
        self._step, self._after = step, after
        self._seen = self._errors = self._thinking = 0
        self._last = ""

    def see(self, response: Response) -> None:
        self._seen += 1
        self._errors += response.finish_reason == "error"
        self._thinking += split(response.text, response.reasoning).form != "none"
        self._last = response.error or self._last
        if self._seen != self._after:
            return
        if self._errors == self._seen:
            raise EngineError(
                f"{self._step}: every request failed: {self._last}", "mend the engine's settings"
            )
        if self._thinking == 0:
            raise GateError(
                f"{self._step}: none of the first {self._seen} answers has a thinking span",
                "use a reasoning model, or turn thinking on in its chat template or system message",
            )
