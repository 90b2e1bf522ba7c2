r"""The math verifier: correct means that the whole answer was compared with the whole key.

    "\\frac{1}{2}" and "… \\boxed{0.5}"  -> correct         "(a, b) = (2, 7)" and "\\boxed{(a, b) = (2, 9)}" -> wrong
    "\\pm 6" and "\\boxed{6}"           -> wrong           "3 \\pmod 7" and "\\boxed{\\heartsuit}" -> unparseable

Four steps, each a module that says how it decides its doubtful cases: `extract` finds the answer in the text,
`spelling` gives it one spelling, `forms` says what it is (a number, a list, an equation), and `compare` goes through
it, with `plain` for expressions that need no sympy and `symbolic`, in a worker, for all others. What they cannot
read whole is unparseable and never correct; an answer spelled like the key is correct whatever it is.

- "50\\%" is 0.5, and not 50. "x = 5" is 5. "5 \\text{ cm}" is 5, and not "5 \\text{ m}".
- Numbers are compared exactly, however small. Only a decimal with six significant digits or more is equal to what
  it is the rounding of, if the decimals of that do not end: "0.333333" is \\frac{1}{3}, and "0.33333" is not.
- A comparison that takes longer than three seconds is a timeout.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hubkit.verifiers import plain
from hubkit.verifiers.base import Task, Verdict, Verifier, verdict
from hubkit.verifiers.compare import Expressions, equal
from hubkit.verifiers.extract import answer_in, key_of
from hubkit.verifiers.forms import Form, Number, Words
from hubkit.verifiers.parse import read
from hubkit.verifiers.spelling import spell, ungrouped_indian

__all__ = ["Math"]

LONGEST = 2000
"""Maximum characters of an answer; a longer text is no answer."""


class Math(Verifier):
    name = "math"

    def verify_inline(self, problem: Mapping[str, Any], text: str) -> Verdict | Task:
        """Decide what needs no sympy: the same spelling, and numbers and fractions."""
        written, found = key_of(problem["answer"])[:LONGEST], answer_in(text)
        key = spell(written)
        if not key:
            return verdict(
                "unparseable", "", f"the answer key {str(problem['answer'])[:40]!r} cannot be read"
            )
        if found is None:
            return verdict("unparseable", "", "no answer found in the text")
        if len(found.text) > LONGEST:
            return verdict("unparseable", found.text, "the answer is too long")
        try:
            answer = spell(found.text)
            if not answer:
                return verdict("unparseable", found.text, "the answer is empty")
            if answer == key:
                return verdict("correct", found.text, "equal to the answer")
            form = read(answer)
            same = _equal(written, found.text, plain.Inline())
        except RecursionError:
            return verdict("unparseable", found.text, "nested too deeply")
        if same is None:
            return Task(self.name, written, found.text)
        if not same and not found.marked and isinstance(form, Words):
            return verdict("unparseable", "", "no answer found in the text")
        return verdict("correct" if same else "wrong", found.text, "equal" if same else "not equal")

    def verify_in_worker(self, task: Task) -> Verdict:
        from hubkit.verifiers.symbolic import SECONDS, Late, Symbolic

        try:
            same = _equal(task.answer, task.text, Symbolic())
            if same is None and _unreadable(read(spell(task.answer))):
                return verdict(
                    "unparseable", task.text, f"the answer key {task.answer[:40]!r} cannot be read"
                )
        except Late:
            return verdict("timeout", task.text, f"not compared within {SECONDS} s")
        if same is None:
            return verdict("unparseable", task.text, "the answer cannot be read as mathematics")
        return verdict("correct" if same else "wrong", task.text, "equal" if same else "not equal")


def _equal(key: str, answer: str, by: Expressions) -> bool | None:
    """Whether an answer is the same as the key in one of the ways to read them: 12,34,567 is a number and a list."""
    results: list[bool | None] = []
    for one in _readings(key):
        for other in _readings(answer):
            if same := equal(one, other, by):
                return True
            results.append(same)
    return None if None in results else False


def _readings(text: str) -> list[Form]:
    number = ungrouped_indian(text)
    return [read(spell(text)), *([] if number is None else [read(spell(number))])]


def _unreadable(key: Form) -> bool:
    """Whether a key is an expression that cannot be read, and so not compared with any answer."""
    from hubkit.verifiers.symbolic import readable

    return isinstance(key, Number) and not readable(key.text)
