"""hubkit release: check, export."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(help="Check and export published releases.", no_args_is_help=True)


@app.command()
def check(
    release: Annotated[str, typer.Argument(metavar="NAMESPACE/RECIPE", help="A published release.")],
    rerun: Annotated[
        int,
        typer.Option(metavar="N", help="Let each student answer N problems of each benchmark again.", min=0),
    ] = 0,
    device: Annotated[str, typer.Option(help="For --rerun: cpu, cuda or auto.")] = "auto",
    push: Annotated[
        bool, typer.Option("--push", help="Publish report and badge with the release; needs its token.")
    ] = False,
    write: Annotated[Path | None, typer.Option(help="Write report and badge into this folder.")] = None,
    hub: Annotated[Path | None, typer.Option("--hub", help="Folder of the local Hub that holds it.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show only claims that were not confirmed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Compute the claims of a release again, from its published repos alone. Fails if one differs.

    It checks commits, digests, rows, lengths, joins, verdicts, accuracies, intervals, tests, the figure, the cards
    and the contamination check.

    Example: hubkit release check local/nano --hub runs/hub
    """
    from hubkit.cli.submit import use_local_hub

    _folder(write, "--write")
    with ExitStack() as stack:
        if hub is not None:
            use_local_hub(stack, hub)
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hubkit-check-")))
        # Downloads of a check are not kept, and an earlier cache is not trusted.
        os.environ["HF_HUB_CACHE"] = str(work / "hub")
        _check(release, work, rerun, device, push, write, quiet, as_json)


@app.command()
def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="NAMESPACE/RECIPE|PATH", help="A published release, or a finished lighteval run here."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder that gets data/<benchmark>/<org>/<model>/.")],
    hub: Annotated[Path | None, typer.Option("--hub", help="Folder of the local Hub that holds it.")] = None,
    model: Annotated[
        str,
        typer.Option(
            metavar="ORG/NAME", help="For a lighteval run: the model's id, if the run names it differently."
        ),
    ] = "",
    by: Annotated[
        str,
        typer.Option(
            metavar="NAMESPACE", help="For a lighteval run: who evaluated; default: the model's namespace."
        ),
    ] = "",
    task: Annotated[
        list[str] | None,
        typer.Option(help="For a lighteval run: only these tasks; default: all. Repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Write results in the schema of Every Eval Ever 0.3.0, validated: a JSON file per score, a line per answer.

    Nothing is sent anywhere.

    Example: hubkit release export local/nano --hub runs/hub --out scores
    """
    from hubkit.cli.submit import use_local_hub
    from hubkit.release.every_eval import Origin, export, export_release

    _folder(out, "--out")
    written: list[Path] = []
    if Path(source).exists():
        from hubkit.release.lighteval_run import read_run

        for score in read_run(Path(source), task or (), main=True, every=True):
            name = model or score.model
            collection = score.dataset.rpartition("/")[2] or score.name
            written += export(score, Origin(name, by or name.partition("/")[0], collection), out)
    else:
        with ExitStack() as stack:
            if hub is not None:
                use_local_hub(stack, hub)
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hubkit-export-")))
            os.environ["HF_HUB_CACHE"] = str(work / "hub")
            from hubkit.hub import default_access
            from hubkit.release.check.published import fetch

            written = export_release(fetch(default_access(), source, work), out)
    names = [str(path) for path in written]
    typer.echo(json.dumps({"files": names}, indent=2) if as_json else "\n".join(names))


def _folder(path: Path | None, option: str) -> None:
    """Raise InputError if the output folder is a file: it is written only at the end."""
    from hubkit.errors import InputError

    if path is not None and path.exists() and not path.is_dir():
        raise InputError(f"{path} is not a folder", f"choose another with {option}")


def _check(
    name: str, work: Path, rerun: int, device: str, push: bool, write: Path | None, quiet: bool, as_json: bool
) -> None:
    import time

    from hubkit import __version__
    from hubkit.cli import screen
    from hubkit.errors import InputError
    from hubkit.hub import default_access
    from hubkit.push import add_files
    from hubkit.release.check import check_release
    from hubkit.release.check import report as reports

    def on_stage(stage: str) -> None:
        if not as_json:
            typer.echo(f"checking {stage} …", err=True)

    access = default_access()
    found, claims = check_release(access, name, work, rerun, device, on_stage)
    when = time.strftime("%Y-%m-%d", time.gmtime())
    files = reports.files(name, claims, when, f"hubkit {__version__}")
    if as_json:
        typer.echo(reports.as_json(name, claims))
    else:
        screen.show(reports.table(claims, all_rows=not quiet))
        counts = claims.counts()
        typer.echo(
            f"\n{counts['same']} claims are the same, {counts['differs']} differ, "
            f"{counts['not checked']} were not checked"
        )
    if write is not None:
        write.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            (write / Path(path).name).write_bytes(content)
    if push:
        if found.evals.id.partition("/")[0] != name.partition("/")[0]:
            # The release says so itself: its maker must not decide what is written into other repos.
            raise InputError(
                f"{name} names {found.evals.id} as its evaluations, a repo of another namespace",
                "its report is not pushed there",
            )
        message = "Report of hubkit release check"
        # On what was checked: it may have been published again since.
        add_files(access, found.evals.id, files, message, found.evals.head)
        typer.echo(
            f"report: {access.endpoint}/datasets/{found.evals.id}/blob/main/{reports.REPORT}", err=as_json
        )
    raise typer.Exit(int(bool(claims.differing())))
