"""Whether a shortened trace is faithful: its numbers must occur in the trace, the problem or the answer, and its
equations of plain numbers must hold or occur there, too.

    invented("47 + 38 = 86, then 86 - 12 = 73", "… 47 + 38 = 85 … 85 - 12 = 73")  ->  ["86"]
    false_equations("17 - 13 = 17", "She has 17, gives 13 away: 17 - 13 = 4")     ->  ["17 - 13 = 17"]

A rewritten trace can reach the right answer through steps that are wrong, or of another problem; students would learn
those. Numbers are compared by value: 1,000 is 1000, 2.50 is 2.5, 25 % is 0.25. English words for numbers in the source
(twelve, half, squared) count as numbers; if the source spells a number in another language and the rewrite has it in
digits, it counts as invented. Numbers of list items ("1.", "Step 2:") are ignored.

Only equations that are read whole are judged: numbers, + - * / ( ) and =, without neighbours that may belong to
them, such as a variable, an exponent, a base or a percent sign. Rounded results are accepted, and so is a quotient
without its remainder. `2 + 3 = 5 + 1 = 6` is read as people write it, one step after the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Final

from hubkit.verifiers.words import SMALL, TENS

__all__ = ["false_equations", "invented"]

_WORDS: Final = {
    **{word: Fraction(value) for word, value in (SMALL | TENS).items()},
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
"""Word -> the number that it is in digits. For a fraction that is its denominator: half is 1/2."""
_GROUPED: Final = re.compile(r"(?<=\d)(?:,|\{,\}|\\[,!;: ]|[\u00a0\u2009\u202f])+(?=\d{3}(?!\d))")
"""Separators between groups of three digits."""
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
"""The length of sides and chains is bounded, so that a hostile text takes only linear time."""
_BRACKETED: Final = re.compile(r"[\d.(+*/-][\d.()+*/ \t-]{0,119}(?:=[\d.()+*/ \t-]{1,120}){1,8}")
"""A chain of sides that may have brackets; bounded likewise."""
_TOKEN: Final = re.compile(rf"[ \t]*({_PLAIN}|[-+*/()])")
_NO_BRACKETS: Final = str.maketrans("", "", "()")
MOST_BRACKETS: Final = 8
"""Of one side; others are not judged."""
_BELONGS_BEFORE: Final = re.compile(r"[-+*/^%\\_{})\]][ \t]*\Z|\d[ \t]*\([ \t]*\Z")
_BELONGS_AFTER: Final = re.compile(
    r"[\w^%\\_{(]|[.:,]\d|[ \t]*[-+*/^%\\({=]|[ \t]*(?:r|rem|remainder|mod|percent|thousand|million|billion|dozen)\b",
    re.IGNORECASE,
)


def false_equations(short: str, *sources: str) -> list[str]:
    """Returns the equations of plain numbers in a shortened trace that are false and in no source, each once."""
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
    """Yield each equation that is read whole, and whether it holds; for a chain, each step."""
    for match in _EQUATION.finditer(text):
        if _BELONGS_BEFORE.search(text[max(0, match.start() - 8) : match.start()]):
            continue
        if _BELONGS_AFTER.match(text, match.end(2)):
            continue
        yield from _steps((match[1] + match[2]).split("="))
    if "(" in text:
        yield from _bracketed(text)


def _bracketed(text: str) -> Iterator[tuple[str, bool]]:
    """The same of chains with brackets. Of these a first or last side that is not whole is left out alone."""
    for match in _BRACKETED.finditer(text):
        if "(" not in match[0]:
            continue
        start, end = match.start(), match.start() + len(match[0].rstrip(" \t."))
        before, sides = text[max(0, start - 8) : start], match[0].split("=")
        if re.search(r"(?:\A|\n)[ \t]*\Z", before):
            sides[0] = re.sub(r"\A[-+*][ \t]+", "", sides[0])  # the mark of a list
        beside = r"[^\s;=>]\Z|[\w.:,][ \t]*\Z" if sides[0][:1] in "+-*/(" else r"[^\s;=>]\Z"  # f(2), x - 3
        # A number alone may be what is left of a name, or of what stands on the line before.
        label = not set("+-*/") & set(sides[0])
        if label or _BELONGS_BEFORE.search(before) or re.search(beside, before):
            sides[0] = ""
        after = text[end : end + 12]
        more = after.startswith("..") or re.match(r"[ \t]*[^\x00-\x7f]", after)
        sides[-1] = "" if more or _BELONGS_AFTER.match(after) else sides[-1].rstrip(" \t.")
        yield from _steps(sides)


def _steps(sides: list[str]) -> Iterator[tuple[str, bool]]:
    """Yield each two neighbours of a chain that have values and at least one operator, and whether they are equal."""
    read = [(" ".join(_TOKEN.findall(side)), _value(side)) for side in sides]
    for (left, value), (right, whole) in pairwise(read):
        if value is None or whole is None or not set("+-*/") & set(left + right):
            continue
        shorter = right.translate(_NO_BRACKETS).split()
        if (
            len(shorter) > 1
            and f" {' '.join(shorter)} " in f" {' '.join(left.translate(_NO_BRACKETS).split())} "
        ):
            continue  # `2 * 3 * 4 = 2 * 3 = 6`: a part of it is taken first
        numbers = [token for token in shorter if token[0].isdigit()]
        # `2 + 3 = 5 + 1` is read as far as 5.
        first = whole if "(" in right or right[0] == "-" else Fraction(numbers[0])
        decimals = max(len(number.partition(".")[2]) for number in numbers)
        near = Fraction(1, 10**decimals)
        slack = near if "/" in left + right else near / 2 if decimals else Fraction(0)
        yield f"{left} = {right}", min(abs(value - whole), abs(value - first)) <= slack


def _value(side: str) -> Fraction | None:
    """Returns the value of numbers with + - * / ( ) between them. Returns None for anything else and for x / 0."""
    side = side.strip(" \t")
    tokens = _TOKEN.findall(side)
    if "".join(tokens) != re.sub(r"[ \t]", "", side) or tokens.count("(") > MOST_BRACKETS:
        return None
    # A product without its sign, 3(4 + 1), is one only where nothing stands between: "3 (4 + 1)" may be two things.
    tokens = _TOKEN.findall(re.sub(r"(?<=[\d)])\(", "*(", side))
    try:
        value, rest = _sum(tokens)
    except (ArithmeticError, ValueError, IndexError):
        return None
    return None if rest else value


def _sum(tokens: list[str]) -> tuple[Fraction, list[str]]:
    """Returns the value of the sum at the beginning of tokens, and the tokens after it. Raises IndexError if one is
    missing."""
    negative = tokens[0] == "-"
    value, tokens = _product(tokens[negative:])
    value = -value if negative else value
    while tokens and tokens[0] in "+-":
        sign = tokens[0]
        term, tokens = _product(tokens[1:])
        value = value - term if sign == "-" else value + term
    return value, tokens


def _product(tokens: list[str]) -> tuple[Fraction, list[str]]:
    value, tokens = _factor(tokens)
    while tokens and tokens[0] in "*/":
        sign = tokens[0]
        factor, tokens = _factor(tokens[1:])
        value = value / factor if sign == "/" else value * factor
    return value, tokens


def _factor(tokens: list[str]) -> tuple[Fraction, list[str]]:
    if tokens[0] != "(":
        return Fraction(tokens[0]), tokens[1:]
    value, tokens = _sum(tokens[1:])
    if tokens[0] != ")":
        raise ValueError("a bracket that does not end")
    return value, tokens[1:]


def invented(short: str, *sources: str) -> list[str]:
    """Returns the numbers of a shortened trace that none of its sources has, as written, each once."""
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
    """Yield numbers as written, without separators between groups of three digits."""
    return _NUMBER.findall(_GROUPED.sub("", text))
