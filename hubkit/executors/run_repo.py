"""The private dataset repo through which a run and its jobs on the Hub exchange files.

    recipe.yaml                             the recipe, as the run has it
    files/<digest>/…                        a model's folder or a problem file that lay beside the recipe
    calls/traces/sage/0/5f1c0a….json        a step that a job is to carry out, its places being places in here
    calls/traces/sage/0/5f1c0a….error.json  why it could not
    work/traces/sage/0/5f1c0a…/…            its journal and checkpoints, while it is under way
    steps/traces/sage/0/5f1c0a…/…           what it made, with record.json

Each change is one commit, so a step's output is there whole or not at all.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from hubkit.errors import HubError, InputError
from hubkit.executors.call import StepCall
from hubkit.hub import Access, attempt, default_access
from hubkit.push import additions
from hubkit.store import ELSEWHERE, Record, digest_file

__all__ = ["RunRepo", "bring_home", "files_below", "is_plain", "place_of", "portable"]

T = TypeVar("T")

RECIPE: Final = "recipe.yaml"
_AT_ONCE: Final = 8
"""Downloads at the same time."""
_CARD: Final = b"""---
tags: [hubkit]
viewer: false
---
Work of a run that is under way: `hubkit recipe run` with `run.executor: hf-jobs`. It can be deleted when that is done.
"""


def place_of(step: str, key: str) -> str:
    """Returns a step's path below steps, work and calls."""
    return f"{step}/{key[:16]}"


def files_below(folder: Path, to: str) -> dict[str, Path]:
    """All files of a folder, by the names they are to have in the repo."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
    paths = (path for path in paths if path.name != ELSEWHERE)
    return {f"{to}/{path.relative_to(folder).as_posix()}": path for path in paths}


def is_plain(name: str) -> bool:
    """Whether a file's name stays below the folder it is put into."""
    parts = name.split("/")
    return (
        name.isprintable() and "\\" not in name and not {"", ".", ".."} & set(parts) and ":" not in parts[0]
    )


def bring_home(root: Path, folder: Path) -> None:
    """Fetch the files of a finished step that were left in the repo of a run by jobs; nothing if none were.

    Raises InputError where that repo does not have them any longer, or has others.
    """
    note = folder / ELSEWHERE
    if not note.is_file():
        return
    told, record = json.loads(note.read_text(encoding="utf-8")), Record.read(folder)
    place = f"steps/{place_of(record.step, record.key)}"
    into = root / "tmp" / f"{record.key[:16]}-home"
    missing = [e for e in record.files if e.path in told["files"] and not (folder / e.path).is_file()]
    failed = ""
    try:
        RunRepo(default_access(), told["dataset"]).fetch([f"{place}/{e.path}" for e in missing], into)
        for entry in missing:
            made = into / place / entry.path
            if digest_file(made) != entry.sha256:
                failed = f"{entry.path} there is another file"
                break
            (folder / entry.path).parent.mkdir(parents=True, exist_ok=True)
            made.replace(folder / entry.path)
    except HubError as error:
        failed = error.message
    finally:
        shutil.rmtree(into, ignore_errors=True)
    if failed:
        raise InputError(
            f"files of {record.step} were left in the dataset {told['dataset']}: {failed}",
            f"delete {folder} and run again: it is made anew",
        )
    note.unlink()


def portable(call: StepCall) -> tuple[StepCall, dict[str, Path]]:
    """Returns the call with paths in the run's repo instead of this machine's, and the files beside the recipe by
    these paths."""
    beside: dict[str, Path] = {}

    def place(name: str, path: Path) -> Path:
        to = Path("files") / call.inputs[f"model:{name}"][:32]
        to = to if path.is_dir() else to / path.name
        beside[to.as_posix()] = path
        return to

    folders = {name: path.relative_to(call.root) for name, path in call.folders.items()}
    paths = {name: place(name, path) for name, path in call.paths.items()}
    models = {
        name: model | {"model": place(name, Path(model["model"])).as_posix()}
        if Path(model["model"]).is_absolute()
        else model
        for name, model in call.models.items()
    }
    return replace(call, folders=folders, paths=paths, models=models, root=Path()), beside


class RunRepo:
    """One run's repo. Every method raises HubError."""

    def __init__(self, access: Access, name: str) -> None:
        self.access, self.name = access, name
        self._api = access.api()

    def create(self) -> None:
        """Make the repo if there is none. Raises HubError if it is public or not a run's repo."""
        self._ask(
            "create",
            lambda: self._api.create_repo(self.name, repo_type="dataset", private=True, exist_ok=True),
        )
        info: Any = self._ask("look up", lambda: self._api.repo_info(self.name, repo_type="dataset"))
        if not info.private:
            raise HubError(
                f"dataset {self.name} is public", "make it private: it holds what a run has not published"
            )
        there = {sibling.rfilename for sibling in info.siblings or []}
        if RECIPE not in there and any(not name.startswith(".") for name in there):
            raise HubError(
                f"dataset {self.name} exists and does not belong to a run",
                "change the recipe's name or hub.namespace",
            )

    def commit_recipe(
        self, message: str, recipe: str, add: Mapping[str, Path | bytes], stale: set[str]
    ) -> str:
        """Add what steps need, beside the recipe that they are of."""
        return self.commit(message, {RECIPE: recipe.encode(), "README.md": _CARD, **add}, stale.__contains__)

    def files(self, revision: str | None = None) -> set[str]:
        """Names of all files at a commit; None: at the newest."""
        listed = self._ask(
            "list", lambda: self._api.list_repo_files(self.name, repo_type="dataset", revision=revision)
        )
        return set(listed)

    def commit(
        self,
        message: str,
        add: Mapping[str, Path | bytes],
        stale: Callable[[str], bool] = lambda name: False,
    ) -> str:
        """Add files, and delete those others that `stale` names, in one commit. Returns the newest commit."""
        from huggingface_hub import CommitOperationDelete

        def commit() -> str:
            gone = sorted(name for name in self.files() - add.keys() if stale(name))
            operations: list[Any] = additions(add)
            operations += [CommitOperationDelete(name, is_folder=False) for name in gone]
            done = self._api.create_commit(self.name, operations, commit_message=message, repo_type="dataset")
            return str(done.oid)

        return self._ask("commit to", commit)

    def fetch(self, names: Iterable[str], into: Path, revision: str | None = None) -> None:
        """Download files to their places below a folder. None: from the newest commit."""
        from huggingface_hub import hf_hub_download

        wanted = sorted(names)
        if bad := [name for name in wanted if not is_plain(name)]:
            raise HubError(f"dataset {self.name} has a file {bad[0]!r}", "delete it")

        def fetch(name: str) -> str:
            return self._ask(
                f"download {name} of",
                lambda: hf_hub_download(
                    self.name,
                    name,
                    repo_type="dataset",
                    revision=revision,
                    local_dir=into,
                    endpoint=self.access.endpoint,
                    token=self.access.token or False,
                ),
            )

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(fetch, wanted))
        shutil.rmtree(into / ".cache", ignore_errors=True)  # the client's notes on what it fetched

    def fetch_folders(self, folders: Iterable[str], into: Path, revision: str | None = None) -> int:
        """Download all files below folders of the repo. Returns how many."""
        wanted, there = tuple(f"{folder}/" for folder in folders), self.files(revision)
        names = [name for name in there if name.startswith(wanted)]
        self.fetch(names, into, revision)
        return len(names)

    def _ask(self, what: str, call: Callable[[], T]) -> T:
        return attempt(self.access, f"{what} dataset {self.name}", call)
