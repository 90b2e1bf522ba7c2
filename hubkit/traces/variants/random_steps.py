"""Raw traces with random steps deleted, down to the length of the compressed one: the null model of step pruning.

    raw {"reasoning": "First 47 + 38. The ones are 15.\\nSo 85. Then 85 - 12 = 73.", …} with a compressed trace of 14
    tokens becomes {"reasoning": "First 47 + 38. Then 85 - 12 = 73.", "reasoning_tokens": 14, …}

A step is a sentence or a line. Steps stay in their order; which ones stay is drawn with the recipe's seed, problem by
problem. The last step that stays is cut where the budget ends. (arXiv 2607.28707 asks for such null models.)
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any, Final

from hubkit.store import StepContext
from hubkit.traces.cut import Cut
from hubkit.traces.steps import steps_of
from hubkit.traces.variants.controls import Task, cut_parts, run_control, token_spans

__all__ = ["VERSION", "run"]

VERSION: Final = 1


def run(context: StepContext) -> None:
    """Write data.parquet: one row for every compressed one, in its order."""
    run_control(context, "random-steps", _thinned)


def _thinned(tokenizer: Any, tasks: list[Task]) -> list[Cut]:
    return cut_parts(tokenizer, tasks, list(map(_thin, tasks, token_spans(tokenizer, tasks))))


def _thin(task: Task, spans: list[tuple[int, int]]) -> str:
    """Steps drawn until they hold the budget, in their order."""
    steps = steps_of(task.text)
    ends = list(accumulate(map(len, steps)))
    lengths = [0] * len(steps)
    place = 0
    for start, _ in spans:
        while place + 1 < len(steps) and start >= ends[place]:
            place += 1
        lengths[place] += 1
    order = list(range(len(steps)))
    task.chance.shuffle(order)
    kept: list[int] = []
    tokens = 0
    for number in order:
        if tokens >= task.budget + 1:
            break
        kept.append(number)
        tokens += lengths[number]
    return "".join(steps[number] for number in sorted(kept))
