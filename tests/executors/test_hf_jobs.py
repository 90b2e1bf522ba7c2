"""A recipe by jobs of a local Hub, which runs them on this machine: nothing but that Hub is shared with them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from executors.scenario import answered, arguments, outputs, started, wait
from executors.test_call import problems
from huggingface_hub import CommitOperationAdd, HfApi
from support import NANO, hubkit

from hubkit.errors import InputError
from hubkit.executors import StepCall, open_executor
from hubkit.executors.local import LocalExecutor
from hubkit.executors.run_repo import RunRepo, bring_home, files_below, place_of
from hubkit.hub import Access
from hubkit.localhub import LocalHub
from hubkit.recipe.file import load_recipe
from hubkit.store import StepContext, Store, digest_file

SECRET = "sk-a-key-that-stays-in-memory"
REPO = "local/nano-run"
LONGER = "problems.train.size=200"
"""So that a step lasts longer than it takes until its work is uploaded."""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, Any]]:
    root = tmp_path_factory.mktemp("here")
    done = hubkit(*arguments(root, "local", LONGER), timeout=600)
    assert done.returncode == 0, done.stderr
    return outputs(root)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LocalHub]:
    with LocalHub(tmp_path / "hub", jobs=True) as hub:
        yield hub


def environment(hub: LocalHub) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "A_KEY": SECRET}


def on_jobs(root: Path, *more: str) -> list[str]:
    # This interpreter and what is installed for it: nothing is downloaded.
    jobs = {"python": sys.executable, "dependencies": [], "secrets": ["A_KEY"]}
    return arguments(root, "hf-jobs", f"run.jobs={json.dumps(jobs)}", LONGER, *more)


def states_of(root: Path) -> dict[str, str]:
    """Step -> what `recipe status` calls it."""
    run = on_jobs(root)
    done = hubkit("recipe", "status", *run[2 : run.index("--until")], "--out", str(root), "--json")
    assert done.returncode == 0, done.stderr
    return {row["step"]: row["state"] for row in json.loads(done.stdout)["steps"]}


def api_of(hub: LocalHub) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=hub.token)


def jobs_of(hub: LocalHub, kind: str, *stages: str) -> list[str]:
    """Jobs of steps of a kind, newest first."""
    listed = api_of(hub).list_jobs(namespace="local", status=list(stages) or None)
    return [job.id for job in listed if (job.labels or {})["name"].startswith(f"hubkit-{kind}")]


def said(root: Path, what: str) -> list[Path]:
    return [log for log in (root / "jobs").glob("traces-*/*.log") if what in log.read_text()]


def files_with(secret: str, *folders: Path) -> list[Path]:
    paths = (path for folder in folders for path in folder.rglob("*"))
    return [path for path in paths if path.is_file() and secret.encode() in path.read_bytes()]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_run_follows_its_jobs_again_and_lost_jobs_go_on(
    tmp_path: Path, hub: LocalHub, here: dict[str, tuple[str, Any]]
) -> None:
    root = tmp_path / "run"
    with started(on_jobs(root), **environment(hub)) as process:
        wait("a trace step at work", lambda: answered(root))
        assert "running" in {state for step, state in states_of(root).items() if "traces/" in step}
        process.kill()
        process.communicate()
    jobs = jobs_of(hub, "traces", "RUNNING", "SCHEDULING")
    assert len(jobs) == 2
    with started(on_jobs(root), **environment(hub)) as process:
        wait("an upload of the work", lambda: said(root, "work uploaded"))
        assert jobs_of(hub, "traces") == jobs, "they were followed, not submitted again"
        for worker in psutil.process_iter(["cmdline"]):
            if "hubkit.executors.hf_worker" in (worker.info["cmdline"] or []):
                worker.kill()
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    assert outputs(root) == here
    # Traces were read by jobs alone, and come home when a step is done here that reads them.
    assert not list(root.rglob("steps/traces/*/*/*/traces.parquet"))
    shutil.rmtree(root / "steps" / "raw")
    done = hubkit(*arguments(root, "local", LONGER), timeout=600, **environment(hub))
    assert done.returncode == 0, done.stderr
    assert len(list(root.rglob("steps/traces/*/*/*/traces.parquet"))) == 2 and outputs(root) == here
    assert 2 < len(jobs_of(hub, "traces")) <= 4 and said(root, "goes on with")
    left = [
        name for name in api_of(hub).list_repo_files(REPO, repo_type="dataset") if name.startswith("work/")
    ]
    assert left == [] and not list((root / "work").rglob("journal*"))
    assert files_with(SECRET, root, hub.folder) == []
    assert files_with(hub.token, root, hub.folder) == [hub.folder / "token"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ctrl_c_cancels_and_another_folder_finishes_from_what_the_hub_has(
    tmp_path: Path, hub: LocalHub, here: dict[str, tuple[str, Any]]
) -> None:
    root, other = tmp_path / "run", tmp_path / "other"
    with started(on_jobs(root), **environment(hub)) as process:
        wait("a trace step at work", lambda: answered(root))
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 130 and "run the same command again" in errors, errors
    assert jobs_of(hub, "", "RUNNING", "SCHEDULING") == []
    assert "interrupted" in states_of(root).values()
    done = hubkit(*on_jobs(other), timeout=600, **environment(hub))
    assert done.returncode == 0, done.stderr
    assert outputs(other) == here
    assert said(other, "goes on with"), "what was done by the end of a cancelled job was uploaded"
    assert len(jobs_of(hub, "problems")) == 2, "what was made before was fetched, not made again"


def run_to_contamination(hub: LocalHub, root: Path, *more: str) -> Any:
    command = on_jobs(root, *more)
    until = ["--until", "contamination", "--out", str(root)]
    return hubkit(*command[: command.index("--until")], *until, timeout=1500, **environment(hub))


@pytest.mark.slow
def test_problems_by_jobs_are_those_of_here(tmp_path: Path, hub: LocalHub) -> None:
    until = ["--until", "contamination", "--out", str(tmp_path / "here")]
    here = hubkit(*arguments(tmp_path, "local", LONGER)[:-6], *until)
    assert here.returncode == 0, here.stderr
    done = run_to_contamination(hub, tmp_path / "there")
    estimate, *steps = done.stderr.splitlines()
    assert (
        done.returncode == 0 and " steps to run" in estimate and all(line.startswith("[") for line in steps)
    ), done.stderr
    assert outputs(tmp_path / "there") == outputs(tmp_path / "here") != {}
    record = next((tmp_path / "there/steps").rglob("record.json"))
    assert str(tmp_path) not in record.read_text()


def test_what_was_left_on_the_hub_comes_home_as_it_was_made(
    tmp_path: Path, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    there, here, key = Store(tmp_path / "there"), Store(tmp_path / "here"), "k" * 64

    def write(context: StepContext) -> None:
        for name in ("tokens-0.arrow", "deep/tokens-1.arrow", "rejected.parquet"):
            (context.out / name).parent.mkdir(exist_ok=True)
            (context.out / name).write_text(f"content of {name}")

    place = {"out": there.root / "tmp" / "t", "work": there.work("tokens/raw/t", key)}
    made = there.run(StepContext("tokens/raw/t", {}, {}, {}, {}, **place), "tokens", 1, key, {}, write)
    repo = RunRepo(Access(hub.endpoint, hub.token), REPO)
    repo.create()
    folder, at = there.folder("tokens/raw/t", key), f"steps/{place_of('tokens/raw/t', key)}"
    repo.commit("made", files_below(folder, at))
    came = here.root / "came"
    repo.fetch([f"{at}/record.json", f"{at}/rejected.parquet"], came)
    left = {"tokens-0.arrow", "deep/tokens-1.arrow"}
    assert here.adopt("tokens/raw/t", key, came / at, left, REPO) == made == here.find("tokens/raw/t", key)
    home = here.folder("tokens/raw/t", key)
    assert not list(home.rglob("*.arrow"))
    repo.commit("changed", {f"{at}/tokens-0.arrow": b"something else"})
    with pytest.raises(InputError, match="another file"):
        bring_home(here.root, home)
    repo.commit("gone", {}, lambda name: name.endswith(".arrow"))
    with pytest.raises(InputError, match="were left in the dataset local/nano-run"):
        bring_home(here.root, home)
    assert here.find("tokens/raw/t", key) == made
    repo.commit("made", files_below(folder, at))
    bring_home(here.root, home)
    assert files_below(home, "").keys() == files_below(folder, "").keys()
    assert [digest_file(home / e.path) for e in made.files] == [e.sha256 for e in made.files]
    (home / "tokens-0.arrow").unlink()
    with pytest.raises(InputError, match="damaged"):
        here.find("tokens/raw/t", key)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_jobs_install_what_is_installed_here(tmp_path: Path, hub: LocalHub) -> None:
    """By default: a wheel of this checkout in the run's repo, and by uv all that it needs, from PyPI."""
    jobs = {"python": sys.executable}
    done = run_to_contamination(hub, tmp_path / "run", f"run.jobs={json.dumps(jobs)}")
    assert done.returncode == 0, done.stderr
    names = api_of(hub).list_repo_files(REPO, repo_type="dataset")
    (wheel,) = (name for name in names if name.endswith(".whl"))
    assert wheel.startswith("files/") and Path(wheel).name.startswith("hubkit-")
    (log, *_) = (tmp_path / "run/jobs").glob("problems-train-*/*.log")
    assert "problems/train: done in" in log.read_text()


