"""The step `selected`: which of the correct traces all variants are made from, under a budget.

    select {"tokens": 2000000, "by": "shortest", "pass_rate": [0.1, 0.9], "seed": 0}
    raw {"id": "x", "sample": 0, "reasoning_tokens": 210, …}, {"id": "x", "sample": 1, "reasoning_tokens": 90, …}
    -> data.parquet with (x, 1), in raw's order

It comes before the variants, so that only selected traces are compressed, and all variants have the same rows.
Problems that `decontamination` leaves out are left out here, too.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, model_validator

from hubkit.errors import GateError
from hubkit.problems.base import normalise
from hubkit.records import read_rows, write_rows
from hubkit.section import Section
from hubkit.store import StepContext
from hubkit.traces.lengths import LENGTH_COLUMNS, count_tokens, length_metrics
from hubkit.traces.variants import VARIANTS

__all__ = ["VERSION", "Selection", "run"]

VERSION: Final = 1
BATCH: Final = 512
"""Traces whose solutions are counted together."""


class Selection(Section):
    """A recipe's `select`: for each teacher, or each entry of `traces`."""

    LATER = frozenset({"rows", "tokens", "pass_rate", "length"})

    rows: int | None = Field(default=None, gt=0)
    """Maximum number of traces."""
    tokens: int | None = Field(default=None, gt=0)
    """Maximum tokens of reasoning and solution together, by the tokenizer of the first base."""
    by: Literal["random", "shortest"] = "random"
    """random: traces in random order. shortest: the shortest correct trace of each problem, these in random order."""
    pass_rate: tuple[float, float] | None = None
    """Only problems whose share of correct samples is in this range, such as [0.1, 0.9]."""
    length: tuple[int, int] | None = None
    """Only traces whose tokens of reasoning are in this range, such as [100, 4000], by the first base's tokenizer."""
    seed: int = 0
    """Seed of the random order."""

    @model_validator(mode="after")
    def _chooses(self) -> Selection:
        if self.by == "random" and not (self.rows or self.tokens or self.pass_rate or self.length):
            raise ValueError("nothing is selected: give rows, tokens, length, pass_rate, or by: shortest")
        if self.length and not 0 <= self.length[0] <= self.length[1]:
            raise ValueError("length is from and to, in tokens, as [100, 4000]")
        if self.pass_rate and not 0 <= self.pass_rate[0] <= self.pass_rate[1] <= 1:
            raise ValueError("pass_rate is from and to, each from 0 to 1, as [0.1, 0.9]")
        return self

    def describe(self) -> str:
        """For cards."""
        parts = ["the shortest correct trace of each problem"] if self.by == "shortest" else []
        if self.pass_rate:
            low, high = self.pass_rate
            parts.append(f"only problems of which {low:g} to {high:g} of the samples are correct")
        if self.length:
            parts.append(f"only traces of {self.length[0]:,} to {self.length[1]:,} tokens of reasoning")
        limits = [f"{n:,} {unit}" for n, unit in ((self.rows, "traces"), (self.tokens, "tokens")) if n]
        if limits:
            parts.append(f"in random order (seed {self.seed}) up to {' or '.join(limits)}")
        return ", ".join(parts)


@dataclass(frozen=True)
class _Trace:
    place: int
    """In raw's order."""
    problem: bytes
    """Digest of its text: the same problem may come under several ids."""
    tokens: int
    """Tokens of reasoning and solution; 0 if the selection does not need them."""


def run(context: StepContext) -> None:
    """Write data.parquet. Raises GateError if nothing is left."""
    given = context.config.get("select")
    settings = Selection.model_validate(given) if given else None
    traces = list(_traces(context, settings))
    if settings and settings.pass_rate:
        low, high = settings.pass_rate
        rates = _pass_rates(context)
        inside = [t for t in traces if low <= rates[t.problem] <= high]
        _count(context, "pass_rate", len(traces) - len(inside))
        traces = inside
    chosen = _within_budget(context, settings, traces) if settings else traces
    places = {trace.place for trace in chosen}
    out, schema = context.out / "data.parquet", VARIANTS["raw"].schema
    raw = read_rows(context.inputs["raw"] / "data.parquet")
    kept = write_rows(out, (row for place, row in enumerate(raw) if place in places), schema)
    if not kept:
        reasons = ", ".join(f"{name} {n}" for name, n in sorted(context.counts.items()))
        raise GateError(f"{context.step}: no trace is selected ({reasons})", "ask for more in `select`")
    context.count("kept", kept)
    context.metrics.update(length_metrics(read_rows(out, columns=LENGTH_COLUMNS)))
    if settings and _needs_tokens(settings):
        context.metrics["response_tokens"] = sum(trace.tokens for trace in chosen)


