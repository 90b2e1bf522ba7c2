"""Compressors that ask a language model: their shared configuration, and the attempts at each trace.

A reply's own \\boxed{…} is judged, or by a judge its whole text; a last line that only holds a box is not part of the
trace. What is wrong, cut off, empty, not shorter, or refused by the kind's own check is tried again, `attempts` times
in all; what then remains is rejected with its reason. `solution` stays the teacher's, unless it is to be shortened as
well: a reply then has both, with a line `Solution:` between them, and what is judged is its solution.

With `ratio` further attempts also aim at that length: a trace is done once a valid reply comes within NEAR of it, and
otherwise the valid reply that came nearest is taken. With `chunk_tokens` a long trace is asked about part by part, each
beside what was made of the parts before it, and the whole is judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
from pydantic import Field, model_validator

from hubkit.engines import Engine, Request
from hubkit.engines.check import check_engine
from hubkit.records import VARIANT_COLUMNS, RowWriter, read_rows
from hubkit.section import AtKey, ModelRef, Sampling, prompt_sha
from hubkit.store import CheckContext, StepContext, digest
from hubkit.traces.compressors.base import Compressor
from hubkit.traces.compressors.replies import (
    Refusal,
    Reply,
    asked_columns,
    asked_rows,
    parts_of,
    reasoning_and_solution,
    reply_of,
    request_of_part,
    strip_answer,
)
from hubkit.traces.compressors.writing import (
    BATCH,
    RAW_COLUMNS,
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
    step_engine,
    step_journal,
)
from hubkit.traces.judging import Judge
from hubkit.traces.lengths import count_tokens, tokenizer_threads
from hubkit.verifiers.base import Task
from hubkit.verifiers.extract import boxed
from hubkit.verifiers.judge import Question
from hubkit.verifiers.pool import shared_pool
from hubkit.verifiers.table import verifier_named, verify_inline

__all__ = ["Asked", "check_asked", "run_asked"]

NEAR: Final = 0.1
"""Distance from the target length, as a share of it, within which no further attempt is made."""


_LEFT: Final = pa.schema(
    [("place", pa.int64()), *(column for column in VARIANT_COLUMNS if column[0] in RAW_COLUMNS)]
)
"""Of rows that an attempt leaves: `place` is the row's number in its shard."""
_MADE: Final = pa.schema([("place", pa.int64()), ("text", pa.string())])
"""Of what an attempt made."""
_GROUP: Final = 8 << 20
"""Bytes of a row group of both, which are read from their beginning on."""
_KEPT_COLUMNS: Final = [name for name in RAW_COLUMNS if name != "reasoning"]
"""What is left of a raw row when its reasoning is shorter."""


class Asked(Compressor, ModelRef):
    """A compressor that asks a language model."""

    prompt: str
    """File beside the recipe with {reasoning} in it, and {problem} if the model should see it. With `ratio` also
    {words}, the target number of words; with `solution: shorten` also {solution}, and the model must put a line
    `Solution:` between reasoning and solution."""
    sampling: Sampling
    attempts: int = Field(default=1, gt=0)
    """Maximum attempts per trace, until a reply reaches the right answer and, with `ratio`, has about that length."""
    ratio: float | None = Field(default=None, gt=0, lt=1)
    """Target length, as a share of the raw tokens of the shortened text. Unset: the model decides."""

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
        for used, placeholder, key in (
            (self.ratio is not None, "{words}", "ratio"),
            (self.solution == "shorten", "{solution}", "solution: shorten"),
        ):
            if used != (placeholder in self.prompt):
                has = "has no" if used else "has a"
                raise AtKey(
                    f"the prompt {has} {placeholder} placeholder; `{key}` and it go together", "prompt"
                )
        return self


class _Answer(NamedTuple):
    place: int
    """Of the row among this shard's."""
    row: Row
    reply: Reply


Refuse = Callable[[Row, str, str | None], Refusal | None]
"""(raw row, shorter reasoning, shorter solution or None) -> why they are not kept; None: they are."""


def check_asked(context: CheckContext) -> None:
    """Check that the compressor and the judge can be reached."""
    for name in ("engine", "judge_engine"):
        if context.here and name in context.runtime:
            check_engine(context.runtime[name], context.step)


class _Attempts:
    """Outcome of each trace so far. In memory are a byte for a kept trace, and the reason for others."""

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
        """Finish: for traces without a reply near the target, take the valid reply that came nearest."""
        for place, (_, attempt) in self._best.items():
            self.accepted[place] = attempt + 1
        self._best.clear()


def run_asked(context: StepContext, refuse: Refuse) -> None:
    """Write data.parquet with this shard's compressed traces, and rejected.parquet, in raw's order.

    `refuse` is asked about shorter texts with the right answer. Traces are read again rather than held, once to ask
    and once to judge. What an attempt made and the rows that it leaves go to the work folder, so that the next reads
    these alone, and nobody needs the traces in the end.
    """
    config, total = context.config, shard_size(context)
    state = _Attempts(total, config.get("ratio"))
    context.metrics.update(prompt_tokens=0, completion_tokens=0)
    most = (
        max((len(parts_of(context, row)) for row in asked_rows(config, context.inputs["raw"])), default=0)
        if "chunk_tokens" in config
        else 1
    )
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
            for number in range(most):
                if journal.left(_requests(context, journal, attempt, number)):
                    engine = engine or engines.enter_context(step_engine(context, "compressor"))
                    requests = _requests(context, journal, attempt, number)
                    answer(context, engine, journal, requests, total, total - state.left)
            if judge:
                engines.close()  # the two models take turns: both may want all of a GPU
                engine = None
            _decide(context, journal, judge, attempt, state, refuse)
            if attempt + 1 < config["attempts"]:
                context.count("retries", state.left)
        state.settle()
        write_shortened(context, _results(context, state))