@pytest.mark.slow
def test_what_goes_wrong_is_one_line(tmp_path: Path, hub: LocalHub) -> None:
    def run(folder: str, *more: str) -> Any:
        return run_to_contamination(hub, tmp_path / folder, *more)

    assert run("there").returncode == 0
    same = "{source: reasoning-gym, task: chain_sum, size: 5, seed: 1, split: train}"
    bad = run("bad", f"problems.train={same}", f"problems.test={same}")
    assert bad.returncode == 1 and "5 of 5 problems of 'test' are in the training set" in bad.stderr
    missing = run("missing", "run.jobs.secrets=[NOT_SET]", "seed=1", f"problems.train={same}")
    assert "run.jobs.secrets names NOT_SET, which is not set" in missing.stderr
    broken = run("broken", "run.jobs.python=/no/such/python", f"problems.train={same.replace('5', '6')}")
    assert broken.returncode == 1 and "Job failed with exit code" in broken.stderr
    assert "no/such/python" in broken.stderr and broken.stderr.count("\nerror: ") == 1

    # What somebody put into the repo is no step's output.
    step = next(p for p in (tmp_path / "there/steps/contamination").iterdir())
    forged = json.loads((step / "record.json").read_text())
    name = f"steps/contamination/{step.name}/record.json"
    for change in (
        {"config": {"x": 1}},
        {"files": [{"path": "../../../../evil", "size": 1, "sha256": "0" * 64}]},
    ):
        content = json.dumps(forged | change).encode()
        api_of(hub).create_commit(
            REPO, [CommitOperationAdd(name, content)], commit_message="x", repo_type="dataset"
        )
        refused = run("forged")
        assert refused.returncode == 1 and "is not of contamination" in refused.stderr, refused.stderr
    assert not list(tmp_path.rglob("evil"))


