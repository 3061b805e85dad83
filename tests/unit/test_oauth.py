"""Token exchange, introspection, revocation and metadata over HTTP: each rule of each RFC that is claimed."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import httpx
import jwt
import pytest

from authz.engine import Trust, accepted_algorithms, reason_table
from authz.errors import ApiError
from authz.server.http.endpoints import application
from authz.server.http.oauth import OAuthApp, OAuthSettings, OAuthUrls
from authz.server.http.oauth.clients import ClientAuthenticator, UsedAssertions
from authz.server.http.oauth.defects import Defect
from authz.server.http.server import CLIENT_CHAIN
from tests.support.minting import AGENT_DEFECTS, DOMAIN, Authority, Key
from tests.support.server import trust_spec
from tests.support.svid import Signer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from authz.model import CallFacts
    from authz.server.http.oauth.clients import OAuthClient

ISSUER = "https://authz.example/t"
BOT = f"spiffe://{DOMAIN}/ns/support/sa/bot"
OTHER = f"spiffe://{DOMAIN}/ns/ops/sa/cron"
TOKEN, INTROSPECT, REVOKE = f"{ISSUER}/token", f"{ISSUER}/introspect", f"{ISSUER}/revoke"
BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
SPIFFE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT = "urn:ietf:params:oauth:token-type:jwt"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
DETAILS = [{"type": "authz_task", "operation": "crm.search", "arguments": {"query": "x"}}]


ALGORITHMS = (
    *("EdDSA", "ES256", "ES384", "ES512"),
    *("PS256", "PS384", "PS512", "RS256", "RS384", "RS512"),
)


def detail(**changes: Any) -> dict[str, str | None]:
    """The parameter of one detail with changes; None removes a member."""
    changed = {**DETAILS[0], **changes}
    kept = {name: value for name, value in changed.items() if value is not None}
    return {"authorization_details": json.dumps([kept])}


#: The name that a text is about, the text, and the changes to a good exchange.
FORM_DEFECTS: dict[str, tuple[str, Defect, dict[str, str | None]]] = {
    **{
        f"no {name}": (name, Defect.MISSING, {name: None})
        for name in ("grant_type", "subject_token", "subject_token_type", "authorization_details")
    },
    "another grant": ("", Defect.GRANT, {"grant_type": "client_credentials"}),
    "another subject type": ("", Defect.SUBJECT_TYPE, {"subject_token_type": JWT + "x"}),
    "another actor type": (
        "",
        Defect.ACTOR_TYPE,
        {"actor_token": "a.b.c", "actor_token_type": ACCESS_TOKEN},
    ),
    "another requested type": ("", Defect.REQUESTED_TYPE, {"requested_token_type": "x"}),
    "half an actor": ("", Defect.HALF_ACTOR, {"actor_token": "a.b.c"}),
    "a scope": ("", Defect.SCOPE, {"scope": "read"}),
    "a resource that is none": ("", Defect.RESOURCE, {"resource": "crm"}),
    "two audiences": (
        "",
        Defect.AUDIENCES,
        {"audience": "https://a.example", "resource": "https://b.example"},
    ),
    "a lifetime that is none": ("", Defect.LIFETIME, {"requested_lifetime": "1h"}),
    "a template beside a task": ("template", Defect.WITH_TASK, {"template": "answer"}),
    "a prompt beside a task": ("prompt", Defect.WITH_TASK, {"prompt": "x"}),
    "no task at all": ("", Defect.NO_TASK, {"task": None}),
    "a prompt of a child": (
        "",
        Defect.PROMPT_OF_CHILD,
        {"task": None, "parent": "t", "prompt": "x"},
    ),
    "parameters that are none": (
        "",
        Defect.PARAMS,
        {"task": None, "template": "t", "template_params": "[]"},
    ),
    "parameters that are no JSON": (
        "",
        Defect.PARAMS,
        {"task": None, "template": "t", "template_params": "{"},
    ),
    "details that are no JSON": ("", Defect.DETAILS, {"authorization_details": "["}),
    "no details": ("", Defect.DETAILS, {"authorization_details": "[]"}),
    "another detail": ("", Defect.DETAIL_TYPE, detail(type="payment")),
    "an unknown member": ("amount", Defect.DETAIL_MEMBER, detail(amount=1)),
    "no operation": ("operation", Defect.DETAIL_VALUE, detail(operation=None)),
    "arguments that are none": ("arguments", Defect.DETAIL_VALUE, detail(arguments=[])),
    "a resource of another type": ("resource", Defect.DETAIL_VALUE, detail(resource=1)),
    "destinations that are none": ("destinations", Defect.DETAIL_VALUE, detail(destinations="x")),
    "half an assertion": ("", Defect.HALF_ASSERTION, {"client_assertion_type": None}),
    "another assertion type": ("", Defect.ASSERTION_TYPE, {"client_assertion_type": "x"}),
    "a secret": ("", Defect.SECRET, {"client_secret": "x"}),
    "another client": ("", Defect.OTHER_CLIENT_ID, {"client_id": OTHER}),
    "a bad assertion": ("", Defect.ASSERTION, {"client_assertion": "a.b.c"}),
    "no client": (
        "",
        Defect.NO_CLIENT,
        {"client_assertion": None, "client_assertion_type": None, "client_id": BOT},
    ),
}


@dataclass
class Engine:
    """Answers what a test says, and remembers what it was asked."""

    asked: list[tuple[str, Any, CallFacts]] = field(default_factory=list)
    refuse: Exception | None = None
    active: dict[str, Any] = field(default_factory=lambda: {"active": False})
    nonce: str | None = None

    def exchange(self, request: Mapping[str, Any], facts: CallFacts) -> Mapping[str, Any]:
        """Exchange."""
        self._asked("exchange", request, facts)
        claims = {
            "exp": 1120,
            "iat": 1000,
            "task": "t-1",
            "authorization_details": [{"type": "authz_task", "operation": "crm.search", "uses": 1}],
        }
        kind = "DPoP" if request["proof"] else "Bearer"
        return {"token": "a.b.c", "claims": claims, "token_type": kind, "dpop_nonce": self.nonce}

    def introspect(self, client: OAuthClient, token: str, facts: CallFacts) -> Mapping[str, Any]:
        """Introspect."""
        self._asked("introspect", (client, token), facts)
        return self.active

    def revoke(self, client: OAuthClient, token: str, facts: CallFacts) -> None:
        """Revoke."""
        self._asked("revoke", (client, token), facts)

    def _asked(self, what: str, request: Any, facts: CallFacts) -> None:
        self.asked.append((what, request, facts))
        if self.refuse is not None:
            raise self.refuse

    @property
    def request(self) -> Any:
        """What was asked last."""
        return self.asked[-1][1]


class Server:
    """The application with real keys and certificates, and an engine that does as it is told."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.signer = Signer.authority(DOMAIN)
        spec = json.loads(trust_spec(authority))
        bundle = json.loads(spec["domains"][DOMAIN]["bundle"])
        bundle["keys"].append(self.signer.jwk)
        spec["domains"][DOMAIN]["bundle"] = json.dumps(bundle)
        told = json.dumps(spec).encode()
        self.snapshot = SimpleNamespace(trust_spec=told, trust=Trust.compile(told))
        self.engine = Engine()
        self.counted: list[tuple[str, int]] = []
        self.failed: list[BaseException] = []
        self.keys = SimpleNamespace(max_age=300, jwks=lambda: '{"keys":[{"kid":"k"}]}')
        self.clients = ClientAuthenticator(
            ISSUER, TOKEN, lambda: self.snapshot, replays=UsedAssertions(most=16), clock=time.time
        )
        table = {row["name"]: row for row in reason_table()}
        members = ("public_code", "next_action", "retry", "public_message")
        oauth = OAuthApp(
            OAuthUrls(ISSUER),
            self.clients,
            self.keys,
            self.engine,
            OAuthSettings(mutual=True, max_body=20_000, timeout=0.3, deadline=2.0),
            public={name: {one: row[one] for one in members} for name, row in table.items()},
            counted=lambda endpoint, status: self.counted.append((endpoint, status)),
            failed=self.failed.append,
        )
        self.app = application(oauth.endpoints())
        self.chain: tuple[bytes, ...] = ()

    def send(self, method: str, url: str, **request: Any) -> httpx.Response:
        """Send a request to the application."""

        async def sent() -> httpx.Response:
            async def app(scope: Any, receive: Any, send: Any) -> None:
                scope["extensions"] = {"tls": {CLIENT_CHAIN: self.chain}}
                await self.app(scope, receive, send)

            async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
                return await client.request(method, url, **request)

        return asyncio.run(sent())

    def assertion(self, spiffe_id: str = BOT, **claims: Any) -> str:
        """Make an assertion of RFC 7523 out of a JWT-SVID."""
        now = int(time.time())
        good = {"iss": spiffe_id, "aud": ISSUER, "jti": uuid.uuid4().hex, "exp": now + 60}
        return self.authority.agent(spiffe_id, **{**good, **claims})

    def authenticated(self, **claims: Any) -> dict[str, str]:
        """The parameters by which a client says who it is."""
        return {"client_assertion_type": BEARER, "client_assertion": self.assertion(**claims)}

    def exchange(
        self, changes: Mapping[str, str | None] | None = None, **more: Any
    ) -> httpx.Response:
        """Send a good token exchange, with changes; None removes a parameter."""
        form: dict[str, str | None] = {
            "grant_type": GRANT,
            "subject_token": self.authority.subject("alice"),
            "subject_token_type": JWT,
            "authorization_details": json.dumps(DETAILS),
            "task": "t-1",
            **(self.authenticated() if not self.chain else {"client_id": BOT}),
            **(changes or {}),
        }
        kept = {name: value for name, value in form.items() if value is not None}
        return self.send("POST", TOKEN, data=kept, **more)

    def ask(self, url: str, **form: str) -> httpx.Response:
        """Send a form with good client authentication."""
        return self.send("POST", url, data={**self.authenticated(), **form})


