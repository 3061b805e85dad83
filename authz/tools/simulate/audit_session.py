"""Reads one session from an audit log.

The record of a call has no scope of its task and, by default, only digests of texts. A call whose arguments are not in clear is not
taken through the bundle: its arguments decide about its resource and its destinations.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from authz.audit import Record, RecordedDecision
from authz.tools.simulate.session import SessionReading, SessionStep, milliseconds

__all__ = ["read_audit_session"]

_CALLS: Final = frozenset({"check", "batch_check", "ext_authz"})
_ARGUMENTS: Final = "/input/arguments"
_ERASED: Final = "salted:"
_RESULTS: Final = frozenset({"ok", "failed", "aborted"})
# Kinds that follow from the proof of the caller, and that the engine finds by itself.
_OF_PROOF: Final = ("bound_token", "fresh_credential", "confidence", "reauth:")


def read_audit_session(
    records: Iterable[tuple[Record, RecordedDecision]], session: str
) -> SessionReading:
    """Read the steps of a session.

    Args:
        records: Decisions with their records, in the order of the log.
        session: Id of the session.
    """
    reader = _Reader(SessionReading("audit"), session)
    for record, decision in records:
        reader.read(record, decision)
    return reader.reading


class _Reader:
    def __init__(self, reading: SessionReading, session: str) -> None:
        self.reading = reading
        self._session = session
        self._chains: dict[tuple[str, ...], str] = {}
        self._started: set[str] = set()
        self._permits: set[str] = set()

    def read(self, record: Record, decision: RecordedDecision) -> None:
        given = _map(record.fields, "input")
        if report := _map(given, "report"):
            self._report(record, decision, report)
            return
        task, history = _map(given, "task"), _map(given, "session")
        if self._session not in {task.get("session"), history.get("id")}:
            return
        self.reading.lines += 1
        if decision.surface not in _CALLS or decision.probe or decision.is_sum:
            self.reading.others[decision.surface or "other records"] += 1
            return
        self._call(record, decision, given, task)

    def _call(
        self,
        record: Record,
        decision: RecordedDecision,
        given: Mapping[str, Any],
        task: Mapping[str, Any],
    ) -> None:
        if problem := _unclear(record.fields, decision):
            self.reading.misses_call = True
            self.reading.gap(record.line, problem)
            return
        checks = _map(given, "checks")
        request: dict[str, Any] = {
            "name": decision.decision_id,
            "operation": decision.operation,
            "input": decision.arguments if isinstance(decision.arguments, dict) else {},
            "labels": list(_texts(given.get("labels"))),
            "supported_obligations": list(_texts(_map(record.fields, "result").get("obligations"))),
            "enforcer": decision.enforcer,
            "satisfied": [
                kind for kind in _texts(checks.get("satisfied")) if not kind.startswith(_OF_PROOF)
            ],
            "is_bound": "bound_token" in _texts(checks.get("satisfied")),
            "age": age if isinstance(age := checks.get("age"), int) else 0,
            "confidence": number if isinstance(number := checks.get("confidence"), int) else 0,
        }
        if task.get("kind") in {"root", "child"}:
            name = self._task(record, decision, task)
            if not name:
                return
            request["task"] = name
        else:
            request["as"] = _caller(decision)
        recorded = {
            "outcome": decision.outcome,
            "reason_code": decision.code,
            "enforced": decision.enforced,
        }
        at = milliseconds(decision.at)
        self._permits.add(decision.decision_id)
        self.reading.add(
            SessionStep(record.line, "call", request, at, recorded, decision.decision_id)
        )

    def _task(self, record: Record, decision: RecordedDecision, task: Mapping[str, Any]) -> str:
        """Return the name of the task of a call, and start it before its first call."""
        name = str(task.get("id", ""))
        if name in self._started:
            return name
        chain = tuple(f"{link.kind} {link.id}" for link in decision.chain)
        at = milliseconds(decision.at)
        if task.get("kind") == "root":
            request: dict[str, Any] = {
                "name": name,
                "as": _caller(decision),
                "template": str(task.get("template", "")),
            }
            self.reading.add(SessionStep(record.line, "start", request, at))
        else:
            parent = self._chains.get(chain[:-1])
            if parent is None:
                self.reading.misses_call = True
                self.reading.gap(record.line, "the task above the task of the call made no call")
                return ""
            request = {
                "name": name,
                "parent": parent,
                "to": decision.agent,
                "template": str(task.get("template", "")),
            }
            self.reading.add(SessionStep(record.line, "delegate", request, at))
        self._started.add(name)
        self._chains.setdefault(chain, name)
        return name

    def _report(
        self, record: Record, decision: RecordedDecision, report: Mapping[str, Any]
    ) -> None:
        of = report.get("decision_id")
        if not isinstance(of, str) or of not in self._permits:
            return
        self.reading.lines += 1
        result = str(report.get("result", "")).lower().removeprefix("report_result_")
        if result not in _RESULTS:
            self.reading.gap(record.line, f"the result {result[:40]!r} of a report is not known")
            return
        request = {"of": of, "result": result, "labels": list(_texts(report.get("labels")))}
        if report.get("values"):
            self.reading.gap(record.line, "the log does not have the values of a report")
        self.reading.add(SessionStep(record.line, "report", request, milliseconds(decision.at)))


def _unclear(fields: Mapping[str, Any], decision: RecordedDecision) -> str:
    """Return why a call cannot be made again; empty if it can."""
    if not decision.operation:
        return f"{decision.code}: the record names no operation"
    if not decision.chain:
        return f"{decision.code}: the record names no caller"
    masked = [text for text in _texts(fields.get("masked")) if text.startswith(_ARGUMENTS)]
    if masked or not isinstance(decision.arguments, dict) or _has_erased(decision.arguments):
        member = masked[0].removeprefix(_ARGUMENTS)[:80] if masked else ""
        return f"{decision.operation}: the arguments {member} are not in clear; list the system in `record_texts`"
    return ""


def _has_erased(value: object) -> bool:
    """Return whether a text of arguments was erased."""
    if isinstance(value, str):
        return value.startswith(_ERASED)
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_has_erased(part) for part in parts)


def _caller(decision: RecordedDecision) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for link in decision.chain:
        if link.kind == "Agent":
            made["agent"] = link.id
        else:
            issuer, _, sub = link.id.partition("/")
            claims = {name: value for name, value in link.claims.items() if _is_claim(value)}
            kind = "service" if link.kind == "Service" else "user"
            made["subject"] = {"issuer": issuer, "sub": sub, "kind": kind, "claims": claims}
    return made


def _is_claim(value: object) -> bool:
    return isinstance(value, bool | int | str) or (
        isinstance(value, list) and all(isinstance(item, str) for item in value)
    )


def _map(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = fields.get(name)
    return value if isinstance(value, dict) else {}


def _texts(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
