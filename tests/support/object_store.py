"""An S3-compatible store on loopback. It verifies signatures by the specification, not with the library that makes them."""

import base64
import hashlib
import hmac
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

__all__ = ["ObjectStore", "sign"]


def sign(secret: str, headers: dict[str, str], path: str, signed: str, scope: str) -> str:
    """Compute the signature of a PUT request (Signature Version 4, headers only).

    Args:
        secret: The secret key.
        headers: Headers of the request, by their names in lower case.
        path: Its path.
        signed: Names of the signed headers, between semicolons.
        scope: Date, region, service and `aws4_request`, between slashes.
    """
    canonical = "".join(f"{name}:{' '.join(headers[name].split())}\n" for name in signed.split(";"))
    request = "\n".join(("PUT", path, "", canonical, signed, headers["x-amz-content-sha256"]))
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = "\n".join(("AWS4-HMAC-SHA256", headers["x-amz-date"], scope, digest))
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


class ObjectStore:
    """Stores objects as files, and refuses what is not signed with its key.

    Args:
        folder: Folder of the objects.
    """

    KEY = "AKIDEXAMPLE"
    SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
    BUCKET = "audit"
    REGION = "eu-central-1"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.statuses: list[int] = []
        self.headers: list[dict[str, str]] = []
        self.refused: list[str] = []
        self.replaced: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                defect = outer.defect(headers, self.path, body)
                status = outer.statuses.pop(0) if outer.statuses else 200
                if defect:
                    outer.refused.append(defect)
                    status = 403
                if status == 200:
                    outer.put(headers, self.path, body)
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def defect(self, headers: dict[str, str], path: str, body: bytes) -> str:
        """Return what is wrong with a request; empty if nothing is."""
        algorithm, _, rest = headers.get("authorization", "").partition(" ")
        parts = dict(part.strip().partition("=")[::2] for part in rest.split(","))
        if algorithm != "AWS4-HMAC-SHA256":
            return "not signed"
        key, _, scope = parts["Credential"].partition("/")
        date = headers["x-amz-date"]
        moment = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        checksum = base64.b64encode(hashlib.sha256(body).digest()).decode()
        signed = parts["SignedHeaders"].split(";")
        checks = {
            "another key": key == self.KEY,
            "another scope": scope == f"{date[:8]}/{self.REGION}/s3/aws4_request",
            "another time": abs((datetime.now(UTC) - moment).total_seconds()) < 900,
            "another body": headers["x-amz-content-sha256"] == hashlib.sha256(body).hexdigest(),
            "another checksum": headers["x-amz-checksum-sha256"] == checksum,
            "headers are not signed": all(
                name in signed for name in headers if name.startswith("x-amz-") or name == "host"
            ),
            "another signature": parts["Signature"]
            == sign(self.SECRET, headers, path, parts["SignedHeaders"], scope),
            "another bucket": path.startswith(f"/{self.BUCKET}/"),
        }
        return ", ".join(name for name, is_right in checks.items() if not is_right)

    def put(self, headers: dict[str, str], path: str, body: bytes) -> None:
        """Store an object."""
        self.headers.append(headers)
        file = self.folder / path.removeprefix(f"/{self.BUCKET}/")
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists() and file.read_bytes() != body:
            self.replaced.append(path)
        file.write_bytes(body)

    def credentials(self, file: Path, secret: str = SECRET) -> Path:
        """Write the access key to a file."""
        file.write_text(
            f"[default]\naws_access_key_id = {self.KEY}\naws_secret_access_key = {secret}\n"
        )
        file.chmod(0o600)
        return file

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
