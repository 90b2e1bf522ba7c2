"""recipes/existing-traces: real traces, from a file to a checked release, and an endpoint that compresses by rule."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import ROOT, hubkit

from hubkit.records import read_rows
from hubkit.store import Record

FOLDER = ROOT / "recipes" / "existing-traces"
RECIPE = str(FOLDER / "recipe.yaml")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Address of the recipe's own server."""
    command = [sys.executable, str(FOLDER / "equations.py"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.terminate()


def run(out: Path, endpoint: str, *more: str) -> dict[str, Path]:
    """Carry the recipe out; returns the folders of the steps by name."""
    done = hubkit(
        *("recipe", "run", RECIPE, "--out", str(out), "--set", f"run.engines.equations.endpoint={endpoint}"),
        *more,
    )
    assert done.returncode == 0, done.stderr
    found = (path.parent for path in (out / "steps").rglob("record.json"))
    return {Record.read(folder).step: folder for folder in found}


def data(folder: Path) -> dict[tuple[str, int], dict[str, Any]]:
    return {(row["id"], row["sample"]): row for row in read_rows(folder / "data.parquet")}


def test_real_traces_become_three_forms_of_the_same_rows(endpoint: str, tmp_path: Path) -> None:
    steps = run(tmp_path, endpoint, "--until", "matched")
    counts = {name: Record.read(folder).counts for name, folder in steps.items()}
    # What the file says of its rows: 141 of the first 150 are right.
    rows = [json.loads(line) for line in (FOLDER / "traces.jsonl").read_text().splitlines()]
    labels = [row["score"][0] for row in rows if "</think>" in row["code"][0]]
    assert (len(rows), sum(labels)) == (150, 141)
    read = counts["traces/qwen/0"]
    assert read["traces"] + read["dropped_length_filter"] == 150
    assert read["claimed_correct"] + read["claimed_wrong"] == read["traces"]
    # The verifier and the file's own rule differ in one of them, which ends without a number.
    assert counts["raw/qwen"]["kept"] == read["claimed_correct"] - 1
    contamination = Record.read(steps["contamination"]).metrics
    assert contamination["test"] == {"problems": 40, "in_training": 0}
    near = contamination["near_duplicates"]["tests"]["test"]
    assert near["problems"] == 2 and near["examples"][0]["similarity"] > 0.55
    assert "Razorback" in near["examples"][0]["problem"] and "Razorback" in near["examples"][0]["other"]
    assert (
        counts["selected/qwen"]["dropped_near_test"] == near["training"]
        and counts["selected/qwen"]["kept"] == 60
    )
    raw, short, cut = (
        data(steps[n]) for n in ("selected/qwen", "compressed/qwen/equations", "truncated/qwen/equations")
    )
    assert cut.keys() == short.keys() < raw.keys() and len(short) > 30
    for key, row in short.items():
        assert row["reasoning_tokens"] == cut[key]["reasoning_tokens"] < raw[key]["reasoning_tokens"]
        assert raw[key]["reasoning"].startswith(cut[key]["reasoning"].rstrip("\ufffd"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_is_published_with_its_provenance_and_checked(endpoint: str, tmp_path: Path) -> None:
    from huggingface_hub import HfApi

    from hubkit.localhub import LocalHub

    run(tmp_path, endpoint)
    with LocalHub(tmp_path / "hub") as hub:
        api = HfApi(hub.endpoint, hub.token)
        models = {repo.id.partition("/")[2] for repo in api.list_models(author="local")}
        card = Path(
            api.hf_hub_download(
                "local/existing-traces-traces", "README.md", repo_type="dataset", cache_dir=tmp_path / "c"
            )
        ).read_text()
    assert models == {f"existing-traces-s{v}" for v in ("", *(f"-{f}-full" for f in (
        "raw", "compressed-equations", "truncated-equations")))}, "nothing of models that have but a name"  # fmt: skip
    for words in (
        "written by starzmustdie/Qwen-2.5-3B-rlft, licence apache-2.0",
        "calls 138 of the traces correct, of which 1 were found wrong here",
        "problems of training are near-duplicates of 2 test problems of `test`, and were left out",
        "**Selection**",
    ):
        assert words in card, words
    done = hubkit("release", "check", "local/existing-traces", "--hub", str(tmp_path / "hub"), "--json")
    claims = json.loads(done.stdout)["claims"]
    assert [c for c in claims if c["status"] == "differs"] == [] and done.returncode == 0, done.stderr
