"""Compression: an instruction-tuned model rewrites each raw trace, and must still reach the answer.

    raw {"id": "x", "sample": 0, "reasoning": "I need to work out 47 + 38 - 12. First …", …} and the answer
    of the compressor "First 47 + 38 = 85, then 85 - 12 = 73.\\n\\\\boxed{73}" become
    {"reasoning": "First 47 + 38 = 85, then 85 - 12 = 73.", "ratio": 0.13, "compressor": …, …}

The compressor's own \\boxed{…} is judged, or by a judge its whole text; a last line that only holds a box
is not part of the trace.
`solution` stays the teacher's. What is wrong, cut off, empty or not shorter is tried again, `attempts`
times in all, and so is what has numbers that the trace does not have (`faithful.py`); what then remains is rejected
with its reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import pyarrow.parquet as pq
from pydantic import Field, field_validator

from hubkit.engines import Engine, Request, Response
from hubkit.engines.check import check_engine
from hubkit.records import REJECTED_SCHEMA, RowWriter, messages_of, read_rows
from hubkit.section import ModelRef, Sampling, prompt_sha
from hubkit.store import CheckContext, StepContext, digest
from hubkit.traces.compressors.base import Compressor
from hubkit.traces.faithful import invented
from hubkit.traces.join import ProblemReader
from hubkit.traces.journal import (
    Journal,
    Key,
    answer,
    request_hash,
    request_seed,
    step_engine,
    step_journal,
)
from hubkit.traces.judging import Judge
from hubkit.traces.lengths import count_tokens
from hubkit.traces.thinking import inert, split
from hubkit.traces.variants import VARIANTS
from hubkit.verifiers.base import Task
from hubkit.verifiers.extract import boxed
from hubkit.verifiers.judge import Question
from hubkit.verifiers.pool import shared_pool
from hubkit.verifiers.table import verifier_named, verify_inline

__all__ = ["VERSION", "Rewrite", "check", "requests_of", "run", "strip_answer"]

VERSION: Final = 3
RETRY_TEMPERATURE: Final = 0.7
"""Further attempts sample: a greedy answer would come out the same again."""
BATCH: Final = 256
"""Traces that are read, and their tokens counted, together."""
_PLACEHOLDER: Final = re.compile(r"\{(problem|reasoning)\}")
_ANSWER_LINE: Final = re.compile(r"\s*[^\n\w]*\\boxed\{[^\n]*\}[.$*\s]*$")


class Rewrite(Compressor, ModelRef):
    """An instruction-tuned model rewrites the whole trace."""

    step = "hubkit.traces.compressors.rewrite:run"

    kind: Literal["rewrite"] = "rewrite"
    prompt: str
    """File beside the recipe with {problem} and {reasoning} in it."""
    sampling: Sampling
    attempts: int = Field(default=1, gt=0)
    """Tries per trace until the compressed one still reaches the right answer."""

    def generator(self) -> ModelRef:
        return self

    def longest(self) -> int:
        return self.sampling.max_tokens

    def describe(self) -> str:
        return (
            f"{self.name} ({self.model}) rewrote the reasoning with the prompt below, {self.sampling.words()} and "
            f"{self.attempts} attempt(s); a rewritten trace is kept when it still reaches the right answer"
        )

    def texts(self) -> dict[str, str]:
        return {f"Prompt of {self.name}": self.prompt}

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"prompt_sha": prompt_sha(self.prompt)}

    @field_validator("prompt")
    @classmethod
    def _has_placeholders(cls, text: str) -> str:
        # By the time this runs the loader has put the file's text in place of its name.
        if "{reasoning}" not in text:
            raise ValueError("the prompt has no {reasoning} placeholder: put it where the trace belongs")
        return text


class _Answer(NamedTuple):
    place: int
    """Of the row among this shard's."""
    row: dict[str, Any]
    response: Response


def check(context: CheckContext) -> None:
    """Ask whether the compressor and the judge can be reached."""
    for name in ("engine", "judge_engine"):
        if context.here and name in context.runtime:
            check_engine(context.runtime[name], context.step)


