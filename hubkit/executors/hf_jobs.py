"""Steps as jobs on the Hub: each step is one job, started by huggingface_hub's run_uv_job.

    runs/jobs/traces-sage-0-5f1c0a…/687fb701029421ae5549d998.log    what a job of this step said

Only the run's private repo on the Hub (run_repo.py) is shared with a job: the recipe and the step's inputs go there
in one commit, which the job is given; work under way and outputs come back from there. This process only watches:
when it is killed the jobs go on, and the next run finds them by their labels and follows them. The steps report and
publish, which only gather outputs, run here.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import threading
import time
import warnings
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

from hubkit.errors import HubError, HubkitError, InputError, StepError
from hubkit.executors.call import StepCall, error_from_json
from hubkit.executors.hf_worker import PROGRESS
from hubkit.executors.installation import BOOTSTRAP, WHEEL, from_here, requirement_lines
from hubkit.executors.local import LocalExecutor
from hubkit.executors.run_repo import RunRepo, bring_home, files_below, is_plain, place_of, portable
from hubkit.executors.watching import Task, Watching
from hubkit.hub import attempt, check_namespace, default_access
from hubkit.recipe.config import Recipe
from hubkit.records import is_part
from hubkit.store import Record, Store, canonical_json, digest, write_json

if TYPE_CHECKING:
    from huggingface_hub import JobInfo

__all__ = ["HfJobsExecutor"]

MAX_CONCURRENT: Final = 64
"""Jobs at the same time: each has an open connection for its log."""
HERE: Final = {"report", "publish"}
_RECORD_ALONE: Final = ("judge", "verify", "compress", "control", "tokenise", "tokens")
"""Steps of which only the record is read here."""
PATIENCE_S: Final = 900.0
"""For a Hub that does not answer, while jobs are followed."""
LOG_S: Final = 10.0
"""After a job's end, for the rest of its log to arrive."""
_CLIENT: Final = f"huggingface_hub=={metadata.version('huggingface_hub')}"
ENDED: Final = {"COMPLETED", "CANCELED", "DELETED", "ERROR"}


@dataclass
class _Task(Task):
    held: ExitStack = field(default_factory=ExitStack)
    """The step's lock, while its job runs: by it `hubkit recipe status` knows."""
    running: bool = False
    log: threading.Thread | None = None
    began: bool = False
    """Whether the job began the step; if not, trying again would not help."""
    last: str = ""
    """The last line of its log."""


