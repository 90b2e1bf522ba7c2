"""Truncation, the control of the paper's ablation: the beginning of each raw trace, as long as the compressed one.

raw {"id": "x", "sample": 0, "reasoning": "We need 47 + 38 - 12. …", "reasoning_tokens": 210, …} with a
compressed trace of 31 tokens becomes {"reasoning": "We need 47 + 38 - 12. First", "reasoning_tokens":
31, "budget_tokens": 31, "matched_to": "nano-compressor", …}
"""

from __future__ import annotations

from typing import Any, Final

from hubkit.store import StepContext
from hubkit.traces.cut import Cut, cut_batch
from hubkit.traces.variants.controls import Task, run_control

__all__ = ["VERSION", "run"]

VERSION: Final = 1


def run(context: StepContext) -> None:
    """Write data.parquet: one row for every compressed one, in its order."""
    run_control(context, "truncated", _beginnings)


def _beginnings(tokenizer: Any, tasks: list[Task]) -> list[Cut]:
    return cut_batch(tokenizer, [t.text for t in tasks], [t.budget for t in tasks], [t.length for t in tasks])
