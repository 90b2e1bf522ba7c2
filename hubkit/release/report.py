"""The report of a run: one HTML page, the same numbers as JSON, and the plot.

the records of all variants, students and evaluations, and the students' outputs
    -> report.html    to read, with no network and nothing to install
       results.json   {"recipe": "nano", "students": [{"student": "s-raw-full", "accuracy": 0.27, …}], …}
       tradeoff.png   accuracy against output length
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hubkit.recipe.config import Recipe
from hubkit.records import read_rows
from hubkit.release.plot import png, svg
from hubkit.release.results import Facts, Row, over_seeds, paired_tests, student_rows, variant_rows
from hubkit.release.text import number, percent
from hubkit.store import StepContext
from hubkit.traces.variants import BASE_LABEL, VARIANTS, Variant

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["VERSION", "run", "seeds_table", "table"]

VERSION: Final = 2
_COLUMNS: Final = (
    "accuracy",
    "95 % CI",
    "tokens",
    "cut off",
    "acc./1k tokens",
    "train tokens",
    "of raw",
    "train s",
    "of raw",
)
_EXAMPLES: Final = 3
_LONGEST_EXAMPLE: Final = 6_000
"""Characters of a trace that the report shows."""


def run(context: StepContext) -> None:
    """Write report.html, results.json and tradeoff.png."""
    facts = Facts.read(Recipe.model_validate(context.config["recipe"]), context.inputs)
    rows = student_rows(facts)
    results = {
        "schema_version": 1,
        "recipe": facts.recipe.name,
        "description": facts.recipe.description,
        "students": rows,
        "over_seeds": over_seeds(rows),
        "variants": variant_rows(facts),
        "tests": paired_tests(facts),
    }
    (context.out / "results.json").write_text(
        json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    (context.out / "tradeoff.png").write_bytes(png(rows))
    (context.out / "report.html").write_text(_html(results, _examples(facts), facts), encoding="utf-8")
    context.count("rows", len(rows))


def table(results: Mapping[str, Any]) -> Table:
    """The students of results.json as a table for the terminal."""
    from rich.table import Table
    from rich.text import Text

    rows: list[Row] = results["students"]
    several = len({row["benchmark"] for row in rows}) > 1
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("student", overflow="fold")
    if several:
        shown.add_column("benchmark")
    for name in _COLUMNS:
        shown.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        # Text, not str: square brackets in a name would be read as markup.
        cells = [Text(row["student"] if row["origin"] == "student" else f"{row['student']} ({BASE_LABEL})")]
        cells += [Text(row["benchmark"])] if several else []
        cells += [
            Text(cell)
            for cell in (
                percent(row["accuracy"]),
                f"{100 * row['ci_low']:.1f}–{100 * row['ci_high']:.1f}",
                number(row["mean_output_tokens"]),
                percent(row["cut_share"], 0),
                number(row["accuracy_per_1000_tokens"], 2),
                number(row["train_tokens"]),
                percent(row["train_tokens_of_raw"], 0),
                number(row["train_seconds"]),
                percent(row["train_seconds_of_raw"], 0),
            )
        ]
        shown.add_row(*cells)
    return shown


def seeds_table(results: Mapping[str, Any]) -> Table | None:
    """Means over seeds, with the lowest and the highest, for the terminal; None when there is one seed."""
    from rich.table import Table
    from rich.text import Text

    groups: list[Row] = results["over_seeds"]
    if not groups:
        return None
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("over seeds", overflow="fold")
    for name in ("seeds", "accuracy", "lowest–highest", "tokens", "train tokens", "train s"):
        shown.add_column(name, justify="right", no_wrap=True)
    for group in groups:
        shown.add_row(
            Text("{base} {variant} {method} on {benchmark}, {teacher}".format(**group)),
            str(group["seeds"]),
            percent(group["accuracy"]),
            f"{100 * group['accuracy_min']:.1f}–{100 * group['accuracy_max']:.1f}",
            number(group["mean_output_tokens"]),
            number(group.get("train_tokens"), 0),
            number(group.get("train_seconds")),
        )
    return shown


def _examples(facts: Facts) -> list[dict[str, Any]]:
    """The first traces that all variants of the first teacher have, side by side."""
    teachers = facts.teachers()
    if not teachers:
        return []
    variants = facts.variants(teachers[0])
    by_key: dict[tuple[str, int], dict[Variant, dict[str, Any]]] = {}
    # The rarest variant first: its first rows are those to look for in the others.
    for variant, step in sorted(
        variants.items(), key=lambda item: facts.records[item[1]].metrics.get("rows") or 0
    ):
        wanted = set(by_key)
        for row in read_rows(facts.folders[step] / "data.parquet", batch=64):
            key = (row["id"], row["sample"])
            if not wanted and len(by_key) < 20:
                by_key[key] = {variant: row}
            elif key in wanted:
                by_key[key][variant] = row
                wanted.discard(key)
            if not wanted and len(by_key) >= 20:
                break
    complete = [rows for rows in by_key.values() if len(rows) == len(variants)][:_EXAMPLES]
    return [
        {
            "problem": next(iter(rows.values()))["problem"],
            "answer": next(iter(rows.values()))["answer"],
            "traces": [
                {
                    "variant": variant.name,
                    "kind": variant.kind,
                    "tokens": rows[variant]["reasoning_tokens"],
                    "ratio": rows[variant]["ratio"],
                    "reasoning": rows[variant]["reasoning"][:_LONGEST_EXAMPLE],
                    "longer": len(rows[variant]["reasoning"]) > _LONGEST_EXAMPLE,
                    "solution": rows[variant]["solution"][:_LONGEST_EXAMPLE],
                }
                for variant in variants
            ],
        }
        for rows in complete
    ]


def _html(results: dict[str, Any], examples: list[dict[str, Any]], facts: Facts) -> str:
    environment = Environment(
        loader=PackageLoader("hubkit.release"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "percent": percent}
    first = next(iter(facts.kind("evaluation").values()))
    return environment.get_template("report.html").render(
        results,
        examples=examples,
        # Matplotlib writes text as outlines and escapes the rest.
        plot=Markup(svg(results["students"])),  # noqa: S704
        kinds=VARIANTS,
        untrained=BASE_LABEL,
        environment=first.environment,
        several_benchmarks=len(facts.benchmarks()) > 1,
        several_teachers=len(facts.teachers()) > 1,
    )
