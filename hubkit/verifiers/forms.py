"""The kinds of answers: a number, a list, an interval, an equation, a time, a word. `parse.py` reads them."""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "Approximate",
    "Based",
    "Chain",
    "Clock",
    "Form",
    "Matrix",
    "Modular",
    "Named",
    "Number",
    "Ratio",
    "Relation",
    "Several",
    "Union",
    "Words",
]


class Number(NamedTuple):
    """An expression, and the unit beside it: "5 \\text{ cm}"."""

    text: str
    unit: str = ""


class Words(NamedTuple):
    """A text that is not mathematics, in lower case."""

    text: str


class Named(NamedTuple):
    """x = 5, x \\in [1, 2]: a value with its name."""

    name: str
    form: Form


class Several(NamedTuple):
    """A list in any order ("list"), a set ("{}"), or a tuple or interval by its brackets: "()", "[]", "[)", "(]"."""

    kind: str
    items: tuple[Form, ...]


class Union(NamedTuple):
    parts: tuple[Form, ...]


class Relation(NamedTuple):
    """An equation or inequality of two expressions: = < \\le \\ne; > and \\ge are turned round."""

    sign: str
    left: str
    right: str


class Chain(NamedTuple):
    """2 + 3 = 5: expressions that are said to be equal. The last is the answer."""

    parts: tuple[Form, ...]


class Approximate(NamedTuple):
    """\\frac{1}{3} \\approx 0.33: the exact value, and roundings of it."""

    exact: Form
    rounded: tuple[Form, ...]


class Clock(NamedTuple):
    """A time of day, in seconds since midnight; 8:00 is in the morning."""

    seconds: int


class Ratio(NamedTuple):
    parts: tuple[Form, ...]


class Based(NamedTuple):
    """Digits in a number base."""

    digits: str
    base: int


class Modular(NamedTuple):
    """3 \\pmod 7."""

    residue: Form
    modulus: str


class Matrix(NamedTuple):
    kind: str
    rows: tuple[tuple[Form, ...], ...]


Form = (
    Number
    | Words
    | Named
    | Several
    | Union
    | Relation
    | Chain
    | Approximate
    | Clock
    | Ratio
    | Based
    | Modular
    | Matrix
)