def _left(context: StepContext, attempt: int) -> Path:
    """Returns the rows that are still open when an attempt begins."""
    return context.work / f"left-{attempt}.parquet"


def _made(context: StepContext, attempt: int) -> Path:
    """Yield the outcome of each of these rows, in their order."""
    return context.work / f"made-{attempt}.parquet"


def _rows(context: StepContext, attempt: int, asked: bool = False) -> Iterator[tuple[int, Row]]:
    """(place, row) of what an attempt is about; with `asked` rows have what a request is made of alone."""
    config = context.config
    if not attempt:
        raw = context.inputs["raw"]
        yield from enumerate(asked_rows(config, raw) if asked else raw_rows(config, raw))
        return
    columns = ["place", *asked_columns(config)] if asked else None
    for row in read_rows(_left(context, attempt), BATCH, columns):
        yield row.pop("place"), row


def _requests(
    context: StepContext, journal: Journal, attempt: int, number: int
) -> Iterator[tuple[Key, Request]]:
    """About the `number`-th part of the rows of which no attempt was kept yet."""
    for _, row in _rows(context, attempt, asked=True):
        if asked := request_of_part(context, journal, row, attempt, number):
            yield asked


def _decide(
    context: StepContext,
    journal: Journal,
    judge: Judge | None,
    attempt: int,
    state: _Attempts,
    refuse: Refuse,
) -> None:
    """Verify all answers of one attempt, and note the outcomes in `state`."""
    total, tokenizer = len(state.accepted), context.model("tokenizer")
    both = context.config.get("solution") == "shorten"
    done = total - state.left

    def answers() -> Iterator[tuple[_Answer, Task | Question | tuple[str, ...]]]:
        problems = ProblemReader(context.inputs["problems"] / "problems.parquet")
        for place, row in _rows(context, attempt):
            reply = reply_of(context, journal, row, attempt)
            key = Key(row["id"], row["sample"], attempt)
            problem = problems.find(row["id"])
            text = reply.text if not both else reasoning_and_solution(reply.text)[1]
            yield _Answer(place, row, reply), _work(key, reply, text, problem, row["solution"], judge)

    verdicts: Iterator[tuple[_Answer, tuple[Any, ...]]]
    verdicts = judge.stream(answers) if judge else shared_pool(context.threads).stream(answers())
    last = attempt + 1 == context.config["attempts"]
    with (
        RowWriter(_made(context, attempt), _MADE, group_bytes=_GROUP) as made,
        nullcontext() if last else RowWriter(_left(context, attempt + 1), _LEFT, group_bytes=_GROUP) as left,
    ):
        while batch := list(islice(verdicts, BATCH)):
            shorts = [_short(found.reply.text, both) for found, _ in batch]
            texts = [
                text
                for (found, _), short in zip(batch, shorts, strict=True)
                for text in (short.text, short.solution or "", found.row["solution"] if both else "")
            ]
            tokens = count_tokens(tokenizer, texts)
            for place, ((found, verdict), short) in enumerate(zip(batch, shorts, strict=True)):
                made.add({"place": found.place, "text": found.reply.text})
                context.metrics["prompt_tokens"] += found.reply.prompt_tokens
                context.metrics["completion_tokens"] += found.reply.completion_tokens
                length, after, before = tokens[3 * place : 3 * place + 3]
                length, raw = length + after, found.row["raw_reasoning_tokens"] + before
                refusal: Refusal | None = None
                if verdict[0] != "correct":
                    refusal = verdict[0], verdict[-1]
                elif not short.text:
                    refusal = "empty", "nothing but the answer"
                elif length >= raw:
                    refusal = "not_shorter", f"{length} tokens of {raw}"
                if refusal := refusal or refuse(found.row, short.text, short.solution):
                    state.refuse(found.place, refusal)
                else:
                    state.take(found.place, attempt, length, raw)
                if left and not state.accepted[found.place]:
                    left.add(found.row | {"place": found.place})
            done += len(batch)
            context.progress(done, total, kept=total - state.left)


def _work(
    key: Key, reply: Reply, text: str, problem: dict[str, Any], solution: str, judge: Judge | None
) -> Task | Question | tuple[str, ...]:
    """Returns a verdict, a task for a worker, or a question for the judge."""
    if reply.refusal:
        return reply.refusal
    if reply.text and not text:
        return "no_solution", "no line `Solution:` with text before and after it"
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


def _short(text: str, both: bool) -> Shortened:
    if not both:
        return Shortened(strip_answer(text))
    reasoning, solution = reasoning_and_solution(text)
    return Shortened(strip_answer(reasoning), solution=solution)


def _results(context: StepContext, state: _Attempts) -> Iterator[tuple[Row, Shortened]]:
    config = context.config
    both = config.get("solution") == "shorten"
    made = [read_rows(_made(context, attempt), BATCH) for attempt in range(config["attempts"])]
    for place, row in enumerate(raw_rows(config, context.inputs["raw"], _KEPT_COLUMNS)):
        attempt = (state.accepted[place] or config["attempts"]) - 1
        text = next(found["text"] for found in made[attempt] if found["place"] == place)
        if state.accepted[place]:
            yield row, _short(text, both)
        else:
            yield row, Shortened(text, *state.reasons[place])
