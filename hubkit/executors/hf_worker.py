"""One step in a job on the Hub: python -m hubkit.executors.hf_worker, started by hf_jobs.py.

HUBKIT_REPO, HUBKIT_COMMIT and HUBKIT_CALL name the run's repo, the commit with everything that the step needs, and the
step. The step runs in a child process (worker.py), in an ordinary run folder. This process fetches the inputs, writes
progress into the log, and uploads the output. It also uploads the work under way, soon after the start and then at
doubling intervals of up to five minutes.

The work is copied while the child is stopped, so the copy is what a kill at that moment would have left, journals and
checkpoints included, and every step can go on from that.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from hubkit.errors import HubError, HubkitError, InputError, StepError
from hubkit.executors.call import StepCall, error_from_json, error_to_json
from hubkit.executors.run_repo import RunRepo, files_below, place_of
from hubkit.hub import default_access
from hubkit.store import Record, Store, digest_file, digest_folder, manifest

__all__ = ["PROGRESS", "main"]

PROGRESS: Final = "hubkit-progress "
"""Prefix of log lines that are for the run and not for people."""
PROGRESS_S: Final = 2.0
FIRST_UPLOAD_S: Final = 5.0
UPLOAD_S: Final = 300.0
"""Between uploads of the work under way: doubled from the first up to this, for the Hub limits commits per hour."""
PATIENCE_S: Final = 1800.0
"""Seconds to keep trying to upload the output."""


@dataclass
class _Job:
    repo: RunRepo
    commit: str
    call: StepCall
    folder: Path
    """Of this process: 0.json and the run's folder are in it."""

    @property
    def place(self) -> str:
        return place_of(self.call.step, self.call.key)

    @property
    def work(self) -> Path:
        return Store(self.call.root).work(self.call.step, self.call.key)


def main() -> None:
    signal.signal(signal.SIGTERM, _end)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    repo = RunRepo(default_access(), os.environ["HUBKIT_REPO"])
    commit, place = os.environ["HUBKIT_COMMIT"], os.environ["HUBKIT_CALL"]
    folder = Path.cwd() / "hubkit-job"
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        job = _prepare(repo, commit, place, folder)
        _carry_out(job)
    except OSError as error:
        _fail(repo, place, StepError(f"{place}: {error.strerror or error}", "see the job's log"))
    except HubkitError as error:
        _fail(repo, place, error)


def _end(number: int, frame: object) -> None:
    """Handle SIGTERM, with which the Hub ends a job: the work so far is uploaded. Later signals are ignored."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + number)


def _fail(repo: RunRepo, place: str, error: HubkitError) -> None:
    print(f"error: {error}", file=sys.stderr, flush=True)
    told = json.dumps(error_to_json(error)).encode()
    _persist(lambda: repo.commit(f"{place} failed", {f"calls/{place}.error.json": told}))
    sys.exit(1)


def _prepare(repo: RunRepo, commit: str, place: str, folder: Path) -> _Job:
    """Fetch everything that the step needs, and check it against the digests in the step's key."""
    name, root = f"calls/{place}.json", folder / "run"
    repo.fetch([name], root, commit)
    call = StepCall.from_json((root / name).read_text(encoding="utf-8"))
    local = {
        name: model | {"model": str(root / model["model"])}
        for name, model in call.models.items()
        # A model on the Hub has a revision, and one behind an endpoint no place.
        if name not in call.paths and not model["revision"] and model["model"].startswith("files/")
    }
    beside = [Path(call.models[name]["model"]) for name in local] + [
        path.parent for path in call.paths.values()
    ]
    repo.fetch_folders([path.as_posix() for path in {*call.folders.values(), *beside}], root, commit)
    call = replace(
        call,
        root=root,
        folders={name: root / path for name, path in call.folders.items()},
        paths={name: root / path for name, path in call.paths.items()},
        models=call.models | local,
    )
    _check(call)
    found = repo.fetch_folders([f"work/{place}"], root)
    print(f"{call.step}: {f'goes on with {found} files of work' if found else 'from the start'}", flush=True)
    (folder / "0.json").write_text(call.to_json(), encoding="utf-8")
    return _Job(repo, commit, call, folder)


def _check(call: StepCall) -> None:
    for name, path in call.folders.items():
        record = Record.read(path)
        if record.output != call.inputs[name] or record.files != manifest(path):
            raise InputError(
                f"{call.step}: {name} did not arrive as it was made", "delete the run's repo, run again"
            )
    for name, path in call.paths.items():
        if digest_file(path) != call.inputs[f"model:{name}"]:
            raise InputError(f"{call.step}: {name} has changed", "run again")
    for name, model in call.models.items():
        folder = Path(model["model"])
        if folder.is_absolute() and digest_folder(folder) != call.inputs[f"model:{name}"]:
            raise InputError(f"{call.step}: the model {name} has changed", "run again")