def test_files_beside_the_recipe_travel_by_content(
    tmp_path: Path, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(hub).items():
        monkeypatch.setenv(name, value)
    jobs = {"python": sys.executable, "dependencies": []}
    recipe = load_recipe(NANO, [f"run.jobs={json.dumps(jobs)}", "run.executor=hf-jobs"])
    source = tmp_path / 'a file; with "quotes".jsonl'
    source.write_text(
        "\n".join(json.dumps({"problem": f"{n} + {n} =", "answer": str(2 * n)}) for n in range(20))
    )
    (tmp_path / "private.txt").write_text(SECRET)

    def call(root: Path, key: str, digest: str) -> StepCall:
        made = problems(root, key, source)
        model = {"source": {"model": source.name, "revision": ""}}
        return replace(made, inputs={"model:source": digest}, models=model)

    content = digest_file(source)
    with LocalExecutor(1) as executor:
        local = executor.submit(call(tmp_path / "here", "aa", content)).result()
    with (
        pytest.raises(InputError, match="source has changed"),
        open_executor(recipe, tmp_path / "run") as executor,
    ):
        remote = executor.submit(call(tmp_path / "run", "aa", content)).result(120)
        executor.submit(call(tmp_path / "run", "bb", "0" * 64)).result(120)
    assert (remote.output, remote.files, remote.counts) == (local.output, local.files, local.counts)
    assert remote.inputs == local.inputs and Store(tmp_path / "run").find(remote.step, remote.key) == remote
    names = api_of(hub).list_repo_files(REPO, repo_type="dataset")
    assert f"files/{content[:32]}/{source.name}" in names and not [n for n in names if "private" in n]


def test_a_hub_without_jobs_and_a_public_repo_are_told(tmp_path: Path) -> None:
    with LocalHub(tmp_path / "hub") as hub:
        done = hubkit(*on_jobs(tmp_path / "run"), **environment(hub))
    assert done.returncode == 1 and "hubkit hub serve --jobs" in done.stderr, done.stderr
    with LocalHub(tmp_path / "hub", jobs=True) as hub:
        api_of(hub).create_repo(REPO, repo_type="dataset", private=False)
        done = hubkit(*on_jobs(tmp_path / "run"), **environment(hub))
        assert done.returncode == 1 and f"dataset {REPO} is public" in done.stderr
        done = hubkit(
            *on_jobs(tmp_path / "run"), **(environment(hub) | {"HF_TOKEN": "", "HF_HOME": str(tmp_path)})
        )
        assert done.returncode == 1 and "no token for" in done.stderr
