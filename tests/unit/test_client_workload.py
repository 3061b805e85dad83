"""Credentials from the SPIFFE Workload API."""

import asyncio
import builtins
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from spiffe._proto import workload_pb2, workload_pb2_grpc

from authz_client import Authz, Unavailable, WorkloadToken
from authz_client.base_errors import UsageError
from tests.support.node import Node

BOT = "spiffe://a.example/ns/support/sa/bot"


class Agent(workload_pb2_grpc.SpiffeWorkloadAPIServicer):
    """Gives an SVID of so many seconds with each call."""

    def __init__(self) -> None:
        self.lifetime = 600.0
        self.denies = False
        self.delay = 0.0
        self.asked: list[list[str]] = []
        self._key = ec.generate_private_key(ec.SECP256R1())

    def FetchJWTSVID(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Gives one."""
        self.asked.append(list(request.audience))
        time.sleep(self.delay)
        if self.denies:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
        claims = {
            "sub": BOT,
            "aud": list(request.audience),
            "exp": int(time.time() + self.lifetime),
            "jti": str(len(self.asked)),
        }
        token = jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": "one"})
        svid = workload_pb2.JWTSVID(spiffe_id=BOT, svid=token)
        return workload_pb2.JWTSVIDResponse(svids=[svid])


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[tuple[Agent, str]]:
    """An agent, and its address."""
    with futures.ThreadPoolExecutor(4) as executor:
        server = grpc.server(executor)
        made, address = Agent(), f"unix://{tmp_path}/a.sock"
        untyped: Any = workload_pb2_grpc
        untyped.add_SpiffeWorkloadAPIServicer_to_server(made, server)
        server.add_insecure_port(address)
        server.start()
        yield made, address
        server.stop(None).wait(5)


def number(token: str) -> str:
    """Which token it is."""
    claims = jwt.decode(token, options={"verify_signature": False})
    return str(claims["jti"])


def test_an_svid_is_kept_for_half_of_its_life(agent: tuple[Agent, str]) -> None:
    """By both ways of asking, and fetched again then."""
    made, address = agent
    node = Node()
    source = WorkloadToken("authz", address)
    authz = Authz(transport=node, credentials=source, timeout=20)
    authz.check("crm.search")
    asyncio.run(authz.acheck("crm.search"))
    tokens = [request.evidence[0].token for request in node.requests("Check")]
    assert [number(token) for token in tokens] == ["1", "1"]
    assert made.asked == [["authz"]]
    held = source._held
    assert held is not None
    assert 250 < held[1] - time.time() <= 300
    source._held = (held[0], time.time() - 1)
    asyncio.run(authz.acheck("crm.search"))
    assert number(node.requests("Check")[-1].evidence[0].token) == "2"


def test_without_an_svid_nothing_is_asked(agent: tuple[Agent, str], tmp_path: Path) -> None:
    """An agent that denies, that is not there, or that is slow."""
    made, address = agent
    made.denies = True
    node = Node()
    for where in (address, f"unix://{tmp_path}/none.sock"):
        authz = Authz(transport=node, credentials=WorkloadToken("authz", where), timeout=5)
        with pytest.raises(Unavailable) as raised:
            authz.check("crm.search")
        assert raised.value.reason_code == "NO_CREDENTIAL"
        with pytest.raises(Unavailable):
            asyncio.run(authz.acheck("crm.search"))
    made.denies, made.delay = False, 0.5
    slow = Authz(transport=node, credentials=WorkloadToken("authz", address), timeout=0.1)
    with pytest.raises(Unavailable):
        slow.check("crm.search")
    with pytest.raises(Unavailable):
        asyncio.run(slow.acheck("crm.search"))
    assert node.asked == []


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and not with the first call."""
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "spiffe":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"authz-client\[workload\]"):
        WorkloadToken("authz")