@pytest.fixture(scope="module")
def authority() -> Authority:
    """Everything that signs."""
    return Authority()


@pytest.fixture
def server(authority: Authority) -> Server:
    """A server."""
    return Server(authority)


def error_of(response: httpx.Response) -> tuple[int, str]:
    """Status and error code; and that an error has the form of RFC 6749 §5.2."""
    body = response.json()
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["pragma"] == "no-cache"
    assert body.keys() <= {"error", "error_description", "authz"}
    assert all(" " <= char <= "~" and char not in '"\\' for char in body["error_description"])
    return response.status_code, body["error"]


# --- RFC 7517, RFC 8414


def test_the_keys_may_be_kept_as_long_as_they_are_published_ahead(server: Server) -> None:
    """Without authentication, with the type of RFC 7517 §8.5."""
    response = server.send("GET", f"{ISSUER}/jwks")

    assert response.json() == {"keys": [{"kid": "k"}]}
    assert response.headers["cache-control"] == "public, max-age=300"
    assert response.headers["content-type"] == "application/jwk-set+json"


def test_keys_that_are_not_there_are_not_kept(server: Server) -> None:
    """The first one signs at once."""
    server.keys.max_age = 0

    assert server.send("GET", f"{ISSUER}/jwks").headers["cache-control"] == "no-store"


