"""A task credential as authentication of HTTP clients: both libraries, both kinds of client, nonces and redirects."""

import asyncio
import base64
import copy
import hashlib
import importlib
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import httpx
import httpx2
import jwt
import pytest

from authz_client import Leased, ProofKey, TaskCredential
from authz_client.base_errors import UsageError
from authz_client.integrations import _http as module
from authz_client.integrations import httpx as for_httpx
from authz_client.integrations import httpx2 as for_httpx2

INTEGRATIONS: dict[Any, Any] = {httpx: for_httpx, httpx2: for_httpx2}
NONCE_ASKED = {"www-authenticate": 'DPoP error="use_dpop_nonce"', "dpop-nonce": "n-1"}
CRM = "https://crm.example"
OTHER = "https://other.example"


def credential(key: ProofKey | None = None) -> TaskCredential:
    """A credential, bound to a key where one is given."""
    kind = "DPoP" if key is not None else "Bearer"
    return TaskCredential("a.b.c", kind, time.time() + 60, "crm.search", "d-1", key)


def claims(proof: str) -> dict[str, Any]:
    """Verifies a proof by the key in it."""
    key = jwt.PyJWK(jwt.get_unverified_header(proof)["jwk"])
    found: dict[str, Any] = jwt.decode(proof, key, algorithms=["ES256"])
    return found


@dataclass(frozen=True)
class Seen:
    """One request as the transport gets it."""

    method: str
    url: str
    headers: dict[str, str]
    raw: dict[str, str]

    @property
    def carries(self) -> set[str]:
        """The headers of a credential that it has, in whichever way they are read."""
        names = {"authorization", "authz-credential", "dpop"}
        return names & (self.headers.keys() | self.raw.keys())

    @property
    def origin(self) -> str:
        """Scheme and host."""
        return "/".join(self.url.split("/")[:3])


@dataclass
class Client:
    """One library's client of one kind, over a transport in memory."""

    library: Any
    kind: str
    seen: list[Seen] = field(default_factory=list)

    def auth(self, credential: TaskCredential, **options: Any) -> Any:
        """The handler for this library."""
        return INTEGRATIONS[self.library].credential_auth(credential, **options)

    def answer(self, request: Any, script: Callable[[Seen], Any] | None) -> Any:
        """Notes a request, and answers as the script says, which returns status and headers."""
        raw = {name.decode().lower(): value.decode() for name, value in request.headers.raw}
        one = Seen(request.method, str(request.url), dict(request.headers), raw)
        self.seen.append(one)
        status, headers = (script(one) if script else None) or (200, {})
        return self.library.Response(status, headers=headers)

    def run(
        self,
        auth: Any,
        *requests: tuple[str, str],
        script: Callable[[Seen], Any] | None = None,
        **options: Any,
    ) -> list[Any]:
        """Sends requests; returns the responses."""
        transport = self.library.MockTransport(lambda request: self.answer(request, script))
        if self.kind == "sync":
            with self.library.Client(transport=transport, auth=auth, **options) as http:
                return [http.request(method, url, content=b"body") for method, url in requests]

        async def send() -> list[Any]:
            async with self.library.AsyncClient(transport=transport, auth=auth, **options) as http:
                return [await http.request(*request, content=b"body") for request in requests]

        return asyncio.run(send())


@pytest.fixture(params=[(httpx, "sync"), (httpx, "async"), (httpx2, "sync"), (httpx2, "async")])
def client(request: pytest.FixtureRequest) -> Client:
    """A client of each library and kind."""
    return Client(*request.param)


def in_turn(*answers: Any) -> Callable[[Seen], Any]:
    """A script of answers, one after the other."""
    left = list(answers)
    return lambda _: left.pop(0) if left else None


# --- what is shown


