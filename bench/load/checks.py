"""Checks on a task beside the same Checks without one, in this process on one thread.

`python -m bench.load.checks SPEC` reads a `Spec` as JSON and prints what it measured as JSON. It is a process of its own, so
that the extension under measurement is the one that `PYTHONPATH` names.
"""

import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from authz.context import read_folder
from authz.engine import Engine, ListenerRules, Plan, Trust
from authz.model import CallFacts, Surface
from authz.v1 import decision_pb2, tasks_pb2
from bench.load import bundle, credentials

TIMES = ("cpu", "wall")
_LISTENER = "bench"
_FACTS = CallFacts(_LISTENER, remaining=30.0)
_PATIENCE_MS = 10_000


class CheckError(RuntimeError):
    """An answer is not the right one."""


@dataclass(frozen=True, slots=True)
class Spec:
    """What is measured.

    Attributes:
        folder: made, for everything that is written.
        policies: size of the bundle.
        state: engine of the state: `embedded`, `memory` or `postgresql`.
        dsn: of PostgreSQL.
        tasks: how many tasks, each of another agent and subject.
        pairs: interleaved pairs of each ratio.
        calls: calls of each half of a pair.
    """

    folder: str
    policies: int
    state: str
    dsn: str | None
    tasks: int
    pairs: int
    calls: int


@dataclass(frozen=True, slots=True)
class Half:
    """One half of a pair.

    Attributes:
        cpu: processor time of the calling thread for a call, in microseconds.
        wall: median time of a call, in microseconds.
    """

    cpu: float
    wall: float


