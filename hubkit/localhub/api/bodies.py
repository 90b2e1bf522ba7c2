"""Large bodies straight from the socket.

uvicorn hands a body on in pieces of 64 KB that each pass through its event loop, h11 and a queue, which takes
several times as long as receiving and storing the bytes. So the rest of a large body is read by a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any, Final

from anyio import CapacityLimiter, to_thread
from starlette.requests import ClientDisconnect, Request
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["AT_ONCE", "Protocol", "stream_to"]

_PIECE: Final = 1 << 20
_PATIENCE: Final = 120
"""Seconds without a byte after which a client counts as gone. A thread waits for it."""
AT_ONCE: Final = 16
"""Threads for bodies only: slow uploads do not block the threads that answer other requests."""
_EXTENSION: Final = "hubkit.connection"


class Protocol(H11Protocol):
    """uvicorn's HTTP protocol, from which a handler can take over the rest of a body."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.scope is not None:
            self.scope.setdefault("extensions", {})[_EXTENSION] = {"protocol": self}

    def detach(self) -> tuple[bytes, socket.socket]:
        """Returns the part of the body that has arrived, and the source of the rest. uvicorn reads no more of it."""
        self.flow.pause_reading()
        here, self.cycle.body = bytes(self.cycle.body), bytearray()
        # As if the client had asked for it: uvicorn closes after the answer, not knowing that the body has ended.
        self.headers.append((b"connection", b"close"))
        return here, self.transport.get_extra_info("socket").dup()


async def stream_to(request: Request, write: Callable[[bytes | memoryview], Any]) -> None:
    """Pass a body to `write`, which is called in threads, one call at a time, and must not keep its argument.

    Raises ClientDisconnect if the body does not come whole.
    """
    extension = request.scope.get("extensions", {}).get(_EXTENSION)
    length = request.headers.get("content-length", "")
    left = int(length) if length.isdecimal() else 0
    async for data in request.stream():
        await to_thread.run_sync(write, data)
        left -= len(data)
        if extension is not None and left > _PIECE:
            await _read_rest(extension["protocol"], left, write, request.app.state.bodies)
            return


async def _read_rest(
    protocol: Protocol, left: int, write: Callable[[bytes | memoryview], Any], limiter: CapacityLimiter
) -> None:
    here, connection = protocol.detach()
    connection.settimeout(_PATIENCE)

    def read() -> None:
        with connection:
            write(here)
            missing = left - len(here)
            buffer = memoryview(bytearray(_PIECE))
            while missing:
                size = connection.recv_into(buffer, min(missing, _PIECE))
                if not size:
                    raise ClientDisconnect
                write(buffer[:size])
                missing -= size

    try:
        await to_thread.run_sync(read, limiter=limiter, abandon_on_cancel=True)
    except (TimeoutError, ConnectionError):
        raise ClientDisconnect from None
    except asyncio.CancelledError:  # the server stops: so does the thread
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RD)
        raise
