"""Guarded functions of systems that know no tokens: the function gets the secret, whoever calls it does not."""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from authz_client import Authz, Caller, Denied, Leased, Unavailable, caller
from authz_client.base_errors import UsageError
from authz_client.v1 import credentials_pb2
from tests.support.node import NoAnswer, Node, decision

KEY = {"header": "x-api-key", "value": "s3cret"}


def lease(**parts: str) -> credentials_pb2.IssueResponse:
    """A leased secret."""
    issued = credentials_pb2.IssueResponse(lease=credentials_pb2.Lease(id="s/1", parts=parts))
    issued.expires_at.FromSeconds(int(time.time()) + 60)
    return issued


def leasing() -> Node:
    """A node that permits, and gives the key."""
    return Node().says("Issue", lease(**KEY))


def both(authz: Authz, seen: list[Any]) -> list[Callable[..., Any]]:
    """The same function, guarded as sync and as async code; it keeps what it got."""

    @authz.guard("erp.order", secret="key")
    def here(item: str, *, count: int = 1, key: Leased) -> str:
        seen.append((item, count, key))
        return "ordered"

    @authz.guard("erp.order", secret="key")
    async def there(item: str, *, count: int = 1, key: Leased) -> str:
        await asyncio.sleep(0)
        seen.append((item, count, key))
        return "ordered"

    return [here, lambda *args, **kwargs: asyncio.run(there(*args, **kwargs))]


@pytest.mark.parametrize("way", [0, 1])
def test_the_function_gets_the_secret_of_its_permit(way: int) -> None:
    """The permit is kept for it, and it is no argument of the operation."""
    node = leasing()
    seen: list[Any] = []
    order = both(Authz(transport=node, enforcer=True), seen)[way]
    with caller(Caller(agent_token="svid", subject_token="alice", task="t-1")):
        assert order("T-1") == "ordered"
    ((item, count, key),) = seen
    assert (item, count, dict(key.parts)) == ("T-1", 1, KEY)
    (check,) = node.requests("Check")
    assert check.wants_credential
    assert check.arguments_json == b'{"item": "T-1", "count": 1}'
    (issue,) = node.requests("Issue")
    assert issue.decision_id == key.decision_id
    assert [one.token for one in issue.evidence] == ["svid", "alice"]
    assert "s3cret" not in repr(key)


@pytest.mark.parametrize("way", [0, 1])
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (NoAnswer(grpc.StatusCode.PERMISSION_DENIED, "ENFORCER_REFUSED"), Denied),
        (NoAnswer(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE"), Unavailable),
        (credentials_pb2.IssueResponse(token="a.b.c", token_type="Bearer"), Unavailable),
        (lease(), Unavailable),
        (credentials_pb2.IssueResponse(), Unavailable),
    ],
)
def test_without_its_secret_nothing_runs(way: int, answer: Any, error: type[Exception]) -> None:
    """Whatever stands in its place."""
    node = Node().says("Issue", answer)
    seen: list[Any] = []
    order = both(Authz(transport=node, retries=0), seen)[way]
    with pytest.raises(error):
        order("T-1")
    assert seen == []


def test_what_is_not_permitted_asks_for_no_secret() -> None:
    """Nothing is issued of a denial."""
    node = leasing().says("Check", decision("NOT_PERMITTED"))
    seen: list[Any] = []
    with pytest.raises(Denied):
        both(Authz(transport=node), seen)[0]("T-1")
    assert node.requests("Issue") == []
    assert seen == []


def test_whoever_calls_neither_gives_nor_sees_the_secret() -> None:
    """It is no parameter of the guarded function."""
    node = leasing()
    seen: list[Any] = []
    order = both(Authz(transport=node), seen)[0]
    assert list(inspect.signature(order).parameters) == ["item", "count"]
    with pytest.raises(TypeError):
        order("T-1", key="mine")
    assert node.asked == []
    assert seen == []


def test_a_stream_gets_it_too() -> None:
    """Before its first item."""
    authz = Authz(transport=leasing())

    @authz.guard("erp.rows", secret="key")
    async def rows(count: int, *, key: Leased) -> AsyncIterator[str]:
        for _ in range(count):
            yield key.parts["value"]

    async def collect() -> list[str]:
        return [row async for row in rows(2)]

    assert asyncio.run(collect()) == ["s3cret", "s3cret"]


def test_a_parameter_that_is_not_there_or_by_place_is_refused() -> None:
    """An argument would slip into its place."""
    guard = Authz(transport=Node()).guard
    with pytest.raises(UsageError, match="no keyword-only parameter `key`"):
        guard("erp.order", secret="key")(lambda item: item)
    with pytest.raises(UsageError, match="no keyword-only parameter `key`"):
        guard("erp.order", secret="key")(lambda item, key: (item, key))


def test_without_a_secret_no_credential_is_asked_for() -> None:
    """A permit that is performed right away is not kept."""
    node = Node()

    @Authz(transport=node).guard("erp.order")
    def order(item: str) -> str:
        return item

    assert order("T-1") == "T-1"
    (check,) = node.requests("Check")
    assert not check.wants_credential


def test_a_permit_that_a_failed_attempt_used_up_is_no_denial() -> None:
    """The node could not make the secret, and asking again finds the permit gone."""
    gone = NoAnswer(grpc.StatusCode.PERMISSION_DENIED, "NOT_PERMITTED")
    node = Node().says("Issue", NoAnswer(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE"), gone)
    seen: list[Any] = []
    with pytest.raises(Unavailable):
        both(Authz(transport=node, timeout=20), seen)[0]("T-1")
    assert len(node.requests("Issue")) == 2
    assert seen == []
