"""Any OpenAI-compatible endpoint: vLLM, SGLang, TGI, inference providers, hosted APIs.

A bounded window of requests is in flight and refilled one by one, so that a long answer never holds
back the rest. What passes by itself (408, 429, 5xx, broken connections) is tried again with backoff and
jitter until the request's deadline; other refusals come back as error responses.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from hubkit.config import EngineRuntime
from hubkit.engines.base import Request, Response
from hubkit.errors import EngineError

__all__ = ["OpenAIEngine"]

RETRIED: Final = {408, 409, 425, 429, 500, 502, 503, 504, 529}
FIRST_DELAY_S: Final = 0.5
LONGEST_DELAY_S: Final = 30.0
BROKEN_AFTER: Final = 20
"""When this many requests in a row end in an error, the server is taken to be broken."""


class OpenAIEngine:
    """Chat completions over HTTP. The key is read from the environment and put nowhere else."""

    def __init__(self, runtime: EngineRuntime, model: str) -> None:
        self._runtime = runtime
        self._model = model
        self._url = f"{runtime.endpoint.rstrip('/')}/chat/completions"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    async def stream(self, requests: Iterable[Request]) -> AsyncIterator[Response]:
        """Answers as they finish. Raises EngineError when BROKEN_AFTER requests in a row have failed."""
        key = os.environ.get(self._runtime.api_key_env, "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        connector = aiohttp.TCPConnector(limit=self._runtime.window)
        waiting = iter(requests)
        failed = 0
        async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
            # Asked for one at a time: a slot that waits for a retry must not keep the window from refilling.
            running: set[asyncio.Task[Response]] = set()
            try:
                while True:
                    while (
                        len(running) < self._runtime.window and (request := next(waiting, None)) is not None
                    ):
                        running.add(asyncio.create_task(self._answer(session, request)))
                    if not running:
                        return
                    finished, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    for task in finished:
                        response = task.result()
                        failed = failed + 1 if response.finish_reason == "error" else 0
                        if failed >= BROKEN_AFTER:
                            raise EngineError(
                                f"{failed} requests in a row failed, the last with: {response.error}",
                                "look at the server; run again to go on",
                            )
                        yield response
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)

    async def _answer(self, session: aiohttp.ClientSession, request: Request) -> Response:
        started = time.monotonic()
        deadline = started + self._runtime.timeout_s
        delay = FIRST_DELAY_S
        while True:
            left = deadline - time.monotonic()
            error, wait = "deadline passed", None
            if left > 0:
                try:
                    async with session.post(
                        self._url, json=self._body(request), timeout=aiohttp.ClientTimeout(total=left)
                    ) as reply:
                        if reply.status == 200:
                            return _parse(
                                request, await reply.json(content_type=None), time.monotonic() - started
                            )
                        text = (await reply.text())[:500]
                        error = f"HTTP {reply.status}: {' '.join(text.split())[:200]}"
                        if reply.status not in RETRIED:
                            return Response(request.key, "", "error", error=error)
                        wait = _retry_after(reply.headers.get("Retry-After"))
                except TimeoutError:
                    error = f"no answer within {self._runtime.timeout_s:g} s"
                except (aiohttp.ClientError, ValueError, KeyError, TypeError, IndexError) as failure:
                    # Broken connections, half a body, JSON that is none, and JSON of another shape.
                    error = f"{type(failure).__name__}: {str(failure)[:200]}"
            pause = wait if wait is not None else min(LONGEST_DELAY_S, delay) * random.uniform(0.5, 1.5)  # noqa: S311
            delay *= 2
            if time.monotonic() + pause >= deadline:
                return Response(request.key, "", "error", latency_s=time.monotonic() - started, error=error)
            await asyncio.sleep(pause)

    def _body(self, request: Request) -> dict[str, Any]:
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self._model,
            "messages": request.messages,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": request.seed & 0x7FFFFFFF,  # servers differ in the width they take
        }
        if sampling.top_k:
            body["top_k"] = sampling.top_k  # vLLM's and SGLang's extension
        return body


def _parse(request: Request, answer: dict[str, Any], latency: float) -> Response:
    choice = answer["choices"][0]
    message, usage = choice["message"], answer.get("usage") or {}
    reasoning = message.get("reasoning") or message.get("reasoning_content")
    return Response(
        request.key,
        message.get("content") or "",
        "length" if choice.get("finish_reason") == "length" else "stop",
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        completion_tokens=int(usage.get("completion_tokens") or 0),
        latency_s=latency,
        reasoning=reasoning if isinstance(reasoning, str) else None,
    )


def _retry_after(value: str | None) -> float | None:
    """Seconds that a server asks to wait; dates, which few send, count as no wish."""
    try:
        return max(0.0, float(value)) if value else None
    except ValueError:
        return None
