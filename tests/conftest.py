"""Tests run real steps on the shipped nano models, in small numbers.

They may run in several processes, as `make test` does: pytest-xdist with --dist loadfile. The tests of a file run in
one process, so that what its fixtures make is made once.
"""

from __future__ import annotations

import gc
import signal
from pathlib import Path
from typing import Final

import hypothesis
import pytest
import warm
from support import MODELS, ROOT

# A background job of a script ignores Ctrl-C, and so would every process that a test sends it to.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Also the workers of recipes that a test runs in its own process.
warm.use_for_workers()

# How long an example takes depends on what else the machine does. A change is tested by the same examples as the code
# before it: `--hypothesis-profile default` draws others.
hypothesis.settings.register_profile("any machine", deadline=None, derandomize=True)
hypothesis.settings.load_profile("any machine")

LONGEST_FIRST: Final = (
    "tests/test_scale.py",  # of `make test-all`
    "tests/test_rehearsal.py",
    "tests/test_end_to_end.py",
    "tests/spaces/test_page.py",
    "tests/students/test_student.py",
    "tests/release/test_check.py",
    "tests/release/test_publish.py",
    "tests/test_recipes.py",
    "tests/evaluation/test_tasks.py",
    "tests/engines/test_helpers.py",
    "tests/release/test_submit.py",
    "tests/localhub/test_pages.py",
    "tests/engines/test_transformers.py",
    "tests/test_hub.py",
    "tests/localhub/test_jobs.py",
    "tests/cli/test_traces.py",
    "tests/verifiers/test_pool.py",
    "tests/localhub/test_process.py",
    "tests/localhub/test_server.py",
    "tests/engines/test_openai.py",
    "tests/evaluation/test_published.py",
    "tests/traces/origins/test_existing.py",
)
"""Files whose tests take longest, in this order: so that no process is left alone with one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: index for index, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.relative_to(ROOT).as_posix(), len(places)))


def pytest_collection_finish() -> None:
    # What test files have imported stays, and is a million objects: whoever collects garbage need not go through them.
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def models() -> Path:
    """Folder of the shipped models: teacher, compressor, student-s, student-m."""
    return MODELS
