"""A small part of the nano recipe, greedy, that tests run under every executor, and what they look at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support import NANO, hubkit

from hubkit.store import is_locked

__all__ = ["SMALL", "answered", "arguments", "busy", "outputs", "started", "states", "wait"]

SMALL = [
    "problems.train.size=40",
    "problems.test.size=12",
    "teachers.0.samples=1",
    "teachers.0.sampling.temperature=0.0",
    "run.engines={default: {batch_size: 4}}",  # so that a step has a middle to be stopped in
]


def arguments(root: Path, executor: str, *more: str) -> list[str]:
    sets = [*SMALL, f"run.executor={executor}", *more]
    options = [part for value in sets for part in ("--set", value)]
    until = ["--until", "contamination", "--until", "raw"]
    return ["recipe", "run", str(NANO), *options, *until, "--out", str(root)]


@contextmanager
def started(arguments: list[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The CLI at work in a process group of its own, which a test may signal or kill."""
    command = [sys.executable, "-m", "hubkit", *arguments]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def outputs(root: Path) -> dict[str, tuple[str, Any]]:
    """Step -> digest of its files' bytes, counts."""
    found = [json.loads(path.read_text()) for path in (root / "steps").rglob("record.json")]
    return {record["step"]: (record["output"], record["counts"]) for record in found}


def answered(root: Path) -> bool:
    """Whether some trace step has answers in its journal, and so is in its middle."""
    return any(
        json.loads(path.read_text())["done"] > 0 for path in (root / "work" / "traces").rglob("progress.json")
    )


def busy(root: Path) -> list[str]:
    """The trace steps that some process carries out now."""
    keys = [path.name for path in (root / "work" / "traces").glob("*/*/*")]
    return [key for key in keys if is_locked(root / "locks" / f"{key}.lock")]


def states(root: Path, executor: str) -> dict[str, str]:
    """Step -> what `recipe status` calls it."""
    sets = [part for value in [*SMALL, f"run.executor={executor}"] for part in ("--set", value)]
    done = hubkit("recipe", "status", str(NANO), *sets, "--out", str(root), "--json")
    assert done.returncode == 0, done.stderr
    return {row["step"]: row["state"] for row in json.loads(done.stdout)["steps"]}


def wait(what: str, seen: Callable[[], Any], limit: float = 600) -> Any:
    until = time.monotonic() + limit
    while not (found := seen()):
        assert time.monotonic() < until, f"{what} was not seen"
        time.sleep(0.2)
    return found
