"""A small release is published to the local Hub, and read back as its users would."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import warm
from hub_support import add
from huggingface_hub import HfApi, SpaceCard, constants
from small_release import Run, build, small_recipe

from hubkit.errors import HubError, InputError
from hubkit.hub import Access
from hubkit.localhub import LocalHub
from hubkit.push import PUSHES
from hubkit.release import publish
from hubkit.release.boards import Boards
from hubkit.release.layout import RepoFiles


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return build(tmp_path_factory.mktemp("run"), reported=True)


@pytest.fixture(scope="module", params=["xet", "lfs"])
def published(run: Run, request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """A release pushed by one of the client's two transfers, which also reads it back."""
    run.hub = f"hub-{request.param}"
    disable = request.param == "lfs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_DISABLE_XET", disable)  # what the variable sets at import
        patch.setenv("HF_HUB_DISABLE_XET", str(int(disable)))
        run.finish("publish", publish.run, run.root / f"p-{request.param}")
        yield json.loads((run.inputs["publish"] / "release.json").read_text())


@pytest.fixture
def hub(run: Run, published: dict[str, Any]) -> Iterator[LocalHub]:
    with LocalHub(run.root / run.hub) as hub:
        yield hub


def plain(hub: LocalHub, home: Path, code: str) -> str:
    """Run code in a process without hubkit, with nothing but HF_ENDPOINT set."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home)}
    environment["HF_HUB_DISABLE_XET"] = os.environ["HF_HUB_DISABLE_XET"]
    code = "import sys; sys.modules['hubkit'] = None\nimport torch; torch.set_num_threads(1)\n" + code
    done = warm.run("-c", code, env=environment, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_everything_is_published_without_code_or_pickles(published: dict[str, Any], hub: LocalHub) -> None:
    api = HfApi(endpoint=hub.endpoint, token=hub.token)
    assert len(published["repos"]) == 1 + 3 + 1 + 5 + 1 + 1
    for repo in published["repos"]:
        info = api.repo_info(repo["id"], repo_type=repo["type"])
        assert info.sha == repo["sha"]
        names = {sibling.rfilename for sibling in info.siblings}
        assert "README.md" in names
        assert not [n for n in names if n.endswith((".bin", ".pt"))]
        if repo["type"] != "space":
            assert not [n for n in names if n.endswith(".py")]
        refs = api.list_repo_refs(repo["id"], repo_type=repo["type"])
        assert {ref.name: ref.target_commit for ref in refs.tags} == {"v1": repo["sha"]}
    (collection,) = api.list_collections(owner="local")
    assert len(api.get_collection(collection.slug).items) == len(published["repos"])


def test_cards_and_space_on_the_hub(
    run: Run, published: dict[str, Any], hub: LocalHub, tmp_path: Path
) -> None:
    api = HfApi(endpoint=hub.endpoint, token=hub.token)
    text = Path(
        api.hf_hub_download(published["space"], "README.md", repo_type="space", cache_dir=tmp_path)
    ).read_text()
    data = SpaceCard(text).data
    # What the Space asks first comes with its image: the first raw student and its compressed one.
    assert data.to_dict()["preload_from_hub"] == [
        "local/tiny-s-raw-full",
        "local/tiny-s-compressed-short-full",
    ]
    assert (
        data.sdk == "gradio"
        and "local/tiny-evals" in data.datasets
        and "local/tiny-s-raw-full" in data.models
    )
    about = json.loads(
        Path(
            api.hf_hub_download(published["space"], "release.json", repo_type="space", cache_dir=tmp_path)
        ).read_text()
    )
    assert about["evals"] == "local/tiny-evals" and str(run.root) not in json.dumps(about)
    config = json.loads(
        Path(
            api.hf_hub_download("local/tiny-s-raw-lora", "adapter_config.json", cache_dir=tmp_path)
        ).read_text()
    )
    base = next(repo for repo in published["repos"] if repo["id"] == "local/tiny-s")
    assert config["base_model_name_or_path"] == "local/tiny-s" and config["revision"] == base["sha"]


def test_publishing_again_commits_nothing(
    run: Run, published: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    logger = logging.getLogger("huggingface_hub.hf_api")
    monkeypatch.setattr(logger, "callHandlers", lambda record: said.append(record.getMessage()))
    record = run.finish("publish", publish.run, tmp_path)
    # It is no warning that a push found everything there.
    assert not said
    again = json.loads((run.inputs["publish"] / "release.json").read_text())
    assert again == published
    assert record.counts == {"unchanged": len(published["repos"])}


def test_few_repos_are_pushed_at_a_time_and_one_that_fails_stops_only_itself(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run.hub, run.inputs.get("publish")
    run.hub = "hub-in-parallel"
    lock, now, most, broken = threading.Lock(), 0, 0, ["s-raw-full"]

    def push(access: Any, repo_id: str, *more: Any) -> Any:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        try:
            if broken and repo_id.endswith(broken[0]):
                raise HubError("the line was cut", "try again")
            time.sleep(0.2)  # so that others have begun
            return hub_push(access, repo_id, *more)
        finally:
            with lock:
                now -= 1

    hub_push = publish.push  # type: ignore[attr-defined]
    monkeypatch.setattr(publish, "push", push)
    with pytest.raises(HubError, match="the line was cut"):
        run.finish("publish", publish.run, tmp_path / "a")
    broken.clear()
    record = run.finish("publish", publish.run, tmp_path / "b")
    assert 1 < most <= PUSHES
    # What was pushed before is not pushed again, and the order of the release is that of the plan.
    assert record.counts["unchanged"] >= 2
    assert record.counts["pushed"] >= 1
    release = json.loads((run.inputs["publish"] / "release.json").read_text())
    assert [repo["id"] for repo in release["repos"]][-2:] == [release["evals"], release["space"]]
    run.hub = before[0]
    if before[1]:
        run.inputs["publish"] = before[1]


def test_snippets_of_the_cards_run(published: dict[str, Any], hub: LocalHub, tmp_path: Path) -> None:
    api = HfApi(endpoint=hub.endpoint, token=hub.token)
    snippets = {}
    for repo, kind in (
        ("local/tiny-traces", "dataset"),
        ("local/tiny-evals", "dataset"),
        ("local/tiny-s-raw-full", "model"),
        ("local/tiny-s-raw-lora", "model"),
        ("local/tiny-s", "model"),
    ):
        card = Path(api.hf_hub_download(repo, "README.md", repo_type=kind, cache_dir=tmp_path)).read_text()
        snippet = re.findall(r"^```python\n(.*?)\n```$", card, flags=re.DOTALL | re.MULTILINE)[0]
        snippets[repo] = re.sub(r"max_new_tokens=\d+", "max_new_tokens=4", snippet)
    # Each has names of its own; one process imports for all.
    code = f"""
