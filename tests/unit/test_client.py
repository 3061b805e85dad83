"""The client: what runs, what raises, and what is asked again."""

import asyncio
import dataclasses
import datetime as dt
import enum
import inspect
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from authz_client import (
    Authz,
    Caller,
    Denied,
    NextAction,
    Obligation,
    PublicCode,
    Refused,
    Retry,
    StepUp,
    TokenFile,
    ToolList,
    Unavailable,
    acting_for,
    caller,
    default,
    filter_tools,
    within_task,
)
from authz_client.base_errors import UsageError
from authz_client.errors import public_text, row_of
from authz_client.v1 import authorizer_pb2, decision_pb2, options_pb2
from tests.support.node import NoAnswer, Node, decision
from tests.support.reasons import reason_rows

ROWS = reason_rows()
REFUSALS = [name for name, row in ROWS.items() if row["public_code"] != "PERMIT"]


def client(node: Node, **more: Any) -> Authz:
    """A client of a node in memory."""
    return Authz(transport=node, **{"timeout": 20, **more})


def both(authz: Authz, function: Callable[..., Any]) -> list[Callable[..., Any]]:
    """The same function, guarded as sync and as async code."""

    @authz.guard("crm.search")
    def here(query: str, limit: int = 10) -> Any:
        return function(query, limit)

    @authz.guard("crm.search")
    async def there(query: str, limit: int = 10) -> Any:
        await asyncio.sleep(0)
        return function(query, limit)

    return [here, lambda *args, **kwargs: asyncio.run(there(*args, **kwargs))]


def guarded_by(guard: Any, operation: str, body: Callable[..., Any]) -> Any:
    """A function of one argument, guarded."""

    def run(value: Any) -> Any:
        return body(value)

    return guard(operation)(run)


class Body:
    """The body of a guarded function; knows whether it ran."""

    def __init__(self) -> None:
        self.ran: list[tuple[Any, ...]] = []

    def __call__(self, *args: Any) -> str:
        """Runs."""
        self.ran.append(args)
        return "done"


@pytest.mark.parametrize("way", [0, 1])
def test_what_is_permitted_runs_with_its_arguments(way: int) -> None:
    """What is permitted runs with its arguments."""
    node, body = Node(), Body()
    guarded = both(client(node, credentials="svid"), body)[way]
    assert guarded("T-1") == "done"
    assert body.ran == [("T-1", 10)]
    (request,) = node.requests("Check")
    assert request.operation == "crm.search"
    assert json.loads(request.arguments_json) == {"query": "T-1", "limit": 10}
    assert [(e.role, e.scheme, e.token) for e in request.evidence] == [(1, 1, "svid")]
    assert request.mode == decision_pb2.MODE_ENFORCE


@pytest.mark.parametrize("way", [0, 1])
@pytest.mark.parametrize("reason", REFUSALS)
def test_what_is_refused_does_not_run(reason: str, way: int) -> None:
    """What is refused does not run."""
    node, body = Node(), Body()
    node.says("Check", decision(reason, policy_ids=["p"], message="for the enforcer"))
    guarded = both(client(node, retries=0), body)[way]
    with pytest.raises(Refused) as raised:
        guarded("T-1")
    assert body.ran == []
    row, error = ROWS[reason], raised.value
    kind = {"STEP_UP": StepUp, "UNAVAILABLE": Unavailable}.get(row["public_code"], Denied)
    assert type(error) is kind
    assert error.public_code == row["public_code"]
    assert error.next_action == row["next_action"]
    assert error.retry == row["retry"]
    assert error.reason_code == reason
    assert error.operation == "crm.search"
    assert str(error) == f"{row['public_message']} (decision {error.decision_id})"
    assert "for the enforcer" not in str(error)
    assert error.message == "for the enforcer"


@pytest.mark.parametrize("way", [0, 1])
@pytest.mark.parametrize("reason", REFUSALS)
def test_no_retry_turns_a_denial_into_a_permit(reason: str, way: int) -> None:
    """Only what was not decided is asked again: with naive retries, every one of these would run."""
    node, body = Node(), Body()
    node.says("Check", decision(reason), decision("PERMITTED"))
    guarded = both(client(node), body)[way]
    undecided = ROWS[reason]["public_code"] == "UNAVAILABLE" and ROWS[reason]["retry"] == "LATER"
    if undecided:
        assert guarded("T-1") == "done"
        assert len(node.asked) == 2
    else:
        with pytest.raises(Refused):
            guarded("T-1")
        assert body.ran == []
        assert len(node.asked) == 1