def _carry_out(job: _Job) -> None:
    process = subprocess.Popen([sys.executable, "-m", "hubkit.executors.worker", "0"], cwd=job.folder)
    uploads = _Uploads(job, process)
    told, end = "", None
    try:
        while process.poll() is None:
            told = _tell(job, told)
            uploads.make_when_due()
            with suppress(subprocess.TimeoutExpired):
                process.wait(PROGRESS_S)
    except SystemExit as error:  # SIGTERM
        end = error
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()
    signal.signal(
        signal.SIGTERM, signal.SIG_IGN
    )  # what is left to do takes seconds, and is why they are granted
    record = Store(job.call.root).find(job.call.step, job.call.key)
    if record is None:
        uploads.make()
        raise end or _why(job, process.returncode)
    folder = Store(job.call.root).folder(job.call.step, job.call.key)
    work = f"work/{job.place}/"
    made = files_below(folder, f"steps/{job.place}")
    _persist(lambda: job.repo.commit(f"{job.place} done", made, lambda name: name.startswith(work)))


def _why(job: _Job, status: int) -> HubkitError:
    failed = job.folder / "0.error.json"
    if failed.is_file():
        return error_from_json(json.loads(failed.read_text(encoding="utf-8")))
    how = (
        f"was killed (signal {-status}), or ran out of memory"
        if status < 0
        else f"ended with status {status}"
    )
    kind = job.call.kind
    return StepError(
        f"{job.call.step}: its process {how}", f"see the job's log, or run.resources.{kind}.flavor"
    )


def _tell(job: _Job, before: str) -> str:
    try:
        text = (job.work / "progress.json").read_text(encoding="utf-8")
    except OSError:
        return before
    if text != before:
        print(PROGRESS + json.dumps(json.loads(text)), flush=True)
    return text


class _Uploads:
    """Uploads copies of the work under way to the run's repo."""

    def __init__(self, job: _Job, process: subprocess.Popen[bytes]) -> None:
        self._job, self._process = job, process
        self._pause = FIRST_UPLOAD_S
        self._due = time.monotonic() + self._pause
        self._sent: Any = self._seen()

    def make_when_due(self) -> None:
        if time.monotonic() >= self._due and self.make():
            self._pause = min(2 * self._pause, UPLOAD_S)
            self._due = time.monotonic() + self._pause

    def make(self) -> bool:
        """Upload the work if it has changed. After a failed upload the next call tries again."""
        if (seen := self._seen()) == self._sent:
            return False
        copy, to = self._job.folder / "copy", f"work/{self._job.place}"
        try:
            if not self._copy(copy):
                return False
            files = files_below(copy, to)
            self._job.repo.commit(
                f"{self._job.place} under way", files, lambda name: name.startswith(f"{to}/")
            )
        except (HubError, OSError) as error:
            print(f"work is not uploaded: {error}", file=sys.stderr, flush=True)
        else:
            self._sent = seen
            print(f"{self._job.call.step}: work uploaded, {len(files)} files", flush=True)
        finally:
            shutil.rmtree(copy, ignore_errors=True)
        return True

    def _seen(self) -> list[tuple[str, int, int]]:
        found = []
        for folder, _, names in os.walk(self._job.work):
            for path in (Path(folder, name) for name in names if name != "progress.json"):
                with suppress(OSError):  # removed since it was listed
                    if path.is_file():
                        found.append((str(path), path.stat().st_size, path.stat().st_mtime_ns))
        return sorted(found)

    def _copy(self, to: Path) -> bool:
        """Returns False if the step is done: its work is then being removed, and half of it would be useless."""
        call = self._job.call
        shutil.rmtree(to, ignore_errors=True)
        try:
            _stop(self._process)
            if Store(call.root).folder(call.step, call.key).exists():
                return False
            shutil.copytree(self._job.work, to, ignore=shutil.ignore_patterns("progress.json"))
        finally:
            self._process.send_signal(signal.SIGCONT)
        return True


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a process, and return once each of its threads has stopped or ended."""
    process.send_signal(signal.SIGSTOP)
    tasks = Path(f"/proc/{process.pid}/task")
    while process.poll() is None:
        states = []
        for task in tasks.glob("*/stat"):
            with suppress(OSError):
                text = task.read_text(encoding="utf-8", errors="replace")
                states.append(text.rpartition(")")[2].split()[0])
        if all(state in "TtZX" for state in states):
            return
        time.sleep(0.001)


def _persist(send: Any) -> None:
    """Try for half an hour, so that an output is not lost when the Hub is down for a while."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            send()
            return
        except HubError as error:
            print(f"not uploaded yet: {error}", file=sys.stderr, flush=True)
            if time.monotonic() > until:
                raise
            time.sleep(30)


if __name__ == "__main__":
    main()
