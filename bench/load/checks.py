"""Checks on a task beside the same Checks without one, in this process on one thread.

`python -m bench.load.checks SPEC` reads a `Spec` as JSON and prints what it measured as JSON. It is a process of its own, so
that the extension under measurement is the one that `PYTHONPATH` names.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from authz.bundle import read_folder
from authz.config import State, StateEngine
from authz.engine import Engine, ListenerRules, Plan, Trust, default_settings
from authz.model import CallFacts, Surface
from authz_client.v1 import decision_pb2, tasks_pb2
from bench.load import bundle, credentials

TIMES = ("cpu", "wall")
_LISTENER = "bench"
FACTS = CallFacts(_LISTENER, remaining=30.0)
"""Of every call."""
_PATIENCE_SECONDS = 10.0


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
    judging = engine(spec, folder, written, minted)
    try:
        tasks = started(judging, minted)
        all_rows: list[dict[str, Any]] = []
        all_ratios: list[dict[str, Any]] = []
        for kind in ("stateless", "stateful"):
            operations = [
                one
                for one in written.operations
                if (one in written.stateless) is (kind == "stateless")
            ]
            without = requests(operations, minted, None)
            with_task = requests(operations, minted, tasks)
            reserves = kind == "stateful"
            # Verified tokens are kept, pages of the heap are there.
            half(judging, without, len(without), 0)
            half(judging, with_task, len(with_task), len(with_task) * reserves)
            found = [
                (
                    half(judging, without, spec.calls, 0),
                    half(judging, with_task, spec.calls, spec.calls * reserves),
                )
                for _ in range(spec.pairs)
            ]
            all_rows += rows(spec.state, kind, found)
            all_ratios += ratios(spec.state, kind, found)
    finally:
        judging.close()
    return {"rows": all_rows, "ratios": all_ratios}


def rows(state: str, kind: str, found: Sequence[tuple[Half, Half]]) -> list[dict[str, Any]]:
    """Makes rows of pairs.

    Args:
        state: engine of the state.
        kind: of Check.
        found: the pairs.

    Returns:
        A row for each side: the medians.
    """
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


def ratios(state: str, kind: str, found: Sequence[tuple[Half, Half]]) -> list[dict[str, Any]]:
    """Makes ratios of pairs: the second side over the first.

    Args:
        state: engine of the state.
        kind: of Check.
        found: the pairs.

    Returns:
        A ratio for each time: every pair, and the median.
    """
    return [
        ratio(
            kind,
            state,
            name,
            [getattr(on, name) / getattr(without, name) for without, on in found],
        )
        for name in TIMES
    ]


def ratio(kind: str, state: str, name: str, pairs: Sequence[float]) -> dict[str, Any]:
    """Makes the ratio of one time.

    Args:
        kind: of Check.
        state: engine of the state.
        name: of the time.
        pairs: the ratio of each pair.

    Returns:
        Every pair, and the median.
    """
    return {
        "ratio": kind,
        "state": state,
        "time": name,
        "pairs": [round(pair, 3) for pair in pairs],
        "median": round(statistics.median(pairs), 3),
    }


def engine(
    spec: Spec,
    folder: Path,
    written: bundle.Bundle,
    minted: credentials.Credentials,
    *,
    own: Mapping[str, str] | None = None,
    issuing: Mapping[str, Any] | None = None,
) -> Engine:
    """Makes the engine that is measured.

    Args:
        spec: what is measured.
        folder: for everything that is written.
        written: what it judges by.
        minted: trusted keys.
        own: `issuer` and `keys` of its own credentials, where it issues any.
        issuing: how it issues them.

    Returns:
        The engine, loaded.
    """
    plan = Plan.compile(read_folder(written.folder), {})
    trusted = minted.trust() | ({"own": dict(own)} if own is not None else {})
    trust = Trust.compile(json.dumps(trusted).encode())
    made = Engine(
        default_settings(
            str(folder / "audit.jsonl"),
            state=State(engine=StateEngine(spec.state), dsn=spec.dsn, max_wait=_PATIENCE_SECONDS),
        )
    )
    made.load(
        plan, trust, [ListenerRules(_LISTENER, insecure_dev=True, surfaces=None)], [], issuing
    )
    return made


def started(judging: Engine, minted: credentials.Credentials) -> list[str]:
    """Starts a task for each agent.

    Args:
        judging: the engine.
        minted: the agents, and their subjects.

    Returns:
        Their ids.
    """
    return [_started(judging, *pair) for pair in _pairs(minted)]


def _pairs(minted: credentials.Credentials) -> list[tuple[str, list[decision_pb2.Evidence]]]:
    """Each agent's SPIFFE id, with the evidence of its subject."""
    return [
        (credentials.agent_id(number), [_evidence(decision_pb2.EVIDENCE_ROLE_SUBJECT, token)])
        for number, token in enumerate(minted.subjects)
    ]


