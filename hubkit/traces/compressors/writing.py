"""Writes the outcomes of a compressor as its step's output.

(raw {"id": "x", "reasoning": "I need to work out 47 + 38. …", …}, Shortened("47 + 38 = 85."))
-> data.parquet {"id": "x", "reasoning": "47 + 38 = 85.", "reasoning_tokens": 27, "ratio": 0.13, …}
(raw {"id": "y", …}, Shortened("…", "wrong", "6 is not 7"))  ->  rejected.parquet {"id": "y", "reason": "wrong", …}

A solution that differs from the raw trace's is verified again, in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

from hubkit.records import (
    REJECTED_SCHEMA,
    VARIANT_COLUMNS,
    RowWriter,
    count_rows,
    group_bounds,
    messages_of,
    read_rows,
    shard_rows,
)
from hubkit.store import StepContext
from hubkit.traces.join import ProblemReader
from hubkit.traces.lengths import count_tokens
from hubkit.traces.steps import final_line
from hubkit.traces.variants import VARIANTS
from hubkit.verifiers.base import Task
from hubkit.verifiers.extract import boxed
from hubkit.verifiers.pool import shared_pool
from hubkit.verifiers.table import verify_inline

__all__ = [
    "ASKED_COLUMNS",
    "BATCH",
    "RAW_COLUMNS",
    "Row",
    "Shortened",
    "raw_rows",
    "shard_size",
    "write_shortened",
]

BATCH: Final = 256
"""Traces that are read together, and whose tokens are counted together."""
RAW_COLUMNS: Final = [name for name, _ in VARIANT_COLUMNS if name != "messages"]
"""Columns without `messages`, which repeats the others and would be half of the data to read."""
ASKED_COLUMNS: Final = ["id", "sample", "problem", "reasoning"]
"""Columns that requests need."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Shortened:
    """Outcome of one trace: a shorter text, or the reason why there is none."""

    text: str
    """The shorter reasoning; for a dropped trace, the reply."""
    reason: str = ""
    """Counted category; empty if the text is kept."""
    detail: str = ""
    solution: str | None = None
    """None: the raw trace's solution, changed only as the recipe says."""


def raw_rows(
    config: dict[str, Any], raw: Path, columns: list[str] = RAW_COLUMNS, most: int | None = None
) -> Iterator[Row]:
    """A shard's raw rows, without `messages`: those that lie behind each other, or every n-th of few shards. With
    `most` no more than about that many, from the beginnings of its row groups."""
    path, (index, shards) = raw / "data.parquet", config["shard"]
    if shards > 1 and not config.get("contiguous"):
        return islice(read_rows(path, BATCH, columns), index, most and index + most * shards, shards)
    start, stop = shard_rows(path, index, shards)
    if most is None:
        return read_rows(path, BATCH, columns, start, stop)
    begins = [start, *(bound for bound in group_bounds(path) if start < bound < stop)]
    each = max(1, most // len(begins))
    return chain.from_iterable(
        read_rows(path, each, columns, begin, min(begin + each, stop)) for begin in begins
    )


def shard_size(context: StepContext) -> int:
    path, (index, shards) = context.inputs["raw"] / "data.parquet", context.config["shard"]
    if shards > 1 and not context.config.get("contiguous"):
        return len(range(index, count_rows(path), shards))
    start, stop = shard_rows(path, index, shards)
    return stop - start


def write_shortened(context: StepContext, results: Iterable[tuple[Row, Shortened]]) -> None:
    """Write data.parquet and rejected.parquet in the order of `results`, and count the outcomes.

    Metrics: tokens of solutions before and after.
    """
    config = context.config
    if config.get("solution") == "final-line":
        results = ((row, replace(short, solution=final_line(row["solution"]))) for row, short in results)
    verified = shared_pool(context.threads).stream(_with_checks(context, results))
    sums = dict.fromkeys(("solution_tokens", "raw_solution_tokens"), 0)
    with (
        RowWriter(context.out / "data.parquet", VARIANTS["compressed"].schema) as data,
        RowWriter(context.out / "rejected.parquet", REJECTED_SCHEMA) as rejected,
    ):
        while batch := list(islice(verified, BATCH)):
            texts = [
                text
                for (row, short), _ in batch
                for text in (short.text, row["solution"], short.solution)
                if text is not None
            ]
            lengths = iter(count_tokens(context.model("tokenizer"), texts))
            for (row, short), verdict in batch:
                length, before = next(lengths), next(lengths)
                after = before if short.solution is None else next(lengths)
                reason, detail = short.reason, short.detail
                if not reason:
                    reason, detail = _refusal(config, row, short, (length, before, after), verdict)
                context.count(f"dropped_{reason}" if reason else "kept")
                if reason:
                    rejected.add(row | {"reason": reason, "detail": detail, "text": short.text})
                    continue
                sums["raw_solution_tokens"] += before
                sums["solution_tokens"] += after
                solution = row["solution"] if short.solution is None else short.solution
                data.add(
                    row
                    | {
                        "reasoning": short.text,
                        "solution": solution,
                        "messages": messages_of(row["problem"], short.text, solution),
                        "reasoning_chars": len(short.text),
                        "reasoning_tokens": length,
                        "ratio": length / row["raw_reasoning_tokens"],
                        "compressor": config["compressor"],
                        "prompt_sha": config.get("prompt_sha"),
                    }
                )
    context.metrics.update(sums)


def _with_checks(
    context: StepContext, results: Iterable[tuple[Row, Shortened]]
) -> Iterator[tuple[tuple[Row, Shortened], Task | tuple[str, ...]]]:
    """Yield each result with, if its solution changed, a verdict on it or a task for a worker."""
    problems = ProblemReader(context.inputs["problems"] / "problems.parquet")
    for row, short in results:
        same = short.solution is None or short.solution == row["solution"]
        if short.reason or same or row["correct"] is None:
            yield (row, short), ("correct", "as before")
            continue
        problem = problems.find(row["id"])
        answer = problem["answer"] or boxed(row["solution"])
        if answer is None:
            yield (row, short), ("correct", "neither the source nor the trace says an answer")
        else:
            yield (row, short), verify_inline(problem | {"answer": answer}, short.solution or "")


def _refusal(
    config: dict[str, Any], row: Row, short: Shortened, tokens: tuple[int, int, int], verdict: tuple[Any, ...]
) -> tuple[str, str]:
    length, before, after = tokens
    raw = row["raw_reasoning_tokens"]
    if not short.text:
        return "empty", "nothing was left"
    if verdict[0] != "correct":
        return "solution", f"the shorter solution is {verdict[0]}: {verdict[-1]}"
    if config.get("solution") == "shorten":
        length, raw = length + after, raw + before
    return ("not_shorter", f"{length} tokens of {raw}") if length >= raw else ("", "")
