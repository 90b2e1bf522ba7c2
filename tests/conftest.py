"""What several test modules share. Tests run real steps on the shipped nano models, in small numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NANO = ROOT / "recipes" / "nano" / "recipe.yaml"
MODELS = ROOT / "recipes" / "nano" / "models"

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def hubkit(
    *arguments: str, cwd: Path | None = None, timeout: float = 280
) -> subprocess.CompletedProcess[str]:
    """Run the CLI as users do, as a process."""
    command = [sys.executable, "-m", "hubkit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=timeout)


@pytest.fixture(scope="session")
def models() -> Path:
    """Folder of the shipped models: teacher, compressor, student-s, student-m."""
    return MODELS
