"""A receiver of audit records on loopback, which keeps what it gets as files."""

import base64
import gzip
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

__all__ = ["AuditReceiver"]


class AuditReceiver:
    """Stores batches under their names. The same name must always come with the same bytes.

    Args:
        folder: Folder of the files.
        port: Port, or 0 for any.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder = folder
        self.records: list[bytes] = []
        self.requests: list[dict[str, str]] = []
        self.statuses: list[int] = []
        self.defects: list[str] = []
        self.retry_after = ""
        self.stores_before_it_fails = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status = outer.statuses.pop(0) if outer.statuses else 204
                if status < 300 or outer.stores_before_it_fails:
                    outer.store(headers, body)
                self.send_response(status)
                self.send_header("content-length", "0")
                if outer.retry_after:
                    self.send_header("retry-after", outer.retry_after)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}/audit"

    def store(self, headers: dict[str, str], body: bytes) -> None:
        """Keep a batch."""
        self.requests.append(headers)
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        if headers["content-digest"] != f"sha-256=:{digest}:":
            self.defects.append(f"digest of {headers['authz-audit-name']}")
        content = gzip.decompress(body)
        file = self.folder / headers["authz-audit-name"]
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists() and file.read_bytes() != content:
            self.defects.append(f"other bytes of {headers['authz-audit-name']}")
        file.write_bytes(content)
        lines = content.splitlines(keepends=True)
        if len(lines) != int(headers["authz-audit-records"]):
            self.defects.append(f"count of {headers['authz-audit-name']}")
        if headers["authz-audit-kind"] == "records":
            self.records += lines

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
