"""python -m hubkit.hub.server FOLDER: the server's process. `hubkit hub serve` and LocalHub start it.

It holds folder/lock while it lives: SQLite would allow two servers, uploads under way would not survive it.
Where it listens stands in folder/endpoint. The token of its one user is in folder/token; the database has
only the token's sha256.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import hashlib
import ipaddress
import json
import os
import secrets
import socket
import sys
from pathlib import Path
from typing import IO

from hubkit.errors import HubError

__all__ = ["serve"]


def _check_host(host: str) -> None:
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return
    if host == "localhost":
        return
    raise HubError(
        f"the local Hub does not listen on {host}: over plain HTTP its token could be read on the way",
        "use 127.0.0.1, and an ssh tunnel (ssh -L) to reach it from another machine",
    )


def _token_hash(folder: Path) -> str:
    """sha256 of the token; the token is made when the folder has none."""
    path = folder / "token"
    try:
        token = path.read_text().strip()
    except FileNotFoundError:
        token = "hf_" + secrets.token_urlsafe(32).replace("-", "a").replace("_", "b")
        temporary = path.with_name(f"token.{os.getpid()}")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(token + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    if not token:
        raise HubError(f"{path} is empty", "delete it; the next start makes a new token")
    return hashlib.sha256(token.encode()).hexdigest()


def _lock(folder: Path) -> IO[str]:
    file = (folder / "lock").open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"error: another local Hub is running in {folder}", file=sys.stderr)
        sys.exit(3)
    return file


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


def serve(folder: Path, host: str, port: int, namespace: str, while_used: bool) -> None:
    """Serve until a signal, or (`while_used`) until no LocalHub holds the folder."""
    import uvicorn

    from hubkit.hub.server.app import App
    from hubkit.hub.server.store import Store, StoreError, check_repo_name

    _check_host(host)
    try:
        check_repo_name(f"{namespace}/x")
    except StoreError:
        raise HubError(f"not a namespace: {namespace!r}", "use letters, digits and inner dashes") from None
    folder.mkdir(parents=True, exist_ok=True)
    lock = _lock(folder)
    store = Store(folder)
    owner = store.meta("namespace", lambda: namespace)
    if owner != namespace:
        raise HubError(
            f"the local Hub in {folder} belongs to the namespace {owner}", f"use --namespace {owner}"
        )
    store.clear_temporary()
    digest = _token_hash(folder)
    listener = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    endpoint = f"http://{shown}:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        App(store, endpoint, namespace, digest),
        # Addresses of uploads carry signatures: they are not logged.
        access_log=False,
        log_level="warning",
        lifespan="off",
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
        known = {"endpoint": endpoint, "hub": store.id, "namespace": namespace, "pid": os.getpid()}
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
        store.close()
        lock.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hubkit.hub.server", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--namespace", default="local")
    parser.add_argument("--while-used", action="store_true", help="end when no LocalHub uses the folder")
    arguments = parser.parse_args()
    try:
        serve(arguments.folder, arguments.host, arguments.port, arguments.namespace, arguments.while_used)
    except HubError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
