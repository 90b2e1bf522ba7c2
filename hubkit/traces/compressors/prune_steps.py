"""Pruning of steps by a scorer model: the steps with the lowest scores are left out, down to a length.

    raw {"reasoning": "First 47 + 38. Let me see. So 85.", …}, ratio 0.7, scores [0.9, 0.1, 0.4]
    -> {"reasoning": "First 47 + 38. So 85.", "ratio": 0.69, …}

A step is a sentence or a line, as in the null of the same length (random-steps). Nothing is rewritten; the solution
stays. A step's score is one of SCORES, by a causal model that reads the problem and the trace.
"""

from __future__ import annotations

from typing import Final, Literal

from hubkit.store import StepContext
from hubkit.traces.compressors.scored import Pieces, Scored, run_scored
from hubkit.traces.compressors.scorers import SCORES, CausalScorer
from hubkit.traces.steps import steps_of

__all__ = ["VERSION", "PruneSteps", "run"]

VERSION: Final = 1


class PruneSteps(Scored):
    """Leaves out the steps with the lowest scores by a scorer model, down to `ratio`."""

    step = "hubkit.traces.compressors.prune_steps:run"

    kind: Literal["prune-steps"]
    by: Literal["answer", "entropy", "surprisal"] = "answer"
    """A step's score. answer: how much less likely the answer is without it (as PIR, arXiv 2505.19187); entropy: the
    sum over its tokens of the entropy of the model's next-token distribution (arXiv 2508.03346); surprisal: the mean
    negative log-probability of its tokens."""

    def describe(self) -> str:
        return (
            f"{self.name} ({self.model}) scored each step of {self.what} by {SCORES[self.by].words}, and the lowest "
            f"were left out down to {self.ratio:.0%} of {self.whole}; nothing was rewritten, and whether what is left "
            "still reaches the answer was not looked at"
        )


def run(context: StepContext) -> None:
    """Write data.parquet with this shard's pruned traces, and rejected.parquet, in raw's order."""
    pieces = Pieces(
        steps_of, lambda steps, stay: "".join(s for s, kept in zip(steps, stay, strict=True) if kept)
    )
    runtime = context.runtime
    run_scored(
        context,
        pieces,
        lambda: CausalScorer(
            context.model("compressor"),
            context.config["by"],
            runtime["device"],
            runtime["threads"],
            runtime.get("precision", "auto"),
        ),
    )
