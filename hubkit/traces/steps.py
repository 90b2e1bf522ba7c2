"""Steps of a trace: sentences and lines, the units that are left out or rewritten.

steps_of("First 47 + 38. The ones are 15.\\nSo 85.")  ->  ["First 47 + 38. ", "The ones are 15.\\n", "So 85."]
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from hubkit.traces.lengths import plain_backend

__all__ = ["chunks", "final_line", "groups", "owners", "steps_of", "tokens_in"]

_STEP: Final = re.compile(r".+?(?:\n+|[.!?](?=\s)\s*|\Z)", re.DOTALL)


def steps_of(text: str) -> list[str]:
    """Sentences and lines of a text, with what separates them: joined they are the text."""
    return _STEP.findall(text)


def owners(pieces: Sequence[str], spans: Iterable[tuple[int, int]]) -> list[int]:
    """Returns the piece that each token belongs to: that of the token's last character in the joined text.

    A tokenizer may count the space before a word as part of it.
    """
    import numpy as np

    ends = np.cumsum([len(piece) for piece in pieces])
    last = np.asarray([max(0, end - 1) for _, end in spans], dtype=np.int64)
    found: list[int] = np.minimum(np.searchsorted(ends, last, side="right"), len(pieces) - 1).tolist()
    return found


def tokens_in(tokenizer: Any, pieces: Sequence[str]) -> list[int]:
    """Returns the tokens of each piece within the joined text."""
    encoding = plain_backend(tokenizer).encode("".join(pieces), add_special_tokens=False)
    counts = Counter(owners(pieces, encoding.offsets)) if pieces else Counter()
    return [counts[index] for index in range(len(pieces))]


def groups(lengths: Sequence[int], ends: Sequence[bool], limit: int) -> list[slice]:
    """Cuts a sequence of pieces, each with its tokens, into parts of at most `limit` tokens.

    A part ends after the last piece in its second half where `ends` says so, if there is one. A piece that is longer
    than `limit` is a part of its own.
    """
    parts: list[slice] = []
    start = 0
    while start < len(lengths):
        stop, good, tokens = start, 0, 0
        while stop < len(lengths) and (stop == start or tokens + lengths[stop] <= limit):
            tokens += lengths[stop]
            stop += 1
            if ends[stop - 1] and 2 * tokens >= limit:
                good = stop
        if stop < len(lengths) and good:
            stop = good
        parts.append(slice(start, stop))
        start = stop
    return parts


def chunks(tokenizer: Any, text: str, limit: int) -> list[str]:
    """Parts of at most `limit` tokens that end where a step does, at a blank line where that can be; joined they are
    the text. (After R1-Compress, arXiv 2505.16838.)"""
    steps = steps_of(text)
    blank = ["\n\n" in step for step in steps]
    return ["".join(steps[part]) for part in groups(tokens_in(tokenizer, steps), blank, limit)]


def final_line(solution: str) -> str:
    """The line of a solution that holds its last \\boxed{…}, or the lines where the box spans several.

    Without a box it is the last line with a letter or a digit; empty if there is none.
    """
    box = solution.rfind("\\boxed")
    if box >= 0:
        start, end = solution.rfind("\n", 0, box) + 1, box
        while end < len(solution):
            end = (solution.find("\n", end + 1) + 1 or len(solution) + 1) - 1
            if solution.count("{", box, end) <= solution.count("}", box, end):
                break
        return solution[start:end].strip()
    lines = [line for line in solution.split("\n") if any(c.isalnum() for c in line)]
    return lines[-1].strip() if lines else ""