for repo, snippet in {snippets!r}.items():
    print("#", repo)
    exec(compile(snippet, repo, "exec"), {{"__name__": repo}})
"""
    said = plain(hub, tmp_path / "home", code)
    parts = re.split(r"^# (\S+)$", said, flags=re.MULTILINE)[1:]
    assert parts[::2] == list(snippets) and all(parts[1::2]), said


def test_every_config_loads(hub: LocalHub, tmp_path: Path) -> None:
    code = """
from datasets import get_dataset_config_names, load_dataset
for repo in ("local/tiny-traces", "local/tiny-evals", "local/tiny-problems"):
    for name in get_dataset_config_names(repo):
        tests = ("outputs", "results", "test")
        split = "latest" if name.startswith("details") else "test" if name in tests else "train"
        print(name, len(load_dataset(repo, name, split=split)))
"""
    lines = plain(hub, tmp_path, code).splitlines()
    assert lines[:5] == ["raw 12", "compressed-short 10", "truncated-short 10", "outputs 120", "results 6"]
    # lighteval's layout: a configuration per model and task, and one with its results.
    details, problems = lines[5:-2], lines[-2:]
    assert "details_local__tiny-s-raw-full_test_0 20" in details and len(details) == 12
    assert "details_local__tiny-s-raw-full_results 1" in details
    assert problems == ["train 20", "test 20"]


def test_an_older_check_goes_with_any_change(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays only where the release is the one that was checked."""
    add_files, badge = publish.add_files, ".check/badge.svg"  # type: ignore[attr-defined]
    evals, card = "local/tiny-evals", b"---\ntags: [hubkit]\n---\n# x\n"
    repos: list[tuple[str, Any]] = [
        ("local/tiny-traces", "dataset"),
        ("local/tiny-s", "model"),
        (evals, "dataset"),
    ]

    def layout(*_: Any) -> list[list[RepoFiles]]:
        """A few small repos in the place of all; the Space is as it is."""
        return [[RepoFiles(repo, kind, {"README.md": card}, "")] for repo, kind in repos]

    monkeypatch.setattr(publish, "layout", layout)
    monkeypatch.setattr(run, "hub", "hub-checked")
    numbers = iter(range(99))

    def release() -> dict[str, Any]:
        run.finish("publish", publish.run, tmp_path / str(next(numbers)))
        return dict(json.loads((run.inputs["publish"] / "release.json").read_text()))

    def shown() -> str:
        cache = tmp_path / f"cache-{next(numbers)}"
        return Path(api.hf_hub_download(evals, badge, repo_type="dataset", cache_dir=cache)).read_text()

    def check() -> None:
        add_files(access, evals, {badge: b"212 of 212"}, "Check of local/tiny")

    def killed(*_: Any) -> str:
        raise KeyboardInterrupt

    # As where traces came with their problems.
    inputs = {
        step: folder for step, folder in run.inputs.items() if not step.startswith(("problems/", "publish"))
    }
    monkeypatch.setattr(run, "inputs", inputs)
    release()
    with LocalHub(run.root / run.hub) as hub:
        access = Access(hub.endpoint, hub.token)
        api = access.api()
        assert "not run yet" in shown()
        check()
        again = release()
        assert again["problems"] is None
        assert shown() == "212 of 212", "a check of what is there stays"
        assert release() == again
        for repo, kind, path in (
            ("local/tiny-compare", "space", "app.py"),
            ("local/tiny-compare", "space", "another.py"),
            ("local/tiny-s", "model", "config.json"),
            (evals, "dataset", "data.json"),
        ):
            check()
            api.upload_file(path_or_fileobj=b"{}", path_in_repo=path, repo_id=repo, repo_type=kind)
            told = release()
            assert "not run yet" in shown(), path
            commit = next(one["sha"] for one in told["repos"] if one["id"] == evals)
            refs = api.list_repo_refs(evals, repo_type="dataset")
            assert [tag.target_commit for tag in refs.tags] == [commit] == [api.dataset_info(evals).sha]

        # Between the release's own commit and the one that takes the report away.
        check()
        api.upload_file(path_or_fileobj=b"{}", path_in_repo="data.json", repo_id=evals, repo_type="dataset")
        monkeypatch.setattr(publish, "add_files", killed)
        with pytest.raises(KeyboardInterrupt):
            release()
        assert shown() == "212 of 212"
        monkeypatch.setattr(publish, "add_files", add_files)
        release()
        assert "not run yet" in shown()


