"""Runs ghz once and reads what it measured."""

import json
import math
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.load.requests import METHODS

# Of the open loop; with `--async` they only start requests and never wait for one.
OPEN_WORKERS = 16
# A proxy opens one connection for each of its workers.
CONNECTIONS = 4


@dataclass(frozen=True, slots=True)
class Load:
    """How requests are sent.

    Attributes:
        concurrency: requests in flight in a closed loop; 0: open loop.
        rate: requests a second in the open loop; 0: closed loop.
        seconds: how long.
    """

    concurrency: int
    rate: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One request.

    Attributes:
        at: when it was sent, in seconds since the epoch.
        latency_ms: until its answer was there.
        status: gRPC status.
    """

    at: float
    latency_ms: float
    status: str


@dataclass(frozen=True, slots=True)
class Measured:
    """What ghz saw.

    Attributes:
        count: requests that were answered.
        errors: requests that failed, by status.
        rps: answers a second.
        p50_ms: half of them took at most this long.
        p99_ms: 99 % of them did.
        p999_ms: 99.9 % of them did.
    """

    count: int
    errors: dict[str, int]
    rps: float
    p50_ms: float
    p99_ms: float
    p999_ms: float


class LoadError(RuntimeError):
    """ghz could not run, or requests failed."""


@dataclass(frozen=True, slots=True)
class Ghz:
    """The load generator.

    Attributes:
        program: ghz itself.
        protoset: serialised descriptors of both surfaces.
    """

    program: Path
    protoset: Path

    def samples(self, surface: str, data: Path, port: int, load: Load) -> list[Sample]:
        """Sends a load and waits until the last answer is there.

        Args:
            surface: `check` or `ext_authz`.
            data: file of `bench.load.requests.write`; requests are taken in turn.
            port: on 127.0.0.1.
            load: how requests are sent.

        Returns:
            Every request, in the order of their answers.

        Raises:
            LoadError: ghz failed or sent nothing.
        """
        workers = load.concurrency or OPEN_WORKERS
        how = [
            *(("--async", f"--rps={load.rate}") if load.rate else ()),
            f"--duration={load.seconds:.3f}s",
            "--duration-stop=wait",
        ]
        return self._sent(METHODS[surface][0], data, port, workers, how, patience=load.seconds + 30)

    def total(
        self, method: str, data: Path, port: int, count: int, concurrency: int
    ) -> list[Sample]:
        """Sends each message of a file once, in a closed loop.

        Args:
            method: what is called.
            data: file of `bench.load.requests.write` with as many messages.
            port: on 127.0.0.1.
            count: how many.
            concurrency: requests in flight.

        Returns:
            Every request, in the order of their answers.

        Raises:
            LoadError: ghz failed or sent nothing.
        """
        return self._sent(method, data, port, concurrency, [f"--total={count}"], patience=120)

    def _sent(
        self, method: str, data: Path, port: int, workers: int, how: list[str], *, patience: float
    ) -> list[Sample]:
        command = [
            str(self.program),
            "--insecure",
            f"--protoset={self.protoset}",
            f"--call={method}",
            f"--binary-file={data}",
            f"--concurrency={workers}",
            f"--connections={min(workers, CONNECTIONS)}",
            *how,
            "--timeout=10s",
            "--format=json",
            f"127.0.0.1:{port}",
        ]
        try:
            done = subprocess.run(command, capture_output=True, timeout=patience, check=False)
        except subprocess.TimeoutExpired as error:
            raise LoadError(f"ghz did not end {patience:.0f} s after it began") from error
        if done.returncode != 0:
            words = done.stderr.decode(errors="replace")[-500:]
            raise LoadError(f"ghz ended with {done.returncode}: {words}")
        found = [_sample(one) for one in json.loads(done.stdout).get("details") or []]
        if not found:
            raise LoadError("ghz reported no request")
        return found


def summary(sent: Sequence[Sample], *, warm_up: float = 0.0) -> Measured:
    """Returns rates and percentiles of at least one sample.

    Args:
        sent: the samples.
        warm_up: seconds from the first request's start on, in which connections are opened: what starts in them does not
            count in percentiles.
    """
    errors: dict[str, int] = {}
    for one in sent:
        if one.status != "OK":
            errors[one.status] = errors.get(one.status, 0) + 1
    began = min(one.at for one in sent)
    latencies = sorted(one.latency_ms for one in sent if one.at >= began + warm_up)
    # From the first request's start to the last answer; ghz's own total holds its start-up too.
    seconds = max(one.at + one.latency_ms / 1e3 for one in sent) - began
    return Measured(
        count=len(sent),
        errors=errors,
        rps=len(sent) / seconds,
        p50_ms=percentile(latencies, 0.50),
        p99_ms=percentile(latencies, 0.99),
        p999_ms=percentile(latencies, 0.999),
    )


def percentile(sorted_values: Sequence[float], share: float) -> float:
    """Returns the nearest-rank percentile of values in ascending order.

    Args:
        sorted_values: at least one.
        share: above 0, at most 1.

    Raises:
        ValueError: no values, or a share out of range.
    """
    if not sorted_values or not 0 < share <= 1:
        raise ValueError(f"no percentile {share} of {len(sorted_values)} values")
    return sorted_values[math.ceil(share * len(sorted_values)) - 1]


def _sample(detail: dict[str, Any]) -> Sample:
    # ghz stamps a request when it ends, in nanoseconds with trailing zeros cut off.
    ended = datetime.fromisoformat(detail["timestamp"][:26]).timestamp()
    seconds = detail["latency"] / 1e9
    return Sample(at=ended - seconds, latency_ms=seconds * 1e3, status=detail["status"])
