"""The numeric verifier: a number within a tolerance of the answer, relative to it, absolute where it is 0.

The first number of a box counts, or the last of a text without one; so units after it, a currency before it and
"x =" do not matter, and "5 km" equals "5 m": use math where units decide. A percent sign is dropped on both
sides: "50%" equals "50", not "0.5". 1,234.5, 1.2e-3, 1.2 \\times 10^{-3}, 3/4 and \\frac{3}{4} are read; "1,5" is 1.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final

from hubkit.verifiers.base import RowSettings, Task, Verdict, Verifier, verdict
from hubkit.verifiers.boxes import boxed, key_of

__all__ = ["Numeric"]


class Numeric(Verifier):
    name = "numeric"

    def metadata(self, source: RowSettings, row: Mapping[str, Any], where: str) -> str:
        return json.dumps({"tolerance": source.tolerance})

    def verify_inline(self, problem: Mapping[str, Any], text: str) -> Verdict | Task:
        box, answer = boxed(text), key_of(problem["answer"])
        if box is not None and box.strip() == answer:
            return verdict("correct", answer, "equal to the answer")
        return _numeric(answer, text if box is None else box, box is not None, problem["metadata"])


_NUMBER: Final = re.compile(
    r"(?P<sign>[-+−]?)\s*(?:\\[dt]?frac\{\s*(?P<top>\d+(?:\.\d+)?)\s*\}\{\s*(?P<below>\d+(?:\.\d+)?)\s*\}"
    r"|(?P<whole>\d{1,3}(?:(?:,|\{,\})\d{3})+(?:\.\d+)?|\d+\.?\d*|\.\d+)(?:\s*/\s*(?P<under>\d+(?:\.\d+)?))?)"
    r"(?:[eE](?P<e>[-+]?\d{1,4})|\s*(?:\\times|\\cdot|×|\*)\s*10\^\{?(?P<ten>[-+]?\d{1,4})\}?)?"
)


def _numeric(answer: str, answered: str, in_box: bool, metadata: str) -> Verdict:
    tolerance = float(json.loads(metadata or "{}").get("tolerance", 1e-6))
    key = _read_number(_NUMBER.search(answer))
    if key is None:
        return verdict("unparseable", "", f"the answer key {answer[:40]!r} is no number")
    matches = list(_NUMBER.finditer(answered))
    match = matches[0 if in_box else -1] if matches else None
    value = _read_number(match)
    if match is None or value is None:
        return verdict("unparseable", "", "no number found")
    near = math.isclose(value, key, rel_tol=0.0, abs_tol=tolerance * (abs(key) or 1.0))
    return verdict(
        "correct" if near else "wrong", match[0], f"{value:g} against {key:g}, tolerance {tolerance:g}"
    )


def _read_number(match: re.Match[str] | None) -> float | None:
    """The value of a match of _NUMBER; None where it is too large, or divides by zero."""
    if match is None:
        return None
    try:
        top = float((match["top"] or match["whole"]).replace("{,}", "").replace(",", ""))
        value = top / float(match["below"] or match["under"] or 1)
        value *= 10.0 ** int(match["e"] or match["ten"] or 0)
    except (OverflowError, ZeroDivisionError):
        return None
    return None if math.isinf(value) else -value if match["sign"] in ("-", "−") else value
