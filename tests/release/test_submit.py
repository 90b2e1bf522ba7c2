"""Submissions rehearsed on the local Hub, with huggingface_hub's own readers as the judge."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hub_support import add
from huggingface_hub import CommitOperationAdd, HfApi
from support import MODELS, hubkit
from typer.testing import CliRunner

from hubkit.cli import app
from hubkit.cli.submit import use_local_hub
from hubkit.errors import HubError, InputError
from hubkit.hub import Access, default_access
from hubkit.localhub import LocalHub, make_member, make_token
from hubkit.release.evaluating import plan_task
from hubkit.release.lighteval_run import read_run
from hubkit.release.submit import Wish, carry_out, plan

EVAL = b"name: GSM8K\ndescription: sums\ntasks:\n- {id: gsm8k, config: main, split: test}\n"
SUMS = [(2, 5, 3), (4, 1, 3), (9, 2, 6), (7, 7, 1)]


def parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def sums() -> list[dict[str, str]]:
    return [
        {
            "question": "State the final answer to the following arithmetic problem: "
            f"{' + '.join(map(str, terms))} =",
            "answer": f"Add them up. #### {sum(terms)}",
        }
        for terms in SUMS
    ]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    """A local Hub with openai/gsm8k (four problems of our own in its form), and models of two users."""
    folder = tmp_path_factory.mktemp("hub")
    with LocalHub(folder) as hub:
        make_member(folder, "openai", "local", "write")
        make_member(folder, "others", "alice", "write")
        (folder / "alice").write_text(make_token(folder, "alice", "write", "t", []))
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.create_repo("openai/gsm8k", repo_type="dataset")
        card = b"---\nconfigs:\n- config_name: main\n  data_files:\n"
        card += (
            b"  - {split: train, path: main/train.parquet}\n  - {split: test, path: main/test.parquet}\n---\n"
        )
        card += b"# Sums\n\nThe leaderboard shows accuracy from 0 to 100.\n"
        files = {"README.md": card, "eval.yaml": EVAL}
        files |= {f"main/{split}.parquet": parquet(sums()) for split in ("train", "test")}
        add(api, "openai/gsm8k", files, repo_type="dataset")
        api.create_repo("local/student")
        weights = {p.name: str(p) for p in (MODELS / "teacher").iterdir() if p.name != "README.md"}
        add(api, "local/student", {**weights, "README.md": b"---\nbase_model: local/base\n---\n# Student\n"})
        yield hub


@pytest.fixture
def api(hub: LocalHub) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=hub.token)


@pytest.fixture
def mine(hub: LocalHub) -> Access:
    return Access(hub.endpoint, hub.token)


@pytest.fixture
def model(api: HfApi, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh model of one's own."""
    name = "local/" + re.sub("[^A-Za-z0-9]+", "-", request.node.name)[:60].strip("-")
    api.create_repo(name)
    yield name
    api.delete_repo(name)


@pytest.fixture
def theirs(hub: LocalHub) -> Iterator[str]:
    """A fresh model of somebody else's."""
    alice = HfApi(endpoint=hub.endpoint, token=(hub.folder / "alice").read_text())
    alice.create_repo("others/model")
    yield "others/model"
    alice.delete_repo("others/model")


def run_of(
    folder: Path, model: str, right: int = 3, n: int = 8, details: bool = True, **changes: Any
) -> Path:
    """A run as lighteval leaves it: results and details, `changes` by dotted path into the results."""
    date = "2026-11-24T06-24-06.123456"
    run: dict[str, Any] = {
        "config_general": {
            "lighteval_sha": "?",
            "max_samples": None,
            "model_name": model,
            "model_config": {"generation_parameters": {"max_new_tokens": 2048, "temperature": 0.6}},
        },
        "results": {"gsm8k|0": {"extractive_match": right / n, "extractive_match_stderr": 0.17}, "all": {}},
        "versions": {},
        "config_tasks": {
            "gsm8k|0": {
                "hf_repo": "openai/gsm8k",
                "hf_subset": "main",
                "hf_revision": None,
                "evaluation_splits": ["test"],
                "effective_num_docs": n,
            }
        },
    }
    for path, value in changes.items():
        *keys, last = path.split("__")
        at = run
        for key in keys:
            at = at[key]
        at[last] = value
    place = folder / "results" / model / f"results_{date}.json"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps(run))
    if details:
        rows = [{"metric": {"extractive_match": float(i < right)}, "doc": {"query": "?"}} for i in range(n)]
        at = folder / "details" / model / date / f"details_gsm8k|0_{date}.parquet"
        at.parent.mkdir(parents=True)
        at.write_bytes(parquet(rows))
    return folder


