"""Traces: rows, lengths and ratios counted again, variants joined to raw, every answer verified again.

compressed row {"id": "x", "sample": 0, "reasoning": "…", "reasoning_tokens": 31, "raw_reasoning_tokens": 210, …}
    its tokens counted by the published tokenizer, its raw length looked up in raw, its ratio divided again,
    its messages put together again, its problem compared with the published one
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

from hubkit.records import messages_of, read_rows
from hubkit.release.check.claims import Claims
from hubkit.release.check.published import Published
from hubkit.traces.lengths import count_tokens, length_metrics
from hubkit.traces.variants import Variant
from hubkit.verifiers import verify_problems

__all__ = ["check_contamination", "check_traces"]

_BATCH: Final = 512
Row = dict[str, Any]
Key = tuple[str, int]


def check_traces(release: Published, claims: Claims) -> None:
    """Everything that the trace datasets and their cards count."""
    facts = release.facts
    problems = _Problems(release)
    for teacher, repo in release.manifest.traces.items():
        variants = facts.variants(teacher)
        raw: dict[Key, Row] = {}
        lengths: dict[Variant, dict[Key, int]] = {}
        for variant, step in variants.items():
            path = facts.folders[step] / variant.row.file
            check = _Variant(variant, raw, lengths, problems, release.tokenizer())
            kept = check.run(path)
            if variant.kind == "raw":
                raw |= kept
            lengths[variant] = check.tokens
            what, n = f"config {variant.name}", check.rows
            for name, wrong in check.wrong.items():
                claims.compare_rows(repo, f"{what}: {name}", wrong, n)
            for name, why in check.skipped.items():
                claims.skip(repo, f"{what}: {name}", why)
            metrics = facts.records[step].metrics
            found = length_metrics(read_rows(path)) if n else {"rows": 0}
            said = {name: metrics.get(name) for name in found}
            for name in ("rows", "problems", "reasoning_tokens", "ratio_tokens", "ratio_chars", "quantiles"):
                claims.compare(repo, f"{what}: {name.replace('_', ' ')}", said.get(name), found.get(name))
            counts = facts.records[step].counts
            claims.compare(repo, f"{what}: rows kept", counts.get("kept"), n)


class _Problems:
    """Published problems of training by id, one set at a time in memory."""

    def __init__(self, release: Published) -> None:
        # Origins that bring their own problems have them in their rows alone.
        step = f"problems/{release.recipe.train_on}"
        rows = read_rows(release.facts.folders[step] / "problems.parquet") if step in release.records else []
        self.rows = {row["id"]: row for row in rows}


class _Variant:
    """One pass over the rows of one variant."""

    def __init__(
        self,
        variant: Variant,
        raw: dict[Key, Row],
        lengths: dict[Variant, dict[Key, int]],
        problems: _Problems,
        tokenizer: Path,
    ) -> None:
        self._variant, self._raw, self._problems, self._tokenizer = variant, raw, problems, tokenizer
        of = Variant("compressed", variant.compressor) if variant.row.matched else None
        self._budget = lengths.get(of, {}) if of else None
        self.rows = 0
        self.tokens: dict[Key, int] = {}
        self.wrong: dict[str, list[str]] = {}
        self.skipped: dict[str, str] = {}

    def run(self, path: Path) -> dict[Key, Row]:
        """Returns what of each row the other variants are compared with."""
        kept: dict[Key, Row] = {}
        rows = read_rows(path, batch=_BATCH)
        while batch := list(islice(rows, _BATCH)):
            counted = count_tokens(self._tokenizer, [row["reasoning"] for row in batch])
            for row, tokens in zip(batch, counted, strict=True):
                self._look(row, tokens)
                key = (row["id"], row["sample"])
                self._note("each (id, sample) once", row, "" if key not in self.tokens else "twice")
                self.tokens[key] = tokens
                if self._variant.kind == "raw":
                    kept[key] = {
                        "tokens": tokens,
                        "chars": len(row["reasoning"]),
                        "reasoning": row["reasoning"],
                    }
                    kept[key]["solution"] = row["solution"]
            self._verify(batch)
            self.rows += len(batch)
        return kept

    def _note(self, what: str, row: Row, fault: str) -> None:
        listed = self.wrong.setdefault(what, [])
        if fault:
            listed.append(f"{row['id']}, sample {row['sample']}: {fault}")

    def _look(self, row: Row, tokens: int) -> None:
        note = self._note
        note("reasoning tokens", row, _unlike(row["reasoning_tokens"], tokens))
        note("reasoning characters", row, _unlike(row["reasoning_chars"], len(row["reasoning"])))
        text = messages_of(row["problem"], row["reasoning"], row["solution"])
        note(
            "messages hold problem, reasoning, solution", row, "" if row["messages"] == text else "other text"
        )
        problem = self._problems.rows.get(row["id"]) if self._problems.rows else row
        same = problem and all(row[k] == problem[k] for k in ("problem", "answer", "source", "verifier"))
        note(
            "problem and answer, as published",
            row,
            "" if same else "another problem" if problem else "no such",
        )
        note("ratio", row, _unlike(row["ratio"], tokens / max(1, row["raw_reasoning_tokens"])))
        own = {
            "tokens": tokens,
            "chars": len(row["reasoning"]),
            **{k: row[k] for k in ("reasoning", "solution")},
        }
        raw = own if self._variant.kind == "raw" else self._raw.get((row["id"], row["sample"]))
        note("joined to raw on (id, sample)", row, "" if raw else "not in raw")
        if raw is None:
            return
        note("raw reasoning tokens", row, _unlike(row["raw_reasoning_tokens"], raw["tokens"]))
        note("raw reasoning characters", row, _unlike(row["raw_reasoning_chars"], raw["chars"]))
        note(
            "solution of the raw trace", row, "" if row["solution"] == raw["solution"] else "another solution"
        )
        if self._budget is not None:
            budget = self._budget.get((row["id"], row["sample"]))
            note("budget is the compressed length", row, _unlike(row["budget_tokens"], budget))
            # Where no cut has exactly the budget, the nearest one stands, and the record counts it.
            note(
                "length is the budget",
                row,
                "" if abs(tokens - row["budget_tokens"]) <= 1 else f"{tokens} tokens",
            )
            head = raw["reasoning"].startswith(row["reasoning"].rstrip("\ufffd"))
            note("text is the beginning of raw", row, "" if head else "other text")

    def _verify(self, batch: list[Row]) -> None:
        what = "answer verified again"
        if not self._problems.rows:
            self.skipped[what] = "the problems came with the traces, and are published in their rows alone"
            return
        asked = [(self._problems.rows.get(row["id"]), row) for row in batch]
        able = [(p, row) for p, row in asked if p is not None and p["verifier"] != "judge"]
        if len(able) < len(batch) and any(p is not None and p["verifier"] == "judge" for p, _ in asked):
            self.skipped[what] = "a language model judged these answers; ask it again with the recipe"
        for (_, row), verdict in zip(able, verify_problems((p, r["solution"]) for p, r in able), strict=True):
            right = verdict.status == "correct"
            self._note(
                what, row, "" if right == row["correct"] and right else f"{verdict.status}: {verdict.reason}"
            )


def _unlike(published: Any, found: Any) -> str:
    if published is None or found is None:
        return "" if published is found else f"{published} for {found}"
    near = math.isclose(published, found, rel_tol=1e-9)
    return "" if near else f"{published:g} for {found:g}"


def check_contamination(release: Published, claims: Claims) -> None:
    """Run the contamination step again on the published problems, and compare its report."""
    from hubkit.errors import GateError, HubkitError
    from hubkit.problems import contamination
    from hubkit.store import StepContext

    where, record = release.manifest.problems or release.name, release.records.get("contamination")
    if record is None or f"problems/{release.recipe.train_on}" not in release.records:
        claims.skip(
            where, "contamination", "the release has no such record, or no training problems of its own"
        )
        return
    sets = {name.partition("/")[2]: folder for name, folder in _problem_folders(release)}
    used = {b.problems for b in release.recipe.benchmarks if b.problems}
    inputs = {"train": sets[release.recipe.train_on]} | {name: sets[name] for name in sorted(used)}
    out, work = release.work / "contamination", release.work / "contamination-work"
    out.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    context = StepContext("contamination", record.config, {}, inputs, {}, out, work)
    try:
        contamination.run(context)
    except GateError as error:
        claims.wrong(where, "contamination: test problems in the training set", record.metrics, error.message)
        return
    except HubkitError as error:
        claims.skip(where, "contamination", error.message)
        return
    claims.compare(where, "contamination: test problems in the training set", record.metrics, context.metrics)


def _problem_folders(release: Published) -> Iterable[tuple[str, Path]]:
    return ((name, release.facts.folders[name]) for name in release.steps("problems"))


def _iter(rows: Iterable[Row]) -> Iterator[Row]:
    return iter(rows)