def test_the_metadata_stands_where_the_rfc_says(server: Server) -> None:
    """The well-known name comes before the issuer's path (RFC 8414 §3.1), and the issuer is exact (§3.3)."""
    response = server.send("GET", "https://authz.example/.well-known/oauth-authorization-server/t")

    described = response.json()
    assert response.headers["content-type"] == "application/json"
    assert described["issuer"] == ISSUER
    assert described["response_types_supported"] == []
    assert described["token_endpoint"] == TOKEN
    assert described["jwks_uri"] == f"{ISSUER}/jwks"
    assert described["grant_types_supported"] == [GRANT]
    for endpoint in ("token", "introspection", "revocation"):
        methods = described[f"{endpoint}_endpoint_auth_methods_supported"]
        assert not {"none", "client_secret_basic", "client_secret_post", "client_secret_jwt"} & set(
            methods
        )
        assert "private_key_jwt" in methods
        signed = described[f"{endpoint}_endpoint_auth_signing_alg_values_supported"]
        assert signed == accepted_algorithms()["jwt_svid"]
    assert described["dpop_signing_alg_values_supported"] == accepted_algorithms()["proof"]
    assert server.send("GET", f"{ISSUER}/.well-known/oauth-authorization-server").status_code == 404


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "ES256K", "HS256", "none"])
def test_an_assertion_is_accepted_by_each_algorithm_of_the_metadata_and_no_other(
    server: Server, algorithm: str
) -> None:
    """RFC 8414 §2: `token_endpoint_auth_signing_alg_values_supported`."""
    where = "https://authz.example/.well-known/oauth-authorization-server/t"
    listed = server.send("GET", where).json()["token_endpoint_auth_signing_alg_values_supported"]
    good = {"sub": BOT, "iss": BOT, "aud": ISSUER, "jti": "1", "exp": int(time.time()) + 60}
    if algorithm in {"HS256", "none"}:
        secret: Any = "0123456789abcdef0123456789abcdef" if algorithm == "HS256" else None
        assertion = jwt.encode(good, secret, algorithm, {"kid": "own"})
    else:
        key = Key.make("own", algorithm)
        spec = json.loads(server.snapshot.trust_spec)
        bundle = {"keys": [key.jwk("jwt-svid")]}
        spec["domains"][DOMAIN]["bundle"] = json.dumps(bundle)
        told = json.dumps(spec).encode()
        server.snapshot = SimpleNamespace(trust_spec=told, trust=Trust.compile(told))
        assertion = key.sign(good)

    status = server.exchange({"client_assertion": assertion}).status_code

    assert status == (200 if algorithm in listed else 401)
    assert (algorithm in listed) == (algorithm in {*ALGORITHMS} - {"EdDSA"})


@pytest.mark.parametrize("url", [TOKEN, INTROSPECT, REVOKE])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_clients_post(server: Server, url: str, method: str) -> None:
    """RFC 6749 §3.2, RFC 7662 §2.1, RFC 7009 §2.1."""
    assert server.send(method, url, params=server.authenticated()).status_code == 405


# --- who calls


def test_an_assertion_says_who_calls(server: Server) -> None:
    """RFC 7523 §2.2; `client_id` is not needed, and may be there."""
    assert server.exchange().status_code == 200
    assert server.engine.request["client"] == {"spiffe_id": BOT, "how": "jwt_svid"}
    assert server.exchange({"client_id": BOT}).status_code == 200
    assert server.exchange({"client_assertion": server.assertion(aud=TOKEN)}).status_code == 200


def test_a_certificate_says_who_calls(server: Server) -> None:
    """RFC 8705 §2; the engine gets it to bind the credential to."""
    leaf = server.signer.leaf(uris=(BOT,))
    server.chain = (leaf,)

    assert server.exchange().status_code == 200

    _, request, facts = server.engine.asked[-1]
    assert request["client"] == {"spiffe_id": BOT, "how": "x509_svid"}
    assert facts.listener == "http"
    assert facts.certificate == ssl.DER_cert_to_PEM_cert(leaf).encode()
    assert facts.intermediates is None


def test_a_certificate_comes_with_its_intermediates(server: Server) -> None:
    """And is verified by them."""
    middle = server.signer.intermediate(DOMAIN)
    server.chain = (middle.leaf(uris=(BOT,)),)
    assert error_of(server.exchange()) == (401, "invalid_client")

    server.chain = (*server.chain, middle.der)

    assert server.exchange().status_code == 200
    assert server.engine.asked[-1][2].intermediates == middle.pem


