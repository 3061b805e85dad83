"""Measures task credentials: how many a server issues a second, and what a Check that shows one costs."""

import json
import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc

from authz_client.dpop import ProofKey
from authz_client.v1 import credentials_pb2, decision_pb2, tasks_pb2
from bench.load import bundle, credentials, requests, server
from bench.load.engines import on_each
from bench.load.ghz import Ghz, summary
from bench.load.matrix import MIDDLE
from bench.load.redeeming import ISSUER
from bench.load.server import Paths

_PATIENCE = 900
_CHECK = "/authz.v1.Authorizer/Check"
_START = "/authz.v1.Tasks/Start"
_ISSUE = "authz.v1.Credentials/Issue"
_CLIENTS = 8


class CredentialsError(RuntimeError):
    """Task credentials could not be measured."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured.

    Attributes:
        issued: credentials of each load.
        loads: loads of each kind; their median counts.
        tasks: how many tasks credentials are of.
        pairs: interleaved pairs of the ratio.
        calls: calls of each half of a pair. So many credentials are live at once: one of each task, as there is one JWT-SVID of
            each agent.
    """

    issued: int
    loads: int
    tasks: int
    pairs: int
    calls: int


WHOLE = Extent(6_000, 5, 256, 101, 256)
QUICK = Extent(2_000, 2, 64, 7, 64)
KINDS = ("bearer", "dpop")
# In a closed loop; more wait for one another's commit only.
CONCURRENCY = 32


def run(paths: Paths, extent: Extent, say: Callable[[str], None]) -> dict[str, Any]:
    """Measures issuing through gRPC, commit included, and redeeming in a process of its own.

    Args:
        paths: where things stand.
        extent: how much.
        say: told of each step.

    Returns:
        `issued`: of each kind of credential what was measured; `issue_ms`: the time that the slower kind takes of one
        second's issuing, in ms; `rows` and `ratios` of `bench.load.redeeming`.

    Raises:
        CredentialsError: something was refused.
        ProcessError: a program failed, or took longer than a quarter of an hour.
    """
    issued = _issuing(paths, extent, say)
    dsns = {"embedded": None}
    counts = {"tasks": extent.tasks, "pairs": extent.pairs, "calls": extent.calls}
    found = on_each(
        paths, "bench.load.redeeming", "credentials", dsns, counts, say=say, patience=_PATIENCE
    )
    slowest = min(row["rps"] for row in issued)
    return {
        "issued": issued,
        "issue_ms": round(1e3 / slowest, 4),
        "rows": [row for one in found for row in one["rows"]],
        "ratios": [ratio for one in found for ratio in one["ratios"]],
    }


