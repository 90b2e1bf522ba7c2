"""hubkit hub: serve, exec, token, member, fsck, gc."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(
    help="A Hub on this machine, for releases without an account.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_NAMESPACE = Annotated[str, typer.Option(help="The user that repos belong to.")]
_HOST = Annotated[str, typer.Option(help="Address of this machine to listen on.")]
_FOLDER = Annotated[Path, typer.Argument(help="Folder that holds the Hub's contents.")]
_JSON = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
_PORT = Annotated[int, typer.Option(help="Port to listen on; 0: a free one.", min=0, max=65535)]


@app.command()
def serve(
    folder: _FOLDER = Path("runs/hub"),
    port: _PORT = 0,
    host: _HOST = "127.0.0.1",
    namespace: _NAMESPACE = "local",
    require_token: Annotated[
        bool,
        typer.Option(
            "--require-token", help="Answer no request without a token; required unless --host is loopback."
        ),
    ] = False,
    jobs: Annotated[
        bool,
        typer.Option("--jobs", help="Run submitted jobs as processes on this machine, with your rights."),
    ] = False,
) -> None:
    """Serve a local Hub until Ctrl-C. Programs use it as the Hub when HF_ENDPOINT is its address.

    Example: hubkit hub serve runs/hub --port 5040
    """
    from hubkit.localhub import LocalHub

    with LocalHub(folder, host, port, namespace, require_token, jobs) as hub:
        needed = "for everything" if require_token else "reading needs no token; for writing"
        try:
            typer.echo(f"export HF_ENDPOINT={hub.endpoint}")
            typer.echo(f"# {needed}: export HF_TOKEN=$(cat '{hub.folder / 'token'}')")
            typer.echo("# Ctrl-C stops it", err=True)
            hub.wait()
        except KeyboardInterrupt:
            typer.echo("stopped", err=True)


@app.command("exec", context_settings={"allow_interspersed_args": False})
def exec_(
    folder: _FOLDER,
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND…", help="The command and its arguments.")
    ],
    host: _HOST = "127.0.0.1",
    port: _PORT = 0,
    namespace: _NAMESPACE = "local",
) -> None:
    """Run one command against a local Hub, and end with its exit code.

    HF_ENDPOINT is set for the command. HF_TOKEN is not: to write, set it to the content of the folder's file `token`.

    Example: hubkit hub exec runs/hub -- python train.py
    """
    import os
    import subprocess

    from hubkit.errors import HubError
    from hubkit.localhub import LocalHub

    if command[0].startswith("-") and command[0] != "--":
        raise HubError(
            f"{command[0]} is not a command", "put options before the folder, and the command after --"
        )
    command = command[1:] if command[0] == "--" else command
    with LocalHub(folder, host, port, namespace, create=False) as hub:
        try:
            done = subprocess.run(command, env=os.environ | {"HF_ENDPOINT": hub.endpoint}, check=False)
        except OSError as error:
            raise HubError(f"cannot run {command[0]}: {error.strerror}", "check the command") from None
    raise typer.Exit(done.returncode if done.returncode >= 0 else 128 - done.returncode)


@app.command()
def token(
    folder: _FOLDER,
    user: Annotated[str, typer.Argument(help="The token's user; made when there is no such user.")],
    role: Annotated[str, typer.Option(help="read, write or fineGrained.")] = "read",
    name: Annotated[str, typer.Option(help="The token's name, which whoami shows.")] = "token",
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="For fineGrained: NAMESPACE=repo.write or NAMESPACE/REPO=repo.content.read; may be repeated."
        ),
    ] = None,
) -> None:
    """Make a token and print it. It is kept hashed: it cannot be shown again.

    Example: hubkit hub token runs/hub alice --role read
    """
    from hubkit.localhub import make_token

    typer.echo(make_token(folder, user, role, name, scope or []))


@app.command()
def member(
    folder: _FOLDER,
    organization: Annotated[str, typer.Argument(help="Made when there is none of this name.")],
    user: Annotated[str, typer.Argument(help="Made when there is none of this name.")],
    role: Annotated[str, typer.Option(help="read, write or admin.")] = "write",
) -> None:
    """Make a user a member of an organisation.

    Example: hubkit hub member runs/hub our-lab local
    """
    from hubkit.localhub import make_member

    make_member(folder, organization, user, role)
    typer.echo(f"{user} is a member of {organization} ({role})")


@app.command()
def fsck(folder: _FOLDER, as_json: _JSON = False) -> None:
    """Check all contents, commits and refs; also while a server runs. Fails when something is wrong.

    Example: hubkit hub fsck runs/hub
    """
    from hubkit.localhub import fsck

    report = fsck(folder)
    if as_json:
        typer.echo(json.dumps(asdict(report), indent=2))
        raise typer.Exit(int(bool(report.problems)))
    for problem in report.problems:
        typer.echo(problem)
    typer.echo(
        f"{len(report.problems)} problems in {report.repos} repos, {report.commits} commits and "
        f"{report.objects} objects of {report.bytes:,} bytes"
    )
    raise typer.Exit(int(bool(report.problems)))


@app.command()
def gc(folder: _FOLDER, as_json: _JSON = False) -> None:
    """Remove commits that no ref leads to, and contents that no commit has. Needs the server stopped.

    Example: hubkit hub gc runs/hub
    """
    from hubkit.localhub import gc

    freed = gc(folder)
    if as_json:
        typer.echo(json.dumps(freed._asdict()))
        return
    typer.echo(f"removed {freed.commits} commits and {freed.objects} files of {freed.bytes:,} bytes")
