"""A recipe whose benchmarks are tasks of lighteval, on copies of their datasets' form under their real ids."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hub_support import add
from huggingface_hub import HfApi
from support import NANO, hubkit

from hubkit.localhub import LocalHub, make_member

pytestmark = pytest.mark.timeout(900)
DRAWN = {"max_tokens": 60, "temperature": 0.8}
BENCHMARKS = [
    {"name": "gsm8k", "task": "gsm8k|2", "sampling": {"max_tokens": 60}},
    {"name": "math", "task": "math_500|0", "samples": 2, "sampling": DRAWN},
    {"name": "drawn", "problems": "test", "samples": 3, "sampling": DRAWN},
    {"name": "sums", "problems": "test", "sampling": {"max_tokens": 60}},
]


def parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def card(config: str, *splits: str) -> bytes:
    files = [{"split": s, "path": f"{s}.parquet"} for s in splits]
    return f"---\n{yaml.safe_dump({'configs': [{'config_name': config, 'data_files': files}]})}---\n# x\n".encode()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    """The Hub of the run, with openai/gsm8k and HuggingFaceH4/MATH-500 as lighteval reads them."""
    folder = tmp_path_factory.mktemp("runs") / "hub"
    with LocalHub(folder) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        for name in ("openai", "HuggingFaceH4"):
            make_member(folder, name, "local", "write")
        words = [
            {"question": f"Anna has {n} apples and buys {n}.", "answer": f"#### {2 * n}"} for n in range(5)
        ]
        data = {"train.parquet": parquet(words[2:]), "test.parquet": parquet(words[:2])}
        data["README.md"] = card("main", "train", "test") + b"Accuracy from 0 to 100.\n"
        data["eval.yaml"] = b"name: GSM8K\ntasks:\n- {id: gsm8k, config: main, split: test}\n"
        api.create_repo("openai/gsm8k", repo_type="dataset")
        add(api, "openai/gsm8k", data, repo_type="dataset")
        sums = [{"problem": f"What is ${n} + 1$?", "solution": f"$\\boxed{{{n + 1}}}$"} for n in range(3)]
        data = {"test.parquet": parquet(sums), "README.md": card("default", "test")}
        api.create_repo("HuggingFaceH4/MATH-500", repo_type="dataset")
        add(api, "HuggingFaceH4/MATH-500", data, repo_type="dataset")
        yield hub


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    for name in ("models", "prompts"):
        shutil.copytree(NANO.parent / name, folder / name)
    about = yaml.safe_load(NANO.read_text())
    about["problems"]["train"]["size"], about["problems"]["test"]["size"] = 10, 4
    about["students"]["bases"] = about["students"]["bases"][:1]
    about["students"] |= {"variants": ["raw", "compressed-nano-compressor"]}
    about["students"]["methods"] = {
        "full": {"sft": {"learning_rate": 3e-3, "max_length": 512, "per_device_train_batch_size": 4}}
    }
    about |= {"name": "tasks", "benchmarks": BENCHMARKS}
    about["run"]["workers"] = 1
    (folder / "recipe.yaml").write_text(yaml.safe_dump(about, sort_keys=False))
    return folder / "recipe.yaml"


def environment(hub: LocalHub, folder: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(folder / "home"), "HF_TOKEN": hub.token}


@pytest.fixture(scope="module")
def root(hub: LocalHub, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = environment(hub, tmp_path_factory.mktemp("home"))
    done = hubkit("recipe", "run", str(recipe), "--out", str(hub.folder.parent), timeout=800, **home)
    assert done.returncode == 0, done.stderr[-3000:]
    return hub.folder.parent


def test_tasks_are_pinned_few_shot_and_sampled(root: Path, hub: LocalHub) -> None:
    api = HfApi(endpoint=hub.endpoint, token=hub.token)
    found = {
        p.parent.parent.name: p.parent for p in (root / "steps/evaluation/s-raw-full").rglob("record.json")
    }
    records = {name: json.loads((folder / "record.json").read_text()) for name, folder in found.items()}
    for name, dataset in (("gsm8k", "openai/gsm8k"), ("math", "HuggingFaceH4/MATH-500")):
        commit = api.dataset_info(dataset).sha
        assert records[name]["inputs"]["model:benchmark"] == commit
        results = json.loads((found[name] / "results.json").read_text())
        (config,) = results["config_tasks"].values()
        assert (config["hf_repo"], config["hf_revision"]) == (dataset, commit)
    # Examples of the train split stand before the question, as turns of a chat.
    (path,) = (found["gsm8k"] / "details").rglob("*.parquet")
    first = pq.read_table(path, columns=["model_response"])["model_response"][0].as_py()["input"]
    assert [turn["role"] for turn in first] == ["user", "assistant", "user", "assistant", "user"]
    assert "Anna has" in first[0]["content"] and "####" in first[1]["content"]
    assert not {f"Anna has {n} apples" for n in (0, 1)} & {turn["content"][10:25] for turn in first[:4]}
    assert (records["math"]["metrics"]["n"], records["math"]["metrics"]["samples"]) == (3, 2)
    assert len(pq.read_table(found["math"] / "samples.parquet")) == 6
    assert records["drawn"]["metrics"]["samples"] == 3 and "samples" not in records["gsm8k"]["metrics"]


def test_their_results_are_published(root: Path, hub: LocalHub, tmp_path: Path) -> None:
    api = HfApi(endpoint=hub.endpoint, token=hub.token)
    info = api.model_info("local/tasks-s-raw-full", expand=["evalResults"])
    entries = {entry.dataset_id: entry for entry in info.eval_results or []}
    assert set(entries) == {"openai/gsm8k", "local/tasks-problems"}
    entry = entries["openai/gsm8k"]
    assert entry.dataset_revision == api.dataset_info("openai/gsm8k").sha
    assert "lighteval gsm8k|2, 2-shot" in entry.notes and "n = 2" in entry.notes
    tasks = {e.task_id: e for e in info.eval_results or [] if e.dataset_id == "local/tasks-problems"}
    assert set(tasks) == {"drawn", "sums"} and "avg@n:n=3" in tasks["drawn"].notes
    lines = api.get_dataset_leaderboard("openai/gsm8k", base_model_only=False)
    assert {line.model_id for line in lines} >= {"local/tasks-s-raw-full"}
    (release,) = (root / "steps/publish").rglob("release.json")
    boards = json.loads(release.read_text())["leaderboards"]
    assert boards["gsm8k"]["task"] == "gsm8k" and "no eval.yaml" in boards["math"]["none"]


def test_the_release_checks_itself(root: Path, hub: LocalHub, tmp_path: Path) -> None:
    home = environment(hub, tmp_path)
    done = hubkit("release", "check", "local/tasks", "--rerun", "2", "--device", "cpu", "--json", **home)
    said = json.loads(done.stdout)
    assert [c for c in said["claims"] if c["status"] == "differs"] == [] and done.returncode == 0, done.stderr
    what = {claim["what"]: claim["status"] for claim in said["claims"]}
    assert what["s-raw-full on drawn: the benchmark's problems, each 3 times, in order"] == "same"
    assert what["s-raw-full on drawn: answers judged again"] == "same"
    assert what["s-raw-full on drawn: answered again"] == "same"
    assert what["s-raw-full on sums: answered again"] == "same"
    assert what["s-raw-full on math: answers judged again"] == "not checked"
    assert what["config compressed-nano-compressor: answer verified again"] == "same"


def test_the_release_is_exported(root: Path, hub: LocalHub, tmp_path: Path) -> None:
    """From lighteval's real files; each record is validated before it is written."""
    home = environment(hub, tmp_path)
    done = hubkit("release", "export", "local/tasks", "--out", str(tmp_path / "out"), **home)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2 * 3 * len(BENCHMARKS)
    (path,) = (tmp_path / "out/data/MATH-500/local/tasks-s-raw-full").glob("*_samples.jsonl")
    samples = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(samples) == 3 and all(len(sample["output"]["raw"]) == 2 for sample in samples)
    assert "What is $0 + 1$?" in " ".join(sample["input"]["raw"] for sample in samples)


