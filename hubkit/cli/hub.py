"""hubkit hub: serve, exec."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(help="A Hub on this machine, for releases without an account.", no_args_is_help=True)

_NAMESPACE = Annotated[str, typer.Option(help="The user that repos belong to.")]
_HOST = Annotated[str, typer.Option(help="Address of this machine to listen on; only loopback ones.")]
_PORT = Annotated[int, typer.Option(help="Port to listen on; 0: a free one.", min=0, max=65535)]


@app.command()
def serve(
    folder: Annotated[Path, typer.Argument(help="Folder that holds the Hub's contents.")] = Path("runs/hub"),
    port: _PORT = 0,
    host: _HOST = "127.0.0.1",
    namespace: _NAMESPACE = "local",
) -> None:
    """Serve a local Hub until Ctrl-C. Programs that have HF_ENDPOINT set to it use it as the Hub.

    Example: hubkit hub serve runs/hub --port 5040
    """
    from hubkit.hub.server import LocalHub

    with LocalHub(folder, host, port, namespace) as hub:
        typer.echo(f"export HF_ENDPOINT={hub.endpoint}")
        typer.echo(f"# reading needs no token; for writing: export HF_TOKEN=$(cat '{hub.folder / 'token'}')")
        typer.echo("# Ctrl-C stops it", err=True)
        try:
            hub.wait()
        except KeyboardInterrupt:
            typer.echo("stopped", err=True)


@app.command("exec", context_settings={"allow_interspersed_args": False})
def exec_(
    folder: Annotated[Path, typer.Argument(help="Folder that holds the Hub's contents.")],
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND…", help="The command and its arguments.")
    ],
    host: _HOST = "127.0.0.1",
    port: _PORT = 0,
    namespace: _NAMESPACE = "local",
) -> None:
    """Run one command against a local Hub, and end with its exit code.

    HF_ENDPOINT is set for it. HF_TOKEN is not: give it one, from the folder's file `token`, to write.

    Example: hubkit hub exec runs/hub -- python train.py
    """
    import os
    import subprocess

    from hubkit.errors import HubError
    from hubkit.hub.server import LocalHub

    command = command[1:] if command[0] == "--" else command
    with LocalHub(folder, host, port, namespace) as hub:
        try:
            done = subprocess.run(command, env=os.environ | {"HF_ENDPOINT": hub.endpoint}, check=False)
        except OSError as error:
            raise HubError(f"cannot run {command[0]}: {error.strerror}", "check the command") from None
    raise typer.Exit(done.returncode if done.returncode >= 0 else 128 - done.returncode)
