"""What a job on the Hub installs as hubkit: the hubkit that is installed here. On PyPI the name is another project's.

pip and uv write down where a package came from, in its direct_url.json (PEP 610):

    {"url": "https://host/hubkit", "vcs_info": {"vcs": "git", "commit_id": "02de…"}}   hubkit @ git+https://host/hubkit@02de…
    {"url": "file:///home/me/hubkit", "dir_info": {"editable": true}}                  a wheel, built from that folder
    {"url": "file:///home/me/hubkit-0.2.0-py3-none-any.whl", "archive_info": {…}}      that wheel

A wheel goes into the run's repo, and BOOTSTRAP fetches it in the job.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata, util
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hubkit.errors import InputError

__all__ = ["BOOTSTRAP", "WHEEL", "from_here", "requirement_lines"]

WHEEL: Final = "{wheel}"
"""Stands for the wheel's path in the arguments of BOOTSTRAP."""
BOOTSTRAP: Final = (
    "import os, sys\n"
    "from huggingface_hub import hf_hub_download as get\n"
    "n, *a = sys.argv[1:]\n"
    "w = get(os.environ['HUBKIT_REPO'], n, repo_type='dataset', revision=os.environ['HUBKIT_COMMIT'])\n"
    "os.execvp(a[0], [x.replace('{wheel}', w) for x in a])\n"
)
"""python -c BOOTSTRAP NAME COMMAND …: fetches the wheel NAME from the run's repo, then becomes COMMAND. No longer
than a file's name may be: run_uv_job asks of each argument whether it is a file."""

_REMEDY: Final = "name an address in run.jobs.dependencies, such as 'hubkit @ git+https://HOST/hubkit'"


def from_here(folder: Path) -> str | Path:
    """Returns where to install hubkit from: an address for pip, or a wheel, built into `folder` if necessary.

    Raises InputError if its source is not known, is gone, or cannot be built.
    """
    text = metadata.distribution("hubkit").read_text("direct_url.json")
    if text is None:
        raise InputError("jobs cannot be told where to install hubkit from", _REMEDY)
    told: dict[str, Any] = json.loads(text)
    url = str(told["url"])
    if git := told.get("vcs_info"):
        return f"{git['vcs']}+{url}@{git['commit_id']}"
    if urlsplit(url).scheme != "file":
        return url
    source = Path(url2pathname(urlsplit(url).path))
    if not source.exists():
        raise InputError(f"hubkit was installed from {source}, which is gone", _REMEDY)
    return _build(source, folder) if source.is_dir() else source


def requirement_lines(dependencies: list[str], address: str) -> list[str]:
    """The dependencies, with hubkit's address where they name it without one; its extras stay."""
    lines = []
    for line in dependencies:
        asked = Requirement(line)
        if canonicalize_name(asked.name) == "hubkit" and asked.url is None:
            asked.url = address
        lines.append(str(asked))
    return lines


def _build(checkout: Path, folder: Path) -> Path:
    if util.find_spec("pip") is None:
        raise InputError("a wheel of hubkit cannot be built: this Python has no pip", "python -m ensurepip")
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(folder),
        str(checkout),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = sorted(folder.glob("hubkit-*.whl"))
    if done.returncode or len(wheels) != 1:
        why = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
        raise InputError(f"a wheel of hubkit cannot be built from {checkout}: {why}", _REMEDY)
    return wheels[0]
