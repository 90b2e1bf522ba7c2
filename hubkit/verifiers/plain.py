"""Answers that are plain enough to be compared without sympy, by the rules that math-verify has.

    equal("\\\\frac{1}{2}", "2/4") -> True        equal("2\\\\sqrt{3}", "3\\\\sqrt{2}") -> False
    equal("(1, 5)", "(1, 7)") -> False          equal("x^2", "x \\\\cdot x") -> None: sympy has to say

Read are numbers, fractions, sums and products of them with roots, pi and single letters, and intervals,
tuples, sets and lists of these. What could be read in two ways, or is nearly but not exactly equal, is
None. That no answer here differs from math-verify's is property-tested (tests/verifiers/test_math.py).
"""

from __future__ import annotations

import functools
import itertools
import math
import re
import string
from fractions import Fraction
from typing import Final, NamedTuple

__all__ = ["equal"]

APART: Final = 1e-5
"""Numbers further apart than this differ for math-verify, which rounds decimals to 6 places."""
LARGEST: Final = 1e12
"""Above it doubles are too coarse for that."""

LETTERS: Final = {
    letter: 1.3 + 0.0917 * (ord(letter) % 59)
    for letter in string.ascii_letters
    if letter not in "dDeEiI"  # differentials, Euler's number, the imaginary unit
}
"""Where terms are evaluated: terms that differ at one point are not equal; those that do not may be."""

_FRAC: Final = re.compile(r"\\[dt]frac(?![A-Za-z])")
_SIZED: Final = re.compile(r"\\(?:left|right)(?=[()\[\]]|\\[{}])")
_SPACES: Final = re.compile(r"\s*([{}()\[\]^_+*/=<>|-])\s*")
_COMMA_SPACE: Final = re.compile(r",\s+(?![0-9]{3}(?![0-9]))")
_END: Final = re.compile(r"(?:\\[,;!]|\s)+\Z")
_NAMED: Final = re.compile(r"[A-Za-z]=(?=[^=]+\Z)")
_EXACT: Final = re.compile(
    r"(?P<int>-?(?:[0-9]{1,15}|[0-9]{1,3}(?:,[0-9]{3}){1,4}))(?P<decimals>\.[0-9]{1,9})?"
    r"|(?P<minus>-?)\\frac\{(?P<top>-?[0-9]{1,6})\}\{(?P<below>[0-9]{1,6})\}"
    r"|(?P<over>-?[0-9]{1,6})/(?P<under>[0-9]{1,6})"
)
_TOKEN: Final = re.compile(
    r"[0-9]+(?:\.[0-9]+)?|\\(?:frac|sqrt|pi|cdot|times)(?![A-Za-z])|[-+*^(){}]|\s+|.", re.DOTALL
)


class Number(NamedTuple):
    value: Fraction | float
    exact: bool
    """The value is a fraction, and was not written as a decimal."""


class Form(NamedTuple):
    """What an answer is: the brackets around its elements, "{}" for sets, lists and single numbers."""

    brackets: str
    elements: tuple[Number, ...]


def equal(answer: str, guess: str) -> bool | None:
    """Whether two answers are equal for math-verify; None where that takes sympy."""
    if answer == guess:
        return True if _spelling(answer) else None
    answer, guess = _spelling(answer), _spelling(guess)
    # "x = 5" answers a key of 5, and the other way round; x = 5 and y = 5 are two equations.
    if ("=" in answer) != ("=" in guess):
        answer, guess = _NAMED.sub("", answer, count=1), _NAMED.sub("", guess, count=1)
    gold, found = _form(answer), _form(guess)
    if gold is None or found is None:
        return None
    if answer == guess:
        return True
    if gold.brackets == found.brackets != "{}" and len(gold.elements) == len(found.elements):
        return _same_numbers(gold.elements, found.elements)
    same = _same_set(gold.elements, found.elements)
    # (1, 2), [1, 2] and {1, 2} may be equal or not; with other numbers in them they never are.
    return same if gold.brackets == found.brackets or same is False else None


@functools.lru_cache(maxsize=4096)
def _spelling(text: str) -> str:
    """Numbers and lists of them that are equal here are equal for math-verify: it normalises the same, and more.

    Of other texts that is not known: 11\\text{ cm}^2 is 11 for it, and with \\, behind it 11 cm².
    """
    text = _FRAC.sub(r"\\frac", text.strip().strip("$").strip())
    text = _SPACES.sub(r"\1", _SIZED.sub("", text))
    return _END.sub("", _COMMA_SPACE.sub(",", text))


def _apart(a: Number, b: Number) -> bool:
    if a.exact and b.exact:
        return a.value != b.value
    one, other = float(a.value), float(b.value)
    return one != other and abs(one - other) > APART * max(1.0, min(abs(one), abs(other)))