def test_a_jwt_svid_as_it_is_says_who_calls(server: Server) -> None:
    """SPIFFE client authentication: neither `iss` nor `jti` is needed, and SPIRE gives one out again."""
    svid = server.authority.agent(BOT, aud=[ISSUER])
    asked = {"client_assertion_type": SPIFFE, "client_assertion": svid}

    assert [server.exchange(asked).status_code for _ in range(2)] == [200, 200]


@pytest.mark.parametrize("url", [TOKEN, INTROSPECT, REVOKE])
def test_nobody_is_no_client(server: Server, url: str) -> None:
    """There are no public clients, at any endpoint."""
    response = server.send("POST", url, data={"token": "a.b.c", "client_id": BOT})

    assert error_of(response) == (401, "invalid_client")
    assert server.engine.asked == []


@pytest.mark.parametrize("url", [TOKEN, INTROSPECT, REVOKE])
def test_there_are_no_secrets(server: Server, url: str) -> None:
    """Neither as parameter nor as Basic; the latter is told its scheme (RFC 6749 §5.2)."""
    posted = {**server.authenticated(), "client_secret": "s"}
    assert error_of(server.send("POST", url, data=posted)) == (401, "invalid_client")

    basic = server.send("POST", url, data=server.authenticated(), auth=("a", "b"))
    assert error_of(basic) == (401, "invalid_client")
    assert basic.headers["www-authenticate"].startswith("Basic ")
    assert server.engine.asked == []


@pytest.mark.parametrize("defect", sorted(AGENT_DEFECTS))
def test_an_assertion_that_is_no_good_svid_is_refused(
    server: Server, authority: Authority, defect: str
) -> None:
    """Whatever a JWT-SVID must not be."""
    forged = authority.bad_agent(defect, BOT)
    # A parameter without a value is not there, and a body has an end.
    otherwise = {"empty": (400, "invalid_request"), "oversized": (413, "invalid_request")}

    refused = error_of(server.exchange({"client_assertion": forged}))

    assert refused == otherwise.get(defect, (401, "invalid_client"))


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "spiffe://a.example/authz"},
        {"aud": [ISSUER, "https://other.example"]},
        {"aud": INTROSPECT},
        {"aud": ISSUER + "/"},
        {"aud": []},
        {"aud": None},
        {"iss": OTHER},
        {"iss": None},
        {"iss": ISSUER},
        {"jti": None},
        {"jti": ""},
        {"jti": 7},
        {"jti": "x" * 300},
        {"exp": None},
        {"exp": 1},
        {"exp": 1e12},
    ],
    ids=str,
)
def test_an_assertion_that_breaks_a_rule_of_its_rfc_is_refused(
    server: Server, claims: dict[str, Any]
) -> None:
    """RFC 7523 §3: audience, issuer, subject, expiry; and `jti`, by which it is taken once."""
    forged = server.assertion(**claims)

    assert error_of(server.exchange({"client_assertion": forged})) == (401, "invalid_client")


def test_an_assertion_is_taken_once(server: Server) -> None:
    """At whichever endpoint; another client's with the same `jti` is another."""
    once = server.assertion(jti="1")
    form = {"client_assertion_type": BEARER, "client_assertion": once}

    assert server.exchange(form).status_code == 200
    assert error_of(server.exchange(form)) == (401, "invalid_client")
    replayed = server.send("POST", INTROSPECT, data={**form, "token": "a"})
    assert error_of(replayed) == (401, "invalid_client")
    assert (
        server.exchange({"client_assertion": server.assertion(OTHER, jti="1")}).status_code == 200
    )


def test_more_assertions_than_can_be_remembered_are_refused(server: Server) -> None:
    """Rather than to forget one that could come again; those that ended make room."""
    for _ in range(16):
        assert server.exchange().status_code == 200
    full = server.exchange()
    assert error_of(full) == (503, "temporarily_unavailable")
    assert full.headers["retry-after"]

    replays = UsedAssertions(most=1)
    assert replays.first(b"a", 10.0, 1.0)
    assert replays.first(b"b", 20.0, 11.0)


def test_an_svid_as_assertion_is_for_the_issuer_alone(server: Server) -> None:
    """Not for the token endpoint, and for no other beside."""
    for audience in (TOKEN, [ISSUER, "x"], "spiffe://a.example/authz"):
        svid = server.authority.agent(BOT, aud=audience)
        asked = {"client_assertion_type": SPIFFE, "client_assertion": svid}
        assert error_of(server.exchange(asked)) == (401, "invalid_client")


@pytest.mark.parametrize(
    "changes",
    [
        {"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"},
        {"client_id": OTHER},
        {"client_assertion": "a.b.c"},
    ],
    ids=str,
)
def test_an_assertion_of_another_kind_or_client_is_refused(
    server: Server, changes: dict[str, str | None]
) -> None:
    """RFC 7521 §4.2."""
    assert error_of(server.exchange(changes)) == (401, "invalid_client")


@pytest.mark.parametrize("missing", ["client_assertion", "client_assertion_type"])
def test_half_an_assertion_is_no_request(server: Server, missing: str) -> None:
    """RFC 7521 §4.2: both are required."""
    assert error_of(server.exchange({missing: None})) == (400, "invalid_request")


