"""Jobs by huggingface_hub's own calls and CLI, on a local Hub that runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from huggingface_hub import HfApi, JobInfo, get_session
from huggingface_hub.errors import HfHubHTTPError
from support import hubkit

from hubkit.errors import HubError
from hubkit.localhub import LocalHub
from hubkit.localhub.storage.accounts import add_member, add_token, new_token
from hubkit.localhub.storage.store import Store

SECRET = "a-secret-that-stays-in-memory"
WAIT = "import time\nprint('ready', flush=True)\ntime.sleep(600)"


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    with LocalHub(tmp_path_factory.mktemp("jobs") / "hub", jobs=True) as hub:
        yield hub


@pytest.fixture
def jobs(serving: LocalHub) -> HfApi:
    return HfApi(endpoint=serving.endpoint, token=serving.token)


def submit(api: HfApi, code: str, **more: Any) -> JobInfo:
    return api.run_job(image="python:3.12", command=[sys.executable, "-c", code], namespace="local", **more)


def stage(api: HfApi, job: JobInfo) -> str:
    return str(api.inspect_job(job_id=job.id, namespace="local").status.stage)


def ended(api: HfApi, job: JobInfo) -> JobInfo:
    return api.wait_for_job(job.id, poll_interval=0.1, timeout=60, namespace="local")


def said(api: HfApi, job: JobInfo) -> list[str]:
    return list(api.fetch_job_logs(job_id=job.id, namespace="local", follow=True))


def until(seen: Callable[[], Any]) -> Any:
    limit = time.monotonic() + 60
    while not (found := seen()):
        assert time.monotonic() < limit
        time.sleep(0.05)
    return found


def processes(mark: str) -> list[int]:
    """Those with this text in their arguments."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if mark in " ".join(process.info["cmdline"] or []) and process.info["status"] != "zombie":
            found.append(process.pid)
    return found


def test_a_job_runs_with_what_it_was_given_and_its_log_is_told(jobs: HfApi, serving: LocalHub) -> None:
    code = (
        "import os, sys; print(os.environ['GREETING'], os.environ['HF_ENDPOINT'], len(os.environ['KEY']), flush=True)\n"
        "print(os.listdir(), 'HF_TOKEN' in os.environ, file=sys.stderr); print('ü' * 3, end='')"
    )
    job = submit(
        jobs, code, env={"GREETING": "hello"}, secrets={"KEY": SECRET}, labels={"team": "a"}, name="first"
    )
    assert said(jobs, job) == [f"hello {serving.endpoint} {len(SECRET)}", "[] False", "üüü"]
    done = ended(jobs, job)
    assert (done.status.stage, done.status.message) == ("COMPLETED", None)
    assert (done.docker_image, done.flavor, done.environment) == (
        "python:3.12",
        "cpu-basic",
        {"GREETING": "hello"},
    )
    assert done.labels == {"team": "a", "name": "first"} and done.secrets == {}
    assert done.owner.name == "local" and done.durations is not None and done.created_at is not None
    assert list(jobs.fetch_job_logs(job_id=job.id, namespace="local", tail=1)) == ["üüü"]
    assert [j.id for j in jobs.list_jobs(namespace="local", labels={"team": "a"})] == [job.id]
    assert not list(jobs.list_jobs(namespace="local", labels={"team": "b"}))
    assert not list(jobs.list_jobs(namespace="local", labels={"team": "a"}, status="RUNNING"))
    changed = jobs.update_job_labels(job_id=job.id, labels={"team": "b"}, namespace="local")
    assert changed.labels == {"team": "b"}
    assert [j.id for j in jobs.list_jobs(namespace="local", labels={"team": "b"}, status="completed")] == [
        job.id
    ]


