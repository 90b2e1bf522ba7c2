"""hubkit submit: a model's result onto a benchmark's leaderboard."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from hubkit.cli.evaluate import Level

__all__ = ["submit", "use_local_hub"]


def submit(
    model: Annotated[
        str, typer.Argument(metavar="ORG/MODEL", help="A model on the Hub, yours or anybody's.")
    ],
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="A lighteval task (gsm8k|0), or a benchmark dataset that hubkit published (org/name#task). Repeatable."
        ),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(help="A finished lighteval run: results_….json or its folder. Default: evaluate now."),
    ] = None,
    leaderboard: Annotated[
        str,
        typer.Option(metavar="ORG/NAME#TASK", help="The benchmark, if the task's dataset is not one itself."),
    ] = "",
    metric: Annotated[str, typer.Option(help="Metric to submit, if a task has several.")] = "",
    scale: Annotated[
        int,
        typer.Option(help="1 or 100, if neither the board's entries nor its card say.", min=0, max=100),
    ] = 0,
    revision: Annotated[str, typer.Option(help="Branch, tag or commit of the model; default: main.")] = "",
    max_tokens: Annotated[int, typer.Option(help="Tokens of an answer at most.", min=1)] = 4096,
    temperature: Annotated[float, typer.Option(help="0 is greedy.", min=0)] = 0.0,
    samples: Annotated[
        int, typer.Option(help="Answers to each problem; 0: the task's own number.", min=0, max=1024)
    ] = 0,
    level: Level = "",
    engine: Annotated[str, typer.Option(help="auto, transformers or vllm.")] = "auto",
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    source: Annotated[str, typer.Option(metavar="URL", help="Address of the details.")] = "",
    details: Annotated[
        str,
        typer.Option(
            metavar="NAMESPACE",
            help="Publish the details in this namespace as details_<org>__<model>, as the source.",
        ),
    ] = "",
    variant: Annotated[
        str, typer.Option(help="Name of this kind of use, such as 5-shot, for a separate result file.")
    ] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Replace an earlier result.")] = False,
    pull_request: Annotated[
        bool, typer.Option("--pull-request", help="Open a pull request also for your own model.")
    ] = False,
    same_model: Annotated[
        bool,
        typer.Option(
            "--same-model", help="Accept results that name the model differently, such as by its folder."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be written; send nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Send without asking.")] = False,
    hub: Annotated[
        Path | None, typer.Option("--hub", help="Rehearse on the local Hub in this folder.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of evaluations.")] = Path("runs"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON for scripts; needs --yes or --dry-run.")
    ] = False,
) -> None:
    """Put a model's result on a benchmark's leaderboard: evaluate, show the file, commit, read it back.

    For your own model the file is committed to main, for anybody else's model it goes into a pull request.
    Everything is shown before it is sent.

    Example: hubkit submit org/model --task 'gsm8k|0' --dry-run
    """
    from hubkit.cli.sources import plain
    from hubkit.errors import InputError

    if scale not in (0, 1, 100):
        raise InputError(f"--scale {scale}", "use 1 or 100")
    if as_json and not (yes or dry_run):
        raise InputError("--json cannot ask", "add --yes or --dry-run")
    with ExitStack() as stack:
        if hub is not None:
            use_local_hub(stack, hub)
        from hubkit.release.submit import Wish, carry_out, plan

        wish = Wish(
            model=model,
            tasks=tuple(task or ()),
            results=results,
            leaderboard=leaderboard,
            metric=metric,
            scale=scale,
            revision=revision,
            max_tokens=max_tokens,
            temperature=temperature,
            samples=samples,
            level=level,
            engine=engine,
            device=device,
            source=source,
            details=details,
            variant=variant,
            replace=replace,
            pull_request=pull_request,
            same_model=same_model,
            dry_run=dry_run,
        )
        planned = plan(wish, out.resolve())
        report: dict[str, Any] = planned.as_dict()
        if not as_json:
            typer.echo(plain(planned.text()))
        if dry_run:
            if as_json:
                typer.echo(json.dumps(report, indent=2))
            else:
                typer.echo("\ndry run: nothing was sent")
            return
        if not yes and not typer.confirm("\nSend this?"):
            typer.echo("nothing was sent")
            raise typer.Exit(1)
        done = carry_out(planned)
        if as_json:
            typer.echo(json.dumps(report | done.as_dict(), indent=2))
        else:
            typer.echo(plain(done.text()))


def use_local_hub(stack: ExitStack, folder: Path) -> None:
    """Start the local Hub, and have the environment name it and its token until the stack closes.

    Call it before datasets and huggingface_hub are imported, which read the address at import: hubkit's own requests
    name it, but what lighteval reads goes by that (`hubkit.release.evaluating` refuses another one).
    """
    from hubkit.errors import InputError
    from hubkit.localhub import LocalHub

    if not folder.is_dir():
        raise InputError(f"there is no local Hub at {folder}", "run a recipe first, or `hubkit hub serve`")
    opened = stack.enter_context(LocalHub(folder))
    for name, value in (("HF_ENDPOINT", opened.endpoint), ("HF_TOKEN", opened.token)):
        stack.callback(_put, name, os.environ.get(name))
        _put(name, value)


def _put(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