def _evidence(role: decision_pb2.EvidenceRole.ValueType, token: str) -> decision_pb2.Evidence:
    return decision_pb2.Evidence(role=role, scheme=decision_pb2.EVIDENCE_SCHEME_BEARER, token=token)


def _started(judging: Engine, assignee: str, evidence: list[decision_pb2.Evidence]) -> str:
    request = tasks_pb2.StartRequest(evidence=evidence, template=bundle.TEMPLATE, assignee=assignee)
    answer = judging.call(Surface.TASK_START, request.SerializeToString(), FACTS)
    return tasks_pb2.StartResponse.FromString(answer).task.id


def requests(
    operations: Sequence[str],
    minted: credentials.Credentials,
    tasks: Sequence[str] | None,
    *,
    subjects: bool = True,
) -> list[bytes]:
    """Makes four distinct requests of each agent, the same with and without tasks but for the task.

    Args:
        operations: what is asked for.
        minted: who asks.
        tasks: the task of each agent; None: none.
        subjects: also show the subject's token.

    Returns:
        Encoded requests.
    """
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
                *(
                    [_evidence(decision_pb2.EVIDENCE_ROLE_SUBJECT, minted.subjects[index % count])]
                    if subjects
                    else []
                ),
            ],
            operation=operations[index % len(operations)],
            arguments_json=json.dumps(arguments, separators=(",", ":")).encode(),
            task=tasks[index % count] if tasks is not None else "",
        )
        built.append(request.SerializeToString())
    return built


def half(judging: Engine, asked: Sequence[bytes], calls: int, reserved: int) -> Half:
    """Makes calls, and checks that all were permitted and so many reserved.

    Args:
        judging: the engine.
        asked: the requests, taken in turn.
        calls: how many.
        reserved: how many of them reserve.

    Returns:
        What they took.

    Raises:
        CheckError: one was not permitted, or more or fewer reserved.
    """
    check, clock = judging.check, time.perf_counter
    before = _reserved(judging)
    answers, times = [], []
    cpu = time.thread_time()
    for index in range(calls):
        request = asked[index % len(asked)]
        began = clock()
        answer = check(request, FACTS)
        times.append(clock() - began)
        answers.append(answer)
    cpu = time.thread_time() - cpu
    for answer in answers:
        permitted(answer)
    made = _reserved(judging) - before
    if made != reserved:
        raise CheckError(f"{calls} calls reserved {made}, not {reserved}")
    return Half(cpu / calls * 1e6, statistics.median(times) * 1e6)


def permitted(answer: bytes) -> decision_pb2.Decision:
    """Reads an answer that must permit.

    Args:
        answer: an encoded CheckResponse.

    Returns:
        The decision.

    Raises:
        CheckError: it does not.
    """
    decision = decision_pb2.CheckResponse.FromString(answer).decision
    if decision.outcome != decision_pb2.OUTCOME_PERMIT:
        raise CheckError(f"not permitted: {decision.reason_code}: {decision.message}")
    return decision


def _reserved(judging: Engine) -> int:
    return int(
        sum(
            value
            for family in judging.metrics()
            if family.name == "authz_reservations"
            for _, labels, value in family.samples
            if labels.get("result") == "reserved"
        )
    )


def main(measuring: Callable[[Spec], dict[str, Any]]) -> None:
    """Measures what the command line says, a `Spec` as JSON, and prints it.

    Args:
        measuring: measures.
    """
    spec: dict[str, Any] = json.loads(sys.argv[1])
    print(json.dumps(measuring(Spec(**spec))))


if __name__ == "__main__":
    main(measure)
