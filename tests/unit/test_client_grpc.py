"""Credentials on gRPC calls: which calls show which credential, and where none is sent."""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import jwt
import pytest

from authz_client import ProofKey, TaskCredential, TokenFile, Unavailable, within_task
from authz_client.base_errors import UsageError
from authz_client.integrations.grpc import aio_client_interceptors, client_interceptors

ORIGIN = "https://crm.example"
KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


def credential(key: ProofKey | None = None) -> TaskCredential:
    """A credential, bound to a key where one is given."""
    kind = "DPoP" if key is not None else "Bearer"
    return TaskCredential("a.b.c", kind, time.time() + 60, "crm.search", "d-1", key)


@dataclass
class Echo(grpc.GenericRpcHandler):
    """A server that keeps the metadata of each call."""

    seen: list[dict[str, Any]] = field(default_factory=list)
    address: str = ""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of each kind of call; a method is named as its kind."""
        pairs = [(one[0], one[1]) for one in handler_call_details.invocation_metadata or ()]
        names = [name for name, _ in pairs]
        assert len(names) == len(set(names))
        self.seen.append(dict(pairs))
        kind = handler_call_details.method.rpartition("/")[2]
        make: Any = getattr(grpc, f"{kind}_rpc_method_handler")
        if kind.endswith("_stream"):
            return make(lambda _, __: iter([b""]))
        return make(lambda _, __: b"")

    def ask(self, interceptors: Any, metadata: Any = None) -> None:
        """Call each kind of method on a channel of threads."""
        with grpc.insecure_channel(self.address) as plain:
            channel = grpc.intercept_channel(plain, *interceptors)
            for kind in KINDS:
                call = getattr(channel, kind)(f"/crm.Crm/{kind}")
                request = iter([b""]) if kind.startswith("stream") else b""
                answer = call(request, metadata=metadata, timeout=10)
                assert b"".join(answer if kind.endswith("stream") else [answer]) == b""

    def aask(self, interceptors: Any, metadata: Any = None) -> None:
        """As `ask`, on a channel of an event loop."""

        async def main() -> None:
            more = {"metadata": tuple(metadata or ()), "timeout": 10}
            async with grpc.aio.insecure_channel(
                self.address, interceptors=interceptors
            ) as channel:
                for kind in KINDS:
                    call: Any = getattr(channel, kind)(f"/crm.Crm/{kind}")
                    request = iter([b""]) if kind.startswith("stream") else b""
                    answer = call(request, **more)
                    if kind.endswith("stream"):
                        assert [one async for one in answer] == [b""]
                    else:
                        assert await answer == b""

        asyncio.run(main())


@pytest.fixture
def echo() -> Iterator[Echo]:
    """A server in this process."""
    with futures.ThreadPoolExecutor(4) as executor:
        server, handler = grpc.server(executor), Echo()
        server.add_generic_rpc_handlers((handler,))
        handler.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        yield handler
        server.stop(None).wait()


@pytest.fixture(params=["threads", "loop"])
def ask(request: pytest.FixtureRequest, echo: Echo) -> Callable[..., None]:
    """Calls every kind of method, in both ways."""
    if request.param == "threads":
        return lambda *args, metadata=None, **options: echo.ask(
            client_interceptors(*args, **options), metadata
        )
    return lambda *args, metadata=None, **options: echo.aask(
        aio_client_interceptors(*args, **options), metadata
    )


def test_every_call_shows_the_token_of_the_source(
    echo: Echo, ask: Callable[..., None], tmp_path: Any
) -> None:
    """As it is at the time of the call, beside the task and other metadata."""
    svid = tmp_path / "svid.jwt"
    svid.write_text("one")
    source = TokenFile(svid)
    with within_task("task-1"):
        ask(source, metadata=[("x", "y")])
    svid.write_text("number-two")
    ask(source)
    assert [one["authorization"] for one in echo.seen] == ["Bearer one"] * 4 + [
        "Bearer number-two"
    ] * 4
    assert [one.get("authz-task") for one in echo.seen] == ["task-1"] * 4 + [None] * 4
    assert [one.get("x") for one in echo.seen] == ["y"] * 4 + [None] * 4


def test_a_call_keeps_its_own_authorization(echo: Echo, ask: Callable[..., None]) -> None:
    """Neither a token nor a proof is added to it."""
    own = [("authorization", "Bearer own")]
    ask("svid", metadata=own)
    ask(credential(ProofKey()), origin=ORIGIN, metadata=own)
    assert {one["authorization"] for one in echo.seen} == {"Bearer own"}
    assert not any("dpop" in one for one in echo.seen)


def test_a_bound_credential_has_a_proof_for_each_method(
    echo: Echo, ask: Callable[..., None]
) -> None:
    """Proofs are for POST, which every gRPC call is, and the URL of the method (RFC 9449 §4.2)."""
    ask(credential(ProofKey()), origin=f"{ORIGIN}/")
    assert {one["authorization"] for one in echo.seen} == {"DPoP a.b.c"}
    found = []
    for one in echo.seen:
        key = jwt.PyJWK(jwt.get_unverified_header(one["dpop"])["jwk"])
        claims = jwt.decode(one["dpop"], key, algorithms=["ES256"])
        found.append((claims["htm"], claims["htu"]))
    assert found == [("POST", f"{ORIGIN}/crm.Crm/{kind}") for kind in KINDS]


def test_a_bearer_credential_needs_no_origin(echo: Echo, ask: Callable[..., None]) -> None:
    """It has no proof."""
    ask(credential())
    assert {one["authorization"] for one in echo.seen} == {"Bearer a.b.c"}
    assert not any("dpop" in one for one in echo.seen)


@pytest.mark.parametrize("make", [client_interceptors, aio_client_interceptors])
def test_a_bound_credential_needs_the_origin(make: Any) -> None:
    """Said when the interceptors are made, not with the first call."""
    with pytest.raises(UsageError, match=r"origin='https://crm\.example'"):
        make(credential(ProofKey()))


def test_without_a_credential_nothing_is_sent(echo: Echo, ask: Callable[..., None]) -> None:
    """A source that fails ends the call."""

    def fails() -> str:
        raise OSError

    with pytest.raises(Unavailable):
        ask(fails)
    assert echo.seen == []
