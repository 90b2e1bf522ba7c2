"""The report of a run: one HTML page, the same numbers as JSON, and the plot.

the records of all variants, students and evaluations, and the students' outputs
    -> report.html    to read, with no network and nothing to install
       results.json   {"recipe": "nano", "students": [{"student": "s-raw-full", "accuracy": 0.27, …}], …}
       tradeoff.png, tradeoff-light.svg, …   accuracy against output length
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import pyarrow.parquet as pq
from jinja2 import Environment, PackageLoader, StrictUndefined

from hubkit.recipe.config import Recipe
from hubkit.release.examples import examples
from hubkit.release.headline import headline
from hubkit.release.names import repos
from hubkit.release.plot import figures, lengths
from hubkit.release.results import Facts, Row, over_seeds, paired_tests, student_rows, variant_rows
from hubkit.release.text import number, percent
from hubkit.store import StepContext
from hubkit.traces.variants import BASE_LABEL, VARIANTS, Variant

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["VERSION", "run", "seeds_table", "table"]

VERSION: Final = 3
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


def run(context: StepContext) -> None:
    """Write report.html, results.json and the figure."""
    facts = Facts.read(Recipe.model_validate(context.config["recipe"]), context.inputs)
    rows, tests = student_rows(facts), paired_tests(facts)
    results = {
        "schema_version": 1,
        "recipe": facts.recipe.name,
        "description": facts.recipe.description,
        "headline": headline(rows, tests),
        "students": rows,
        "over_seeds": over_seeds(rows),
        "variants": variant_rows(facts),
        "tests": tests,
    }
    (context.out / "results.json").write_text(
        json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    pictures = figures(rows)
    for name, content in pictures.items():
        (context.out / name).write_bytes(content)
    (context.out / "report.html").write_text(_html(results, facts, pictures), encoding="utf-8")
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


def _html(results: dict[str, Any], facts: Facts, pictures: Mapping[str, bytes]) -> str:
    environment = Environment(
        loader=PackageLoader("hubkit.release"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "percent": percent}
    first = next(iter(facts.kind("evaluation").values()))
    drawn = {name: content for name, content in pictures.items() if name.endswith(".svg")}
    return environment.get_template("report.html").render(
        results,
        examples=examples(facts),
        pictures={
            "tradeoff": {name.removeprefix("tradeoff-"): _address(svg) for name, svg in drawn.items()},
            "lengths": {name: _address(svg) for name, svg in lengths(_lengths(facts)).items()},
        },
        repos=repos(facts),
        kinds=VARIANTS,
        untrained=BASE_LABEL,
        environment=first.environment,
        several_benchmarks=len(facts.benchmarks()) > 1,
        several_teachers=len(facts.teachers()) > 1,
    )


def _address(svg: bytes) -> str:
    """A drawing as an address: the report is one file, and nothing in a picture can run."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def _lengths(facts: Facts) -> dict[tuple[str, Variant], list[int]]:
    """(teacher, variant) -> tokens of reasoning of each trace."""
    return {
        (teacher, variant): pq.read_table(
            facts.folders[step] / variant.row.file, columns=["reasoning_tokens"]
        )["reasoning_tokens"].to_pylist()
        for teacher in facts.teachers()
        for variant, step in facts.variants(teacher).items()
    }
