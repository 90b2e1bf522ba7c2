"""The verifier of reasoning-gym's problems: the scorer of the problem's own task.

The answer is the last box, else the last <answer>…</answer>, else what follows "####", else the whole text.

Only a full score is correct. A partial score (some scorers give 0.01 for any answer, 0.5 for a right one in the
wrong form) is wrong, and named in the reason.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from hubkit.errors import InputError
from hubkit.verifiers.base import Task, Verdict, Verifier, verdict
from hubkit.verifiers.extract import key_of, marked_in

__all__ = ["Gym"]


class Gym(Verifier):
    name = "reasoning-gym"
    of_rows = False

    def verify_inline(self, problem: Mapping[str, Any], text: str) -> Verdict | Task:
        marked, answer = marked_in(text), key_of(problem["answer"])
        if marked is not None and marked.strip() == answer:
            return verdict("correct", answer, "equal to the answer")
        return Task(
            self.name, answer, text if marked is None else marked, problem["source"], problem["metadata"]
        )

    def verify_in_worker(self, task: Task) -> Verdict:
        scorer, entry = _scorer(task.source), json.loads(task.metadata)
        answer = task.text.strip()
        if not answer:
            return verdict("unparseable", "", "no answer found in the text")
        try:
            score = float(scorer(answer, entry))
        except Exception as error:  # scorers parse free text each in their own way
            return verdict("unparseable", answer, f"scorer: {type(error).__name__}")
        if score == 1.0:
            return verdict("correct", answer, "full score by reasoning-gym")
        return verdict("wrong", answer, f"reasoning-gym score {score:g}")


@functools.lru_cache(maxsize=64)
def _scorer(source: str) -> Any:
    import reasoning_gym

    try:
        return reasoning_gym.get_score_answer_fn(source.split("/")[-1])
    except ValueError as error:
        raise InputError(
            f"reasoning-gym has no scorer for {source!r}", "check the problems' source"
        ) from error
