"""A clock in the server: when the first request came and the last answer was out. GET /clock reads and resets it."""

import json
import math
import time


class Clock:
    """ASGI middleware, for vLLM's --middleware."""

    def __init__(self, app):
        self.app = app
        self.reset()

    def reset(self):
        self.requests = self.running = self.most = 0
        self.first, self.last = math.inf, 0.0

    async def __call__(self, scope, receive, send):
        path = scope.get("path", "")
        if path == "/clock":
            read = {"seconds": self.last - self.first, "requests": self.requests, "most": self.most}
            self.reset()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": json.dumps(read).encode()})
        elif path.endswith("/chat/completions"):
            started = time.perf_counter()
            self.running += 1
            self.most = max(self.most, self.running)

            async def sent(message):
                if message.get("status") == 200:  # curator begins with a request that is refused
                    self.requests += 1
                    self.first = min(self.first, started)
                await send(message)

            try:
                await self.app(scope, receive, sent)
            finally:
                self.running -= 1
                self.last = time.perf_counter()
        else:
            await self.app(scope, receive, send)
