"""The math verifier: math-verify, reached only by answers that plain arithmetic cannot decide.

Doubtful cases, decided here once:
- The answer key is read as if it stood in a box, so that "x^2+1" is an expression and not the number 1.
- Equal means equal by math-verify 0.5.2, to 6 decimal places where a decimal fraction takes part: "0.5"
  equals "\\\\frac{1}{2}", "50\\\\%" equals "0.5" and not "50", "x = 5" equals "5", "(1,2)" is an interval.
- Units in \\\\text{…} are dropped, as math-verify does; "5 cm" is 5 times c times m.
- A key that is no mathematics ("no solution") is compared as text; one in which nothing can be read
  makes every answer unparseable, never correct (open-r1's reward function counts it as correct).
- Boxes joined by "and", "or" or a comma are one answer of several parts, and what stands beside a box in
  the same formula (a sign, a percent sign, \\\\text{ cm}) belongs to it: math-verify then sees the whole text.
- An answer for which math-verify's own limits ran out (3 s for each expression) is a timeout.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import Any, Final

from hubkit.errors import StepError
from hubkit.verifiers.base import SHOWN, Task, Verdict, Verifier
from hubkit.verifiers.boxes import Box, key_of, last_box
from hubkit.verifiers.plain import equal

__all__ = ["Math"]

SECONDS: Final = 3
"""math-verify's default limit for each expression, by SIGALRM."""


class Math(Verifier):
    name = "math"

    def verify_inline(self, problem: Mapping[str, Any], text: str) -> Verdict | Task:
        """Decide what needs no sympy: equal spellings, and numbers and fractions of moderate length."""
        return _inline(key_of(problem["answer"]), text, last_box(text))

    def verify_in_worker(self, task: Task) -> Verdict:
        return _judge(task.answer, task.text)


def _inline(answer: str, text: str, box: Box | None) -> Verdict | Task:
    if box is None or not box.alone:
        return Task("math", answer, text)
    same = equal(answer, box.content)
    if same is None:
        return Task("math", answer, f"\\boxed{{{box.content}}}")
    return Verdict(
        "correct" if same else "wrong", box.content.strip()[:SHOWN], "equal" if same else "not equal"
    )


@functools.lru_cache(maxsize=4096)
def _judge(answer: str, text: str) -> Verdict:
    """math-verify's judgement. It works on the main thread only, and says False to everything elsewhere."""
    import math_verify

    _self_test()
    gold = _gold(answer)
    if not gold:
        return Verdict("unparseable", "", f"the answer key {answer[:40]!r} cannot be read as mathematics")
    started = time.monotonic()
    guess = math_verify.parse(text, parsing_timeout=SECONDS)
    shown = next((part[:SHOWN] for part in guess if isinstance(part, str)), "")
    if guess and math_verify.verify(list(gold), guess, timeout_seconds=SECONDS):
        return Verdict("correct", shown, "equal by math-verify")
    # math-verify swallows its own timeouts: only the clock tells them from other failures.
    if time.monotonic() - started >= SECONDS:
        return Verdict("timeout", shown, f"math-verify ran out of its {SECONDS} s")
    if not guess:
        return Verdict("unparseable", "", "no answer found in the text")
    if all(isinstance(part, str) for part in guess):
        return Verdict("unparseable", shown, "the answer cannot be read as mathematics")
    return Verdict("wrong", shown, "not equal by math-verify")


@functools.lru_cache(maxsize=4096)
def _gold(answer: str) -> tuple[Any, ...]:
    import math_verify

    return tuple(math_verify.parse(f"\\boxed{{{answer}}}", parsing_timeout=SECONDS))


@functools.cache
def _self_test() -> None:
    """Something true and something false, so that a verifier that cannot work is not taken for all wrong."""
    from math_verify import parse, verify

    half = parse("\\boxed{\\frac{1}{2}}")
    if not verify(half, parse("\\boxed{0.5}")) or verify(half, parse("\\boxed{2}")):
        raise StepError(
            "math-verify does not work in this process: 1/2 is not 0.5",
            "install math-verify==0.5.2, and verify on the main thread of a process",
        )
