r"""The values of expressions that are plain enough to be evaluated without sympy.

    value("\\frac{1}{2}") -> Value(Fraction(1, 2), exact=True, …)      value("\\sqrt{8}") -> Value(2.828…, …)
    same("2\\sqrt{3}", "3\\sqrt{2}") -> False          same("x^{2}", "x\\cdot x") -> None: sympy has to say

It reads numbers, fractions, powers and roots, and sums and products of them with pi and single letters. Numbers
without roots and letters are exact fractions, so they are compared exactly however small or large they are.
"""

from __future__ import annotations

import functools
import math
import re
import string
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Final, NamedTuple

__all__ = ["Inline", "Value", "rounds_to", "same", "value"]

CLOSE: Final = 1e-9
"""Doubles that differ by less, relative to the largest number on the way, may be equal."""
DIGITS: Final = 6
"""Minimum significant digits of a decimal that may stand for a number that rounds to it."""
LONGEST: Final = 200

LETTERS: Final = {
    letter: 1.3 + 0.0917 * (ord(letter) % 59)
    for letter in string.ascii_letters
    if letter not in "dDeEiI"  # differentials, Euler's number, the imaginary unit
}
"""Where letters are evaluated: expressions that differ at one point are not equal; those that do not may be."""

_DECIMAL: Final = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)")
_SCIENTIFIC: Final = re.compile(
    r"([-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:[eE]([-+]?[0-9]{1,5})|\\cdot ?10\^\{([-+]?[0-9]{1,5})\})"
)
_TOKEN: Final = re.compile(
    r"[0-9]+\.[0-9]+|[0-9]+|\.[0-9]+|\\(?:frac|sqrt|pi|cdot)(?![A-Za-z])|\^\{|[-+/(){}\[\]%]|[A-Za-z]|.",
    re.DOTALL,
)


_Number = Fraction | float


class Inline:
    """`compare.Expressions` without sympy."""

    def same(self, one: str, other: str) -> bool | None:
        return same(one, other)

    def multiples(self, one: tuple[str, str], other: tuple[str, str], positive: bool) -> bool | None:
        return True if one == other else None


class Value(NamedTuple):
    number: Fraction | float
    exact: bool
    """The number is a fraction, and exactly the value."""
    letters: bool
    """Whether it has letters: the number is then its value at one point."""
    scale: float
    """The largest number on the way to it."""


def same(one: str, other: str) -> bool | None:
    """Whether two spelled expressions are equal. Returns None if that takes sympy."""
    if one == other:
        return bool(one) or None
    a, b = value(one), value(other)
    if a is None or b is None:
        return None
    if a.exact and b.exact:
        return a.number == b.number or _rounded(one, b) or _rounded(other, a)
    if _apart(a, b):
        return False
    if not a.letters and not b.letters and (_rounded(one, b) or _rounded(other, a)):
        return True
    return None


def _apart(a: Value, b: Value) -> bool:
    difference = abs(float(a.number) - float(b.number))
    if difference <= CLOSE * max(abs(float(a.number)), abs(float(b.number)), 0.0):
        return False
    if difference <= CLOSE * max(a.scale, b.scale):
        return False
    # A decimal may be the rounding of the other.
    return difference > 1e-5 * max(abs(float(a.number)), abs(float(b.number)))


def _rounded(text: str, other: Value) -> bool:
    if not _DECIMAL.fullmatch(text) or len(text) > 14:
        return False
    if other.exact and isinstance(other.number, Fraction):
        below = other.number.denominator
        for prime in (2, 5):
            while below % prime == 0:
                below //= prime
        if below == 1:  # its decimals end: another decimal is another number
            return False
    return rounds_to(text, Fraction(other.number))


def rounds_to(decimal: str, number: Fraction) -> bool:
    """Whether a number rounds to this decimal, and the decimal has six significant digits."""
    try:
        written = Decimal(decimal)
    except InvalidOperation:
        return False
    places = -int(written.as_tuple().exponent)
    if len(written.as_tuple().digits) < DIGITS:
        return False
    return abs(Fraction(written) - number) * 2 <= Fraction(1, 10**places)


def decimal_places(text: str) -> bool:
    """Whether a spelled expression is one decimal number."""
    return bool(_DECIMAL.fullmatch(text))


@functools.lru_cache(maxsize=8192)
def value(text: str) -> Value | None:
    """Returns the value of a spelled expression. Returns None if this module cannot read it whole."""
    if not text or len(text) > LONGEST:
        return None
    try:
        if text.isdecimal() and text.isascii():
            whole = int(text)
            return Value(Fraction(whole), True, False, float(whole) if len(text) < 300 else math.inf)
        if match := _SCIENTIFIC.fullmatch(text):
            power = int(match[2] or match[3])
            if abs(power) > 5000:
                return None
            number = (
                Fraction(match[1].rstrip(".") if match[1][-1] == "." else match[1]) * Fraction(10) ** power
            )
            return Value(number, True, False, 0.0 if abs(power) > 300 else abs(float(number)))
        reader = _Reader(text)
        found = reader.sum()
        if reader.next() is not None:
            return None
        if isinstance(found, float) and not math.isfinite(found):
            return None
        exact = isinstance(found, Fraction) and not reader.letters
        return Value(found if exact else float(found), exact, reader.letters, reader.scale)
    except (ValueError, ArithmeticError, RecursionError, IndexError):
        return None


