"""Earlier answers, found again by later steps with other shards, problems or recipes in the same runs folder.

    runs/nano/answers/5f1c0a…/     one folder per model: what its weights or commit are decides the name
        9be2…-journal.sqlite       the journal of a step that ended, moved here; it never changes again
        77d0…-journal.sqlite.part  a copy of one that was killed, until its step goes on and ends

A request is identified by the hash of its messages, sampling and seed. The seed is derived from the recipe's seed, the
problem's id, the sample and the attempt, so a request stays the same when problems, samples or shards are added.
Nothing is copied: a later journal only notes which file has an answer.

Files appear by renaming and are never written again, so any number of processes may read them. Two steps that ask
the same at the same time do not see each other, and both pay. Answers of one model from different servers count as the
same, as they do within a step; delete the folder to ask again.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

from hubkit.engines import Response
from hubkit.errors import BusyError, HubkitError, InputError, StepError
from hubkit.store import exclusive

__all__ = ["Answers", "Known", "pack", "unpack"]

KNOWN: Final = """
CREATE TEMP TABLE known (request TEXT PRIMARY KEY, file INTEGER, response INTEGER) WITHOUT ROWID;
PRAGMA temp.cache_size = -65536;
"""
"""Size of the index that stays in memory; a million answers take 60 MB, and a larger index is on disk."""


class Answers:
    """The answers of one model in a runs folder. `own` is the work folder of the step that looks for them."""

    def __init__(self, root: Path, model: str, own: Path | None = None) -> None:
        """`model` is the digest of its weights, or its commit."""
        self._root = root
        self._own = own
        self.model = model
        self.folder = root / "answers" / hashlib.sha256(model.encode()).hexdigest()[:16]

    def files(self) -> list[Path]:
        """Returns all files of answers, those of finished steps first."""
        return sorted(self.folder.glob("*.sqlite")) + sorted(self.folder.glob("*.sqlite.part"))

    def collect(self) -> None:
        """Copy the journals of killed steps that are not running again. The originals stay."""
        for journal in self._journals():
            if journal.parent == self._own:
                continue
            name = f"{journal.parent.name}-{journal.name}.part"
            with suppress(BusyError, sqlite3.Error), exclusive(self._lock(journal.parent.name), name):
                self._copy(journal, self.folder / name)

    def _journals(self) -> list[Path]:
        """Returns those of steps that run or were killed. Folders of a step that ends meanwhile may go: unlike rglob,
        walk passes over them."""
        walk = os.walk(self._root / "work")
        return sorted(
            Path(folder, name) for folder, _, names in walk for name in names if name.endswith(".sqlite")
        )

    def _lock(self, key: str) -> Path:
        return self._root / "locks" / f"{key}.lock"

    def _copy(self, journal: Path, to: Path) -> None:
        changed = max(
            (file.stat().st_mtime for file in (journal, Path(f"{journal}-wal")) if file.exists()), default=0.0
        )
        if to.exists() and to.stat().st_mtime >= changed:
            return
        with closing(sqlite3.connect(journal, isolation_level=None, timeout=0)) as db:
            db.execute("PRAGMA locking_mode=EXCLUSIVE")
            (model,) = db.execute("SELECT model FROM about").fetchone() or ("",)
            if model != self.model:
                return
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = to.with_name(f"{to.name}.{os.getpid()}.tmp")
            temporary.unlink(missing_ok=True)
            db.execute("VACUUM INTO ?", (str(temporary),))
        temporary.replace(to)

    def keep(self, journal: Path) -> None:
        """Move a closed journal here. A copy of an earlier state of it is no longer needed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        name, number = f"{journal.parent.name}-{journal.stem}", 1
        while (to := self.folder / f"{name}{f'-{number}' if number > 1 else ''}.sqlite").exists():
            number += 1
        try:
            journal.rename(to)
        except OSError:  # the work folder is on another disk
            temporary = to.with_name(f"{to.name}.{os.getpid()}.tmp")
            shutil.copyfile(journal, temporary)
            temporary.replace(to)
        (self.folder / f"{journal.parent.name}-{journal.name}.part").unlink(missing_ok=True)

    def any(self) -> bool:
        """Whether there are any answers, including those of running steps."""
        return bool(self.files() or self._journals())

    def count(self, requests: Iterable[str]) -> int:
        """Returns how many of these requests, given by hashes, are answered, including those of running steps.

        Writes nothing. Answers that a running step has not yet put into its journal's main file are not seen.
        """
        files = self.files()
        under_way = self._journals()
        if not files and not under_way:
            return 0
        with (
            closing(sqlite3.connect("", isolation_level=None)) as db,
            closing(Known(db, self.model)) as known,
        ):
            for file in files:
                known.read(file)
            for file in under_way:
                with suppress(InputError):
                    known.read(file)
            return sum(request in known for request in requests)


