"""`authz exception breakglass|confirm|end|list`, and the handlers of the administration socket behind them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from authz.approvals import PeopleByUid
from authz.cli import main
from authz.config import ApprovalPerson
from authz.errors import ApiError, GrpcCode
from authz.server.grpc.breakglass import AdminBreakglass
from authz_client.v1 import admin_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

ID = "0199c1f2-7c1e-7f3a-8b1d-52a0c1d2e3f4"


def request(status: str, **more: Any) -> admin_pb2.Breakglass:
    """A request for break-glass."""
    made = admin_pb2.Breakglass(
        id=ID, system="erp", ticket="INC-7", opened_by="corp/ann", duration_seconds=1800, **more
    )
    made.status = admin_pb2.BreakglassStatus.Value(f"BREAKGLASS_STATUS_{status}")
    made.confirm_before.FromDatetime(datetime(2026, 12, 1, 14, 15, tzinfo=UTC))
    if status != "OPEN":
        made.confirmed_by = "corp/bob"
        made.ends_at.FromDatetime(datetime(2026, 12, 1, 14, 40, tzinfo=UTC))
    return made


class Node:
    """A node that answers as it is told."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.operations: list[str] = []

    def __call__(self, _address: str) -> Node:
        """Connect."""
        return self

    def open_breakglass(
        self, asked: admin_pb2.OpenBreakglassRequest
    ) -> admin_pb2.OpenBreakglassResponse:
        """Open a request."""
        self.asked.append(asked)
        opened = request("OPEN")
        return admin_pb2.OpenBreakglassResponse(breakglass=opened, operations=self.operations)

    def confirm_breakglass(self, breakglass_id: str) -> admin_pb2.ConfirmBreakglassResponse:
        """Confirm it."""
        self.asked.append(breakglass_id)
        confirmed = request("IN_FORCE")
        return admin_pb2.ConfirmBreakglassResponse(breakglass=confirmed, operations=self.operations)

    def end_breakglass(self, breakglass_id: str) -> admin_pb2.EndBreakglassResponse:
        """End it."""
        self.asked.append(breakglass_id)
        return admin_pb2.EndBreakglassResponse(breakglass=request("ENDED", ended_by="corp/ann"))

    def list_breakglass(self) -> admin_pb2.ListBreakglassResponse:
        """List one."""
        return admin_pb2.ListBreakglassResponse(breakglass=[request("IN_FORCE")])

    def status(self) -> SimpleNamespace:
        """Tell of no exception of the bundle."""
        return SimpleNamespace(detail_json=b"{}")


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    """The node of the command."""
    node = Node()
    monkeypatch.setattr("authz.cli.exception.Remote", node)
    return node


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command."""

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["exception", *words])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def opening(duration: str) -> tuple[str, ...]:
    """The words that open a request."""
    return (
        "breakglass",
        "--system",
        "erp",
        "--for",
        duration,
        "--ticket",
        "INC-7",
        "--reason",
        "r",
    )


def test_a_request_is_opened_confirmed_and_ended(node: Node, run: Any) -> None:
    """Each answer says what comes next."""
    node.operations = ["erp.post"]
    code, out, err = run(*opening("30m"))
    assert (code, err) == (0, "")
    assert f"authz exception confirm {ID}" in out
    assert "14:15Z" in out
    assert node.asked[0].duration_seconds == 1800
    _, out, err = run("confirm", ID)
    assert "in force at erp for all callers until 2026-12-01 14:40Z" in out
    assert (f"authz exception end {ID}" in out, err) == (True, "")
    _, out, _ = run("end", ID)
    assert f"break-glass {ID} at erp has ended" in out


@pytest.mark.parametrize("words", [opening("30m"), ("confirm", ID)])
def test_a_bundle_that_does_not_read_it_is_told_of(node: Node, run: Any, words: tuple[str]) -> None:
    """With an example of a policy."""
    code, _, err = run(*words)
    assert (code, node.operations) == (0, [])
    assert "no policy of the bundle reads exception breakglass" in err
    assert 'context.exception.contains(Exception::"breakglass")' in err


@pytest.mark.parametrize(
    ("duration", "what"),
    [("61m", "at most 60 minutes"), ("0s", "at most 60 minutes"), ("soon", "a number and a unit")],
)
def test_the_time_is_checked(node: Node, run: Any, duration: str, what: str) -> None:
    """Before the node is asked."""
    code, _, err = run(*opening(duration))
    assert code == 1
    assert what in err
    assert node.asked == []


def test_requests_are_listed(node: Node, run: Any) -> None:
    """Beside the exceptions of the bundle."""
    _, out, _ = run("list")
    assert "no standing exceptions" in out
    assert all(word in out for word in (ID, "in force", "erp", "corp/ann", "corp/bob", "INC-7"))
    _, out, _ = run("list", "--format", "json")
    (entry,) = json.loads(out)
    assert (entry["name"], entry["status"]) == ("breakglass", "in_force")
    assert (entry["ends_at"], entry["ended_at"]) == ("2026-12-01T14:40:00Z", None)
    assert node.asked == []


class Engine:
    """Refuses a caller that is not a person."""

    def __init__(self) -> None:
        self.people: list[str | None] = []

    def breakglass_open(self, person: Mapping[str, Any] | None, _request: bytes) -> bytes:
        """Note who asks."""
        self.people.append(None if person is None else person["sub"])
        if person is None:
            raise ApiError("NOT_PERMITTED", GrpcCode.PERMISSION_DENIED, "no person")
        return b""

    breakglass_confirm = breakglass_open
    breakglass_end = breakglass_open

    def breakglass_list(self, _request: bytes) -> bytes:
        """List nothing."""
        return b""


@pytest.mark.parametrize(
    ("users", "sub", "told"),
    [
        ({1000}, "ann", ""),
        ({1001}, None, "user 1001 is not in `approvals.people`"),
        ({1000, 0}, None, "several users are connected"),
        (set(), None, "the user of this connection is not in `approvals.people`"),
    ],
)
def test_a_person_is_the_only_connected_user(users: set[int], sub: str | None, told: str) -> None:
    """The engine is asked for others, too: it records that they are refused."""
    engine = Engine()
    people = PeopleByUid([ApprovalPerson(uid=1000, issuer="corp", sub="ann")])
    handlers = AdminBreakglass(engine, people, lambda: frozenset(users), context())
    refused: list[str] = []

    def abort(_code: object, text: str) -> None:
        refused.append(text)
        raise RuntimeError

    grpc_context: Any = SimpleNamespace(
        abort=abort,
        set_trailing_metadata=lambda _: None,
        invocation_metadata=lambda: (),
        time_remaining=lambda: 5.0,
    )
    call: Any = handlers.handlers()["OpenBreakglass"].unary_unary
    if told:
        with pytest.raises(RuntimeError):
            call(b"", grpc_context)
    else:
        call(b"", grpc_context)
    assert engine.people == [sub]
    assert [told in text for text in refused] == ([True] if told else [])


def context() -> Any:
    """What the handlers share."""
    metrics = SimpleNamespace(handled=lambda *_: None)
    return SimpleNamespace(metrics=metrics, failed=lambda *_: None)