def _same_numbers(gold: tuple[Number, ...], found: tuple[Number, ...]) -> bool | None:
    if any(_apart(a, b) for a, b in zip(gold, found, strict=True)):
        return False
    return True if all(a.exact and b.exact for a, b in zip(gold, found, strict=True)) else None


def _same_set(gold: tuple[Number, ...], found: tuple[Number, ...]) -> bool | None:
    """As sets. Where elements of one side nearly coincide, their number is not known."""
    sides = []
    for side in (gold, found):
        ordered = sorted(side, key=lambda number: float(number.value))
        distinct = [n for i, n in enumerate(ordered) if i == 0 or n.value != ordered[i - 1].value]
        if any(not _apart(a, b) for a, b in itertools.pairwise(distinct)):
            return None
        sides.append(tuple(distinct))
    if len(sides[0]) != len(sides[1]):
        return False
    return _same_numbers(sides[0], sides[1])


@functools.lru_cache(maxsize=4096)
def _form(text: str) -> Form | None:
    if single := _number(text):
        return Form("{}", (single,))
    brackets, inside = "{}", text
    if len(text) > 2 and text[0] in "([" and text[-1] in ")]":
        brackets, inside = text[0] + text[-1], text[1:-1]
    elif text.startswith("\\{") and text.endswith("\\}"):
        inside = text[2:-2]
    parts = inside.split(",")
    # Three digits after a comma may be thousands; one element in brackets is only a number in them.
    if any(re.match(r"\s*[0-9]{3}(?![0-9])", part) for part in parts[1:]) or (
        len(parts) == 1 and brackets != "{}"
    ):
        return None
    numbers = tuple(number for part in parts if (number := _number(part.strip())))
    if len(numbers) != len(parts):
        return None
    # Square brackets make an interval; without a point or with one it is a set, which sympy sees.
    square = "[" in brackets or "]" in brackets
    if square and (len(numbers) != 2 or not _apart(*numbers) or numbers[0].value > numbers[1].value):
        return None
    return Form(brackets, numbers)


def _number(text: str) -> Number | None:
    if text in ("\\infty", "-\\infty"):
        return Number(math.copysign(math.inf, -1 if text[0] == "-" else 1), True)
    if match := _EXACT.fullmatch(text):
        if match["int"]:
            value = Fraction(match["int"].replace(",", "") + (match["decimals"] or ""))
            return Number(value, not match["decimals"])
        below = int(match["below"] or match["under"])
        if below == 0:
            return None
        value = Fraction(int(match["top"] or match["over"]), below)
        return Number(-value if match["minus"] else value, True)
    try:
        reader = _Reader(text)
        number = reader.sum()
        return Number(number, False) if reader.next() is None and abs(number) < LARGEST else None
    except (ValueError, ArithmeticError, RecursionError):
        return None


class _Reader:
    r"""Evaluates sums and products with roots, fractions, powers, letters and \pi; ValueError for all else."""

    def __init__(self, text: str) -> None:
        if len(text) > 80:
            raise ValueError(text)
        self._tokens = [token for token in _TOKEN.findall(text) if not token.isspace()]
        self._place = 0

    def next(self) -> str | None:
        return self._tokens[self._place] if self._place < len(self._tokens) else None

    def _take(self, *wanted: str) -> str:
        token = self.next()
        if token is None or (wanted and token not in wanted):
            raise ValueError(token)
        self._place += 1
        return token

    def sum(self) -> float:
        sign = -1 if self.next() == "-" and self._take() else 1
        value = sign * self._product()
        while self.next() in ("+", "-"):
            value += self._product() if self._take() == "+" else -self._product()
        return value

    def _product(self) -> float:
        value = self._power()
        while True:
            if self.next() in ("*", "\\cdot", "\\times"):
                self._take()
            elif (token := self.next()) is None or not (token in ("\\sqrt", "\\pi") or token in LETTERS):
                return value  # and 2\frac{1}{2} is two and a half
            value *= self._power()

    def _power(self) -> float:
        value = self._atom()
        if self.next() != "^":
            return value
        self._take("^")
        if self.next() == "{":
            exponent = self._braces()
        else:
            digit = self._take()
            if len(digit) != 1 or not digit.isdigit():
                raise ValueError(digit)
            exponent = float(digit)
        return math.pow(value, exponent)

    def _atom(self) -> float:
        match self._take():
            case "\\pi":
                return math.pi
            case "\\sqrt":
                return math.sqrt(self._braces())
            case "\\frac":
                return self._braces() / self._braces()
            case "(":
                value = self.sum()
                self._take(")")
                return value
            case letter if letter in LETTERS:
                return LETTERS[letter]
            case number if number[0].isdigit() and number.isascii():
                return float(number)
            case other:
                raise ValueError(other)

    def _braces(self) -> float:
        self._take("{")
        value = self.sum()
        self._take("}")
        return value
