"""Places, and the CLI as users run it, for all test modules."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import warm

__all__ = ["CHROMIUM", "MODELS", "NANO", "ROOT", "hubkit", "needs_bubblewrap", "needs_chromium"]

ROOT = Path(__file__).parent.parent
NANO = ROOT / "recipes" / "nano" / "recipe.yaml"
MODELS = ROOT / "recipes" / "nano" / "models"


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), "")

# What pip cannot install. Where it is missing the tests that need it are skipped, and say so.
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="needs a browser: apt install chromium")
needs_bubblewrap = pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="needs the sandbox: apt install bubblewrap"
)


def hubkit(
    *arguments: str, cwd: Path | None = None, timeout: float = 280, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the CLI as users do, as a process."""
    return warm.run("-m", "hubkit", *arguments, cwd=cwd, timeout=timeout, env=os.environ | environment)
