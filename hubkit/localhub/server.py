"""The server's process: it holds the folder, listens, and writes its address to folder/endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from hubkit.errors import HubError
from hubkit.localhub.storage.folder import lock, make_store

__all__ = ["ALREADY_SERVED", "serve"]

ALREADY_SERVED: Final = 3
"""Exit status of a server that finds another one in its folder."""


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

    from hubkit.localhub.api.bodies import Protocol
    from hubkit.localhub.api.jobs import Jobs
    from hubkit.localhub.app import make_app

    _check_host(host, require_token, jobs)
    folder.mkdir(parents=True, exist_ok=True)
    held = lock(folder)
    if held is None:
        print(f"error: another local Hub is running in {folder}", file=sys.stderr)
        sys.exit(ALREADY_SERVED)
    store = make_store(folder, namespace)
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
            "require_token": require_token,
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
