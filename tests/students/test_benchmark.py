"""The training benchmark runs as its docstring says, on the shape that needs no GPU."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from support import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_benchmark_prints_a_line_per_trainer(method: str) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "train.py"), "--shape", "tiny", "--length", "64"]
    command += ["--steps", "4", "--short", "20", "--device", "cpu", "--method", method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    ours, theirs = map(json.loads, done.stdout.splitlines())
    assert (ours["trainer"], theirs["trainer"]) == ("hubkit", "trl")
    assert ours["steps"] == 4 and ours["tokens_per_s"] > 0 and ours["layout"] == "padded"
