"""The judge: a language model decides whether a free-text answer says the same as the known answer.

    the problem "Why is the sky blue?" with the answer "Rayleigh scattering" and a trace's solution "Air scatters
    short waves most." become one prompt; the reply "It names the effect.\\nVerdict: correct" becomes
    {"id": "why-3f2a", "sample": 0, "status": "correct", "reason": 'the judge: "It names the effect."'}

This step judges one shard of a teacher's traces; `compress` has its attempts judged. Their shared code is in
`judging.py`; the prompt and the form of a verdict are in `hubkit/verifiers/judge.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from hubkit.engines.check import check_engine
from hubkit.records import VERDICT_SCHEMA, RowWriter
from hubkit.store import CheckContext, StepContext
from hubkit.traces.join import reject_reason, with_problems
from hubkit.traces.journal import Key
from hubkit.traces.judging import PREFIX, Judge
from hubkit.verifiers.base import Verdict
from hubkit.verifiers.judge import Question

__all__ = ["VERSION", "check", "run"]

VERSION: Final = 1


def check(context: CheckContext) -> None:
    """Check that the judge can be reached."""
    if context.here:
        check_engine(context.runtime[f"{PREFIX}engine"], context.step)


def run(context: StepContext) -> None:
    """Write verdicts.parquet: one row for each trace of the shard that has an answer to judge."""

    def works() -> Iterator[tuple[dict[str, Any], Question | tuple[str, str]]]:
        for problem, trace in with_problems(context, "traces"):
            key = Key(trace["id"], trace["sample"])
            question = Question(key, problem["problem"], problem["answer"], trace["solution"])
            yield trace, reject_reason(trace) or question

    with (
        Judge(context) as judge,
        RowWriter(context.out / "verdicts.parquet", VERDICT_SCHEMA) as verdicts,
    ):
        for trace, verdict in judge.stream(works):
            if isinstance(verdict, Verdict):
                context.count(verdict.status)
                place = {"id": trace["id"], "sample": trace["sample"]}
                verdicts.add(place | {"status": verdict.status, "reason": verdict.reason})
