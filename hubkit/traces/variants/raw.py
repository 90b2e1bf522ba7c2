"""Verification: is a trace's answer right?

    Trace {"reasoning": "47 + 38: ones …", "solution": "The answer is \\boxed{85}.", …} with the problem's
    answer "85" gets Verdict("correct", "85", "equal to the answer"), and becomes a row of `raw`; all
    others go to `rejected` with a reason that is counted.

Only the text after the thinking span is judged; a trace whose span never closed has no solution. `hubkit/verifiers`
has the comparison of answers. Verdicts of a judge model come from the step before (`judge.py`), and are looked up.

`run` verifies all of a teacher's traces, or one shard of them; `join` joins the shards.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from hubkit.errors import GateError, InputError
from hubkit.records import REJECTED_SCHEMA, RowWriter, messages_of, read_rows
from hubkit.store import CheckContext, StepContext
from hubkit.traces.join import reject_reason, with_problems
from hubkit.traces.lengths import (
    LENGTH_COLUMNS,
    count_tokens,
    length_metrics,
    response_metrics,
    tokenizer_threads,
)
from hubkit.traces.shards import join_shards, shard_names
from hubkit.traces.variants import VARIANTS
from hubkit.verifiers.base import Task
from hubkit.verifiers.pool import shared_pool
from hubkit.verifiers.table import verifier_named, verify_inline

__all__ = ["VERSION", "check", "join", "run"]

VERSION: Final = 3
BATCH: Final = 256
"""Traces whose tokens are counted together."""

Row = dict[str, Any]


def check(context: CheckContext) -> None:
    """Check that the problems' verifiers can work on this machine: programs need a sandbox."""
    for name in context.problems if context.here else ():
        verifier_named(name).check_machine()


def run(context: StepContext) -> None:
    """Write data.parquet with the correct traces, and rejected.parquet with the rest and their reasons."""
    shards = shard_names(context)
    total = sum(context.record(name).counts.get("traces", 0) for name in shards)
    done = 0
    judged = shared_pool(context.threads).stream(work for name in shards for work in _works(context, name))
    with (
        tokenizer_threads(context.threads),
        RowWriter(context.out / "data.parquet", VARIANTS["raw"].schema) as data,
        RowWriter(context.out / "rejected.parquet", REJECTED_SCHEMA) as rejected,
    ):
        while batch := list(islice(judged, BATCH)):
            kept = [pair for pair, outcome in batch if outcome[0] == "correct"]
            for row in _variant_rows(kept, context):
                data.add(row)
            for (_, trace), outcome in batch:
                reason, detail = outcome[0], outcome[-1]
                context.count("kept" if reason == "correct" else f"dropped_{reason}")
                _count_disagreement(context, trace.get("claimed"), reason)
                if reason != "correct":
                    text = trace["reasoning"] + trace["solution"]
                    rejected.add({**trace, "reason": reason, "detail": detail, "text": text})
            done += len(batch)
            context.progress(done, max(total, done), kept=data.rows)
    if "shard" not in context.config:
        _finish(context, data.rows)


def join(context: StepContext) -> None:
    """Write the rows of all shards, one behind the other."""
    tables = {"data.parquet": VARIANTS["raw"].schema, "rejected.parquet": REJECTED_SCHEMA}
    _finish(context, join_shards(context, tables))


def _finish(context: StepContext, rows: int) -> None:
    if not rows:
        reasons = ", ".join(f"{name} {n}" for name, n in sorted(context.counts.items()))
        raise GateError(
            f"{context.step}: not one trace is correct ({reasons})",
            "look at the teacher's sampling, its max_tokens and the verifier of the problems",
        )
    if "tokenizer" in context.models:
        context.metrics.update(
            length_metrics(read_rows(context.out / "data.parquet", columns=LENGTH_COLUMNS))
        )
        response_metrics(context.metrics)


def _count_disagreement(context: StepContext, claimed: bool | None, reason: str) -> None:
    """Count the verdicts that their source gives to existing traces, and disagreements, which are published."""
    if claimed is True and reason == "wrong":
        context.count("claimed_correct_found_wrong")
    elif claimed is False and reason == "correct":
        context.count("claimed_wrong_found_correct")


def _works(context: StepContext, shard: str) -> Iterator[tuple[tuple[Row, Row], Task | tuple[str, ...]]]:
    """Yield ((problem, trace), work); work is a verdict, a task for a worker, or (reason, detail) if there is no answer
    to verify."""
    judge = context.inputs.get(shard.replace("shard-", "verdicts-"))
    verdicts = read_rows(judge / "verdicts.parquet", batch=BATCH) if judge else iter(())
    for problem, trace in with_problems(context, shard):
        if found := reject_reason(trace):
            yield (problem, trace), found
        elif context.config.get("unverified"):
            yield (problem, trace), ("correct", "not verified")
        elif problem["verifier"] == "judge":
            verdict = next(verdicts, {})
            if (verdict.get("id"), verdict.get("sample")) != (trace["id"], trace["sample"]):
                raise InputError(
                    f"{context.step}: no verdict of the judge stands where that on {trace['id']!r} should",
                    "run the judge step again",
                )
            yield (problem, trace), (verdict["status"], verdict["reason"])
        else:
            yield (problem, trace), verify_inline(problem, trace["solution"])


def _variant_rows(pairs: list[tuple[Row, Row]], context: StepContext) -> Iterator[Row]:
    tokens: list[int | None] = [None] * len(pairs)
    if pairs and "tokenizer" in context.models:  # a stage alone may have none, and counts no tokens then
        tokens = [*count_tokens(context.model("tokenizer"), [trace["reasoning"] for _, trace in pairs])]
        told = sum(count_tokens(context.model("tokenizer"), [trace["solution"] for _, trace in pairs]))
        for name in ("solution_tokens", "raw_solution_tokens"):
            context.metrics[name] = context.metrics.get(name, 0) + told
    for (problem, trace), reasoning_tokens in zip(pairs, tokens, strict=True):
        chars = len(trace["reasoning"])
        yield {
            **{name: problem[name] for name in ("id", "source", "problem", "answer", "verifier")},
            **{name: trace[name] for name in ("reasoning", "solution", "teacher", "sample", "finish_reason")},
            "messages": messages_of(problem["problem"], trace["reasoning"], trace["solution"]),
            "correct": None if context.config.get("unverified") else True,
            "reasoning_chars": chars,
            "reasoning_tokens": reasoning_tokens,
            "raw_reasoning_chars": chars,
            "raw_reasoning_tokens": reasoning_tokens,
            "ratio": 1.0,
        }