def measure(spec: Spec) -> dict[str, list[dict[str, Any]]]:
    """Measures stateless and stateful Checks.

    Args:
        spec: what is measured.

    Returns:
        `rows`: of each kind of Check, without and on a task, the medians over the halves of all pairs. `ratios`: of each
        kind and time, each pair and the median.

    Raises:
        CheckError: a Check was not permitted, or reserved where it should not, or the other way round.
    """
    folder = Path(spec.folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = bundle.write(folder / "bundle", spec.policies, tasks=True)
    minted = credentials.mint(folder / "trust", spec.tasks)
    engine = _engine(spec, folder, written, minted)
    try:
        started = [_started(engine, *pair) for pair in _pairs(minted)]
        rows: list[dict[str, Any]] = []
        ratios: list[dict[str, Any]] = []
        for kind in ("stateless", "stateful"):
            operations = [
                one
                for one in written.operations
                if (one in written.stateless) is (kind == "stateless")
            ]
            without = _requests(operations, minted, None)
            with_task = _requests(operations, minted, started)
            reserves = kind == "stateful"
            # Verified tokens are kept, pages of the heap are there.
            _half(engine, without, len(without), 0)
            _half(engine, with_task, len(with_task), len(with_task) * reserves)
            found = [
                (
                    _half(engine, without, spec.calls, 0),
                    _half(engine, with_task, spec.calls, spec.calls * reserves),
                )
                for _ in range(spec.pairs)
            ]
            rows += _rows(spec.state, kind, found)
            ratios += _ratios(spec.state, kind, found)
    finally:
        engine.close()
    return {"rows": rows, "ratios": ratios}


def _rows(state: str, kind: str, found: Sequence[tuple[Half, Half]]) -> list[dict[str, Any]]:
    return [
        {
            "state": state,
            "check": kind,
            "task": side == 1,
            **{
                f"{name}_us": round(
                    statistics.median(getattr(pair[side], name) for pair in found), 2
                )
                for name in TIMES
            },
        }
        for side in (0, 1)
    ]


def _ratios(state: str, kind: str, found: Sequence[tuple[Half, Half]]) -> list[dict[str, Any]]:
    ratios = []
    for name in TIMES:
        pairs = [getattr(on, name) / getattr(without, name) for without, on in found]
        ratios.append(
            {
                "ratio": kind,
                "state": state,
                "time": name,
                "pairs": [round(pair, 3) for pair in pairs],
                "median": round(statistics.median(pairs), 3),
            }
        )
    return ratios


def _engine(
    spec: Spec, folder: Path, written: bundle.Bundle, minted: credentials.Credentials
) -> Engine:
    plan = Plan.compile(read_folder(written.folder), {})
    trust = Trust.compile(
        json.dumps(
            {
                "audiences": [credentials.AUDIENCE],
                "domains": {
                    bundle.TRUST_DOMAIN: {
                        "bundle": minted.domain_bundle.read_text(),
                        "from": str(minted.domain_bundle),
                    }
                },
                "issuers": {
                    bundle.ISSUER: {
                        "issuer": credentials.ISSUER_URL,
                        "audience": [credentials.AUDIENCE],
                        "algorithms": ["ES256"],
                        "jwks": minted.jwks.read_text(),
                        "from": str(minted.jwks),
                        "claims": ["groups"],
                    }
                },
            }
        ).encode()
    )
    engine = Engine(
        {
            "audit_path": str(folder / "audit.jsonl"),
            "state": {
                "engine": spec.state,
                "path": str(folder / "state") if spec.state == "embedded" else None,
                "dsn": spec.dsn,
                "node": "bench",
                "max_wait_ms": _PATIENCE_MS,
            },
        }
    )
    engine.load(plan, trust, [ListenerRules(_LISTENER, insecure_dev=True)], [])
    return engine


def _pairs(minted: credentials.Credentials) -> list[tuple[str, list[decision_pb2.Evidence]]]:
    """Each agent's SPIFFE id, with the evidence of its subject."""
    return [
        (credentials.agent_id(number), [_evidence(decision_pb2.EVIDENCE_ROLE_SUBJECT, token)])
        for number, token in enumerate(minted.subjects)
    ]


def _evidence(role: decision_pb2.EvidenceRole.ValueType, token: str) -> decision_pb2.Evidence:
    return decision_pb2.Evidence(role=role, scheme=decision_pb2.EVIDENCE_SCHEME_BEARER, token=token)


def _started(engine: Engine, assignee: str, evidence: list[decision_pb2.Evidence]) -> str:
    request = tasks_pb2.StartRequest(evidence=evidence, template=bundle.TEMPLATE, assignee=assignee)
    answer = engine.call(Surface.TASK_START, request.SerializeToString(), _FACTS)
    return tasks_pb2.StartResponse.FromString(answer).task.id


def _requests(
    operations: Sequence[str], minted: credentials.Credentials, tasks: Sequence[str] | None
) -> list[bytes]:
    """Four distinct requests of each agent, the same with and without tasks but for the task."""
    count = len(minted.agents)
    built = []
    for index in range(4 * count):
        arguments = {
            "id": f"account-{index:05}",
            "amount": 100 + index,
            "currency": "EUR",
            "note": f"invoice {index} of november",
        }
        request = decision_pb2.CheckRequest(
            evidence=[
                _evidence(decision_pb2.EVIDENCE_ROLE_AGENT, minted.agents[index % count]),
                _evidence(decision_pb2.EVIDENCE_ROLE_SUBJECT, minted.subjects[index % count]),
            ],
            operation=operations[index % len(operations)],
            arguments_json=json.dumps(arguments, separators=(",", ":")).encode(),
            task=tasks[index % count] if tasks is not None else "",
        )
        built.append(request.SerializeToString())
    return built


def _half(engine: Engine, requests: Sequence[bytes], calls: int, reserved: int) -> Half:
    """Makes calls, and checks that all were permitted and so many reserved."""
    check, clock = engine.check, time.perf_counter
    before = _reserved(engine)
    answers, times = [], []
    cpu = time.thread_time()
    for index in range(calls):
        request = requests[index % len(requests)]
        began = clock()
        answer = check(request, _FACTS)
        times.append(clock() - began)
        answers.append(answer)
    cpu = time.thread_time() - cpu
    for answer in answers:
        decision = decision_pb2.CheckResponse.FromString(answer).decision
        if decision.outcome != decision_pb2.OUTCOME_PERMIT:
            raise CheckError(f"not permitted: {decision.reason_code}: {decision.message}")
    made = _reserved(engine) - before
    if made != reserved:
        raise CheckError(f"{calls} calls reserved {made}, not {reserved}")
    return Half(cpu / calls * 1e6, statistics.median(times) * 1e6)


def _reserved(engine: Engine) -> int:
    return int(
        sum(
            value
            for family in engine.metrics()
            if family.name == "authz_reservations"
            for _, labels, value in family.samples
            if labels.get("result") == "reserved"
        )
    )


def main(arguments: list[str]) -> None:
    """Measures what the argument says, and prints it.

    Args:
        arguments: a `Spec` as JSON.
    """
    spec: dict[str, Any] = json.loads(arguments[0])
    print(json.dumps(measure(Spec(**spec))))


if __name__ == "__main__":
    main(sys.argv[1:])
