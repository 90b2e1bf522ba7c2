"""hubkit space: open."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(
    help="Look at published students side by side.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def _group() -> None:
    """Look at published students side by side."""


@app.command("open")
def open_(
    release: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAMESPACE/RECIPE]",
            help="A release on the local Hub, or its Space's id; default: the only one.",
        ),
    ] = None,
    hub: Annotated[Path, typer.Option("--hub", help="Folder of the local Hub.")] = Path("runs/hub"),
    port: Annotated[
        int | None, typer.Option(help="Port on this machine; default: a free one.", min=1, max=65535)
    ] = None,
) -> None:
    """Open the Space of a release on this machine: the local Hub and the app, until Ctrl-C.

    Example: hubkit space open local/nano --hub runs/hub
    """
    from hubkit.release.space import open_space

    with open_space(hub, release, port) as (address, process):
        typer.echo(f"{address}  (Ctrl-C stops it)")
        try:
            process.wait()
        except KeyboardInterrupt:
            typer.echo("stopped")
