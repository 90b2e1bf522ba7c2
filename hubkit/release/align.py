"""Two texts beside each other: what the second kept of the first, and what it dropped or rewrote.

    raw "I add the tens: 40 + 30 = 70. Then 7 + 8 = 15.", compressed "40 + 30 = 70, 7 + 8 = 15."
        -> [("dropped", "I add the tens:", 0), ("kept", " 40 + 30 = 70", 0), ("rewritten", ".", 0), …]
           [("kept", "40 + 30 = 70", 0), ("rewritten", ",", 0), ("kept", " 7 + 8 = 15.", 1)]

The report and the Space hold this file alike: the Space imports nothing of hubkit.
"""

from __future__ import annotations

import re
from collections import Counter
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Any

FORMULA = (
    r"\\\((?s:.{0,1000}?)\\\)|\\\[(?s:.{0,1000}?)\\\]|\$\$(?s:.{0,1000}?)\$\$"
    # Pandoc's rule for what is no price: no space inside, no digit after.
    r"|(?<!\\)\$(?![\s$])[^$\n]{1,1000}?(?<![\s\\])\$(?![\d$])"
    r"|\\boxed\{(?:[^{}]|\{[^{}]*\}){0,1000}\}"
)
"""Mathematics as models write it, up to a thousand characters: an unclosed one must not be sought to the end."""
_WORDS = re.compile(rf"\s*(?:{FORMULA}|\d+(?:\.\d+)?|[^\W\d]+|[^\w\s]|_)|\s+")
_EXACT_WORK = 300_000
"""Pairs of equal words up to which difflib takes a fraction of a second without shortcuts."""
_CUT_OUT = 0.9
"""Share of a text's words that stand in another in the same order, from which it is cut out of that one."""

Part = tuple[str, str, int]
"""Kind ("kept", "dropped", "rewritten"), text, and the step of the first text that it belongs to."""


def words(text: str) -> list[str]:
    """Words, numbers, formulas and single signs, each with the space before it: joined they are the text."""
    return _WORDS.findall(text)


def marked(raw: str, other: str) -> tuple[list[Part], list[Part]]:
    """Both texts in parts. Joined, the parts are the texts; none reaches over the end of a step."""
    a, b = words(raw), words(other)
    steps = _steps(a)
    left: list[Part] = []
    right: list[Part] = []
    for tag, i, i_end, j, j_end in _opcodes(a, b, steps):
        signs = not any(c.isalnum() for word in a[i:i_end] for c in word)
        # A comma that both happen to have between other words is no text that was kept.
        if tag == "equal" and signs and i and i_end < len(a):
            tag = "replace"
        kind = {"equal": "kept", "delete": "dropped"}.get(tag, "rewritten")
        _put(left, kind, a[i:i_end], steps[i:i_end])
        step = steps[min(i, len(steps) - 1)] if steps else 0
        _put(right, kind, b[j:j_end], steps[i:i_end] if tag == "equal" else [step] * (j_end - j))
    return left, right


def _put(parts: list[Part], kind: str, found: list[str], steps: list[int]) -> None:
    start = 0
    for end in range(1, len(found) + 1):
        if end == len(found) or steps[end] != steps[start]:
            parts.append((kind, "".join(found[start:end]), steps[start]))
            start = end


def _steps(parts: list[str]) -> list[int]:
    """The step of each word: a step ends with its line or its sentence."""
    numbers, step = [], 0
    for number, word in enumerate(parts):
        line = "\n" in word[: len(word) - len(word.lstrip())]
        if number and (line or parts[number - 1][-1] in ".!?"):
            step += 1
        numbers.append(step)
    return numbers


Opcode = tuple[str, int, int, int, int]


def _opcodes(a: list[str], b: list[str], steps: list[int]) -> list[Opcode]:
    """As difflib's: whole steps that both have are matched first, then the words between them."""
    one, two = [word.strip() for word in a], [word.strip() for word in b]
    edges, other_edges = _edges(steps), _edges(_steps(b))
    rows = [tuple(one[i:j]) for i, j in pairwise(edges)]
    other_rows = [tuple(two[i:j]) for i, j in pairwise(other_edges)]
    found = []
    for tag, i, i_end, j, j_end in _blocks(rows, other_rows):
        at, end, other_at, other_end = edges[i], edges[i_end], other_edges[j], other_edges[j_end]
        if tag == "replace":
            between = _between(one[at:end], two[other_at:other_end])
            found += [
                (t, at + k, at + k_end, other_at + n, other_at + n_end) for t, k, k_end, n, n_end in between
            ]
        else:
            found.append((tag, at, end, other_at, other_end))
    return found


def _between(a: list[str], b: list[str]) -> list[Opcode]:
    """By blocks, which read best; by the longest common subsequence where b is a with words left out here and there."""
    blocks = _blocks(a, b)
    if sum(i_end - i for tag, i, i_end, *_ in blocks if tag == "equal") < _CUT_OUT * len(b):
        pairs = _subsequence(a, b)
        if len(pairs) >= _CUT_OUT * len(b):
            return _codes(pairs, len(a), len(b))
    return blocks


def _edges(steps: list[int]) -> list[int]:
    """Where each step begins, and where the last one ends."""
    return [n for n, step in enumerate(steps) if not n or steps[n - 1] != step] + [len(steps)]


def _blocks(a: list[Any], b: list[Any]) -> list[Opcode]:
    """By difflib, which begins with what is rarer where the exact way would take too long."""
    counts = Counter(b)
    work = sum(counts[element] for element in a)  # pairs that one pass of the exact way looks at
    return [*SequenceMatcher(None, a, b, autojunk=work > _EXACT_WORK).get_opcodes()]


def _subsequence(a: list[str], b: list[str]) -> list[tuple[int, int]]:
    """Pairs of indices of a longest common subsequence, by Hyyrö's bit-parallel algorithm (2004).

    Bit i of a row is 0 where the subsequence grows with a[i]; Python's integers are the bit vectors.
    """
    places: dict[str, int] = {}
    for i, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << i
    every = row = (1 << len(a)) - 1
    rows = []
    for word in b:
        equal = row & places.get(word, 0)
        row = ((row + equal) | (row - equal)) & every
        rows.append(row)
    pairs = []
    i, j = len(a), len(b)
    while i and j:
        if rows[j - 1] >> (i - 1) & 1:
            i -= 1
        elif j > 1 and not rows[j - 2] >> (i - 1) & 1:
            j -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]


def _codes(pairs: list[tuple[int, int]], a: int, b: int) -> list[Opcode]:
    """Opcodes of texts of these lengths, of which these pairs are equal."""
    found: list[Opcode] = []
    at, other_at = 0, 0
    for i, j in [*pairs, (a, b)]:
        if (at, other_at) != (i, j):
            tag = "insert" if at == i else "delete" if other_at == j else "replace"
            found.append((tag, at, i, other_at, j))
        if i < a and j < b:
            if found and found[-1][0] == "equal" and found[-1][2] == i and found[-1][4] == j:
                _, at, _, other_at, _ = found.pop()
            else:
                at, other_at = i, j
            found.append(("equal", at, i + 1, other_at, j + 1))
        at, other_at = i + 1, j + 1
    return found
