"""The judge: a language model decides whether a free-text answer says what the known one says.

    the problem "Why is the sky blue?" with the answer "Rayleigh scattering" and a trace's solution "Air scatters
    short waves most." become one prompt; the reply "It names the effect.\\nVerdict: correct" becomes
    {"id": "why-3f2a", "sample": 0, "status": "correct", "reason": 'the judge: "It names the effect."'}

As a step it is asked about one shard of a teacher's traces; `compress` asks it about its attempts. Like all
generation this goes through an engine and a journal, so a reply that came is never asked for again.

The judge sees the problem, the known answer and what follows the thinking span, each between two lines with
a mark that no text can contain: it is a hash of those very texts. Control tokens of chat templates are broken
up in them, since template and text are one string to a tokenizer. Only the form of the prompt is safe in this
way; whether a judge can be talked round is a matter of the judge. What has no clear verdict is not correct.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, TypeVar

from hubkit.engines import Request, Response
from hubkit.errors import GateError
from hubkit.records import VERDICT_SCHEMA, RowWriter
from hubkit.section import Sampling
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
from hubkit.traces.thinking import split
from hubkit.traces.variants.raw import flaw, pairs
from hubkit.verifiers.base import Verdict

__all__ = ["VERSION", "Judge", "Question", "fill", "run", "verdict_of"]

VERSION: Final = 1
GATE: Final = 32
"""Replies after which a judge that never gives a verdict is stopped."""
QUOTED: Final = 160
"""Characters of the judge's words that a verdict keeps: the last before its verdict, where it sums up."""
PREFIX: Final = "judge_"
"""Of its engine's settings and metrics: in `compress` it stands beside the compressor."""

T = TypeVar("T")
R = TypeVar("R")


class Question(NamedTuple):
    """What the judge is asked. Its texts come from datasets and models, and may hold anything."""

    key: Key
    problem: str
    answer: str
    response: str


def run(context: StepContext) -> None:
    """Write verdicts.parquet: one row for each trace of the shard in which there is something to judge."""

    def works() -> Iterator[tuple[dict[str, Any], Question | tuple[str, str]]]:
        for problem, trace in pairs(context, "traces"):
            key = Key(trace["id"], trace["sample"])
            question = Question(key, problem["problem"], problem["answer"], trace["solution"])
            yield trace, flaw(trace) or question

    with (
        Judge(context) as judge,
        RowWriter(context.out / "verdicts.parquet", VERDICT_SCHEMA) as verdicts,
    ):
        for trace, verdict in judge.stream(works):
            if isinstance(verdict, Verdict):
                context.count(verdict.status)
                place = {"id": trace["id"], "sample": trace["sample"]}
                verdicts.add(place | {"status": verdict.status, "reason": verdict.reason})


class Judge:
    """A step's judge and the journal of its replies. Its engine is open only while it is asked."""

    def __init__(self, context: StepContext) -> None:
        self._context = context
        self._config = context.config["judge"]
        fingerprint = digest([self._config, context.models["judge"]["revision"]])
        self._journal = Journal(context.work / "judge.sqlite", fingerprint)
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
        """Ask the questions among the pairs' second parts, then give all pairs in order, with verdicts for them.

        `items()` gives the same each time: it is gone through more than once, so that nothing is kept in memory.
        Raises GateError when the judge never gives a verdict, EngineError as `answer` does.
        """

        def requests() -> Iterator[tuple[Key, Request]]:
            return (self._request(work) for _, work in items() if isinstance(work, Question))

        if not all_answered(self._journal, requests()):
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
        key, sampling = question.key, Sampling(**self._config["sampling"])
        messages = [{"role": "user", "content": fill(self._config["prompt"], question)}]
        return key, Request(key.text, messages, sampling, request_seed(self._context.config["seed"], key))

    def _verdict(self, question: Question) -> Verdict:
        key, request = self._request(question)
        response = self._journal.get(key, request_hash(request))
        assert response is not None, f"{key} was answered"
        self._context.metrics[f"{PREFIX}prompt_tokens"] += response.prompt_tokens
        self._context.metrics[f"{PREFIX}completion_tokens"] += response.completion_tokens
        return verdict_of(response)


_PLACEHOLDER: Final = re.compile(r"\{(problem|answer|response)\}")
_TOKEN: Final = re.compile(r"[<\[](?=[^\s<>\[\]]{1,64}[>\]]|/?(?:problem|answer|response)\b)")
"""Where a control token may begin (<|im_end|>, </s>, <｜User｜>, <end_of_turn>, [INST], and tags that are none), or
a line that looks like those around a text."""


def fill(prompt: str, question: Question) -> str:
    """The prompt with its texts in place, in one pass: a text that says {answer} is text like any other."""
    texts = {
        name: _TOKEN.sub(lambda match: match[0] + " ", getattr(question, name))
        for name in ("problem", "answer", "response")
    }
    mark = _mark(texts)

    def fenced(match: re.Match[str]) -> str:
        return f"<{match[1]} {mark}>\n{texts[match[1]]}\n</{match[1]} {mark}>"

    return _PLACEHOLDER.sub(fenced, prompt)


def _mark(texts: dict[str, str]) -> str:
    """16 hex digits that stand in none of the texts, always the same for the same texts."""
    mark = json.dumps(texts)
    while True:
        mark = hashlib.sha256(mark.encode()).hexdigest()[:16]
        if not any(mark in text for text in texts.values()):
            return mark


_VERDICT: Final = re.compile(
    r"[\s*_`#>]*verdict[*_`]*\s*:[\s*_`]*(correct|incorrect)[\s*_`.]*", re.IGNORECASE
)


def verdict_of(response: Response) -> Verdict:
    """The verdict on the last line of a judge's reply, after its thinking.

    `**Verdict:** correct.` is one. Two lines that contradict each other are none, and so is a reply that was cut
    off: all that is none is "unjudged", and never correct.
    """
    if response.finish_reason != "stop":
        why = response.error or "cut at max_tokens"
        return Verdict("unjudged", "", f"the judge gave no verdict: {why}")
    *before, last = split(response.text, response.reasoning).solution.strip().split("\n")
    found = _VERDICT.fullmatch(last)
    others = filter(None, map(_VERDICT.fullmatch, before))
    if found is None or any(other[1].lower() != found[1].lower() for other in others):
        return Verdict("unjudged", "", f"the judge gave no verdict: {_quote([*before, last])}")
    correct = found[1].lower() == "correct"
    return Verdict("correct" if correct else "wrong", "", f"the judge: {_quote(before)}")


def _quote(lines: list[str]) -> str:
    """The end of what was said, in one line."""
    text = "".join(c if c.isprintable() else " " for c in " ".join(" ".join(lines).split()))
    return f'"{text}"' if len(text) <= QUOTED else f'"…{text[-QUOTED:]}"'


class _Gate:
    """Stops early when the first replies show that every trace would be dropped for the judge's sake."""

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
                "mend its prompt, raise its max_tokens, or take another judge",
            )
