"""Whether a process keeps the memory that it frees. This sets glibc's malloc; with another libc nothing changes."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Final

__all__ = ["keep_freed", "return_freed", "trim"]

# <malloc.h>: what mallopt may set.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_KEEP: Final = {_TRIM_THRESHOLD: -1, _TOP_PAD: 64 << 20, _MMAP_MAX: 0}
_RETURN: Final = {_TRIM_THRESHOLD: 64 << 20, _TOP_PAD: 128 << 10, _MMAP_THRESHOLD: 32 << 20, _MMAP_MAX: 65536}
"""glibc's own; the thresholds as far as they grow by themselves, which they no longer do once one was set."""


def keep_freed() -> None:
    """From here on freed memory stays with this process, for what it allocates next.

    Otherwise a large block goes back to the system, which fills it with zeros when it is wanted again; torch keeps
    none on a CPU, and training wants the same blocks at every step. The price is fragments: a higher peak.
    """
    _set(_KEEP)


def return_freed() -> None:
    """Give the system what is free, now and from here on."""
    _set(_RETURN)
    trim()


def trim() -> None:
    """Give the system what is free now."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _set(values: dict[int, int]) -> None:
    with suppress(OSError, AttributeError):
        for name, value in values.items():
            ctypes.CDLL(None).mallopt(name, value)