def test_denials_that_may_pass_later_are_not_asked_again() -> None:
    """The trap: `retry: LATER` alone is no reason, since some of them were judged."""
    judged = [
        name
        for name in REFUSALS
        if ROWS[name]["retry"] == "LATER" and ROWS[name]["public_code"] != "UNAVAILABLE"
    ]
    assert judged


@pytest.mark.parametrize("retries", [0, 1, 3])
@pytest.mark.parametrize("way", [0, 1])
def test_retries_are_bounded(way: int, retries: int) -> None:
    """Retries are bounded."""
    for failure in (NoAnswer(grpc.StatusCode.UNAVAILABLE), decision("OVERLOADED")):
        node, body = Node().says("Check", failure), Body()
        with pytest.raises(Unavailable):
            both(client(node, retries=retries, timeout=5), body)[way]("T-1")
        assert len(node.asked) == retries + 1
        assert body.ran == []


def test_failures_of_both_kinds_share_their_retries() -> None:
    """Failures of both kinds share their retries."""
    node = Node()
    failing = [NoAnswer(grpc.StatusCode.UNAVAILABLE), decision("OVERLOADED")] * 5
    node.says("Check", *failing)
    with pytest.raises(Unavailable):
        client(node, retries=3, timeout=5).check("crm.search")
    assert len(node.asked) == 4