@pytest.mark.parametrize("found", [True, False])
def test_results_of_a_benchmark_that_was_renamed_leave_with_it(tmp_path: Path, found: bool) -> None:
    """`found`: whether all boards of the recipe's benchmarks were, this time."""
    context: Any = SimpleNamespace(count=lambda what: None, progress=lambda *_, **__: None)
    cards: Any = SimpleNamespace(recipe=small_recipe(), problems="local/tiny-problems", evals="", commits={})
    boards = Boards({}, {} if found else {"gsm8k": "no board"})

    def result(dataset: str, value: int = 50) -> bytes:
        return f"- dataset: {{id: {dataset}, task_id: x}}\n  value: {value}\n".encode()

    with LocalHub(tmp_path / "hub") as hub:
        access = Access(hub.endpoint, hub.token)
        own = {
            f".eval_results/{name}.yaml": result(dataset)
            for name, dataset in (
                ("old", cards.problems),
                ("gsm8k", "openai/gsm8k"),
                ("edited", cards.problems),
            )
        }

        def send(files: dict[str, bytes]) -> None:
            card = b"---\ntags: [hubkit]\n---\n# x\n"
            repo = RepoFiles("local/tiny-s", "model", {"README.md": card, **files}, "")
            publish._Release(access, context, cards, boards, 1).push([repo])

        send(own)
        others = {
            ".eval_results/edited.yaml": result(cards.problems, 60),
            ".eval_results/theirs.yaml": result(cards.problems),
        }
        add(access.api(), "local/tiny-s", others)
        send({".eval_results/new.yaml": result(cards.problems)})
        names = access.api().list_repo_files("local/tiny-s")
    left = {name.removeprefix(".eval_results/") for name in names if name.startswith(".eval_results/")}
    assert left == {"new.yaml", "edited.yaml", "theirs.yaml"} | (set() if found else {"gsm8k.yaml"})


