"""Shared code of all controls: raw traces shortened to the lengths of a compressor's, row by row.

    raw {"id": "x", "sample": 0, "reasoning": "We need 47 + 38 - 12. …", "reasoning_tokens": 210, …} and a compressed
    trace of 31 tokens -> {"reasoning": <31 tokens of it>, "budget_tokens": 31, "matched_to": "nano-compressor", …}

A control spends the same tokens, but no model chooses them. Each control defines only which part of the text it keeps.
If the compressor changed the solution as well, the control shortens it to that length in the same way, except that its
final line stays.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hubkit.errors import GateError, InputError
from hubkit.records import VARIANT_COLUMNS, messages_of, read_rows, shard_rows, write_rows
from hubkit.store import StepContext
from hubkit.traces.cut import Cut, cut_batch
from hubkit.traces.lengths import (
    LENGTH_COLUMNS,
    length_metrics,
    load_tokenizer,
    plain_backend,
    response_metrics,
    token_counts,
    tokenizer_threads,
)
from hubkit.traces.shards import join_shards, keys_of
from hubkit.traces.steps import final_line
from hubkit.traces.variants import VARIANTS

__all__ = ["VERSION", "Task", "cut_parts", "join", "run_control", "token_spans"]

VERSION: Final = 1
"""Version of `join`; a control itself has its module's."""

BATCH: Final = 512
BATCH_CHARACTERS: Final = 2_000_000
"""Traces shortened together, and characters of their reasoning: enough to keep the tokenizer busy. With positions of
tokens, the library takes some 150 bytes for each token of a text."""

_COLUMNS: Final = [name for name, _ in VARIANT_COLUMNS if name != "messages"]
"""Columns of raw; `messages` is made again."""

Row = dict[str, Any]
_Pair = tuple[Row, Row]
"""A raw row, and the length and compressor of its compressed one."""


@dataclass(frozen=True)
class Task:
    """One trace to be shortened."""

    text: str
    length: int
    """Its tokens."""
    budget: int
    """Tokens that may stay, fewer than `length`."""
    chance: random.Random
    """Seed, which depends on the recipe's seed and the trace."""


def run_control(context: StepContext, kind: str, shorten: Callable[[Any, list[Task]], list[Cut]]) -> None:
    """Write data.parquet: one row for each compressed trace, in the same order.

    `shorten(tokenizer, tasks)` returns a text and its tokens for each; `inexact` counts texts without exactly the
    budget, and `inexact_solution` solutions with another length than the compressed one.
    """
    tokenizer = load_tokenizer(context.model("tokenizer"))
    of = context.inputs["raw" if "tokens" in context.config else "compressed"] / "data.parquet"
    start, stop = shard_rows(of, *context.config.get("shard", (0, 1)))
    with tokenizer_threads(context.threads):
        rows = write_rows(
            context.out / "data.parquet",
            _rows(context, tokenizer, shorten, _pairs(context, start, stop), stop - start),
            VARIANTS[kind].schema,
        )
    if "shard" not in context.config:
        _finish(context, rows)


def join(context: StepContext) -> None:
    """Write the rows of all shards, one behind the other."""
    schema = VARIANTS[context.step.partition("/")[0]].schema
    _finish(context, join_shards(context, {"data.parquet": schema}))


def _finish(context: StepContext, rows: int) -> None:
    if not rows:
        raise GateError(
            f"{context.step}: nothing to shorten", "look at why the compressed traces were dropped"
        )
    lengths = read_rows(context.out / "data.parquet", columns=LENGTH_COLUMNS)
    context.metrics.update(length_metrics(lengths))
    response_metrics(context.metrics)


def token_spans(tokenizer: Any, tasks: Sequence[Task]) -> list[list[tuple[int, int]]]:
    """Returns the positions of all tokens in the text of each task."""
    texts = [task.text for task in tasks]
    encodings = plain_backend(tokenizer).encode_batch(texts, add_special_tokens=False)
    return [encoding.offsets for encoding in encodings]


def cut_parts(tokenizer: Any, tasks: Sequence[Task], parts: Sequence[str]) -> list[Cut]:
    """Cut the chosen part of each text, which may be a little too long, to exactly its budget if possible."""
    counts = token_counts(tokenizer, parts)
    return cut_batch(tokenizer, parts, [task.budget for task in tasks], counts)


