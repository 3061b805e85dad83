"""The `authz serve` process, on addresses of its own."""

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc
import yaml

from tests.support.cases import BUNDLES, VARIABLES
from tests.support.minting import (
    ALONE_AUDIENCE,
    AUDIENCE,
    DOMAIN,
    EMPTY_DOMAIN,
    ISSUER_AUDIENCE,
    OTHER_DOMAIN,
    Authority,
)
from tests.support.waiting import eventually, free_port

#: Who issues task credentials, where a bundle's server issues any.
ISSUER = "https://authz.example"
TRUSTED = (DOMAIN, OTHER_DOMAIN, EMPTY_DOMAIN)


def code_of(error: grpc.RpcError) -> grpc.StatusCode:
    """Returns the code of a failed call."""
    call: Any = error
    code: grpc.StatusCode = call.code()
    return code


def command() -> list[str]:
    """Returns the `authz` command of this interpreter's environment."""
    found = Path(sys.executable).with_name("authz")
    return [str(found)] if found.exists() else [sys.executable, "-m", "authz.cli"]


def run_authz(*words: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of `authz` to its end. The exit code is for the caller to check."""
    return subprocess.run([*command(), *words], capture_output=True, text=True, check=False)


def bundle_files(folder: Path) -> dict[str, bytes]:
    """Reads a bundle folder as the extension takes it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write_trust(authority: Authority, folder: Path) -> dict[str, Any]:
    """Writes every key set to a folder; returns the configuration's `trust`."""
    folder.mkdir(parents=True, exist_ok=True)
    domains, issuers = {}, {}
    for domain in TRUSTED:
        path = folder / f"{domain}.json"
        path.write_text(authority.bundle(domain))
        domains[domain] = {"bundle": {"file": str(path)}}
    for alias, issuer in authority.issuers.items():
        path = folder / f"{alias}.json"
        path.write_text(authority.jwks(alias))
        issuers[alias] = {
            "issuer": issuer.iss,
            "audience": [ISSUER_AUDIENCE],
            "alone_audience": [ALONE_AUDIENCE],
            "algorithms": [issuer.key.algorithm],
            "jwks": {"file": str(path)},
            "subject": issuer.kind,
            "profile": issuer.profile,
            "claims": list(issuer.claims),
        }
    return {"domains": domains, "issuers": issuers}


def trust_spec(authority: Authority) -> bytes:
    """Returns the same trust as the extension takes it."""
    spec = {
        "audiences": [AUDIENCE],
        "domains": {
            domain: {"bundle": authority.bundle(domain), "from": f"{domain}.json"}
            for domain in TRUSTED
        },
        "issuers": {
            alias: {
                "issuer": issuer.iss,
                "audience": [ISSUER_AUDIENCE],
                "alone_audience": [ALONE_AUDIENCE],
                "algorithms": [issuer.key.algorithm],
                "jwks": authority.jwks(alias),
                "from": f"{alias}.json",
                "subject": issuer.kind,
                "profile": issuer.profile,
                "claims": list(issuer.claims),
            }
            for alias, issuer in authority.issuers.items()
        },
    }
    return json.dumps(spec).encode()


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Merges nested mappings; a value of None removes a key."""
    result = dict(base)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


@dataclass
class Layout:
    """Where one server's files and sockets are, and its whole configuration."""

    folder: Path
    sockets: Path
    config: dict[str, Any]
    audit: Path

    @property
    def file(self) -> Path:
        """The configuration file."""
        return self.folder / "config.yaml"

    def write(self) -> None:
        """Writes the configuration file."""
        self.file.write_text(yaml.safe_dump(self.config))


def layout(
    folder: Path, authority: Authority, bundle: str | Path, changes: Mapping[str, Any] | None = None
) -> Layout:
    """Lays out a server: a copy of the bundle, key files, every kind of listener.

    Args:
        folder: Where the files go.
        authority: Whose keys are trusted.
        bundle: A folder of `tests/cases/bundles`, or a path.
        changes: Merged into the configuration; None removes a key.

    Returns:
        The layout, with the configuration written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A unix socket's path has at most 107 bytes, which a test's own folder may exceed.
    sockets = Path(tempfile.mkdtemp(prefix="authz-"))
    atexit.register(shutil.rmtree, sockets, ignore_errors=True)
    source = BUNDLES / bundle if isinstance(bundle, str) else bundle
    shutil.copytree(source, folder / "bundle", dirs_exist_ok=True)
    audit = folder / "audit.jsonl"

    def unix(name: str) -> str:
        return f"unix://{sockets / name}.sock"

    config: dict[str, Any] = {
        "bundle": {"path": str(folder / "bundle"), "watch": False},
        "trust": write_trust(authority, folder / "trust"),
        "identity": {"audiences": [AUDIENCE]},
        "vars": VARIABLES,
        # Tests look for the record of each refusal.
        "audit": {"path": str(audit), "unverified_refusals": 1_000_000},
        "listeners": {
            "main": {"address": f"127.0.0.1:{free_port()}", "insecure_dev": True},
            "main-fast": {
                "address": f"127.0.0.1:{free_port()}",
                "insecure_dev": True,
                "lane": "fast",
            },
            "crm-only": {"address": unix("crm")},
            "crm-only-fast": {"address": unix("crm-fast"), "lane": "fast"},
            "none": {"address": unix("none")},
            "none-fast": {"address": unix("none-fast"), "lane": "fast"},
            "portal": {"address": unix("portal"), "lane": "fast"},
            "admin": {"address": unix("admin")},
            "metrics": {"address": f"127.0.0.1:{free_port()}"},
        },
        "enforcers": [
            {"name": "crm-server", "listener": "crm-only", "asks": ["system:crm"]},
            {"name": "crm-server-fast", "listener": "crm-only-fast", "asks": ["system:crm"]},
            {
                "name": "portal",
                "listener": "portal",
                "asks": ["system:*"],
                "relays": ["prompt", "session"],
                "uids": [os.geteuid()],
            },
        ],
        "shutdown_grace_period": "5s",
    }
    made = Layout(folder, sockets, merged(config, changes or {}), audit)
    made.write()
    return made


@dataclass
class Server:
    """A running server."""

    place: Layout
    process: subprocess.Popen[bytes] | None = None
    _channels: dict[str, grpc.Channel] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        """What it wrote to standard output and error."""
        return self.place.folder / "server.log"

    def spawn(self, **environment: str) -> None:
        """Starts the process and does not wait."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command(), "serve", "--config", str(self.place.file)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                cwd=self.place.folder,
            )

    def start(self) -> Self:
        """Starts the process and waits until it is ready."""
        self.spawn()
        eventually(self._ready, what="the server is ready")
        return self

    def _ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"the server ended:\n{self.log.read_text()}")
        status, _ = self.http("/readyz")
        return status == 200

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process: asked first, then made to."""
        self.disconnect()
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)
        shutil.rmtree(self.place.sockets, ignore_errors=True)

    def disconnect(self) -> None:
        """Closes every channel."""
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()

    @property
    def pid(self) -> int:
        """The process id."""
        assert self.process is not None
        return self.process.pid

    def address(self, listener: str) -> str:
        """Returns a listener's address as gRPC wants it."""
        said: str = self.place.config["listeners"][listener]["address"]
        return said.replace("unix://", "unix:")

    def port(self, listener: str) -> int:
        """Returns the port of a TCP listener."""
        return int(self.address(listener).rpartition(":")[2])

    def channel(self, listener: str) -> grpc.Channel:
        """Returns the channel to a listener."""
        if listener not in self._channels:
            options: list[tuple[str, Any]] = [
                ("grpc.max_send_message_length", -1),
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.enable_retries", 0),
            ]
            self._channels[listener] = grpc.insecure_channel(self.address(listener), options)
        return self._channels[listener]

    def call(
        self,
        listener: str,
        method: str,
        request: bytes,
        *,
        timeout: float | None = 30,
        metadata: tuple[tuple[str, str], ...] = (),
    ) -> bytes:
        """Sends raw bytes to `/<service>/<method>` and returns raw bytes."""
        send: Any = self.channel(listener).unary_unary(f"/{method}")
        answer: bytes = send(request, timeout=timeout, metadata=metadata, wait_for_ready=True)
        return answer

    def http(self, path: str) -> tuple[int, str]:
        """Asks the metrics listener."""
        port = self.port("metrics")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def readiness(self) -> dict[str, Any]:
        """Returns `/readyz` as it stands."""
        detail: dict[str, Any] = json.loads(self.http("/readyz")[1])
        return detail

    def metric(self, name: str, **labels: str) -> float:
        """Adds up the samples of a metric that carry all of the labels."""
        total = 0.0
        for sample, pairs, value in self.samples():
            if sample == name and labels.items() <= pairs.items():
                total += value
        return total

    def samples(self) -> Iterator[tuple[str, dict[str, str], float]]:
        """Reads every sample of `/metrics`."""
        from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415

        status, text = self.http("/metrics")
        assert status == 200
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                yield sample.name, sample.labels, sample.value

    def records(self) -> list[dict[str, Any]]:
        """Returns the audit file as it stands; a line that is not whole yet is left out."""
        if not self.place.audit.exists():
            return []
        text = self.place.audit.read_text()
        whole = text[: text.rfind("\n") + 1]
        return [json.loads(line) for line in whole.splitlines()]

    def record(self, decision_id: str) -> dict[str, Any]:
        """Waits for the audit record of a decision."""

        def look() -> dict[str, Any] | None:
            found = (line for line in self.records() if line.get("decision_id") == decision_id)
            return next(found, None)

        found = eventually(look, what=f"record of {decision_id}")
        assert found is not None
        return found