def test_each_request_has_a_proof_of_its_own(client: Client) -> None:
    """For its method and URL, and for this token."""
    client.run(
        client.auth(credential(ProofKey())),
        ("POST", f"{CRM}/search?q=x"),
        ("GET", f"{CRM}/other"),
    )

    digest = hashlib.sha256(b"a.b.c").digest()
    proofs = [claims(one.raw["dpop"]) for one in client.seen]
    assert [one.raw["authorization"] for one in client.seen] == ["DPoP a.b.c"] * 2
    assert [(one["htm"], one["htu"]) for one in proofs] == [
        ("POST", f"{CRM}/search"),
        ("GET", f"{CRM}/other"),
    ]
    assert {one["ath"] for one in proofs} == {
        base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    }
    assert proofs[0]["jti"] != proofs[1]["jti"]


def test_a_bearer_credential_has_no_proof_and_leaves_the_other_token(client: Client) -> None:
    """In the header that is asked for."""
    client.run(
        client.auth(credential(), header="authz-credential"),
        ("GET", CRM),
        headers={"authorization": "Bearer own"},
    )

    (one,) = client.seen
    assert one.raw["authz-credential"] == one.headers["authz-credential"] == "Bearer a.b.c"
    assert one.raw["authorization"] == "Bearer own"
    assert "dpop" not in one.raw


def test_what_is_read_of_a_request_is_what_is_sent(client: Client) -> None:
    """A hook, a mock or a log sees the headers of the wire, each once; a hook can set others."""
    looked: list[Any] = []

    def hook(request: Any) -> None:
        request.headers["x-added"] = "1"
        looked.append(request.headers)

    async def awaited(request: Any) -> None:
        hook(request)

    client.run(
        client.auth(credential(ProofKey())),
        ("GET", CRM),
        headers={"authorization": "Bearer default"},
        event_hooks={"request": [hook if client.kind == "sync" else awaited]},
    )

    (headers,) = looked
    wire = [(name.decode().lower(), value.decode()) for name, value in headers.raw]
    assert sorted(headers.multi_items()) == sorted(wire)
    assert len(headers) == len(wire) == len(set(dict(wire)))
    assert dict(headers.items()) == dict(wire) == {name: headers[name] for name in headers}
    assert headers.get("authorization") == "DPoP a.b.c"
    assert headers.get_list("authorization") == ["DPoP a.b.c"]
    assert "dpop" in headers
    assert client.seen[0].raw["x-added"] == "1"
    assert headers == client.library.Headers(wire)
    assert "a.b.c" not in repr(headers)
    for other in (copy.copy(headers), pickle.loads(pickle.dumps(headers)), headers.copy()):
        assert "dpop" not in other
        assert other["authorization"] == "Bearer default"


# --- nonces


def test_a_nonce_of_the_server_is_used_with_one_more_try(client: Client) -> None:
    """RFC 9449 §9, and kept for the next request."""
    auth = client.auth(credential(ProofKey()))
    answers = client.run(auth, ("POST", CRM), ("GET", CRM), script=in_turn((401, NONCE_ASKED)))

    nonces = [claims(one.raw["dpop"]).get("nonce") for one in client.seen]
    assert nonces == [None, "n-1", "n-1"]
    assert [answer.status_code for answer in answers] == [200, 200]


def test_a_nonce_that_comes_with_an_answer_is_the_next_one(client: Client) -> None:
    """RFC 9449 §8.2; nothing is sent again for it."""
    auth = client.auth(credential(ProofKey()))
    client.run(auth, ("GET", CRM), ("GET", CRM), script=in_turn((200, {"dpop-nonce": "n-2"})))

    assert [claims(one.raw["dpop"]).get("nonce") for one in client.seen] == [None, "n-2"]


@pytest.mark.parametrize(
    ("answers", "sent"),
    [
        ([(401, {"www-authenticate": "DPoP", "dpop-nonce": "n"})], 1),
        ([(401, {"www-authenticate": 'DPoP error="use_dpop_nonce"'})], 1),
        ([(403, NONCE_ASKED)], 1),
        ([(401, NONCE_ASKED)] * 5, 2),
    ],
)
def test_a_refusal_is_not_tried_again_without_end(
    client: Client, answers: list[Any], sent: int
) -> None:
    """Only one that asks for a nonce, and once; the client gets the last answer."""
    auth = client.auth(credential(ProofKey()))
    (answer,) = client.run(auth, ("GET", CRM), script=in_turn(*answers))

    assert len(client.seen) == sent
    assert answer.status_code == answers[0][0]


