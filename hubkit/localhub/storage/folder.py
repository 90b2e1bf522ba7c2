"""The folder of a local Hub: who holds it, opening it, and preparing it for a server.

A server holds folder/lock while it lives: SQLite would allow two servers, but uploads in progress would not survive
the second one's start. The owner's token is in folder/token; the database has only the SHA-256 of tokens.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import IO

from hubkit.errors import HubError
from hubkit.localhub.storage.accounts import add_token, new_token
from hubkit.localhub.storage.errors import ApiError
from hubkit.localhub.storage.store import DATABASE, Store

__all__ = ["lock", "make_store", "open_store"]


def lock(folder: Path) -> IO[str] | None:
    """Hold the folder for as long as the returned file is open. Returns None while a server runs in it."""
    file = (folder / "lock").open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def open_store(folder: Path) -> Store:
    """The folder's store, for a command; a server may be running in it. Raises HubError if there is none."""
    if not (folder / DATABASE).is_file():
        raise HubError(f"{folder} holds no local Hub", "name the folder that `hubkit hub serve` was given")
    try:
        return Store(folder)
    except (ApiError, sqlite3.DatabaseError) as error:
        raise HubError(f"cannot read the local Hub in {folder}: {error}", "choose another folder") from None


def make_store(folder: Path, namespace: str) -> Store:
    """The folder's store with its owner and the owner's token, created if missing. The caller holds the lock.

    Raises HubError if the folder belongs to another namespace or cannot be read.
    """
    try:
        store = Store(folder)
        owner = store.meta("namespace", lambda: namespace)
        if owner != namespace:
            raise HubError(
                f"the local Hub in {folder} belongs to the namespace {owner}", f"use --namespace {owner}"
            )
        store.objects.clear_temporary()
        add_token(store, _owner_token(folder), namespace, "owner", "write", {})
    except (ApiError, sqlite3.DatabaseError) as error:
        raise HubError(f"cannot use {folder}: {error}", "choose another folder or namespace") from None
    return store


def _owner_token(folder: Path) -> str:
    """The token in folder/token, which is made if missing."""
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
