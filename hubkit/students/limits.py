"""The memory that a container, or a job of Slurm, may still take: control groups of both versions.

A job's limit is that of its own group or of one around it. What a group uses includes files in the page cache, which
the kernel drops when memory is needed: after a download they may fill a whole container.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["free_in_groups"]

ROOT: Final = Path("/sys/fs/cgroup")
OWN: Final = Path("/proc/self/cgroup")
"""Lines of number:controllers:path; version 2 has no controllers."""


def free_in_groups(root: Path = ROOT, own: Path = OWN) -> int | None:
    """Returns the bytes that this process' control groups leave free. Returns None without a limit."""
    return min((free for group in _groups(root, own) if (free := _free(*group)) is not None), default=None)


def _groups(root: Path, own: Path) -> Iterator[tuple[Path, str, str, str]]:
    """Folders of this process' groups and of those around them, with the names of their files of limit and use, and
    the beginning of the names in their statistics. In a container the path may be one of the machine outside."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, names = root, ("memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            top, names = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
        else:
            continue
        folder = top / path.strip("/")
        while folder.is_relative_to(top):
            yield folder, *names
            folder = folder.parent


def _free(folder: Path, limit: str, used: str, begins: str) -> int | None:
    try:
        most, now = (int((folder / name).read_text()) for name in (limit, used))
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):  # no such group here, or "max"
        return None
    told = dict(line.split() for line in lines)
    files = sum(int(told.get(f"{begins}{name}", 0)) for name in ("inactive_file", "active_file"))
    return max(0, most - now + files)
