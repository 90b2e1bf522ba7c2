"""Raw traces with random tokens deleted, down to the length of the compressed one: the null model of token pruning.

    raw {"reasoning": "We need 47 + 38 - 12.", …} with a compressed trace of 6 tokens becomes
    {"reasoning": "We 47 38 -", "reasoning_tokens": 6, "budget_tokens": 6, …}

Which tokens stay is drawn with the recipe's seed, problem by problem. (arXiv 2607.28707 asks for such null models.)
"""

from __future__ import annotations

from typing import Any, Final

from hubkit.store import StepContext
from hubkit.traces.cut import Cut
from hubkit.traces.variants.controls import Task, cut_parts, run_control, token_spans

__all__ = ["VERSION", "run"]

VERSION: Final = 2
SPARE: Final = 1.15
"""Share of the budget that is drawn first: tokens that become neighbours can merge; the excess is cut."""


def run(context: StepContext) -> None:
    """Write data.parquet: one row for every compressed one, in its order."""
    run_control(context, "random-tokens", _thinned)


def _thinned(tokenizer: Any, tasks: list[Task]) -> list[Cut]:
    return cut_parts(tokenizer, tasks, list(map(_thin, tasks, token_spans(tokenizer, tasks))))


def _thin(task: Task, spans: list[tuple[int, int]]) -> str:
    number = min(len(spans), int(task.budget * SPARE) + 2)
    kept, end = "", 0
    for token in sorted(task.chance.sample(range(len(spans)), number)):
        start, stop = spans[token]
        kept += task.text[
            max(start, end) : stop
        ]  # tokens that are bytes of one character stand at the same place
        end = max(end, stop)
    return kept
