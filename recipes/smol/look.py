"""What docs/smol.md says beyond the report: outputs in two parts, and compressions to read by hand.

    python recipes/smol/look.py outputs            students: accuracy, tokens, how many of them are thinking
    python recipes/smol/look.py tests              paired tests of two students on the same problems
    python recipes/smol/look.py variants           traces of each variant: how many, how long, what was dropped
    python recipes/smol/look.py compressions       a fixed fifty to read by hand, with their traces
    python recipes/smol/look.py verdicts           verdicts.jsonl, counted, and those that hubkit finds false

`--out` is the folder of the runs and `--set` changes the recipe, both as in `hubkit recipe run`.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from operator import itemgetter
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from hubkit.recipe import pipeline
from hubkit.recipe.file import load_recipe
from hubkit.recipe.plan import make_plan
from hubkit.records import read_rows
from hubkit.store import Record, Store
from hubkit.traces.faithful import false_equations
from hubkit.traces.lengths import count_tokens
from hubkit.traces.thinking import split

HERE: Final = Path(__file__).resolve().parent
BASE: Final = HERE / "data" / "SmolLM2-135M-Instruct"
WORDS: Final = {
    "student",
    "benchmark",
    "method",
    "a",
    "b",
    "variant",
    "95 % interval",
    "of single seeds",
    "dropped",
}
"""Columns without figures, but for the interval."""
READ, SEED = 50, 0
Done = dict[str, tuple[Path, Record]]


def finished(recipe: Path, overrides: list[str], out: Path) -> dict[str, tuple[Path, Record]]:
    """Step -> its output and its record."""
    store = Store(out.resolve())
    plan = make_plan(load_recipe(recipe, overrides), recipe, store.root)
    states = pipeline.status(plan, store, explain=False)
    return {s.step.name: (store.folder(s.step.name, s.record.key), s.record) for s in states if s.record}


def table(*rows: list[str]) -> None:
    """In Markdown, figures to the right."""
    marks = ["---" if name in WORDS else "--:" for name in rows[0]]
    for row in [rows[0], marks, *rows[1:]]:
        print(f"| {' | '.join(row)} |")


def report(done: Done) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((done["report"][0] / "results.json").read_text(encoding="utf-8"))
    return found


def outputs(done: Done) -> None:
    """Of each student; of those that differ in their seed alone together."""
    found = report(done)
    rows = [
        ["student", "benchmark", "accuracy", "95 % interval", "of single seeds", "tokens", "of them thinking", "cut",
         "training tokens", "CPU seconds of training"]
    ]  # fmt: skip
    same = itemgetter("benchmark", "variant", "method")
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in found["students"]:
        groups.setdefault(same(row), []).append(row)
    intervals = {same(row): row for row in found["students"] + found["over_seeds"]}
    for key, group in groups.items():
        thinking: list[int] = []
        for row in group:
            samples = read_rows(
                done[f"evaluation/{row['student']}/{row['benchmark']}"][0] / "samples.parquet"
            )
            thinking += count_tokens(BASE, [split(sample["output"]).reasoning for sample in samples])
        benchmark, variant, method = key
        right, asked = sum(row["correct"] for row in group), sum(row["n"] for row in group)
        shares = sorted(100 * row["accuracy"] for row in group)
        cost = [done[f"student/{row['student']}"][1].metrics["train_cpu_seconds"] for row in group if method]
        rows.append([
            f"{variant}, {method}" if method else "untrained", benchmark,
            f"{100 * right / asked:.1f} % ({right} of {asked})",
            f"{100 * intervals[key]['ci_low']:.1f} to {100 * intervals[key]['ci_high']:.1f}",
            ", ".join(f"{share:.1f}" for share in shares) if len(shares) > 1 else "",
            f"{fmean(row['mean_output_tokens'] for row in group):.1f}", f"{fmean(thinking):.1f}",
            f"{100 * fmean(row['cut_share'] for row in group):.1f} %",
            *([f"{group[0]['train_tokens']:,}", f"{fmean(cost):.0f}"] if method else ["", ""]),
        ])  # fmt: skip
    table(*rows)


def tests(done: Done) -> None:
    """Of all pairs of variants, of all seeds together where there are several; then of compression and its controls
    alone, with a correction of their own."""
    found = report(done)
    _tests(found["seed_tests"] or found["tests"])
    print()
    _tests(found["nulls"])


def _tests(found: list[dict[str, Any]]) -> None:
    rows = [["benchmark", "method", "a", "b", "points", "only a is right", "only b", "p", "with Holm"]]
    for test in found:
        points = f"{100 * test['difference']:+.1f}".replace("-", "−")
        rows.append([
            test["benchmark"], test["method"], test["a"], test["b"], points, str(test["only_a"]),
            str(test["only_b"]), f"{test['p']:.2g}", f"{test['p_holm']:.2g}",
        ])  # fmt: skip
    table(*rows)


def variants(done: Done) -> None:
    rows = [["variant", "traces", "tokens of raw", "characters of raw", "dropped"]]
    for row in report(done)["variants"]:
        dropped = ", ".join(f"{number} {reason}" for reason, number in row["dropped"].items())
        rows.append([
            row["variant"], str(row["rows"]), f"{100 * row['ratio_tokens']:.1f} %", f"{100 * row['ratio_chars']:.1f} %",
            dropped or "none",
        ])  # fmt: skip
    table(*rows)


def compressions(done: Done) -> None:
    rows: list[dict[str, Any]] = []
    for name, (folder, _) in done.items():
        if name.startswith("compressed/"):
            rows += read_rows(folder / "data.parquet")
    raw = {
        (row["id"], row["sample"]): row["reasoning"]
        for name, (folder, _) in done.items()
        if name.startswith("raw/")
        for row in read_rows(folder / "data.parquet")
    }
    drawn = random.Random(SEED).sample(rows, min(READ, len(rows)))
    for row in sorted(drawn, key=lambda row: row["id"]):
        print(f"=== {row['id']}\n{row['problem']}\n--- answer {row['answer']}; the trace")
        print(f"{raw[row['id'], row['sample']]}\n--- compressed\n{row['reasoning']}\n")


def verdicts() -> None:
    rows = [json.loads(line) for line in (HERE / "verdicts.jsonl").read_text(encoding="utf-8").splitlines()]
    of = itemgetter("rewrite", "verdict")
    false = Counter(
        of(row)
        for row in rows
        if false_equations(row["compressed"], row["problem"], row["trace"], row["answer"])
    )
    for kind, number in sorted(Counter(map(of, rows)).items()):
        total = sum(row["rewrite"] == kind[0] for row in rows)
        print(f"rewrite {kind[0]}: {number} of {total} {kind[1]}, {false[kind]} of them with false equations")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["outputs", "tests", "variants", "compressions", "verdicts"])
    parser.add_argument("--recipe", type=Path, default=HERE / "recipe.yaml")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    arguments = parser.parse_args()
    if arguments.what == "verdicts":
        verdicts()
    else:
        done = finished(arguments.recipe, arguments.overrides, arguments.out)
        show = {"outputs": outputs, "tests": tests, "variants": variants, "compressions": compressions}
        show[arguments.what](done)


if __name__ == "__main__":
    main()
