"""hubkit traces: inspect, verify, compress, truncate, stats, push."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubkit.cli.sources import SourceArgument, plain, reads

if TYPE_CHECKING:
    from hubkit.stages.folder import Stage
    from hubkit.stages.inspect import Inspection

__all__ = ["app"]

app = typer.Typer(help="Traces that exist: look at them, and run one stage alone.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
TokenizerOption = Annotated[
    str,
    typer.Option("--tokenizer", help="Folder or Hub id of a model by whose tokenizer lengths are counted."),
]
OutOption = Annotated[
    Path, typer.Option("--out", help="Folder to make; one where the same command stopped goes on.")
]
_SHOWN = 600
"""Characters of each part of an example."""


@app.command()
@reads("verifier", rows=1000)
def inspect(
    source: SourceArgument,
    options: Any,
    sample: Annotated[
        int, typer.Option("--sample", help="Traces, drawn at random, whose answers are verified.", min=0)
    ] = 200,
    tokenizer: TokenizerOption = "",
    as_json: Json = False,
) -> None:
    """Show what a recipe would read: columns, usable traces, lengths, verdicts on a sample, and two examples.

    Example: hubkit traces inspect open-r1/OpenR1-Math-220k --rows 5000
    """
    from dataclasses import asdict

    from hubkit.stages import inspect as looking
    from hubkit.stages.source import open_source, tokenizer_folder

    origin, pin = open_source(source, options)
    counted = tokenizer_folder(tokenizer) if tokenizer else None
    seen = looking.inspect(origin, pin, sample=sample, tokenizer=counted)
    if as_json:
        typer.echo(json.dumps(asdict(seen), indent=2))
    else:
        _show(seen)


@app.command()
@reads("verifier", "license", "model", "unverified")
def verify(
    source: SourceArgument,
    options: Any,
    out: OutOption,
    tokenizer: TokenizerOption = "",
    as_json: Json = False,
) -> None:
    """Verify the answers of traces again, and write the correct traces as a dataset with a card.

    Example: hubkit traces verify open-r1/OpenR1-Math-220k --out verified
    """
    from hubkit.stages import stages

    _done(out, stages.verify(source, out, options, tokenizer or None), as_json)


@app.command()
@reads("verifier", "license", "model")
def compress(
    source: SourceArgument,
    options: Any,
    out: OutOption,
    kind: Annotated[
        str, typer.Option("--kind", help="rewrite, prune, prune-steps or prune-tokens: docs/recipes.md.")
    ] = "rewrite",
    model: Annotated[str, typer.Option("--model", help="Folder or Hub id of the model that shortens.")] = "",
    endpoint: Annotated[
        str, typer.Option("--endpoint", help="In place of --model: address of a server, ending in /v1.")
    ] = "",
    served_model: Annotated[str, typer.Option("--served-model", help="The model's name at --endpoint.")] = "",
    tokenizer: TokenizerOption = "",
    ratio: Annotated[
        float | None, typer.Option("--ratio", help="Length to aim at, as a share of the raw tokens: 0.15.")
    ] = None,
    by: Annotated[str | None, typer.Option("--by", help="prune-steps: answer, entropy or surprisal.")] = None,
    solution: Annotated[
        str, typer.Option("--solution", help="keep, final-line (cut to the answer's line) or shorten.")
    ] = "keep",
    prompt: Annotated[
        Path | None,
        typer.Option(
            "--prompt",
            help="File with {reasoning} in it, and {problem} if the model is to see it; default: a built-in prompt.",
        ),
    ] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Maximum tokens of a reply.", min=1)] = 4096,
    temperature: Annotated[float, typer.Option("--temperature", help="0 is greedy.", min=0)] = 0.0,
    attempts: Annotated[int, typer.Option("--attempts", help="Tries per trace.", min=1)] = 2,
    seed: Annotated[int, typer.Option("--seed", help="Seed of sampling.")] = 0,
    engine: Annotated[
        str, typer.Option("--engine", help="auto, transformers or vllm, for --model.")
    ] = "auto",
    batch_size: Annotated[
        int, typer.Option("--batch-size", help="transformers: traces at a time.", min=1)
    ] = 64,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    as_json: Json = False,
) -> None:
    """Shorten verified traces with a compressor, and write those that pass its checks.

    Example: hubkit traces compress verified --model Qwen/Qwen3-4B --out short
    """
    from hubkit.stages import stages
    from hubkit.stages.compressing import compressor_of, engine_of

    chosen = engine_of(model, endpoint, served_model, engine, batch_size)
    compressor = compressor_of(
        kind,
        model or served_model,
        prompt=prompt,
        max_tokens=max_tokens,
        temperature=temperature,
        attempts=attempts,
        ratio=ratio,
        by=by,
        solution=solution,
    )
    made = stages.compress(
        source,
        out,
        compressor,
        tokenizer=tokenizer or None,
        engine=chosen,
        options=options,
        seed=seed,
        device=device,
    )
    _done(out, made, as_json)


@app.command()
@reads("verifier", "license", "model", "unverified")
def truncate(
    source: SourceArgument,
    options: Any,
    out: OutOption,
    tokenizer: TokenizerOption,
    tokens: Annotated[
        int | None, typer.Option("--tokens", help="Cut all traces at this length.", min=1)
    ] = None,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="Cut each trace at its length in these compressed traces: compress's folder, a file, or org/name.",
        ),
    ] = "",
    to_config: Annotated[
        str | None, typer.Option("--to-config", help="Config of the dataset in --to.")
    ] = None,
    kind: Annotated[
        str,
        typer.Option(
            "--kind",
            help="What is left: truncated (the beginning), last (the end), random-steps or random-tokens.",
        ),
    ] = "truncated",
    seed: Annotated[int, typer.Option("--seed", help="Seed of random-steps and random-tokens.")] = 0,
    as_json: Json = False,
) -> None:
    """Cut the reasoning of verified traces: to a number of tokens, or to the length of compressed traces.

    Example: hubkit traces truncate good --to short --tokenizer ./model --out cut
    """
    from hubkit.stages import stages

    _done(
        out,
        stages.truncate(
            source,
            out,
            tokenizer=tokenizer,
            tokens=tokens,
            to=to or None,
            to_config=to_config,
            kind=kind,
            seed=seed,
            options=options,
        ),
        as_json,
    )


@app.command()
@reads()
def stats(
    source: SourceArgument,
    options: Any,
    tokenizer: TokenizerOption,
    as_json: Json = False,
) -> None:
    """Measure the lengths of traces in characters and tokens; for a stage's folder also the ratios to raw.

    Example: hubkit traces stats short --tokenizer Qwen/Qwen3-4B-Instruct-2507
    """
    from dataclasses import asdict

    from rich.text import Text

    from hubkit.cli import screen
    from hubkit.stages import stages

    found = stages.lengths_of(source, tokenizer, options)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
        return
    screen.show(Text(plain(f"{found.source}: {found.traces:,} traces"), style="bold"))
    _lengths(found.lengths)
    for part, ratio in found.ratio.items():
        typer.echo(f"tokens of {part} over those of the same raw traces: {100 * ratio:.1f} %")


@app.command()
def push(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder that a stage made.", show_default=False)
    ],
    repo_id: Annotated[
        str, typer.Argument(metavar="ORG/NAME", help="The dataset on the Hub.", show_default=False)
    ],
    private: Annotated[bool, typer.Option("--private", help="Make it private.")] = False,
    as_json: Json = False,
) -> None:
    """Push a stage's output as a dataset, in one commit, to the Hub that HF_ENDPOINT names.

    Example: hubkit traces push short your-name/short-traces --private
    """
    from hubkit.stages import stages

    pushed = stages.push(folder, repo_id, private)
    if as_json:
        typer.echo(json.dumps({"repo": pushed.repo_id, "revision": pushed.sha, "changed": pushed.changed}))
        return
    typer.echo(f"{pushed.repo_id} at {pushed.sha}" + ("" if pushed.changed else ": it was there already"))


def _done(out: Path, stage: Stage, as_json: bool) -> None:
    from hubkit.cli import screen

    records = stage.records(out).values()
    if as_json:
        steps = [{"step": r.step, "counts": r.counts, "seconds": r.seconds} for r in records]
        typer.echo(json.dumps({"folder": str(out), "config": stage.config, "steps": steps}, indent=2))
        return
    rows = [(plain(record.step), plain(_counts(record.counts))) for record in records]
    screen.show(screen.grid(("step", "kept and dropped"), rows))
    typer.echo(f"{out}: config {stage.config}, with its card in README.md")


def _show(seen: Inspection) -> None:
    """Everything from the data is shown as plain text: it may contain markup and terminal control characters."""
    from rich.text import Text

    from hubkit.cli import screen

    def line(text: str, style: str = "") -> None:
        screen.show(Text(plain(text), style=style))

    line(f"{seen.source}" + (f" at {seen.revision}" if seen.revision else ""), "bold")
    line(f"licence: {seen.license or 'not stated'}")
    for what, column in seen.columns.items():
        line(f"  {what}: column {column}")
    if seen.system:
        line(f"the rows have one system message, which is left out: {plain(seen.system, 200)}")
    more = ", where reading stopped (--rows)" if seen.more else ""
    line(f"{seen.rows:,} rows{more}, {seen.traces:,} traces, {seen.usable:,} usable")
    line(
        f"{seen.with_key:,} of {seen.traces:,} traces have a known answer ({_share(seen.with_key, seen.traces)})"
    )
    told = {name: number for name, number in seen.claims.items() if number}
    line("the source calls correct or wrong: " + _counts(told))
    if seen.dropped:
        rows = [(plain(of), f"{d.number:,}", plain(d.first, 200)) for of, d in seen.dropped.items()]
        typer.echo()
        screen.show(screen.grid(("left out", "number", "first"), rows))
    if seen.lengths:
        typer.echo()
        _lengths(seen.lengths)
    typer.echo()
    line(_agreement(seen))
    for number, example in enumerate(seen.examples, 1):
        for part, text in example.items():
            typer.echo()
            line(f"example {number}, {part}", "bold")
            line(plain(text, _SHOWN) or "(none)")


def _lengths(lengths: dict[str, dict[str, float]]) -> None:
    from hubkit.cli import screen

    rows = [
        (name.replace("_", ", in "), *(f"{found[q]:,.0f}" for q in ("p5", "p50", "p95", "max", "mean")))
        for name, found in lengths.items()
    ]
    screen.show(screen.grid(("length of", "p5", "median", "p95", "longest", "mean"), rows))


def _agreement(seen: Inspection) -> str:
    found = seen.agreement
    if found is None:
        return "nothing was verified: there is no trace with a known answer, or --sample is 0"
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
