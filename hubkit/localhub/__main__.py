"""python -m hubkit.localhub FOLDER: the server's process. `hubkit hub serve` and LocalHub start it.

It holds folder/lock while it lives: SQLite would allow two servers, uploads under way would not survive it.
Where it listens stands in folder/endpoint. The owner's token is in folder/token; the database has only the
sha256 of tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import socket
import sqlite3
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import IO

from hubkit.errors import HubError
from hubkit.localhub.accounts import add_token, new_token
from hubkit.localhub.problems import Problem
from hubkit.localhub.store import DATABASE, Store

__all__ = ["lock", "open_store", "serve"]


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def _check_host(host: str, require_token: bool, jobs: bool) -> None:
    if jobs and not _is_loopback(host):
        raise HubError(
            f"the local Hub runs no jobs for those who reach {host}",
            "leave --jobs out, or use 127.0.0.1: jobs run with your rights on this machine",
        )
    if not _is_loopback(host) and not require_token:
        raise HubError(
            f"the local Hub does not listen on {host} for everybody",
            "add --require-token, or use 127.0.0.1 and an ssh tunnel (ssh -L), which also hides the token",
        )


def _owner_token(folder: Path) -> str:
    """Made when the folder has none."""
    path = folder / "token"
    try:
        token = path.read_text().strip()
    except FileNotFoundError:
        token = new_token()
        temporary = path.with_name(f"token.{os.getpid()}")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(token + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    if not token:
        raise HubError(f"{path} is empty", "delete it; the next start makes a new token")
    return token


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise HubError(f"cannot listen on {host}:{port}: {error.strerror}", "choose another --port") from None
    return listener


def open_store(folder: Path) -> Store:
    """The folder's store, for a command; also beside a running server."""
    if not (folder / DATABASE).is_file():
        raise HubError(f"{folder} holds no local Hub", "name the folder that `hubkit hub serve` was given")
    try:
        return Store(folder)
    except (Problem, sqlite3.DatabaseError) as error:
        raise HubError(f"cannot read the local Hub in {folder}: {error}", "choose another folder") from None


def lock(folder: Path) -> IO[str] | None:
    """The folder for oneself as long as the file is open; None while a server runs in it."""
    file = (folder / "lock").open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _make_store(folder: Path, namespace: str) -> Store:
    """With its owner and the owner's token."""
    store = Store(folder)
    owner = store.meta("namespace", lambda: namespace)
    if owner != namespace:
        raise HubError(
            f"the local Hub in {folder} belongs to the namespace {owner}", f"use --namespace {owner}"
        )
    store.objects.clear_temporary()
    add_token(store, _owner_token(folder), namespace, "owner", "write", {})
    return store


def serve(
    folder: Path,
    host: str,
    port: int,
    namespace: str,
    while_used: bool,
    require_token: bool = False,
    jobs: bool = False,
) -> None:
    """Serve until a signal, or (`while_used`) until no LocalHub holds the folder."""
    import uvicorn

    from hubkit.localhub.app import make_app
    from hubkit.localhub.bodies import Protocol
    from hubkit.localhub.jobs import Jobs

    _check_host(host, require_token, jobs)
    folder.mkdir(parents=True, exist_ok=True)
    held = lock(folder)
    if held is None:
        print(f"error: another local Hub is running in {folder}", file=sys.stderr)
        sys.exit(3)
    try:
        store = _make_store(folder, namespace)
    except (Problem, sqlite3.DatabaseError) as error:
        raise HubError(f"cannot use {folder}: {error}", "choose another folder or namespace") from None
    listener = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    endpoint = f"http://{shown}:{listener.getsockname()[1]}"
    running = Jobs(folder, endpoint) if jobs else None
    config = uvicorn.Config(
        make_app(store, _is_loopback(host), require_token, running),
        http=Protocol,
        # Addresses of uploads carry signatures: they are not logged.
        access_log=False,
        log_level="warning",
        lifespan="off",
        # uvicorn's is up to a second old, and clients compare it with the times in a job's log; app.py sends one.
        date_header=False,
        # Clients hash a large file between two requests, and some take a closed connection for an error.
        timeout_keep_alive=120,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    note = folder / "endpoint"

    async def watch() -> None:
        with (folder / "users").open("a") as users:
            while not server.should_exit:
                await asyncio.sleep(0.2)
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    server.should_exit = True
            while server.started:  # keep the lock until requests under way have ended
                await asyncio.sleep(0.05)

    async def run() -> None:
        listener.listen(256)
        temporary = note.with_name("endpoint.new")
        known = {
            "endpoint": endpoint,
            "hub": store.id,
            "namespace": namespace,
            "jobs": jobs,
            "pid": os.getpid(),
        }
        temporary.write_text(json.dumps(known))
        temporary.replace(note)
        watching = asyncio.create_task(watch()) if while_used else None
        await server.serve(sockets=[listener])
        if watching is not None:
            watching.cancel()

    try:
        asyncio.run(run())
    finally:
        note.unlink(missing_ok=True)
        if running is not None:
            running.close()
        store.close()
        held.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hubkit.localhub", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--namespace", default="local")
    parser.add_argument("--require-token", action="store_true", help="answer to nobody without a token")
    parser.add_argument("--jobs", action="store_true", help="run jobs as processes on this machine")
    parser.add_argument("--while-used", action="store_true", help="end when no LocalHub uses the folder")
    arguments = parser.parse_args()
    try:
        serve(**vars(arguments))
    except HubError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
