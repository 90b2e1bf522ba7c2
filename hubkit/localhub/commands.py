"""What the command line does to a Hub's accounts, also beside a running server."""

from __future__ import annotations

from pathlib import Path

from hubkit.errors import HubError
from hubkit.localhub.__main__ import open_store
from hubkit.localhub.accounts import add_member, add_token, new_token
from hubkit.localhub.problems import Problem

__all__ = ["make_member", "make_token"]


def make_token(folder: Path, user: str, role: str, name: str, scopes: list[str]) -> str:
    """scopes: `namespace=permission` or `namespace/repo=permission`."""
    parsed: dict[str, list[str]] = {}
    for scope in scopes:
        entity, _, permission = scope.partition("=")
        parsed.setdefault(entity, []).append(permission)
    store = open_store(folder)
    try:
        token = new_token()
        add_token(store, token, user, name, role, parsed)
    except Problem as error:
        raise HubError(error.message, "see hubkit hub token --help") from None
    finally:
        store.close()
    return token


def make_member(folder: Path, org: str, user: str, role: str) -> None:
    store = open_store(folder)
    try:
        add_member(store, org, user, role)
    except Problem as error:
        raise HubError(error.message, "see hubkit hub member --help") from None
    finally:
        store.close()
