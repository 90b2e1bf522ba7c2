"""Steps as Slurm jobs: the steps of one kind that are ready become one array job.

    runs/slurm/0003-traces/
      steps.sbatch    #SBATCH lines from run.resources, then the worker with the task's number
      job             4711, once it is submitted
      0.json          the call of task 0;  0.log  what it said;  0.error.json  why it failed, if it did

The run's folder, the recipe's and the Python environment must have the same paths on every node. This
process only watches: when it is killed the jobs go on, and the next run follows those that it still needs.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import count, groupby
from pathlib import Path
from typing import Final

from hubkit.errors import HubkitError, StepError
from hubkit.executors.call import StepCall, error_from_json
from hubkit.executors.watching import Task, Watching
from hubkit.recipe.runtime import Resources, Run
from hubkit.store import Store

__all__ = ["SlurmExecutor", "script"]

GRACE_S: Final = 30.0
"""After a task's end until its result must be seen: shared folders show new files late."""
ARRAY: Final = 1000
"""Tasks per array; Slurm's MaxArraySize is 1001 unless a site raised it."""
ENDED: Final = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "TIMEOUT",
}
FROM_OUTSIDE: Final = {"BOOT_FAIL", "NODE_FAIL", "PREEMPTED", "TIMEOUT"}
"""Ends after which the same step goes on where it was, in a new job."""


@dataclass
class _Task(Task):
    folder: Path = Path()
    index: int = 0
    ended: float = 0.0
    """When it was first seen to have ended, by time.monotonic(); 0 before."""
    state: str = ""


class SlurmExecutor(Watching[_Task]):
    """Submits with sbatch, follows with squeue and the run's folder. Leaving it on an error cancels its tasks."""

    poll_s = 5.0

    def __init__(self, run: Run, root: Path) -> None:
        super().__init__(_Task, Store(root))
        self.max_concurrent = sys.maxsize  # the queue is Slurm's
        self._run, self._waves = run, root / "slurm"
        self._left: dict[str, tuple[str, int, Path]] = {}
        """Key -> job, index, folder: tasks under way from a run that was killed."""

    def __enter__(self) -> SlurmExecutor:
        if shutil.which("sbatch") is None:
            raise StepError("run.executor is slurm and there is no sbatch here", "run it on a login node")
        self._left = self._under_way()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end()
        if kind is not None and (names := [f"{task.job}_{task.index}" for task in self._tasks]):
            _slurm("scancel", *names)

    def _under_way(self) -> dict[str, tuple[str, int, Path]]:
        states = _states()
        if states is None:
            raise StepError("squeue does not answer", "see what `squeue --me` says here")
        found = {}
        for file in self._waves.glob("*/job"):
            job, folder = file.read_text(encoding="utf-8").strip(), file.parent
            for (name, number, index), state in states.items():
                alive = state not in ENDED and state != "COMPLETING"
                if alive and number == job and name == _job_name(folder):
                    call = StepCall.from_json((folder / f"{index}.json").read_text(encoding="utf-8"))
                    found[call.key] = (job, index, folder)
        return found

    def _place(self, tasks: list[_Task]) -> None:
        for task in tasks:
            if left := self._left.pop(task.call.key, None):
                task.job, task.index, task.folder = left
                self._tasks.append(task)
        fresh = sorted((t for t in tasks if not t.job), key=lambda t: t.call.kind)
        for kind, group in groupby(fresh, key=lambda t: t.call.kind):
            waiting = list(group)
            for start in range(0, len(waiting), ARRAY):
                self._submit_wave(kind, waiting[start : start + ARRAY])

    def _submit_wave(self, kind: str, wave: list[_Task]) -> None:
        try:
            folder = self._new_folder(kind)
            for index, task in enumerate(wave):
                (folder / f"{index}.json").write_text(task.call.to_json(), encoding="utf-8")
            text = script(_job_name(folder), [t.call.step for t in wave], self._run.resources_of(kind))
            (folder / "steps.sbatch").write_text(text, encoding="utf-8")
            done = _slurm("sbatch", "--parsable", "steps.sbatch", folder=folder)
            if done.returncode != 0:
                reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                reason = reason.removeprefix("sbatch: error: ")
                raise StepError(
                    f"sbatch refused {folder / 'steps.sbatch'}: {reason}", f"see run.resources.{kind}"
                )
            job = done.stdout.strip().split(";")[0]  # a federation appends the cluster's name
            (folder / "job").write_text(job + "\n", encoding="utf-8")
        except OSError as error:
            problem = StepError(f"cannot write in {self._waves}: {error.strerror}", "free some space")
            for task in wave:
                task.future.set_exception(problem)
        except HubkitError as error:
            for task in wave:
                task.future.set_exception(error)
        else:
            for index, task in enumerate(wave):
                task.folder, task.job, task.index, task.ended, task.state = folder, job, index, 0.0, ""
                self._tasks.append(task)

    def _new_folder(self, kind: str) -> Path:
        self._waves.mkdir(parents=True, exist_ok=True)
        for number in count(len(list(self._waves.iterdir()))):
            folder = self._waves / f"{number:04}-{kind}"
            try:
                folder.mkdir()
                return folder
            except FileExistsError:
                continue
        raise AssertionError("count() does not end")

    def _look(self) -> None:
        """Finish the tasks whose result is there, or that ended without one."""
        states = _states() if self._tasks else {}
        for task in list(self._tasks):
            try:
                settled = self._settle(task, states)
            except HubkitError as error:
                task.future.set_exception(error)
                settled = True
            if settled:
                self._tasks.remove(task)

    def _settle(self, task: _Task, states: dict[tuple[str, str, int], str] | None) -> bool:
        if record := self._store.find(task.call.step, task.call.key):
            task.future.set_result(record)
            return True
        failed = task.folder / f"{task.index}.error.json"
        if failed.exists():
            raise error_from_json(json.loads(failed.read_text(encoding="utf-8")))
        if states is None:  # Slurm does not answer now: results still count, ends are not known
            return False
        state = states.get((_job_name(task.folder), task.job, task.index), "")
        if state and state not in ENDED:
            task.ended = 0.0
            return False
        task.state = state or task.state or _accounted(f"{task.job}_{task.index}")
        task.ended = task.ended or time.monotonic()
        if time.monotonic() - task.ended < GRACE_S:
            return False
        if task.state in FROM_OUTSIDE and self._goes_on(task):
            task.job = ""
            self._add(task)
            return True
        raise self._lost(task)

    def _lost(self, task: _Task) -> StepError:
        log = task.folder / f"{task.index}.log"
        name = f"run.resources.{task.call.kind}"
        remedy = {
            "TIMEOUT": f"raise {name}.time",
            "OUT_OF_MEMORY": f"raise {name}.memory_gb",
            "CANCELLED": "run again: it goes on where it stopped",
        }.get(task.state, f"its log is {log}")
        how = task.state or "unknown to squeue and sacct"
        return StepError(f"{task.call.step}: Slurm task {task.job}_{task.index} ended: {how}", remedy)


