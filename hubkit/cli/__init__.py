"""The command line: one module per noun, no logic."""

from __future__ import annotations

import signal
import sys

import typer

from hubkit.cli.hub import app as hub
from hubkit.cli.recipe import app as recipe
from hubkit.cli.space import app as space
from hubkit.cli.submit import submit

__all__ = ["app", "main"]

app = typer.Typer(
    name="hubkit",
    help="Reasoning traces, compressed and distilled, released on the Hugging Face Hub.\n\n"
    "Start with: hubkit recipe run recipes/nano/recipe.yaml",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(recipe, name="recipe")
app.add_typer(hub, name="hub")
app.add_typer(space, name="space")
app.command()(submit)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        from hubkit import __version__

        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point: errors a user can act on are one line."""
    from hubkit.errors import HubkitError

    # A polite kill unwinds like Ctrl-C, so that servers and apps started for a command end with it.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        app()
    except HubkitError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
