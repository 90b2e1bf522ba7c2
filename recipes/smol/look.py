"""What docs/smol.md says beyond the report: outputs in two parts, and compressions to read by hand.

    python recipes/smol/look.py outputs            tokens of each student's thinking and of what follows it
    python recipes/smol/look.py tests              paired tests of two students on the same problems, from the report
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
from hubkit.store import Store
from hubkit.traces.faithful import false_equations
from hubkit.traces.lengths import count_tokens
from hubkit.traces.thinking import split

HERE: Final = Path(__file__).resolve().parent
READ, SEED = 50, 0


def folders(recipe: Path, overrides: list[str], out: Path) -> dict[str, Path]:
    """Step -> its finished output."""
    store = Store(out.resolve())
    plan = make_plan(load_recipe(recipe, overrides), recipe, store.root)
    states = pipeline.status(plan, store, explain=False)
    return {s.step.name: store.folder(s.step.name, s.record.key) for s in states if s.record}


def outputs(done: dict[str, Path]) -> None:
    print(f"{'student':<44}{'outputs':>8}{'thinking':>10}{'solution':>10}{'whole':>8}{'no end':>8}")
    for name, folder in done.items():
        if not name.startswith("evaluation/"):
            continue
        rows = list(read_rows(folder / "samples.parquet"))
        parts = [split(row["output"]) for row in rows]
        base = HERE / "data" / "SmolLM2-135M-Instruct"
        thinking = count_tokens(base, [part.reasoning for part in parts])
        solution = count_tokens(base, [part.solution for part in parts])
        endless = sum(row["finish_reason"] == "length" for row in rows) / len(rows)
        print(
            f"{name.split('/')[1]:<44}{len(rows):>8}{fmean(thinking):>10.1f}{fmean(solution):>10.1f}"
            f"{fmean(row['output_tokens'] for row in rows):>8.1f}{endless:>8.1%}"
        )


def tests(done: dict[str, Path]) -> None:
    print(f"{'method':<8}{'a':<22}{'b':<22}{'points':>8}{'only a':>8}{'only b':>8}{'p':>9}{'Holm':>9}")
    for test in json.loads((done["report"] / "results.json").read_text(encoding="utf-8"))["tests"]:
        print(
            f"{test['method']:<8}{test['a']:<22}{test['b']:<22}{100 * test['difference']:>+8.1f}"
            f"{test['only_a']:>8}{test['only_b']:>8}{test['p']:>9.2g}{test['p_holm']:>9.2g}"
        )


def compressions(done: dict[str, Path]) -> None:
    rows: list[dict[str, Any]] = []
    for name, folder in done.items():
        if name.startswith("compressed/"):
            rows += read_rows(folder / "data.parquet")
    raw = {
        (row["id"], row["sample"]): row["reasoning"]
        for name, folder in done.items()
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
    parser.add_argument("what", choices=["outputs", "tests", "compressions", "verdicts"])
    parser.add_argument("--recipe", type=Path, default=HERE / "recipe.yaml")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    arguments = parser.parse_args()
    if arguments.what == "verdicts":
        verdicts()
    else:
        done = folders(arguments.recipe, arguments.overrides, arguments.out)
        {"outputs": outputs, "tests": tests, "compressions": compressions}[arguments.what](done)


if __name__ == "__main__":
    main()
