"""What `plan` says of steps to come: by what is done, by what sources hold, and that it does not know."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi
from support import MODELS, NANO, ROOT, hubkit

from hubkit.localhub import LocalHub
from hubkit.recipe import estimate
from hubkit.recipe.runtime import Run
from hubkit.store import Record

EXISTING = ROOT / "recipes" / "existing-traces" / "recipe.yaml"
RAW_ALONE = ["--set", "compressors=[]", "--set", "students.variants=[raw]"]


def planned(recipe: Path, out: Path, *arguments: str, **environment: str) -> dict[str, dict[str, Any]]:
    done = hubkit("recipe", "plan", str(recipe), "--json", "--out", str(out), *arguments, **environment)
    assert done.returncode == 0, done.stderr
    return {row["step"]: row for row in json.loads(done.stdout)}


def test_later_steps_are_reckoned_from_what_is_done(tmp_path: Path) -> None:
    out = tmp_path / "runs"

    def run_until(kind: str) -> None:
        done = hubkit("recipe", "run", str(EXISTING), *RAW_ALONE, "--until", kind, "--out", str(out))
        assert done.returncode == 0, done.stderr

    student, tokens = "student/s-raw-full", "tokens/raw/qwen/s"
    before = planned(EXISTING, out, *RAW_ALONE)
    run_until("traces")
    assert planned(EXISTING, out, *RAW_ALONE)["raw/qwen"]["bytes"] > 100_000, "its record counts no tokens"
    run_until("selected")
    after = planned(EXISTING, out, *RAW_ALONE)
    run_until("rows")
    done = planned(EXISTING, out, *RAW_ALONE)
    (record,) = (Record.read(path.parent) for path in out.glob("steps/tokens/*/*/*/*/record.json"))
    true = record.metrics["tokens"]
    assert done[student]["tokens"] == true == done[tokens]["tokens"]
    # Prompts are not counted yet, so they are reckoned with.
    assert (before[tokens]["source"], after[tokens]["source"]) == ("limits", "inputs")
    assert true <= after[tokens]["tokens"] < before[tokens]["tokens"] < 1.5 * true
    assert after[student]["source"] == "inputs" and done[student]["seconds"] < before[student]["seconds"]
    assert record.files and done["publish"]["bytes"] < before["publish"]["bytes"]

    # What a step took for other rows is not what it takes for these.
    half = planned(EXISTING, out, *RAW_ALONE, "--set", "traces.0.limit=75")["traces/qwen/0"]
    assert half["source"] == "earlier run" and done["traces/qwen/0"]["source"] == "record"
    assert half["bytes"] == pytest.approx(done["traces/qwen/0"]["bytes"] / 2, abs=1)


@pytest.mark.parametrize(
    ("given", "gpu", "on_cpu"),
    [
        ({}, False, True),
        ({}, True, False),
        ({"device": "cpu"}, True, True),
        ({"device": "cuda"}, False, False),
        ({"executor": "ray", "resources": {"student": {"gpus": 1}}}, False, False),
        ({"executor": "slurm"}, True, True),
        ({"executor": "hf-jobs", "resources": {"default": {"flavor": "a10g-small"}}}, False, False),
    ],
)
def test_seconds_of_a_gpu_are_not_told_as_a_cpus(
    given: dict[str, Any], gpu: bool, on_cpu: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """run.device is auto unless it is given: on a machine with a GPU students were said to take days."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(estimate, "GPUS", (tmp_path if gpu else tmp_path / "none",))
    assert estimate._on_cpu(Run.model_validate(given), "student") is on_cpu
    if given == {} and gpu:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        assert estimate._on_cpu(Run(), "student"), "it is hidden"