class Known:
    """The requests and answers in the files of a model, indexed in a temporary table of a database.

    The requests' hashes are read once from each file, so that a lookup does not scan the files.
    """

    def __init__(self, db: sqlite3.Connection, model: str) -> None:
        self._db, self._model = db, model
        self._files: list[sqlite3.Connection] = []
        self._read: set[tuple[Path, int]] = set()
        """Files and their times: the file of a step that was killed again counts as another file."""
        db.executescript(KNOWN)

    def read(self, file: Path) -> None:
        """Add a file, once. Raises InputError if it is damaged."""
        try:
            state = file, file.stat().st_mtime_ns
        except FileNotFoundError:  # the step of which it was a copy has ended meanwhile
            return
        if state in self._read:
            return
        self._read.add(state)
        # Later writes to it are ignored, so no lock is needed that could stop a writer.
        try:
            old = sqlite3.connect(address(file), uri=True)
        except sqlite3.Error as error:
            raise _damaged(file, error) from error
        self._files.append(old)
        number = len(self._files) - 1
        try:
            old.execute("PRAGMA cache_size = -256")
            if (old.execute("SELECT model FROM about").fetchone() or ("",))[0] != self._model:
                return
            # In the order of the table that they go into, which is three times as quick.
            rows = old.execute("SELECT request, response FROM requests WHERE NOT failed ORDER BY request")
            self._db.execute("BEGIN")
            self._db.executemany(
                "INSERT OR IGNORE INTO known VALUES (?, ?, ?)",
                ((request, number, at) for request, at in rows),
            )
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise _damaged(file, error) from error

    def __contains__(self, request: str) -> bool:
        return self._place(request) is not None

    def get(self, request: str) -> bytes | str | None:
        """Returns the packed answer to a request. Returns None if there is none. Raises InputError if its file is
        damaged."""
        place = self._place(request)
        if place is None:
            return None
        try:
            found: tuple[bytes | str] | None = (
                self._files[place[0]]
                .execute("SELECT response FROM responses WHERE number = ?", place[1:])
                .fetchone()
            )
        except sqlite3.Error as error:
            raise InputError(
                f"an answer is damaged: {error}", "remove the folder `answers` of the run's folder"
            ) from error
        return found[0] if found else None

    def _place(self, request: str) -> tuple[int, int] | None:
        """Number of the file, and of the response in it."""
        row: tuple[int, int] | None = self._db.execute(
            "SELECT file, response FROM known WHERE request = ?", (request,)
        ).fetchone()
        return row

    def close(self) -> None:
        for file in self._files:
            file.close()


def _damaged(file: Path, error: sqlite3.Error) -> HubkitError:
    if getattr(error, "sqlite_errorname", "").startswith(("SQLITE_FULL", "SQLITE_IOERR")):
        return StepError(f"answers cannot be looked up: {error}", "make room on the disk, and run again")
    return InputError(f"{file.name} of the answers is damaged: {error}", f"remove {file}")


def address(file: Path) -> str:
    """Returns the address with which SQLite opens a file read-only."""
    return f"{file.absolute().as_uri()}?mode=ro&immutable=1"


def pack(response: Response) -> bytes:
    """Returns compressed JSON of the fields without their defaults, after four bytes with the uncompressed length.

    Token ids, which would be two thirds of it, are left out."""
    left_out = ("key", "token_ids")
    values = {name: value for name, value in vars(response).items() if value and name not in left_out}
    text = json.dumps(values).encode()
    packed: bytes = _codec().compress(text, asbytes=True)
    return len(text).to_bytes(4, "big") + packed


def unpack(packed: bytes | str, key: str) -> Response:
    """Returns the response. Raises InputError if it is damaged. Journals of earlier versions have text."""
    try:
        if isinstance(packed, str):
            return Response(**json.loads(packed))
        text = _codec().decompress(packed[4:], int.from_bytes(packed[:4], "big"), asbytes=True)
        return Response(**{"key": key, "text": "", "finish_reason": "stop"} | json.loads(text))
    except (ValueError, TypeError, OSError) as error:
        raise InputError(
            f"the answer to {key} is damaged: {error}", "remove the step's work folder"
        ) from error


@functools.cache
def _codec() -> Any:
    import pyarrow as pa

    return pa.Codec("zstd", compression_level=3)
