r"""A rule that shortens a trace of arithmetic: its equations, one a line, its last sentence, and a box.

    "… \[ \text{left} = 412 - 90 = 412 - 90 = 322 \] Thus, Paul lost 322 more crayons than he gave away."
    -> "412 - 90 = 322\nThus, Paul lost 322 more crayons than he gave away.\n\boxed{322}"

Nothing is computed and no word is added, so every number stands in the trace: what is wrong there stays wrong. What the
rule makes is what compressor.py teaches a model to write.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import Final

__all__ = ["equations", "last_sentence", "plain", "shorten"]

_MARKUP: Final = (
    (r"\\(?:text|textbf|mathrm|mathbf|boxed)\{([^{}]*)\}", r" \1 "),
    (r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}", r"\1 / \2"),
    (r"\\times|\\cdot|×", "*"),
    (r"\\div|÷", "/"),
    (r"\{,\}|(?<=\d),(?=\d{3}(?!\d))", ""),
    (r"\\([$%#&_])", r"\1"),
    (r"\\left|\\right|\\quad|\\[,;!:]|\*\*|&", " "),
    (r"\\[\[\]()]|\\\\", "\n"),
    (r"\\?\$\s+(?=\d)", "$"),
    (r"\s*\n\s*(?==)", " "),
)
"""Markup -> plain text, in this order. What opens, closes or breaks a formula ends a line; a line that begins with an
equals sign goes on with the one before it."""
_UNITS: Final = re.compile(r"(?<=[\d)])[ ]+[a-z]{2,}(?:[ /]+[a-z]+){0,3}[ ]*(?=[-+*/=)]|$)", re.MULTILINE)
"""Words between a number and the operator, or end of line, after it."""
_BULLET: Final = re.compile(r"^\s*(?:[-*•]|\d+[.):])\s+", re.MULTILINE)
_TOKEN: Final = re.compile(r"\d+(?:\.\d+)?|\.\d+|[A-Za-z]+|\S")
_NUMBER: Final = re.compile(r"-?\d+(?:\.\d+)?")
_SIDE: Final = re.compile(r"[^+*/].*[\w)%]|\w", re.DOTALL)
"""What is no formula that was cut in its middle."""


def plain(trace: str) -> str:
    """A trace without LaTeX, Markdown's bold, and commas of thousands."""
    for pattern, text in _MARKUP:
        trace = re.sub(pattern, text, trace)
    return trace


def equations(trace: str) -> list[str]:
    """The equations of a trace in its order, each once: runs of numbers, single letters, operators and equals signs.

    Of `cost = 3 * 4 = 12 dollars` that is `3 * 4 = 12`.
    """
    found: dict[str, None] = {}
    for line in _UNITS.sub(" ", _BULLET.sub("", plain(trace))).splitlines():
        for mathematical, run in groupby(_TOKEN.findall(line), _is_mathematical):
            tokens = list(run)
            if mathematical and "=" in tokens and (equation := _written(tokens)):
                found[equation] = None
    return [one for one in found if not any(one != other and f" {one} " in f" {other} " for other in found)]


def last_sentence(trace: str) -> str:
    """What a trace ends with, if it is prose with a number in it; else ""."""
    lines = [text for line in plain(trace).splitlines() if (text := line.strip(" -*#.:"))]
    if not lines:
        return ""
    sentence = " ".join(re.split(r"(?<=[.!?])\s+(?=[A-Z])", lines[-1])[-1].split())
    return (
        f"{sentence}." if _NUMBER.search(sentence) and "=" not in sentence and sentence.count(" ") > 2 else ""
    )


def shorten(trace: str) -> str:
    """A trace's equations and last sentence, and its result in a box; "" if it has no equation with a result.

    The result is that of the last equation where the sentence has it too, else the sentence's last number.
    """
    lines = equations(trace)
    results = _NUMBER.findall(lines[-1].rpartition("=")[2]) if lines else []
    if not results:
        return ""
    result, sentence = results[-1], last_sentence(trace)
    said = _NUMBER.findall(sentence)
    if said and result not in said:
        result = said[-1]
    return "\n".join([*lines, *([sentence] if sentence else []), f"\\boxed{{{result}}}"])


def _is_mathematical(part: str) -> bool:
    if part.isalpha():
        return len(part) == 1 and part not in "aAI"  # words of one letter
    return part[-1].isdigit() or part in "-+*/()%$="


def _written(tokens: list[str]) -> str:
    """An equation as text, of sides that differ; "" if it says nothing: one side, no number, or nothing but numbers."""
    sides: dict[str, None] = {}
    for equals, run in groupby(tokens, "=".__eq__):
        side = " ".join(run)
        for before, after in (("( ", "("), (" )", ")"), ("$ ", "$"), (" %", "%")):
            side = side.replace(before, after)
        side = re.sub(r"(^|[-+*/(=]\s*)- (?=\d)", r"\1-", side)
        if not equals and _SIDE.fullmatch(side) and side.count("(") == side.count(")"):
            sides[side] = None
    text = " = ".join(sides)
    return text if len(sides) > 1 and re.search(r"\d", text) and re.search(r"[+*/A-Za-z]|\d - ", text) else ""
