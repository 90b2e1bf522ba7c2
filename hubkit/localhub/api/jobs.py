"""Jobs of the Hub's API, as processes on this machine: `hubkit hub serve --jobs`.

    hub/jobs/5f1c0a…/log       {"timestamp": "2026-01-01T00:00:00.000Z", "data": "a line"}
    hub/jobs/5f1c0a…/files/    the job's working folder, removed when it has ended

This is no container: a job's command runs as the user who serves the Hub, with that user's rights and on that
user's disk; its image and flavor are recorded but not used. So jobs are off by default, they need a loopback address,
and only who may write to a namespace may submit its jobs. Jobs and their logs end with the server's process. A job's
secrets are passed to its process, and then forgotten.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from starlette.responses import JSONResponse, Response, StreamingResponse

from hubkit.localhub.api.request import ApiRequest, text
from hubkit.localhub.storage.accounts import account_id, is_org
from hubkit.localhub.storage.errors import ApiError

__all__ = ["Jobs", "cancel", "inspect", "listed", "logs", "relabel", "run"]

ENDED: Final = ("COMPLETED", "CANCELED", "ERROR")
DEFAULT_TIMEOUT_S: Final = 1800
"""The real Hub's default, for a job that names none."""
KEPT: Final = re.compile(
    r"(PATH|HOME|USER|LOGNAME|SHELL|LANG|LC_\w+|TZ|TMPDIR|UV_\w+|PYTHONPATH|LD_LIBRARY_PATH|CUDA_VISIBLE_DEVICES"
    r"|(https?|no)_proxy|SSL_CERT_\w+|OMP_NUM_THREADS)",
    re.IGNORECASE,
)
"""Variables of the server's environment that a job gets: what programs need to be found and to run, no token or key."""
LABEL: Final = re.compile(r"[A-Za-z0-9_.-]{0,100}")
LONGEST_LINE: Final = 1 << 16
"""Bytes of one event of a log; longer lines become several."""
GRACE_S: Final = 10.0
"""Between SIGTERM and SIGKILL when a job is ended."""
KEEP_ALIVE_S: Final = 15.0
_FIELDS: Final = {
    "arguments", "attempts", "command", "dockerImage", "environment", "flavor", "labels", "secrets", "timeoutSeconds",
}  # fmt: skip


@dataclass
class Job:
    """One job: its submission without the secrets, and its state."""

    namespace: str
    user: str
    image: str
    command: list[str]
    arguments: list[str]
    environment: dict[str, str]
    flavor: str
    timeout_s: int
    labels: dict[str, str]
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: datetime = field(default_factory=lambda: _now())
    started: datetime | None = None
    finished: datetime | None = None
    stage: str = "SCHEDULING"
    message: str | None = None
    process: subprocess.Popen[bytes] | None = None
    end: tuple[str, str | None] | None = None
    """Stage and message to end with, once its end was requested."""