@pytest.mark.slow
def test_weights_of_another_student_are_caught_by_their_answers(
    root: Path, hub: LocalHub, tmp_path: Path
) -> None:
    api = HfApi(endpoint=hub.endpoint, token=hub.token)
    name = "local/tasks-s-compressed-nano-compressor-full"
    other = api.hf_hub_download("local/tasks-s", "model.safetensors", cache_dir=tmp_path / "cache")
    add(api, name, {"model.safetensors": other})
    home = environment(hub, tmp_path)
    done = hubkit("release", "check", "local/tasks", "--rerun", "2", "--device", "cpu", "--json", **home)
    differ = {(c["repo"], c["what"]) for c in json.loads(done.stdout)["claims"] if c["status"] == "differs"}
    assert done.returncode == 1 and (name, "student: sha256 of each file") in differ
    again = {what for repo, what in differ if repo == "local/tasks-evals"}
    assert "s-compressed-nano-compressor-full on sums: answered again" in again
    assert not any(what.startswith("s-raw-full on sums") for what in again)


@pytest.mark.parametrize(
    ("benchmark", "why"),
    [
        ({"task": "gpqa:mc|0"}, "scored by log-likelihoods"),
        (
            {"task": "aime24_gpassk|0"},
            "takes 48 answers to each problem, and greedy answers are all the same",
        ),
        ({"task": "gsm8k|0", "samples": 4}, "4 greedy answers to a problem are all the same"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_the_run(
    hub: LocalHub, recipe: Path, tmp_path: Path, benchmark: dict[str, Any], why: str
) -> None:
    import re

    about = yaml.safe_load(recipe.read_text())
    about["benchmarks"] = [{"name": "x", "sampling": {"max_tokens": 60}} | benchmark]
    other = recipe.with_name(f"{re.sub('[^a-z0-9]', '', str(benchmark))}.yaml")
    other.write_text(yaml.safe_dump(about, sort_keys=False))
    done = hubkit("recipe", "run", str(other), "--out", str(tmp_path / "runs"), **environment(hub, tmp_path))
    assert done.returncode == 2 or done.returncode == 1
    assert re.search(why, " ".join(done.stderr.split())), done.stderr
    assert not (tmp_path / "runs" / "steps").exists()