def test_without_a_key_no_nonce_is_answered(client: Client) -> None:
    """There is no proof that it could stand in."""
    client.run(client.auth(credential()), ("GET", CRM), script=in_turn((401, NONCE_ASKED)))

    assert len(client.seen) == 1


# --- redirects


def redirects(to: str, status: int = 307) -> Callable[[Seen], Any]:
    """A server that sends `/start` elsewhere, and wants a credential wherever else it is asked."""

    def script(one: Seen) -> Any:
        if one.url == f"{CRM}/start":
            return status, {"location": to}
        return (200, {}) if one.carries else (401, {"www-authenticate": "DPoP"})

    return script


@pytest.mark.parametrize("header", ["authorization", "authz-credential"])
@pytest.mark.parametrize("bound", [True, False])
@pytest.mark.parametrize(
    "to",
    [f"{OTHER}/", "//other.example/", "http://crm.example/start", "https://crm.example:8443/start"],
)
def test_no_redirect_carries_the_credential_to_another_origin(
    client: Client, header: Any, to: str, *, bound: bool
) -> None:
    """Neither token nor proof, in either header; the answer of the other origin is the answer."""
    auth = client.auth(credential(ProofKey() if bound else None), header=header)
    (answer,) = client.run(
        auth, ("POST", f"{CRM}/start"), script=redirects(to), follow_redirects=True
    )

    first, second = client.seen
    assert first.carries == {header, "dpop"} - (set() if bound else {"dpop"})
    assert second.origin != CRM
    assert second.carries == set()
    assert answer.status_code == 401


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_libraries_alone_would_carry_it(client: Client, scheme: str) -> None:
    """What the tests of redirects would show without our class of headers."""

    class Naive(client.library.Auth):  # type: ignore[misc, name-defined]
        def auth_flow(self, request: Any) -> Any:
            request.headers["authz-credential"] = "Bearer a.b.c"
            yield request

    def script(one: Seen) -> Any:
        return (307, {"location": f"{scheme}://other.example/"}) if one.origin == CRM else None

    client.run(Naive(), ("GET", f"{CRM}/start"), script=script, follow_redirects=True)

    assert client.seen[1].carries == {"authz-credential"}


@pytest.mark.parametrize(
    ("status", "method"), [(307, "POST"), (308, "POST"), (302, "GET"), (303, "GET")]
)
def test_after_a_redirect_within_the_origin_there_is_a_proof_of_the_new_place(
    client: Client, status: int, method: str
) -> None:
    """Such as from `/mcp` to `/mcp/`; the redirected request itself has nothing."""
    auth = client.auth(credential(ProofKey()))
    (answer,) = client.run(
        auth, ("POST", f"{CRM}/start"), script=redirects("/there", status), follow_redirects=True
    )

    assert answer.status_code == 200
    assert [bool(one.carries) for one in client.seen] == [True, False, True]
    proof = claims(client.seen[2].raw["dpop"])
    assert (proof["htm"], proof["htu"]) == (method, f"{CRM}/there")


def test_a_nonce_may_be_asked_for_at_the_new_place(client: Client) -> None:
    """Then there are four requests, and never more."""

    def script(one: Seen) -> Any:
        if one.url == f"{CRM}/start":
            return 307, {"location": "/there"}
        return 401, NONCE_ASKED if one.carries else {"www-authenticate": "DPoP"}

    auth = client.auth(credential(ProofKey()))
    client.run(auth, ("GET", f"{CRM}/start"), script=script, follow_redirects=True)

    proofs = [claims(one.raw["dpop"]) if one.carries else None for one in client.seen]
    assert [one and one.get("nonce") for one in proofs] == [None, None, None, "n-1"]


