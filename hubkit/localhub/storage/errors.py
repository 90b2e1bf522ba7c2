"""ApiError, which all code of the server raises, and the checks of names and paths."""

from __future__ import annotations

import re
from typing import Any, Final

__all__ = ["RESERVED", "ApiError", "check_path", "check_ref", "check_repo_name", "is_repo_name"]

_REPO_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
_REF_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+-]{0,199}")
_LONGEST_PATH: Final = 1024

RESERVED: Final = frozenset(
    {"api", "collections", "datasets", "health", "lfs", "login", "models", "spaces", "xet"}
)
"""First parts of the server's own addresses; no user may have such a name."""


class ApiError(Exception):
    """A request that is refused, with its HTTP status. `code` is sent as X-Error-Code, which clients read."""

    def __init__(self, status: int, message: str, code: str = "", **extra: Any) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.extra = extra


def check_path(path: str) -> str:
    """Raise ApiError for paths that would leave the folder a repo is downloaded to, or that git cannot store."""
    parts = path.split("/")
    bad = (
        not path
        or len(path.encode("utf-8", "surrogatepass")) > _LONGEST_PATH
        or any(part in ("", ".", "..") or part.lower() == ".git" for part in parts)
        or any(ord(char) < 32 or ord(char) == 127 or char == "\\" for char in path)
        or re.match(r"[A-Za-z]:", path) is not None
        or any("\ud800" <= char <= "\udfff" for char in path)
    )
    if bad:
        raise ApiError(400, f"not a path for a repo: {path!r}", "BadPath")
    return path


def is_repo_name(name: str) -> bool:
    """Whether a name is namespace/name, each part as the Hub allows it."""
    parts = name.split("/")
    return (
        len(parts) == 2
        and parts[0].lower() not in RESERVED
        and all(
            _REPO_NAME.fullmatch(part) is not None
            and ".." not in part
            and "--" not in part
            and not part.endswith((".", "-", ".git", ".ipynb"))
            for part in parts
        )
    )


def check_repo_name(name: str) -> str:
    if not is_repo_name(name):
        raise ApiError(400, f"not a repo id: {name!r}", "BadRepoId")
    return name


def check_ref(name: str) -> str:
    bad = (
        not _REF_NAME.fullmatch(name)
        or ".." in name
        or "//" in name
        or name.endswith(("/", ".", ".lock"))
        or name.startswith("refs/")
        or re.fullmatch(r"[0-9a-f]{40}", name) is not None
    )
    if bad:
        raise ApiError(400, f"not a name for a branch or tag: {name!r}", "BadRefName")
    return name