def script(name: str, steps: list[str], resources: Resources) -> str:
    """The text of steps.sbatch: one array task per step."""
    options = [
        f"--job-name={name}",
        f"--array=0-{len(steps) - 1}",
        "--output=%a.log",
        "--open-mode=append",
        "--requeue",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={resources.cpus}",
    ]
    if resources.gpus:
        options.append(f"--gres=gpu:{resources.gpus}")
    if resources.memory_gb:
        options.append(f"--mem={resources.memory_gb}G")
    for option in ("partition", "account", "time"):
        if value := getattr(resources, option):
            options.append(f"--{option}={value}")
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {option}" for option in [*options, *resources.sbatch]),
        "",
        "# task  step",
        *(f"# {index:>4}  {step}" for index, step in enumerate(steps)),
        "# By hand, for one task: SLURM_ARRAY_TASK_ID=0 bash steps.sbatch",
        f'exec {shlex.quote(sys.executable)} -m hubkit.executors.worker "$SLURM_ARRAY_TASK_ID"',
    ]
    return "\n".join(lines) + "\n"


def _job_name(folder: Path) -> str:
    return f"hubkit-{folder.name}"


def _slurm(*command: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Ask Slurm. A session of its own: Ctrl-C must not tear a submission in two."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    try:
        return subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", f"{command[0]}: {error}")


def _states() -> dict[tuple[str, str, int], str] | None:
    """(job name, job id, task) -> state, of this user's array tasks; None when Slurm does not answer."""
    asked = ("squeue", "--me", "--noheader", "--array", "--states=all", "--format=%F %K %T %j")
    done = _slurm(*asked)
    if done.returncode != 0:
        return None
    found = {}
    for line in done.stdout.splitlines():
        parts = line.split(maxsplit=3)
        if len(parts) == 4 and parts[1].isdecimal():
            found[parts[3].strip(), parts[0], int(parts[1])] = parts[2]
    return found


def _accounted(task: str) -> str:
    """The last state of a task that squeue has forgotten; empty where the site keeps no accounts."""
    done = _slurm("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={task}", "--format=State")
    words = done.stdout.split()  # "CANCELLED by 0" is one state
    return words[0] if done.returncode == 0 and words else ""
