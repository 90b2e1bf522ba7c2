"""A real HTTP server that speaks the OpenAI protocol, in a thread of its own, with faults to order.

with OpenAIServer() as server:
    server.faults["p3"] = ["429", "hang"]      # the first two requests with "p3" in their last message
    runtime = EngineRuntime(engine="openai", endpoint=server.endpoint)
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from types import TracebackType
from typing import Any, Self

from aiohttp import web

__all__ = ["OpenAIServer"]


class OpenAIServer:
    """Answers `<think>…</think>` completions made from the prompt; keeps what it was sent."""

    def __init__(self, delay_s: float = 0.0, key: str = "") -> None:
        self.faults: dict[str, list[str]] = {}
        """Last message -> faults, one per request, before it is answered: 429, 500, 503, 400, …, hang,
        garbage, half, drop, shape, empty, redirect, twice (a second reply comes after it)."""
        self.always = ""
        """A fault for every request."""
        self.answers: dict[str, dict[str, Any]] = {}
        """Last message -> fields of the message and the choice to answer with instead; a `body` is sent as it is."""
        self.refuses: dict[str, dict[str, Any]] = {}
        """Field of a request -> the error of a host that does not take it."""
        self.requests: list[dict[str, Any]] = []
        self.most_at_once = 0
        self.retry_after = "0"
        self.one_by_one = 0.0
        """Seconds that each request has the server for itself."""
        self._now = 0
        self._port = 0
        self._delay_s = delay_s
        self._key = key
        self._ready = threading.Event()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)

    def restart(self) -> None:
        """Go away with all that is under way, and come back at the same address after half a second."""
        port = int(self.endpoint.rpartition(":")[2].partition("/")[0])
        self.__exit__(None, None, None)
        self._ready.clear()
        time.sleep(0.5)
        self._port = port
        self.__enter__()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._turn = asyncio.Lock()
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._complete)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self._port)
        await site.start()
        self.endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            return await self._reply(request)
        finally:
            self._now -= 1

    async def _reply(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        text = body["messages"][-1]["content"]
        self.requests.append(body)
        await asyncio.sleep(self._delay_s)
        if self.one_by_one:
            async with self._turn:
                await asyncio.sleep(self.one_by_one)
        authorization = request.headers.get("Authorization", "")
        if self._key and authorization != f"Bearer {self._key}":
            return web.json_response({"error": f"wrong key in {authorization!r}"}, status=401)
        for name, error in self.refuses.items():
            if name in body:
                return web.json_response(error, status=400)
        queue = self.faults.get(text, [])
        fault = queue.pop(0) if queue else self.always
        if fault.isdigit():
            return web.json_response(
                {"error": f"fault {fault}"}, status=int(fault), headers={"Retry-After": self.retry_after}
            )
        answer = json.dumps(self._answer(text)).encode()
        if "body" in self.answers.get(text, {}):
            answer = self.answers[text]["body"].encode()
        match fault:
            case "hang":
                await asyncio.sleep(60)
            case "garbage":
                return web.Response(body=b"<html>502</html>", content_type="application/json")
            case "shape":
                return web.json_response({"choices": []})
            case "drop":
                assert request.transport is not None
                request.transport.abort()
            case "empty":
                return web.Response(body=b"")
            case "redirect":
                return web.Response(status=307, headers={"Location": self.endpoint + "/elsewhere"})
            case "twice":
                other = json.dumps(self._answer("nothing that was asked")).encode()
                assert isinstance(request.transport, asyncio.Transport)
                # In one piece: else the next request may lie between the two, and nobody could tell.
                request.transport.write(b"".join(map(_raw, (answer, other))))
                await asyncio.sleep(60)
            case "half":
                stream = web.StreamResponse(headers={"Content-Length": str(len(answer))})
                await stream.prepare(request)
                await stream.write(answer[: len(answer) // 2])
                assert request.transport is not None
                request.transport.close()
                return stream
        return web.Response(body=answer, content_type="application/json")

    def _answer(self, text: str) -> dict[str, Any]:
        message: dict[str, Any] = {
            "role": "assistant",
            "content": f"<think>\nabout {text}\n</think>\n\nsaid {text}",
        }
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "message": message}
        for name, value in self.answers.get(text, {}).items():
            (choice if name == "finish_reason" else message)[name] = value
        usage = message.pop("usage", {"prompt_tokens": len(text), "completion_tokens": 7})
        return {"choices": [choice], "usage": usage}


def _raw(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
