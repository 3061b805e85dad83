"""Carries messages between the client on standard input and output and the server, until one of them ends."""

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator
from typing import Final, Protocol, final

from authz.errors import UnavailableError
from authz.mcp.guard import McpGuard
from authz.mcp.passed import Passed

__all__ = ["MAX_CLIENT_MESSAGE", "McpServer", "run_proxy"]

MAX_CLIENT_MESSAGE: Final = 1024 * 1024
"""Bytes of the largest message of the client: as of a body that Authz reads behind a proxy."""
_log: Final = logging.getLogger("authz.mcp")
_CHUNK: Final = 65_536
_READ_AHEAD: Final = 16
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class McpServer(Protocol):
    """The server's end."""

    async def send(self, text: str) -> None:
        """Send a message."""

    def messages(self) -> AsyncIterator[bytes]:
        """Read messages until the server ends."""

    async def finish(self) -> None:
        """Tell the server that no further message comes."""

    async def stop(self) -> int:
        """End the server, and give its exit status."""


async def run_proxy(guard: McpGuard, server: McpServer, source: int, sink: int) -> int:
    """Guard one session.

    Args:
        guard: Decides about each message.
        server: The server, started.
        source: File descriptor with the client's messages.
        sink: File descriptor for messages to the client.

    Returns:
        Exit status: the server's, or 128 and a signal's number if a signal ended this process; 1 if a message is too large.
    """
    return await _Proxy(guard, server, source, sink).run()


@final
class _Proxy:
    def __init__(self, guard: McpGuard, server: McpServer, source: int, sink: int) -> None:
        self._guard = guard
        self._server = server
        self._lines = _Lines(source)
        self._sink = sink
        self._writing = asyncio.Lock()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        signalled: asyncio.Future[int] = loop.create_future()
        for number in _SIGNALS:
            loop.add_signal_handler(number, _once, signalled, number)
        from_client = asyncio.create_task(self._from_client())
        from_server = asyncio.create_task(self._from_server())
        held = asyncio.create_task(self._held_calls())
        ends: list[asyncio.Future[int]] = [from_client, from_server, held, signalled]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if from_client.done() and not from_server.done() and not signalled.done():
                # The client wants nothing more: answers that are under way still reach it.
                await self._server.finish()
                await asyncio.wait(ends[1:], timeout=5, return_when=asyncio.FIRST_COMPLETED)
            return await self._end(ends)
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)

    async def _end(self, ends: list["asyncio.Future[int]"]) -> int:
        """Answer what the server will not answer, end the server, and choose the exit status."""
        status = await self._server.stop()
        with contextlib.suppress(OSError):
            for text in self._guard.left_unanswered("The server ended before it answered."):
                await self._write(text)
        for end in ends:
            if end.done() and not end.cancelled():
                error = end.exception()
                if isinstance(error, UnavailableError):
                    _log.error("%s", error)
                    return 1
                if error is not None and not isinstance(error, OSError):
                    raise error
        signalled = ends[-1]
        if signalled.done() and not signalled.cancelled():
            return 128 + signalled.result()
        return status

    async def _from_client(self) -> int:
        async for line in self._lines:
            if line is None:
                _log.warning(
                    "refused a message of the client: larger than %d bytes", MAX_CLIENT_MESSAGE
                )
                await self._write(_TOO_LARGE)
                continue
            # One at a time, in order: a cancellation must not overtake its request.
            await self._pass(await self._guard.from_client(line))
        return 0

    async def _from_server(self) -> int:
        async for line in self._server.messages():
            await self._pass(await self._guard.from_server(line))
        return 0

    async def _held_calls(self) -> int:
        while True:
            await self._pass(await self._guard.later())

    async def _pass(self, passed: Passed) -> None:
        if passed.to_client is not None:
            await self._write(passed.to_client)
        if passed.to_server is not None:
            await self._server.send(passed.to_server)

    async def _write(self, text: str) -> None:
        async with self._writing:
            await asyncio.to_thread(_write_all, self._sink, text.encode() + b"\n")


_TOO_LARGE: Final = (
    '{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"The message is too large."}}'
)


@final
class _Lines:
    """Lines of a file descriptor; None for a line that is too long, the rest of which is skipped.

    A thread reads: not every descriptor that a client gives can be read without blocking.
    """

    def __init__(self, source: int) -> None:
        self._source = source

    async def __aiter__(self) -> AsyncIterator[bytes | None]:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        room = threading.Semaphore(_READ_AHEAD)
        ended = threading.Event()

        def put(line: bytes | None) -> None:
            room.acquire()
            loop.call_soon_threadsafe(queue.put_nowait, line)

        def read() -> None:
            with contextlib.suppress(OSError, RuntimeError):
                _split(self._source, put)
            ended.set()
            with contextlib.suppress(RuntimeError):
                put(b"")

        threading.Thread(target=read, name="authz-mcp-stdin", daemon=True).start()
        while True:
            line = await queue.get()
            room.release()
            if line is not None and not line.strip():
                if ended.is_set() and queue.empty():
                    return
                continue
            yield line


def _split(source: int, put: "_Put") -> None:
    """Read a descriptor to its end, and hand over each line."""
    buffer, is_skipping = bytearray(), False
    while chunk := os.read(source, _CHUNK):
        buffer += chunk
        while (at := buffer.find(b"\n")) >= 0:
            line = bytes(buffer[:at])
            del buffer[: at + 1]
            if is_skipping:
                is_skipping = False
            else:
                put(line if len(line) <= MAX_CLIENT_MESSAGE else None)
        if len(buffer) > MAX_CLIENT_MESSAGE:
            if not is_skipping:
                put(None)
            is_skipping = True
            buffer.clear()
    if buffer and not is_skipping:
        put(bytes(buffer))


class _Put(Protocol):
    def __call__(self, line: bytes | None) -> None: ...


def _write_all(sink: int, data: bytes) -> None:
    while data:
        data = data[os.write(sink, data) :]


def _once(future: "asyncio.Future[int]", number: int) -> None:
    if not future.done():
        future.set_result(number)
