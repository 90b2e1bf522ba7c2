r"""Compares expressions with math-verify, which parses them and decides symbolic equality.

    Symbolic().same("2\\sqrt{3}", "\\sqrt{12}") -> True      .same("x^{2}", "x\\cdot x") -> True
    Symbolic().same("\\frac{5}{2}\\spadesuit", "1") -> None: it cannot be read whole

Before that, expressions are checked against a list of allowed parts, since the parser drops what it does not know.
After that, both are evaluated to 40 digits, at several points if they have letters, and numbers that differ relative
to their size are not equal (math-verify compares to 6 decimal places and finds 3^{-39} equal to 3^{-40}). Use it on the
main thread of a process only: math-verify's time limits need that, and elsewhere it returns False for everything.
"""

from __future__ import annotations

import functools
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, Final

from hubkit.errors import StepError
from hubkit.verifiers import plain

__all__ = ["SECONDS", "Late", "Symbolic", "number", "readable"]

SECONDS: Final = 3
"""CPU seconds of this process for each comparison."""
WALL_SECONDS: Final = 10
"""Seconds for math-verify's own limits, which use wall time."""
DIGITS: Final = 40
NEAR: Final = 25
"""Digits in which equal values agree; the other digits are a reserve for rounding."""

_COMMANDS: Final = frozenset(
    """frac sqrt pi cdot sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log exp binom infty lfloor
    rfloor lceil rceil alpha beta gamma delta epsilon theta lambda mu nu phi varphi psi omega sigma rho tau xi eta zeta
    kappa chi Delta Gamma Omega Phi Psi Sigma Lambda Theta sum prod int circ""".split()  # noqa: SIM905
)
"""Allowed parts of an expression; the parser drops or misreads some others."""
_COMMAND: Final = re.compile(r"\\([A-Za-z]+)")
_REST: Final = re.compile(r"[0-9A-Za-z+\-/(){}^_.|!= ]*")
_NOT_READ: Final = re.compile(
    r"\d \d|\d[eE][-+]?\d|(?<![\d.])0[A-Za-z]|[\d)}]_|\d/\d+/\d"
    r"|\^\{[^{}]*\}\^|\b\d{4}-\d\d-\d\d\b|\.\d*\.|\|\||!!|'|\d\(\d+\)\d|\?|\d\\frac\{\d+\}\{\d"
)
_DECIMAL: Final = re.compile(r"(?<![\w.])(\d+)\.(\d+)(?![\d.])")
_DEGREES: Final = re.compile(r"(\d+(?:\.\d+)?)\^\\circ")


class Symbolic:
    """`compare.Expressions` with sympy. Raises Late when an expression takes too long."""

    def same(self, one: str, other: str) -> bool | None:
        known = plain.same(one, other)
        return _same(one, other) if known is None else known

    def multiples(self, one: tuple[str, str], other: tuple[str, str], positive: bool) -> bool | None:
        return _multiples(one, other, positive)


def readable(text: str) -> bool:
    """Whether a spelled expression can be read whole."""
    return plain.value(text) is not None or _parsed(text) is not None


def number(text: str) -> Fraction | None:
    """Returns the value of a spelled expression to 40 digits. Returns None if it is no real number. Raises Late."""
    expression = _parsed(text)
    if expression is None or expression.free_symbols:
        return None
    with _limit():
        found = _at(expression, {})
        return Fraction(str(found)) if found is not None and found.is_real else None


class Late(Exception):
    """The time for one comparison is over."""


@functools.lru_cache(maxsize=4096)
def _parsed(text: str) -> Any:
    """Returns sympy's expression of a spelled text. Returns None if it cannot be read whole. Raises Late."""
    if not text or len(text) > 1000 or _NOT_READ.search(text):
        return None
    commands = set(_COMMAND.findall(text))
    if not commands <= _COMMANDS or not _REST.fullmatch(
        _COMMAND.sub("", text).replace("[", "").replace("]", "")
    ):
        return None
    if "=" in text and "sum" not in commands and "prod" not in commands:
        return None
    import math_verify
    from sympy import Expr, I, nan, zoo
    from sympy.concrete.expr_with_limits import ExprWithLimits

    _self_test()
    exact = _DECIMAL.sub(lambda m: f"\\frac{{{int(m[1] + m[2])}}}{{{10 ** len(m[2])}}}", text)
    exact = _DEGREES.sub(r"(\\frac{\1\\pi}{180})", exact)
    started = time.monotonic()
    found = math_verify.parse(f"\\boxed{{{exact}}}", parsing_timeout=WALL_SECONDS)
    expression = next((part for part in found if isinstance(part, Expr)), None)
    # math-verify swallows its own timeouts: only the clock tells them from other failures.
    if expression is None and time.monotonic() - started >= WALL_SECONDS:
        raise Late
    if expression is None or expression.has(nan, zoo):
        return None
    if expression.has(ExprWithLimits):  # i may count there
        return expression
    # The parser makes a letter of i, and not always the same one.
    return expression.xreplace({letter: I for letter in expression.free_symbols if letter.name == "i"})


