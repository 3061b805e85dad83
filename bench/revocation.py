"""Measures how long after its answer a revocation still lets a call through, on three nodes of one PostgreSQL.

    python -m bench.revocation                   writes bench/results/revocation.json
    python -m bench.revocation --revocations 50  a short run; add --results FOLDER

A node asks for the changes of the others once a minute here, so that only notices of the database can be in time. Callers ask all
nodes without pause about one subject; the subject is revoked at one of the nodes in turn. The figure of a revocation is the time
from the answer of `Admin/Revoke` to the last permit that any caller received, 0 where the last one came before that answer.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import grpc

from authz_client.v1 import admin_pb2, admin_pb2_grpc, decision_pb2
from bench import machine
from bench.load import bundle, credentials, postgres, server
from bench.load.process import ProcessError

ROOT: Final = Path(__file__).resolve().parent.parent
NODES: Final = 3
POLL_SECONDS: Final = 60
# What a node knows may be this old: more than twice the interval at which it asks.
STALENESS_SECONDS: Final = 150
POLICIES: Final = 100
_PATIENCE: Final = 20.0
_LANE: Final = "fast"
_CHECK: Final = "/authz.v1.Authorizer/Check"


class RevocationError(RuntimeError):
    """Revocations could not be measured."""


def run(extension: Path, revocations: int) -> dict[str, Any]:
    """Starts a database and the nodes, and revokes subjects one after the other.

    Args:
        extension: folder with the `authz` package that is measured.
        revocations: how many.

    Returns:
        `last_permit_ms`: p50, p99 and max over the revocations, `late`: number of revocations after whose answer a permit came, and
        the settings.

    Raises:
        RevocationError: a node permits a revoked subject for longer than 20 s, or refuses one that is not revoked.
        ProcessError: a program does not start.
    """
    with (
        tempfile.TemporaryDirectory(prefix="authz-bench-revocation-") as folder,
        postgres.started() as database,
        ExitStack() as stack,
    ):
        if database is None:
            raise RevocationError("PostgreSQL is not installed")
        work = Path(folder)
        minted = credentials.mint(work / "trust", revocations)
        written = bundle.write(work / "bundle", POLICIES)
        nodes = []
        for number in range(NODES):
            place = work / f"node-{number}"
            place.mkdir()
            paths = server.Paths(ROOT, place, extension, Path(), Path())
            state = {
                "engine": "postgresql",
                "dsn": database.dsn,
                "path": None,
                "poll_interval": f"{POLL_SECONDS}s",
                "revocation_staleness": f"{STALENESS_SECONDS}s",
            }
            node = server.server(paths, written, minted, {"state": state})
            stack.enter_context(node.process)
            nodes.append(node)
        asked = [
            stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{node.ports[_LANE]}"))
            for node in nodes
        ]
        admins = [
            admin_pb2_grpc.AdminStub(
                stack.enter_context(grpc.insecure_channel(f"unix:{node.admin}"))
            )
            for node in nodes
        ]
        pool = stack.enter_context(ThreadPoolExecutor(NODES))
        late = [
            _measure(pool, asked, admins[turn % NODES], turn, ask)
            for turn, ask in enumerate(_asks(written, minted))
        ]
        version = database.version
    return {
        "nodes": NODES,
        "revocations": revocations,
        "poll_s": POLL_SECONDS,
        "postgresql": version,
        "last_permit_ms": {
            "p50": round(statistics.median(late) * 1e3, 2),
            "p99": round(_percentile(late, 0.99) * 1e3, 2),
            "max": round(max(late) * 1e3, 2),
        },
        "late": sum(one > 0 for one in late),
    }


def _asks(written: bundle.Bundle, minted: credentials.Credentials) -> list[bytes]:
    """Returns a request of an agent for each subject, all of them permitted."""
    messages = []
    for number, subject in enumerate(minted.subjects):
        message = decision_pb2.CheckRequest(
            operation=written.operations[number % len(written.operations)],
            arguments_json=json.dumps(
                {"id": f"account-{number:05}", "amount": 100, "currency": "EUR", "note": "bench"}
            ).encode(),
        )
        for role, token in (
            (decision_pb2.EVIDENCE_ROLE_AGENT, minted.agents[number]),
            (decision_pb2.EVIDENCE_ROLE_SUBJECT, subject),
        ):
            message.evidence.add(role=role, scheme=decision_pb2.EVIDENCE_SCHEME_BEARER, token=token)
        messages.append(message.SerializeToString())
    return messages


def _measure(
    pool: ThreadPoolExecutor,
    asked: Sequence[grpc.Channel],
    admin: admin_pb2_grpc.AdminStub,
    number: int,
    ask: bytes,
) -> float:
    """Revokes one subject while each node is asked about it; returns the seconds from the answer to the last permit, at least 0."""
    permitted = threading.Barrier(len(asked) + 1)
    probes = [pool.submit(_ask_until_refused, channel, ask, permitted) for channel in asked]
    permitted.wait(_PATIENCE)
    admin.Revoke(
        admin_pb2.AdminRevokeRequest(
            subject=f"{bundle.ISSUER}/user-{number:03}", reason="bench", by="bench"
        ),
        timeout=_PATIENCE,
    )
    answered = time.monotonic()
    return max(0.0, max(probe.result(_PATIENCE * 2) for probe in probes) - answered)


def _ask_until_refused(channel: grpc.Channel, ask: bytes, permitted: threading.Barrier) -> float:
    """Asks without pause; returns the time at which the last permit was received."""
    call: Any = channel.unary_unary(
        _CHECK, request_serializer=bytes, response_deserializer=_is_permit
    )
    if not call(ask, timeout=_PATIENCE):
        permitted.abort()
        raise RevocationError("a subject was refused before it was revoked")
    permitted.wait(_PATIENCE)
    last = time.monotonic()
    deadline = last + _PATIENCE
    while call(ask, timeout=_PATIENCE):
        last = time.monotonic()
        if last > deadline:
            raise RevocationError(f"a node permits a revoked subject after {_PATIENCE:g} s")
    return last


def _is_permit(raw: bytes) -> bool:
    answer = decision_pb2.CheckResponse.FromString(raw)
    return answer.decision.outcome == decision_pb2.OUTCOME_PERMIT


def _percentile(values: Sequence[float], share: float) -> float:
    """Returns the smallest value that so large a share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def main() -> int:
    """Measures and writes the results.

    Returns:
        Exit status: 1 if revocations could not be measured.
    """
    parser = argparse.ArgumentParser(
        prog="python -m bench.revocation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--revocations", type=int, default=1_000, help="how many")
    parser.add_argument(
        "--extension", type=Path, default=ROOT, help="folder with the package that is measured"
    )
    parser.add_argument(
        "--results", type=Path, default=ROOT / "bench" / "results", help="folder for the results"
    )
    arguments = parser.parse_args()
    try:
        measured = run(arguments.extension.resolve(), arguments.revocations)
    except (RevocationError, ProcessError, grpc.RpcError) as error:
        print(f"bench.revocation: {error}", file=sys.stderr)
        return 1
    program = "from authz import engine; print(engine.build_profile())"
    profile = subprocess.run(
        [sys.executable, "-c", program],
        cwd=arguments.extension,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.strip()
    found = {"machine": machine.facts(ROOT, profile), **measured}
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / "revocation.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