def test_a_certificate_needs_its_client_id(server: Server) -> None:
    """RFC 8705 §2, and it must be the certificate's."""
    server.chain = (server.signer.leaf(uris=(BOT,)),)

    assert error_of(server.exchange({"client_id": None})) == (400, "invalid_request")
    assert error_of(server.exchange({"client_id": OTHER})) == (401, "invalid_client")


def test_a_certificate_of_nobody_trusted_is_refused(server: Server) -> None:
    """Whichever authority TLS has let through."""
    for signer in (Signer.authority(DOMAIN), Signer.authority("b.example")):
        server.chain = (signer.leaf(uris=(BOT,)),)
        assert error_of(server.exchange()) == (401, "invalid_client")
    server.chain = (server.signer.leaf(uris=(BOT,), ends=-10),)
    assert error_of(server.exchange()) == (401, "invalid_client")


def test_an_assertion_beside_another_clients_certificate_is_refused(server: Server) -> None:
    """Beside its own it is taken, and the certificate can bind what is issued."""
    server.chain = (server.signer.leaf(uris=(OTHER,)),)
    form = server.authenticated()
    assert error_of(server.exchange({**form, "client_id": None})) == (401, "invalid_client")

    server.chain = (server.signer.leaf(uris=(BOT,)),)
    assert server.exchange({**server.authenticated(), "client_id": None}).status_code == 200
    assert server.engine.request["client"]["how"] == "jwt_svid"
    assert server.engine.asked[-1][2].certificate is not None


def test_keys_that_change_count_for_assertions_at_once(server: Server) -> None:
    """Those of a domain that lost its keys are refused."""
    assert server.exchange().status_code == 200
    spec = json.loads(server.snapshot.trust_spec)
    spec["domains"][DOMAIN]["bundle"] = json.dumps({"keys": []})
    told = json.dumps(spec).encode()
    server.snapshot = SimpleNamespace(trust_spec=told, trust=Trust.compile(told))

    assert error_of(server.exchange()) == (401, "invalid_client")


# --- RFC 8693


def test_an_exchange_is_answered_as_the_rfc_says(server: Server) -> None:
    """RFC 8693 §2.2.1, RFC 6749 §5.1, RFC 9396 §7."""
    response = server.exchange()

    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["pragma"] == "no-cache"
    assert response.json() == {
        "access_token": "a.b.c",
        "issued_token_type": ACCESS_TOKEN,
        "token_type": "Bearer",
        "expires_in": 120,
        "authorization_details": [
            {"type": "authz_task", "operation": "crm.search", "uses": 1},
        ],
        "task": "t-1",
    }


def test_what_is_asked_reaches_the_engine(server: Server) -> None:
    """Every parameter, once."""
    actor = server.authority.agent(BOT)
    response = server.exchange(
        {
            "task": None,
            "template": "answer-ticket",
            "template_params": '{"ticket": "T-1"}',
            "prompt": "Answer T-1",
            "actor_token": actor,
            "actor_token_type": JWT,
            "resource": "https://crm.example",
            "requested_lifetime": "60",
            "requested_token_type": JWT,
            "subject_token": "s",
        },
        headers={"dpop": "p"},
    )

    assert response.json()["issued_token_type"] == JWT
    assert response.json()["token_type"] == "DPoP"
    assert server.engine.request == {
        "client": {"spiffe_id": BOT, "how": "jwt_svid"},
        "subject_token": "s",
        "actor_token": actor,
        "proof": "p",
        "http_uri": TOKEN,
        "audience": "https://crm.example",
        "lifetime_seconds": 60,
        "details": [{"operation": "crm.search", "arguments": {"query": "x"}}],
        "template": "answer-ticket",
        "params": {"ticket": "T-1"},
        "prompt": "Answer T-1",
        "parent": None,
    }


