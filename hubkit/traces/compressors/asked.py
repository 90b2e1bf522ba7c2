"""Compressors that ask a language model: what their configurations share, and the attempts at each trace.

A reply's own \\boxed{…} is judged, or by a judge its whole text; a last line that only holds a box is not part of the
trace. `solution` stays the teacher's. What is wrong, cut off, empty, not shorter, or refused by the kind's own check is
tried again, `attempts` times in all; what then remains is rejected with its reason.

With `ratio` further attempts also aim at that length: a trace is done once a valid reply comes within NEAR of it, and
otherwise the valid reply that came nearest is taken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import Field, model_validator

from hubkit.engines import Engine, Request, Response
from hubkit.engines.check import check_engine
from hubkit.section import AtKey, ModelRef, Sampling, prompt_sha
from hubkit.store import CheckContext, StepContext, digest
from hubkit.traces.compressors.base import Compressor
from hubkit.traces.compressors.writing import (
    ASKED_COLUMNS,
    BATCH,
    Row,
    Shortened,
    raw_rows,
    shard_size,
    write_shortened,
)
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
from hubkit.traces.lengths import count_tokens, tokenizer_threads
from hubkit.traces.thinking import inert, split
from hubkit.verifiers.base import Task
from hubkit.verifiers.extract import boxed
from hubkit.verifiers.judge import Question
from hubkit.verifiers.pool import shared_pool
from hubkit.verifiers.table import verifier_named, verify_inline

__all__ = ["Asked", "check_asked", "fill", "first_requests", "run_asked", "strip_answer"]

RETRY_TEMPERATURE: Final = 0.7
"""Further attempts sample: a greedy answer would come out the same again."""
NEAR: Final = 0.1
"""Distance from the target length, as a share of it, at which no further attempt is made."""
_PLACEHOLDER: Final = re.compile(r"\{(problem|reasoning|words)\}")
_ANSWER_LINE: Final = re.compile(r"\s*[^\n\w]*\\boxed\{[^\n]*\}[.$*\s]*$")

Refusal = tuple[str, str]
"""(counted category, one line for people)."""


class Asked(Compressor, ModelRef):
    """A compressor that asks a language model."""

    prompt: str
    """File beside the recipe with {reasoning} in it, and {problem} where the model is to see it; with `ratio` also
    {words}, the number of words to aim at."""
    sampling: Sampling
    attempts: int = Field(default=1, gt=0)
    """Tries per trace until the compressed one still reaches the right answer, and with `ratio` is as long as asked."""
    ratio: float | None = Field(default=None, gt=0, lt=1)
    """Length to aim at, as a share of the raw reasoning's tokens. Unset: as the model likes."""

    def generator(self) -> ModelRef:
        return self

    def longest(self) -> int:
        return self.sampling.max_tokens

    def texts(self) -> dict[str, str]:
        return {f"Prompt of {self.name}": self.prompt}

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"prompt_sha": prompt_sha(self.prompt)}

    def words(self) -> str:
        """For cards: how it was asked."""
        aim = f", aiming at {self.ratio:.0%} of the raw length" if self.ratio else ""
        return f"with the prompt below, {self.sampling.words()} and {self.attempts} attempt(s){aim}"

    @model_validator(mode="after")
    def _has_placeholders(self) -> Asked:
        # By the time this runs the loader has put the file's text in place of its name.
        if "{reasoning}" not in self.prompt:
            raise AtKey("the prompt has no {reasoning} placeholder: put it where the trace belongs", "prompt")
        if (self.ratio is not None) != ("{words}" in self.prompt):
            raise AtKey(
                "`ratio` and {words} go together: the prompt tells the model how many words to aim at",
                "prompt",
            )
        return self


class _Answer(NamedTuple):
    place: int
    """Of the row among this shard's."""
    row: Row
    response: Response


def check_asked(context: CheckContext) -> None:
    """Ask whether the compressor and the judge can be reached."""
    for name in ("engine", "judge_engine"):
        if context.here and name in context.runtime:
            check_engine(context.runtime[name], context.step)


def first_requests(
    config: dict[str, Any], raw: Path, most: int | None = None
) -> Iterator[tuple[Key, Request]]:
    """What a step with this configuration asks about the output of a raw step at first, before any second attempt: all,
    or about as many as `most`."""
    return (_request(config, row, 0) for row in raw_rows(config, raw, ASKED_COLUMNS, most))


class _Attempts:
    """What became of each trace so far. Of a trace that was kept a byte is in memory, of others the reason."""

    def __init__(self, total: int, ratio: float | None) -> None:
        self.accepted = bytearray(total)
        """The attempt that is kept, counted from 1; 0 while another is to be made."""
        self.reasons: dict[int, Refusal] = {}
        self._ratio = ratio
        self._best: dict[int, tuple[float, int]] = {}
        """Distance from the target, and attempt, of valid replies that are not near it."""

    @property
    def left(self) -> int:
        return self.accepted.count(0)

    def take(self, place: int, attempt: int, length: int, raw: int) -> None:
        """Note a valid reply of `length` tokens to a trace of `raw` tokens."""
        self.reasons.pop(place, None)
        target = raw * (self._ratio or 0)
        distance = abs(length - target)
        if self._ratio is None or distance <= NEAR * target:
            self.accepted[place] = attempt + 1
            self._best.pop(place, None)
        else:
            self._best[place] = min(self._best.get(place, (distance, attempt)), (distance, attempt))

    def refuse(self, place: int, refusal: Refusal) -> None:
        if place not in self._best:
            self.reasons[place] = refusal

    def settle(self) -> None:
        """No further attempts are made: what came nearest is taken."""
        for place, (_, attempt) in self._best.items():
            self.accepted[place] = attempt + 1
        self._best.clear()