class _Reader:
    r"""Evaluates sums and products with roots, fractions, powers, letters and \pi. Raises ValueError for others."""

    def __init__(self, text: str) -> None:
        self._tokens: list[str] = _TOKEN.findall(text)
        self._place = 0
        self.letters = False
        self.scale = 0.0

    def next(self) -> str | None:
        return self._tokens[self._place] if self._place < len(self._tokens) else None

    def _take(self, *wanted: str) -> str:
        piece = self.next()
        if piece is None or (wanted and piece not in wanted):
            raise ValueError(piece)
        self._place += 1
        return piece

    def _noted(self, number: _Number) -> _Number:
        if isinstance(number, Fraction):
            if number.numerator.bit_length() > 4000 or number.denominator.bit_length() > 4000:
                raise ValueError("too large to go on with")
            if abs(number.numerator.bit_length() - number.denominator.bit_length()) > 1000:
                self.scale = math.inf
                return number
        self.scale = max(self.scale, abs(float(number)))
        return number

    def sum(self) -> _Number:
        sign = -1 if self.next() in ("-", "+") and self._take() == "-" else 1
        total: _Number = sign * self._product()
        while self.next() in ("+", "-"):
            minus = self._take() == "-"
            term = self._product()
            total = self._noted(total - term if minus else total + term)
        return total

    def _product(self) -> _Number:
        product = self._power()
        divided = False
        while True:
            piece = self.next()
            if piece == "\\cdot":
                self._take()
                signed = -1 if self.next() == "-" and self._take() else 1
                product = self._noted(product * self._power() * signed)
            elif piece == "/":
                if divided:
                    raise ValueError("a/b/c, or a date")
                self._take()
                divided = True
                below = self._power()
                # 1/2x is read as 1/(2x) by some
                if self._begins_factor():
                    raise ValueError("a/bc")
                product = self._noted(product / below)
            elif self._begins_factor():
                product = self._noted(product * self._power())
            else:
                return product

    def _begins_factor(self) -> bool:
        piece = self.next()
        if piece is None:
            return False
        before = self._tokens[self._place - 1]
        if piece == "(":
            # f(x) may be a function, 2(x+1) and (x+1)(x-1) are products
            return before[-1].isdigit() or before in (")", "}")
        return (
            piece in ("\\sqrt", "\\pi")
            or piece in LETTERS
            or (piece == "\\frac" and not before[-1].isdigit())
        )

    def _power(self) -> _Number:
        base = self._atom()
        if self.next() != "^{":
            return base
        self._take("^{")
        exponent = self.sum()
        self._take("}")
        if self.next() == "^{":
            raise ValueError("^{}^{}")
        if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1:
            power = exponent.numerator
            if abs(power) * max(base.numerator.bit_length(), base.denominator.bit_length()) <= 4000:
                raised: _Number = base**power
                return self._noted(raised)
        if isinstance(base, Fraction) and abs(float(exponent)) > 400:
            raise ValueError("too large")
        number = math.pow(float(base), float(exponent))
        if number == 0.0 and base:
            raise ValueError("too small")
        return self._noted(number)

    def _atom(self) -> _Number:
        piece = self._take()
        if piece[0].isdigit() or (piece[0] == "." and len(piece) > 1):
            if not piece.isascii() or (len(piece) > 1 and piece[0] == "0" and piece[1] != "."):
                raise ValueError(piece)
            return self._noted(Fraction(piece if piece[0] != "." else "0" + piece))
        match piece:
            case "\\pi":
                return self._noted(math.pi)
            case "\\sqrt":
                return self._root()
            case "\\frac":
                top = self._braces()
                below = self._braces()
                return self._noted(top / below)
            case "(":
                inside = self.sum()
                self._take(")")
                return inside
            case letter if letter in LETTERS:
                self.letters = True
                return self._noted(LETTERS[letter])
            case other:
                raise ValueError(other)

    def _root(self) -> _Number:
        degree: _Number = Fraction(2)
        if self.next() == "[":
            self._take()
            degree = self.sum()
            self._take("]")
        inside = self._braces()
        if isinstance(inside, Fraction) and inside >= 0 and degree == 2:
            top, below = math.isqrt(inside.numerator), math.isqrt(inside.denominator)
            if top * top == inside.numerator and below * below == inside.denominator:
                return self._noted(Fraction(top, below))
        if inside < 0:
            raise ValueError("a root of a negative number")
        return self._noted(math.pow(float(inside), 1 / float(degree)))

    def _braces(self) -> _Number:
        self._take("{")
        inside = self.sum()
        self._take("}")
        return inside