def test_a_child_may_have_its_parents_template(server: Server) -> None:
    """Or another one."""
    for template in (None, "read"):
        response = server.exchange({"task": None, "parent": "p-1", "template": template})
        assert response.status_code == 200
        asked = server.engine.request
        assert (asked["parent"], asked["template"], asked["prompt"]) == ("p-1", template, None)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"grant_type": None}, "invalid_request"),
        ({"grant_type": ""}, "invalid_request"),
        ({"grant_type": "client_credentials"}, "unsupported_grant_type"),
        ({"subject_token": None}, "invalid_request"),
        ({"subject_token_type": None}, "invalid_request"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:saml2"}, "invalid_request"),
        (
            {"subject_token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
            "invalid_request",
        ),
        ({"actor_token": "a"}, "invalid_request"),
        ({"actor_token_type": JWT}, "invalid_request"),
        ({"actor_token": "a", "actor_token_type": ACCESS_TOKEN}, "invalid_request"),
        (
            {"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
            "invalid_request",
        ),
        ({"scope": "openid"}, "invalid_scope"),
        ({"resource": "crm"}, "invalid_target"),
        ({"resource": "https://crm.example#x"}, "invalid_target"),
        ({"resource": "https://crm.example#"}, "invalid_target"),
        ({"resource": "https://[crm"}, "invalid_target"),
        ({"resource": "https://crm.example", "audience": "crm"}, "invalid_target"),
        ({"task": None}, "invalid_request"),
        ({"template": "answer-ticket"}, "invalid_request"),
        ({"parent": "p"}, "invalid_request"),
        ({"task": None, "parent": "p", "prompt": "x"}, "invalid_request"),
        ({"prompt": "p"}, "invalid_request"),
        ({"task": None, "template": "t", "template_params": "[]"}, "invalid_request"),
        ({"task": None, "template": "t", "template_params": "{"}, "invalid_request"),
        ({"requested_lifetime": "0"}, "invalid_request"),
        ({"requested_lifetime": "-1"}, "invalid_request"),
        ({"requested_lifetime": "1e3"}, "invalid_request"),
        ({"requested_lifetime": "86401"}, "invalid_request"),
        ({"requested_lifetime": "9999999999999999999"}, "invalid_request"),
        ({"requested_lifetime": "²"}, "invalid_request"),
        ({"authorization_details": None}, "invalid_request"),
    ],
    ids=str,
)
def test_an_exchange_that_breaks_a_rule_is_refused(
    server: Server, changes: dict[str, str | None], error: str
) -> None:
    """With the code that its RFC names; nothing is asked of the engine."""
    assert error_of(server.exchange(changes)) == (400, error)
    assert server.engine.asked == []


@pytest.mark.parametrize(
    "details",
    [
        "",
        "x",
        "{}",
        "[]",
        "null",
        "[1]",
        '[{"operation": "crm.search"}]',
        '[{"type": "payment_initiation", "operation": "crm.search"}]',
        '[{"type": "authz_task"}]',
        '[{"type": "authz_task", "operation": ""}]',
        '[{"type": "authz_task", "operation": 1}]',
        '[{"type": "authz_task", "operation": "crm.search", "actions": ["read"]}]',
        '[{"type": "authz_task", "operation": "crm.search", "uses": 9}]',
        '[{"type": "authz_task", "operation": "crm.search", "decision_id": "d"}]',
        '[{"type": "authz_task", "operation": "crm.search", "arguments": []}]',
        '[{"type": "authz_task", "operation": "crm.search", "resource": 1}]',
        '[{"type": "authz_task", "operation": "crm.search", "destinations": "x"}]',
        '[{"type": "authz_task", "operation": "crm.search", "destinations": [1]}]',
        '[{"type": "authz_task", "operation": "crm.search", "operation": "crm.delete"}]',
        '[{"type": "authz_task", "operation": "a", "arguments": {"x": 1, "x": 2}}]',
        '[{"type": "authz_task", "operation": "a", "arguments": {"x": NaN}}]',
        '[{"type": "authz_task", "operation": "a", "arguments": {"x": 1e999}}]',
        '[{"type": "authz_task", "operation": "a", "arguments": {"x": 0.12345678901234567890}}]',
        "[" * 5000,
        json.dumps(DETAILS * 17),
    ],
)
def test_details_that_are_not_known_are_refused(server: Server, details: str) -> None:
    """RFC 9396 §5: unknown types, members and values; and what two readers could read differently."""
    status, error = error_of(server.exchange({"authorization_details": details}))

    assert status == 400
    assert error == ("invalid_authorization_details" if details else "invalid_request")
    assert server.engine.asked == []


@pytest.mark.parametrize("name", ["audience", "resource"])
def test_a_credential_is_for_one_audience(server: Server, name: str) -> None:
    """RFC 8693 §2.1 lets them be there twice; then no token is issued (§2.2.2)."""
    values = ["https://a.example", "https://b.example"]
    body = urlencode({**server.authenticated(), "grant_type": GRANT}) + "".join(
        f"&{urlencode({name: value})}" for value in values
    )
    sent = server.send("POST", TOKEN, content=body, headers=form_type())

    assert error_of(sent) == (400, "invalid_target")


def form_type() -> dict[str, str]:
    """The type of a form."""
    return {"content-type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize(
    "body",
    [
        b"a",
        b"grant_type=a&grant_type=b",
        b"grant_type=%ff",
        "grant_type=ä".encode(),
        b"&".join(b"a%d=1" % number for number in range(65)),
        b"",
    ],
)
def test_what_is_no_form_is_refused(server: Server, body: bytes) -> None:
    """RFC 6749 §3.2: no parameter twice, UTF-8 in a form."""
    sent = server.send("POST", TOKEN, content=body, headers=form_type())

    status, error = error_of(sent)
    assert (status, error) in {(400, "invalid_request"), (401, "invalid_client")}
    assert server.engine.asked == []


def test_an_unknown_parameter_is_passed_over_and_an_empty_one_is_not_there(server: Server) -> None:
    """RFC 6749 §3.2."""
    assert server.exchange({"colour": "red", "audience": "", "scope": ""}).status_code == 200
    assert server.engine.request["audience"] is None


def test_parameters_in_the_query_do_not_count(server: Server) -> None:
    """RFC 6749 §2.3.1: credentials never stand in a URI."""
    sent = server.send("POST", TOKEN, params=server.authenticated(), data={"grant_type": GRANT})

    assert error_of(sent) == (401, "invalid_client")


def test_only_forms_are_read(server: Server) -> None:
    """Also where the content would be one."""
    for kind in ({"content-type": "application/json"}, {"content-type": "text/plain"}):
        sent = server.send("POST", TOKEN, content=urlencode(server.authenticated()), headers=kind)
        assert error_of(sent) == (400, "invalid_request")
    good = {"content-type": "Application/X-WWW-Form-Urlencoded; charset=UTF-8"}
    sent = server.send("POST", TOKEN, content=urlencode(server.authenticated()), headers=good)
    assert sent.json()["error_description"] == "the parameter grant_type is missing"


def test_a_body_is_bounded_whether_or_not_it_says_its_length(server: Server) -> None:
    """413, before anything is parsed."""

    async def chunks() -> Any:
        for _ in range(30):
            yield b"a=" + b"x" * 1000

    said = server.send("POST", TOKEN, content=b"a=" + b"x" * 30_000, headers=form_type())
    unsaid = server.send("POST", TOKEN, content=chunks(), headers=form_type())

    assert (error_of(said), error_of(unsaid)) == ((413, "invalid_request"),) * 2


def test_a_body_that_does_not_come_is_not_waited_for(server: Server) -> None:
    """408 after the time-out."""
    from starlette.requests import Request  # noqa: PLC0415

    sent: list[Any] = []

    async def never() -> Any:
        await asyncio.sleep(30)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/t/token",
        "raw_path": b"/t/token",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"content-type", b"application/x-www-form-urlencoded")],
    }
    assert Request(scope).method == "POST"
    asyncio.run(server.app(scope, never, send))

    assert sent[0]["status"] == 408


