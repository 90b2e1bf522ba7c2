"""The training benchmark runs as its docstring says, on shapes that need no GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from students_support import context, uneven
from support import MODELS, ROOT
from tiny_model import save_tiny_tokenizer

SCRIPT = ROOT / "benchmarks" / "train.py"


def lines(command: list[str], code: int = 0) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=ROOT)
    assert done.returncode == code, done.stdout + done.stderr[-2000:]
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_benchmark_prints_a_line_per_trainer(method: str) -> None:
    command = [sys.executable, str(SCRIPT), "--shape", "tiny", "--length", "64"]
    command += ["--steps", "4", "--short", "20", "--device", "cpu", "--method", method]
    ours, theirs = map(json.loads, lines(command))
    assert (ours["trainer"], theirs["trainer"]) == ("hubkit", "trl")
    assert ours["steps"] == 4 and ours["tokens_per_s"] > 0 and ours["layout"] == "padded"
    assert 0.2 < ours["peak_gib"] < 5 and ours["tokens_per_cpu_s"] > 0


@pytest.mark.slow
def test_a_base_is_measured_on_the_tokens_that_a_run_made(tmp_path: Path) -> None:
    made = context(tmp_path, uneven())
    command = [sys.executable, str(SCRIPT), "--base", str(MODELS / "student-s"), "--device", "cpu"]
    command += ["--tokens", str(made.inputs["tokens"]), "--examples", "4", "--steps", "3"]
    ours, theirs = map(json.loads, lines(command))
    assert ours["steps"] == theirs["steps"] == 3 and ours["tokens_per_cpu_s"] > 0


TABLE = """
import sys
sys.path.insert(0, {folder!r})
import train
train.TABLE = {table!r}
sys.argv[1:] = ["--table", "--trial", "--device", "cpu", "--json", {file!r}, *{more!r}]
train.main()
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_table_goes_on_past_what_fails_and_from_where_it_was(tmp_path: Path) -> None:
    huge = tmp_path / "huge"
    save_tiny_tokenizer(huge)
    config = {"model_type": "qwen3", "vocab_size": 1 << 34, "hidden_size": 1 << 14, "num_hidden_layers": 1}
    (huge / "config.json").write_text(json.dumps(config))
    save_file({}, huge / "model.safetensors", metadata={"format": "pt"})
    table: list[dict[str, Any]] = [
        {"shape": "qwen3.5-0.8b", "length": 4096, "examples": 2, "goal": 10, "goal_gib": 60},
        {"shape": "tiny", "length": 1024, "base": str(huge), "goal": 10},
        {"shape": "tiny", "length": 2048, "limit": 0.1, "goal": 10},
        {"shape": "qwen3.5-0.8b", "length": 700, "examples": 8, "goal_share": 0.8},
    ]
    file = tmp_path / "table.json"

    def command(*more: str) -> list[str]:
        code = TABLE.format(folder=str(SCRIPT.parent), table=table, file=str(file), more=more)
        return [sys.executable, "-c", code]

    said = lines(command(), code=1)
    found = [json.loads(line) for line in said[:8]]
    assert [json.loads(line) for line in file.read_text().splitlines()] == found
    told = [row.get("error", "") for row in found]
    assert told[:2] == told[6:] == ["", ""], told
    assert all("memory" in each for each in told[2:4]), told
    assert all(each == "no result in 0 s" for each in told[4:6]), told
    assert len(said) == 8 + 2 + len(table) and "no result" in said[-2]
    goal = round(0.8 * found[0]["tokens_per_s"])
    assert f"| 700 | {goal:,} | {found[6]['tokens_per_s']:,.0f} |" in said[-1]
    # No trainer begins here: what was measured stands in the file, and what failed is not taken for that.
    again = lines(command("--minutes", "1e-9"))
    assert len(again) == 2 + len(table) and again[-1] == said[-1] and "not measured" in again[-2]
