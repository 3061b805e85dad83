"""Records of the audit, made by hand."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

BOT = "spiffe://trust-domain.example/ns/support/sa/bot"
MAILER = "spiffe://corp.example/ns/mail/sa/mailer"


def agent(id_: str = BOT, *roles: str) -> dict[str, Any]:
    """A link of a chain."""
    return {"kind": "Agent", "id": id_, "roles": list(roles), "claims": {}}


def user(id_: str, *roles: str, **claims: object) -> dict[str, Any]:
    """A link of a chain."""
    return {"kind": "User", "id": id_, "roles": list(roles), "claims": claims}


def record(number: int = 1, code: str = "NO_ROUTE", **said: Any) -> dict[str, Any]:
    """A record with what most of them hold; `at` is its second, other names go into `input` or `result`."""
    second = said.pop("at", number % 60)
    revision = said.pop("revision", "r1")
    given: dict[str, Any] = {
        "enforcer": "envoy",
        "mode": "ENFORCE",
        "chain": [agent()],
        "operation": "",
        "resource": "",
        "destination_class": "",
    }
    result: dict[str, Any] = {
        "outcome": "PERMIT" if code == "PERMITTED" else "DENY",
        "reason_code": code,
        "public_code": "PERMIT" if code == "PERMITTED" else "DENIED",
        "next_action": "none",
        "retry": "never",
        "enforced": code == "PERMITTED",
        "step": "judge",
        "tier": "",
        "step_up_kinds": [],
        "policies": [],
        "policies_at": [],
        "controls": [],
        "obligations": [],
        "message": "",
    }
    top: dict[str, Any] = {}
    for name, value in said.items():
        place = (
            result
            if name in result or name == "without_permit"
            else top
            if name == "trace_id"
            else given
        )
        place[name] = value
    return {
        "decision_id": f"0193{number:04x}-0000-7000-8000-000000000000",
        "timestamp": f"2026-11-25T10:{second // 60:02d}:{second % 60:02d}.000Z",
        "labels": {"id": "n1", "version": "0", "listener": "mesh", "surface": "ext_authz"},
        "bundles": {"desk": {"revision": revision, "digest": f"{revision}0000"}},
        "path": "/envoy.service.auth.v3.Authorization/Check",
        "input": given,
        "result": result,
        **top,
    }


def lines(records: Iterable[Mapping[str, Any]]) -> str:
    """Records as they stand in a file."""
    return "".join(json.dumps(one) + "\n" for one in records)


def write(path: Path, records: Iterable[Mapping[str, Any]]) -> Path:
    """Write records to a file."""
    path.write_text(lines(records))
    return path