class HfJobsExecutor(Watching[_Task]):
    """Submits, follows logs and stages, and fetches results. Leaving it on an error cancels its jobs."""

    max_concurrent = MAX_CONCURRENT
    poll_s = 3.0

    def __init__(self, recipe: Recipe, root: Path) -> None:
        super().__init__(_Task, Store(root))
        access = default_access()
        if recipe.hub.endpoint != "local":
            access = replace(access, endpoint=recipe.hub.endpoint)
        self._recipe, self._run = recipe, recipe.run
        self._access, self._namespace, self._api = access, recipe.hub.namespace, access.api()
        self._repo = RunRepo(access, f"{recipe.hub.namespace}/{recipe.name}-run")
        self._label = digest(self._repo.name)[:16]
        self._here = LocalExecutor(1)
        self._wheel: dict[str, bytes] = {}
        """Name in the run's repo -> hubkit's wheel, if jobs install one."""
        self._command: tuple[list[str], list[str]] = ([], [])
        """What uv installs for `python`, and the arguments of `python`."""
        self._left: dict[str, str] = {}
        """Key -> job: under way from a run that was killed."""
        self._answered = time.monotonic()

    def submit(self, call: StepCall) -> Future[Record]:
        if call.kind in HERE:
            if call.kind == "publish":
                for name, folder in call.folders.items():
                    if name.partition("/")[0] == "student":
                        bring_home(call.root, folder)
            return self._here.submit(call)
        return super().submit(call)

    def __enter__(self) -> HfJobsExecutor:
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()  # the run shows its own
        # Its warnings of commits without changes and of logs that pause need no action.
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        check_namespace(self._access, self._namespace)
        self._command = self._prepare()
        self._left = {(job.labels or {}).get("hubkit-key", ""): job.id for job in self._jobs()}
        self._repo.create()
        self._here.__enter__()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end()
        self._here.__exit__(kind)
        if kind is not None:
            self._cancel([task.job for task in self._tasks])
        for task in self._tasks:
            task.held.close()

    def _prepare(self) -> tuple[list[str], list[str]]:
        """The dependencies and arguments of every job's `python`. Raises InputError if hubkit cannot be given to it."""
        jobs, worker = self._run.jobs, ["-m", "hubkit.executors.hf_worker"]
        if not jobs.installs_this_hubkit:
            return jobs.dependencies, worker
        with tempfile.TemporaryDirectory() as folder:
            source = from_here(Path(folder))
            if isinstance(source, str):
                return requirement_lines(jobs.dependencies, source), worker
            content = source.read_bytes()
            name = f"files/{hashlib.sha256(content).hexdigest()[:32]}/{source.name}"
        self._wheel = {name: content}
        # Each option is one argument: huggingface_hub would take one that is a path here for a file to send along.
        needs = requirement_lines(jobs.dependencies, f"file://{WHEEL}")
        options = [f"--python={jobs.python}"] * bool(jobs.python) + [f"--with={line}" for line in needs]
        return [_CLIENT], ["-c", BOOTSTRAP, name, "uv", "run", *options, "python", *worker]

    def _cancel(self, jobs: list[str]) -> None:
        """Cancel the jobs and wait for their end: until then they upload their work so far."""

        def cancel(job: str) -> None:
            with suppress(HubError):
                what = f"cancel job {job}"
                attempt(
                    self._access, what, lambda: self._api.cancel_job(job_id=job, namespace=self._namespace)
                )

        for job in jobs:
            cancel(job)
        until = time.monotonic() + 30
        with suppress(HubError):
            while {job.id for job in self._jobs()} & set(jobs) and time.monotonic() < until:
                time.sleep(0.5)

    def _jobs(self) -> list[JobInfo]:
        """Returns the jobs of this run that are waiting or running."""
        labels = {"hubkit-run": self._label}
        return attempt(
            self._access,
            "list jobs",
            lambda: list(
                self._api.list_jobs(
                    namespace=self._namespace, labels=labels, status=["RUNNING", "SCHEDULING"]
                )
            ),
        )

    def _place(self, tasks: list[_Task]) -> None:
        """Give each task a job: one that is under way, or a new one. Outputs that are on the Hub are fetched."""
        fresh: list[_Task] = []
        for task in tasks:
            task.job = self._left.pop(task.call.key, "")
            (self._tasks if task.job else fresh).append(task)
        if not fresh:
            return
        there = self._repo.files()
        for task in list(fresh):
            if self._settle(task, there):
                fresh.remove(task)
        if not fresh:
            return
        add: dict[str, Path | bytes] = {
            name: wheel for name, wheel in self._wheel.items() if name not in there
        }
        stale = set()
        for task in list(fresh):
            try:
                add |= self._needed(task.call, there)
            except InputError as error:
                task.future.set_exception(error)
                fresh.remove(task)
                continue
            stale.add(f"calls/{place_of(task.call.step, task.call.key)}.error.json")
        recipe = yaml.safe_dump(self._recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        commit = self._repo.commit_recipe(f"Steps to do: {len(fresh)}", recipe, add, stale)
        for task in fresh:
            try:
                task.job = self._start(task.call, commit)
                self._tasks.append(task)
            except HubkitError as error:
                task.future.set_exception(error)

    def _needed(self, call: StepCall, there: set[str]) -> dict[str, Path | bytes]:
        """Returns what the repo lacks for a step: the call, inputs, files and work under way."""
        place = place_of(call.step, call.key)
        sent, beside = portable(call)
        folders = {sent.folders[name].as_posix(): path for name, path in call.folders.items()}
        add: dict[str, Path | bytes] = {f"calls/{place}.json": sent.to_json().encode()}
        for to, path in (folders | beside).items():
            if not _has(there, to):
                if path.is_dir():
                    bring_home(call.root, path)
                add |= files_below(path, to) if path.is_dir() else {to: path}
        if not _has(there, f"work/{place}"):  # it may have been begun under another executor
            work = files_below(self._store.work(call.step, call.key), f"work/{place}")
            add |= {name: path for name, path in work.items() if path.name != "progress.json"}
        return add

    def _start(self, call: StepCall, commit: str) -> str:
        run, asked = self._run, self._run.resources_of(call.kind)
        secrets = {"HF_TOKEN": self._access.token or ""}
        for name in run.jobs.secrets:
            if name not in os.environ:
                raise StepError(f"run.jobs.secrets names {name}, which is not set", f"export {name}=…")
            secrets[name] = os.environ[name]
        for engine in (call.runtime.get(name, {}) for name in ("engine", "judge_engine")):
            if engine.get("engine") == "openai" and (key := os.environ.get(engine["api_key_env"])):
                secrets[engine["api_key_env"]] = key

        def start() -> str:
            for job in self._jobs():  # one whose answer was lost, or that another run has submitted
                if (job.labels or {}).get("hubkit-key") == call.key:
                    return job.id
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that run_uv_job is new, each time
                started: JobInfo = self._api.run_uv_job(
                    "python",
                    script_args=self._command[1],
                    dependencies=self._command[0],
                    python=run.jobs.python or None,
                    env={
                        "HF_ENDPOINT": self._access.endpoint,
                        "HUBKIT_REPO": self._repo.name,
                        "HUBKIT_COMMIT": commit,
                        "HUBKIT_CALL": place_of(call.step, call.key),
                    },
                    secrets=secrets,
                    flavor=asked.flavor,
                    timeout=asked.timeout,
                    name=_flat(f"hubkit-{call.step}")[:100],
                    labels={"hubkit-run": self._label, "hubkit-key": call.key},
                    namespace=self._namespace,
                )
            return started.id

        return attempt(self._access, f"start a job for {call.step}", start)

    def _look(self) -> None:
        """Check the running jobs, and finish the tasks whose job has ended."""
        if not self._tasks:
            return
        try:
            active = {job.id: _stage(job) for job in self._jobs()}
            ended = {t.job: self._end_of(t.job) for t in self._tasks if t.job not in active}
            there = self._repo.files() if ended else set()  # asked after the ends: what was made is in it
            self._answered = time.monotonic()
        except HubError:  # the jobs go on meanwhile
            if time.monotonic() - self._answered > PATIENCE_S:
                raise
            return
        for task in list(self._tasks):
            try:
                stage, message = ended.get(task.job) or (active[task.job], "")
                if stage in ENDED:
                    self._close(task, stage, message, there)
                elif stage == "RUNNING":
                    self._watch(task)
            except HubkitError as error:
                self._drop(task)
                task.future.set_exception(error)

    def _watch(self, task: _Task) -> None:
        """Hold the step's lock and follow the log, once the job runs."""
        if not task.running:
            task.running = True
            self._store.work(task.call.step, task.call.key).mkdir(parents=True, exist_ok=True)
            task.held.enter_context(self._store.lock(task.call.step, task.call.key))
        if task.log is None:
            task.log = threading.Thread(target=self._read_log, args=(task, task.job), daemon=True)
            task.log.start()

    def _close(self, task: _Task, stage: str, message: str, there: set[str]) -> None:
        """A task's job has ended: fetch its output, or raise its error, or go on in another job."""
        self._watch(task)
        assert task.log is not None
        task.log.join(LOG_S)
        if self._settle(task, there):
            self._drop(task)
            return
        failed = f"calls/{place_of(task.call.step, task.call.key)}.error.json"
        if failed in there:
            raise self._told(failed)
        if stage in ("ERROR", "COMPLETED") and task.began and self._goes_on(task):
            self._drop(task)
            self._add(_Task(task.call, task.future, done=task.done, in_vain=task.in_vain))
            return
        raise self._lost(task, stage, message)

    def _drop(self, task: _Task) -> None:
        task.held.close()
        task.job = ""  # its log is not read any longer
        self._tasks.remove(task)

    def _settle(self, task: _Task, there: set[str]) -> bool:
        """Fetch a step's output, if it is on the Hub, check it, and put it in place."""
        call = task.call
        place = f"steps/{place_of(call.step, call.key)}"
        if f"{place}/record.json" not in there:
            return False
        into = self._store.root / "tmp" / f"{call.key[:16]}-fetched"
        try:
            shutil.rmtree(into, ignore_errors=True)
            self._repo.fetch([f"{place}/record.json"], into)
            record = Record.read(into / place)
            told = {
                "kind": record.kind,
                "config": record.config,
                "inputs": record.inputs,
                "v": record.version,
            }
            meant = {"kind": call.kind, "config": call.config, "inputs": call.inputs, "v": call.version}
            names = [entry.path for entry in record.files]
            if canonical_json(told) != canonical_json(meant) or not all(map(is_plain, names)):
                raise InputError(
                    f"{place} is not of {call.step}", f"delete it in {self._repo.name}, and run again"
                )
            left = _left(call.kind, names)
            self._repo.fetch([f"{place}/{name}" for name in names if name not in left], into)
            if not task.running:
                task.held.enter_context(self._store.lock(call.step, call.key))
            made = self._store.adopt(call.step, call.key, into / place, left, self._repo.name)
            task.future.set_result(made)
        except HubkitError as error:
            task.future.set_exception(error)
        finally:
            task.held.close()
            shutil.rmtree(into, ignore_errors=True)
        return True

    def _told(self, failed: str) -> HubkitError:
        into = self._store.root / "tmp" / digest(failed)[:16]
        try:
            self._repo.fetch([failed], into)
            return error_from_json(json.loads((into / failed).read_text(encoding="utf-8")))
        except ValueError:
            return error_from_json({})
        finally:
            shutil.rmtree(into, ignore_errors=True)

    def _end_of(self, job: str) -> tuple[str, str]:
        """Returns stage and message of a job that is neither waiting nor running."""
        from huggingface_hub.errors import HfHubHTTPError

        def look() -> tuple[str, str]:
            try:
                info = self._api.inspect_job(job_id=job, namespace=self._namespace)
            except HfHubHTTPError as error:
                if error.response.status_code != 404:
                    raise
                return "ERROR", "the Hub knows it no longer"  # a local one, started again
            return _stage(info), info.status.message or ""

        return attempt(self._access, "look at a job", look)

    def _lost(self, task: _Task, stage: str, message: str) -> StepError:
        if stage == "CANCELED":
            remedy = "run again: it goes on where it stopped"
        elif "timeout" in message.lower():
            remedy = f"raise run.resources.{task.call.kind}.timeout"
        else:
            remedy = f"its log is {self._log_file(task.call, task.job)}"
        how = ", ".join(filter(None, [stage, message, task.last[:200]]))
        return StepError(f"{task.call.step}: job {task.job} ended: {how}", remedy)

    def _log_file(self, call: StepCall, job: str) -> Path:
        return self._store.root / "jobs" / _flat(place_of(call.step, call.key)) / f"{_flat(job)}.log"

    def _read_log(self, task: _Task, job: str) -> None:
        """Save a job's log from its first line; its progress becomes the step's progress here."""
        path = self._log_file(task.call, job)
        path.parent.mkdir(parents=True, exist_ok=True)
        while task.job == job and not self._stop.is_set():
            try:
                with path.open("w", encoding="utf-8") as log:
                    for line in self._api.fetch_job_logs(job_id=job, namespace=self._namespace, follow=True):
                        if self._stop.is_set():
                            return
                        if line.startswith(PROGRESS):
                            self._keep_progress(task.call, line.removeprefix(PROGRESS))
                            continue
                        task.began |= line.startswith(f"{task.call.step}: ")
                        task.last = line.strip() or task.last
                        log.write(line + "\n")
                        log.flush()
                return
            except Exception:  # whatever the client meets on the way; the stage of the job decides
                time.sleep(self.poll_s)

    def _keep_progress(self, call: StepCall, text: str) -> None:
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            told = json.loads(text)
            numbers = {k: v for k, v in told.items() if isinstance(v, int | float) and k.isidentifier()}
            state = {"step": call.step, "done": int(told["done"]), "total": int(told["total"])}
            folder = self._store.work(call.step, call.key)
            if folder.is_dir():  # the step is not done yet
                write_json(folder / "progress.json", numbers | state | {"time": time.time()})


def _left(kind: str, names: list[str]) -> set[str]:
    """Returns the files that stay on the Hub until a step that runs here reads them. report and publish read none of
    these, except students' weights, which are fetched when they are published."""
    if kind in _RECORD_ALONE:
        return set(names)
    if kind == "traces":  # its problems are published
        return {name for name in names if is_part(name, "traces.parquet")}
    return {name for name in names if kind == "student" and name.endswith(".safetensors")}


def _has(there: set[str], place: str) -> bool:
    """Whether a file or a folder is among the names of a repo's files."""
    return place in there or any(name.startswith(f"{place}/") for name in there)


def _stage(job: JobInfo) -> str:
    return str(getattr(job.status.stage, "value", job.status.stage))


def _flat(name: str) -> str:
    """For a file or a label: traces/sage/0 -> traces-sage-0."""
    return "".join(char if char.isalnum() and char.isascii() else "-" for char in name)