def test_a_result_that_others_wrote_over_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    context: Any = SimpleNamespace(count=lambda what: None, progress=lambda *_, **__: None)
    cards: Any = SimpleNamespace(recipe=small_recipe(), problems="local/tiny-problems", evals="", commits={})
    path, card = ".eval_results/sums.yaml", b"---\ntags: [hubkit]\n---\n# x\n"

    def result(value: int) -> bytes:
        return f"- dataset: {{id: local/tiny-problems, task_id: x}}\n  value: {value}\n".encode()

    with LocalHub(tmp_path / "hub") as hub:
        access = Access(hub.endpoint, hub.token)
        api = access.api()

        def send(content: bytes) -> bytes:
            repo = RepoFiles("local/tiny-s", "model", {"README.md": card, path: content}, "")
            publish._Release(access, context, cards, Boards({}, {}), 1).push([repo])
            return Path(api.hf_hub_download("local/tiny-s", path, cache_dir=tmp_path / "cache")).read_bytes()

        assert send(result(50)) == result(50)
        assert send(result(51)) == result(51), "a release replaces its own"
        add(api, "local/tiny-s", {path: result(99)})
        assert not caplog.messages
        assert send(result(52)) == result(99)
        assert [message for message in caplog.messages if path in message and "stays" in message]
        api.delete_file(path, "local/tiny-s")
        assert send(result(52)) == result(52)


def test_a_recipe_cannot_send_the_token_elsewhere(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    context = run.context("publish", tmp_path)
    context.config["recipe"]["hub"] = {"endpoint": "http://127.0.0.1:9", "namespace": "x", "private": False}
    with pytest.raises(HubError, match="HF_ENDPOINT") as caught:
        publish.run(context)
    assert "hf_secret" not in str(caught.value)


def test_names_that_the_hub_refuses_stop_before_anything(run: Run, tmp_path: Path) -> None:
    context = run.context("publish", tmp_path)
    context.paths["hub"] = tmp_path / "hub"
    context.config["recipe"] |= {"name": "n--" * 13}
    with pytest.raises(InputError, match="the Hub does not take the name"):
        publish.run(context)


def test_usage_names_commands_that_exist(published: dict[str, Any], tmp_path: Path) -> None:
    text = "\n".join(publish.usage(published, tmp_path))
    assert "load_dataset" in text and "from_pretrained" in text and "hubkit space open local/tiny" in text
