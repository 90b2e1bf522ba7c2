"""A model on a task, at the command line and without a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_support import add
from huggingface_hub import HfApi
from support import MODELS, hubkit

from hubkit.localhub import LocalHub
from hubkit.records import PROBLEM_SCHEMA

ASKED = "State the final answer to the following arithmetic problem: {} + {} - 12 ="
DEFINITION = b"""name: sums
description: Sums.
evaluation_framework: hubkit
tasks: [{id: sums, config: test, split: test}]
"""
CARD = (
    b"---\nconfigs: [{config_name: test, data_files: [{split: test, path: data/test/test-*.parquet}]}]\n---\n"
)


def test_a_folder_is_evaluated_once_and_loads_as_a_dataset(tmp_path: Path) -> None:
    import datasets

    rows = [
        {"id": f"p{a}", "source": "s", "problem": ASKED.format(a, 38), "answer": str(a + 26), "verifier": "numeric",
         "metadata": ""}
        for a in (47, 51)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, schema=PROBLEM_SCHEMA), tmp_path / "p.parquet")
    out = tmp_path / "scores"
    with LocalHub(tmp_path / "hub") as hub:
        api = HfApi(hub.endpoint, token=hub.token)
        api.create_repo("local/sums", repo_type="dataset")
        files = {"README.md": CARD, "eval.yaml": DEFINITION}
        files["data/test/test-00000-of-00001.parquet"] = (tmp_path / "p.parquet").read_bytes()
        sha = add(api, "local/sums", files, repo_type="dataset")
        there = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HOME": str(tmp_path / "home")}
        command = ["evaluate", str(MODELS / "student-s"), "--task", "local/sums#sums", "--out", str(out)]
        command += ["--max-tokens", "40", "--engine", "transformers", "--device", "cpu"]
        done = hubkit(*command, **there)
        assert done.returncode == 0 and "local/sums#sums" in done.stdout, done.stderr
        before = (out / "sums" / "samples.parquet").stat().st_mtime_ns
        records = {path: path.stat().st_mtime_ns for path in out.rglob("record.json")}
        again = hubkit(*command, "--json", **there)
        assert again.returncode == 0, again.stderr
        assert {path: path.stat().st_mtime_ns for path in out.rglob("record.json")} == records
    (score,) = json.loads(again.stdout)["scores"]
    assert (score["n"], score["dataset"], score["revision"]) == (2, "local/sums", sha) and before
    found = datasets.load_dataset(str(out), "sums", split="test", cache_dir=str(tmp_path / "cache"))
    assert found["id"] == ["p47", "p51"] and sum(found["correct"]) == score["correct"]
    card = (out / "README.md").read_text()
    assert "| `local/sums#sums` | 2 | local/sums at" in card and str(tmp_path) not in card


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["./none", "--task", "gsm8k|0"], "neither a folder nor a Hub id"),
        ([str(MODELS / "student-s"), "--task", "gsm8k"], "write org/name#task|name|number"),
        ([str(MODELS / "student-s"), "--task", "gsm8k|0", "--engine", "openai"], "--engine openai"),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = hubkit("evaluate", *arguments, "--out", str(tmp_path / "o"), HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert any(part in done.stderr for part in message.split("|")), done.stderr