def _rows(
    context: StepContext,
    tokenizer: Any,
    shorten: Callable[[Any, list[Task]], list[Cut]],
    pairs: Iterator[_Pair],
    total: int,
) -> Iterator[Row]:
    for batch in _batches(pairs):
        cuts = [(raw["reasoning"], raw["raw_reasoning_tokens"]) for raw, _ in batch]
        longer = [
            i
            for i, (raw, short) in enumerate(batch)
            if raw["raw_reasoning_tokens"] > short["reasoning_tokens"]
        ]
        given = [
            (raw, raw["reasoning"], raw["raw_reasoning_tokens"], short["reasoning_tokens"])
            for raw, short in (batch[i] for i in longer)
        ]
        tasks = _tasks(context, given)
        for i, cut in zip(longer, shorten(tokenizer, tasks) if tasks else [], strict=True):
            cuts[i] = cut
        solutions = _solutions(context, tokenizer, shorten, batch)
        for (raw, short), (text, tokens), solution in zip(batch, cuts, solutions, strict=True):
            context.count("kept")
            if tokens != min(short["reasoning_tokens"], raw["raw_reasoning_tokens"]):
                context.count("inexact")
            yield raw | {
                "reasoning": text,
                "solution": solution,
                "messages": messages_of(raw["problem"], text, solution),
                "reasoning_chars": len(text),
                "reasoning_tokens": tokens,
                "ratio": tokens / raw["raw_reasoning_tokens"],
                "budget_tokens": short["reasoning_tokens"],
                "matched_to": short["compressor"],
            }
        context.progress(context.counts["kept"], total)


def _batches(pairs: Iterator[_Pair]) -> Iterator[list[_Pair]]:
    batch: list[_Pair] = []
    characters = 0
    for pair in pairs:
        batch.append(pair)
        characters += len(pair[0]["reasoning"])
        if len(batch) == BATCH or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _tasks(context: StepContext, given: Sequence[tuple[Row, str, int, int]], what: str = "") -> list[Task]:
    """Of (raw row, text, its tokens, its budget)."""
    seed = context.config.get("seed", 0)
    return [
        Task(
            text,
            length,
            budget,
            random.Random(f"{seed}/{raw['id']}/{raw['sample']}{what}"),  # noqa: S311 (a seeded draw, no secret)
        )
        for raw, text, length, budget in given
    ]


def _solutions(
    context: StepContext,
    tokenizer: Any,
    shorten: Callable[[Any, list[Task]], list[Cut]],
    batch: Sequence[tuple[Row, Row]],
) -> list[str]:
    """Returns the solutions; one that the compressor changed is cut to the same length, and keeps its final line."""
    solutions: list[str] = [raw["solution"] for raw, _ in batch]
    changed = [i for i, (_, short) in enumerate(batch) if short.get("solution", solutions[i]) != solutions[i]]
    finals = [final_line(solutions[i]) for i in changed]
    bodies = [
        solutions[i][: solutions[i].rfind(line)].strip() for i, line in zip(changed, finals, strict=True)
    ]
    before = token_counts(tokenizer, solutions)
    aims = token_counts(tokenizer, [batch[i][1]["solution"] for i in changed])
    ends = token_counts(tokenizer, [f"\n\n{line}" for line in finals])
    rooms = [aim - end for aim, end in zip(aims, ends, strict=True)]
    lengths = token_counts(tokenizer, bodies)
    cut = [at for at, room in enumerate(rooms) if 0 < room < lengths[at]]
    given = [(batch[changed[at]][0], bodies[at], lengths[at], rooms[at]) for at in cut]
    tasks = _tasks(context, given, "/solution")
    for at, (text, _) in zip(cut, shorten(tokenizer, tasks) if tasks else [], strict=True):
        bodies[at] = text.strip()
    for at, i in enumerate(changed):
        left = bodies[at] if rooms[at] > 0 else ""
        solutions[i] = f"{left}\n\n{finals[at]}" if left else finals[at]
    after = token_counts(tokenizer, solutions) if changed else before
    inexact = sum(after[i] != aim for i, aim in zip(changed, aims, strict=True))
    if inexact:
        context.count("inexact_solution", inexact)
    for name, counts in (("solution_tokens", after), ("raw_solution_tokens", before)):
        context.metrics[name] = context.metrics.get(name, 0) + sum(counts)
    return solutions


def _pairs(context: StepContext, start: int, stop: int) -> Iterator[_Pair]:
    """(raw, compressed) rows of the same trace, for compressed rows from `start` up to `stop`. Both tables are in raw's
    order, so neither is held whole, and of raw no more is read than what lies between the first and the last of them.

    Where the step has `tokens` instead of compressed traces, that is every row's length.
    """
    raw, compressed = context.inputs["raw"] / "data.parquet", context.inputs.get("compressed", Path())
    if tokens := context.config.get("tokens"):
        for row in read_rows(raw, BATCH, _COLUMNS, start, stop):
            yield row, {"reasoning_tokens": tokens, "compressor": None}
        return
    first = next(keys_of(compressed / "data.parquet", start, stop), None)
    place = next((number for number, key in enumerate(keys_of(raw)) if key == first), 0)
    rows = read_rows(raw, BATCH, _COLUMNS, place)
    columns = ["id", "sample", "reasoning_tokens", "compressor", "solution"]
    for short in read_rows(compressed / "data.parquet", columns=columns, start=start, stop=stop):
        key = (short["id"], short["sample"])
        found = next((row for row in rows if (row["id"], row["sample"]) == key), None)
        if found is None:
            raise InputError(
                f"{context.step}: the compressed trace {key} has no raw one after the one before it",
                "run the compressed step again: its rows follow raw's order",
            )
        yield found, short
