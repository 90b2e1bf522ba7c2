"""Memory that a training frees: with its process while it trains, with the system afterwards."""

from __future__ import annotations

import platform

import pytest
import warm

MEASURE = """
from pathlib import Path
from hubkit.allocator import keep_freed, return_freed

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20

def left():
    "MiB that stay resident of 200 which were allocated and freed."
    before = resident()
    blocks = [bytearray(50 << 20) for _ in range(4)]
    del blocks
    return resident() - before

first = resident()
print(left())
keep_freed()
print(left())
return_freed()
print(resident() - first, left())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc's malloc")
def test_freed_memory_is_kept_while_it_is_wanted_and_given_back() -> None:
    told = warm.run("-c", MEASURE)
    usual, kept, remaining, returned = map(int, told.stdout.split())
    assert kept > 150
    assert usual < 20 and returned < 20
    assert remaining < 20  # what was kept went back at once
