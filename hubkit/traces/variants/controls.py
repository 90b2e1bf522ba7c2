"""What all controls share: raw traces shortened to the lengths of a compressor's, row by row.

    raw {"id": "x", "sample": 0, "reasoning": "We need 47 + 38 - 12. …", "reasoning_tokens": 210, …} and a compressed
    trace of 31 tokens -> {"reasoning": <31 tokens of it>, "budget_tokens": 31, "matched_to": "nano-compressor", …}

Same tokens spent, and no model's choice of which. A control says only which part of the text it takes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from hubkit.errors import GateError, InputError
from hubkit.records import messages_of, read_rows, write_rows
from hubkit.store import StepContext
from hubkit.traces.cut import Cut, cut_batch
from hubkit.traces.lengths import LENGTH_COLUMNS, length_metrics, load_tokenizer, plain_backend, token_counts
from hubkit.traces.variants import VARIANTS

__all__ = ["Task", "cut_parts", "run_control"]

BATCH: Final = 512
"""Traces shortened together: enough to keep the tokenizer busy, few enough to hold in memory at 30k tokens each."""


@dataclass(frozen=True)
class Task:
    """One trace to be shortened."""

    text: str
    length: int
    """Its tokens."""
    budget: int
    """Tokens that may stay, fewer than `length`."""
    spans: list[tuple[int, int]]
    """Where each token stands in the text."""
    chance: random.Random
    """The same for the same recipe seed and trace."""


def run_control(context: StepContext, kind: str, shorten: Callable[[Any, list[Task]], list[Cut]]) -> None:
    """Write data.parquet: one row for every compressed one, in its order.

    `shorten(tokenizer, tasks)` gives a text and its tokens for each; `inexact` counts those without exactly the budget.
    """
    tokenizer = load_tokenizer(context.model("tokenizer"))
    out = context.out / "data.parquet"
    total = context.record("raw" if "tokens" in context.config else "compressed").counts["kept"]
    if not write_rows(out, _rows(context, tokenizer, shorten, total), VARIANTS[kind].schema):
        raise GateError(
            f"{context.step}: nothing to shorten", "look at why the compressed traces were dropped"
        )
    context.metrics.update(length_metrics(read_rows(out, columns=LENGTH_COLUMNS)))


def cut_parts(tokenizer: Any, tasks: Sequence[Task], parts: Sequence[str]) -> list[Cut]:
    """Cut what was taken of each text, which may be a little too long, to exactly its budget where that exists."""
    counts = token_counts(tokenizer, parts)
    return cut_batch(tokenizer, parts, [task.budget for task in tasks], counts)


def _rows(
    context: StepContext, tokenizer: Any, shorten: Callable[[Any, list[Task]], list[Cut]], total: int
) -> Iterator[dict[str, Any]]:
    pairs = _pairs(context)
    while batch := list(islice(pairs, BATCH)):
        cuts = [(raw["reasoning"], raw["raw_reasoning_tokens"]) for raw, _ in batch]
        longer = [
            i
            for i, (raw, short) in enumerate(batch)
            if raw["raw_reasoning_tokens"] > short["reasoning_tokens"]
        ]
        tasks = _tasks(context, tokenizer, [batch[i] for i in longer])
        for i, cut in zip(longer, shorten(tokenizer, tasks) if tasks else [], strict=True):
            cuts[i] = cut
        for (raw, short), (text, tokens) in zip(batch, cuts, strict=True):
            context.count("kept")
            if tokens != min(short["reasoning_tokens"], raw["raw_reasoning_tokens"]):
                context.count("inexact")
            yield raw | {
                "reasoning": text,
                "messages": messages_of(raw["problem"], text, raw["solution"]),
                "reasoning_chars": len(text),
                "reasoning_tokens": tokens,
                "ratio": tokens / raw["raw_reasoning_tokens"],
                "budget_tokens": short["reasoning_tokens"],
                "matched_to": short["compressor"],
            }
        context.progress(context.counts["kept"], max(total, context.counts["kept"]))


def _tasks(
    context: StepContext, tokenizer: Any, pairs: list[tuple[dict[str, Any], dict[str, Any]]]
) -> list[Task]:
    texts = [raw["reasoning"] for raw, _ in pairs]
    encodings = plain_backend(tokenizer).encode_batch(texts, add_special_tokens=False)
    seed = context.config.get("seed", 0)
    return [
        Task(
            raw["reasoning"],
            raw["raw_reasoning_tokens"],
            short["reasoning_tokens"],
            list(encoding.offsets),
            random.Random(f"{seed}/{raw['id']}/{raw['sample']}"),  # noqa: S311 (a seeded draw, no secret)
        )
        for (raw, short), encoding in zip(pairs, encodings, strict=True)
    ]


def _pairs(context: StepContext) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(raw, compressed) rows of the same trace. Both files are in raw's order, so neither is held whole.

    Where the step has `tokens` instead of compressed traces, that is every row's length.
    """
    rows = read_rows(context.inputs["raw"] / "data.parquet", batch=BATCH)
    if tokens := context.config.get("tokens"):
        yield from ((raw, {"reasoning_tokens": tokens, "compressor": None}) for raw in rows)
        return
    columns = ["id", "sample", "reasoning_tokens", "compressor"]
    for short in read_rows(context.inputs["compressed"] / "data.parquet", columns=columns):
        key = (short["id"], short["sample"])
        raw = next((row for row in rows if (row["id"], row["sample"]) == key), None)
        if raw is None:
            raise InputError(
                f"{context.step}: the compressed trace {key} has no raw one after the one before it",
                "run the compressed step again: its rows follow raw's order",
            )
        yield raw, short