@pytest.mark.parametrize(
    "code",
    [
        code
        for code in grpc.StatusCode
        if code not in {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    ],
)
def test_an_rpc_that_fails_otherwise_is_made_once(code: grpc.StatusCode) -> None:
    """An rpc that fails otherwise is made once."""
    node, body = Node().says("Check", NoAnswer(code), decision("PERMITTED")), Body()
    with pytest.raises(Refused):
        both(client(node), body)[0]("T-1")
    assert len(node.asked) == 1
    assert body.ran == []


@pytest.mark.parametrize(
    "answer",
    [
        b"\xff\xff",
        b"",
        decision_pb2.CheckResponse(),
        decision_pb2.CheckResponse(decision=decision_pb2.Decision()),
        decision("PERMITTED", outcome=decision_pb2.OUTCOME_DENY),
        decision("PERMITTED", public_code=options_pb2.PUBLIC_CODE_DENIED),
        decision("NOT_PERMITTED", outcome=decision_pb2.OUTCOME_PERMIT),
        decision_pb2.CheckResponse(
            decision=decision_pb2.Decision(
                outcome=decision_pb2.OUTCOME_PERMIT, public_code=options_pb2.PUBLIC_CODE_PERMIT
            )
        ),
        RuntimeError("broken"),
    ],
    ids=[
        "not a message",
        "no bytes",
        "no decision",
        "an empty decision",
        "the outcome is a denial",
        "the public code is a denial",
        "the reason is a denial",
        "no reason",
        "an error",
    ],
)
def test_no_answer_but_a_permit_lets_anything_run(answer: Any) -> None:
    """No answer but a permit lets anything run."""
    for way in (0, 1):
        node, body = Node().says("Check", answer), Body()
        with pytest.raises((Refused, RuntimeError)):
            both(client(node), body)[way]("T-1")
        assert body.ran == []


def test_values_of_a_later_version_are_the_strictest() -> None:
    """Values of a later version are the strictest."""
    answer = decision("NOT_PERMITTED")
    answer.decision.ClearField("public_code")
    answer.decision.public_code = 99  # type: ignore[assignment]
    answer.decision.retry = 99  # type: ignore[assignment]
    answer.decision.outcome = 99  # type: ignore[assignment]
    with pytest.raises(Denied) as raised:
        client(Node().says("Check", answer)).check("crm.search")
    assert raised.value.public_code is PublicCode.DENIED
    assert raised.value.retry is Retry.NEVER


def test_the_texts_are_the_servers() -> None:
    """The texts are the servers."""
    for name, row in ROWS.items():
        assert public_text(row_of(name)) == row["public_message"]
    assert row_of("NO_SUCH_CODE").code is PublicCode.DENIED


def test_a_step_up_says_what_to_show() -> None:
    """A step up says what to show."""
    challenge = decision_pb2.Challenge(approval_id="a-1", url="https://approve.example/a-1")
    answer = decision("APPROVAL_REQUIRED", step_up_kinds=["approve"], challenge=challenge)
    with pytest.raises(StepUp) as raised:
        client(Node().says("Check", answer)).check("gmail.send_email")
    assert raised.value.kinds == ("approve",)
    assert raised.value.url == "https://approve.example/a-1"
    assert raised.value.next_action is NextAction.APPROVE


def test_an_observed_denial_is_let_through_and_says_so() -> None:
    """An observed denial is let through and says so."""
    answer = decision(
        "PERMITTED", observed=decision_pb2.Observed(outcome=decision_pb2.OUTCOME_DENY)
    )
    answer.decision.enforced = False
    assert not client(Node().says("Check", answer)).check("crm.search").enforced


# --- time


@pytest.mark.parametrize("way", [0, 1])
def test_an_answer_after_the_deadline_counts_no_more(way: int) -> None:
    """An answer after the deadline counts no more."""
    node, body = Node(delay=0.2), Body()
    with pytest.raises(Unavailable) as raised:
        both(client(node, timeout=0.1), body)[way]("T-1")
    assert raised.value.reason_code == "DEADLINE"
    assert body.ran == []


def test_retries_end_with_the_deadline() -> None:
    """Retries end with the deadline."""
    node = Node().says("Check", decision("OVERLOADED"))
    started = time.monotonic()
    with pytest.raises(Unavailable):
        client(node, timeout=0.15, retries=10).check("crm.search")
    assert time.monotonic() - started < 10
    assert len(node.asked) < 11


def test_a_question_may_have_a_time_of_its_own() -> None:
    """A question may have a time of its own."""
    node = Node(delay=0.2)
    assert client(node, timeout=0.1).check("crm.search", timeout=5).decision_id


# --- arguments


class Colour(enum.Enum):
    """Not JSON by itself."""

    RED = "red"


@dataclasses.dataclass
class Mail:
    """Not JSON by itself either."""

    to: list[str]
    colour: Colour = Colour.RED


def judged(node: Node) -> Any:
    """The arguments that the node was asked about last."""
    return json.loads(node.requests("Check")[-1].arguments_json)


def test_arguments_by_a_mapping_by_a_function_and_by_their_names() -> None:
    """Arguments by a mapping by a function and by their names."""
    node = Node()
    authz = client(node)

    @authz.guard("crm.get", arguments={"id": "ticket_id"})
    def by_mapping(context: object, ticket_id: str) -> None:
        del context, ticket_id

    by_mapping(object(), ticket_id="T-1")
    assert judged(node) == {"id": "T-1"}

    @authz.guard("crm.get", arguments=lambda *ids: {"ids": list(ids)})
    def by_function(*ids: str) -> None:
        del ids

    by_function("a", "b")
    assert judged(node) == {"ids": ["a", "b"]}

    class Desk:
        @authz.guard("gmail.send_email")
        def send(self, mail: Mail, *, urgent: bool = False, **more: str) -> None:
            del mail, urgent, more

        @classmethod
        @authz.guard("gmail.send_email")
        def send_all(cls, to: str) -> None:
            del to

    Desk().send(Mail(["bob@acme.example"]), subject="Re")
    assert judged(node) == {
        "mail": {"to": ["bob@acme.example"], "colour": "red"},
        "urgent": False,
        "subject": "Re",
    }
    Desk.send_all("x")
    assert judged(node) == {"to": "x"}

    @authz.guard("files.read", resource="path")
    def read(path: str, lines: int) -> None:
        del path, lines

    read("a/b", 3)
    assert judged(node) == {"lines": 3}
    assert node.requests("Check")[-1].resource == "a/b"


def test_what_is_no_argument_is_refused() -> None:
    """What is no argument is refused."""
    node = Node()
    authz = client(node)
    with pytest.raises(UsageError, match="any number"):
        authz.guard("crm.get")(lambda *ids: ids)
    with pytest.raises(UsageError, match="no parameter `x`"):
        authz.guard("crm.get", arguments={"id": "x"})(lambda y: y)
    body = Body()
    guarded = guarded_by(authz.guard, "crm.get", body)
    for value in (object(), float("nan"), {"a": {1, 2}}):
        with pytest.raises(UsageError, match="written as JSON"):
            guarded(value)
    with pytest.raises(TypeError):
        guarded()
    assert body.ran == []
    assert node.asked == []


def test_arguments_that_change_while_they_are_judged_do_not_run() -> None:
    """Arguments that change while they are judged do not run."""
    to, body = ["bob@acme.example"], Body()

    def meanwhile(_: decision_pb2.CheckRequest) -> decision_pb2.CheckResponse:
        to.append("eve@evil.example")
        return decision("PERMITTED")

    node = Node().says("Check", meanwhile)
    guarded = guarded_by(client(node).guard, "gmail.send_email", body)
    with pytest.raises(Denied, match="may not be performed"):
        guarded(to)
    assert body.ran == []


def test_generators_run_only_where_permitted() -> None:
    """Generators run only where permitted."""
    node = Node().says("Check", decision("NOT_PERMITTED"), decision("PERMITTED"))
    authz, body = client(node), Body()

    @authz.guard("crm.search")
    def rows(query: str) -> Iterator[str]:
        yield body(query)

    @authz.guard("crm.search")
    async def stream(query: str) -> AsyncIterator[str]:
        yield body(query)

    async def collect() -> list[str]:
        return [row async for row in stream("T-1")]

    with pytest.raises(Denied):
        rows("T-1")
    assert list(rows("T-1")) == ["done"]
    assert asyncio.run(collect()) == ["done"]
    node.says("Check", decision("NOT_PERMITTED"))
    with pytest.raises(Denied):
        asyncio.run(collect())
    assert len(body.ran) == 2


def test_the_key_of_a_request_goes_along_and_is_no_argument() -> None:
    """Each time that it is asked, and for whichever call."""
    node = Node().says("Check", NoAnswer(grpc.StatusCode.UNAVAILABLE), decision("PERMITTED"))
    authz, body = client(node), Body()

    @authz.guard("bank.pay", idempotency_key="request", resource="account")
    def pay(account: str, amount: int, request: str) -> None:
        body(account, amount, request)

    pay("a", 3, "r-1")
    pay("a", 3, request="r-2")
    asked = [(one.idempotency_key, one.arguments_json) for one in node.requests("Check")]
    assert asked == [("r-1", b'{"amount": 3}')] * 2 + [("r-2", b'{"amount": 3}')]
    assert {one.resource for one in node.requests("Check")} == {"a"}
    assert body.ran == [("a", 3, "r-1"), ("a", 3, "r-2")]
    pay("a", 3, None)  # type: ignore[arg-type]
    assert node.requests("Check")[-1].idempotency_key == ""
    with pytest.raises(UsageError, match="nothing"):
        authz.guard("bank.pay", idempotency_key="nothing")(lambda amount: amount)


def test_a_guarded_function_stays_what_it_is() -> None:
    """A guarded function stays what it is."""
    authz = client(Node())

    @authz.guard("crm.search")
    async def search(query: str) -> str:
        """Searches."""
        return query

    assert inspect.iscoroutinefunction(search)
    assert (search.__name__, search.__doc__) == ("search", "Searches.")
    assert list(inspect.signature(search).parameters) == ["query"]


# --- obligations


@pytest.mark.parametrize("way", [0, 1])
def test_obligations_are_stated_and_done(way: int) -> None:
    """Obligations are stated and done."""
    node, order = Node(), []
    authz = client(node)

    def notify(obligation: Obligation) -> None:
        order.append(f"{obligation.name} {obligation.operation} {obligation.arguments}")

    def redact(_: Obligation, result: Any) -> Any:
        order.append("redact")
        return result.replace("done", "d***")

    authz.obligations.register("notify", before=notify)
    authz.obligations.register("redact:pii", after=redact)
    node.says("Check", decision("PERMITTED", obligations=["notify", "redact:pii"]))

    def function(*_: Any) -> str:
        order.append("run")
        return "done"

    assert both(authz, function)[way]("T-1", 3) == "d***"
    said = "notify crm.search {'query': 'T-1', 'limit': 3}"
    assert order == [said, "run", "redact"]
    assert list(node.requests("Check")[0].supported_obligations) == ["notify", "redact:pii"]


@pytest.mark.parametrize("way", [0, 1])
def test_an_obligation_that_nothing_does_denies(way: int) -> None:
    """An obligation that nothing does denies."""
    node, body = Node().says("Check", decision("PERMITTED", obligations=["watermark"])), Body()
    with pytest.raises(Denied) as raised:
        both(client(node), body)[way]("T-1")
    assert raised.value.reason_code == "ENFORCER_REFUSED"
    assert body.ran == []
    with pytest.raises(Denied):
        client(node).check("crm.search")
    permit = client(node).check("crm.search", supported_obligations=["watermark"])
    assert permit.obligations == ("watermark",)


@pytest.mark.parametrize("way", [0, 1])
def test_an_obligation_that_fails_denies(way: int) -> None:
    """An obligation that fails denies."""

    def fail(*_: Any) -> Any:
        raise ValueError("broken")

    for when in ({"before": fail}, {"after": fail}):
        node, body = Node().says("Check", decision("PERMITTED", obligations=["o"])), Body()
        authz = client(node)
        authz.obligations.register("o", **when)
        with pytest.raises(Denied):
            both(authz, body)[way]("T-1")
        assert len(body.ran) == (1 if "after" in when else 0)


def test_generators_promise_nothing_about_results() -> None:
    """Generators promise nothing about results."""
    node = Node()
    authz = client(node)
    authz.obligations.register("redact", after=lambda _, result: result)
    authz.obligations.register("notify", before=lambda _: None)

    @authz.guard("crm.search")
    def rows(query: str) -> Iterator[str]:
        yield query

    list(rows("T-1"))
    assert list(node.requests("Check")[0].supported_obligations) == ["notify"]


def test_obligations_have_one_handler() -> None:
    """Obligations have one handler."""
    obligations = client(Node()).obligations
    obligations.register("o", before=lambda _: None)
    with pytest.raises(UsageError, match="already"):
        obligations.register("o", before=lambda _: None)
    with pytest.raises(UsageError, match="give"):
        obligations.register("p")
    for number in range(63):
        obligations.register(str(number), before=lambda _: None)
    with pytest.raises(UsageError, match="at most"):
        obligations.register("one more", before=lambda _: None)


# --- who asks


def test_credentials_from_everywhere(tmp_path: Path) -> None:
    """Credentials from everywhere."""
    file = tmp_path / "svid.jwt"
    file.write_text("first\n")

    class Source:
        def token(self, timeout: float) -> str:
            del timeout
            return "source"

        async def atoken(self, timeout: float) -> str:  # noqa: ASYNC109 - part of the protocol
            del timeout
            return "source"

    async def give() -> str:
        await asyncio.sleep(0)
        return "async"

    cases: list[tuple[Any, str]] = [
        ("text", "text"),
        (file, "first"),
        (TokenFile(file), "first"),
        (lambda: "function", "function"),
        (Source(), "source"),
    ]
    for credentials, token in cases:
        node = Node()
        authz = client(node, credentials=credentials)
        authz.check("crm.search")
        asyncio.run(authz.acheck("crm.search"))
        assert [request.evidence[0].token for request in node.requests("Check")] == [token] * 2
    node = Node()
    asyncio.run(client(node, credentials=give).acheck("crm.search"))
    assert node.requests("Check")[0].evidence[0].token == "async"
    with pytest.raises(UsageError, match="async"):
        client(node, credentials=give).check("crm.search")


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    """A file that changes is read again."""
    file, node = tmp_path / "svid.jwt", Node()
    file.write_text("first")
    authz = client(node, credentials=file)
    authz.check("crm.search")
    other = tmp_path / "new"
    other.write_text("other")
    other.replace(file)
    authz.check("crm.search")
    tokens = [request.evidence[0].token for request in node.requests("Check")]
    assert tokens == ["first", "other"]


@pytest.mark.parametrize("content", ["", "   \n", "a b\tc\n\x00", "é", "x" * 70_000])
def test_a_file_without_a_credential_ends_the_call(tmp_path: Path, content: str) -> None:
    """A file without a credential ends the call."""
    file, node = tmp_path / "svid.jwt", Node()
    file.write_text(content)
    for way in (0, 1):
        body = Body()
        with pytest.raises(Unavailable) as raised:
            both(client(node, credentials=file), body)[way]("T-1")
        assert raised.value.reason_code == "NO_CREDENTIAL"
        assert body.ran == []
    assert node.asked == []


def test_a_source_that_fails_ends_the_call(tmp_path: Path) -> None:
    """A source that fails ends the call."""

    def fail() -> str:
        raise OSError("secret-token")

    node = Node()
    for credentials in (fail, tmp_path / "not-there", lambda: None):
        authz = client(node, credentials=credentials)
        with pytest.raises(Unavailable) as raised:
            authz.check("crm.search")
        with pytest.raises(Unavailable):
            asyncio.run(authz.acheck("crm.search"))
        assert "secret-token" not in raised.value.message
    assert node.asked == []


def test_a_slow_source_ends_with_the_deadline() -> None:
    """A slow source ends with the deadline."""
    released = threading.Event()
    authz = client(Node(), credentials=lambda: str(released.wait(0.3)), timeout=0.1)
    with pytest.raises(Unavailable):
        authz.check("crm.search")
    with pytest.raises(Unavailable):
        asyncio.run(authz.acheck("crm.search"))


def test_a_subject_without_a_task() -> None:
    """A subject without a task."""
    node = Node()
    authz = client(node, credentials="svid")
    with acting_for("alice"):
        authz.check("crm.search")
    authz.check("crm.search", subject_token="bob")
    authz.check("crm.search")
    subjects = [
        [e.token for e in request.evidence if e.role == decision_pb2.EVIDENCE_ROLE_SUBJECT]
        for request in node.requests("Check")
    ]
    assert subjects == [["alice"], ["bob"], []]


HEADERS = {
    "Authorization": "Bearer svid",
    "authz-subject": "Bearer alice",
    "Authz-Task": "task-1",
}


def test_an_enforcer_asks_about_its_caller() -> None:
    """An enforcer asks about its caller."""
    node = Node()
    authz = client(node, enforcer=True)
    with caller(Caller.from_headers(HEADERS)), within_task("its own"):
        authz.check("crm.search")
    (request,) = node.requests("Check")
    assert [(e.role, e.token) for e in request.evidence] == [(1, "svid"), (2, "alice")]
    assert request.task == "task-1"


def test_an_enforcer_never_asks_about_itself() -> None:
    """An enforcer never asks about itself."""
    node, body = Node(), Body()
    authz = client(node, enforcer=True)
    for way in (0, 1):
        with pytest.raises(Denied) as raised:
            both(authz, body)[way]("T-1")
        assert raised.value.reason_code == "NO_CREDENTIAL"
    with pytest.raises(Denied):
        authz.list()
    with caller(Caller()), pytest.raises(Denied):
        client(Node().says("Check", decision("NO_CREDENTIAL")), enforcer=True).check("crm.search")
    assert body.ran == []
    assert node.asked == []
    with pytest.raises(UsageError, match="enforcer"):
        client(node, enforcer=True, credentials="svid")


@pytest.mark.parametrize(
    ("headers", "meta"),
    [
        ([("authorization", "Bearer a"), ("Authorization", "Bearer b")], {}),
        ([("authorization", "Bearer a, Bearer b")], {}),
        ([("authorization", "Basic abc")], {}),
        ([("authorization", "a")], {}),
        ([("authz-task", "a"), ("authz-task", "a")], {}),
        ([("authz-subject", "a"), ("authz-subject", "b")], {}),
        ([("dpop", "a"), ("dpop", "b")], {}),
        ([("authz-task", "a")], {"dev.authz/task": "b"}),
        ([], {"dev.authz/task": 1}),
        ([("authz-task", "a"), ("baggage", "authz.task=b")], {}),
        ([("baggage", "authz.task=a,authz.task=b")], {}),
    ],
)
def test_a_request_that_says_two_things_is_denied(
    headers: list[tuple[str | bytes, str | bytes]], meta: dict[str, object]
) -> None:
    """A request that says two things is denied."""
    node = Node()
    with caller(Caller.from_headers(headers, meta=meta)), pytest.raises(Denied):
        client(node, enforcer=True).check("crm.search")
    assert node.asked == []


def test_headers_are_read() -> None:
    """Headers are read."""
    read = Caller.from_headers
    assert read(HEADERS).agent_token == "svid"
    assert read({"authorization": "DPoP tok", "dpop": "proof"}).scheme == 2
    assert read({"authorization": "DPoP tok", "dpop": "proof"}).proof == "proof"
    assert read([("authz-task", b"t")]).task == "t"
    assert read([(b"authorization", b"Bearer svid")]).agent_token == "svid"
    assert read({"baggage": "a=b, authz.task=t%2D1;p=1"}).task == "t-1"
    assert read({"authz-task": "t", "baggage": "authz.task=t"}).task == "t"
    assert read({}, meta={"dev.authz/task": "t"}).task == "t"
    assert read({"authz-task": "t"}, meta={"dev.authz/task": "t"}).task == "t"
    assert read({}).task is None
    assert "svid" not in repr(read(HEADERS))


# --- list


def test_the_list_is_read_page_by_page() -> None:
    """The list is read page by page."""
    node = Node()
    node.says(
        "List",
        authorizer_pb2.ListResponse(operations=["crm.a", "crm.b"], next_page_token="2"),
        NoAnswer(grpc.StatusCode.UNAVAILABLE),
        authorizer_pb2.ListResponse(operations=["crm.c"]),
    )
    authz = client(node, credentials="svid")
    with within_task("task-1"):
        assert authz.list("crm") == ("crm.a", "crm.b", "crm.c")
    first, again, second = node.requests("List")
    assert (first.system, first.task, first.page_token) == ("crm", "task-1", "")
    assert second.page_token == again.page_token == "2"
    assert first.evidence[0].token == "svid"


def test_a_list_without_end_is_none() -> None:
    """A list without end is none."""
    endless = authorizer_pb2.ListResponse(operations=["crm.a"], next_page_token="again")
    node = Node().says("List", endless)
    with pytest.raises(Unavailable, match="No decision"):
        client(node, timeout=10).list()
    assert len(node.asked) == 100
    with pytest.raises(Unavailable):
        asyncio.run(client(Node().says("List", RuntimeErrorCode)).alist())


RuntimeErrorCode = NoAnswer(grpc.StatusCode.INTERNAL)


def test_tools_are_filtered_by_the_list() -> None:
    """Tools are filtered by the list."""

    @dataclasses.dataclass
    class Tool:
        name: str

    listed = ["crm.search", "gmail.send_email", "crm.odd-name"]
    tools = [Tool("search"), Tool("delete"), Tool("send_email")]
    assert filter_tools(tools, listed, "crm") == [Tool("search")]
    assert filter_tools([{"name": "search"}, {}], listed, "crm") == [{"name": "search"}]
    renamed = filter_tools([Tool("Odd Name")], listed, "crm", operation=lambda _: "crm.odd-name")
    by_name = ToolList(frozenset({"crm.odd_name"}), frozenset({("crm", "odd name")}))
    alike = [Tool("odd name"), Tool("odd_name"), Tool("odd%name")]
    assert filter_tools(alike, by_name, "crm") == [Tool("odd name")]
    assert filter_tools(alike, by_name, "crm", operation=lambda name: f"crm.{name}") == [
        Tool("odd_name")
    ]
    assert renamed == [Tool("Odd Name")]


# --- the client of the process


def test_the_client_of_the_process() -> None:
    """The client of the process."""
    body = Body()
    guarded = guarded_by(default.guard, "crm.search", body)
    with pytest.raises(Unavailable):
        guarded("T-1")
    with pytest.raises(Unavailable):
        default.task("answer-ticket")
    assert body.ran == []
    default.use(client(Node()))
    try:
        assert guarded("T-1") == "done"
    finally:
        default.use(None)


def test_arguments_that_contradict_one_another() -> None:
    """Arguments that contradict one another."""
    both_or_none: list[dict[str, Any]] = [{}, {"address": "x", "transport": Node()}]
    for wrong in both_or_none:
        with pytest.raises(UsageError):
            Authz(**wrong)
    for wrong in ({"timeout": 0}, {"timeout": float("inf")}, {"retries": 11}, {"retries": -1}):
        with pytest.raises(UsageError):
            client(Node(), **wrong)
    with pytest.raises(UsageError):
        client(Node(), credentials=3)


def test_the_client_needs_no_server() -> None:
    """What a tool imports is small: no server, no engine, no optional library."""
    code = "import sys, authz_client; print(*sorted(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    loaded = set(done.stdout.split())
    assert "authz_client" in loaded
    assert not {name for name in loaded if name.split(".")[0] == "authz"}
    unwanted = {"mcp", "httpx", "spiffe", "starlette", "uvicorn", "pydantic", "typer"}
    assert not loaded & unwanted


def test_times_have_zones() -> None:
    """Times have zones."""
    with pytest.raises(UsageError, match="zone"):
        client(Node()).task("t", deadline=dt.datetime(2030, 1, 1))  # noqa: DTZ001