def test_failures_are_told(jobs: HfApi) -> None:
    failed = ended(jobs, submit(jobs, "raise SystemExit(7)"))
    assert (failed.status.stage, failed.status.message) == ("ERROR", "Job failed with exit code: 7")
    unknown = jobs.run_job(image="x", command=["no-such-program", "; touch /tmp/x"], namespace="local")
    assert ended(jobs, unknown).status.message == "Job failed with exit code: 127"
    assert said(jobs, unknown) == ["cannot start no-such-program: No such file or directory"]
    late = ended(jobs, submit(jobs, WAIT, timeout=1))
    assert (late.status.stage, late.status.message) == ("ERROR", "Job timeout")


def test_cancelling_ends_all_that_a_job_started(jobs: HfApi) -> None:
    mark = "orphan-of-a-cancelled-job"
    code = (
        "import subprocess, sys, time\n"
        f"sleeper = [sys.executable, '-c', 'import signal, time; signal.signal(15, signal.SIG_IGN);' "
        f"'time.sleep(600)', {mark!r}]\n"
        "subprocess.Popen(sleeper, start_new_session=True); print('ready', flush=True); time.sleep(600)"
    )
    job = submit(jobs, code)
    assert next(iter(jobs.fetch_job_logs(job_id=job.id, namespace="local", follow=True))) == "ready"
    until(lambda: processes(mark))
    jobs.cancel_job(job_id=job.id, namespace="local")
    assert ended(jobs, job).status.stage == "CANCELED"
    assert not processes(mark)
    jobs.cancel_job(job_id=job.id, namespace="local")
    assert stage(jobs, job) == "CANCELED"


def test_jobs_wait_for_a_core_and_can_be_cancelled_there(jobs: HfApi) -> None:
    cores = os.cpu_count() or 1
    running = [submit(jobs, WAIT) for _ in range(cores)]
    until(lambda: [stage(jobs, job) for job in running] == ["RUNNING"] * cores)
    waiting = submit(jobs, "print(1)")
    assert stage(jobs, waiting) == "SCHEDULING"
    jobs.cancel_job(job_id=waiting.id, namespace="local")
    assert stage(jobs, waiting) == "CANCELED" and said(jobs, waiting) == []
    for job in running:
        jobs.cancel_job(job_id=job.id, namespace="local")
    assert [ended(jobs, job).status.stage for job in running] == ["CANCELED"] * cores


def test_uv_jobs(jobs: HfApi) -> None:
    job = jobs.run_uv_job(
        "python",
        script_args=["-c", "import sys; print(sys.executable)"],
        python=sys.executable,
        namespace="local",
    )
    assert said(jobs, job)[-1] == sys.executable
    assert ended(jobs, job).status.stage == "COMPLETED"