def _within_budget(context: StepContext, settings: Selection, traces: list[_Trace]) -> list[_Trace]:
    """Take traces in random order until one does not fit: taking a shorter one instead would favour short ones."""
    if settings.by == "shortest":
        shortest: dict[bytes, _Trace] = {}
        for trace in traces:
            if trace.tokens < shortest.setdefault(trace.problem, trace).tokens:
                shortest[trace.problem] = trace
        _count(context, "longer", len(traces) - len(shortest))
        traces = list(shortest.values())
    order = sorted(traces, key=lambda trace: trace.place)
    random.Random(f"{settings.seed}/{context.config['teacher']}").shuffle(order)  # noqa: S311 (a seeded draw)
    chosen = order[: settings.rows]
    if settings.tokens:
        total = 0
        for number, trace in enumerate(chosen):
            total += trace.tokens
            if total > settings.tokens:
                chosen = chosen[:number]
                break
    _count(context, "budget", len(order) - len(chosen))
    return chosen


def _count(context: StepContext, reason: str, number: int) -> None:
    if number:
        context.count(f"dropped_{reason}", number)


def _needs_tokens(settings: Selection) -> bool:
    return settings.by == "shortest" or settings.tokens is not None


def _traces(context: StepContext, settings: Selection | None) -> Iterator[_Trace]:
    """Yield the candidates: raw traces whose problem is not left out."""
    left_out = _left_out(context)
    counted = settings is not None and _needs_tokens(settings)
    columns = ["id", "problem", "reasoning_tokens", *(["solution"] if counted else [])]
    rows = enumerate(read_rows(context.inputs["raw"] / "data.parquet", columns=columns))
    while batch := list(islice(rows, BATCH)):
        tokens = [0] * len(batch)
        if counted:
            told = count_tokens(context.model("tokenizer"), [row["solution"] for _, row in batch])
            tokens = [n + row["reasoning_tokens"] for n, (_, row) in zip(told, batch, strict=True)]
        for (place, row), number in zip(batch, tokens, strict=True):
            reason = left_out.get(row["id"], "")
            if not reason and settings and settings.length:
                low, high = settings.length
                reason = "" if low <= row["reasoning_tokens"] <= high else "length_filter"
            if reason:
                context.count(f"dropped_{reason}")
            else:
                yield _Trace(place, _digest(row["problem"]), number)


def _left_out(context: StepContext) -> dict[str, str]:
    """Returns id -> reason, of the problems that decontamination leaves out."""
    folder = context.inputs.get("contamination")
    rows = read_rows(folder / "dropped.parquet") if folder else iter(())
    return {row["id"]: row["reason"] for row in rows if row["input"] == context.config["asked"]}


def _pass_rates(context: StepContext) -> dict[bytes, float]:
    """Returns problem -> share of its samples that are correct."""
    problems = {
        row["id"]: _digest(row["problem"]) for row in read_rows(_problems(context), columns=["id", "problem"])
    }
    raw = context.inputs["raw"]
    right = Counter(problems[row["id"]] for row in read_rows(raw / "data.parquet", columns=["id"]))
    wrong = Counter(problems[row["id"]] for row in read_rows(raw / "rejected.parquet", columns=["id"]))
    return {problem: n / (n + wrong[problem]) for problem, n in right.items()}


def _problems(context: StepContext) -> Path:
    return context.inputs["problems"] / "problems.parquet"


def _digest(problem: str) -> bytes:
    return hashlib.blake2b(normalise(problem).encode("utf-8", "replace"), digest_size=16).digest()
