"""Evaluation results: what a commit may contain, evalResults of a model, the leaderboard of a benchmark."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml
from hub_support import add
from huggingface_hub import EvalResultEntry, HfApi, eval_result_entries_to_yaml
from huggingface_hub.errors import BadRequestError, EntryNotFoundError, HfHubHTTPError

BENCHMARK = "local/nano-math"


def results(value: float, dataset: str = BENCHMARK, task: str = "nano-math", **more: str) -> bytes:
    entry = EvalResultEntry(dataset_id=dataset, task_id=task, value=value, **more)
    return yaml.dump(eval_result_entries_to_yaml([entry])).encode()


@pytest.fixture
def benchmark(api: HfApi) -> Iterator[str]:
    api.create_repo(BENCHMARK, repo_type="dataset")
    definition = b"name: Nano math\ntasks:\n- id: nano-math\n- id: other\n"
    add(api, BENCHMARK, {"eval.yaml": definition}, repo_type="dataset")
    yield BENCHMARK
    api.delete_repo(BENCHMARK, repo_type="dataset")


def test_a_submission_rehearsed_whole(api: HfApi, anonymous: HfApi, benchmark: str) -> None:
    models = ("a", "b", "derived")
    for name in models:
        api.create_repo(f"local/{name}")
    source = {"source_url": "https://example.org/details", "source_name": "lighteval", "source_org": "local"}
    add(
        api,
        "local/a",
        {".eval_results/nano-math.yaml": results(41.2, notes="greedy", date="2026-11-24", **source)},
    )
    add(api, "local/b", {".eval_results/nano-math.yaml": results(50.0)}, create_pr=True)
    derived = {"README.md": b"---\nbase_model: local/a\n---\n", ".eval_results/x.yaml": results(60.5)}
    add(api, "local/derived", derived)
    info = anonymous.model_info("local/a", expand=["evalResults"])
    assert info.eval_results is not None
    (entry,) = info.eval_results
    assert (entry.dataset_id, entry.value, entry.notes, entry.source_org) == (
        benchmark,
        41.2,
        "greedy",
        "local",
    )
    assert entry.date == "2026-11-24"
    board = anonymous.get_dataset_leaderboard(benchmark)
    assert [(e.rank, e.model_id, e.value, e.pull_request) for e in board] == [
        (1, "local/b", 50.0, 1),
        (2, "local/a", 41.2, None),
    ]
    assert board[1].source is not None and board[1].source["url"] == "https://example.org/details"
    assert not board[1].verified and board[1].notes == "greedy"
    whole = anonymous.get_dataset_leaderboard(benchmark, base_model_only=False)
    assert [e.model_id for e in whole] == ["local/derived", "local/b", "local/a"]
    assert [d.id for d in anonymous.list_datasets(benchmark=True)] == [benchmark]
    api.update_repo_settings("local/a", private=True)
    assert [e.model_id for e in anonymous.get_dataset_leaderboard(benchmark)] == ["local/b"]
    for name in models:
        api.delete_repo(f"local/{name}")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"a: [", "invalid YAML"),
        (b"\xff\xfe", "invalid YAML"),
        (b"{}", "a list of results"),
        (b"[]", "a list of results"),
        (b"- 1", "must be a mapping"),
        (b"- {value: 1}", "dataset must be a mapping"),
        (b"- {dataset: {id: local/x}, value: 1}", "dataset.task_id is required"),
        (b"- {dataset: {id: x, task_id: t}, value: 1}", "must be namespace/name"),
        (b"- {dataset: {id: a/x, task_id: t}}", "value is required"),
        (b"- {dataset: {id: a/x, task_id: t}, value: '41'}", "must be a number"),
        (b"- {dataset: {id: a/x, task_id: t}, value: .nan}", "must be a number"),
        (b"- {dataset: {id: a/x, task_id: t}, value: true}", "must be a number"),
        (b"- {dataset: {id: a/x, task_id: t}, value: 1" + b"0" * 400 + b"}", "must be a number"),
        (b"- {dataset: {id: a/x, task_id: t}, value: 1, date: yesterday}", "ISO 8601"),
        (b"- {dataset: {id: a/x, task_id: t}, value: 1, source: {name: me}}", "source.url is required"),
        (b"- {dataset: {id: a/x, task_id: t, revision: main}, value: 1}", "must be a commit id"),
        (b"- {dataset: {id: a/x, task_id: t}, value: 1, score: 2}", "unknown keys: score"),
        (b"- &a {dataset: {id: a/x, task_id: t}, value: 1}\n- *a", "anchors"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_wrong_results_are_refused(api: HfApi, repo: str, text: bytes, why: str) -> None:
    with pytest.raises((BadRequestError, HfHubHTTPError), match=why):
        add(api, repo, {".eval_results/x.yaml": text})
    assert ".eval_results/x.yaml" not in api.list_repo_files(repo)


def test_not_every_dataset_is_a_benchmark(api: HfApi, anonymous: HfApi) -> None:
    api.create_repo("local/plain", repo_type="dataset")
    with pytest.raises(EntryNotFoundError):
        anonymous.get_dataset_leaderboard("local/plain")
    for wrong in (b"name: x\n", b"tasks: []\n", b"tasks: [{name: x}]\n", b"- 1\n"):
        with pytest.raises(BadRequestError, match=r"eval\.yaml"):
            add(api, "local/plain", {"eval.yaml": wrong}, repo_type="dataset")
    api.delete_repo("local/plain", repo_type="dataset")
