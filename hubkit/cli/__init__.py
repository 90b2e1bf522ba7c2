"""The command line: one module per noun, no logic."""

from __future__ import annotations

import errno
import io
import signal
import sys
from typing import Final

import typer

from hubkit.cli.evaluate import evaluate
from hubkit.cli.hub import app as hub
from hubkit.cli.recipe import app as recipe
from hubkit.cli.release import app as release
from hubkit.cli.space import app as space
from hubkit.cli.submit import submit
from hubkit.cli.traces import app as traces

__all__ = ["app", "main"]

_NO_WRITING: Final = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
"""Errors that whoever owns the folder or the disk can act on."""

app = typer.Typer(
    name="hubkit",
    help="Reasoning traces, compressed and distilled, released on the Hugging Face Hub.\n\n"
    "Start with: hubkit recipe run recipes/nano/recipe.yaml",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)
app.add_typer(recipe, name="recipe")
app.add_typer(traces, name="traces")
app.add_typer(hub, name="hub")
app.add_typer(release, name="release")
app.add_typer(space, name="space")
app.command()(evaluate)
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

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # In a locale without UTF-8 a letter that cannot be shown is written as \\xe9; it stops nothing.
            stream.reconfigure(errors="backslashreplace")
    # SIGTERM unwinds the stack as Ctrl-C does, so that servers and apps started for a command end with it.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        app()
    except HubkitError as error:
        # Names and values in errors come from data: nothing in them may control the terminal, or make a second line.
        text = "".join(c if c.isprintable() else " " for c in str(error))
        print(f"error: {text}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.errno not in _NO_WRITING:
            raise
        print(
            f"error: cannot write {error.filename or 'a file'}: {error.strerror} (choose another folder, or "
            "make room or rights there)",
            file=sys.stderr,
        )
        sys.exit(1)