# --- RFC 9449


def test_a_proof_goes_to_the_engine_as_it_came(server: Server) -> None:
    """And the answer has a nonce where the engine gives one."""
    server.engine.nonce = "n-1"

    response = server.exchange(headers={"dpop": "p.q.r"})

    assert response.json()["token_type"] == "DPoP"
    assert response.headers["dpop-nonce"] == "n-1"
    assert server.engine.request["proof"] == "p.q.r"
    assert server.engine.request["http_uri"] == TOKEN


def test_more_than_one_proof_is_none(server: Server) -> None:
    """RFC 9449 §4.3, check 1."""
    body = urlencode(
        {
            **server.authenticated(),
            "grant_type": GRANT,
            "subject_token": "s",
            "subject_token_type": JWT,
            "task": "t",
            "authorization_details": json.dumps(DETAILS),
        }
    )
    headers = [*form_type().items(), ("dpop", "a"), ("dpop", "b")]

    sent = server.send("POST", TOKEN, content=body, headers=headers)

    assert error_of(sent) == (400, "invalid_dpop_proof")
    assert server.engine.asked == []


def test_a_nonce_is_asked_for_as_the_rfc_says(server: Server) -> None:
    """RFC 9449 §8: 400, `use_dpop_nonce`, and the nonce in a header."""
    server.engine.refuse = ApiError("BAD_PROOF", 16, "x", dpop_nonce="n-2")

    response = server.exchange(headers={"dpop": "p"})

    assert error_of(response) == (400, "use_dpop_nonce")
    assert response.headers["dpop-nonce"] == "n-2"


@pytest.mark.parametrize(
    ("reason", "status", "error"),
    [
        ("BAD_PROOF", 400, "invalid_dpop_proof"),
        ("REPLAYED", 400, "invalid_dpop_proof"),
        ("PROOF_REQUIRED", 400, "invalid_dpop_proof"),
        ("BAD_CREDENTIAL", 400, "invalid_request"),
        ("EXPIRED_CREDENTIAL", 400, "invalid_request"),
        ("UNTRUSTED_ISSUER", 400, "invalid_request"),
        ("UNBOUND_CREDENTIAL", 400, "invalid_request"),
        ("REVOKED", 400, "invalid_request"),
        ("UNKNOWN_TASK", 400, "invalid_request"),
        ("TASK_ENDED", 400, "invalid_request"),
        ("NOT_ASSIGNEE", 400, "invalid_request"),
        ("WRONG_AUDIENCE", 400, "invalid_target"),
        ("ENFORCER_REFUSED", 400, "unauthorized_client"),
        ("NOT_PERMITTED", 400, "invalid_authorization_details"),
        ("FORBIDDEN", 400, "invalid_authorization_details"),
        ("OUT_OF_SCOPE", 400, "invalid_authorization_details"),
        ("CONFIRM_REQUIRED", 400, "invalid_authorization_details"),
        ("UNKNOWN_OPERATION", 400, "invalid_authorization_details"),
        ("BAD_INPUT", 400, "invalid_authorization_details"),
        ("OVERLOADED", 503, "temporarily_unavailable"),
        ("STATE_UNAVAILABLE", 503, "temporarily_unavailable"),
        ("STORE_SLOW", 503, "temporarily_unavailable"),
        ("UNAVAILABLE", 503, "temporarily_unavailable"),
    ],
)
def test_a_refusal_of_the_engine_is_said_as_oauth_does(
    server: Server, reason: str, status: int, error: str
) -> None:
    """RFC 8693 §2.2.2; the agent is told its public row, and never which rule it was."""
    server.engine.refuse = ApiError(reason, 7, "policy no-data-out of bob says so")

    response = server.exchange()

    assert error_of(response) == (status, error)
    assert "no-data-out" not in response.text
    assert reason == "UNAVAILABLE" or reason not in response.text
    row = next(row for row in reason_table() if row["name"] == reason)
    if status != 503:
        assert response.json()["authz"] == {
            name: row[name] for name in ("public_code", "next_action", "retry")
        }


