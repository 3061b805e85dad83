"""A server that is an endpoint: MCP's streamable HTTP transport, as a client."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, Self, final
from urllib.parse import urlsplit

import httpcore2

from authz.errors import UnavailableError, UsageError
from authz.mcp.messages import MessageError, read_message

__all__ = ["HttpServer"]

_log: Final = logging.getLogger("authz.mcp")
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_CONNECT_SECONDS: Final = 10.0
_READ_SECONDS: Final = 300.0
_MOST_POSTS: Final = 64
_MOST_QUEUED: Final = 256
_RETRY_SECONDS: Final = 2.0
_FINISH_SECONDS: Final = 4.0
_MODERN: Final = "2026-07-28"
_REVISION_META: Final = "io.modelcontextprotocol/protocolVersion"
_ENDED: Final = -32000
_OK, _ACCEPTED = 200, 202


@final
class HttpServer:
    """The endpoint. Answers of all requests, and the server's own stream, are one sequence of messages.

    Args:
        url: Endpoint: https, or http on this machine.
        headers: Headers of each request, for example the server's credential.
        max_message: Bytes of the largest message of the server.

    Raises:
        UsageError: The URL cannot be used.
    """

    def __init__(self, url: str, headers: Mapping[str, str], max_message: int) -> None:
        parts = urlsplit(url)
        safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
        if not safe or not parts.hostname or parts.username or parts.fragment:
            raise UsageError(
                "--url: write https://host/path (http only on this machine), without a password"
            )
        self._url = url
        self._headers = dict(headers)
        self._max_message = max_message
        self._messages: asyncio.Queue[bytes | None] = asyncio.Queue(_MOST_QUEUED)
        self._requests: set[asyncio.Task[None]] = set()
        self._streams: set[asyncio.Task[None]] = set()
        self._posts = asyncio.Semaphore(_MOST_POSTS)
        self._session_id = ""
        self._revision = ""
        self._failure: UnavailableError | None = None

    async def __aenter__(self) -> Self:
        self._pool = httpcore2.AsyncConnectionPool(max_connections=_MOST_POSTS + 2)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def send(self, text: str) -> None:
        """Send a message. `initialize` is answered before any other message is sent: its answer names the session."""
        message = json.loads(text)
        method = message.get("method", "")
        await self._posts.acquire()
        task = asyncio.create_task(self._post(text, message))
        self._requests.add(task)
        task.add_done_callback(self._done)
        if method in {"initialize", "notifications/initialized"}:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(task)
        if method == "notifications/initialized" and self._revision != _MODERN:
            stream = asyncio.create_task(self._stream())
            self._streams.add(stream)
            stream.add_done_callback(self._streams.discard)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._requests.discard(task)
        self._posts.release()

    async def messages(self) -> AsyncIterator[bytes]:
        """Read messages until `finish`.

        Yields:
            Messages.

        Raises:
            UnavailableError: A message is larger than the limit.
        """
        while (message := await self._messages.get()) is not None:
            yield message
        if self._failure is not None:
            raise self._failure

    async def finish(self) -> None:
        """Let the requests that run come to their end, for some seconds, and end the sequence of messages."""
        if self._requests:
            await asyncio.wait(self._requests, timeout=_FINISH_SECONDS)
        await self._messages.put(None)

    async def stop(self) -> int:
        """End the session and close the connections.

        Returns:
            0.
        """
        running = [*self._requests, *self._streams]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._session_id:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(2):
                    await self._pool.request("DELETE", self._url, headers=self._all({}))
            self._session_id = ""
        await self._pool.aclose()
        return 0

    def _all(self, own: Mapping[str, str], revision: str = "") -> list[tuple[bytes, bytes]]:
        headers = {**self._headers, **own}
        if self._session_id:
            headers["mcp-session-id"] = self._session_id
        if revision or self._revision:
            headers["mcp-protocol-version"] = revision or self._revision
        host = urlsplit(self._url).netloc
        return [
            (name.lower().encode("ascii"), value.encode("latin-1"))
            for name, value in {"host": host, **headers}.items()
        ]

    async def _post(self, text: str, message: Mapping[str, Any]) -> None:
        request_id = message.get("id") if "method" in message else None
        try:
            await self._exchange(text, message)
        except UnavailableError as error:
            await self._fail(error)
        except Exception as error:  # noqa: BLE001 - the client gets an answer after every exception of the connection
            _log.warning("the server cannot be reached: %s: %s", type(error).__name__, error)
            if request_id is not None:
                await self._answer_error(request_id, "The server cannot be reached.")

    async def _exchange(self, text: str, message: Mapping[str, Any]) -> None:
        is_request = "method" in message and "id" in message
        own = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
        }
        params = message.get("params") or {}
        revision = (params.get("_meta") or {}).get(_REVISION_META, "")
        if revision == _MODERN:
            own["mcp-method"] = str(message.get("method", ""))
            if isinstance(name := params.get("name", params.get("uri")), str):
                own["mcp-name"] = name
        async with self._pool.stream(
            "POST",
            self._url,
            headers=self._all(own, revision),
            content=text.encode(),
            extensions={"timeout": {"connect": _CONNECT_SECONDS, "read": _READ_SECONDS}},
        ) as response:
            headers = {name.lower(): value for name, value in response.headers}
            if response.status not in {_OK, _ACCEPTED}:
                _log.warning("the server answered with HTTP %d", response.status)
                if is_request:
                    what = f"The server answered with HTTP {response.status}."
                    await self._answer_error(message["id"], what)
                return
            if message.get("method") == "initialize":
                self._session_id = headers.get(b"mcp-session-id", b"").decode("latin-1")
            if not is_request:
                return
            if headers.get(b"content-type", b"").startswith(b"text/event-stream"):
                answered = await self._events(response, message["id"])
            else:
                answered = await self._whole(response, message["id"])
            if not answered:
                await self._answer_error(message["id"], "The server ended its answer too early.")

    async def _whole(self, response: httpcore2.Response, request_id: object) -> bool:
        body = bytearray()
        async for chunk in response.aiter_stream():
            body += chunk
            self._bound(len(body))
        return await self._put(bytes(body), request_id)

    async def _events(self, response: httpcore2.Response, request_id: object) -> bool:
        """Read server-sent events (HTML §9.2): each `data` is one message."""
        buffer, data, answered = bytearray(), bytearray(), False
        async for chunk in response.aiter_stream():
            buffer += chunk.replace(b"\r\n", b"\n") if b"\r" in chunk else chunk
            self._bound(len(buffer) + len(data))
            while (end := buffer.find(b"\n")) >= 0:
                line = bytes(buffer[:end]).rstrip(b"\r")
                del buffer[: end + 1]
                if line.startswith(b"data:"):
                    data += line[5:].removeprefix(b" ") + b"\n"
                elif not line and data:
                    answered |= await self._put(bytes(data), request_id)
                    data.clear()
        return answered

    def _bound(self, size: int) -> None:
        if size > self._max_message:
            raise UnavailableError(
                f"a message of the server is larger than {self._max_message} bytes; see --max-message"
            )

    async def _put(self, body: bytes, request_id: object) -> bool:
        """Hand a message over; tell whether it answers the request."""
        # An event may hold JSON over several lines; a line break cannot stand within one of its strings.
        line = body.replace(b"\r", b" ").replace(b"\n", b" ").strip()
        if not line:
            return False
        try:
            message = read_message(line)
        except MessageError as error:
            _log.warning("dropped a message of the server: %s", error)
            return False
        result = message.value.get("result")
        if isinstance(result, dict) and isinstance(result.get("protocolVersion"), str):
            self._revision = result["protocolVersion"]
        await self._messages.put(line)
        return "method" not in message.value and message.value.get("id") == request_id

    async def _answer_error(self, request_id: object, text: str) -> None:
        error = {"code": _ENDED, "message": text}
        answer = {"jsonrpc": "2.0", "id": request_id, "error": error}
        await self._messages.put(json.dumps(answer).encode())

    async def _fail(self, error: UnavailableError) -> None:
        self._failure = error
        await self._messages.put(None)

    async def _stream(self) -> None:
        """Keep the server's own stream open; a server may have none (405)."""
        while True:
            try:
                async with self._pool.stream(
                    "GET",
                    self._url,
                    headers=self._all({"accept": "text/event-stream"}),
                    extensions={"timeout": {"connect": _CONNECT_SECONDS}},
                ) as response:
                    if response.status != _OK:
                        return
                    await self._events(response, None)
            except UnavailableError as error:
                await self._fail(error)
                return
            except Exception as error:  # noqa: BLE001 - the stream is opened again
                _log.info("the server's stream broke: %s", type(error).__name__)
            await asyncio.sleep(_RETRY_SECONDS)