@functools.lru_cache(maxsize=4096)
def _same(one: str, other: str) -> bool | None:
    a, b = _parsed(one), _parsed(other)
    if a is None or b is None:
        return None
    with _limit():
        symbols = a.free_symbols | b.free_symbols
        if not symbols:
            return _same_numbers(one, other, a, b)
        if a.free_symbols != b.free_symbols and not _cancels(a, b):
            return False
        real: list[bool] = []
        others: list[bool] = []
        for point in _points(symbols):
            x, y = _at(a, point), _at(b, point)
            if x is None or y is None:
                continue
            # Letters are real, so where neither side is a real number, both have no value: \\sqrt{1/n} for n < 0.
            (real if x.is_real or y.is_real else others).append(_close(x, y))
            if real and not real[-1]:
                return False
        seen = real if len(real) >= 3 else real + others
        if not all(seen):
            return False
        if len(seen) >= 3:
            return True
    return _by_math_verify(a, b)


def _cancels(a: Any, b: Any) -> bool:
    """Letters that only one side has may cancel."""
    return bool((a.free_symbols <= b.free_symbols) or (b.free_symbols <= a.free_symbols))


def _same_numbers(one: str, other: str, a: Any, b: Any) -> bool | None:
    x, y = _at(a, {}), _at(b, {})
    if x is None or y is None:
        return _by_math_verify(a, b)
    if not _close(x, y):
        return _rounded(one, y) or _rounded(other, x)
    if a.is_Rational and b.is_Rational:
        return bool(a == b)
    return True


def _rounded(text: str, value: Any) -> bool:
    if not plain.decimal_places(text) or not value.is_real:
        return False
    return plain.rounds_to(text, Fraction(str(value)))


def _by_math_verify(a: Any, b: Any) -> bool:
    import math_verify

    started = time.monotonic()
    same = bool(math_verify.verify([a], [b], timeout_seconds=WALL_SECONDS))
    if not same and time.monotonic() - started >= WALL_SECONDS:
        raise Late
    return same


def _points(symbols: Any) -> Iterator[dict[Any, Any]]:
    """Where expressions are compared: numbers that no identity is made for, some of them negative."""
    from sympy import Rational

    ordered = sorted(symbols, key=str)
    for number in range(6):
        yield {
            symbol: Rational(1009 + 613 * ((place + 1) * (number + 3) % 17), 887 + 59 * number)
            * (-1 if (number + place) % 3 == 2 else 1)
            for place, symbol in enumerate(ordered)
        }


def _at(expression: Any, point: dict[Any, Any]) -> Any:
    """Returns the value at a point, to 40 digits. Returns None if there is none."""
    from sympy import I

    try:
        value = expression.subs(point).evalf(DIGITS)
        if value.is_number and value.is_finite is not False and not value.free_symbols:
            real, imaginary = (_without_rest(part) for part in value.as_real_imag())
            if (real.is_Float or real.is_Rational) and imaginary.is_number:
                return real + imaginary * I
    except Late:
        raise
    except Exception:  # sympy raises all sorts where an expression has no value
        return None
    return None


def _without_rest(value: Any) -> Any:
    """Returns 0 for what sympy finds no digit of in more than a hundred places, such as \\sin\\pi; else the value."""
    return value * 0 if value.is_Float and value._prec == 1 else value


def _close(x: Any, y: Any) -> bool:
    size = max(abs(x), abs(y))
    return bool(x == y or abs(x - y) <= size * 10 ** (-NEAR))


@functools.lru_cache(maxsize=4096)
def _multiples(one: tuple[str, str], other: tuple[str, str], positive: bool) -> bool | None:
    if one == other or (one == other[::-1] and not positive):
        return True
    sides = [_parsed(text) for text in (*one, *other)]
    if any(side is None for side in sides):
        return None
    with _limit():
        a, b = sides[0] - sides[1], sides[2] - sides[3]
        symbols = a.free_symbols | b.free_symbols
        if not symbols or a.free_symbols != b.free_symbols:
            return False
        ratio, seen = None, 0
        for point in _points(symbols):
            x, y = _at(a, point), _at(b, point)
            if x is None or y is None:
                continue
            if x == 0 or y == 0:
                return False
            if ratio is not None and not _close(x / y, ratio):
                return False
            ratio = x / y
            if positive and not (ratio.is_real and ratio > 0):
                return False
            seen += 1
        return seen >= 3


@contextmanager
def _limit() -> Iterator[None]:
    """Stop a computation after SECONDS of this process's own CPU time, however busy the machine is."""

    def late(*_: object) -> None:
        raise Late

    before = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@functools.cache
def _self_test() -> None:
    """Check one true and one false comparison, so that a broken math-verify does not make all answers wrong."""
    from math_verify import parse, verify

    half = parse("\\boxed{\\frac{1}{2}}")
    if not verify(half, parse("\\boxed{0.5}")) or verify(half, parse("\\boxed{2}")):
        raise StepError(
            "math-verify does not work in this process: 1/2 is not 0.5",
            "install math-verify==0.5.2, and verify on the main thread of a process",
        )
