"""The store of steps: keys, atomic output folders and run records.

    runs/nano/steps/raw/nano-teacher/5f1c0a…/      a finished step: its files and record.json
    runs/nano/work/raw/nano-teacher/5f1c0a…/       a step under way: journals, checkpoints, progress.json

A step is identified by a key: sha256 over (name, version, identity configuration, digests of its inputs). It writes
into a temporary folder, the record last, and the folder is renamed into place. So a folder under `steps/` is complete
or does not exist, whatever was killed and when.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from hubkit.errors import BusyError, InputError

__all__ = [
    "ELSEWHERE",
    "RECORD",
    "CheckContext",
    "FileEntry",
    "Record",
    "StepContext",
    "Store",
    "canonical_json",
    "digest",
    "digest_file",
    "digest_folder",
    "exclusive",
    "is_locked",
    "manifest",
    "write_json",
]

RECORD: Final = "record.json"
ELSEWHERE: Final = "elsewhere.json"
"""Written beside a record if jobs on the Hub left files of the step in the run's repo: `run_repo.bring_home`."""
PACKAGES: Final = (
    "hubkit",
    "torch",
    "transformers",
    "datasets",
    "huggingface_hub",
    "trl",
    "peft",
    "accelerate",
    "lighteval",
    "math-verify",
    "reasoning-gym",
    "vllm",
)


def canonical_json(value: Any) -> str:
    """Returns the same text for equal values: sorted keys, no spaces, no NaN. Raises InputError for other than JSON."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"a value has no stable form: {error}", "use numbers, text, lists and mappings"
        ) from error


def digest(value: Any) -> str:
    """Returns the sha256, in hex, of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def digest_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file atomically: readers see the old or the new text, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    _fsync(temporary)
    temporary.replace(path)


class FileEntry(BaseModel):
    """One file of a step's output."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    size: int
    sha256: str


def manifest(folder: Path) -> list[FileEntry]:
    """Returns all files below a folder with size (bytes) and sha256, in the order of their paths."""
    entries = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise InputError(f"{path} is a link", "copy the file it points to instead")
        if path.is_file() and path.name != RECORD:
            name = path.relative_to(folder).as_posix()
            entries.append(FileEntry(path=name, size=path.stat().st_size, sha256=digest_file(path)))
    return sorted(entries, key=lambda entry: entry.path)


def digest_folder(folder: Path) -> str:
    """Returns the digest of a folder's contents, which depends on names but not on times."""
    return digest([entry.model_dump() for entry in manifest(folder)])


