"""Any OpenAI-compatible endpoint: vLLM, SGLang, TGI, inference providers, hosted APIs.

A bounded window of requests is in flight and refilled one by one, so that a long answer never holds
back the rest. Temporary failures (408, 429, 5xx, broken connections, replies that cannot be read) are tried again
with backoff and jitter; meanwhile another request takes the place in the window. After `tries` failures, or at its
deadline, a request comes back as an error response; after any other refusal it does so at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import sys
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import aiohttp

from hubkit.engines.base import Request, Response, token_bound
from hubkit.engines.endpoints import Endpoint, Endpoints, wished_pause
from hubkit.engines.replies import Refused, response_of
from hubkit.engines.settings import EngineRuntime
from hubkit.errors import EngineError

__all__ = ["OpenAIEngine"]

RETRIED: Final = {408, 409, 425, 429, 500, 502, 503, 504, *range(520, 531), 598, 599}
"""520 to 530 and 598, 599 come from proxies: Cloudflare's own statuses, and timeouts."""
OVERLOADED: Final = {429, 529}
BACKOFF_S: Final = 0.5
LONGEST_BACKOFF_S: Final = 30.0
BROKEN_AFTER: Final = 20
"""A run stops when this many requests in a row fail because of the server."""
RECENT: Final = 200
"""It also stops when more than half of the last RECENT requests did: a server may be broken for most requests."""
ANSWER_S: Final = 300.0
SLOWEST_RATE: Final = 5.0
"""The default time limit of a request: ANSWER_S seconds for the server's queue, and its max_tokens at SLOWEST_RATE
tokens per second, which is slower than people read."""
LARGEST_REPLY: Final = 256 * 2**20
"""Bytes; a million tokens with their ids take a tenth of that."""


@dataclass(frozen=True)
class _Failure:
    """One try that gave no answer."""

    error: str
    retry: bool = True
    pause: float | None = None
    """Seconds that the server asks to wait."""
    overloaded: bool = False
    unreachable: bool = False
    sent: bool = True
    """Whether the server may have worked on it, and bill it."""
    servers: bool = True
    """Whether it is the server's fault, not that of this one request."""
    learnt: bool = False
    """Whether the server refused a field by name, and the next try leaves it out."""


