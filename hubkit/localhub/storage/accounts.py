"""Users, organisations and tokens. The database has only the sha256 of a token.

A token has one of the Hub's roles: `read`, `write`, or `fineGrained` with scopes such as
{"local/x": ["repo.write"], "local": ["repo.content.read"]} (keys: a namespace, or one repo).
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass, field
from typing import Any, Final

from hubkit.localhub.storage.errors import ApiError, check_repo_name
from hubkit.localhub.storage.store import Repo, Store

__all__ = [
    "NOBODY",
    "ROLES",
    "Who",
    "account_id",
    "add_member",
    "add_token",
    "add_user",
    "described",
    "is_org",
    "members",
    "new_token",
    "who_sent",
]

ROLES: Final = ("read", "write", "fineGrained")
_PERMISSIONS: Final = ("discussion.write", "repo.content.read", "repo.write")
_MEMBER_ROLES: Final = ("read", "write", "admin")

Scopes = dict[str, list[str]]


@dataclass(frozen=True)
class Who:
    """Who sent a request, and what their token allows. Without a token that this Hub made, it is nobody."""

    user: str = ""
    token_name: str = ""
    role: str = "read"
    scopes: Scopes = field(default_factory=dict)
    orgs: dict[str, str] = field(default_factory=dict)
    """Organisation to the user's role in it."""

    def _scope(self, name: str) -> list[str]:
        return self.scopes.get(name.lower(), []) + self.scopes.get(name.split("/")[0].lower(), [])

    def may_write(self, name: str) -> bool:
        """Whether they may change the repos of a namespace, or namespace/repo."""
        namespace = name.split("/")[0].lower()
        if not self.user or (
            namespace != self.user.lower() and self.orgs.get(namespace) not in ("write", "admin")
        ):
            return False
        if self.role == "fineGrained":
            return "repo.write" in self._scope(name)
        return self.role == "write"

    def may_read(self, repo: Repo) -> bool:
        """Whether they may read the repo. To others it does not seem to exist."""
        return not repo.private or self.is_insider(repo)

    def is_insider(self, repo: Repo) -> bool:
        """Whether they may read the repo's contents if it is private or gated."""
        namespace = repo.name.split("/")[0].lower()
        if not self.user or (namespace != self.user.lower() and namespace not in self.orgs):
            return False
        return self.role != "fineGrained" or bool(self._scope(repo.name))

    def may_contribute(self, repo: Repo) -> bool:
        """Whether they may upload contents for pull requests to this repo, and take part in discussions."""
        if self.role == "fineGrained":
            return bool({"discussion.write", "repo.write"} & set(self._scope(repo.name)))
        return bool(self.user) and self.role == "write"


NOBODY: Final = Who()


def _check_name(name: str) -> str:
    try:
        check_repo_name(f"{name}/x")
    except ApiError:
        raise ApiError(400, f"not a name for a user or organisation: {name!r}") from None
    return name


def add_user(store: Store, name: str, kind: str = "user") -> None:
    """Add a user or an organisation ("org"), unless it exists."""
    with store.change() as db:
        for row in store.rows("SELECT kind FROM accounts WHERE name = ?", _check_name(name)):
            if row["kind"] != kind:
                raise ApiError(409, f"{name} is there already, as {row['kind']}")
            return
        db.execute("INSERT INTO accounts VALUES (?, ?)", (name, kind))


def add_member(store: Store, org: str, user: str, role: str) -> None:
    if role not in _MEMBER_ROLES:
        raise ApiError(400, f"a member's role is one of {', '.join(_MEMBER_ROLES)}")
    with store.change() as db:
        add_user(store, org, "org")
        add_user(store, user)
        db.execute("INSERT OR REPLACE INTO members VALUES (?, ?, ?)", (org, user, role))


def is_org(store: Store, name: str) -> bool | None:
    """Returns None if there is no such account."""
    for row in store.rows("SELECT kind FROM accounts WHERE name = ?", name):
        return bool(row["kind"] == "org")
    return None


def members(store: Store, org: str) -> dict[str, str]:
    rows = store.rows("SELECT user, role FROM members WHERE org = ? ORDER BY user", org)
    return {row["user"]: row["role"] for row in rows}


def new_token() -> str:
    return "hf_" + secrets.token_urlsafe(32).replace("-", "a").replace("_", "b")


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def add_token(store: Store, token: str, user: str, name: str, role: str, scopes: Scopes) -> None:
    """Accept a token from now on. Adding it again changes nothing."""
    if role not in ROLES:
        raise ApiError(400, f"a token's role is one of {', '.join(ROLES)}")
    if bool(scopes) != (role == "fineGrained"):
        raise ApiError(400, "scopes are for fineGrained tokens, which need at least one")
    for permissions in scopes.values():
        if not permissions or not set(permissions) <= set(_PERMISSIONS):
            raise ApiError(400, f"permissions are {', '.join(_PERMISSIONS)}")
    lower = {name.lower(): permissions for name, permissions in scopes.items()}
    with store.change() as db:
        add_user(store, user)
        values = (_digest(token), user, name, role, json.dumps(lower))
        db.execute("INSERT OR IGNORE INTO tokens VALUES (?, ?, ?, ?, ?)", values)


def who_sent(store: Store, authorization: str) -> Who:
    """The sender of a request by its Authorization header.

    The database is asked for the hash of what was sent: how long that takes tells nothing about a token.
    """
    sent = authorization.removeprefix("Bearer ").strip()
    if not sent or sent.startswith("Basic "):
        return NOBODY
    for row in store.rows("SELECT * FROM tokens WHERE sha256 = ?", _digest(sent)):
        mine = store.rows("SELECT org, role FROM members WHERE user = ?", row["user"])
        orgs = {member["org"].lower(): member["role"] for member in mine}
        return Who(row["user"], row["name"], row["role"], json.loads(row["scopes"]), orgs)
    return NOBODY


def account_id(name: str) -> str:
    """The id of a user or an organisation in the API."""
    return _digest(name)[:24]


def described(store: Store, who: Who) -> dict[str, Any]:
    """The answer of whoami."""
    token: dict[str, Any] = {"displayName": who.token_name, "role": who.role}
    if who.role == "fineGrained":
        token["fineGrained"] = {
            "canReadGatedRepos": True,
            "global": [],
            "scoped": [
                {
                    "entity": {"type": "repo" if "/" in name else "user", "name": name},
                    "permissions": permissions,
                }
                for name, permissions in who.scopes.items()
            ],
        }
    orgs = [
        {"type": "org", "name": name, "fullname": name, "roleInOrg": role, "avatarUrl": ""}
        for name, role in who.orgs.items()
    ]
    return {
        "type": "user",
        "id": account_id(who.user),
        "name": who.user,
        "fullname": who.user,
        "avatarUrl": "",
        "isPro": False,
        "orgs": orgs,
        "auth": {"type": "access_token", "accessToken": token},
    }
