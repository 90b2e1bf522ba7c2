"""The end of each raw trace, as long as the compressed one: does it matter that students see how a trace begins?

raw {"reasoning": "We need 47 + 38 - 12. … so 85 - 12 = 73. Good.", …} with a compressed trace of 8 tokens becomes
{"reasoning": "85 - 12 = 73. Good.", "reasoning_tokens": 8, "budget_tokens": 8, …}
"""

from __future__ import annotations

from typing import Any, Final

from hubkit.store import StepContext
from hubkit.traces.cut import Cut
from hubkit.traces.lengths import token_counts
from hubkit.traces.variants.controls import Task, run_control, token_spans

__all__ = ["VERSION", "run"]

VERSION: Final = 1
REACH: Final = 4
"""Starts before and after the budget's own that are tried for exactly the budget."""


def run(context: StepContext) -> None:
    """Write data.parquet: one row for every compressed one, in its order."""
    run_control(context, "last", _ends)


def _ends(tokenizer: Any, tasks: list[Task]) -> list[Cut]:
    # A text alone can tokenise differently at its start than in the middle of a trace: look around the budget's own.
    tried = [
        [task.text[spans[-n][0] :] for n in range(max(1, task.budget - REACH), task.budget + REACH + 1)
         if n <= len(spans)]
        for task, spans in zip(tasks, token_spans(tokenizer, tasks), strict=True)
    ]  # fmt: skip
    counts = iter(token_counts(tokenizer, [text for texts in tried for text in texts]))
    cuts = []
    for task, texts in zip(tasks, tried, strict=True):
        found = [(text, next(counts)) for text in texts]
        fitting = [cut for cut in found if cut[1] <= task.budget] or [("", 0)]
        cuts.append(max(fitting, key=lambda cut: (cut[1], len(cut[0]))))
    return cuts
