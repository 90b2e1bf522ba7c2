"""Shows what a source of traces contains, before there is a recipe; it is read as the recipe's step reads it.

inspect(*open_source("org/name"), rows=1000)
    -> Inspection(columns={"problem": "question", …}, rows=1000, traces=1000, usable=941,
                  dropped={"no_answer": Dropped(59, "org/name: row 17")}, …)
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from hubkit.errors import InputError
from hubkit.problems.base import Pin
from hubkit.traces.join import reject_reason
from hubkit.traces.lengths import count_tokens
from hubkit.traces.origins.existing import Existing, layout_of, read, unusable
from hubkit.traces.origins.shapes import Found
from hubkit.verifiers.pool import shared_pool
from hubkit.verifiers.table import verifier_named, verify_inline

__all__ = ["Agreement", "Dropped", "Inspection", "Lengths", "Stats", "inspect", "stats"]

BATCH: Final = 256
"""Traces whose tokens are counted together."""
EXAMPLES: Final = 2


@dataclass
class Dropped:
    """Traces, or unreadable rows, that would be left out for one reason."""

    number: int
    first: str
    """The first of them: its row, and the error if it cannot be read."""


@dataclass
class Agreement:
    """Answers of traces drawn at random, verified."""

    verifier: str
    sample: int
    """Traces that were verified."""
    outcomes: dict[str, int]
    """correct, wrong, unparseable, … -> number."""
    claimed: int
    """Number of them for which the source says whether they are correct."""
    claimed_correct_found_wrong: int
    claimed_wrong_found_correct: int


@dataclass
class Inspection:
    source: str
    revision: str
    license: str
    """The source's licence; "" if it states none."""
    columns: dict[str, str]
    """Role -> the column that it was found in."""
    system: str
    """The system message that the first rows have, which is left out of problems; "" if there is none."""
    rows: int
    """Rows that were read."""
    more: bool
    """Whether reading stopped at the limit."""
    traces: int
    """Responses in them."""
    usable: int
    """Traces that would go on to verification."""
    dropped: dict[str, Dropped]
    with_key: int
    """Traces with a known answer."""
    lack_key: int
    """Traces that lack only a known answer."""
    claims: dict[str, int]
    """The source's own verdicts on its traces: correct, wrong, nothing."""
    lengths: dict[str, dict[str, float]]
    """reasoning and solution, in characters and tokens -> p5, p50, p95, max, mean."""
    agreement: Agreement | None
    """None if there is nothing to verify with."""
    examples: list[dict[str, str]]
    """problem, answer, reasoning and solution of the first traces, whole."""


@dataclass
class Lengths:
    """Lengths of texts, added one by one; only numbers are kept."""

    tokenizer: Path | None = None
    columns: dict[str, list[int]] = field(default_factory=dict)
    _waiting: dict[str, list[str]] = field(default_factory=dict)

    def add(self, **texts: str) -> None:
        for name, text in texts.items():
            self.columns.setdefault(f"{name}_characters", []).append(len(text))
            if self.tokenizer:
                waiting = self._waiting.setdefault(name, [])
                waiting.append(text)
                if len(waiting) == BATCH:
                    self._count(name)

    def _count(self, name: str) -> None:
        assert self.tokenizer is not None
        tokens = count_tokens(self.tokenizer, self._waiting[name])
        self.columns.setdefault(f"{name}_tokens", []).extend(tokens)
        self._waiting[name] = []

    def quantiles(self) -> dict[str, dict[str, float]]:
        for name in self._waiting:
            self._count(name)
        return {name: _quantiles(values) for name, values in self.columns.items() if values}


def _quantiles(values: list[int]) -> dict[str, float]:
    table = np.asarray(values, dtype=np.int64)
    found = {f"p{q}": float(np.percentile(table, q)) for q in (5, 50, 95)}
    return found | {"max": float(table.max()), "mean": float(table.mean())}


