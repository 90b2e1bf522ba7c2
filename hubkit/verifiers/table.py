"""The table of verifiers: name in problems -> verifier. A new verifier is a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hubkit.errors import InputError
from hubkit.verifiers.base import Task, Verdict, Verifier
from hubkit.verifiers.choice import Choice
from hubkit.verifiers.code import Code
from hubkit.verifiers.exact import Exact
from hubkit.verifiers.gym import Gym
from hubkit.verifiers.judge import Judged
from hubkit.verifiers.math import Math
from hubkit.verifiers.numeric import Numeric

__all__ = ["TABLE", "verifier_named", "verify_in_worker", "verify_inline"]

TABLE: Final[dict[str, Verifier]] = {
    verifier.name: verifier for verifier in (Math(), Exact(), Choice(), Numeric(), Code(), Judged(), Gym())
}


def verifier_named(name: str) -> Verifier:
    """Returns the verifier of this name. Raises InputError if there is none."""
    if name not in TABLE:
        raise InputError(f"no verifier is called {name!r}", f"use {', '.join(TABLE)}")
    return TABLE[name]


def verify_inline(problem: Mapping[str, Any], text: str) -> Verdict | Task:
    """Judge a text by the verifier that a problem names, if this process can do it quickly and safely.

    verify_inline({"answer": "85", "verifier": "math", …}, "… \\\\boxed{84}")  -> Verdict("wrong", "84", …)
    verify_inline({"answer": "x^2+1", "verifier": "math", …}, "\\\\boxed{1+x^2}")  -> Task("math", …)

    The task is for a worker process, where sympy may take its time and be killed (`pool.py`).
    Raises InputError for an unknown verifier.
    """
    return verifier_named(problem["verifier"]).verify_inline(problem, text)


def verify_in_worker(task: Task) -> Verdict:
    """Judge a task that `verify_inline` returned. Called on the main thread of a worker process."""
    return verifier_named(task.verifier).verify_in_worker(task)
