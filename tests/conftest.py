"""Tests run real steps on the shipped nano models, in small numbers."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from support import MODELS

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# A background job of a script ignores Ctrl-C, and so would every process that a test sends it to.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def models() -> Path:
    """Folder of the shipped models: teacher, compressor, student-s, student-m."""
    return MODELS
