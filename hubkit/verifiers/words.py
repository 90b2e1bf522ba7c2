r"""Whole numbers that are written in words, beside their digits.

    number_in("twenty-five") -> "25"     number_in("one hundred and five") -> "105"     number_in("one of them") -> None
    said_twice("5(five)") -> "5"         said_twice("\\text{five}(5)") -> "5"            said_twice("5(four)") -> None

A word alone stays a word: the answer "three" is not 3, which a question about words may well tell apart.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["SMALL", "TENS", "number_in", "said_twice"]

SMALL: Final = {
    word: number
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "  # noqa: SIM905
        "seventeen eighteen nineteen".split()
    )
}
TENS: Final = {
    word: 10 * number
    for number, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)  # noqa: SIM905
}
_LARGE: Final = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_LONGEST: Final = 120
_TEXT: Final = re.compile(r"\\text\{([^{}]*)\}")
_TWICE: Final = re.compile(
    r"(?P<first>\d+) ?\( ?(?P<after>[A-Za-z][A-Za-z -]*)\)|(?P<before>[A-Za-z][A-Za-z -]*)\( ?(?P<last>\d+) ?\)"
)


def said_twice(text: str) -> str | None:
    """Returns the number of a spelled answer that is a number in digits and in words. Returns None for all else."""
    twice = _TWICE.fullmatch(_TEXT.sub(r"\1", text).strip())
    if twice is None:
        return None
    digits, words = twice["first"] or twice["last"], twice["after"] or twice["before"]
    return digits if number_in(words.strip()) == digits else None


def number_in(text: str) -> str | None:
    """Returns the digits of a number in English words. Returns None for any other text."""
    if len(text) > _LONGEST or not re.fullmatch(r"[A-Za-z]+(?:[ -]+[A-Za-z]+)*", text):
        return None
    total, last = 0, 10**15
    group: list[str] = []
    for word in re.split(r"[ -]+", text.lower()):
        if (size := _LARGE.get(word)) is None:
            group.append(word)
            continue
        number = _below_thousand(group)
        if not number or size >= last:
            return None
        total, last, group = total + number * size, size, []
    if not group:
        return str(total)
    rest = _below_thousand(group[1:] if total and group[0] == "and" else group)
    return None if rest is None or (total and not rest) else str(total + rest)


def _below_thousand(words: list[str]) -> int | None:
    match words:
        case [hundreds, "hundred", *rest] if 0 < SMALL.get(hundreds, 0) < 10:
            more = _below_thousand(rest[1:] if rest[:1] == ["and"] else rest) if rest else 0
            return None if more is None or more >= 100 else 100 * SMALL[hundreds] + more
        case [tens, ones] if tens in TENS and 0 < SMALL.get(ones, 0) < 10:
            return TENS[tens] + SMALL[ones]
        case [word]:
            return TENS.get(word, SMALL.get(word))
        case _:
            return None