@pytest.mark.timeout(600)  # lighteval is imported three times
def test_a_model_is_evaluated_submitted_and_read_back(hub: LocalHub, api: HfApi, tmp_path: Path) -> None:
    before = api.model_info("local/student").sha
    command = [
        "submit",
        "local/student",
        "--task",
        "gsm8k|0",
        "--max-tokens",
        "200",
        "--hub",
        str(hub.folder),
    ]
    command += ["--details", "local", "--out", str(tmp_path / "runs"), "--device", "cpu"]
    home = {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": "", "HF_TOKEN": ""}
    done = hubkit(*command, "--dry-run", **home)
    assert done.returncode == 0, done.stderr
    assert "dry run: nothing was sent" in done.stdout and ".eval_results/gsm8k.yaml" in done.stdout
    assert "the benchmark's card says 0 to 100" in done.stdout
    assert api.model_info("local/student").sha == before
    assert not api.repo_exists("local/details_local__student", repo_type="dataset")

    # As to a Hub elsewhere, which the environment names; what was evaluated is not evaluated again.
    named = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HOME": str(tmp_path / "home")}
    place = command.index("--hub")
    done = hubkit(*command[:place], *command[place + 2 :], "--yes", "--json", **named)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    info = api.model_info("local/student", expand=["evalResults"])
    (entry,) = info.eval_results or []
    benchmark = api.dataset_info("openai/gsm8k")
    assert (entry.dataset_id, entry.task_id, entry.dataset_revision) == (
        "openai/gsm8k",
        "gsm8k",
        benchmark.sha,
    )
    assert entry.source_url == f"{hub.endpoint}/datasets/local/details_local__student"
    assert "n = 4" in entry.notes and "greedy" in entry.notes and "lighteval 0.13" in entry.notes
    assert before[:12] in entry.notes
    # What the file says is what lighteval scored, on the board's scale.
    (folder,) = (tmp_path / "runs" / "steps" / "evaluation" / "local--student" / "gsm8k").iterdir()
    score = json.loads((folder / "results.json").read_text())["results"]["gsm8k|0"]["extractive_match"]
    assert entry.value == round(100 * score, 2) > 0
    written = api.hf_hub_download("local/student", ".eval_results/gsm8k.yaml", cache_dir=tmp_path / "c")
    assert Path(written).read_text() == said["files"][0]["content"]
    # It declares a base model: hidden by default, and shown at the printed address.
    assert api.get_dataset_leaderboard("openai/gsm8k") == []
    (line,) = api.get_dataset_leaderboard("openai/gsm8k", base_model_only=False)
    assert (line.model_id, line.value) == ("local/student", entry.value)
    assert said["addresses"] == [f"{hub.endpoint}/datasets/openai/gsm8k?base_model_only=false"]

    code = (
        "from datasets import load_dataset as l; d = l('local/details_local__student', 'gsm8k_0', split='latest');"
        "print(len(d), l('local/details_local__student', 'results', split='latest').column_names)"
    )
    from hub_support import run

    environment = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "h"), "PATH": "/usr/bin:/bin"}
    assert run(code, environment).startswith("4 ['config_general', 'results'")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_adapter_of_another_toolkit_on_two_benchmarks(hub: LocalHub, api: HfApi, tmp_path: Path) -> None:
    """By PEFT alone; a task of lighteval with examples, and problems that a recipe published, drawn three times."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from hubkit.records import PROBLEM_SCHEMA, write_rows

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(MODELS / "teacher", dtype=torch.float32)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
    adapted.save_pretrained(tmp_path / "adapter")
    about = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    files = {p.name: str(p) for p in (tmp_path / "adapter").iterdir() if p.name != "README.md"}
    api.create_repo("local/adapter")
    files["adapter_config.json"] = json.dumps(about | {"base_model_name_or_path": "/home/me/base"}).encode()
    add(api, "local/adapter", files)
    problem = {"source": "x", "verifier": "math", "metadata": ""}
    rows = [
        problem | {"id": f"p{i}", "problem": s["question"], "answer": s["answer"][-2:].strip()}
        for i, s in enumerate(sums())
    ]
    write_rows(tmp_path / "problems.parquet", rows, PROBLEM_SCHEMA)
    api.create_repo("local/x-problems", repo_type="dataset")
    card = b"---\nconfigs:\n- {config_name: test, data_files: data/test/*}\n---\nAccuracies from 0 to 100.\n"
    definition = b"tasks:\n- {id: sums, config: test, split: test}\n"
    data = {"README.md": card, "eval.yaml": definition}
    data["data/test/test-00000-of-00001.parquet"] = (tmp_path / "problems.parquet").read_bytes()
    add(api, "local/x-problems", data, repo_type="dataset")
    command = ["submit", "local/adapter", "--task", "gsm8k|1", "--task", "local/x-problems#sums"]
    command += ["--samples", "3", "--temperature", "0.7", "--max-tokens", "100", "--hub", str(hub.folder)]
    command += ["--out", str(tmp_path / "runs"), "--device", "cpu", "--yes", "--json"]
    home = {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": "", "HF_TOKEN": ""}
    done = hubkit(*command, **home)
    assert done.returncode == 2 or done.returncode == 1
    assert "names its base as '/home/me/base', which is not a model on the Hub" in " ".join(
        done.stderr.split()
    )
    named = json.dumps(about | {"base_model_name_or_path": "local/student"}).encode()
    add(api, "local/adapter", {"adapter_config.json": named})
    done = hubkit(*command, **home)
    assert done.returncode == 0, done.stderr
    entries = {
        e.dataset_id: e for e in api.model_info("local/adapter", expand=["evalResults"]).eval_results or []
    }
    assert set(entries) == {"openai/gsm8k", "local/x-problems"}
    for entry in entries.values():
        assert "metric avg@n:n=3, temperature 0.7" in entry.notes and "n = 4" in entry.notes
        assert 0 <= entry.value <= 100
    assert "gsm8k|1, 1-shot" in entries["openai/gsm8k"].notes
    shown = api.get_dataset_leaderboard("local/x-problems", base_model_only=False)
    assert [line.model_id for line in shown] == ["local/adapter"]


def test_a_branch_is_no_revision(mine: Access, model: str, tmp_path: Path) -> None:
    run = run_of(tmp_path, model, **{"config_tasks__gsm8k|0__hf_revision": "main"})
    (item,) = plan(Wish(model, results=run), tmp_path, mine).items
    assert item.entry.dataset_revision is None and "which is not a commit" in item.remarks[0]


def test_a_commit_of_another_dataset_is_no_revision(mine: Access, model: str, tmp_path: Path) -> None:
    config = "config_tasks__gsm8k|0__"
    run = run_of(tmp_path, model, **{f"{config}hf_revision": "a" * 40, f"{config}hf_repo": "other/copy"})
    (item,) = plan(Wish(model, results=run, leaderboard="openai/gsm8k#gsm8k"), tmp_path, mine).items
    assert item.entry.dataset_revision is None and "were read from other/copy" in item.remarks[0]
    assert len(item.remarks) == 1 and b"revision" not in item.content


def test_another_s_model_gets_a_pull_request(api: HfApi, mine: Access, theirs: str, tmp_path: Path) -> None:
    wish = Wish(theirs, results=run_of(tmp_path, theirs))
    planned = plan(wish, tmp_path, mine)
    assert "a pull request to others/model" in planned.text()
    done = carry_out(planned)
    assert done.sent.pull_request == 1 and f"discussions/{done.sent.pull_request}" in done.sent.url
    assert "pull request #1" in done.shown[0]
    assert not [f for f in api.list_repo_files(theirs) if f.startswith(".eval")]
    line = next(e for e in api.get_dataset_leaderboard("openai/gsm8k") if e.model_id == theirs)
    assert (line.value, line.pull_request) == (37.5, 1)
    assert (
        line.notes is not None and "temperature 0.6" in line.notes and "95 % CI 13.7 to 69.4 %" in line.notes
    )
    with pytest.raises(InputError, match=r"pull request #1 proposes 37\.5"):
        plan(wish, tmp_path, mine)


def test_many_pull_requests_are_looked_at_without_their_other_files(
    api: HfApi, mine: Access, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = yaml.safe_dump([{"dataset": {"id": "openai/gsm8k", "task_id": "gsm8k"}, "value": 12.5}]).encode()
    for number in range(12):
        name = ".eval_results/all.yaml" if number == 9 else f"{number}.txt"
        operations = [CommitOperationAdd(name, held)]
        api.create_commit(model, operations, commit_message=f"Number {number}", create_pr=True)
    asked = []
    model_info = HfApi.model_info

    def listed(self: HfApi, *given: Any, **more: Any) -> Any:
        asked.append(more)
        return model_info(self, *given, **more)

    monkeypatch.setattr(HfApi, "model_info", listed)
    with pytest.raises(InputError, match=r"pull request #10 proposes 12\.5"):
        plan(Wish(model, results=run_of(tmp_path, model)), tmp_path, mine)
    assert len(asked) < 4 and not any(more.get("files_metadata") for more in asked)


def test_results_that_are_there(api: HfApi, mine: Access, model: str, tmp_path: Path) -> None:
    other = {"dataset": {"id": "openai/gsm8k", "task_id": "gsm8k"}, "value": 12.5}
    stranger = {"dataset": {"id": "a/b", "task_id": "c"}, "value": 1, "evaluation_framework": "theirs"}
    add(api, model, {".eval_results/all.yaml": yaml.safe_dump([stranger, other]).encode()})
    wish = Wish(model, results=run_of(tmp_path, model))
    with pytest.raises(InputError, match=r"all\.yaml on main says 12\.5"):
        plan(wish, tmp_path, mine)
    planned = plan(replace(wish, variant="5-shot"), tmp_path, mine)
    assert planned.items[0].path == ".eval_results/gsm8k-5-shot.yaml"
    assert "holds 12.5 for the same task" in planned.items[0].remarks[0]
    planned = plan(replace(wish, replace=True), tmp_path, mine)
    assert planned.items[0].path == ".eval_results/all.yaml"
    first, second = yaml.safe_load(planned.items[0].content)
    assert first == stranger and second["value"] == 37.5
    assert "openai/gsm8k: 37.5" in carry_out(planned).shown[0]
    info = api.model_info(model, expand=["evalResults"])
    assert [e.value for e in info.eval_results or []] == [1, 37.5]


def test_only_the_file_of_this_use_is_replaced(api: HfApi, mine: Access, model: str, tmp_path: Path) -> None:
    held = [{"dataset": {"id": "openai/gsm8k", "task_id": "gsm8k"}, "value": 12.5}]
    low = yaml.safe_dump([held[0] | {"value": 6.25}]).encode()
    add(api, model, {".eval_results/gsm8k-low.yaml": low, ".eval_results/gsm8k-other.yaml": low})
    wish = Wish(model, results=run_of(tmp_path, model), replace=True)
    with pytest.raises(InputError, match=r"gsm8k-low\.yaml and \.eval_results/gsm8k-other\.yaml hold"):
        plan(wish, tmp_path, mine)
    add(api, model, {".eval_results/gsm8k.yaml": yaml.safe_dump(held).encode()})
    (item,) = plan(wish, tmp_path, mine).items
    assert item.path == ".eval_results/gsm8k.yaml"
    first, *others = item.remarks
    assert first == "this takes the place of 12.5 in .eval_results/gsm8k.yaml on main"
    assert len(others) == 2 and all("holds 6.25 for the same task" in other for other in others)


def test_main_that_moved_is_not_written_over(api: HfApi, mine: Access, model: str, tmp_path: Path) -> None:
    planned = plan(Wish(model, results=run_of(tmp_path, model)), tmp_path, mine)
    same = planned.items[0].content.replace(b"37.5", b"90.0")
    add(api, model, {planned.items[0].path: same})
    with pytest.raises(HubError, match="has changed since"):
        carry_out(planned)
    assert [e.value for e in api.model_info(model, expand=["evalResults"]).eval_results or []] == [90.0]


@pytest.mark.parametrize("pull_request", [True, False])
def test_a_commit_whose_answer_is_lost_is_not_made_again(
    api: HfApi,
    mine: Access,
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pull_request: bool,
) -> None:
    planned = plan(Wish(model, results=run_of(tmp_path, model), pull_request=pull_request), tmp_path, mine)
    create, lost = HfApi.create_commit, []

    def committed(self: HfApi, *given: Any, **named: Any) -> Any:
        made = create(self, *given, **named)
        lost.append(made)
        raise httpx2.ReadTimeout("the answer did not come")

    monkeypatch.setattr(HfApi, "create_commit", committed)
    monkeypatch.setattr("hubkit.hub._DELAYS", [0.01, 0.01])
    done = carry_out(planned)
    assert len(lost) == 1 and done.sent.sha == lost[0].oid
    assert done.sent.url == (lost[0].pr_url if pull_request else lost[0].commit_url)
    numbers = [d.num for d in api.get_repo_discussions(model, discussion_type="pull_request")]
    assert numbers == [1] * pull_request and done.sent.pull_request == (1 if pull_request else None)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"results__gsm8k|0": {"extractive_match": 37.5}}, "not a share from 0 to 1"),
        ({"results__gsm8k|0": {"extractive_match": -0.1}}, "not a share"),
        ({"results__gsm8k|0": {"extractive_match": 10**400}}, "not a number"),
        ({"results__gsm8k|0": {"extractive_match": float("nan")}}, "NaN is no number"),
        ({"results__gsm8k|0": {"extractive_match": "0.375"}}, "not a number"),
        ({"results__gsm8k|0": {"extractive_match": True}}, "not a number"),
        ({"results__gsm8k|0": {"extractive_match": 0.9}}, "the 8 problems of .* give 0.375"),
        ({"results__gsm8k|0": {"a": 0.5, "b": 0.1}}, "several metrics"),
        ({"results__gsm8k|0": [1]}, "no metrics"),
        ({"results": {"../../etc|0": {"extractive_match": 0.5}}}, "no task"),
        ({"results": {"<script>|0": {"extractive_match": 0.5}}}, "no task"),
        ({"results": 3}, "has no results"),
        ({"config_general__max_samples": 10}, "not of the whole benchmark"),
        ({"config_general__model_name": "somebody/else"}, "not of"),
        ({"config_tasks__gsm8k|0__hf_repo": "../../secret"}, "no leaderboard|no dataset|could not look up"),
        ({"config_tasks__gsm8k|0__hf_repo": "<b>x</b>/y"}, "could not look up"),
        ({"config_tasks__gsm8k|0__hf_revision": "main\nvalue: 100"}, "a revision that is no commit"),
        ({"results__gsm8k|0": {"x<img src=y>": 0.375}}, "has no x<img|markup"),
        (
            {"config_general__model_config": {"generation_parameters": {"temperature": 10**400}}},
            "not a number",
        ),
        ({"config_general__model_config": {"generation_parameters": {"temperature": "hot"}}}, "not a number"),
        ({"config_general__model_name": ["x"]}, "not of"),
        ({"config_tasks__gsm8k|0": "x"}, "no configuration"),
        ({"config_tasks": []}, "no config_tasks"),
    ],
)
def test_hostile_results_are_one_line(
    mine: Access, model: str, tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    folder = run_of(tmp_path, model, **changes)
    with pytest.raises((InputError, HubError), match=why) as caught:
        plan(Wish(model, results=folder), tmp_path, mine)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "text", [b"", b"[1]", b"\xff\xfe", b"{" * 100_000, b'{"results": Infinity}', b"- a: &x 1\n  b: *x\n"]
)
def test_files_that_are_no_results(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "results_x.json"
    file.write_bytes(text)
    with pytest.raises(InputError, match="no results file") as caught:
        read_run(file)
    assert "\n" not in str(caught.value)


def test_results_without_details_say_less(mine: Access, model: str, tmp_path: Path) -> None:
    (score,) = read_run(run_of(tmp_path, model, details=False))
    assert (score.n, score.correct, score.details) == (8, None, None)
    assert score.low == pytest.approx(0.375 - 1.96 * 0.17, abs=1e-3)
    with pytest.raises(InputError, match="no details beside it"):
        plan(Wish(model, results=tmp_path, details="local"), tmp_path, mine)


def test_details_go_to_a_namespace_of_one_s_own(mine: Access, model: str, tmp_path: Path) -> None:
    """Found before the model is evaluated."""
    wish = Wish(model, results=run_of(tmp_path, model))
    with pytest.raises(HubError, match="may not write to others"):
        plan(replace(wish, details="others"), tmp_path, mine)
    for name in ("a/b", "../x", "my lab", "x\n"):
        with pytest.raises(InputError, match="is no namespace"):
            plan(replace(wish, details=name, dry_run=True), tmp_path, mine)


def test_two_results_do_not_share_a_file(mine: Access, model: str, tmp_path: Path) -> None:
    """Said by the plan: of what is evaluated for hours, before that."""
    tasks = ("gsm8k|0", "gsm8k|5")
    about = {"hf_repo": "openai/gsm8k", "hf_subset": "main", "evaluation_splits": ["test"]}
    results = run_of(
        tmp_path,
        model,
        details=False,
        results={task: {"extractive_match": 0.5} for task in tasks},
        config_tasks=dict.fromkeys(tasks, about),
    )
    with pytest.raises(InputError, match=r"two results would be written to \.eval_results/gsm8k\.yaml"):
        plan(Wish(model, tasks, results), tmp_path, mine)


def test_a_dry_run_needs_no_token(hub: LocalHub, model: str, tmp_path: Path) -> None:
    wish = Wish(model, results=run_of(tmp_path, model), dry_run=True)
    assert "gsm8k.yaml" in plan(wish, tmp_path, Access(hub.endpoint)).text()
    with pytest.raises(HubError, match="hf auth login"):
        plan(replace(wish, dry_run=False), tmp_path, Access(hub.endpoint))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["local/x"], "--task gsm8k"),
        (["x", "--task", "gsm8k|0"], "not a model on the Hub"),
        (["local/x", "--task", "gsm8k|0", "--scale", "10"], "use 1 or 100"),
        (["local/x", "--task", "gsm8k|0", "--json"], "--dry-run"),
        (["local/x", "--task", "gsm8k|0", "--engine", "openai"], "transformers or vllm"),
        (["local/x", "--task", "a|0", "--source", "example.org/x"], "no web address"),
        (["local/x", "--task", "a|0", "--source", f"https://example.org/{'x' * 300}"], "at most 300"),
        # `auto` is no fault, as with `hubkit evaluate`: the next one is found.
        (["local/x", "--task", "a|0", "--engine", "auto", "--source", "u", "--details", "me"], "both given"),
        (["local/x", "--task", "gsm8k|0", "--hub", "/nowhere"], "no local Hub"),
    ],
)
def test_wrong_options_are_one_line(arguments: list[str], why: str) -> None:
    result = CliRunner().invoke(app, ["submit", *arguments])
    assert isinstance(result.exception, InputError) and why in str(result.exception)


def test_problems_come_from_the_hub_that_the_result_goes_to(tmp_path: Path) -> None:
    """datasets was imported when HF_ENDPOINT named another Hub, and lighteval reads by it."""
    elsewhere = Access("http://127.0.0.1:9", "hf_x")
    with pytest.raises(HubError, match="lighteval would read its problems from") as caught:
        plan_task(elsewhere, "gsm8k|0", "", tmp_path)
    assert "HF_ENDPOINT=http://127.0.0.1:9" in caught.value.remedy


def test_the_environment_is_as_it_was_after_a_local_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    with ExitStack() as stack:
        use_local_hub(stack, tmp_path)
        assert default_access().token != "hf_mine" and "127.0.0.1" in default_access().endpoint
    assert default_access() == Access("https://huggingface.co", "hf_mine")


def test_a_results_file_cannot_steer_the_terminal(
    hub: LocalHub, api: HfApi, model: str, tmp_path: Path
) -> None:
    run = run_of(tmp_path, model)
    (file,) = (run / "results" / model).iterdir()
    about = json.loads(file.read_text())
    about["config_tasks"]["gsm8k|0"] |= {"hf_repo": "org/\x1b[2Jx", "hf_revision": "a" * 40}
    file.write_text(json.dumps(about))
    arguments = ["submit", model, "--results", str(run), "--leaderboard", "openai/gsm8k#gsm8k", "--dry-run"]
    done = CliRunner().invoke(app, arguments, env={"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token})
    assert "the problems were read from org/[2Jx" in done.stdout and "\x1b" not in done.stdout
