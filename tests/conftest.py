"""Tests run real steps on the shipped nano models, in small numbers.

They may run in several processes (pytest-xdist, as `make test` does). The tests of a file run in one process, so
that what its fixtures make is made once; `@pytest.mark.xdist_group` takes some of them elsewhere.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Final

import pytest
from support import MODELS, ROOT

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# A background job of a script ignores Ctrl-C, and so would every process that a test sends it to.
signal.signal(signal.SIGINT, signal.default_int_handler)

LONGEST_FIRST: Final = (
    "tests/test_end_to_end.py",
    "tests/executors/test_hf_jobs.py",
    "tests/release/test_release.py",
)
"""Files whose tests take minutes: started first, so that no process is left alone with them at the end."""


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.relative_to(ROOT).as_posix()))
    places = {name: index for index, name in enumerate(LONGEST_FIRST)}
    last = len(places)
    items.sort(key=lambda item: places.get(item.path.relative_to(ROOT).as_posix(), last))


@pytest.fixture(scope="session")
def models() -> Path:
    """Folder of the shipped models: teacher, compressor, student-s, student-m."""
    return MODELS
