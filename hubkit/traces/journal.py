"""The journal of generation: every finished response is kept at once, and no request is sent again.

It is a SQLite file in the step's work folder, with one row per (problem id, sample, attempt). After a kill at any
moment the committed rows are complete; only requests in flight are sent again, and those that came back as errors. At
the end the step's Parquet output is written from it in a fixed order; then the file moves to the answers of its model
(`answers.py`), where later steps find them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from hubkit.engines import Engine, Request, Response, choose, open_engine
from hubkit.engines.budget import Budget, Spent
from hubkit.engines.settings import EngineRuntime
from hubkit.errors import BusyError, EngineError, HubkitError, InputError, StepError
from hubkit.section import Sampling
from hubkit.store import StepContext
from hubkit.traces.answers import Answers, Known, pack, unpack

__all__ = ["Journal", "Key", "answer", "request_hash", "request_seed", "step_engine", "step_journal"]

BATCH: Final = 32
COMMIT_S: Final = 1.0
"""Responses per commit, or those of one second: a kill loses at most these."""
# Keys and answers are in separate tables: looking up a million keys must not read gigabytes of text.
TABLES: Final = """
CREATE TABLE IF NOT EXISTS meta (fingerprint TEXT);
CREATE TABLE IF NOT EXISTS about (model TEXT);
CREATE TABLE IF NOT EXISTS requests (
    id TEXT, sample INTEGER, attempt INTEGER, request TEXT, failed INTEGER,
    prompt_tokens INTEGER, completion_tokens INTEGER, uncounted_tokens INTEGER, response INTEGER,
    PRIMARY KEY (id, sample, attempt)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS responses (number INTEGER PRIMARY KEY, response TEXT);
"""
# An existing response stays, unless it was an error that was asked again; its tokens were spent all the same.
KEEP: Final = """
INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET
    failed = excluded.failed, prompt_tokens = prompt_tokens + excluded.prompt_tokens,
    completion_tokens = completion_tokens + excluded.completion_tokens,
    uncounted_tokens = uncounted_tokens + excluded.uncounted_tokens, response = excluded.response
WHERE failed
"""


class Key(NamedTuple):
    """Key of one response: the `attempt`-th answer to one sample of one problem."""

    id: str
    sample: int
    attempt: int = 0

    @property
    def text(self) -> str:
        return _json(self)


class Journal:
    """Finished responses by key, with those of earlier steps in `answers`, whose folder it moves to at the end.

    Raises InputError if it was begun with another fingerprint, BusyError if another process has it open.
    """

    def __init__(self, path: Path, fingerprint: str, answers: Answers | None = None) -> None:
        try:
            # WAL with synchronous=NORMAL: a kill loses nothing; a power cut may lose the last commits,
            # which are then generated again, but never tears the file. The lock goes with the process.
            self._db = sqlite3.connect(path, isolation_level=None, timeout=0, uri=True)
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(TABLES)
            found = self._db.execute("SELECT fingerprint FROM meta").fetchone()
            if found is None:
                self._db.execute("INSERT INTO meta VALUES (?)", (fingerprint,))
            if answers and self._db.execute("SELECT model FROM about").fetchone() is None:
                self._db.execute("INSERT INTO about VALUES (?)", (answers.model,))
            (last,) = self._db.execute("SELECT max(number) FROM responses").fetchone()
        except sqlite3.Error as error:
            raise _storage_error(error) from error
        if found is not None and found[0] != fingerprint:
            self._db.close()
            raise InputError(
                f"{path.name} belongs to another configuration", f"remove {path}, or restore the recipe"
            )
        self._path, self._answers = path, answers
        self._known: Known | None = None
        self._next = (last or 0) + 1
        self._pending: list[tuple[Key, str, Response]] = []
        self._committed = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # The error that stopped the work is raised, not the one of a disk that is still full.
            with contextlib.suppress(HubkitError) if error is not None else contextlib.nullcontext():
                self.commit()
                if error is None:
                    self._keep()
        finally:
            self._db.close()
            if self._known:
                self._known.close()

    def _keep(self) -> None:
        """Move the answers to where later steps find them: the step is done, and its work folder will be removed."""
        if self._answers is None or self._row("SELECT 1 FROM requests WHERE NOT failed LIMIT 1") is None:
            return
        try:
            self._db.execute("PRAGMA journal_mode=DELETE")  # one file, without the log beside it
            self._db.close()
            self._answers.keep(self._path)
        except (sqlite3.Error, OSError) as error:
            raise StepError(
                f"the answers cannot be kept: {error}", "make room on the disk, and run again"
            ) from error

    def left(self, requests: Iterable[tuple[Key, Request]]) -> bool:
        """Returns whether a request is unanswered. Answers of earlier steps are looked up first."""
        if self._answers is not None:
            self._answers.collect()
            for file in self._answers.files():
                self._known = self._known or Known(self._db, self._answers.model)
                self._known.read(file)
        return not all(self.has(key, request_hash(request)) for key, request in requests)

    def add(self, key: Key, request: str, response: Response) -> None:
        """Keep a response; it is on disk after at most BATCH others or the next `commit`."""
        self._pending.append((key, request, response))
        if len(self._pending) >= BATCH or time.monotonic() - self._committed > COMMIT_S:
            self.commit()

    def commit(self) -> None:
        """Write pending responses to disk. Raises StepError if that fails, and keeps them for another try."""
        if not self._pending:
            return
        keys, texts = [], []
        for number, (key, request, response) in enumerate(self._pending, self._next):
            failed = response.finish_reason == "error"
            tokens = (response.prompt_tokens, response.completion_tokens, response.uncounted_tokens)
            keys.append((*key, request, failed, *tokens, number))
            texts.append((number, pack(response)))
        try:
            self._db.execute("BEGIN")
            self._db.executemany("INSERT INTO responses VALUES (?, ?)", texts)
            self._db.executemany(KEEP, keys)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise _storage_error(error) from error
        self._next += len(self._pending)
        self._pending.clear()
        self._committed = time.monotonic()

    def try_commit(self) -> None:
        """Commit by the clock, because the next response may be an hour away, which then raises any error."""
        with contextlib.suppress(HubkitError):
            self.commit()

    def get(self, key: Key, request: str) -> Response | None:
        """Returns the response to exactly this request, which may be an error. Returns None if there is none."""
        row = self._row(
            "SELECT request, responses.response FROM requests JOIN responses ON number = requests.response"
            " WHERE id = ? AND sample = ? AND attempt = ?",
            key,
        )
        if row is not None:
            _check(key, row[0], request)
            return unpack(row[1], key.text)
        packed = self._known.get(request) if self._known else None
        return None if packed is None else unpack(packed, key.text)

    def has(self, key: Key, request: str) -> bool:
        """Returns whether exactly this request is answered, here or earlier, and not by an error."""
        row = self._row(
            "SELECT request, failed FROM requests WHERE id = ? AND sample = ? AND attempt = ?", key
        )
        if row is None:
            return self._known is not None and request in self._known
        _check(key, row[0], request)
        return not row[1]

    def spent(self) -> Spent:
        """Returns the tokens of all responses so far, including errors."""
        row = self._row(
            "SELECT total(prompt_tokens), total(completion_tokens), total(uncounted_tokens) FROM requests"
        )
        assert row is not None  # aggregates always give one
        return Spent(*map(int, row))

    def _row(self, query: str, values: tuple[object, ...] = ()) -> tuple[Any, ...] | None:
        try:
            row: tuple[Any, ...] | None = self._db.execute(query, values).fetchone()
            return row
        except sqlite3.Error as error:
            raise _storage_error(error) from error


def _check(key: Key, found: str, request: str) -> None:
    if found != request:
        raise InputError(f"the journal holds another request for {key}", "remove the step's work folder")


def _storage_error(error: sqlite3.Error) -> HubkitError:
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return BusyError("another process is at work on this journal", "wait for it, or stop it")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return InputError(f"the journal is damaged: {error}", "remove the step's work folder")
    return StepError(
        f"the journal cannot be written: {error}",
        "make room on the disk, or let it be written to, and run again; what was finished is kept",
    )


def request_hash(request: Request) -> str:
    """Returns the hash of everything that decides an answer besides the model, which is in the fingerprint."""
    text = f"{_sampling(request.sampling)}{request.seed}{_json(request.messages)}"
    if request.template:
        text += _json(request.template)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


_json: Final = json.JSONEncoder().encode
"""ASCII, so half a surrogate pair is no error; json.dumps with an option would take twice the time, which a
million requests notice."""


@functools.lru_cache(maxsize=16)
def _sampling(sampling: Sampling) -> str:
    return sampling.model_dump_json()


def request_seed(seed: int, key: Key) -> int:
    """Returns a seed for each response, the same in every run: 63 bits of a hash."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{key.text}".encode()).digest()[:8], "big") >> 1