def test_the_cli(serving: LocalHub, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= {"HF_ENDPOINT": serving.endpoint, "HF_TOKEN": serving.token, "HF_HOME": str(tmp_path)}

    def hf(*arguments: str) -> str:
        command = [str(Path(sys.executable).with_name("hf")), "jobs", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "from a job" in hf("run", "--name", "cli", "x", sys.executable, "-c", "print('from a job')")
    (job,) = json.loads(hf("ls", "--all", "--name", "cli", "--format", "json"))
    assert "from a job" in hf("logs", job["id"])
    assert json.loads(hf("inspect", job["id"], "--format", "json"))[0]["status"]["stage"] == "COMPLETED"


def test_only_who_may_write_sees_and_runs_jobs(jobs: HfApi, serving: LocalHub) -> None:
    store = Store(serving.folder)
    add_member(store, "lab", "alice", "write")
    add_member(store, "lab", "bob", "read")
    tokens = {"alice": new_token(), "bob": new_token(), "reader": new_token()}
    for name in ("alice", "bob"):
        add_token(store, tokens[name], name, "t", "write", {})
    add_token(store, tokens["reader"], "local", "t", "read", {})
    mine = ended(jobs, submit(jobs, "print('private')"))
    for token in (*tokens.values(), False):
        other = HfApi(endpoint=serving.endpoint, token=token)
        for call in (
            lambda api=other: submit(api, "print(1)"),
            lambda api=other: list(api.list_jobs(namespace="local")),
            lambda api=other: api.inspect_job(job_id=mine.id, namespace="local"),
            lambda api=other: said(api, mine),
            lambda api=other: api.cancel_job(job_id=mine.id, namespace="local"),
        ):
            with pytest.raises(HfHubHTTPError) as refused:
                call()
            assert refused.value.response.status_code in (401, 403)
    for name, allowed in (("alice", True), ("bob", False)):
        api = HfApi(endpoint=serving.endpoint, token=tokens[name])
        if allowed:
            job = api.run_job(image="x", command=[sys.executable, "-c", ""], namespace="lab")
            assert job.owner.type == "org"
            with pytest.raises(HfHubHTTPError, match="no job"):
                jobs.inspect_job(job_id=job.id, namespace="local")
        else:
            with pytest.raises(HfHubHTTPError, match="may not write to lab"):
                api.run_job(image="x", command=["true"], namespace="lab")


@pytest.mark.parametrize(
    ("status", "change"),
    [
        (400, {"command": "rm -rf /"}),
        (400, {"command": []}),
        (400, {"command": [1]}),
        (400, {"command": ["a\0b"]}),
        (400, {"environment": {"A=B": "1"}}),
        (400, {"environment": {"A": ["1"]}}),
        (400, {"secrets": {"A": "x\0y"}}),
        (400, {"timeoutSeconds": -1}),
        (400, {"timeoutSeconds": "1"}),
        (400, {"labels": {"a": "x\r\ny"}}),
        (400, {"dockerImage": None}),
        (501, {"volumes": [{"type": "bucket"}]}),
        (501, {"ssh": {"enabled": True}}),
        (501, {"attempts": 3}),
        (501, {"spaceId": "a/b"}),
    ],
)
def test_what_no_job_can_be_is_refused(serving: LocalHub, status: int, change: dict[str, Any]) -> None:
    body = {"command": ["true"], "dockerImage": "x", **change}
    headers = {"Authorization": f"Bearer {serving.token}"}
    answer = get_session().post(f"{serving.endpoint}/api/jobs/local", json=body, headers=headers)
    assert answer.status_code == status, answer.text


def test_no_job_unless_asked_for(local_hub: LocalHub, api: HfApi) -> None:
    for call in (lambda: submit(api, "print(1)"), lambda: list(api.list_jobs(namespace="local"))):
        with pytest.raises(HfHubHTTPError, match="hubkit hub serve --jobs") as refused:
            call()
        assert refused.value.response.status_code == 501
    with pytest.raises(HubError, match="runs no jobs"), LocalHub(local_hub.folder, jobs=True):
        pass
    done = hubkit(
        "hub",
        "serve",
        str(local_hub.folder.with_name("open")),
        "--jobs",
        "--require-token",
        "--host",
        "0.0.0.0",
    )
    assert done.returncode == 1 and "runs no jobs for those who reach 0.0.0.0" in done.stderr


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_jobs_end_with_their_server_and_leave_no_secret(tmp_path: Path, end: signal.Signals) -> None:
    mark = f"job-of-a-server-ended-by-{end}-{os.getpid()}"
    with LocalHub(tmp_path / "hub", jobs=True) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        code = f"import time; print({mark!r}, flush=True); time.sleep(600)"
        job = submit(api, code, secrets={"KEY": SECRET})
        assert next(iter(api.fetch_job_logs(job_id=job.id, namespace="local", follow=True))) == mark
        for path in hub.folder.rglob("*"):
            assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
        assert SECRET not in repr(vars(api.inspect_job(job_id=job.id, namespace="local")))
        for pid in processes("hubkit.localhub"):
            assert SECRET not in " ".join(psutil.Process(pid).cmdline())
        assert processes(mark) and hub._process is not None
        hub._process.send_signal(end)
        until(lambda: not processes(mark))
        hub._process.wait(30)
    with LocalHub(tmp_path / "hub", jobs=True) as hub:
        assert not list((hub.folder / "jobs").iterdir())