def run_asked(context: StepContext, refuse: Callable[[Row, str], Refusal | None]) -> None:
    """Write data.parquet with this shard's compressed traces, and rejected.parquet, in raw's order.

    `refuse(raw row, short)` says why a shorter text with the right answer is not kept; None: it is. Traces are read
    again for every attempt rather than held, and answers stay in the journal.
    """
    config, total = context.config, shard_size(context)
    state = _Attempts(total, config.get("ratio"))
    context.metrics.update(prompt_tokens=0, completion_tokens=0)
    fingerprint = digest([config, context.models["compressor"]["revision"]])
    with (
        tokenizer_threads(context.threads),
        step_journal(context, "compressor", "journal.sqlite", fingerprint) as journal,
        Judge(context) if "judge" in config else nullcontext() as judge,
        ExitStack() as engines,
    ):
        engine: Engine | None = None
        for attempt in range(config["attempts"]):
            if not state.left:
                break
            if journal.left(_requests(context, state, attempt)):
                engine = engine or engines.enter_context(step_engine(context, "compressor"))
                requests = _requests(context, state, attempt)
                answer(context, engine, journal, requests, total, total - state.left)
            if judge:
                engines.close()  # the two models take turns: both may want all of a GPU
                engine = None
            _decide(context, journal, judge, attempt, state, refuse)
            if attempt + 1 < config["attempts"]:
                context.count("retries", state.left)
        state.settle()
        write_shortened(context, _results(context, journal, state))


def _rows(context: StepContext) -> Iterator[Row]:
    return raw_rows(context.config, context.inputs["raw"])


def _requests(context: StepContext, state: _Attempts, attempt: int) -> Iterator[tuple[Key, Request]]:
    """For the rows of which no attempt was kept yet."""
    rows = raw_rows(context.config, context.inputs["raw"], ASKED_COLUMNS)
    for place, row in enumerate(rows):
        if not state.accepted[place]:
            yield _request(context.config, row, attempt)


def _request(config: dict[str, Any], row: Row, attempt: int) -> tuple[Key, Request]:
    sampling = Sampling(**config["sampling"])
    if attempt and sampling.temperature < RETRY_TEMPERATURE:
        sampling = sampling.model_copy(update={"temperature": RETRY_TEMPERATURE})
    key = Key(row["id"], row["sample"], attempt)
    values = {name: str(row[name]) for name in ("problem", "reasoning")}
    if ratio := config.get("ratio"):
        values["words"] = str(max(1, round(ratio * len(row["reasoning"].split()))))
    messages = [{"role": "user", "content": fill(config["prompt"], values)}]
    return key, Request(key.text, messages, sampling, request_seed(config["seed"], key))


def fill(prompt: str, values: dict[str, str]) -> str:
    """One literal pass: a trace that says {problem} is text like any other, and other braces mean nothing."""
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), prompt)


def _decide(
    context: StepContext,
    journal: Journal,
    judge: Judge | None,
    attempt: int,
    state: _Attempts,
    refuse: Callable[[Row, str], Refusal | None],
) -> None:
    """Verify all answers of one attempt; note in `state` what becomes of them."""
    total = len(state.accepted)
    done = total - state.left

    def answers() -> Iterator[tuple[_Answer, Task | Question | tuple[str, ...]]]:
        problems = ProblemReader(context.inputs["problems"] / "problems.parquet")
        for place, row in enumerate(_rows(context)):
            if not state.accepted[place]:
                key, request = _request(context.config, row, attempt)
                response = _response(journal, key, request)
                problem = problems.find(row["id"])
                yield _Answer(place, row, response), _work(key, response, problem, row["solution"], judge)

    verdicts: Iterator[tuple[_Answer, tuple[Any, ...]]]
    verdicts = judge.stream(answers) if judge else shared_pool(context.threads).stream(answers())
    while batch := list(islice(verdicts, BATCH)):
        shorts = [strip_answer(_text(found.response)) for found, _ in batch]
        tokens = count_tokens(context.model("tokenizer"), shorts)
        for (found, verdict), short, length in zip(batch, shorts, tokens, strict=True):
            context.metrics["prompt_tokens"] += found.response.prompt_tokens
            context.metrics["completion_tokens"] += found.response.completion_tokens
            raw = found.row["raw_reasoning_tokens"]
            refusal: Refusal | None = None
            if verdict[0] != "correct":
                refusal = verdict[0], verdict[-1]
            elif not short:
                refusal = "empty", "nothing but the answer"
            elif length >= raw:
                refusal = "not_shorter", f"{length} tokens of {raw}"
            if refusal := refusal or refuse(found.row, short):
                state.refuse(found.place, refusal)
            else:
                state.take(found.place, attempt, length, raw)
        done += len(batch)
        context.progress(done, total, kept=total - state.left)


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


def _results(context: StepContext, journal: Journal, state: _Attempts) -> Iterator[tuple[Row, Shortened]]:
    for place, row in enumerate(_rows(context)):
        attempt = (state.accepted[place] or context.config["attempts"]) - 1
        text = _text(_response(journal, *_request(context.config, row, attempt)))
        if state.accepted[place]:
            yield row, Shortened(strip_answer(text))
        else:
            yield row, Shortened(text, *state.reasons[place])
