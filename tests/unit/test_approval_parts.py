"""Parts of a node that serve approvals: the engine's store, the users of a socket, and the status."""

from __future__ import annotations

import json
import os
import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from authz.approvals import (
    AnswerMethod,
    ApprovalChange,
    EngineApprovals,
    PasskeyAssertion,
    PeopleByUid,
    Person,
)
from authz.cli.render.status import approval_status_rows
from authz.config import (
    ApprovalLogin,
    ApprovalPerson,
    Approvals,
    ApprovalsListener,
    Ciba,
    Passkeys,
)
from authz.errors import ConfigError
from authz.server.build import _check_people
from authz.server.socket_users import users_of_socket
from authz.server.status.approval_ways import ApprovalWays
from authz_client.v1 import approvals_pb2
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

APPROVED = approvals_pb2.APPROVAL_STATUS_APPROVED


class Engine:
    """Keeps what it was asked, as the engine's wrapper takes it."""

    def __init__(self) -> None:
        self.people: list[Any] = []
        self.numbers: list[tuple[int, int]] = []
        self.changes: list[tuple[str, str, str, list[str]]] | None = []
        self.newest = 0
        self.keys: list[Any] = []

    def approval_resolve(self, person: Any, request: bytes) -> bytes:
        """Answer with the id that was asked for."""
        self.people.append(person)
        asked = approvals_pb2.ResolveRequest.FromString(request)
        approval = approvals_pb2.Approval(id=asked.approval_id)
        return approvals_pb2.ResolveResponse(approval=approval).SerializeToString()

    def approval_changes(self, after: int, wait_ms: int) -> tuple[int, Any]:
        """Answer what was set."""
        self.numbers.append((after, wait_ms))
        return self.newest, self.changes

    def put_passkey(self, record: Any) -> None:
        """Keep a record."""
        self.keys.append(record)


def test_a_person_goes_to_the_engine_as_json_can_say_it() -> None:
    """With the passkey's assertion; nobody is `None`."""
    engine = Engine()
    store = EngineApprovals(cast("Any", engine))
    passkey = PasskeyAssertion("id", "signature", "data", "client")
    person = Person(
        issuer="corp",
        sub="alice",
        method=AnswerMethod.PASSKEY,
        authenticated_at_ms=1,
        claims={"groups": ("managers",)},
        passkey=passkey,
    )
    request = approvals_pb2.ResolveRequest(approval_id="a-1")

    assert store.approval_resolve(person, request).approval.id == "a-1"
    store.approval_resolve(None, request)

    told, nobody = (json.loads(json.dumps(one)) for one in engine.people)
    assert told == {
        "issuer": "corp",
        "sub": "alice",
        "method": "passkey",
        "authenticated_at_ms": 1,
        "claims": {"groups": ["managers"]},
        "acr": "",
        "uid": None,
        "passkey": {
            "credential_id": "id",
            "signature": "signature",
            "authenticator_data": "data",
            "client_data_json": "client",
        },
    }
    assert nobody is None


def test_changes_begin_now_and_a_gap_is_told() -> None:
    """Also where the engine has seen no change yet: 0 would mean from now on again."""
    engine = Engine()
    store = EngineApprovals(cast("Any", engine))

    first = store.approval_changes(0, 250)
    assert (first.after, first.changes, first.has_gap) == (1, (), False)
    engine.newest, engine.changes = 1, [("a-1", "t1", "approved", []), ("b-1", "", "new word", [])]
    second = store.approval_changes(first.after, 250)
    engine.newest, engine.changes = 5000, None
    third = store.approval_changes(second.after, 250)

    assert engine.numbers == [(0, 0), (0, 250), (1, 250)]
    assert second.changes[0] == ApprovalChange("a-1", "t1", APPROVED, ())
    assert second.changes[1].status == approvals_pb2.APPROVAL_STATUS_UNSPECIFIED
    assert (third.after, third.has_gap) == (5001, True)


def test_a_passkey_is_written_with_its_person() -> None:
    """Whatever the record says."""
    engine = Engine()
    record = {"credential_id": "id", "issuer": "other"}
    EngineApprovals(cast("Any", engine)).put_passkey("corp", "alice", record)
    assert engine.keys == [{"credential_id": "id", "issuer": "corp", "sub": "alice"}]


