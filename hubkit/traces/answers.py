"""Answers that were paid for, found again by later steps: of other shards, problems or recipes in the same folder.

    runs/nano/answers/5f1c0a…/     one folder per model: what its weights or commit are decides the name
        9be2…-journal.sqlite       the journal of a step that ended, moved here; it never changes again
        77d0…-journal.sqlite.part  a copy of one that was killed, until its step goes on and ends

A request is known by its hash: messages, sampling and seed. The seed is made of the recipe's, the problem's id, the
sample and the attempt, so a request stays the same whatever problems, samples or shards are added around it.
Nothing is copied: a later journal only notes in which file an answer stands.

Files come by renaming and are never written to again, so any number of processes may read them. Two steps that ask
the same at the same time do not see each other, and both pay. Answers of one model through different servers are
taken for the same, as they are within a step; delete the folder to ask anew.
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
from hubkit.errors import BusyError, InputError
from hubkit.store import exclusive

__all__ = ["Answers", "Wanted", "address", "pack", "unpack"]

Place = tuple[str, int, int]
"""Problem id, sample, attempt."""
TABLES: Final = """
CREATE TEMP TABLE IF NOT EXISTS wanted (request TEXT PRIMARY KEY, id, sample, attempt) WITHOUT ROWID;
CREATE TEMP TABLE IF NOT EXISTS found (
    id, sample, attempt, request TEXT, file INTEGER, response INTEGER, PRIMARY KEY (id, sample, attempt)
) WITHOUT ROWID;
"""
# The file's rows outside, for each a look at the primary key of what is wanted: once through every file.
FIND: Final = """
INSERT OR IGNORE INTO temp.found
SELECT wanted.id, wanted.sample, wanted.attempt, wanted.request, ?, old.response
FROM old.requests AS old CROSS JOIN temp.wanted AS wanted ON wanted.request = old.request WHERE NOT old.failed
"""


class Answers:
    """The answers of one model in a run's folder. `own` is the work folder of the step that looks for them."""

    def __init__(self, root: Path, model: str, own: Path | None = None) -> None:
        """`model` is the digest of its weights, or its commit."""
        self._root = root
        self._own = own
        self.model = model
        self.folder = root / "answers" / hashlib.sha256(model.encode()).hexdigest()[:16]

    def files(self) -> list[Path]:
        """All files of answers, those of ended steps first."""
        return sorted(self.folder.glob("*.sqlite")) + sorted(self.folder.glob("*.sqlite.part"))

    def collect(self) -> None:
        """Copy the journals of steps that were killed and are not at work again. They stay where they are."""
        for journal in sorted((self._root / "work").rglob("*.sqlite")):
            if journal.parent == self._own:
                continue
            name = f"{journal.parent.name}-{journal.name}.part"
            with suppress(BusyError, sqlite3.Error), exclusive(self._lock(journal.parent.name), name):
                self._copy(journal, self.folder / name)

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
        """Whether there are answers to look among, those in steps under way included."""
        return bool(self.files()) or any((self._root / "work").rglob("*.sqlite"))

    def count(self, requests: Iterable[tuple[Place, str]]) -> int:
        """How many of these (place, request's hash) are answered, those in steps under way included.

        Writes nothing. What a step under way has not yet put into its journal's main file is not seen.
        """
        files = self.files()
        under_way = list((self._root / "work").rglob("*.sqlite"))
        if not files and not under_way:
            return 0
        with closing(sqlite3.connect("", isolation_level=None, uri=True)) as db:
            wanted = Wanted(db)
            wanted.want(requests)
            for file in files:
                wanted.find(file, self.model)
            for file in under_way:
                with suppress(InputError):
                    wanted.find(file, self.model)
            return wanted.found


class Wanted:
    """Requests in a temporary table of a database, and where their answers stand."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.files: list[Path] = []
        """By the numbers in `found`."""
        db.executescript(TABLES)

    def want(self, requests: Iterable[tuple[Place, str]]) -> int:
        """Look for these from now on. Returns their number."""
        self._db.execute("DELETE FROM wanted")
        self._db.execute("BEGIN")
        rows = ((hashed, *place) for place, hashed in requests)
        self._db.executemany("INSERT OR IGNORE INTO wanted VALUES (?, ?, ?, ?)", rows)
        self._db.execute("COMMIT")
        return int(self._db.execute("SELECT count(*) FROM wanted").fetchone()[0])

    @property
    def found(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM found").fetchone()[0])

    def find(self, file: Path, model: str) -> int:
        """Note which requests this file answers; returns how many. Raises InputError when it is damaged."""
        if file not in self.files:
            self.files.append(file)
        try:
            # What is written to it meanwhile is not looked at: no lock, and none that could stop a writer.
            self._db.execute("ATTACH ? AS old", (address(file),))
            try:
                if (self._db.execute("SELECT model FROM old.about").fetchone() or ("",))[0] != model:
                    return 0
                return self._db.execute(FIND, (self.files.index(file),)).rowcount
            finally:
                self._db.execute("DETACH old")
        except sqlite3.Error as error:
            raise InputError(f"{file.name} of the answers is damaged: {error}", f"remove {file}") from error

    def place(self, key: Place) -> tuple[str, int, int] | None:
        """(hash, number of the file, number of the response in it) of an answer; None if there is none."""
        row: tuple[str, int, int] | None = self._db.execute(
            "SELECT request, file, response FROM found WHERE id = ? AND sample = ? AND attempt = ?", key
        ).fetchone()
        return row

    def forget(self, file: Path) -> None:
        """The file has gone meanwhile: what it answered is wanted again."""
        self._db.execute("DELETE FROM found WHERE file = ?", (self.files.index(file),))


def address(file: Path) -> str:
    """How SQLite opens a file of which it changes nothing."""
    return f"{file.absolute().as_uri()}?mode=ro&immutable=1"


def pack(response: Response, token_ids: bool) -> bytes:
    """JSON of what is not as always, compressed; four bytes before it say how long it is without."""
    left_out = {"key"} if token_ids else {"key", "token_ids"}
    values = {name: value for name, value in vars(response).items() if value and name not in left_out}
    text = json.dumps(values).encode()
    packed: bytes = _codec().compress(text, asbytes=True)
    return len(text).to_bytes(4, "big") + packed


def unpack(packed: bytes | str, key: str) -> Response:
    """Raises InputError for what is no response. Journals of earlier versions hold text."""
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