class OpenAIEngine:
    """Chat completions over HTTP. The key is read from the environment and put nowhere else."""

    precision = ""

    def __init__(
        self,
        runtime: EngineRuntime,
        model: str,
        key: str | None = None,
        extra: dict[str, Any] | None = None,
        ours: bool = False,
    ) -> None:
        """`key` in place of the environment's; `extra` fields for every request's body; `ours`: nobody else asks these
        servers, so that a request which waits there waits for others of this engine."""
        self._runtime = runtime
        self._patient = ours and runtime.timeout_s is None
        self._model = model
        self._key = key
        self._extra = extra or {}
        self._secrets: list[str] = []
        self.notes: list[str] = []
        """Deviations from the recipe in what is sent, because a server does not take it."""

    def __enter__(self) -> Self:
        self._endpoints()  # fails on a malformed address before the first request
        return self

    def __exit__(self, *_: object) -> None:
        return

    def _endpoints(self) -> Endpoints:
        addresses = self._runtime.endpoint
        named = [addresses] if isinstance(addresses, str) else addresses
        return Endpoints(named or [""], self._runtime.window)

    async def stream(self, requests: Iterable[Request]) -> AsyncGenerator[Response]:
        """Answers as they finish.

        Raises EngineError if no server is there, if BROKEN_AFTER requests in a row or more than half of the last
        RECENT failed because of the server, or if a server asks to wait for longer than a request may take.
        """
        endpoints = self._endpoints()
        headers = {"Content-Type": "application/json"} | self._authorization(endpoints)
        health = _Health()
        # Twice the window: half of these may wait for a retry, or to be read, while the window stays full.
        working = 2 * self._runtime.window * len(endpoints.all)
        answers: asyncio.Queue[Response | Exception | None] = asyncio.Queue(working)
        waiting = iter(requests)

        async def work(session: aiohttp.ClientSession) -> None:
            """Answer one request after the other, until none is left."""
            nonlocal working
            try:
                while (request := next(waiting, None)) is not None:
                    await answers.put(await self._answer(session, endpoints, health, request))
            except Exception as error:
                await answers.put(error)
            working -= 1
            if not working:
                await answers.put(None)

        # Connections without limits of their own: `endpoints` has them, and sees more.
        async with aiohttp.ClientSession(
            headers=headers, connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout()
        ) as session:
            workers = [asyncio.create_task(work(session)) for _ in range(working)]
            try:
                while (response := await answers.get()) is not None:
                    if isinstance(response, Exception):
                        raise response
                    yield response
                    health.saw(response)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _answer(
        self, session: aiohttp.ClientSession, endpoints: Endpoints, health: _Health, request: Request
    ) -> Response:
        """Returns the answer to one request, or an error response after its tries or at its deadline."""
        loop = asyncio.get_running_loop()
        most, limit = token_bound(request), self._limit(request)
        tries, started, waited, uncounted = 0, 0.0, 0.0, 0
        while True:
            endpoint = await endpoints.take(most)
            sent_at = loop.time()
            started = started or sent_at
            deadline = started + limit + waited
            try:
                outcome = await self._try(session, endpoint, request, deadline)
            finally:
                endpoints.give_back(endpoint, most)
            now = loop.time()
            if isinstance(outcome, Response):
                endpoint.answered_at = now
                endpoint.answered()
                health.succeeded = True
                return replace(outcome, uncounted_tokens=uncounted) if uncounted else outcome
            failure = outcome
            if failure.learnt:
                continue
            uncounted += most if failure.sent else 0
            if failure.overloaded:
                if failure.pause is not None and failure.pause > limit:
                    raise EngineError(
                        f"{endpoint.shown} asks to wait for {failure.pause:.0f} s: {failure.error}",
                        "run again then; nothing is lost",
                    )
                endpoint.overloaded(now, sent_at, failure.pause)
            elif failure.servers:
                endpoint.failed(now, alone=len(endpoints.all) == 1, unreachable=failure.unreachable)
                if not health.succeeded and all(other.unreachable for other in endpoints.all):
                    raise EngineError(
                        failure.error, "start the server, or correct run.engines.<model>.endpoint"
                    )
            # A busy server is not the request's fault: the pause is added to its time limit.
            tries += not failure.overloaded
            backoff = min(LONGEST_BACKOFF_S, BACKOFF_S * 2 ** min(max(tries, 1) - 1, 10))
            pause = failure.pause or backoff * random.uniform(0.5, 1.5)  # noqa: S311
            if failure.overloaded:
                waited = min(limit, waited + now - sent_at + pause)
            over = now + pause >= self._until(endpoint, started + limit + waited, limit)
            if not failure.retry or over or tries >= self._runtime.tries:
                health.blame(request.key, failure)
                return Response(
                    request.key,
                    "",
                    "error",
                    latency_s=now - started,
                    error=failure.error,
                    uncounted_tokens=uncounted,
                )
            await asyncio.sleep(pause)

    async def _try(
        self,
        session: aiohttp.ClientSession,
        endpoint: Endpoint,
        request: Request,
        deadline: float,
    ) -> Response | _Failure:
        loop = asyncio.get_running_loop()
        started = loop.time()
        body = endpoint.dialect.body(request, self._model, self._extra)
        try:
            async with (
                self._in_time(endpoint, deadline, self._limit(request)),
                session.post(endpoint.url, data=body, allow_redirects=False) as reply,
            ):
                endpoint.heard(loop.time(), reply.headers)
                content = await _read(reply)
                if reply.status == 200:
                    return response_of(request, content, loop.time() - started)
                if reply.status in (400, 422) and endpoint.dialect.learn(content, body):
                    self._tell(endpoint)
                    return _Failure("a field is refused", learnt=True)
                return self._refusal(reply.status, wished_pause(reply.headers), content)
        except Refused as error:
            return self._refusal(error.status, None, error.body)
        except TimeoutError:
            return _Failure(f"no answer within {self._limit(request):g} s")
        except aiohttp.ClientConnectorError as error:
            number = error.errno or 0
            reason = os.strerror(number) if number in errno.errorcode else str(error.os_error)
            return _Failure(
                self._line(f"cannot connect to {endpoint.shown}: {reason.lower()}"),
                unreachable=True,
                sent=False,
            )
        except (aiohttp.ClientError, OSError) as error:
            return _Failure(self._line(f"{type(error).__name__}: {error}"))
        except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            return _Failure(self._line(f"not a chat completion: {type(error).__name__}: {error}"))

    @contextlib.asynccontextmanager
    async def _in_time(self, endpoint: Endpoint, deadline: float, limit: float) -> AsyncGenerator[None]:
        """Raise TimeoutError inside when the time is over: looked at when it may be, as answers move it."""
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle

        def look() -> None:
            nonlocal timer
            until = self._until(endpoint, deadline, limit)
            if until > loop.time():
                timer = loop.call_at(until, look)
            else:
                timeout.reschedule(loop.time())

        timer = loop.call_at(deadline, look)
        try:
            async with asyncio.timeout(None) as timeout:
                yield
        finally:
            timer.cancel()

    def _until(self, endpoint: Endpoint, deadline: float, limit: float) -> float:
        """How long a request may go on. At a server of ours, which is given more than it has memory for, it is not over
        while others are answered."""
        return max(deadline, endpoint.answered_at + limit) if self._patient else deadline

    def _tell(self, endpoint: Endpoint) -> None:
        """Warn about deviations from the recipe in what is sent, and keep them for the record."""
        for note in endpoint.dialect.notes:
            if note not in self.notes:
                self.notes.append(note)
                print(f"warning: {endpoint.shown} does not take it: {note}", file=sys.stderr)

    def _limit(self, request: Request) -> float:
        return self._runtime.timeout_s or ANSWER_S + request.sampling.max_tokens / SLOWEST_RATE

    def _refusal(self, status: int, pause: float | None, content: bytes) -> _Failure:
        """`status` is 0 if an error in the body of a 200 names none; such an error may be temporary."""
        named = f"HTTP {status}" if status else "an error instead of an answer"
        return _Failure(
            self._line(f"{named}: {content[:1000].decode(errors='replace')}"),
            retry=status in RETRIED or not status,
            sent=False,  # refusals are not billed
            pause=pause,
            overloaded=status in OVERLOADED or (status == 503 and pause is not None),
            # A wrong key, path or model refuses every request; other 4xx mostly this one.
            servers=status in RETRIED or status in (0, 401, 403, 404),
        )

    def _authorization(self, endpoints: Endpoints) -> dict[str, str]:
        """Returns the header with the key. From here on secrets are removed from errors."""
        name = self._runtime.api_key_env
        key = os.environ.get(name, "").strip() if self._key is None else self._key
        self._secrets = [secret for endpoint in endpoints.all for secret in endpoint.secrets]
        if not key or any(endpoint.url.user for endpoint in endpoints.all):
            return {}  # a user in the address takes the header's place
        if not (key.isascii() and key.isprintable()):
            raise EngineError(
                f"the key in {name} holds line breaks or other signs", f"put a valid one in {name}"
            )
        self._secrets.append(key)
        return {"Authorization": f"Bearer {key}"}

    def _line(self, text: str) -> str:
        """An error's text as one short line without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return " ".join(text.split())[:300]


class _Health:
    """Whether the servers still answer; raises when they no longer do."""

    def __init__(self) -> None:
        self.succeeded = False
        self._failed: set[str] = set()
        self._row = 0
        self._recent: deque[bool] = deque(maxlen=RECENT)

    def blame(self, key: str, failure: _Failure) -> None:
        """Note that the error response to this key is the server's fault."""
        if failure.servers:
            self._failed.add(key)

    def saw(self, response: Response) -> None:
        """Count what the reader was given. Raises EngineError when the servers are broken."""
        failed = response.finish_reason == "error"
        servers = response.key in self._failed
        self._failed.discard(response.key)
        # If nothing has succeeded yet, refusals of all requests point to the settings.
        self._row = self._row + 1 if servers or (failed and not self.succeeded) else 0
        self._recent.append(servers)
        if self._row >= BROKEN_AFTER:
            message = f"{self._row} requests in a row failed: {response.error}"
        elif sum(self._recent) > RECENT / 2:
            message = f"{sum(self._recent)} of {RECENT} requests failed, this one with: {response.error}"
        else:
            return
        raise EngineError(message, "fix the server or run.engines.<model>, and run again to go on")


async def _read(reply: aiohttp.ClientResponse) -> bytes:
    """The body. Raises ValueError when it is too large to be an answer."""
    parts, size = [], 0
    async for part in reply.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > LARGEST_REPLY:
            raise ValueError(f"more than {LARGEST_REPLY >> 20} MiB")
    return b"".join(parts)
