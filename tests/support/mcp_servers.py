"""Real MCP servers for tests: those that speak streamable HTTP as they are, those on stdio through a small bridge."""

import contextlib
import json
import queue
import subprocess
import threading
import uuid
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

_WAIT = 30


class _Child:
    """A server on stdio, for one session."""

    def __init__(self, command: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._answers: dict[str, queue.Queue[bytes]] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            message = json.loads(line)
            if "method" not in message and (waiting := self._answers.get(repr(message.get("id")))):
                waiting.put(line.strip())

    def send(self, body: bytes, message: dict[str, Any]) -> bytes | None:
        """Passes a message on; the answer to a request, None for others."""
        assert self.process.stdin is not None
        answer: queue.Queue[bytes] = queue.Queue()
        if "id" in message:
            self._answers[repr(message["id"])] = answer
        self.process.stdin.write(body.replace(b"\n", b" ") + b"\n")
        self.process.stdin.flush()
        return answer.get(timeout=_WAIT) if "id" in message and "method" in message else None

    def close(self) -> None:
        """Ends it."""
        self.process.kill()
        self.process.wait(5)
        self._reader.join(5)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class Bridge:
    """Streamable HTTP before a server on stdio; `seen` holds the methods and tools that reached it.

    Args:
        command: The server's command, run once for each session.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.seen: list[str] = []
        children: dict[str, _Child] = {}
        self._children = children
        bridge = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                message = json.loads(body)
                name = (message.get("params") or {}).get("name", "")
                bridge.seen.append(f"{message.get('method')} {name}".strip())
                session = self.headers.get("mcp-session-id") or uuid.uuid4().hex
                if session not in children:
                    children[session] = _Child(command)
                answer = children[session].send(body, message)
                self.send_response(202 if answer is None else 200)
                self.send_header("mcp-session-id", session)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer or b"")))
                self.end_headers()
                self.wfile.write(answer or b"")

            def do_GET(self) -> None:
                self.send_response(405)
                self.send_header("content-length", "0")
                self.end_headers()

            def do_DELETE(self) -> None:
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        for child in self._children.values():
            child.close()
