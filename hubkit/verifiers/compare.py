"""Whether two answers are the same: all of one against all of the other.

    equal(read("(a,b)=(2,7)"), read("(2,7)"), same) -> True        equal(read("x=3"), read("y=3"), same) -> False

The comparison is symmetric: equal(a, b) is equal(b, a). `same` compares two expressions and may return None:
`plain.same` without sympy, `symbolic.same` with it. Decided here:
- A name that only one side has ("x = 5" and "5", "x \\\\in [1, 2]" and "[1, 2]") is ignored; two names must be
  the same, or the two are equations: equal if one is a multiple of the other.
- Lists without brackets and sets have no order, tuples and intervals have one. "1, 2" is also the tuple (1, 2) and the
  set {1, 2}, which are not each other; "x = 1, y = 2" is the tuple if its names are in alphabetical order.
- Units that both have are the same, or the answers differ (units.py).
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from hubkit.verifiers.forms import (
    Approximate,
    Based,
    Chain,
    Clock,
    Form,
    Matrix,
    Modular,
    Named,
    Number,
    Ratio,
    Relation,
    Several,
    Union,
    Words,
)
from hubkit.verifiers.parse import split_top
from hubkit.verifiers.units import split_letter, units_differ

__all__ = ["Expressions", "equal"]

MOST: Final = 64
"""Elements of a list that are compared in every order."""


class Expressions(Protocol):
    """Compares spelled expressions. Each method returns None if it cannot decide."""

    def same(self, one: str, other: str) -> bool | None: ...

    def multiples(self, one: tuple[str, str], other: tuple[str, str], positive: bool) -> bool | None:
        """Whether left - right of one is a constant other than 0 times that of the other."""
        ...


def equal(a: Form, b: Form, by: Expressions) -> bool | None:
    """Whether two answers are the same. Returns None if an expression in them cannot be compared."""
    if isinstance(a, Approximate) or isinstance(b, Approximate):
        return _approximate(a, b, by)
    if isinstance(a, Chain) or isinstance(b, Chain):
        return _chain(a, b, by)
    if isinstance(a, Number) and isinstance(b, Number):
        if units_differ(a.unit, b.unit) or _other_factors(a.text, b.text):
            return False
        return by.same(*_alike_in_print(a, b))
    if isinstance(a, Named | Relation) or isinstance(b, Named | Relation):
        return _named(a, b, by)
    if isinstance(a, Several) or isinstance(b, Several):
        return _several(a, b, by)
    if isinstance(a, Union) and isinstance(b, Union):
        return _matched(a.parts, b.parts, by)
    if isinstance(a, Modular) and isinstance(b, Modular):
        return _modular(a, b, by)
    if isinstance(a, Ratio | Clock) and isinstance(b, Ratio | Clock) and type(a) is not type(b):
        a, b = _as_ratio(a), _as_ratio(b)  # 1:12 may be read as a time, and 1 : 12 and 1:5 are none
    if isinstance(a, Ratio) and isinstance(b, Ratio):
        return _ratio(a, b, by)
    if isinstance(a, Matrix) and isinstance(b, Matrix):
        same_shape = a.kind == b.kind and [len(row) for row in a.rows] == [len(row) for row in b.rows]
        cells = [cell for row in a.rows for cell in row], [cell for row in b.rows for cell in row]
        return _in_order(*cells, by) if same_shape else False
    if type(a) is type(b) and isinstance(a, Words | Clock | Based):
        return a == b
    if isinstance(a, Number) or isinstance(b, Number):
        # A word against an expression that cannot be read is no comparison.
        number = a if isinstance(a, Number) else b
        other = b if isinstance(a, Number) else a
        assert isinstance(number, Number)
        if isinstance(other, Words) and number.text.lower() == other.text:
            return True  # \\text{Yes} and Yes
        return False if by.same(number.text, number.text) else None
    return False


def _alike_in_print(a: Number, b: Number) -> tuple[str, str]:
    """The two expressions; of "5 m" without its letter where the other is 5 \\text{ m}."""
    if a.unit and not b.unit:
        number, unit = split_letter(b.text)
        return a.text, number if unit == a.unit else b.text
    if b.unit and not a.unit:
        return _alike_in_print(b, a)
    return a.text, b.text


_PRODUCT: Final = re.compile(r"\d+(?:\\cdot\d+)+")


def _other_factors(one: str, other: str) -> bool:
    """3 \\times 4 and 2 \\times 6 may be sizes, or factors that were asked for."""
    if not (_PRODUCT.fullmatch(one) and _PRODUCT.fullmatch(other)):
        return False
    return sorted(one.split("\\cdot")) != sorted(other.split("\\cdot"))


def _all(results: list[bool | None]) -> bool | None:
    if any(result is False for result in results):
        return False
    return None if any(result is None for result in results) else True


def _any(results: list[bool | None]) -> bool | None:
    if any(results):
        return True
    return None if any(result is None for result in results) else False


def _approximate(a: Form, b: Form, by: Expressions) -> bool | None:
    """1/3 ≈ 0.33 is 1/3; it is also 0.33, as the answer to a question for a rounded number."""
    if isinstance(a, Approximate) and isinstance(b, Approximate):
        return equal(a.exact, b.exact, by)
    if isinstance(b, Approximate):
        return _approximate(b, a, by)
    assert isinstance(a, Approximate)
    if isinstance(b, Named):
        b = b.form
    return _any(
        [equal(a.exact, b, by), *(equal(value, b, by) for value in a.rounded if _near(a.exact, value))]
    )


def _near(exact: Form, rounded: Form) -> bool:
    """Whether a value may be the rounding of another: within one percent, as far as that can be told."""
    from hubkit.verifiers.plain import value

    values = [value(form.text) for form in (exact, rounded) if isinstance(form, Number)]
    if len(values) < 2 or values[0] is None or values[1] is None:
        return False
    one, other = float(values[0].number), float(values[1].number)
    return abs(one - other) <= 0.01 * max(abs(one), abs(other))


def _chain(a: Form, b: Form, by: Expressions) -> bool | None:
    """2 + 3 = 5 is the answer 5; 2 + 3 = 6 is no answer."""
    holds = [
        equal(part, form.parts[-1], by)
        for form in (a, b)
        if isinstance(form, Chain)
        for part in form.parts[:-1]
    ]
    ends = [form.parts[-1] if isinstance(form, Chain) else form for form in (a, b)]
    return _all([*holds, equal(ends[0], ends[1], by)])


def _named(a: Form, b: Form, by: Expressions) -> bool | None:
    if isinstance(a, Named) and isinstance(b, Named):
        if a.name == b.name:
            return equal(a.form, b.form, by)
        if (one := _by_name(a)) and (other := _by_name(b)):
            return _assignments(one, other, by)
    if isinstance(a, Named) and not isinstance(b, Named | Relation):
        if isinstance(b, Several) and (other := _by_name(b)) and (one := _by_name(a)):
            return _assignments(one, other, by)
        return equal(a.form, b, by)
    if isinstance(b, Named) and not isinstance(a, Named | Relation):
        return _named(b, a, by)
    one_side, other_side = _relation(a), _relation(b)
    if one_side is None or other_side is None:
        return False
    if one_side.sign != other_side.sign:
        return False
    sides = (one_side.left, one_side.right), (other_side.left, other_side.right)
    return by.multiples(*sides, positive=one_side.sign in ("<", "\\le"))


def _relation(form: Form) -> Relation | None:
    if isinstance(form, Relation):
        return form
    if not isinstance(form, Named):
        return None
    if isinstance(form.form, Number):
        return Relation("=", form.name, form.form.text)
    if isinstance(form.form, Several) and form.form.kind[0] in "([" and len(form.form.items) == 2:
        # x < 3 is read as an interval without a lower end.
        low, high = form.form.items
        if isinstance(low, Number) and isinstance(high, Number):
            if low.text == "-\\infty" and high.text != "\\infty":
                return Relation("\\le" if form.form.kind[1] == "]" else "<", form.name, high.text)
            if high.text == "\\infty" and low.text != "-\\infty":
                return Relation("\\le" if form.form.kind[0] == "[" else "<", low.text, form.name)
    return None


def _by_name(form: Form) -> dict[str, Form]:
    """Returns {"a": 2, "b": 7} for "(a, b) = (2, 7)" and for "a = 2, b = 7"; empty for any other answer."""
    if isinstance(form, Named) and form.name.startswith("(") and isinstance(form.form, Several):
        names = [part for part in split_top(form.name[1:-1]) if part != ","]
        values = form.form.items
        return dict(zip(names, values, strict=True)) if len(names) == len(values) else {}
    if isinstance(form, Several) and form.kind == "list":
        named = [item for item in form.items if isinstance(item, Named)]
        names = [item.name for item in named]
        if len(named) == len(form.items) and len(set(names)) == len(names):
            return {item.name: item.form for item in named}
    return {}


def _assignments(one: dict[str, Form], other: dict[str, Form], by: Expressions) -> bool | None:
    if one.keys() != other.keys():
        return False
    return _all([equal(value, other[name], by) for name, value in one.items()])


def _several(a: Form, b: Form, by: Expressions) -> bool | None:
    if not isinstance(a, Several) or not isinstance(b, Several):
        several, single = (a, b) if isinstance(a, Several) else (b, a)
        assert isinstance(several, Several)
        if several.kind == "{}" and len(several.items) == 1:
            return equal(several.items[0], single, by)
        return False
    one, other = _by_name(a), _by_name(b)
    if one and other:
        return _assignments(one, other, by)
    if one or other:
        named, bare = (one, b) if one else (other, a)
        if bare.kind not in ("list", "()") or list(named) != sorted(named, key=str.lower):
            return False
        return _in_order(list(named.values()), list(bare.items), by)
    kinds = {a.kind, b.kind}
    if kinds == {"{}"}:
        return _matched(_distinct(a.items, by), _distinct(b.items, by), by)
    if kinds == {"list"} or kinds == {"list", "{}"}:
        return _matched(a.items, b.items, by)
    if len(kinds) == 1 or kinds == {"list", "()"} or (kinds == {"list", "[]"} and len(a.items) != 2):
        return _in_order(list(a.items), list(b.items), by)
    return False


def _distinct(items: tuple[Form, ...], by: Expressions) -> tuple[Form, ...]:
    kept: list[Form] = []
    for item in items[:MOST]:
        if not any(equal(item, other, by) for other in kept):
            kept.append(item)
    return (*kept, *items[MOST:])


def _in_order(one: list[Form], other: list[Form], by: Expressions) -> bool | None:
    if len(one) != len(other):
        return False
    return _all([equal(x, y, by) for x, y in zip(one, other, strict=True)])


def _matched(one: tuple[Form, ...], other: tuple[Form, ...], by: Expressions) -> bool | None:
    """In any order. Equal expressions are equal to the same ones, so the first match is as good as any."""
    if len(one) != len(other):
        return False
    if len(one) > MOST:
        return _in_order(list(one), list(other), by)
    left, unknown = list(other), False
    for item in one:
        results = [equal(item, candidate, by) for candidate in left]
        if True in results:
            del left[results.index(True)]
        elif None in results:
            unknown = True
        else:
            return False
    return None if unknown else True


def _modular(a: Modular, b: Modular, by: Expressions) -> bool | None:
    if a.modulus != b.modulus:
        return False
    residues = [form.residue.text for form in (a, b) if isinstance(form.residue, Number)]
    if len(residues) == 2 and all(text.lstrip("-").isdecimal() for text in residues):
        return (int(residues[0]) - int(residues[1])) % int(a.modulus) == 0 if int(a.modulus) else False
    return equal(a.residue, b.residue, by)


def _as_ratio(form: Ratio | Clock) -> Ratio | Clock:
    """A time as the ratio that is written like it; 8:05 is none."""
    if isinstance(form, Ratio):
        return form
    hours, minutes, seconds = form.seconds // 3600, form.seconds // 60 % 60, form.seconds % 60
    if minutes < 10 or 0 < seconds < 10:
        return form
    return Ratio(tuple(Number(str(part)) for part in (hours, minutes, *([seconds] if seconds else []))))


def _ratio(a: Ratio, b: Ratio, by: Expressions) -> bool | None:
    """2 : 3 is 4 : 6."""
    from hubkit.verifiers.plain import value

    if len(a.parts) != len(b.parts):
        return False
    sides = [
        [value(part.text) if isinstance(part, Number) else None for part in form.parts] for form in (a, b)
    ]
    numbers = [[v.number for v in side if v is not None and v.exact and v.number > 0] for side in sides]
    if all(len(side) == len(a.parts) for side in numbers):
        return all(x * numbers[1][0] == y * numbers[0][0] for x, y in zip(*numbers, strict=True))
    return _in_order(list(a.parts), list(b.parts), by)