def test_a_user_is_the_configured_person_and_authenticated_now() -> None:
    """Every other user is nobody."""
    bob = ApprovalPerson(uid=7, issuer="corp", sub="bob", claims={"groups": ("managers",)})
    people = PeopleByUid([bob], clock=lambda: 12.5)

    found = people.find(7)

    assert found is not None
    assert (found.name, found.method, found.uid, found.authenticated_at_ms) == (
        "corp/bob",
        AnswerMethod.SOCKET,
        7,
        12_500,
    )
    assert found.claims == {"groups": ("managers",)}
    assert people.find(8) is None


def test_the_users_of_a_socket_are_those_of_its_open_connections(tmp_path: Path) -> None:
    """Not those of another socket, and none once they have closed."""
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as other:
        for listening, name in ((server, "a"), (other, "b")):
            listening.bind(str(tmp_path / name))
            listening.listen()
        path = str(tmp_path / "a")
        assert users_of_socket(path) == frozenset()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            accepted, _ = server.accept()
            with accepted:
                assert users_of_socket(path) == {os.geteuid()}
                assert users_of_socket(str(tmp_path / "b")) == frozenset()
        eventually(lambda: users_of_socket(path) == frozenset())


def test_people_who_cannot_open_the_socket_stop_the_start() -> None:
    """Each is named, with what to do."""
    nobody = ApprovalPerson(uid=4711, issuer="corp", sub="bob")
    mine = ApprovalPerson(uid=os.geteuid(), issuer="corp", sub="alice")
    root = ApprovalPerson(uid=0, issuer="corp", sub="root")
    _check_people((mine, root))
    with pytest.raises(ConfigError, match=r"user 4711 \(`corp/bob`\) cannot open") as refused:
        _check_people((mine, nobody))
    assert "Let the person answer at the approvals page" in str(refused.value)


PAGE = ApprovalsListener(address="127.0.0.1:8383", insecure_dev=True)
LOGIN = ApprovalLogin(issuer="corp", client_id="page")
CIBA = Ciba(issuer="corp", client_id="phone", client_secret_file="phone.secret")
PERSON = ApprovalPerson(uid=1, issuer="corp", sub="bob")


@pytest.mark.parametrize(
    ("kinds", "listener", "approvals", "is_problem"),
    [
        (("approve",), None, Approvals(), True),
        ((), None, Approvals(), False),
        (("approve",), None, Approvals(people=(PERSON,)), False),
        (("approve",), None, Approvals(url="https://other.example"), False),
        (("approve",), PAGE, Approvals(url="https://a.example", login=LOGIN), False),
        (("approve",), PAGE, Approvals(passkeys=Passkeys(rp_id="a.example")), False),
        (("approve",), None, Approvals(login=LOGIN), True),
        (None, None, Approvals(), False),
        (("confirm",), None, Approvals(), True),
        (("confirm",), None, Approvals(ciba=CIBA), False),
        (("approve", "confirm"), None, Approvals(ciba=CIBA), True),
    ],
)
def test_readiness_tells_when_nobody_can_answer(
    kinds: tuple[str, ...] | None, listener: Any, approvals: Approvals, *, is_problem: bool
) -> None:
    """Only where rules wait for a person, and only if no other node has the page."""
    plan = SimpleNamespace(person_kinds=kinds) if kinds is not None else None
    runtime = SimpleNamespace(snapshot=SimpleNamespace(plan=plan))
    config = SimpleNamespace(approvals=approvals, listeners=SimpleNamespace(approvals=listener))
    ways = ApprovalWays(cast("Any", config), cast("Any", runtime))

    problems = list(ways.problems())

    assert bool(problems) == is_problem
    if problems:
        kind = "approve" if kinds and "approve" in kinds else "confirm"
        assert f"({kind}), and nobody can answer: set `approvals.people`" in problems[0]
    assert ways.detail()["kinds"] == list(kinds or ())


def test_the_status_shows_what_waits() -> None:
    """By queue, with the age of the oldest; nothing where nothing waits."""
    assert list(approval_status_rows(None)) == []
    assert list(approval_status_rows({"open": 0, "more": False, "queues": {}})) == []
    rows = approval_status_rows(
        {"open": 3, "more": True, "queues": {"approve": 2, "confirm": 1}, "oldest_seconds": 125}
    )
    assert list(rows) == [
        ("approvals", "3 or more open, the oldest for 2 min"),
        ("approvals", "approve: 2"),
        ("approvals", "confirm: 1"),
    ]
