"""The journal of generation: every finished response is kept at once, and none is asked for twice.

A SQLite file in the step's work folder, one row per (problem id, sample, attempt). After a kill at any
byte the rows committed before are there, whole; only requests in flight are sent again. The step's
Parquet output is written from it in a fixed order at the end.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from hubkit.config import EngineRuntime
from hubkit.engines import Engine, Request, Response, open_engine
from hubkit.errors import EngineError, InputError, StepError
from hubkit.store import StepContext, digest

__all__ = ["Journal", "Key", "answer", "request_hash", "request_seed", "step_engine"]

BATCH: Final = 32
"""Responses per commit, or one second's worth: what a kill can cost."""


class Key(NamedTuple):
    """Of one response: the `attempt`-th answer to one sample of one problem."""

    id: str
    sample: int
    attempt: int = 0

    @property
    def text(self) -> str:
        return json.dumps(self)


class Journal:
    """Finished responses by key. Raises InputError when it was begun under another fingerprint."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        try:
            # WAL with synchronous=NORMAL: a kill loses nothing; a power cut may lose the last commits,
            # which are then generated again, but never tears the file.
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("CREATE TABLE IF NOT EXISTS meta (fingerprint TEXT)")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS responses (id TEXT, sample INTEGER, attempt INTEGER, request TEXT,"
                " response TEXT, PRIMARY KEY (id, sample, attempt)) WITHOUT ROWID"
            )
            found = self._db.execute("SELECT fingerprint FROM meta").fetchone()
            if found is None:
                self._db.execute("INSERT INTO meta VALUES (?)", (fingerprint,))
        except sqlite3.Error as error:
            raise _storage_error(error) from error
        if found is not None and found[0] != fingerprint:
            self._db.close()
            raise InputError(f"{path} belongs to another configuration", "remove it, or restore the recipe")
        self._pending: list[tuple[str, int, int, str, str]] = []
        self._committed = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.commit()
        finally:
            self._db.close()

    def add(self, key: Key, request: str, response: Response) -> None:
        """Keep a response; it is on disk after at most BATCH others or the next `commit`."""
        self._pending.append((*key, request, json.dumps(dataclasses.asdict(response), ensure_ascii=False)))
        if len(self._pending) >= BATCH or time.monotonic() - self._committed > 1:
            self.commit()

    def commit(self) -> None:
        """Put what is pending on disk. Raises StepError when the disk is full or read-only."""
        try:
            self._db.execute("BEGIN")
            self._db.executemany("INSERT OR IGNORE INTO responses VALUES (?, ?, ?, ?, ?)", self._pending)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise _storage_error(error) from error
        self._pending.clear()
        self._committed = time.monotonic()

    def get(self, key: Key, request: str) -> Response | None:
        """The response to this very request, if it is finished."""
        row = self._db.execute(
            "SELECT request, response FROM responses WHERE id = ? AND sample = ? AND attempt = ?", key
        ).fetchone()
        if row is None:
            return None
        if row[0] != request:
            raise InputError(f"the journal holds another request for {key}", "remove the step's work folder")
        return Response(**json.loads(row[1]))


def _storage_error(error: sqlite3.Error) -> StepError:
    return StepError(
        f"the journal cannot be written: {error}", "free some space and run again; nothing is lost"
    )


def request_hash(request: Request) -> str:
    """Of all that decides an answer besides the model, which the fingerprint holds."""
    return digest([request.messages, request.sampling.model_dump(), request.seed])[:16]


def request_seed(seed: int, key: Key) -> int:
    """A seed of its own for every response, the same in every run: 63 bits of a hash."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{key.text}".encode()).digest()[:8], "big") >> 1


def step_engine(context: StepContext, model: str) -> Engine:
    """The engine of a step's model. A model that a server holds is not downloaded."""
    runtime = EngineRuntime(**context.runtime["engine"])
    folder = Path(context.models[model]["model"]) if runtime.engine == "openai" else context.model(model)
    return open_engine(folder, runtime, context.runtime["device"], context.runtime["threads"])


def answer(
    context: StepContext,
    engine: Engine,
    journal: Journal,
    requests: Iterable[tuple[Key, Request]],
    total: int,
    done: int = 0,
    on_response: Callable[[Response], None] | None = None,
) -> None:
    """Answer what the journal does not hold yet, and keep each response as it comes.

    `total` and `done` are for the progress: responses wanted, and had before this call.
    """
    asked: dict[str, tuple[Key, str]] = {}
    started, tokens = time.monotonic(), 0

    def wanted() -> Iterable[Request]:
        nonlocal done
        for key, request in requests:
            hashed = request_hash(request)
            if journal.get(key, hashed) is not None:
                done += 1
                context.progress(done, total)
            else:
                asked[request.key] = (key, hashed)
                yield request

    async def drain() -> None:
        nonlocal done, tokens
        async for response in engine.stream(wanted()):
            if response.key not in asked:
                raise EngineError(
                    f"an answer to nothing that was asked: {response.key!r}", "restart the server"
                )
            key, hashed = asked.pop(response.key)
            if on_response:
                on_response(response)
            journal.add(key, hashed, response)
            done += 1
            tokens += response.completion_tokens
            rate = tokens / max(1e-9, time.monotonic() - started)
            context.progress(done, total, tokens_per_s=round(rate))

    asyncio.run(drain())
    journal.commit()
    if tokens:
        context.metrics["tokens_per_second"] = round(tokens / (time.monotonic() - started), 1)
