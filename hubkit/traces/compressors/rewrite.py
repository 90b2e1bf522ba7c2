"""Compression: an instruction-tuned model rewrites each raw trace, and must still reach the answer.

    raw {"id": "x", "sample": 0, "reasoning": "I need to work out 47 + 38 - 12. First …", …} and the answer
    of the compressor "First 47 + 38 = 85, then 85 - 12 = 73.\\n\\\\boxed{73}" become
    {"reasoning": "First 47 + 38 = 85, then 85 - 12 = 73.", "ratio": 0.13, "compressor": …, …}

A rewriting with numbers that the trace does not have (`faithful.py`) is tried again, too.
"""

from __future__ import annotations

from typing import Final, Literal

from hubkit.store import StepContext
from hubkit.traces.compressors.asked import Asked, Refusal, check_asked, first_requests, run_asked
from hubkit.traces.compressors.writing import Row
from hubkit.traces.faithful import invented

__all__ = ["VERSION", "Rewrite", "check", "requests_of", "run"]

VERSION: Final = 3

check = check_asked
requests_of = first_requests


class Rewrite(Asked):
    """An instruction-tuned model rewrites the whole trace."""

    step = "hubkit.traces.compressors.rewrite:run"

    kind: Literal["rewrite"] = "rewrite"

    def describe(self) -> str:
        return (
            f"{self.name} ({self.model}) rewrote the reasoning {self.words()}; a rewritten trace is kept when it still "
            "reaches the right answer"
        )


def run(context: StepContext) -> None:
    """Write data.parquet with this shard's rewritten traces, and rejected.parquet, in raw's order."""
    run_asked(context, _unfaithful)


def _unfaithful(row: Row, short: str) -> Refusal | None:
    numbers = invented(short, row["problem"], row["reasoning"], row["solution"], row["answer"] or "")
    if not numbers:
        return None
    return "unfaithful", f"numbers that the trace does not have: {', '.join(numbers[:5])}"