def step_journal(context: StepContext, model: str, name: str, fingerprint: str) -> Journal:
    """Returns the journal of a step's requests to a model, which also finds answers of earlier steps."""
    digest = context.models[model].get("digest", "")
    answers = Answers(context.root, digest, context.work) if context.root and digest else None
    return Journal(context.work / name, fingerprint, answers)


def step_engine(context: StepContext, model: str, prefix: str = "") -> Engine:
    """Returns the engine of a step's model. A model behind an endpoint is not downloaded.

    `prefix` as for `answer`.
    """
    runtime = choose(EngineRuntime(**context.runtime[f"{prefix}engine"]), context.runtime["device"])
    context.runtime[f"{prefix}engine"] = runtime.model_dump(mode="json")  # the record says which one it was
    folder = Path(context.models[model]["model"]) if runtime.engine == "openai" else context.model(model)
    marks = None if prefix else context.config.get("thinking")
    return open_engine(
        folder,
        runtime,
        context.runtime["device"],
        context.runtime["threads"],
        precision=context.runtime.get("precision", "auto"),
        marks=(marks["open"], marks["close"]) if marks else (),
    )


def answer(
    context: StepContext,
    engine: Engine,
    journal: Journal,
    requests: Iterable[tuple[Key, Request]],
    total: int,
    done: int = 0,
    on_response: Callable[[Response], None] | None = None,
    prefix: str = "",
) -> None:
    """Answer the requests that the journal does not have yet, and keep each response as it comes.

    `total` and `done` are for the progress: all responses, and those before this call. `prefix` begins the names of
    the engine's settings and metrics if a step has two engines. Raises EngineError if the next request could exceed the
    engine's budget.
    """
    asked: dict[str, tuple[Key, str]] = {}
    started, tokens, prompts, failed, answered = time.monotonic(), 0, 0, 0, 0
    runtime = EngineRuntime(**context.runtime[f"{prefix}engine"])
    budget = Budget(runtime, context.config.get("shard", (0, 1))[1])
    budget.add(journal.spent())

    def missing() -> Iterator[tuple[Key, str, Request]]:
        nonlocal done
        for key, request in requests:
            hashed = request_hash(request)
            if journal.has(key, hashed):
                done += 1
                context.progress(done, total)
            else:
                yield key, hashed, request

    waiting = missing()
    following = next(waiting, None)

    def affordable() -> Iterator[Request]:
        nonlocal following
        while following is not None and budget.reserve(following[2]):
            key, hashed, request = following
            asked[request.key] = (key, hashed)
            yield request
            following = next(waiting, None)

    async def drain() -> None:
        nonlocal done, tokens, prompts, failed, answered
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle | None = None
        async with contextlib.aclosing(engine.stream(affordable())) as responses:
            async for response in responses:
                if response.key not in asked:
                    raise EngineError(
                        f"a response has an unknown request key: {response.key!r}", "restart the server"
                    )
                key, hashed = asked.pop(response.key)
                journal.add(key, hashed, response)
                if on_response:
                    on_response(response)
                budget.settle(response)
                if timer is None or timer.when() < loop.time():
                    timer = loop.call_later(COMMIT_S, journal.try_commit)
                done += 1
                answered += 1
                failed += response.finish_reason == "error"
                tokens += response.completion_tokens
                prompts += response.prompt_tokens
                seconds = max(1e-9, time.monotonic() - started)
                context.progress(
                    done,
                    total,
                    tokens_per_s=round(tokens / seconds),
                    prompt_tokens_per_s=round(prompts / seconds),
                    in_flight=len(asked),
                    failed=failed,
                    left_s=round((total - done) * seconds / answered),
                )

    while following is not None:
        left = following
        asyncio.run(drain())
        # All requests under way have ended, and cost less than their upper bounds: the rest may fit now.
        if following is left:
            raise budget.reached()
    journal.commit()
    if engine.precision:
        context.metrics[f"{prefix}precision"] = engine.precision
    if engine.notes:
        context.metrics[f"{prefix}sent_otherwise"] = list(engine.notes)
    if tokens:
        context.metrics[f"{prefix}tokens_per_second"] = round(tokens / (time.monotonic() - started), 1)