def _issuing(paths: Paths, extent: Extent, say: Callable[[str], None]) -> list[dict[str, Any]]:
    written = bundle.write(paths.work / "bundle-credentials", MIDDLE, tasks=True)
    minted = credentials.mint(paths.work / "trust-credentials", extent.tasks)
    protos = requests.compile_protos(paths.root, paths.work / "protos-credentials.binpb")
    more: dict[str, dict[str, object]] = {
        "credentials": {
            "issuer": ISSUER,
            "keys": {"folder": str(paths.work / "keys-credentials")},
            "lifetime": {"standard": "1h"},
            "dpop": {"max_proofs_per_key": 4096},
        },
        "state": {"report_within": "1h"},
    }
    target = server.server(paths, written, minted, more)
    ghz = Ghz(paths.ghz, protos.path)
    found = []
    with (
        target.process,
        grpc.insecure_channel(f"127.0.0.1:{target.ports['python']}") as channel,
        ThreadPoolExecutor(_CLIENTS) as pool,
    ):
        tasks = list(pool.map(lambda one: _started(channel, one), enumerate(minted.subjects)))
        keys = [ProofKey() for _ in tasks]
        for kind in KINDS:
            measured = []
            for _ in range(extent.loads):
                checks = _checks(written, minted, tasks, extent.issued)
                permits = list(pool.map(lambda one: _permitted(channel, one), checks))
                data = requests.write(
                    paths.work / f"issue-{kind}.bin",
                    (
                        _issue(minted, index, permit, keys if kind == "dpop" else None)
                        for index, permit in enumerate(permits)
                    ),
                )
                before = target.process.usage()
                sent = ghz.total(_ISSUE, data, target.ports["python"], extent.issued, CONCURRENCY)
                cpu = target.process.usage().cpu_seconds - before.cpu_seconds
                figures = summary(sent)
                if figures.errors:
                    raise CredentialsError(f"{kind}: not all were issued: {figures.errors}")
                measured.append((figures, cpu / figures.count * 1e6))
            row = {
                "kind": kind,
                "rps": round(statistics.median(one.rps for one, _ in measured), 1),
                "rps_loads": [round(one.rps, 1) for one, _ in measured],
                "p50_ms": round(statistics.median(one.p50_ms for one, _ in measured), 3),
                "p99_ms": round(statistics.median(one.p99_ms for one, _ in measured), 3),
                "server_cpu_us": round(statistics.median(cpu for _, cpu in measured), 1),
                "concurrency": CONCURRENCY,
            }
            say(f"credentials: {kind}: {row['rps']:g} issued a second, p99 {row['p99_ms']:g} ms")
            found.append(row)
    return found


def _evidence(role: decision_pb2.EvidenceRole.ValueType, token: str) -> decision_pb2.Evidence:
    return decision_pb2.Evidence(role=role, scheme=decision_pb2.EVIDENCE_SCHEME_BEARER, token=token)


def _started(channel: grpc.Channel, numbered: tuple[int, str]) -> str:
    number, subject = numbered
    request = tasks_pb2.StartRequest(
        evidence=[_evidence(decision_pb2.EVIDENCE_ROLE_SUBJECT, subject)],
        template=bundle.TEMPLATE,
        assignee=credentials.agent_id(number),
    )
    answer = _asked(channel, _START, request.SerializeToString())
    return tasks_pb2.StartResponse.FromString(answer).task.id


def _checks(
    written: bundle.Bundle, minted: credentials.Credentials, tasks: list[str], count: int
) -> list[bytes]:
    operations = [one for one in written.operations if one not in written.stateless]
    built = []
    for index in range(count):
        arguments = {"id": f"account-{index:05}", "amount": 100 + index, "currency": "EUR"}
        request = decision_pb2.CheckRequest(
            evidence=[
                _evidence(decision_pb2.EVIDENCE_ROLE_AGENT, minted.agents[index % len(tasks)])
            ],
            operation=operations[index % len(operations)],
            arguments_json=json.dumps(arguments).encode(),
            task=tasks[index % len(tasks)],
            wants_credential=True,
        )
        built.append(request.SerializeToString())
    return built


def _permitted(channel: grpc.Channel, request: bytes) -> str:
    answer = _asked(channel, _CHECK, request)
    decision = decision_pb2.CheckResponse.FromString(answer).decision
    if decision.outcome != decision_pb2.OUTCOME_PERMIT:
        raise CredentialsError(f"not permitted: {decision.reason_code}: {decision.message}")
    return decision.decision_id


def _asked(channel: grpc.Channel, method: str, request: bytes) -> bytes:
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
    return call(request, timeout=30)


def _issue(
    minted: credentials.Credentials, index: int, permit: str, keys: list[ProofKey] | None
) -> bytes:
    agents = minted.agents
    request = credentials_pb2.IssueRequest(
        evidence=[_evidence(decision_pb2.EVIDENCE_ROLE_AGENT, agents[index % len(agents)])],
        decision_id=permit,
    )
    if keys is not None:
        request.proof = keys[index % len(keys)].proof("POST", f"{ISSUER}/{_ISSUE}")
    return request.SerializeToString()
