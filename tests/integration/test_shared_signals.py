"""Security events of an identity provider, over HTTP to a running node: what the subject began ends, and newer tokens count."""

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.minting import Authority
from tests.support.people import People, search
from tests.support.postgres import Postgres, programs
from tests.support.server import Server, layout
from tests.support.signals import AUDIENCE, CAEP, ISSUER, SSF, TYPE, Transmitter
from tests.support.surfaces import CHECK, LANES, decision_of, reason_name
from tests.support.waiting import eventually, free_port
from tests.support.working import BUNDLE, PLANNER, WORKERS, Crew

SECRET = "Bearer s3cret"
REVOKED = CAEP + "session-revoked"
TRANSMITTER = Transmitter()


def configured(folder: Path) -> dict[str, Any]:
    """Returns the changes of a configuration with one transmitter, `idp`, and no task credentials."""
    folder.mkdir(exist_ok=True)
    secret, keys = folder / "authorization", folder / "signals.json"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    keys.write_text(TRANSMITTER.jwks())
    return {
        "listeners": {"http": {"address": f"127.0.0.1:{free_port()}", "insecure_dev": True}},
        "shared_signals": {
            "transmitters": {
                "idp": {
                    "issuer": ISSUER,
                    "audience": [AUDIENCE],
                    "algorithms": ["RS256"],
                    "jwks": {"file": str(keys)},
                    "authorization_file": str(secret),
                    "subjects": ["corp"],
                    "verification_within": "1h",
                }
            }
        },
    }


@pytest.fixture
def server(authority: Authority, tmp_path: Path) -> Iterator[Server]:
    """A server with the transmitter."""
    place = layout(tmp_path / "node", authority, "desk", configured(tmp_path / "signals"))
    with Server(place) as running:
        yield running


def push(server: Server, token: str, **headers: str) -> tuple[int, str]:
    """Pushes a token as the transmitter does."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port("http"), timeout=30)
    try:
        whole = {"authorization": SECRET, "content-type": TYPE, **headers}
        connection.request("POST", "/shared-signals/idp", token, whole)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def subject(authority: Authority, sub: str) -> dict[str, Any]:
    """Names a subject of the issuer `corp`."""
    return {"format": "iss_sub", "iss": authority.issuers["corp"].iss, "sub": sub}


def reasons(server: Server, request: bytes) -> set[str]:
    """What both lanes answer."""
    return {reason_name(decision_of(server.call(f"main{lane}", CHECK, request))) for lane in LANES}


def test_a_revoked_session(server: Server, authority: Authority) -> None:
    """Its tokens are refused on both lanes, also after a restart; tokens of a new login and of others count."""
    people, now = People.of(authority), int(time.time())
    old = search(people.bot, authority.subject("alice", groups=["employees"], iat=now - 100))
    new = search(people.bot, authority.subject("alice", groups=["employees"], iat=now - 10))
    for_boss = search(people.bot, people.boss)
    assert reasons(server, old) == reasons(server, new) == {"PERMITTED"}
    token = TRANSMITTER.token(
        REVOKED, {"event_timestamp": now - 50}, subject(authority, "alice"), jti="e-1"
    )
    assert push(server, token) == (202, "")
    for _ in range(2):
        assert reasons(server, old) == {"REVOKED"}
        assert reasons(server, new) == reasons(server, for_boss) == {"PERMITTED"}
        # The same event again, as after a lost answer, and after a restart.
        assert push(server, token) == (202, "")
        server.close()
        server.start()
    taken = [one["input"]["security_event"] for one in server.records() if _is_event(one)]
    assert [(one["jti"], one["action"], one["subject"]) for one in taken] == [
        ("e-1", "end", "corp/alice")
    ] * 3


def _is_event(record: dict[str, Any]) -> bool:
    return "security_event" in record.get("input", {})


@pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed (Debian: postgresql)")
def test_tasks_on_another_node_end(authority: Authority, tmp_path: Path) -> None:
    """An event at one node ends the tasks of its subject on every node of a store, with all below them."""
    crew = Crew.of(authority)
    with Postgres() as database, ExitStack() as stack:
        state = {"state": {"engine": "postgresql", "dsn": database.dsn}}
        one, other = (
            stack.enter_context(
                Server(
                    layout(
                        tmp_path / name,
                        authority,
                        BUNDLE,
                        {**configured(tmp_path / f"{name}-signals"), **state},
                    )
                )
            )
            for name in ("one", "other")
        )
        root = crew.start(other)
        child = crew.delegate(other, root, PLANNER, WORKERS[0])
        assert crew.check(other, child, "desk.note", WORKERS[0]) == "PERMITTED"
        event = {"event_timestamp": int(time.time())}
        assert push(one, TRANSMITTER.token(REVOKED, event, subject(authority, "alice")))[0] == 202
        # These calls change state, and so read all changes in their own transaction.
        assert crew.check(other, child, "desk.note", WORKERS[0]) in {"REVOKED", "TASK_ENDED"}
        eventually(lambda: crew.check(other, root, "desk.look") in {"REVOKED", "TASK_ENDED"})
        assert database.execute("SELECT count(*) FROM authz_records WHERE kind = 3 AND live") == "0"


def test_other_answers(server: Server, authority: Authority) -> None:
    """Events of nobody here are acknowledged; verification shows in the status; forgeries are refused and counted."""
    stranger = {"format": "iss_sub", "iss": "https://elsewhere.example", "sub": "alice"}
    assert push(server, TRANSMITTER.token(REVOKED, {}, stranger)) == (202, "")
    stream = {"format": "opaque", "id": "stream-1"}
    verification = TRANSMITTER.token(SSF + "verification", {"state": "c3RhdGU"}, stream)
    assert push(server, verification) == (202, "")
    status = server.readiness()["shared_signals"]["idp"]
    assert status["verification_state"] == "c3RhdGU"
    assert status["verification_overdue"] is False

    good = TRANSMITTER.token(REVOKED, {}, subject(authority, "alice"))
    code, body = push(server, good, authorization="Bearer other")
    assert (code, json.loads(body)["err"]) == (400, "authentication_failed")
    code, body = push(server, good.rpartition(".")[0] + ".AAAA")
    assert (code, json.loads(body)["err"]) == (400, "invalid_key")

    count = "authz_security_events_total"
    assert server.metric(count, transmitter="idp", event="session-revoked", result="ignored") == 1
    assert server.metric(count, transmitter="idp", event="verification", result="recorded") == 1
    assert server.metric(count, transmitter="idp", event="unread", result="refused") == 2
    assert server.metric("authz_security_verification_overdue", transmitter="idp") == 0
