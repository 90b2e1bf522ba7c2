"""Steps of a trace: sentences and lines, the units that are left out or rewritten one by one.

steps_of("First 47 + 38. The ones are 15.\\nSo 85.")  ->  ["First 47 + 38. ", "The ones are 15.\\n", "So 85."]
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, Final

from hubkit.traces.lengths import plain_backend

__all__ = ["chunks", "final_line", "step_lengths", "steps_of", "tokens_in"]

_STEP: Final = re.compile(r".+?(?:\n+|[.!?](?=\s)\s*|\Z)", re.DOTALL)


def steps_of(text: str) -> list[str]:
    """Sentences and lines of a text, with what separates them: joined they are the text."""
    return _STEP.findall(text)


def step_lengths(steps: Sequence[str], spans: Iterable[tuple[int, int]]) -> list[int]:
    """Tokens of each step, by where the tokens of the whole text stand; a token counts where it begins."""
    ends = list(accumulate(map(len, steps)))
    lengths = [0] * len(steps)
    index = 0
    for start, _ in spans:
        while index + 1 < len(steps) and start >= ends[index]:
            index += 1
        lengths[index] += 1
    return lengths


def tokens_in(tokenizer: Any, steps: Sequence[str]) -> list[int]:
    """Tokens of each step within the joined text."""
    encoding = plain_backend(tokenizer).encode("".join(steps), add_special_tokens=False)
    return step_lengths(steps, encoding.offsets) if steps else []


def chunks(tokenizer: Any, text: str, limit: int) -> list[str]:
    """Parts of at most `limit` tokens that end where a step does; joined they are the text.

    A part ends at the last blank line in its second half where there is one (after R1-Compress, arXiv 2505.16838). A
    step that is longer than `limit` is a part of its own.
    """
    steps = steps_of(text)
    lengths = tokens_in(tokenizer, steps)
    parts: list[str] = []
    start = 0
    while start < len(steps):
        end, blank, tokens = start, 0, 0
        while end < len(steps) and (end == start or tokens + lengths[end] <= limit):
            tokens += lengths[end]
            end += 1
            if "\n\n" in steps[end - 1] and 2 * tokens >= limit:
                blank = end
        if end < len(steps) and blank:
            end = blank
        parts.append("".join(steps[start:end]))
        start = end
    return parts


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