@pytest.mark.parametrize(
    ("reason", "step", "said"),
    [
        ("BAD_PROOF", "identify", Defect.PROOF),
        ("REPLAYED", "resolve", Defect.PROOF_USED),
        ("PROOF_REQUIRED", "judge", Defect.PROOF_NEEDED),
        ("NO_CREDENTIAL", "identify", Defect.TOKEN),
        ("BAD_CREDENTIAL", "identify", Defect.TOKEN),
        ("EXPIRED_CREDENTIAL", "identify", Defect.TOKEN_EXPIRED),
        ("UNTRUSTED_ISSUER", "identify", Defect.TOKEN_ISSUER),
        ("UNBOUND_CREDENTIAL", "identify", Defect.TOKEN_UNBOUND),
        ("WRONG_AUDIENCE", "identify", Defect.TOKEN_AUDIENCE),
        ("WRONG_AUDIENCE", "resolve", Defect.AUDIENCE),
        ("STATE_UNAVAILABLE", "locate", Defect.BUSY),
    ],
)
def test_a_refusal_of_a_token_or_proof_names_what_is_wrong(
    server: Server, reason: str, step: str, said: Defect
) -> None:
    """The client has it in its own hands; the words of the engine stay inside."""
    server.engine.refuse = ApiError(reason, 7, "issuer corp says no", step=step)

    response = server.exchange()

    assert error_of(response) == (said.value.status, said.value.error)
    assert response.json()["error_description"] == said.value.description
    assert "corp" not in response.text


@pytest.mark.parametrize("defect", sorted(FORM_DEFECTS))
def test_each_defect_of_a_request_has_its_own_text(server: Server, defect: str) -> None:
    """RFC 6749 §5.2: `error_description` helps the developer; the texts are fixed."""
    name, said, changes = FORM_DEFECTS[defect]
    server.chain = ()

    response = server.exchange(changes)

    assert error_of(response) == (said.value.status, said.value.error)
    assert response.json()["error_description"] == said.value.description.replace("NAME", name)
    assert server.engine.asked == []


def test_every_text_is_documented() -> None:
    """And nothing else is."""
    page = (Path(__file__).parents[2] / "docs/reference/credentials.md").read_text()
    table = page.partition("#### Texts")[2].partition("\n#")[0]
    documented = {tuple(row.split(" | ")) for row in table.splitlines() if row.startswith("| `")}
    expected = {
        (f"| `{one.value.error}`", str(one.value.status), f"{one.value.description} |")
        for one in Defect
    }
    assert documented == expected


def test_refusals_of_one_public_row_are_the_same_bytes(server: Server) -> None:
    """Else the difference would tell what policy there is."""
    texts = set()
    for reason in ("FORBIDDEN", "NOT_PERMITTED"):
        server.engine.refuse = ApiError(reason, 7, reason)
        texts.add(server.exchange().text)

    assert len(texts) == 1


def test_what_goes_wrong_inside_is_not_told(server: Server) -> None:
    """It is logged, counted, and answered as unavailable."""
    server.engine.refuse = RuntimeError("secret words")

    response = server.exchange()

    assert error_of(response) == (503, "temporarily_unavailable")
    assert "secret" not in response.text
    assert [str(error) for error in server.failed] == ["secret words"]
    assert server.counted == [("token", 503)]


# --- RFC 7662


def test_an_active_credential_is_described(server: Server) -> None:
    """RFC 7662 §2.2, for the client that asked."""
    server.engine.active = {"active": True, "sub": "corp/alice", "cnf": {"jkt": "x"}}

    response = server.ask(INTROSPECT, token="a.b.c", token_type_hint="access_token")

    assert response.json() == server.engine.active
    assert response.headers["cache-control"] == "no-store"
    client, token = server.engine.request
    assert (client.spiffe_id, client.how, token) == (BOT, "jwt_svid", "a.b.c")


@pytest.mark.parametrize(
    "known",
    [
        {"active": False},
        {"active": False, "sub": "alice"},
        {},
        {"active": "true", "sub": "alice"},
        {"active": 1, "sub": "alice"},
    ],
)
def test_of_an_inactive_one_nothing_is_said(server: Server, known: dict[str, Any]) -> None:
    """Exactly `active: false`, whatever else is known."""
    server.engine.active = known

    assert server.ask(INTROSPECT, token="a").text == '{"active": false}'


@pytest.mark.parametrize("url", [INTROSPECT, REVOKE])
def test_a_token_must_be_given(server: Server, url: str) -> None:
    """RFC 7662 §2.1, RFC 7009 §2.1."""
    assert error_of(server.ask(url)) == (400, "invalid_request")
    assert error_of(server.ask(url, token="")) == (400, "invalid_request")


# --- RFC 7009


def test_a_revocation_is_answered_alike_whatever_the_token(server: Server) -> None:
    """RFC 7009 §2.2: 200, also for one that was never good; hints do not matter."""
    for hint in ("access_token", "refresh_token", "colour"):
        response = server.ask(REVOKE, token="no token at all", token_type_hint=hint)
        assert (response.status_code, response.content) == (200, b"")
        assert response.headers["cache-control"] == "no-store"


def test_a_revocation_that_cannot_be_done_now_says_so(server: Server) -> None:
    """RFC 7009 §2.2.1: 503, so that the client keeps the token in mind."""
    server.engine.refuse = ApiError("STATE_UNAVAILABLE", 14, "x")

    response = server.ask(REVOKE, token="a.b.c")

    assert response.status_code == 503
    assert response.headers["retry-after"]
