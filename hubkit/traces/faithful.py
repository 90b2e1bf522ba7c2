"""Whether a shortened trace makes things up: its numbers have to stand in the trace, the problem or the answer, and its
equations of plain numbers have to hold or stand there, too.

    invented("47 + 38 = 86, then 86 - 12 = 73", "… 47 + 38 = 85 … 85 - 12 = 73")  ->  ["86"]
    false_equations("17 - 13 = 17", "She has 17, gives 13 away: 17 - 13 = 4")     ->  ["17 - 13 = 17"]

A rewritten trace can reach the right answer over steps that are wrong, or of another problem; students would learn
those. Numbers are compared by value: 1,000 is 1000, 2.50 is 2.5, 25 % is 0.25. A number spelt in words (twelve, half,
squared) is one too where it is in the source; these words are English, and a number that another language spells and a
rewrite writes in digits is taken for made up. Numbers of a list ("1.", "Step 2:") count nothing.

Only equations that are read whole are judged: numbers, + - * / and =, with nothing beside them that may belong to
them, such as a variable, a bracket, an exponent, a base or a percent sign. Rounded results hold, and so does a quotient
without its remainder. `2 + 3 = 5 + 1 = 6` is read as people write it, one step after the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Final

__all__ = ["false_equations", "invented"]

_SMALL: Final = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen"""
_TENS: Final = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORDS: Final = {
    **{word: Fraction(value) for value, word in enumerate(_SMALL.split())},
    **{word: Fraction(10 * value) for value, word in enumerate(_TENS.split(), 2)},
    "hundred": Fraction(100), "thousand": Fraction(1000), "million": Fraction(10**6), "dozen": Fraction(12),
    "half": Fraction(2), "halves": Fraction(2), "halved": Fraction(2), "twice": Fraction(2), "double": Fraction(2),
    "doubled": Fraction(2), "pair": Fraction(2), "both": Fraction(2), "thrice": Fraction(3), "triple": Fraction(3),
    "tripled": Fraction(3), "third": Fraction(3), "thirds": Fraction(3), "quarter": Fraction(4),
    "quarters": Fraction(4), "fourth": Fraction(4), "fourths": Fraction(4), "fifth": Fraction(5), "fifths": Fraction(5),
    "square": Fraction(2), "squared": Fraction(2), "cube": Fraction(3), "cubed": Fraction(3), "once": Fraction(1),
    "a": Fraction(1), "an": Fraction(1), "each": Fraction(1), "percent": Fraction(100), "%": Fraction(100),
    "week": Fraction(7), "weeks": Fraction(7), "weekly": Fraction(7), "year": Fraction(12), "years": Fraction(12),
    "hour": Fraction(60), "hours": Fraction(60), "minute": Fraction(60), "minutes": Fraction(60), "day": Fraction(24),
    "days": Fraction(24),
}  # fmt: skip
"""Word -> the number that whoever writes it in digits writes. A fraction's is its denominator: half is 1/2."""
_GROUPED: Final = re.compile(r"(?<=\d)(?:,|\{,\}|\\[,!;: ]|[\u00a0\u2009\u202f])+(?=\d{3}(?!\d))")
"""What stands between groups of three digits."""
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?|\.\d+")
_WORD: Final = re.compile(r"[A-Za-z]+|%")
_PERCENT: Final = re.compile(r"%|\bper ?cent", re.IGNORECASE)
_LISTED: Final = re.compile(
    r"^[ \t>*#-]*(?:\*\*)?(?:(?:step|case|part)\s+\d+|\(?\d{1,2}[.):](?=\s))", re.IGNORECASE | re.MULTILINE
)
_SIGNS: Final = (
    (re.compile(r"\\times\b|\\cdot\b|[×·∗⋅]"), "*"),
    (re.compile(r"\\div\b|÷"), "/"),
    (re.compile("[−–]"), "-"),
    (re.compile(r"\\?\$|\\[()\[\]]"), " "),
)
"""Spellings of operators, and the marks of mathematics and of dollars."""
_PLAIN: Final = r"\d{1,18}(?!\d)(?:\.\d{1,18}(?!\d))?"
_MORE: Final = rf"(?:[ \t]{{0,3}}[-+*/][ \t]{{0,3}}{_PLAIN})"
_EQUATION: Final = re.compile(
    rf"(?<![\w.:,])({_PLAIN}{_MORE}{{1,12}})(?=((?:[ \t]{{0,3}}=[ \t]{{0,3}}{_PLAIN}{_MORE}{{0,12}}){{1,8}}))"
)
"""Sides and chains have an end, so that a hostile text takes no longer than its length."""
_BELONGS_BEFORE: Final = re.compile(r"[-+*/^%\\_{})\]][ \t]*\Z|\d[ \t]*\([ \t]*\Z")
_BELONGS_AFTER: Final = re.compile(
    r"[\w^%\\_{(]|[.:,]\d|[ \t]*[-+*/^%\\({=]|[ \t]*(?:r|rem|remainder|mod|percent|thousand|million|billion|dozen)\b",
    re.IGNORECASE,
)


