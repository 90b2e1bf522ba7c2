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

from jinja2 import Environment, PackageLoader, StrictUndefined

from hubkit.recipe.config import Recipe
from hubkit.records import read_table
from hubkit.release.examples import examples
from hubkit.release.headline import headline
from hubkit.release.histograms import lengths
from hubkit.release.levels import obedience
from hubkit.release.names import repos
from hubkit.release.plot import figures
from hubkit.release.results import (
    Facts,
    Row,
    at_level,
    null_tests,
    paired_tests,
    student_rows,
    variant_rows,
)
from hubkit.release.seeds import over_seeds, seed_tests
from hubkit.release.text import number, percent
from hubkit.store import StepContext
from hubkit.traces.variants import BASE_LABEL, VARIANTS, Variant

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["VERSION", "run", "seeds_table", "table"]

VERSION: Final = 8


def run(context: StepContext) -> None:
    """Write report.html, results.json and the figure."""
    facts = Facts.read(Recipe.model_validate(context.config["recipe"]), context.inputs)
    rows, tests = student_rows(facts), paired_tests(facts)
    levels, of_seeds = obedience(facts, tests), seed_tests(facts)
    results = {
        "schema_version": 1,
        "recipe": facts.recipe.name,
        "description": facts.recipe.description,
        "headline": headline(rows, tests + of_seeds, levels),
        "students": rows,
        "over_seeds": over_seeds(facts, rows),
        "variants": variant_rows(facts),
        "tests": tests,
        "seed_tests": of_seeds,
        "nulls": null_tests(facts, of_seeds or tests),
        **({"levels": levels} if levels else {}),
    }
    (context.out / "results.json").write_text(
        json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    pictures = figures(rows)
    for name, content in pictures.items():
        (context.out / name).write_bytes(content)
    (context.out / "report.html").write_text(_html(results, facts, pictures), encoding="utf-8")
    context.count("rows", len(rows))


def table(results: Mapping[str, Any], width: int = 160) -> Table:
    """The students of results.json as a table for a terminal of `width` columns.

    Names are never cut: columns that do not fit beside them are left out, the last first, and the caption says so.
    """
    rows: list[Row] = results["students"]
    several = len({row["benchmark"] for row in rows}) > 1
    names = [
        f"{row['student']} ({BASE_LABEL})"
        if row["origin"] == "base"
        else at_level(row["student"], row.get("level"))
        for row in rows
    ]
    columns = {"accuracy": [percent(row["accuracy"]) for row in rows]}
    if several:
        columns = {"benchmark": [row["benchmark"] for row in rows]} | columns
    columns |= {
        "95 % CI": [f"{100 * row['ci_low']:.1f}–{100 * row['ci_high']:.1f}" for row in rows],
        "tokens": [number(row["mean_output_tokens"]) for row in rows],
        "of raw": [percent(row["output_tokens_of_raw"], 0) for row in rows],
        "train tokens": [number(row["train_tokens"]) for row in rows],
        "of raw's": [percent(row["train_tokens_of_raw"], 0) for row in rows],
        "train s": [number(row["train_seconds"]) for row in rows],
        "cut off": [percent(row["cut_share"], 0) for row in rows],
        "acc./1k tokens": [number(row["accuracy_per_1000_tokens"], 2) for row in rows],
    }
    if any(row.get("samples") for row in rows):
        columns |= {"pass@k": [percent(row["pass_at_k"]) for row in rows]}
        columns |= {"maj@k": [percent(row["maj_at_k"]) for row in rows]}
    return _fitted("student", names, columns, width)


def seeds_table(results: Mapping[str, Any], width: int = 160) -> Table | None:
    """Means over seeds, with their interval, the lowest and the highest, as `table`; None when there is one seed."""
    groups: list[Row] = results["over_seeds"]
    if not groups:
        return None
    names = [
        at_level("{base} {variant} {method}".format(**group), group.get("level"))
        + " on {benchmark}, {teacher}".format(**group)
        for group in groups
    ]
    columns = {
        "seeds": [str(group["seeds"]) for group in groups],
        "accuracy": [percent(group["accuracy"]) for group in groups],
        "95 % CI": [f"{100 * g['ci_low']:.1f}–{100 * g['ci_high']:.1f}" for g in groups],
        "lowest–highest": [f"{100 * g['accuracy_min']:.1f}–{100 * g['accuracy_max']:.1f}" for g in groups],
        "tokens": [number(group["mean_output_tokens"]) for group in groups],
        "train tokens": [number(group.get("train_tokens"), 0) for group in groups],
        "train s": [number(group.get("train_seconds")) for group in groups],
    }
    if any("pass_at_k" in group for group in groups):
        columns |= {"pass@k": [percent(group.get("pass_at_k")) for group in groups]}
        columns |= {"maj@k": [percent(group.get("maj_at_k")) for group in groups]}
    return _fitted("over seeds", names, columns, width)


def _fitted(first: str, names: list[str], columns: Mapping[str, list[str]], width: int) -> Table:
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="bold", caption_justify="left")
    wide = {name: max(cell_len(cell) for cell in (name, *cells)) + 2 for name, cells in columns.items()}
    # A name wider than the terminal folds; beside it stands what it leaves room for, the first column always.
    left = width - min(max(cell_len(name) for name in (first, *names)), width // 2 if width < 60 else width)
    fit: list[str] = []
    for name in columns:
        if fit and left < wide[name]:
            break
        fit.append(name)
        left -= wide[name]
    shown.add_column(first, overflow="fold", min_width=min(len(first), width))
    for name in fit:
        shown.add_column(name, justify="left" if name == "benchmark" else "right", no_wrap=True)
    for number_, name in enumerate(names):
        # Text, not str: square brackets in a name would be read as markup.
        shown.add_row(Text(name), *(Text(columns[column][number_]) for column in fit))
    if missing := len(columns) - len(fit):
        shown.caption = (
            f"{missing} more column{'s' if missing > 1 else ''} in a wider terminal and in the report"
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
    environment.filters |= {"number": number, "percent": percent, "at_level": at_level}
    first = next(iter(facts.kind("evaluation").values()))
    drawings = {name: content for name, content in pictures.items() if name.endswith(".svg")}
    return environment.get_template("report.html").render(
        {"levels": []} | results,
        examples=examples(facts),
        pictures={
            "tradeoff": {name.removeprefix("tradeoff-"): _address(svg) for name, svg in drawings.items()},
            "lengths": {name: _address(svg) for name, svg in lengths(_lengths(facts)).items()},
        },
        repos=repos(facts),
        kinds=VARIANTS,
        untrained=BASE_LABEL,
        environment=first.environment,
        sampled=any(row["samples"] for row in results["students"]),
        several_benchmarks=len(facts.benchmarks()) > 1,
        several_teachers=len(facts.teachers()) > 1,
    )


def _address(svg: bytes) -> str:
    """A drawing as an address: the report is one file, and nothing in a picture can run."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def _lengths(facts: Facts) -> dict[tuple[str, Variant], list[int]]:
    """(teacher, variant) -> tokens of reasoning of each trace."""
    return {
        (teacher, variant): read_table(facts.folders[step] / variant.row.file, ["reasoning_tokens"])
        .column(0)
        .to_pylist()
        for teacher in facts.teachers()
        for variant, step in facts.variants(teacher).items()
    }
