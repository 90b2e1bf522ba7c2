"""Compression: an instruction-tuned model rewrites each raw trace, and its reply must still reach the answer.

    raw {"id": "x", "sample": 0, "reasoning": "I need to work out 47 + 38 - 12. First …", …} and the answer
    of the compressor "First 47 + 38 = 85, then 85 - 12 = 73.\\n\\\\boxed{73}" become
    {"reasoning": "First 47 + 38 = 85, then 85 - 12 = 73.", "ratio": 0.13, "compressor": …, …}

A reply with numbers that the trace does not have, or with false equations (`faithful.py`), is tried again, too.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field, model_validator

from hubkit.section import AtKey
from hubkit.store import StepContext
from hubkit.traces.compressors.asked import Asked, check_asked, run_asked
from hubkit.traces.compressors.replies import Refusal, first_requests
from hubkit.traces.compressors.writing import Row
from hubkit.traces.faithful import false_equations, invented

__all__ = ["VERSION", "Rewrite", "check", "requests_of", "run"]

VERSION: Final = 5

check = check_asked
requests_of = first_requests


class Rewrite(Asked):
    """An instruction-tuned model rewrites the trace."""

    step = "hubkit.traces.compressors.rewrite:run"

    kind: Literal["rewrite"] = "rewrite"
    chunk_tokens: int | None = Field(default=None, gt=0)
    """Longer traces are rewritten in parts of at most this many tokens, cut where a step ends; the prompt shows the
    rewritten parts before (after R1-Compress, arXiv 2505.16838, but without its search among several candidates of a
    part). The whole must reach the answer. The prompt then has {before}, {part} and {parts}, and asks for the box
    after the last part. Unset: the whole trace at once."""

    def requests(self, raw_tokens: int) -> int:
        # A part can be half as long as it may be.
        return 1 if self.chunk_tokens is None else max(1, -(-2 * raw_tokens // self.chunk_tokens))

    @model_validator(mode="after")
    def _chunks_fit(self) -> Rewrite:
        for placeholder in ("{before}", "{part}", "{parts}"):
            if (self.chunk_tokens is not None) != (placeholder in self.prompt):
                raise AtKey(f"{placeholder} in the prompt and `chunk_tokens` go together", "prompt")
        if self.chunk_tokens is not None and self.solution == "shorten":
            raise AtKey("a trace in parts has no place for its solution: use final-line", "solution")
        return self

    def describe(self) -> str:
        parts = f", in parts of at most {self.chunk_tokens:,} tokens" if self.chunk_tokens else ""
        return (
            f"{self.name} ({self.model}) rewrote {self.what} {self.words()}{parts}; a rewritten trace is kept when it "
            "still reaches the right answer"
        )


def run(context: StepContext) -> None:
    """Write data.parquet with this shard's rewritten traces, and rejected.parquet, in raw's order."""
    run_asked(context, _unfaithful)


def _unfaithful(row: Row, short: str, solution: str | None) -> Refusal | None:
    text = f"{short}\n{solution or ''}"
    sources = (row["problem"], row["reasoning"], row["solution"], row["answer"] or "")
    if numbers := invented(text, *sources):
        return "unfaithful", f"numbers that the trace does not have: {', '.join(numbers[:5])}"
    if equations := false_equations(text, *sources):
        return "unfaithful", f"equations that do not hold: {'; '.join(equations[:5])}"
    return None
