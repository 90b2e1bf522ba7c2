from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import warm
from support import NANO, hubkit

SMALL = ("--set", "problems.train.size=12", "--set", "teachers.0.samples=1")


def trackio(folder: Path, *arguments: str) -> Any:
    """Trackio's own command line."""
    command = ["-m", "trackio.cli", *arguments, "--project", "nano", "--json"]
    done = warm.run(*command, env=os.environ | {"TRACKIO_DIR": str(folder)})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_run_can_be_followed_in_trackio(tmp_path: Path) -> None:
    command = ["recipe", "run", str(NANO), *SMALL, "--out", str(tmp_path / "runs"), "--json", "--trackio"]
    for until in ("problems", "traces"):
        done = hubkit(*command, "--until", until, TRACKIO_DIR=str(tmp_path / "trackio"))
        assert done.returncode == 0, done.stderr
        assert all(line.startswith("{") for line in done.stdout.splitlines())  # still JSON for scripts
    # A finished step is not started a second time.
    runs = trackio(tmp_path / "trackio", "list", "runs")["runs"]
    traces = [f"traces/nano-teacher/{shard}" for shard in (0, 1)]
    assert sorted(runs) == ["problems/test", "problems/train", *traces]
    wanted = {"done", "total", "tokens_per_s", "prompt_tokens_per_s", "in_flight", "failed", "seconds"}
    for run in traces:
        assert wanted <= set(trackio(tmp_path / "trackio", "list", "metrics", "--run", run)["metrics"])
    found = trackio(tmp_path / "trackio", "get", "metric", "--run", traces[0], "--metric", "total")
    assert {point["value"] for point in found["values"]} == {6}


def test_where_trackio_cannot_be_used_nothing_is_run(tmp_path: Path) -> None:
    command = ["recipe", "run", str(NANO), *SMALL, "--out", str(tmp_path / "runs"), "--trackio"]
    done = hubkit(*command, TRACKIO_DIR=str(tmp_path / "trackio"), TRACKIO_SERVER_URL="ftp://nowhere")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "TRACKIO_SERVER_URL" in done.stderr and "http" in done.stderr
    assert not list((tmp_path / "runs").glob("problems*/**/record.json"))