def run(context: StepContext) -> None:
    """Write data.parquet with this shard's compressed traces, and rejected.parquet, in raw's order.

    Traces are read again for every attempt rather than held, and answers stay in the journal: of a trace that
    was kept one byte is in memory, of others the reason.
    """
    config = context.config
    index, shards = config["shard"]
    total = len(range(index, pq.read_metadata(context.inputs["raw"] / "data.parquet").num_rows, shards))
    accepted = bytearray(total)  # the attempt that was kept, counted from 1
    reasons: dict[int, tuple[str, str]] = {}
    context.metrics.update(prompt_tokens=0, completion_tokens=0)
    fingerprint = digest([config, context.models["compressor"]["revision"]])
    with (
        step_journal(context, "compressor", "journal.sqlite", fingerprint) as journal,
        Judge(context) if "judge" in config else nullcontext() as judge,
        ExitStack() as engines,
    ):
        engine: Engine | None = None
        for attempt in range(config["attempts"]):
            left = accepted.count(0)
            if not left:
                break
            if journal.left(_requests(context, accepted, attempt)):
                engine = engine or engines.enter_context(step_engine(context, "compressor"))
                requests = _requests(context, accepted, attempt)
                answer(context, engine, journal, requests, total, total - left)
            if judge:
                engines.close()  # the two models take turns: both may want all of a GPU
                engine = None
            _decide(context, journal, judge, attempt, accepted, reasons)
            if attempt + 1 < config["attempts"]:
                context.count("retries", accepted.count(0))
        _write(context, journal, accepted, reasons)


def requests_of(config: dict[str, Any], raw: Path) -> Iterator[tuple[Key, Request]]:
    """What a step with this configuration asks about the output of a raw step at first, before any second attempt."""
    return (_request(config, row, 0) for row in _raw_rows(config, raw))


def _raw_rows(config: dict[str, Any], raw: Path) -> Iterator[dict[str, Any]]:
    """This shard's raw rows."""
    index, shards = config["shard"]
    return islice(read_rows(raw / "data.parquet", batch=BATCH), index, None, shards)


def _rows(context: StepContext) -> Iterator[dict[str, Any]]:
    return _raw_rows(context.config, context.inputs["raw"])


def _requests(context: StepContext, accepted: bytearray, attempt: int) -> Iterator[tuple[Key, Request]]:
    """For the rows of which no attempt was kept yet."""
    for place, row in enumerate(_rows(context)):
        if not accepted[place]:
            yield _request(context.config, row, attempt)


def _request(config: dict[str, Any], row: dict[str, Any], attempt: int) -> tuple[Key, Request]:
    sampling = Sampling(**config["sampling"])
    if attempt and sampling.temperature < RETRY_TEMPERATURE:
        sampling = sampling.model_copy(update={"temperature": RETRY_TEMPERATURE})
    key = Key(row["id"], row["sample"], attempt)
    messages = [{"role": "user", "content": _fill(config["prompt"], row)}]
    return key, Request(key.text, messages, sampling, request_seed(config["seed"], key))


def _fill(prompt: str, row: dict[str, Any]) -> str:
    """One literal pass: a trace that says {problem} is text like any other, and other braces mean nothing."""
    return _PLACEHOLDER.sub(lambda match: str(row[match[1]]), prompt)


def _decide(
    context: StepContext,
    journal: Journal,
    judge: Judge | None,
    attempt: int,
    accepted: bytearray,
    reasons: dict[int, tuple[str, str]],
) -> None:
    """Verify all answers of one attempt; note in `accepted` and `reasons` what becomes of them."""
    done = len(accepted) - accepted.count(0)

    def answers() -> Iterator[tuple[_Answer, Task | Question | tuple[str, ...]]]:
        problems = ProblemReader(context.inputs["problems"] / "problems.parquet")
        for place, row in enumerate(_rows(context)):
            if not accepted[place]:
                key, request = _request(context.config, row, attempt)
                response = _response(journal, key, request)
                problem = problems.find(row["id"])
                yield _Answer(place, row, response), _work(key, response, problem, row["solution"], judge)

    verdicts: Iterator[tuple[_Answer, tuple[Any, ...]]]
    verdicts = judge.stream(answers) if judge else shared_pool().stream(answers())
    while batch := list(islice(verdicts, BATCH)):
        shorts = [strip_answer(_text(found.response)) for found, _ in batch]
        tokens = count_tokens(context.model("tokenizer"), shorts)
        for (found, verdict), short, length in zip(batch, shorts, tokens, strict=True):
            context.metrics["prompt_tokens"] += found.response.prompt_tokens
            context.metrics["completion_tokens"] += found.response.completion_tokens
            status, detail = verdict[0], verdict[-1]
            if status == "correct" and not short:
                status, detail = "empty", "nothing but the answer"
            elif status == "correct" and length >= (longest := found.row["raw_reasoning_tokens"]):
                status, detail = "not_shorter", f"{length} tokens of {longest}"
            elif status == "correct" and (numbers := _invented(found.row, short)):
                status, detail = (
                    "unfaithful",
                    f"numbers that the trace does not have: {', '.join(numbers[:5])}",
                )
            if status == "correct":
                accepted[found.place] = attempt + 1
                reasons.pop(found.place, None)
            else:
                reasons[found.place] = (status, detail)
        done += len(batch)
        context.progress(done, len(accepted), kept=len(accepted) - accepted.count(0))


