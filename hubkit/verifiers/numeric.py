r"""The numeric verifier: a number within a tolerance of the key, relative to it, absolute where it is 0.

    "9.81" and "\\boxed{9.8 \\text{ m/s}^2}", tolerance 0.01 -> correct      "10^{-3}" and "\\boxed{10}" -> wrong

The whole answer is read, as `math` reads it: fractions, powers, roots, separators, units, currency, "x =", GSM8K's
"… #### 144". What is no single number ("1,5", "2 or 3", "8:00") is unparseable, never a guess.

- A percent sign is dropped on both sides: "50%" equals "50", and not "0.5".
- Units that both have are the same, or the answer is wrong: nothing is converted.
- Digits in another base (211_3) are the number that they stand for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Final, NamedTuple

from hubkit.errors import InputError
from hubkit.verifiers import plain
from hubkit.verifiers.base import RowSettings, Task, Verdict, Verifier, verdict
from hubkit.verifiers.extract import answer_in, key_of
from hubkit.verifiers.forms import Approximate, Based, Chain, Form, Named, Number, Relation
from hubkit.verifiers.parse import read
from hubkit.verifiers.spelling import spell, ungrouped_indian
from hubkit.verifiers.units import split_letter, units_differ

__all__ = ["Numeric"]

TOLERANCE: Final = 1e-6
_PERCENT: Final = re.compile(r"\s*(?:\\?%|\\text\{\s*percent\s*\}|percent)(?=[\s$.)\]}\\]*\Z)")


class Numeric(Verifier):
    name = "numeric"

    def metadata(self, source: RowSettings, row: Mapping[str, Any], where: str) -> str:
        return json.dumps({"tolerance": source.tolerance})

    def checked(self, metadata: Mapping[str, Any], where: str) -> str:
        tolerance = metadata.get("tolerance", TOLERANCE)
        if (
            isinstance(tolerance, bool)
            or not isinstance(tolerance, int | float)
            or not 0 <= tolerance < float("inf")
        ):
            raise InputError(f"{where}: the tolerance {tolerance!r} is no number from 0 on", "such as 0.01")
        return json.dumps({"tolerance": tolerance})

    def verify_inline(self, problem: Mapping[str, Any], text: str) -> Verdict | Task:
        found = answer_in(text)
        if found is None:
            return verdict("unparseable", "", "no single number found")
        answer, metadata = key_of(problem["answer"]), problem["metadata"]
        judged = _verify(answer, found.text, metadata, in_worker=False)
        return Task(self.name, answer, found.text, metadata=metadata) if judged is None else judged

    def verify_in_worker(self, task: Task) -> Verdict:
        judged = _verify(task.answer, task.text, task.metadata, in_worker=True)
        return judged or verdict("unparseable", task.text, "not a number that can be read whole")


class _Quantity(NamedTuple):
    text: str
    unit: str
    number: Fraction | None
    """Returns None if sympy has to read it."""


def _verify(answer: str, text: str, metadata: str, in_worker: bool) -> Verdict | None:
    """Returns None if sympy has to look at it, which only a worker may do."""
    tolerance = float(json.loads(metadata or "{}").get("tolerance", TOLERANCE))
    key, value = _read(answer), _read(text)
    if key is None:
        return verdict("unparseable", "", f"the answer key {answer[:40]!r} is no number")
    if value is None:
        return verdict("unparseable", text, "not a single number")
    if key.number is None or value.number is None:
        if not in_worker:
            return None
        key, value = _by_sympy(key), _by_sympy(value)
    if key.number is None:
        return verdict("unparseable", "", f"the answer key {answer[:40]!r} is no number")
    if value.number is None:
        return verdict("unparseable", text, "not a number that can be read whole")
    if units_differ(key.unit, value.unit):
        return verdict("wrong", text, f"{value.unit.lstrip('?~')} against {key.unit.lstrip('?~')}")
    near = abs(value.number - key.number) <= Fraction(tolerance) * (abs(key.number) or 1)
    return verdict(
        "correct" if near else "wrong",
        text,
        f"{value.text[:40]} against {key.text[:40]}, tolerance {tolerance:g}",
    )


def _read(text: str) -> _Quantity | None:
    """Returns the number in an answer. Returns None if it is not a single number."""
    try:
        text = _PERCENT.sub("", text[:1000])
        return _quantity(read(spell(ungrouped_indian(text) or text)))
    except RecursionError:
        return None


def _quantity(form: Form) -> _Quantity | None:
    if isinstance(form, Named):
        return _quantity(form.form)
    if isinstance(form, Relation) and form.sign == "=":
        return None
    if isinstance(form, Approximate):
        return _quantity(form.rounded[-1])
    if isinstance(form, Chain):
        parts = [_quantity(part) for part in form.parts]
        numbers = [part.number for part in parts if part is not None and part.number is not None]
        agree = all(abs(number - numbers[-1]) <= abs(numbers[-1]) / 100 for number in numbers)
        return parts[-1] if len(numbers) == len(parts) and agree else None
    if isinstance(form, Based):
        return _Quantity(f"{form.digits}_{form.base}", "", Fraction(int(form.digits, form.base)))
    if not isinstance(form, Number) or not form.text:
        return None
    # No variable can be meant, so that "5 m" is five metres.
    text, unit = (form.text, form.unit) if form.unit else split_letter(form.text)
    value = plain.value(text)
    if value is None:
        return _Quantity(text, unit, None)
    return None if value.letters else _Quantity(text, unit, Fraction(value.number))


def _by_sympy(quantity: _Quantity) -> _Quantity:
    if quantity.number is not None:
        return quantity
    from hubkit.verifiers.symbolic import Late, number

    try:
        return quantity._replace(number=number(quantity.text))
    except Late:
        return quantity
