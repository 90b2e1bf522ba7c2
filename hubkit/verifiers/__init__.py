"""Verifiers: is an answer right?

    verify("So it is \\\\boxed{\\\\dfrac12}.", answer="0.5").correct  -> True

Each verifier is a module here with a class; `table.py` lists them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, overload

from hubkit.errors import InputError
from hubkit.verifiers.base import Task, Verdict, Verifier
from hubkit.verifiers.table import TABLE, verifier_named, verify_inline

__all__ = ["TABLE", "Task", "Verdict", "Verifier", "verify", "verify_problem"]


@overload
def verify(
    text: str, *, answer: str, verifier: str = "math", metadata: Mapping[str, Any] | None = None
) -> Verdict: ...
@overload
def verify(
    text: list[str],
    *,
    answer: str | Sequence[str],
    verifier: str = "math",
    metadata: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
) -> list[Verdict]: ...
def verify(
    text: str | list[str],
    *,
    answer: str | Sequence[str],
    verifier: str = "math",
    metadata: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
) -> Verdict | list[Verdict]:
    """Judge the answer in a text, or those in a list of texts, against the known one.

    `text` is the text after the thinking span. `metadata` is what the verifier needs besides the answer:
    {"options": […]} for choice, {"tolerance": 0.01} for numeric, {"tests": […]} for code. With a list of texts
    `answer` and `metadata` are lists of the same length, or one for all. Answers that need sympy or a sandbox are
    judged in worker processes, half a minute each at most.

    Raises InputError for an unknown verifier, metadata that cannot be used, and lists of unequal length.
    """
    if isinstance(text, str):
        if not isinstance(answer, str) or not (metadata is None or isinstance(metadata, Mapping)):
            raise InputError("one text has one answer", "give a list of texts for a list of answers")
        return verify_problem(_problem(answer, verifier, metadata, "metadata"), text)
    answers = [answer] * len(text) if isinstance(answer, str) else answer
    whole = metadata is None or isinstance(metadata, Mapping)
    metadatas: Sequence[Any] = [metadata] * len(text) if whole else metadata  # type: ignore[assignment]
    if not len(text) == len(answers) == len(metadatas):
        raise InputError(
            f"{len(text)} texts, {len(answers)} answers, {len(metadatas)} metadata",
            "give one answer for each text, or one for all",
        )
    problems = (
        _problem(one, verifier, data, f"metadata of text {number}")
        for number, (one, data) in enumerate(zip(answers, metadatas, strict=True))
    )
    return list(verify_problems(zip(problems, text, strict=True)))


def verify_problem(problem: Mapping[str, Any], text: str) -> Verdict:
    """Judge the answer in `text` against that of a problem (a records.Problem), by the verifier that the problem names.

    Plain answers are judged at once, others in a worker process that is killed when it hangs, so this returns in
    about half a minute whatever the text. Raises InputError for an unknown verifier.
    """
    (found,) = verify_problems([(problem, text)])
    return found


def verify_problems(pairs: Iterable[tuple[Mapping[str, Any], str]]) -> Iterable[Verdict]:
    """Judge many pairs of problem and text, in order, on all cores."""
    works = [verify_inline(problem, text) for problem, text in pairs]
    if not any(isinstance(work, Task) for work in works):
        return [work for work in works if isinstance(work, Verdict)]
    from hubkit.verifiers.pool import shared_pool

    return [verdict for _, verdict in shared_pool().stream((None, work) for work in works)]


def _problem(answer: str, verifier: str, metadata: Mapping[str, Any] | None, where: str) -> dict[str, Any]:
    checked = verifier_named(verifier).checked(metadata or {}, where)
    return {"answer": answer, "verifier": verifier, "source": "", "metadata": checked}