class Jobs:
    """The jobs of a server. As many run at a time as this machine has cores; the others wait in line."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self._folder = folder / "jobs"
        self._endpoint = endpoint
        shutil.rmtree(self._folder, ignore_errors=True)  # of a server that was killed
        self._folder.mkdir(mode=0o700)
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1, "job")

    def submit(self, job: Job, hidden: dict[str, str]) -> None:
        (self._folder / job.id / "files").mkdir(parents=True)
        self.log_file(job).touch()
        self._jobs[job.id] = job
        self._pool.submit(self._carry_out, job, hidden)

    def newest_first(self) -> list[Job]:
        return list(self._jobs.values())[::-1]

    def find(self, namespace: str, job_id: str) -> Job:
        job = self._jobs.get(job_id)
        if job is None or job.namespace.lower() != namespace.lower():
            raise ApiError(404, f"no job {job_id} of {namespace}")
        return job

    def log_file(self, job: Job) -> Path:
        return self._folder / job.id / "log"

    def stop(self, job: Job, stage: str, message: str | None = None) -> None:
        """Request a job's end; the first request decides the stage. A job that has ended stays as it is."""
        with self._lock:
            job.end = job.end or (stage, message)
            if job.process is not None and job.process.stdin is not None:
                job.process.stdin.close()  # hubkit.processes ends the job then
            if job.stage == "SCHEDULING":
                self._ended(job, *job.end)

    def close(self) -> None:
        """End all jobs, and forget them."""
        for job in self._jobs.values():
            self.stop(job, "CANCELED", "the local Hub was stopped")
        self._pool.shutdown(cancel_futures=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _carry_out(self, job: Job, hidden: dict[str, str]) -> None:
        try:
            if not self._start(job, hidden):
                return
            end = self._follow(job)
        except OSError as error:
            end = ("ERROR", f"the local Hub could not run it: {error.strerror}")
        finally:
            shutil.rmtree(self._folder / job.id / "files", ignore_errors=True)
        with self._lock:
            job.process = None
            self._ended(job, *(job.end or end))

    def _follow(self, job: Job) -> tuple[str, str | None]:
        """Write a job's output to its log until it has ended. Returns its stage and a message."""
        assert job.process is not None and job.process.stdout is not None
        timer = threading.Timer(job.timeout_s, self.stop, (job, "ERROR", "Job timeout"))
        timer.daemon = True
        timer.start()
        with job.process as process, self.log_file(job).open("ab") as log:
            _log(log, f"===== Job started at {job.started:%Y-%m-%d %H:%M:%S} =====")
            while line := job.process.stdout.readline(LONGEST_LINE):
                _log(log, line.decode("utf-8", "replace").rstrip("\r\n"))
            status = process.wait()
        timer.cancel()
        return ("ERROR", f"Job failed with exit code: {status}") if status else ("COMPLETED", None)

    def _start(self, job: Job, hidden: dict[str, str]) -> bool:
        """Returns False if its end was requested while it waited."""
        folder = self._folder / job.id / "files"
        kept = {name: value for name, value in os.environ.items() if KEPT.fullmatch(name)}
        # `uv` and `python` are found beside this interpreter where the user's PATH has none.
        kept["PATH"] = os.pathsep.join([kept.get("PATH", os.defpath), str(Path(sys.executable).parent)])
        own = {"HF_ENDPOINT": self._endpoint, "HF_HOME": str(folder / ".cache/huggingface"), "JOB_ID": job.id}
        told = {
            "command": [*job.command, *job.arguments],
            "environment": kept | own | job.environment | hidden,
            "folder": str(folder),
            "grace_s": GRACE_S,
        }
        with self._lock:
            if job.end is not None:
                return False
            job.process = subprocess.Popen(
                [sys.executable, "-m", "hubkit.processes"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            assert job.process.stdin is not None
            job.process.stdin.write(json.dumps(told).encode() + b"\n")
            job.process.stdin.flush()
            job.stage, job.started = "RUNNING", _now()
        return True

    def _ended(self, job: Job, stage: str, message: str | None) -> None:
        job.stage, job.message, job.finished = stage, message, job.finished or _now()


def _now() -> datetime:
    return datetime.now(UTC)


def _written(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _log(file: Any, line: str) -> None:
    file.write(json.dumps({"timestamp": _written(_now()), "data": line}).encode() + b"\n")
    file.flush()


# Requests


def _jobs(request: ApiRequest) -> Jobs:
    """Returns the server's jobs. Raises ApiError if the caller may not change those of the route's namespace."""
    jobs: Jobs | None = request.http.app.state.jobs
    if jobs is None:
        remedy = "its owner can allow them with `hubkit hub serve --jobs`"
        raise ApiError(501, f"this local Hub runs no jobs: {remedy}", "NotImplemented")
    request.check_writes(request.path["namespace"])
    return jobs


def _job(request: ApiRequest) -> tuple[Jobs, Job]:
    jobs = _jobs(request)
    return jobs, jobs.find(request.path["namespace"], request.path["job"])


def _shown(request: ApiRequest, job: Job) -> dict[str, Any]:
    end = job.finished or _now()

    def seconds(first: datetime | None, last: datetime) -> int | None:
        return None if first is None else int((last - first).total_seconds())

    return {
        "id": job.id,
        "createdAt": _written(job.created),
        "startedAt": _written(job.started),
        "finishedAt": _written(job.finished),
        "dockerImage": job.image,
        "command": job.command,
        "arguments": job.arguments,
        "environment": job.environment,
        "secrets": {},
        "flavor": job.flavor,
        "timeout": job.timeout_s,
        "labels": job.labels,
        "status": {"stage": job.stage, "message": job.message},
        "durations": {
            "schedulingSecs": seconds(job.created, job.started) if job.started else None,
            "runningSecs": seconds(job.started, end),
            "totalSecs": seconds(job.created, end),
        },
        "owner": {
            "id": account_id(job.namespace),
            "name": job.namespace,
            "type": "org" if is_org(request.store, job.namespace) else "user",
        },
        "initiator": {"type": "user", "id": account_id(job.user), "name": job.user},
    }


def run(request: ApiRequest) -> Response:
    """Submit a job."""
    jobs, body = _jobs(request), request.body
    unknown = sorted(key for key in body.keys() - _FIELDS if body[key])
    if body.get("attempts") not in (None, 1):
        unknown.append("attempts")
    if unknown:
        raise ApiError(501, f"the local Hub's jobs have no {', '.join(unknown)}", "NotImplemented")
    timeout = body.get("timeoutSeconds", DEFAULT_TIMEOUT_S)
    if type(timeout) is not int or not 0 < timeout <= threading.TIMEOUT_MAX:
        raise ApiError(400, "timeoutSeconds must be a number of seconds above 0")
    job = Job(
        namespace=request.path["namespace"],
        user=request.who.user,
        image=text(body, "dockerImage"),
        command=_words(body, "command"),
        arguments=_words(body, "arguments"),
        environment=_variables(body, "environment"),
        flavor=text(body, "flavor") if body.get("flavor") else "cpu-basic",
        timeout_s=timeout,
        labels=_labels(body),
    )
    if not job.command:
        raise ApiError(400, "command is missing")
    jobs.submit(job, _variables(body, "secrets"))
    return JSONResponse(_shown(request, job))


def listed(request: ApiRequest) -> Response:
    jobs = _jobs(request)
    request.check_query("stage", "label", "limit", "cursor")
    stages, labels = (
        request.query.get("stage", []),
        [label.partition("=") for label in request.query.get("label", [])],
    )

    def found() -> Iterator[dict[str, Any]]:
        for job in jobs.newest_first():
            named = all(job.labels.get(key) == value for key, _, value in labels)
            if (
                named
                and job.namespace.lower() == request.path["namespace"].lower()
                and job.stage in (stages or [job.stage])
            ):
                yield _shown(request, job)

    return request.paged(found())


def inspect(request: ApiRequest) -> Response:
    return JSONResponse(_shown(request, _job(request)[1]))


def cancel(request: ApiRequest) -> Response:
    jobs, job = _job(request)
    jobs.stop(job, "CANCELED")
    return JSONResponse(_shown(request, job))


def relabel(request: ApiRequest) -> Response:
    _, job = _job(request)
    job.labels = _labels(request.body)
    return JSONResponse(_shown(request, job))


def logs(request: ApiRequest) -> Response:
    """Stream the job's log, past and coming, as server-sent events until it has ended."""
    jobs, job = _job(request)
    request.check_query("tail")
    start = _tail(jobs.log_file(job), request.number("tail")) if "tail" in request.query else 0
    return StreamingResponse(_events(job, jobs.log_file(job), start), media_type="text/event-stream")


async def _events(job: Job, path: Path, start: int) -> AsyncIterator[bytes]:
    with path.open("rb") as log:
        log.seek(start)
        rest, quiet = b"", 0.0
        while True:
            ended = job.stage in ENDED  # asked before the last lines are read
            *lines, rest = (rest + log.read(1 << 20)).split(b"\n")
            if lines:
                quiet = 0.0
                yield b"".join(b"data: " + line + b"\n\n" for line in lines)
            elif ended:
                return
            else:
                await asyncio.sleep(0.1)
                quiet += 0.1
                if quiet >= KEEP_ALIVE_S:
                    quiet = 0.0
                    yield b": keep-alive\n\n"


def _tail(path: Path, lines: int) -> int:
    """Returns the byte at which the last `lines` lines of a file begin."""
    starts = [0]
    with path.open("rb") as log:
        for line in log:
            starts = [*starts, starts[-1] + len(line)][-lines - 1 :]
    return starts[0]


def _words(body: dict[str, Any], key: str) -> list[str]:
    words = body.get(key) or []
    if not isinstance(words, list) or not all(isinstance(word, str) and "\0" not in word for word in words):
        raise ApiError(400, f"{key} must be a list of texts")
    return words


def _variables(body: dict[str, Any], key: str) -> dict[str, str]:
    values = body.get(key) or {}
    if not isinstance(values, dict) or not all(
        isinstance(value, str | int | float) for value in values.values()
    ):
        raise ApiError(400, f"{key} must be texts by name")
    found = {name: str(value) for name, value in values.items()}
    if any(not name or "=" in name or "\0" in name + value for name, value in found.items()):
        raise ApiError(400, f"{key} has a name or value that no process can have")
    return found


def _labels(body: dict[str, Any]) -> dict[str, str]:
    labels = _variables(body, "labels")
    if not all(LABEL.fullmatch(word) for pair in labels.items() for word in pair):
        raise ApiError(400, "a label has at most 100 letters, digits, dots, dashes and underscores")
    return labels