def _work(
    key: Key, response: Response, problem: dict[str, Any], solution: str, judge: Judge | None
) -> Task | Question | tuple[str, ...]:
    """A verdict; or a task where a worker, a question where the judge has to look at it."""
    if response.finish_reason == "error":
        return "error", response.error
    if why := response.unfinished:
        return ("length" if response.finish_reason == "length" else "unfinished"), why
    text = _text(response)
    if not judge:
        if verifier_named(problem["verifier"]).reads_boxes and boxed(text) is None:
            # A number in its prose is not an answer: the prompt asks for a box.
            return "no_box", "no \\boxed{…} at its end"
        answer = problem["answer"] or boxed(solution)
        if answer is None:
            return "correct", "not verified: neither the source nor the trace says an answer"
        return verify_inline(problem | {"answer": answer}, text)
    if not text:
        return "empty", "nothing but thinking"
    return Question(key, problem["problem"], problem["answer"], text)


def _invented(row: dict[str, Any], short: str) -> list[str]:
    return invented(short, row["problem"], row["reasoning"], row["solution"], row["answer"] or "")


def _response(journal: Journal, key: Key, request: Request) -> Response:
    response = journal.get(key, request_hash(request))
    assert response is not None, f"{key} was answered"
    return response


def _text(response: Response) -> str:
    """What stands after the compressor's own thinking, fit to stand between tags; all of it if it is not whole."""
    if response.unfinished:
        return response.text
    return inert(split(response.text, response.reasoning).solution)


def strip_answer(text: str) -> str:
    """A compressor's text without a last line that only boxes the answer."""
    head, _, last = text.strip().rpartition("\n")
    return head.strip() if _ANSWER_LINE.fullmatch(last) else text.strip()


def _write(
    context: StepContext, journal: Journal, accepted: bytearray, reasons: dict[int, tuple[str, str]]
) -> None:
    config, rows = context.config, enumerate(_rows(context))
    with (
        RowWriter(context.out / "data.parquet", VARIANTS["compressed"].schema) as data,
        RowWriter(context.out / "rejected.parquet", REJECTED_SCHEMA) as rejected,
    ):
        while batch := list(islice(rows, BATCH)):
            kept: list[tuple[dict[str, Any], str]] = []
            for place, row in batch:
                attempt = (accepted[place] or config["attempts"]) - 1
                text = _text(_response(journal, *_request(config, row, attempt)))
                if accepted[place]:
                    kept.append((row, strip_answer(text)))
                    context.count("kept")
                else:
                    reason, detail = reasons[place]
                    rejected.add(row | {"reason": reason, "detail": detail, "text": text})
                    context.count(f"dropped_{reason}")
            tokens = count_tokens(context.model("tokenizer"), [text for _, text in kept])
            for (row, text), length in zip(kept, tokens, strict=True):
                data.add(
                    row
                    | {
                        "reasoning": text,
                        "messages": messages_of(row["problem"], text, row["solution"]),
                        "reasoning_chars": len(text),
                        "reasoning_tokens": length,
                        "ratio": length / row["raw_reasoning_tokens"],
                        "compressor": config["compressor"],
                        "prompt_sha": config["prompt_sha"],
                    }
                )
