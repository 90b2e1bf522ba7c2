"""Which server gets the next request, and when: load, adaptive window and rate limits of each address.

A server's window grows by one with every window of answers and halves when the server says "too many requests".
Rate limits that a server states (`Retry-After`, `x-ratelimit-remaining-*`) are obeyed. Of several servers, the one
with the fewest outstanding tokens is taken: answers differ in length by a factor of a thousand, so counting requests
would not even out the load.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Final

from yarl import URL

from hubkit.engines.bodies import Dialect
from hubkit.errors import EngineError

__all__ = ["Endpoint", "Endpoints", "wished_pause"]

BACKOFF_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0
"""A server that fails while others answer is tried again after 1, 2, 4 … 30 seconds."""
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Endpoint:
    """One server: the requests under way there, and how many more it can take."""

    def __init__(self, address: str, window: int) -> None:
        try:
            url = URL(address)
        except ValueError:
            url = URL()
        if url.scheme not in ("http", "https") or not url.host:
            raise EngineError(
                "no address of a server in `endpoint`", "set run.engines.<model>.endpoint=http://…/v1"
            )
        self.url = url / "chat/completions"
        self.shown = f"{url.scheme}://{url.host}:{url.port}{url.path}"
        """The address as errors may show it, without user, password and query, which may be secret."""
        self.secrets = [part for part in (url.user, url.password, *url.query.values()) if part]
        self.dialect = Dialect()
        self.tokens = 0
        """Outstanding tokens: the most that the requests under way can take, prompt and answer."""
        self.unreachable = False
        """Whether the last connection could not be made."""
        self.answered_at = 0.0
        """When it last answered, by the loop's clock."""
        self._most = window
        self._window = float(window)
        self._running = 0
        self._failures = 0
        self._free_at = 0.0
        self._narrowed_at = -1.0
        self._left: dict[str, tuple[float, float]] = {}
        """requests, tokens: (what may still be asked for, when that is over)."""

    def opens_at(self, now: float, tokens: int) -> float | None:
        """Returns when a request of `tokens` tokens may be sent. Returns None if another request must end first."""
        if self._running >= max(1, int(self._window)):
            return None
        at = self._free_at
        for name, (left, until) in self._left.items():
            if now < until and left < (tokens if name == "tokens" else 1):
                at = max(at, until)
        return at

    def begin(self, tokens: int) -> None:
        self._running += 1
        self.tokens += tokens
        for name, (left, until) in self._left.items():
            self._left[name] = (left - (tokens if name == "tokens" else 1), until)

    def end(self, tokens: int) -> None:
        self._running -= 1
        self.tokens -= tokens

    def answered(self) -> None:
        self._failures = 0
        self.unreachable = False
        if self._window < self._most:
            self._window = min(self._most, self._window + 1 / self._window)

    def overloaded(self, now: float, sent_at: float, pause: float | None) -> None:
        """The server said "too many requests" to one sent at that time."""
        self.unreachable = False
        # All requests under way are refused together: that is one reason to send fewer, not fifty.
        if sent_at > self._narrowed_at:
            self._window = max(1.0, self._window / 2)
            self._narrowed_at = now
        if pause is not None:
            self._free_at = max(self._free_at, now + pause)

    def failed(self, now: float, alone: bool, unreachable: bool) -> None:
        """No answer came. `alone`: there is no other server, and requests wait by themselves."""
        self._failures += 1
        self.unreachable = unreachable
        if not alone:
            # Else it would get most requests: one that fails at once has the fewest outstanding.
            pause = min(LONGEST_PAUSE_S, BACKOFF_S * 2 ** min(self._failures - 1, 10))
            self._free_at = max(self._free_at, now + pause)

    def heard(self, now: float, headers: Mapping[str, str]) -> None:
        """Note the limits that the server states in `x-ratelimit-remaining-tokens` and similar headers."""
        for name in ("requests", "tokens"):
            remaining = headers.get(f"x-ratelimit-remaining-{name}", "")
            if (
                remaining.isdecimal()
                and (reset := _duration(headers.get(f"x-ratelimit-reset-{name}", ""))) is not None
            ):
                self._left[name] = (float(remaining), now + min(reset, LONGEST_PAUSE_S * 2))


class Endpoints:
    """All servers of a model; at most `window` requests are under way at each."""

    def __init__(self, addresses: Sequence[str], window: int) -> None:
        self.all = [Endpoint(address, window) for address in addresses]
        self._waiting: deque[tuple[int, asyncio.Future[Endpoint]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def take(self, tokens: int) -> Endpoint:
        """Wait in turn for room for a request of at most `tokens` tokens; end it with `give_back`."""
        place: asyncio.Future[Endpoint] = asyncio.get_running_loop().create_future()
        self._waiting.append((tokens, place))
        self._serve()
        return await place

    def give_back(self, endpoint: Endpoint, tokens: int) -> None:
        endpoint.end(tokens)
        self._serve()

    def _serve(self) -> None:
        """Assign servers to waiting requests, first come first served; set a timer if a pause must end first."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            tokens, place = self._waiting[0]
            if place.done():  # cancelled
                self._waiting.popleft()
                continue
            now = loop.time()
            openings = [(at, e) for e in self.all if (at := e.opens_at(now, tokens)) is not None]
            ready = [endpoint for at, endpoint in openings if at <= now]
            if not ready:
                if openings:
                    self._timer = loop.call_at(min(at for at, _ in openings), self._serve)
                return
            self._waiting.popleft()
            chosen = min(ready, key=lambda endpoint: endpoint.tokens)
            chosen.begin(tokens)
            place.set_result(chosen)


def wished_pause(headers: Mapping[str, str]) -> float | None:
    """Returns the seconds that `Retry-After` asks to wait, as a number or a date. Returns None without one.

    A date is read against the server's own clock, which this machine's need not agree with.
    """
    value = headers.get("Retry-After", "").strip()
    try:
        if value.replace(".", "", 1).isdecimal():
            return float(value) or None
        if value:
            then, now = parsedate_to_datetime(value), parsedate_to_datetime(headers["Date"])
            return max(0.0, (then - now).total_seconds()) or None
    except (ValueError, KeyError, TypeError, OverflowError):
        pass
    return None


def _duration(text: str) -> float | None:
    """`6m0s`, `20ms` or plain seconds. Returns None for anything else."""
    if _DURATION.sub("", text) == "" and text:
        return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(text))
    return float(text) if text.replace(".", "", 1).isdecimal() else None
