"""Compressors that leave out the pieces with the lowest scores: their shared code.

    pieces ["First 47 + 38. ", "Let me see. ", "So 85."] of 6, 4 and 3 tokens, scores [0.9, 0.1, 0.4], target 9
    -> "First 47 + 38. So 85."

A kind defines the pieces of a trace and their scorer. Pieces stay by falling score, as many as come nearest to the
target length; nothing else decides. Scores are kept on disk as they are computed, so that a killed step goes on where
it was.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Protocol

from pydantic import Field

from hubkit.errors import StepError
from hubkit.section import ModelRef
from hubkit.store import StepContext
from hubkit.traces.compressors.base import Compressor
from hubkit.traces.compressors.writing import Row, Shortened, raw_rows, shard_size, write_shortened
from hubkit.traces.lengths import load_tokenizer, token_counts
from hubkit.traces.steps import final_line, tokens_in

__all__ = ["Pieces", "Scored", "Scorer", "kept_pieces", "run_scored"]

TOGETHER: Final = 16
"""Traces that are scored together, and whose scores are written together."""


class Scored(Compressor, ModelRef):
    """A compressor that leaves out the pieces with the lowest scores."""

    ratio: float = Field(gt=0, lt=1)
    """Target length, as a share of the raw tokens of the shortened text; whole pieces come as near as possible."""

    def scorer(self) -> ModelRef:
        return self

    def longest(self) -> None:
        return None


class Scorer(Protocol):
    precision: str
    """Type of its weights."""

    def scores(self, traces: Sequence[tuple[Row, list[str]]]) -> list[list[float] | None]:
        """Returns a score for each piece of each trace, lower ones being left out first; None for a too long trace."""
        ...


@dataclass(frozen=True)
class Pieces:
    """The pieces of a trace."""

    split: Callable[[str], list[str]]
    """Joined they are the text."""
    join: Callable[[Sequence[str], Sequence[bool]], str]
    """The text that is left of all pieces, and of each whether it stays."""
    forced: Callable[[str], bool] = lambda piece: False
    """Whether a piece stays whatever its score."""


def kept_pieces(
    lengths: Sequence[int], scores: Sequence[float], forced: Sequence[bool], target: float
) -> list[bool]:
    """Returns which pieces stay: the forced ones, then by falling score those that come nearest to `target` tokens.

    Of equal scores the earlier piece stays; of two lengths as near as each other the shorter is taken. One piece stays
    in any case.
    """
    order = sorted(range(len(scores)), key=lambda i: (not forced[i], -scores[i], i))
    least = max(1, sum(forced))
    total = sum(lengths[i] for i in order[:least])
    best, nearest = least, abs(total - target)
    for number in range(least, len(order)):
        total += lengths[order[number]]
        if abs(total - target) < nearest:
            best, nearest = number + 1, abs(total - target)
    stay = set(order[:best])
    return [i in stay for i in range(len(scores))]


def run_scored(
    context: StepContext, pieces: Pieces, open_scorer: Callable[[], AbstractContextManager[Scorer]]
) -> None:
    """Write data.parquet with this shard's shortened traces, and rejected.parquet, in raw's order.

    The scorer is opened when the first trace has no scores yet.
    """
    tokenizer = load_tokenizer(context.model("tokenizer"))
    with _Scores(context) as scores:
        write_shortened(context, _results(context, pieces, open_scorer, scores, tokenizer))


def _results(
    context: StepContext,
    pieces: Pieces,
    open_scorer: Callable[[], AbstractContextManager[Scorer]],
    scores: _Scores,
    tokenizer: Any,
) -> Iterator[tuple[Row, Shortened]]:
    rows, done, total = raw_rows(context.config, context.inputs["raw"]), 0, shard_size(context)
    with ExitStack() as opened:
        scorer: Scorer | None = None
        while batch := [(row, _split(context.config, pieces, row)) for row in islice(rows, TOGETHER)]:
            found = [scores.get(row) for row, _ in batch]
            missing = [i for i, known in enumerate(found) if known is None]
            if missing:
                scorer = scorer or opened.enter_context(open_scorer())
                context.metrics["precision"] = scorer.precision
                made = scorer.scores([batch[i] for i in missing])
                scores.add([(batch[i][0], new) for i, new in zip(missing, made, strict=True)])
                for i, new in zip(missing, made, strict=True):
                    found[i] = new or []
            for (row, parts), known in zip(batch, found, strict=True):
                yield row, _shortened(context.config, pieces, row, parts, known or [], tokenizer)
            done += len(batch)
            context.progress(done, total)


def _split(config: dict[str, Any], pieces: Pieces, row: Row) -> list[str]:
    """Yield the pieces of the reasoning and, if it is shortened, those of the solution before its final line."""
    return pieces.split(row["reasoning"]) + pieces.split(_body(config, row))


def _body(config: dict[str, Any], row: Row) -> str:
    """Returns the part of a solution that may be left out: the text before its final line."""
    if config.get("solution") != "shorten":
        return ""
    body = row["solution"][: row["solution"].rfind(final_line(row["solution"]))].strip()
    return f"\n\n{body}" if body else ""


def _shortened(
    config: dict[str, Any], pieces: Pieces, row: Row, parts: list[str], scores: list[float], tokenizer: Any
) -> Shortened:
    if not scores:
        return Shortened(row["reasoning"], "too_long", "more tokens than the scorer's context holds")
    first = len(pieces.split(row["reasoning"]))
    both = config.get("solution") == "shorten"
    target = config["ratio"] * row["raw_reasoning_tokens"]
    final = final_line(row["solution"])
    if both:
        whole, end = token_counts(tokenizer, [row["solution"], f"\n\n{final}"])
        target += config["ratio"] * whole - end
    forced = [pieces.forced(part) for part in parts]
    stay = kept_pieces(tokens_in(tokenizer, parts), scores, forced, target)
    reasoning = pieces.join(parts[:first], stay[:first]).strip()
    if not both:
        return Shortened(reasoning)
    body = pieces.join(parts[first:], stay[first:]).strip()
    return Shortened(reasoning, solution=f"{body}\n\n{final}" if body else final)


class _Scores:
    """Computed scores, in a file of the step's work folder: an empty list for a trace that is too long."""

    def __init__(self, context: StepContext) -> None:
        self._path = context.work / "scores.sqlite"

    def __enter__(self) -> _Scores:
        try:
            self._db = sqlite3.connect(self._path)
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS scores (id TEXT, sample INTEGER, scores TEXT, PRIMARY KEY (id, sample))"
            )
        except sqlite3.Error as error:
            raise StepError(
                f"the scores cannot be kept: {error}", "remove the step's work folder, and run again"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def get(self, row: Row) -> list[float] | None:
        with closing(
            self._db.execute(
                "SELECT scores FROM scores WHERE id = ? AND sample = ?", (row["id"], row["sample"])
            )
        ) as found:
            known = found.fetchone()
        return json.loads(known[0]) if known else None

    def add(self, made: Sequence[tuple[Row, list[float] | None]]) -> None:
        with self._db:
            self._db.executemany(
                "INSERT OR REPLACE INTO scores VALUES (?, ?, ?)",
                [(row["id"], row["sample"], json.dumps(scores or [])) for row, scores in made],
            )
