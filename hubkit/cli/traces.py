"""hubkit traces: inspect."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubkit.cli.sources import (
    ColumnOption,
    ConfigOption,
    RevisionOption,
    RowsOption,
    SourceArgument,
    SplitOption,
    VerifierOption,
    WhereOption,
    options_of,
    plain,
)

if TYPE_CHECKING:
    from hubkit.stages.inspect import Inspection

__all__ = ["app"]

app = typer.Typer(help="Traces that exist: look at them, and run one stage alone.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
TokenizerOption = Annotated[
    str,
    typer.Option("--tokenizer", help="Folder or Hub id of a model by whose tokenizer lengths are counted."),
]
_SHOWN = 600
"""Characters of each part of an example."""


@app.command()
def inspect(
    source: SourceArgument,
    config: ConfigOption = None,
    split: SplitOption = None,
    revision: RevisionOption = "",
    columns: ColumnOption = None,
    where: WhereOption = None,
    verifier: VerifierOption = "math",
    rows: RowsOption = 1000,
    sample: Annotated[
        int, typer.Option("--sample", help="Traces, drawn at random, whose answers are verified.", min=0)
    ] = 200,
    tokenizer: TokenizerOption = "",
    as_json: Json = False,
) -> None:
    """Show what a recipe would read: columns, yields, lengths, a sample's answers verified, and two examples.

    Example: hubkit traces inspect open-r1/OpenR1-Math-220k --tokenizer Qwen/Qwen3-0.6B
    """
    from dataclasses import asdict

    from hubkit.stages import inspect as looking
    from hubkit.stages.source import open_source, tokenizer_folder

    options = options_of(
        config=config,
        split=split,
        revision=revision,
        columns=columns,
        where=where,
        verifier=verifier,
        rows=rows,
    )
    origin, pin = open_source(source, options)
    counted = tokenizer_folder(tokenizer) if tokenizer else None
    seen = looking.inspect(origin, pin, sample=sample, tokenizer=counted)
    if as_json:
        typer.echo(json.dumps(asdict(seen), indent=2))
    else:
        _show(seen)


def _show(seen: Inspection) -> None:
    """All that comes from the data is shown as text: it may hold markup and what controls a terminal."""
    from rich.text import Text

    from hubkit.cli.recipe import _print, _table

    def line(text: str, style: str = "") -> None:
        _print(Text(plain(text), style=style))

    line(f"{seen.source}" + (f" at {seen.revision}" if seen.revision else ""), "bold")
    line(f"licence: {seen.license or 'not stated'}")
    for what, column in seen.columns.items():
        line(f"  {what}: column {column}")
    more = ", where reading stopped (--rows)" if seen.more else ""
    line(f"{seen.rows:,} rows{more}, {seen.traces:,} traces, {seen.usable:,} usable")
    line(
        f"{seen.with_key:,} of {seen.traces:,} traces have a known answer ({_share(seen.with_key, seen.traces)})"
    )
    told = {name: number for name, number in seen.claims.items() if number}
    line("the source calls correct or wrong: " + _counts(told))
    if seen.dropped:
        table = _table("left out", "number", "first")
        for reason, dropped in seen.dropped.items():
            table.add_row(Text(plain(reason)), f"{dropped.number:,}", Text(plain(dropped.first, 200)))
        _print(Text())
        _print(table)
    if seen.lengths:
        table = _table("length of", "p5", "median", "p95", "longest", "mean")
        for name, found in seen.lengths.items():
            cells = (f"{found[q]:,.0f}" for q in ("p5", "p50", "p95", "max", "mean"))
            table.add_row(name.replace("_", ", in "), *cells)
        _print(Text())
        _print(table)
    _print(Text())
    line(_agreement(seen))
    for number, example in enumerate(seen.examples, 1):
        for part, text in example.items():
            _print(Text())
            line(f"example {number}, {part}", "bold")
            line(plain(text, _SHOWN) or "(none)")


def _agreement(seen: Inspection) -> str:
    found = seen.agreement
    if found is None:
        return "nothing was verified: there is no trace with a known answer, or no sample was wanted"
    text = f"verified by {found.verifier}: {found.sample:,} traces drawn at random, {_counts(found.outcomes)}"
    if found.claimed:
        text += (
            f"; of {found.claimed:,} the source says whether they are correct: {found.claimed_correct_found_wrong:,} "
            f"that it calls correct were found wrong, {found.claimed_wrong_found_correct:,} the reverse"
        )
    return text


def _counts(counts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in counts.items())


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"
