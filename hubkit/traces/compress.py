"""Compression: an instruction-tuned model rewrites each raw trace, and must still reach the answer.

    raw {"id": "x", "sample": 0, "reasoning": "I need to work out 47 + 38 - 12. First …", …} and the answer
    of the compressor "First 47 + 38 = 85, then 85 - 12 = 73.\\n\\\\boxed{73}" become
    {"reasoning": "First 47 + 38 = 85, then 85 - 12 = 73.", "ratio": 0.13, "compressor": …, …}

The compressor's own \\boxed{…} is judged, or by a judge its whole text; a last line that only holds a box
is not part of the trace.
`solution` stays the teacher's. What is wrong, cut off, empty or not shorter is tried again, `attempts`
times in all; what then remains is rejected with its reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, nullcontext
from typing import Any, Final

from hubkit.config import Sampling
from hubkit.engines import Engine, Request
from hubkit.errors import GateError
from hubkit.records import REJECTED_SCHEMA, VARIANT_SCHEMAS, messages_of, read_rows, write_rows
from hubkit.store import StepContext, digest
from hubkit.traces.journal import (
    Journal,
    Key,
    all_answered,
    answer,
    request_hash,
    request_seed,
    step_engine,
)
from hubkit.traces.judge import Judge, Question
from hubkit.traces.statistics import count_tokens, length_metrics
from hubkit.traces.thinking import split
from hubkit.traces.verifiers import Task, settle
from hubkit.traces.verify_pool import shared_pool

__all__ = ["VERSION", "merge", "run", "strip_answer"]

VERSION: Final = 2
RETRY_TEMPERATURE: Final = 0.7
"""Further attempts sample: a greedy answer would come out the same again."""
_Answer = tuple[dict[str, Any], str]
"""A raw row and what the compressor made of it."""
_PLACEHOLDER: Final = re.compile(r"\{(problem|reasoning)\}")
_ANSWER_LINE: Final = re.compile(r"\s*[^\n\w]*\\boxed\{[^\n]*\}[.$*\s]*$")


def run(context: StepContext) -> None:
    """Write data.parquet with this shard's compressed traces, and rejected.parquet, in raw's order."""
    config = context.config
    index, shards = config["shard"]
    raw = list(read_rows(context.inputs["raw"] / "data.parquet"))[index::shards]
    problems = {row["id"]: row for row in read_rows(context.inputs["problems"] / "problems.parquet")}
    outcomes: dict[tuple[str, int], tuple[str, str, str]] = {}
    context.metrics.update(prompt_tokens=0, completion_tokens=0)
    fingerprint = digest([config, context.models["compressor"]["revision"]])
    with (
        Journal(context.work / "journal.sqlite", fingerprint) as journal,
        Judge(context) if "judge" in config else nullcontext() as judge,
        ExitStack() as engines,
    ):
        engine: Engine | None = None
        todo = raw
        for attempt in range(config["attempts"]):
            if not todo:
                break
            requests = list(_requests(config, todo, attempt))
            if not all_answered(journal, requests):
                engine = engine or engines.enter_context(step_engine(context, "compressor"))
                answer(context, engine, journal, requests, len(raw), len(raw) - len(todo))
            failed = []
            answers = _answers(context, journal, problems, zip(todo, requests, strict=True))
            if judge:
                engines.close()  # the two models take turns: both may want all of a GPU
                engine = None
            for (row, text), verdict in _verdicts(judge, answers):
                outcome = _outcome(context, row, text, verdict)
                outcomes[row["id"], row["sample"]] = outcome
                if outcome[0] != "kept":
                    failed.append(row)
            context.count("retries", len(failed) if attempt + 1 < config["attempts"] else 0)
            todo = failed
    kept, rejected = [], []
    for row in raw:
        reason, detail, text = outcomes[row["id"], row["sample"]]
        context.count("kept" if reason == "kept" else f"dropped_{reason}")
        if reason == "kept":
            kept.append(_row(context, row, text))
        else:
            rejected.append(row | {"reason": reason, "detail": detail, "text": text})
    tokens = count_tokens(context.model("tokenizer"), [row["reasoning"] for row in kept])
    for row, number in zip(kept, tokens, strict=True):
        row["reasoning_tokens"], row["ratio"] = number, number / row["raw_reasoning_tokens"]
    write_rows(context.out / "data.parquet", kept, VARIANT_SCHEMAS["compressed"])
    write_rows(context.out / "rejected.parquet", rejected, REJECTED_SCHEMA)


def _requests(
    config: dict[str, Any], rows: list[dict[str, Any]], attempt: int
) -> Iterator[tuple[Key, Request]]:
    sampling = Sampling(**config["sampling"])
    if attempt and sampling.temperature < RETRY_TEMPERATURE:
        sampling = sampling.model_copy(update={"temperature": RETRY_TEMPERATURE})
    for row in rows:
        key = Key(row["id"], row["sample"], attempt)
        prompt = _fill(config["prompt"], row)
        yield (
            key,
            Request(
                key.text, [{"role": "user", "content": prompt}], sampling, request_seed(config["seed"], key)
            ),
        )


def _fill(prompt: str, row: dict[str, Any]) -> str:
    """One literal pass: a trace that says {problem} is text like any other, and other braces mean nothing."""
    return _PLACEHOLDER.sub(lambda match: str(row[match[1]]), prompt)


def _answers(
    context: StepContext,
    journal: Journal,
    problems: dict[str, dict[str, Any]],
    asked: Iterable[tuple[dict[str, Any], tuple[Key, Request]]],
) -> Iterator[tuple[_Answer, Task | Question | tuple[str, ...]]]:
    """(answer, verdict): the verdict is a task where a worker, a question where the judge has to look at it."""
    judged = "judge" in context.config
    for row, (key, request) in asked:
        response = journal.get(key, request_hash(request))
        assert response is not None, f"{key} was answered"
        context.metrics["prompt_tokens"] += response.prompt_tokens
        context.metrics["completion_tokens"] += response.completion_tokens
        if response.finish_reason == "error":
            yield (row, ""), ("error", response.error)
        elif response.finish_reason == "length":
            yield (row, response.text), ("length", "cut at max_tokens")
        else:
            text, problem = split(response.text, response.reasoning).solution, problems[row["id"]]
            if not judged:
                yield (row, text), settle(problem, text)
            elif not text:
                yield (row, text), ("empty", "nothing but thinking")
            else:
                yield (row, text), Question(key, problem["problem"], problem["answer"], text)


def _verdicts(
    judge: Judge | None, answers: Iterator[tuple[_Answer, Task | Question | tuple[str, ...]]]
) -> Iterator[tuple[_Answer, tuple[Any, ...]]]:
    """The answers with their verdicts, by the judge where there is one, else by the workers."""
    if judge is None:
        return shared_pool().stream(answers)
    asked = list(answers)
    return judge.stream(lambda: asked)


def _outcome(
    context: StepContext, row: dict[str, Any], text: str, verdict: tuple[Any, ...]
) -> tuple[str, str, str]:
    """(reason, detail, text): reason is kept, or why not."""
    status, reason = verdict[0], verdict[-1]
    if status != "correct":
        return status, reason, text
    short = strip_answer(text)
    if not short:
        return "empty", "nothing but the answer", text
    tokens = count_tokens(context.model("tokenizer"), [short])[0]
    if tokens >= row["raw_reasoning_tokens"]:
        return "not_shorter", f"{tokens} tokens of {row['raw_reasoning_tokens']}", text
    return "kept", reason, short


def strip_answer(text: str) -> str:
    """A compressor's text without a last line that only boxes the answer."""
    head, _, last = text.strip().rpartition("\n")
    return head.strip() if _ANSWER_LINE.fullmatch(last) else text.strip()


