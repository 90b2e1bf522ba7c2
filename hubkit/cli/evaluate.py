"""hubkit evaluate: a model on tasks, without a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Level", "evaluate"]

Level = Annotated[
    str,
    typer.Option(
        metavar="VARIABLE=VALUE",
        help="For the chat template, such as reasoning_effort=low; none if left out.",
    ),
]


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="org/model on the Hub, or a folder.", show_default=False)
    ],
    task: Annotated[
        list[str],
        typer.Option(
            help="A lighteval task (gsm8k|0), or a benchmark dataset that hubkit published (org/name#task). Repeatable."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Folder to make; one where the same command stopped goes on.")
    ],
    revision: Annotated[str, typer.Option(help="Branch, tag or commit of the model; default: main.")] = "",
    max_tokens: Annotated[int, typer.Option(help="Tokens of an answer at most.", min=1)] = 4096,
    temperature: Annotated[float, typer.Option(help="0 is greedy.", min=0)] = 0.0,
    system: Annotated[str, typer.Option(help="System message; none if left out.")] = "",
    level: Level = "",
    engine: Annotated[str, typer.Option(help="auto, transformers or vllm.")] = "auto",
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Evaluate a model on tasks, and write every answer and the results, with a card, into a folder.

    Example: hubkit evaluate org/model --task 'gsm8k|0' --out scores
    """
    from hubkit.cli import screen
    from hubkit.cli.sources import plain
    from hubkit.errors import InputError
    from hubkit.stages.compressing import engine_of
    from hubkit.stages.evaluating import evaluate as run

    if engine not in ("auto", "transformers", "vllm"):
        raise InputError(f"--engine {engine}", "use auto, transformers or vllm")
    scores = run(
        model,
        task,
        out,
        revision=revision,
        max_tokens=max_tokens,
        temperature=temperature,
        system=system,
        level=level,
        engine=engine_of(model, "", "", engine, 64),
        device=device,
    )
    if as_json:
        typer.echo((out / "results.json").read_text(encoding="utf-8").rstrip())
        return
    rows = [
        (
            plain(score.task),
            f"{score.n:,}",
            f"{100 * score.accuracy:.1f} %",
            f"{100 * score.ci_low:.1f} to {100 * score.ci_high:.1f} %",
            f"{score.mean_output_tokens:,.1f}",
            f"{100 * score.cut_share:.1f} %",
        )
        for score in scores
    ]
    heads = ("task", "problems", "accuracy", "95 % interval", "mean output tokens", "cut off")
    screen.show(screen.grid(heads, rows))
    typer.echo(f"{out}: every answer, with its card in README.md")