def test_a_way_back_over_another_origin_is_not_trusted(client: Client) -> None:
    """Where the credential is shown is not for a stranger to choose."""

    def script(one: Seen) -> Any:
        places = {f"{CRM}/start": f"{OTHER}/", f"{OTHER}/": f"{CRM}/delete"}
        return (307, {"location": places[one.url]}) if one.url in places else (401, NONCE_ASKED)

    auth = client.auth(credential(ProofKey()))
    client.run(auth, ("GET", f"{CRM}/start"), script=script, follow_redirects=True)

    assert [bool(one.carries) for one in client.seen] == [True, False, False]
    client.run(auth, ("GET", f"{CRM}/start"))
    assert "nonce" not in claims(client.seen[3].raw["dpop"])


def test_a_request_to_another_origin_is_not_sent(client: Client) -> None:
    """Also not one that follows a redirect by hand; the error names both."""
    auth = client.auth(credential(ProofKey()))
    client.run(auth, ("GET", f"{CRM}/a"))

    with pytest.raises(UsageError, match=rf"for {CRM}; it is not shown to {OTHER}"):
        client.run(auth, ("GET", f"{OTHER}/a"))
    with pytest.raises(UsageError, match="not shown"):
        client.run(auth, ("GET", "http://crm.example/a"))
    assert len(client.seen) == 1


@pytest.mark.parametrize("origin", [CRM, f"{CRM}/", "https://CRM.example:443"])
def test_the_origin_can_be_said(client: Client, origin: str) -> None:
    """Then the first request does not decide."""
    auth = client.auth(credential(), origin=origin)

    with pytest.raises(UsageError, match="not shown"):
        client.run(auth, ("GET", OTHER))
    client.run(auth, ("GET", f"{CRM}:443/a"))
    assert [one.origin for one in client.seen] == [CRM]


# --- errors


@pytest.mark.parametrize(
    "origin",
    ["", "crm.example", "ftp://crm.example", "https://", f"{CRM}/a", "https://u@crm.example"],
)
def test_an_origin_has_a_form(client: Client, origin: str) -> None:
    """The message shows one."""
    with pytest.raises(UsageError, match=r"https://crm\.example$"):
        client.auth(credential(), origin=origin)


def test_a_leased_secret_is_no_token(client: Client) -> None:
    """Said when the handler is made, and without the secret."""
    lease = Leased("l-1", {"password": "secret words"}, time.time() + 60, "dwh.read", "d-1")

    with pytest.raises(UsageError, match="takes a TaskCredential, not Leased") as told:
        client.auth(cast("Any", lease))
    assert "secret words" not in str(told.value)


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_a_handler_is_of_its_library(library: Any) -> None:
    """Type checkers and the library's own check accept it."""
    made = INTEGRATIONS[library].credential_auth(credential())
    assert isinstance(made, library.Auth)


@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The other one is enough for its own module."""
    other = {"httpx": "httpx2", "httpx2": "httpx"}[name]
    monkeypatch.setitem(sys.modules, name, None)
    for module_name in (name, other):
        monkeypatch.delitem(sys.modules, f"authz_client.integrations.{module_name}")
    with pytest.raises(ImportError, match=rf"pip install 'authz-client\[{name}\]'"):
        importlib.import_module(f"authz_client.integrations.{name}")
    importlib.import_module(f"authz_client.integrations.{other}")


def test_the_client_imports_no_http_library() -> None:
    """Neither is a dependency of the SDK."""
    code = "import sys, authz_client; print([n for n in ('httpx', 'httpx2') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_a_library_that_copies_more_is_refused() -> None:
    """Rather than that a redirect carries the credential."""

    class Headers(importlib.import_module("httpx").Headers):  # type: ignore[misc]
        def __init__(self, headers: Any = None, encoding: str | None = None) -> None:
            super().__init__(headers.raw if isinstance(headers, Headers) else headers, encoding)

    with pytest.raises(UsageError, match="would send credentials on"):
        module._shown_headers(Headers)