def _row(context: StepContext, raw: dict[str, Any], text: str) -> dict[str, Any]:
    return raw | {
        "reasoning": text,
        "messages": messages_of(raw["problem"], text, raw["solution"]),
        "reasoning_chars": len(text),
        "compressor": context.config["compressor"],
        "prompt_sha": context.config["prompt_sha"],
    }


def merge(context: StepContext) -> None:
    """All shards in raw's order, with the counts and lengths of the whole."""
    shards = [name for name in context.inputs if name.startswith("shard-")]
    order = {
        (row["id"], row["sample"]): place
        for place, row in enumerate(read_rows(context.inputs["raw"] / "data.parquet"))
    }
    for file, schema in (
        ("data.parquet", VARIANT_SCHEMAS["compressed"]),
        ("rejected.parquet", REJECTED_SCHEMA),
    ):
        rows = [row for name in shards for row in read_rows(context.inputs[name] / file)]
        rows.sort(key=lambda row: order[row["id"], row["sample"]])
        write_rows(context.out / file, rows, schema)
        if file == "data.parquet":
            if not rows:
                raise GateError(
                    f"{context.step}: no compressed trace reaches the right answer",
                    "look at the compressor's prompt and its max_tokens",
                )
            context.metrics.update(length_metrics(rows))
    for name in shards:
        for reason, number in context.record(name).counts.items():
            context.count(reason, number)