def test_tokens_of_traces_that_exist_are_bound_by_what_their_file_holds(tmp_path: Path) -> None:
    whole = planned(EXISTING, tmp_path, *RAW_ALONE)["tokens/raw/qwen/s"]["tokens"]
    assert whole < EXISTING.with_name("traces.jsonl").stat().st_size / 2 + 60 * 130


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment for a Hub with datasets whose cards tell nothing, and a base."""
    folder = tmp_path_factory.mktemp("hub")
    with LocalHub(folder / "hub") as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        for number in range(2):
            rows = [{"question": f"{number} + {n}?", "answer": str(number + n)} for n in range(3 + number)]
            pq.write_table(pa.Table.from_pylist(rows), folder / f"train-{number:05}-of-00002.parquet")
        (folder / "train.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}\n')
        for name, pattern in (("tables", "*.parquet"), ("lines", "*.jsonl")):
            api.create_repo(f"local/{name}", repo_type="dataset")
            api.upload_folder(
                repo_id=f"local/{name}", repo_type="dataset", folder_path=folder, allow_patterns=pattern
            )
        api.create_repo("local/base")
        api.upload_folder(repo_id="local/base", folder_path=MODELS / "student-s")
        yield {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HOME": str(folder / "home")}


def of_hub(dataset: str, *more: str) -> list[str]:
    source = f"{{source: hub, dataset: local/{dataset}, problem: question, verifier: math}}"
    sets = [f"problems.train={source}", "students.bases=[{name: s, model: local/base}]", *more]
    return [word for text in sets for word in ("--set", text)]


def test_rows_and_students_of_the_hub_are_counted_there(tmp_path: Path, hub: dict[str, str]) -> None:
    """Without a word of its size in the card: by the Parquet files' footers, and the heads of the weights."""
    found = planned(NANO, tmp_path, *of_hub("tables"), **hub)
    assert found["problems/train"]["bytes"] == 7 * 500
    assert found["traces/nano-teacher/0"]["tokens"] == 7 * 400
    full = found["student/s-raw-full"]["bytes"]
    weights = (MODELS / "student-s" / "model.safetensors").stat().st_size
    assert 0.99 * weights < full < weights and 0 < found["student/s-raw-lora"]["bytes"] < full
    assert found["publish"]["bytes"] > 3 * full and found["publish"]["left_out"] == 0


def test_what_nobody_has_counted_is_unknown_and_not_nothing(tmp_path: Path, hub: dict[str, str]) -> None:
    found = planned(NANO, tmp_path, *of_hub("lines"), **hub)
    for step in ("problems/train", "traces/nano-teacher/0", "raw/nano-teacher", "tokens/raw/nano-teacher/s"):
        assert (found[step]["tokens"], found[step]["seconds"], found[step]["bytes"]) == (None, None, None)
    publish = found["publish"]
    assert publish["bytes"] > 0 and publish["left_out"] == 4, "problems/train, raw, compressed, truncated"
    shown = hubkit(
        "recipe", "plan", str(NANO), "--out", str(tmp_path), *of_hub("lines"), COLUMNS="160", **hub
    ).stdout
    (line,) = (line for line in shown.splitlines() if line.startswith("traces/nano-teacher/0"))
    assert line.split()[3:6] == ["?", "?", "?"] and "of unknown time" in shown.splitlines()[-1]
    limited = planned(NANO, tmp_path, *of_hub("lines", "problems.train.limit=5"), **hub)
    assert limited["traces/nano-teacher/0"]["tokens"] == 5 * 400


def test_what_the_hub_said_is_kept_with_the_run(tmp_path: Path, hub: dict[str, str]) -> None:
    """A plan asks; a run asks and remembers, so that the next plan needs no answer."""
    stops = ("--until", "problems/train", "--out", str(tmp_path))
    done = hubkit("recipe", "run", str(NANO), *of_hub("tables"), *stops, **hub)
    assert done.returncode == 0, done.stderr
    known = json.loads((tmp_path / "resolved.json").read_text())
    assert [json.loads(value) for name, value in known.items() if name.startswith("rows/problems/")] == [7]
    gone = hub | {"HF_ENDPOINT": "http://127.0.0.1:9"}
    assert planned(NANO, tmp_path, *of_hub("tables"), **gone)["traces/nano-teacher/0"]["tokens"] == 7 * 400
    assert os.environ.get("HF_ENDPOINT") != gone["HF_ENDPOINT"]


def test_tokens_of_many_shards_are_made_in_several_steps(tmp_path: Path) -> None:
    found = planned(NANO, tmp_path, "--set", "teachers.0.shards=8")
    parts = [name for name in found if name.startswith("tokenise/raw/")]
    assert parts == ["tokenise/raw/nano-teacher/s/0", "tokenise/raw/nano-teacher/s/1"]
    whole = found["tokens/raw/nano-teacher/s"]
    assert whole["tokens"] == sum(found[part]["tokens"] for part in parts) > 0
    assert whole["seconds"] < found[parts[0]]["seconds"]
    alone = planned(NANO, tmp_path)
    assert alone["tokens/raw/nano-teacher/s"]["tokens"] == pytest.approx(whole["tokens"], rel=0.01)
    assert not {*parts} & alone.keys()


def test_a_disk_that_may_be_too_small_is_told_before_a_first_run(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    many = ["--set", "problems.train.size=1000000000"]
    told = hubkit("recipe", "run", str(NANO), *many, "--dry-run", "--out", str(out)).stderr
    assert "where every answer is as long as it may be" in told and "GB are needed" in told
    assert not hubkit("recipe", "run", str(NANO), "--dry-run", "--out", str(out)).stderr
