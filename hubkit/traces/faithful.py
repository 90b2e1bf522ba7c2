"""Whether a shortened trace makes up numbers: each of its numbers has to stand in the trace, the problem or the answer.

    invented("47 + 38 = 86, then 86 - 12 = 73", "… 47 + 38 = 85 … 85 - 12 = 73")  ->  ["86"]

A rewritten trace can reach the right answer over steps that are wrong, or of another problem; students would learn
those. Numbers are compared by value: 1,000 is 1000, 2.50 is 2.5, 25 % is 0.25. A number spelt in words (twelve, half,
squared) is one too where it is in the source; these words are English, and a number that another language spells and a
rewrite writes in digits is taken for made up. Numbers of a list ("1.", "Step 2:") count nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Final

__all__ = ["invented"]

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


def invented(short: str, *sources: str) -> list[str]:
    """Numbers of a shortened trace that none of its sources has, as they are written, each once."""
    known: set[Fraction] = set()
    for source in sources:
        known |= {value for value, _ in _numbers(source)}
        known |= {_WORDS[word.lower()] for word in _WORD.findall(source) if word.lower() in _WORDS}
    if _PERCENT.search("".join((short, *sources))):
        known |= {value / 100 for value in known} | {value * 100 for value in known}
    return list(
        dict.fromkeys(text for value, text in _numbers(_LISTED.sub(" ", short)) if value not in known)
    )


def _numbers(text: str) -> Iterator[tuple[Fraction, str]]:
    for match in _NUMBER.finditer(_GROUPED.sub("", text)):
        yield Fraction(match[0]), match[0]