class Record(BaseModel):
    """record.json: how a step's output was made. Cards are rendered from records and nothing else."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: int = 1
    step: str
    """The step's name in the plan, such as "raw/nano-teacher"."""
    kind: str
    version: int
    key: str
    config: dict[str, Any]
    """Identity: the settings that decide the output."""
    inputs: dict[str, str]
    """Input name -> digest of the output that the step read (a commit SHA for Hub inputs)."""
    runtime: dict[str, Any]
    """Settings that decide only how the step ran: device, engine, batch size. Never part of the key."""
    output: str
    files: list[FileEntry]
    counts: dict[str, int]
    """Rows kept and dropped by reason."""
    metrics: dict[str, Any]
    started: str
    """UTC, ISO 8601."""
    seconds: float
    """Wall time; for a step that was interrupted and resumed, that of the last attempt."""
    cpu_seconds: float
    environment: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Record:
        """The record in a finished step's folder. Raises InputError when it is missing or damaged."""
        try:
            return cls.model_validate_json((folder / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValidationError, ValueError) as error:
            raise InputError(f"no usable record in {folder}", "delete that folder and run again") from error


@functools.cache
def environment() -> dict[str, Any]:
    """Returns versions and commit for a record; no host name, no path, no user."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    try:
        here = Path(__file__).parent
        sha = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        tracked = subprocess.run(
            ["git", "ls-files", "--error-unmatch", "store.py"], cwd=here, capture_output=True
        )
        sha = sha if tracked.returncode == 0 else ""
    except (OSError, subprocess.CalledProcessError):
        sha = ""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": packages,
        "git_sha": sha,
    }


@contextmanager
def exclusive(path: Path, what: str, wait: bool = False) -> Iterator[None]:
    """Hold a lock file. The lock ends with the process, so a kill leaves none behind.

    Raises BusyError if another process holds it, unless `wait`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # flock itself and not filelock, which waits by asking every 50 ms, and takes eight times as long when free.
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise BusyError(f"another process is at work on {what}", "wait for it, or stop it") from error
        yield


def is_locked(path: Path) -> bool:
    """Returns whether a process holds this lock file now. Writes nothing."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except (FileNotFoundError, NotADirectoryError):
        return False


@dataclass(frozen=True)
class CheckContext:
    """The argument of a step module's `check(context)`, which raises before the run what `run` would find too late.

    `check` must be quick and write nothing. Inputs do not exist yet.
    """

    step: str
    config: dict[str, Any]
    runtime: dict[str, Any]
    models: dict[str, dict[str, str]]
    """As in StepContext."""
    problems: set[str]
    """Verifiers of the recipe's problems."""
    inputs: set[str]
    """Names of the step's inputs."""
    here: bool
    """Whether the step will run on this machine, so that checks of installed packages make sense."""

    def folder(self, name: str) -> Path | None:
        """Returns the folder of a model on this machine. Returns None for a model on the Hub."""
        folder = Path(self.models[name]["model"])
        return folder if folder.is_dir() else None


@dataclass
class StepContext:
    """The argument of a step's `run(context)`, which reads `inputs`, writes into `out` and may keep files in `work`."""

    step: str
    config: dict[str, Any]
    runtime: dict[str, Any]
    inputs: dict[str, Path]
    """Input name -> folder of that step's finished output."""
    models: dict[str, dict[str, str]]
    """Name -> {"model": folder or Hub id, "revision": commit or ""} for `model()`, and its "digest"."""
    out: Path
    """Temporary folder; becomes the output when `run` returns."""
    work: Path
    """Survives kills: journals, checkpoints. Removed once the step is done."""
    paths: dict[str, Path] = field(default_factory=dict)
    """Paths of this machine, which must not be in a record: `source` file, `hub` folder of the local Hub."""
    root: Path | None = None
    """The runs folder, where the answers of earlier steps are; None for a step without a run."""
    counts: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    _last_progress: float = 0.0

    @property
    def threads(self) -> int:
        """Cores that the step may use."""
        return int(self.runtime.get("threads") or 1)

    def count(self, reason: str, number: int = 1) -> None:
        """Add to the counts of the record, such as kept, wrong, unparseable."""
        self.counts[reason] = self.counts.get(reason, 0) + number

    def record(self, name: str) -> Record:
        """The record of an input."""
        return Record.read(self.inputs[name])

    def model(self, name: str) -> Path:
        """Local folder of a model; one on the Hub is downloaded at its pinned commit, without any code."""
        source = self.models[name]
        if Path(source["model"]).is_dir():
            return Path(source["model"])
        from hubkit.hub import download_model

        return download_model(source["model"], source["revision"])

    def progress(self, done: int, total: int, **info: Any) -> None:
        """Report the step's progress, for the progress bar and `hubkit recipe status`; cheap to call often."""
        now = time.monotonic()
        if now - self._last_progress < 0.3 and done != total:
            return
        self._last_progress = now
        path = self.work / "progress.json"
        temporary = path.with_suffix(".tmp")
        state = {"step": self.step, "done": done, "total": total, "time": time.time(), **info}
        with suppress(OSError):  # a full disk is reported by files that must be written
            temporary.write_text(json.dumps(state), encoding="utf-8")
            temporary.replace(path)


class Store:
    """The finished steps and the work under way of one recipe, in one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, step: str, key: str) -> Path:
        return self.root / "steps" / step / key[:16]

    def work(self, step: str, key: str) -> Path:
        return self.root / "work" / step / key[:16]

    def _lock(self, key: str) -> Path:
        return self.root / "locks" / f"{key[:16]}.lock"

    def is_busy(self, key: str) -> bool:
        """Whether a process, on any machine that shares this folder, is running this step."""
        return self._lock(key).exists() and is_locked(self._lock(key))

    def find(self, step: str, key: str) -> Record | None:
        """Returns the record of a finished step. Returns None if it is not finished. Sizes are checked, so that an
        incomplete copy is not trusted."""
        folder = self.folder(step, key)
        if not (folder / RECORD).is_file():
            return None
        record = Record.read(folder)
        left = set(json.loads(text.read_text())["files"]) if (text := folder / ELSEWHERE).is_file() else set()
        for entry in record.files:
            path = folder / entry.path
            if entry.path in left and not path.is_file():
                continue
            if record.key != key or not path.is_file() or path.stat().st_size != entry.size:
                raise InputError(f"{folder} is damaged: {entry.path}", "delete that folder and run again")
        return record

    def records(self, step: str) -> list[Record]:
        """Returns all finished versions of a step, newest first."""
        folders = (self.root / "steps" / step).glob(f"*/{RECORD}")
        return sorted((Record.read(path.parent) for path in folders), key=lambda r: r.started, reverse=True)

    def why_missed(self, step: str, config: dict[str, Any], inputs: dict[str, str], version: int) -> str:
        """Returns in one line which fields differ from the nearest earlier record of this step."""
        wanted = _flat({"config": config, "inputs": inputs, "version": version})
        best: list[str] | None = None
        for record in self.records(step):
            had = _flat({"config": record.config, "inputs": record.inputs, "version": record.version})
            differ = sorted(name for name in wanted.keys() | had.keys() if wanted.get(name) != had.get(name))
            if best is None or len(differ) < len(best):
                best = [_difference(name, had, wanted) for name in differ]
        if best is None:
            return "never run"
        return "; ".join(best[:3]) + (f"; and {len(best) - 3} more" if len(best) > 3 else "")

    def run(
        self,
        context: StepContext,
        kind: str,
        version: int,
        key: str,
        inputs: dict[str, str],
        function: Any,
    ) -> Record:
        """Run a step's function and put its output in place. Returns the record.

        A second process with the same step waits here and then finds it done.
        """
        context.work.mkdir(parents=True, exist_ok=True)
        with exclusive(self._lock(key), context.step, wait=True):
            if found := self.find(context.step, key):
                return found
            # Named by key, and this process holds the key's lock: an existing folder was left by a killed process.
            shutil.rmtree(context.out, ignore_errors=True)
            context.out.mkdir(parents=True)
            started, clock, cpu = time.gmtime(), time.monotonic(), time.process_time()
            try:
                function(context)
                files = manifest(context.out)
                record = Record(
                    step=context.step,
                    kind=kind,
                    version=version,
                    key=key,
                    config=context.config,
                    inputs=inputs,
                    runtime=context.runtime,
                    output=digest([entry.model_dump() for entry in files]),
                    files=files,
                    counts=context.counts,
                    metrics=context.metrics,
                    started=time.strftime("%Y-%m-%dT%H:%M:%SZ", started),
                    seconds=round(time.monotonic() - clock, 3),
                    cpu_seconds=round(time.process_time() - cpu, 3),
                    environment=environment(),
                )
                write_json(context.out / RECORD, record.model_dump())
                self._put(context.out, record, context.work)
                return record
            finally:
                shutil.rmtree(context.out, ignore_errors=True)

    def lock(self, step: str, key: str) -> AbstractContextManager[None]:
        """Hold a step's lock, as the process that runs it does. Raises BusyError if another process holds it."""
        return exclusive(self._lock(key), step)

    def adopt(
        self, step: str, key: str, folder: Path, left: Collection[str] = (), dataset: str = ""
    ) -> Record:
        """Move an output that was made elsewhere into place; the caller holds the step's lock.

        Files that are `left` in the `dataset` of a run may be missing: they are fetched when a step reads them.
        Raises InputError if the files are not exactly those in its record.
        """
        record, files = Record.read(folder), manifest(folder)
        here = [entry for entry in record.files if entry.path not in left]
        whole = digest([entry.model_dump() for entry in record.files])
        known = (record.step, record.key, here, record.output) == (step, key, files, whole)
        if not known or any(entry.path == ELSEWHERE for entry in record.files):
            raise InputError(
                f"what came back for {step} is not what its record says", "remove it there, and run again"
            )
        if left:
            write_json(folder / ELSEWHERE, {"dataset": dataset, "files": sorted(left)})
        self._put(folder, record, self.work(step, key))
        return record

    def _put(self, made: Path, record: Record, work: Path) -> None:
        for entry in record.files:
            if (made / entry.path).is_file():  # others were left elsewhere
                _fsync(made / entry.path)
        final = self.folder(record.step, record.key)
        final.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(final, ignore_errors=True)  # only a damaged one can be there: find() said so
        made.rename(final)
        _fsync(final.parent)
        shutil.rmtree(work, ignore_errors=True)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        result: dict[str, Any] = {}
        for name, item in value.items():
            result |= _flat(item, f"{prefix}.{name}" if prefix else str(name))
        return result
    return {prefix: value}


def _difference(name: str, had: dict[str, Any], wanted: dict[str, Any]) -> str:
    def short(values: dict[str, Any]) -> str:
        text = json.dumps(values.get(name), ensure_ascii=False) if name in values else "absent"
        return text if len(text) <= 24 else text[:20] + "…"

    return f"{name}: {short(had)} -> {short(wanted)}"
