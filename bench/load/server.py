"""The server under measurement, and the floor beneath each lane."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from prometheus_client.parser import text_string_to_metric_families

from bench.load.bundle import ISSUER, TRUST_DOMAIN, Bundle
from bench.load.credentials import AUDIENCE, ISSUER_URL, Credentials
from bench.load.process import Process, ProcessError, free_ports
from bench.load.requests import METHODS, Protos

LANES = ("python", "fast")
# Compiling the largest bundle cold takes longer than everything else together.
_PATIENCE = 120


@dataclass(frozen=True, slots=True)
class Target:
    """A process and the port of each lane that it answers on.

    Attributes:
        process: the process, running.
        ports: by lane.
        metrics: port of `/metrics`; 0 without metrics.
        admin: socket of the administration; the work folder itself where there is none.
    """

    process: Process
    ports: dict[str, int]
    metrics: int = 0
    admin: Path = Path()


@dataclass(frozen=True, slots=True)
class Paths:
    """Where things stand.

    Attributes:
        root: the repository.
        work: folder for everything that a run writes, but for its results.
        extension: folder with the release build of the `authz` package.
        fast_floor: the program of the fast lane's floor.
        ghz: the load generator.
    """

    root: Path
    work: Path
    extension: Path
    fast_floor: Path
    ghz: Path

    def printed(self, command: Sequence[str], patience: float) -> dict[str, Any]:
        """Runs a program in the work folder, on the extension under measurement, and reads the JSON that it prints.

        Args:
            command: what to run.
            patience: seconds until it must have ended.

        Raises:
            ProcessError: it failed, or took longer.
        """
        command = list(command)
        try:
            done = subprocess.run(
                command,
                cwd=self.work,
                env={**os.environ, "PYTHONPATH": f"{self.extension}:{self.root}"},
                capture_output=True,
                text=True,
                timeout=patience,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ProcessError(f"{command[:3]}: {error}") from error
        if done.returncode != 0:
            raise ProcessError(f"{command[:3]} failed: {done.stderr[-1500:]}")
        read: dict[str, Any] = json.loads(done.stdout)
        return read


def server(
    paths: Paths,
    bundle: Bundle,
    credentials: Credentials,
    more: Mapping[str, Mapping[str, object]] | None = None,
) -> Target:
    """Returns a server on a bundle, not yet started, with both lanes and the audit on.

    Args:
        paths: where things stand.
        bundle: what it serves.
        credentials: trusted keys.
        more: of the configuration.
    """
    python, fast, metrics = free_ports(3)
    name = f"server-{bundle.policies}"
    config = paths.work / f"{name}.yaml"
    admin = paths.work / f"{name}-admin" / "admin.sock"
    admin.parent.mkdir(mode=0o700, exist_ok=True)
    state = dict((more or {}).get("state", {}))
    config.write_text(
        json.dumps(
            {
                "bundle": {"path": str(bundle.folder), "watch": False},
                "identity": {"audiences": [AUDIENCE]},
                "trust": {
                    "domains": {TRUST_DOMAIN: {"bundle": {"file": str(credentials.domain_bundle)}}},
                    "issuers": {
                        ISSUER: {
                            "issuer": ISSUER_URL,
                            "audience": [AUDIENCE],
                            "algorithms": ["ES256"],
                            "jwks": {"file": str(credentials.jwks)},
                            "claims": ["groups"],
                        }
                    },
                },
                "listeners": {
                    "main": {"address": f"127.0.0.1:{python}", "insecure_dev": True},
                    "quick": {"address": f"127.0.0.1:{fast}", "insecure_dev": True, "lane": "fast"},
                    "metrics": {"address": f"127.0.0.1:{metrics}"},
                    "admin": {"address": f"unix://{admin}"},
                },
                "audit": {"path": str(paths.work / f"{name}-audit.jsonl")},
                **(more or {}),
                # Several servers stand beside one another, and each owns its state.
                "state": {"path": str(paths.work / f"{name}-state"), **state},
            },
            indent=1,
        )
    )
    process = Process(
        [
            sys.executable,
            "-c",
            "from authz.cli import main; main()",
            "serve",
            "--config",
            str(config),
        ],
        [python, fast, metrics],
        # Not the repository, whose development build of the extension would be found first.
        cwd=paths.work,
        env={"PYTHONPATH": str(paths.extension)},
        log=paths.work / f"{name}.log",
        patience=_PATIENCE,
    )
    return Target(process, {"python": python, "fast": fast}, metrics, admin)


def floors(paths: Paths, answers: dict[str, bytes]) -> dict[str, Target]:
    """Returns the floor of each lane, not yet started.

    Args:
        paths: where things stand.
        answers: a real answer of each surface.
    """
    files = []
    for surface in METHODS:
        file = paths.work / f"answer-{surface}.bin"
        file.write_bytes(answers[surface])
        files.append(str(file))
    python, fast = free_ports(2)
    program = [sys.executable, "-m", "bench.floor.python", str(python)]
    commands = {
        "python": ([*program, *files], python),
        "fast": ([str(paths.fast_floor), str(fast), *files], fast),
    }
    return {
        lane: Target(
            Process(
                command,
                [port],
                cwd=paths.work,
                # The floor uses the server's own executor and options, in the same build.
                env={"PYTHONPATH": f"{paths.extension}:{paths.root}"},
                log=paths.work / f"floor-{lane}.log",
                ends_with_input=lane == "fast",
            ),
            {lane: port},
        )
        for lane, (command, port) in commands.items()
    }


def ask(port: int, surface: str, request: bytes) -> bytes:
    """Returns the answer to one request.

    Raises:
        grpc.RpcError: no answer.
    """
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(
            f"/{METHODS[surface][0]}", request_serializer=bytes, response_deserializer=bytes
        )
        return call(request, timeout=10)


def permitted(protos: Protos, surface: str, answer: bytes) -> str:
    """Tells what is wrong with an answer that should permit; empty: nothing."""
    message = protos.parse(METHODS[surface][2], answer)
    if surface == "check":
        decision = message.decision  # type: ignore[attr-defined]
        # OUTCOME_PERMIT
        return "" if decision.outcome == 1 else f"{decision.reason_code}: {decision.message}"
    status = message.status  # type: ignore[attr-defined]
    allowed = message.HasField("ok_response") and status.code == 0
    return "" if allowed else f"{status.code}: {status.message} {message.dynamic_metadata}"  # type: ignore[attr-defined]


def scrape(port: int) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Reads `/metrics`.

    Args:
        port: of the metrics listener.

    Returns:
        Every sample, by name and labels.

    Raises:
        ProcessError: no answer.
    """
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    except OSError as error:
        raise ProcessError(f"/metrics on port {port} does not answer: {error}") from error
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
