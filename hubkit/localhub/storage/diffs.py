"""Differences of two trees, written as git writes them."""

from __future__ import annotations

import difflib
from typing import Final

from hubkit.localhub.storage.objects import Entry, pointer
from hubkit.localhub.storage.store import Store, Tree, differing

__all__ = ["diff"]

_LARGEST: Final = 1 << 18
_MOST_LINES: Final = 5_000
"""Finding differences takes the square of a text's length in the worst case."""
_MOST_FILES: Final = 300


def _lines(store: Store, entry: Entry | None) -> list[str] | None:
    """The lines that git stores for a file. Returns None if it is not text, or too long."""
    if entry is None:
        return []
    if entry.lfs:
        return pointer(entry.sha256, entry.size).decode().splitlines(keepends=True)
    if entry.size > _LARGEST:
        return None
    try:
        text = store.objects.read(entry).decode()
    except UnicodeDecodeError:
        return None
    lines = text.splitlines(keepends=True)
    return lines if len(lines) <= _MOST_LINES and "\0" not in text else None


def _file(store: Store, path: str, old: Entry | None, new: Entry | None) -> str:
    text = f"diff --git a/{path} b/{path}\n"
    if old is None:
        text += "new file mode 100644\n"
    if new is None:
        text += "deleted file mode 100644\n"
    text += f"index {old.oid if old else '0' * 40}..{new.oid if new else '0' * 40}\n"
    names = f"a/{path}" if old else "/dev/null", f"b/{path}" if new else "/dev/null"
    before, after = _lines(store, old), _lines(store, new)
    if before is None or after is None:
        return text + f"Binary files {names[0]} and {names[1]} differ\n"
    for line in difflib.unified_diff(before, after, *names):
        text += line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
    return text


def diff(store: Store, before: Tree, after: Tree) -> str:
    paths = differing(before, after)
    text = "".join(_file(store, path, before.get(path), after.get(path)) for path in paths[:_MOST_FILES])
    more = len(paths) - _MOST_FILES
    return text + (f"{more} more files differ\n" if more > 0 else "")