def false_equations(short: str, *sources: str) -> list[str]:
    """Equations of plain numbers in a shortened trace that do not hold and that no source has, each once."""
    false = dict.fromkeys(equation for equation, holds in _equations(_plain(short)) if not holds)
    if not false:  # as most are: the sources, which are ten times as long, need not be read
        return []
    stated = {equation for source in sources for equation, _ in _equations(_plain(source))}
    return [equation for equation in false if equation not in stated]


def _plain(text: str) -> str:
    text = _GROUPED.sub("", text)
    for pattern, sign in _SIGNS:
        text = pattern.sub(sign, text)
    return text


def _equations(text: str) -> Iterator[tuple[str, bool]]:
    """Each equation that is read whole, and whether it holds; of a chain, each step."""
    for match in _EQUATION.finditer(text):
        if _BELONGS_BEFORE.search(text[max(0, match.start() - 8) : match.start()]):
            continue
        if _BELONGS_AFTER.match(text, match.end(2)):
            continue
        sides = [" ".join(re.findall(rf"{_PLAIN}|[-+*/]", side)) for side in (match[1] + match[2]).split("=")]
        for left, right in pairwise(sides):
            value, first = _value(left), Fraction(right.split()[0])
            whole = _value(right)
            if value is None or whole is None:
                continue
            decimals = max(len(number.partition(".")[2]) for number in right.split())
            near = Fraction(1, 10**decimals)
            slack = near if "/" in left + right else near / 2 if decimals else Fraction(0)
            yield f"{left} = {right}", min(abs(value - whole), abs(value - first)) <= slack


def _value(side: str) -> Fraction | None:
    """The value of numbers with + - * / between them; None if it divides by zero."""
    total = Fraction(0)
    for sign, term in re.findall(r"([-+]?)([^-+]+)", side):
        value = Fraction(1)
        for operator, digits in re.findall(rf"([*/]?)\s*({_PLAIN})", term):
            number = Fraction(digits)
            if operator == "/" and not number:
                return None
            value = value / number if operator == "/" else value * number
        total += -value if sign == "-" else value
    return total


def invented(short: str, *sources: str) -> list[str]:
    """Numbers of a shortened trace that none of its sources has, as they are written, each once."""
    written = dict.fromkeys(_digits(_LISTED.sub(" ", short)))
    spelt = {digits for source in sources for digits in _digits(source)}
    if written.keys() <= spelt:  # digit by digit, so that most traces need no arithmetic
        return []
    known = {Fraction(digits) for digits in spelt}
    for source in sources:
        known |= {_WORDS[word.lower()] for word in _WORD.findall(source) if word.lower() in _WORDS}
    if _PERCENT.search("".join((short, *sources))):
        known |= {value / 100 for value in known} | {value * 100 for value in known}
    return [digits for digits in written if Fraction(digits) not in known]


def _digits(text: str) -> list[str]:
    """Numbers as they are written, but for what stands between groups of three digits."""
    return _NUMBER.findall(_GROUPED.sub("", text))
