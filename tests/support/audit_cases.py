"""Records of an audit with sessions, approvals, reports and administrative acts, made by hand."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

BOT = "spiffe://corp.example/ns/desk/sa/bot"
START = datetime(2026, 11, 2, 10, tzinfo=UTC)


def moment(seconds: float) -> str:
    """A timestamp this many seconds after the start."""
    at = START + timedelta(seconds=seconds)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def entry(
    name: str,
    at: float,
    *,
    surface: str = "check",
    given: Mapping[str, Any] | None = None,
    result: Mapping[str, Any] | None = None,
    session: str = "",
    task: str = "",
    agent: str = BOT,
    revision: str = "r1",
) -> dict[str, Any]:
    """A record: by default a permitted call of tier standard.

    Args:
        name: Id of the decision.
        at: Seconds after the start.
        surface: Kind of call.
        given: Merged into `input`.
        result: Merged into `result`.
        session: Session of the task; empty: a call without a task.
        task: Id of the task. Default: one of the session.
        agent: Id of the caller; empty: nobody was verified.
        revision: Revision of the bundle.
    """
    chain = [{"kind": "User", "id": "corp/alice"}, {"kind": "Agent", "id": agent}] if agent else []
    of_task = {"task": {"id": task or f"{session}-root", "session": session}} if session else {}
    return {
        "decision_id": name,
        "timestamp": moment(at),
        "labels": {"id": "n1", "version": "0.1.0", "listener": "main", "surface": surface},
        "bundles": {"desk": {"revision": revision, "digest": revision * 4}},
        "path": f"authz.v1/{surface}",
        "input": {
            "mode": "ENFORCE",
            "chain": chain,
            **of_task,
            "operation": "crm.get",
            **(given or {}),
        },
        "result": {
            "outcome": "PERMIT",
            "reason_code": "PERMITTED",
            "enforced": True,
            "tier": "standard",
            **(result or {}),
        },
        "requested_by": "",
    }


def held(name: str, at: float, approval: str, event: str = "made", **more: Any) -> dict[str, Any]:
    """A call that waits for a person, by the policy `pay` with the control `ASI01`."""
    result = {
        "outcome": "STEP_UP",
        "reason_code": "APPROVAL_REQUIRED",
        "step_up_kinds": ["approve"],
        "rules": [{"kind": "policy", "name": "pay", "file": "policies/pay.cedar", "line": 3}],
        "controls": ["ASI01"],
        "approval": {"id": approval, "event": event, "queues": ["approve"]},
        **more.pop("result", {}),
    }
    return entry(name, at, result=result, **more)


def answer(
    name: str,
    at: float,
    approval: str,
    event: str = "approved",
    *,
    by: str = "corp/bob",
    ms: int = 5000,
    **more: Any,
) -> dict[str, Any]:
    """An answer of a person. It names no task."""
    note = {
        "id": approval,
        "event": event,
        "by": [by],
        "queues": ["approve"],
        "method": "passkey",
        "passkey": "pk-1",
        "card_digest": "c" * 64,
        "decided_in_ms": ms,
        **more,
    }
    refused = {"outcome": "DENY", "reason_code": "NOT_PERMITTED"} if event == "refused" else {}
    given = {"chain": [{"kind": "User", "id": by}], "operation": "authz.approve"}
    return entry(
        name, at, surface="approval_resolve", given=given, result={"approval": note, **refused}
    )


def used(name: str, at: float, approval: str, **more: Any) -> dict[str, Any]:
    """A permit that uses an approval up."""
    note = {"id": approval, "event": "consumed", "by": ["corp/bob"], "queues": ["approve"]}
    return entry(name, at, result={"approval": note}, **more)


def report(name: str, at: float, of: str, *labels: str) -> dict[str, Any]:
    """A report of a permit. It names no task."""
    given = {"report": {"decision_id": of, "result": "OK", "labels": list(labels)}}
    return entry(name, at, surface="report", given=given)


def revocation(name: str, at: float, target: str, value: str, **more: Any) -> dict[str, Any]:
    """A revocation by the owner of the administration socket."""
    revoked = {"target": target, "value": value, "reason": "it is retired", "by": "root", **more}
    given = {"revoked": revoked, "operation": "authz.revoke", "chain": []}
    return entry(name, at, surface="revoke", given=given, agent="")


def summed(name: str, at: float, count: int, code: str = "NO_CREDENTIAL") -> dict[str, Any]:
    """A sum of refusals."""
    return {
        "decision_id": name,
        "timestamp": moment(at),
        "labels": {"id": "n1", "version": "0.1.0", "listener": "main"},
        "sum": {"count": count, "peer": "192.0.2.7", "first": moment(at - 60), "last": moment(at)},
        "result": {"outcome": "DENY", "reason_code": code, "public_code": "UNAUTHENTICATED"},
        "requested_by": "192.0.2.7",
    }


def _of_node(name: str, at: float, node: str, **note: Any) -> dict[str, Any]:
    labels = {"id": node, "version": "0.1.0"}
    return {"decision_id": name, "timestamp": moment(at), "labels": labels, **note}


def loaded(
    name: str, at: float, revision: str = "r1", *, node: str = "n1", trust: str = "t1"
) -> dict[str, Any]:
    """The bundle and the trust that a node uses from now on."""
    bundle = {"bundle": "desk", "revision": revision, "digest": revision * 4, "trust": trust}
    return _of_node(name, at, node, loaded=bundle)


def refused(name: str, at: float, digest: str = "d1", *, node: str = "n1") -> dict[str, Any]:
    """A load that a node refused."""
    errors = [
        {"at": "tasks.yaml:3", "message": "`…` is not a key."},
        {"message": "another error."},
    ]
    note = {"digest": digest, "in_use": "d0", "errors": errors, "omitted": 4, "unrecorded": 2}
    return _of_node(name, at, node, refused=note)


def dropped(name: str, at: float, count: int = 1, *, first: float | None = None) -> dict[str, Any]:
    """Decisions of a node that were answered without a record, because the audit queue was full."""
    begin = moment(at - 1 if first is None else first)
    return _of_node(name, at, "n1", dropped={"count": count, "first": begin, "last": moment(at)})


def expired_task(
    name: str, at: float, session: str, task: str = "", *, tasks: int = 1, node: str = "n1"
) -> dict[str, Any]:
    """The end of a task by time."""
    note = {"session": session, "task": task or f"{session}-root", "tasks": tasks}
    return _of_node(name, at, node, expired=note)


def expired_approval(
    name: str, at: float, approval: str, *, session: str = "", was_approved: bool = False
) -> dict[str, Any]:
    """The end of an approval by time."""
    note: dict[str, Any] = {"session": session, "approval": approval, "queues": ["approve"]}
    if was_approved:
        note["was_approved"] = True
    return _of_node(name, at, "n1", expired=note)


def witnessed(name: str, at: float, *, node: str = "n1") -> dict[str, Any]:
    """Heads of other nodes' logs."""
    head = {"payload": "eyJub2RlIjoibjIifQ", "protected": "eyJhbGciOiJFZERTQSJ9", "signature": "x"}
    return _of_node(name, at, node, heads=[head])