def inspect(
    origin: Existing,
    pin: Pin,
    *,
    sample: int = 200,
    tokenizer: Path | None = None,
    seed: int = 0,
) -> Inspection:
    """Read a source as far as its `limit`, and verify `sample` of its traces that have a known answer.

    Lengths are in characters, with a tokenizer's folder in tokens, too. Traces without a known answer count as dropped,
    and their lengths and examples are shown all the same: a recipe may keep them unverified.

    Raises InputError for what cannot be read at all, and where the verifier cannot work on this machine.
    """
    verifier = verifier_named(origin.verifier)
    if sample and verifier.name != "judge":
        verifier.check_machine()
    layout = layout_of(origin, pin)
    dropped: dict[str, Dropped] = {}
    lengths = Lengths(tokenizer)
    drawn = _Reservoir(sample, random.Random(f"{seed}/{origin.name}"))  # noqa: S311 (a seeded draw, no secret)
    claims: Counter[str] = Counter(correct=0, wrong=0, nothing=0)
    examples: list[dict[str, str]] = []
    rows = traces = usable = with_key = lack_key = 0
    seen: set[bytes] = set()

    def drop(reason: str, detail: str) -> None:
        nonlocal rows
        rows += reason in ("unreadable", "filtered")
        dropped.setdefault(reason, Dropped(0, detail)).number += 1

    for where, found in read(origin, pin, seed, drop, layout):
        rows += 1
        for trace in found:
            traces += 1
            with_key += bool(trace.answer)
            claims[{True: "correct", False: "wrong", None: "nothing"}[trace.claimed]] += 1
            reason = unusable(origin, trace, seen) or _unfit(trace)
            if reason:
                drop(reason, where)
                if reason != "no_answer" or _unfit(trace):
                    continue
            usable += not reason
            lack_key += reason == "no_answer"
            lengths.add(reasoning=trace.thought.reasoning, solution=trace.thought.solution)
            if len(examples) < EXAMPLES:
                examples.append(_example(trace))
            if trace.answer:
                drawn.offer(trace)
    if not rows:
        raise InputError(f"{origin.place()} has no rows", "check the file, or the split")
    return Inspection(
        source=origin.place(),
        revision=pin.revision,
        license=origin.license,
        columns=layout.columns,
        system=layout.system,
        rows=rows,
        more=origin.limit is not None and rows >= origin.limit,
        traces=traces,
        usable=usable,
        dropped=dict(sorted(dropped.items(), key=lambda item: -item[1].number)),
        with_key=with_key,
        lack_key=lack_key,
        claims=dict(claims),
        lengths=lengths.quantiles(),
        agreement=_verified(origin, drawn.kept) if drawn.kept and verifier.name != "judge" else None,
        examples=examples,
    )


@dataclass
class Stats:
    source: str
    traces: int
    lengths: dict[str, dict[str, float]]
    """As in Inspection."""
    ratio: dict[str, float]
    """Tokens of reasoning, and of reasoning and solution, over those of the same raw traces; empty for what is raw."""


def stats(
    rows: Iterable[tuple[str, str]],
    source: str,
    tokenizer: Path,
    raw: int | None = None,
    raw_solution: int | None = None,
) -> Stats:
    """Lengths of (reasoning, solution), streamed.

    `raw` and `raw_solution`: their tokens before they were shortened; without the second solutions are as they were.
    """
    lengths = Lengths(tokenizer)
    for reasoning, solution in rows:
        lengths.add(reasoning=reasoning, solution=solution)
    found = lengths.quantiles()
    if not found:
        raise InputError(f"{source} has no traces", "look at it: hubkit traces inspect")
    ratio = {}
    if raw:
        thought, told = (sum(lengths.columns[f"{part}_tokens"]) for part in ("reasoning", "solution"))
        before = raw + (told if raw_solution is None else raw_solution)
        ratio = {"reasoning": thought / raw, "response": (thought + told) / before}
    return Stats(source, len(lengths.columns["reasoning_characters"]), found, ratio)


def _unfit(trace: Found) -> str:
    """Returns why `raw` would drop a trace before it verifies the answer."""
    found = reject_reason(
        {
            "error": "",
            "finish_reason": trace.finish_reason,
            "thinking": trace.thought.form,
            "reasoning": trace.thought.reasoning,
            "solution": trace.thought.solution,
        }
    )
    return found[0] if found else ""


def _example(trace: Found) -> dict[str, str]:
    thought = trace.thought
    return {
        "problem": trace.problem,
        "answer": trace.answer,
        "reasoning": thought.reasoning,
        "solution": thought.solution,
    }


class _Reservoir:
    """Draws `size` of the offered traces uniformly, however many come."""

    def __init__(self, size: int, generator: random.Random) -> None:
        self.kept: list[Found] = []
        self._size, self._generator, self._offered = size, generator, 0

    def offer(self, trace: Found) -> None:
        self._offered += 1
        if len(self.kept) < self._size:
            self.kept.append(trace)
        elif (place := self._generator.randrange(self._offered)) < self._size:
            self.kept[place] = trace


def _verified(origin: Existing, traces: list[Found]) -> Agreement:
    def works() -> Iterator[tuple[Found, Any]]:
        for trace in traces:
            problem: Mapping[str, Any] = {
                "problem": trace.problem,
                "answer": trace.answer,
                "verifier": origin.verifier,
                "metadata": "",
            }
            yield trace, verify_inline(problem, trace.thought.solution)

    outcomes: Counter[str] = Counter()
    pairs: Counter[tuple[bool | None, str]] = Counter()
    for trace, verdict in shared_pool().stream(works()):
        outcomes[verdict[0]] += 1
        pairs[trace.claimed, verdict[0]] += 1
    return Agreement(
        verifier=origin.verifier,
        sample=len(traces),
        outcomes=dict(outcomes.most_common()),
        claimed=sum(number for (claimed, _), number in pairs.items() if claimed is not None),
        claimed_correct_found_wrong=pairs[True, "wrong"],
        claimed_wrong_found_correct=pairs[False, "correct"],
    )
