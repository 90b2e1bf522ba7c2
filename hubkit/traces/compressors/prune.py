"""Pruning by a language model: it may leave words of the trace out, and do nothing else.

    raw {"reasoning": "First 47 + 38. Let me see: the ones are 15. So 47 + 38 = 85. Good.", …} and the reply
    "First 47 + 38. So 47 + 38 = 85.\\n\\\\boxed{85}" become {"reasoning": "First 47 + 38. So 47 + 38 = 85.", …}

Every word of the reply must be in the trace, in the same order; white space may differ. Any other reply is
`not_a_deletion`. So a student learns only the teacher's own text, and no word of another model.
"""

from __future__ import annotations

from typing import Final, Literal

from hubkit.store import StepContext
from hubkit.traces.compressors.asked import Asked, check_asked, run_asked
from hubkit.traces.compressors.replies import Refusal, first_requests
from hubkit.traces.compressors.writing import Row

__all__ = ["VERSION", "Prune", "added_word", "check", "requests_of", "run"]

VERSION: Final = 1

check = check_asked
requests_of = first_requests


class Prune(Asked):
    """An instruction-tuned model leaves out what is not needed, and may do nothing else."""

    step = "hubkit.traces.compressors.prune:run"

    kind: Literal["prune"]

    def describe(self) -> str:
        return (
            f"{self.name} ({self.model}) left words of {self.what} out {self.words()}; what is kept are words of the "
            "raw trace in its order, no others, when the reply still reaches the right answer"
        )


def run(context: StepContext) -> None:
    """Write data.parquet with this shard's pruned traces, and rejected.parquet, in raw's order."""
    run_asked(context, _not_a_deletion)


def _not_a_deletion(row: Row, short: str, solution: str | None) -> Refusal | None:
    word = added_word(row["reasoning"], short)
    if word is None and solution is not None:
        word = added_word(row["solution"], solution)
    return None if word is None else ("not_a_deletion", f"the trace does not go on with {word[:60]!r}")


def added_word(text: str, short: str) -> str | None:
    """Returns the first word of `short` that is not next in `text`. Returns None if `short` only leaves words out."""
    words = iter(text.split())
    return next((word for word in short.split() if word not in words), None)
