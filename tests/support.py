"""Places, and the CLI as users run it, for all test modules."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["MODELS", "NANO", "ROOT", "hubkit"]

ROOT = Path(__file__).parent.parent
NANO = ROOT / "recipes" / "nano" / "recipe.yaml"
MODELS = ROOT / "recipes" / "nano" / "models"


def hubkit(
    *arguments: str, cwd: Path | None = None, timeout: float = 280, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the CLI as users do, as a process."""
    command = [sys.executable, "-m", "hubkit", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, timeout=timeout, env=os.environ | environment
    )
