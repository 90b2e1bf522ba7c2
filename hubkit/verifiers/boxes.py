"""Finds the final answer in a text: the last \\boxed{…}."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = ["Box", "boxed", "key_of", "last_box"]


class Box(NamedTuple):
    """The last \\boxed{…} of a text."""

    content: str
    alone: bool
    """Nothing stands beside it that is part of the answer: a sign, a unit, a percent sign, another box."""


def boxed(text: str) -> str | None:
    """Content of the last \\boxed{…} with balanced braces. Returns None if there is none."""
    box = last_box(text)
    return None if box is None else box.content


def key_of(answer: object) -> str:
    """The known answer of a problem, out of its box if it stands in one."""
    text = str(answer).strip()
    key = boxed(text)
    return text if key is None else key.strip()


_BRACE: Final = re.compile(r"[{}]")
_AFTER: Final = re.compile(r"\s*(?:[.,;:!?*)\]$]|\\[\])]|\Z)|\s+[A-Za-z(]|\n")
_BEFORE: Final = re.compile(r"(?:\A|[\n=:$*.,(]|[A-Za-z] |\\[\[(])\s*\Z")
_JOINED: Final = re.compile(r"\}[\s$]*(?:and|or|,)[\s$]*\Z")


def last_box(text: str) -> Box | None:
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 1, start + len("\\boxed{")
    for brace in _BRACE.finditer(text, begin):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            before = text[max(0, start - 20) : start]
            alone = _AFTER.match(text, brace.end()) and _BEFORE.search(before) and not _JOINED.search(before)
            return Box(text[begin : brace.start()], bool(alone))
    return None
