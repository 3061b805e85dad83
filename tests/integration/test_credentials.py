"""Task credentials on a running server: issued, verified by others, inspected, revoked, over gRPC and HTTP."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import jwt
import pytest
from google.protobuf import json_format

from authz.cli import main as command
from authz_client import Authz, Denied, TaskCredential
from tests.integration.test_revoke import revoke
from tests.integration.test_tasks import refused
from tests.support.issuing import (
    AGENTS,
    CRM,
    GRANT,
    JWT,
    ORCH,
    PEER,
    Shop,
    issuing_layout,
    verified,
)
from tests.support.mutual import Pki
from tests.support.postgres import Postgres, programs
from tests.support.server import Server
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.minting import Authority

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "authz"
LIBRARY = CACHE / "oauth-peer-1"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """Certificates."""
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def shop(
    authority: Authority, pki: Pki, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    """A server that issues, and its callers."""
    with Server(issuing_layout(tmp_path_factory.mktemp("shop"), authority, pki)) as running:
        yield Shop(running, authority, pki)


def claims_of(shop: Shop, token: str) -> dict[str, Any]:
    """Verify a credential of the CRM by what the server publishes."""
    return verified(token, shop.get("/jwks").json(), shop.issuer, CRM)


def raises(code: grpc.StatusCode, reason: str, call: Any, *args: Any, **named: Any) -> None:
    """A call that is refused with that code and reason."""
    with pytest.raises(grpc.RpcError) as error:
        call(*args, **named)
    assert (refused(error.value), error.value.code()) == (reason, code)


# --- over gRPC


def test_pyjwt_verifies_what_is_issued(shop: Shop) -> None:
    """By the JWKS of the server; the token says what was permitted, and no more."""
    task = shop.start()
    permit = shop.permit(task)

    issued = shop.issue(permit, lifetime_seconds=60)

    claims = claims_of(shop, issued.token)
    assert issued.token_type == "Bearer"
    assert issued.expires_at.seconds == claims["exp"]
    assert claims["exp"] - claims["iat"] == 60
    assert claims["iss"] == shop.issuer
    assert claims["sub"] == "corp/alice"
    assert claims["act"] == {"sub": ORCH}
    assert claims["client_id"] == ORCH
    assert claims["task"] == task
    (detail,) = claims["authorization_details"]
    assert detail["type"] == "authz_task"
    assert detail["operation"] == "crm.read"
    assert detail["uses"] == 1
    assert detail["decision_id"] == permit


def test_a_life_is_never_longer_than_the_tier_lets_it(shop: Shop) -> None:
    """Whatever is wished for."""
    issued = shop.issue(shop.permit(shop.start()), lifetime_seconds=86_400)

    claims = claims_of(shop, issued.token)
    assert claims["exp"] - claims["iat"] == 300


def test_introspection_tells_those_who_may_know(shop: Shop) -> None:
    """The agent itself, and the owner of the administration socket; to others it is not active."""
    issued = shop.issue(shop.permit(shop.start()))

    own = shop.introspect(issued.token, listener="none")
    assert own.active
    told = json_format.MessageToDict(own.claims)
    claims = claims_of(shop, issued.token)
    assert told["jti"] == claims["jti"]
    assert told["authorization_details"] == claims["authorization_details"]
    assert shop.introspect(issued.token, None, "admin").active
    other = shop.introspect(issued.token, PEER, "none")
    assert not other.active
    assert not other.claims.fields
    assert not shop.introspect("no token").active


def test_a_revoked_credential_is_not_active(shop: Shop) -> None:
    """By the agent itself, and by the administration; nobody else can."""
    issued = [shop.issue(shop.permit(shop.start())).token for _ in range(2)]

    raises(grpc.StatusCode.PERMISSION_DENIED, "NOT_ASSIGNEE", shop.revoke, issued[0], PEER)
    assert shop.introspect(issued[0]).active
    shop.revoke(issued[0])
    shop.revoke(issued[1], None, "admin")

    assert [shop.introspect(token).active for token in issued] == [False, False]


def test_the_end_of_a_task_ends_its_credentials(shop: Shop) -> None:
    """At once."""
    task = shop.start()
    token = shop.issue(shop.permit(task)).token
    assert shop.introspect(token).active

    shop.end(task)

    assert not shop.introspect(token).active


def test_a_credential_is_issued_once_to_whom_it_was_permitted(shop: Shop) -> None:
    """Of a permit that was kept for it."""
    permit = shop.permit(shop.start())
    raises(grpc.StatusCode.PERMISSION_DENIED, "NOT_ASSIGNEE", shop.issue, permit, PEER)
    shop.issue(permit)
    with pytest.raises(grpc.RpcError) as error:
        shop.issue(permit)
    assert refused(error.value) == "USES_EXHAUSTED"


def test_a_node_without_a_key_commits_nothing(
    authority: Authority, pki: Pki, tmp_path: Path
) -> None:
    """It says so before anything is decided, and readiness says why; the permit stays."""
    keys = {"credentials": {"keys": {"generate": False}}}
    with Server(issuing_layout(tmp_path, authority, pki, keys)) as running:
        shop = Shop(running, authority, pki)
        permit = shop.permit(shop.start())
        raises(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", shop.issue, permit)
        assert any("no key signs credentials" in one for one in running.readiness()["problems"])
        assert running.readiness()["ready"]
        assert shop.get("/jwks").json() == {"keys": []}
        assert shop.get("/jwks").headers["cache-control"] == "no-store"

        with pytest.raises(SystemExit):
            command(["keys", "generate", str(tmp_path / "keys"), "--algorithm", "EdDSA"])

        def issued() -> bool:
            try:
                return bool(shop.issue(permit).token)
            except grpc.RpcError:
                return False

        eventually(issued, what="the node has found the key")
        assert shop.get("/jwks").json()["keys"][0]["alg"] == "EdDSA"


def test_a_server_that_is_killed_goes_on_with_its_key_and_credentials(
    authority: Authority, pki: Pki, tmp_path: Path
) -> None:
    """What was issued can be verified and is active after a restart."""
    place = issuing_layout(tmp_path, authority, pki)
    with Server(place) as running:
        shop = Shop(running, authority, pki)
        token = shop.issue(shop.permit(shop.start())).token
        before = shop.get("/jwks").json()
        assert running.process is not None
        running.process.kill()
        running.process.wait()
    with Server(place) as running:
        shop = Shop(running, authority, pki)
        assert shop.get("/jwks").json() == before
        assert claims_of(shop, token)["sub"] == "corp/alice"
        assert shop.introspect(token).active


def test_private_keys_are_for_their_owner_only(shop: Shop) -> None:
    """Folder and files, as the server has made them."""
    folder = shop.server.place.folder / "keys"
    assert folder.stat().st_mode & 0o7777 == 0o700
    assert [file.stat().st_mode & 0o7777 for file in folder.iterdir()] == [0o600]


def test_a_server_whose_keys_others_can_read_does_not_start(
    authority: Authority, pki: Pki, tmp_path: Path
) -> None:
    """It says which, and how to fix it."""
    (tmp_path / "keys").mkdir(mode=0o755)
    server = Server(issuing_layout(tmp_path, authority, pki))
    server.spawn()
    try:
        assert server.process is not None
        assert server.process.wait(30) == 3
        assert "chmod 0700" in server.log.read_text()
    finally:
        server.close()


def test_keys_are_counted_and_shown(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    """In metrics, in readiness, and by the command; no private half anywhere."""
    assert shop.server.metric("authz_signing_keys", state="signing") == 1
    (key,) = shop.server.readiness()["signing_keys"]
    assert key["signs"]
    assert key["own"]

    with pytest.raises(SystemExit) as ended:
        command(
            ["keys", "list", "--admin", shop.server.place.config["listeners"]["admin"]["address"]]
        )
    assert ended.value.code == 0
    assert key["kid"] in capsys.readouterr().out.replace("\n", "")


def test_the_sdk_gets_shows_and_gives_back_a_credential(shop: Shop) -> None:
    """As an agent with an SVID of its own; what is not permitted raises."""
    address = shop.server.place.config["listeners"]["main"]["address"]
    with Authz(address, credentials=shop.authority.agent(ORCH), timeout=20) as authz:
        task = shop.start()
        credential = authz.credentials.issue("crm.read", {"id": "acme"}, task=task, bound=False)
        assert isinstance(credential, TaskCredential)
        shown = credential.headers("GET", "https://crm.example/customers")
        assert shown == {"authorization": f"Bearer {credential.token}"}
        assert claims_of(shop, credential.token)["task"] == task
        authz.credentials.revoke(credential)
        assert not shop.introspect(credential.token).active
        with pytest.raises(Denied) as denied:
            authz.credentials.issue("crm.read", {"id": "other"}, task=task, bound=False)

    assert denied.value.reason_code == "OUT_OF_SCOPE"


def test_the_command_issues_inspects_and_revokes(
    shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With files of tokens, and by the administration socket."""
    listeners = shop.server.place.config["listeners"]
    main, admin = listeners["main"]["address"], listeners["admin"]["address"]
    (tmp_path / "svid").write_text(shop.authority.agent(ORCH))

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            command(list(arguments))
        assert ended.value.code == 0
        return capsys.readouterr().out

    asked = ["--agent-token", str(tmp_path / "svid"), "--server", main, "--task", shop.start()]
    token = run("credential", "issue", "crm.read", *asked, "--arguments", '{"id": "acme"}')
    (tmp_path / "token").write_text(token)

    def known() -> dict[str, Any]:
        asked = ("credential", "introspect", str(tmp_path / "token"), "--server", admin)
        told: dict[str, Any] = json.loads(run(*asked, "--format", "json"))
        return told

    assert known()["client_id"] == ORCH
    run("credential", "revoke", str(tmp_path / "token"), "--server", admin)
    assert known() == {"active": False}


# --- over HTTP


def test_what_is_issued_is_inspected_and_revoked_over_http(shop: Shop) -> None:
    """Whoever may not know learns only that it is not active; revoking another's does nothing."""
    token = shop.issue(shop.permit(shop.start())).token

    mine = shop.post("/introspect", {"token": token}).json()
    assert mine["active"] is True
    assert mine["client_id"] == ORCH
    assert shop.post("/introspect", {"token": token}, as_agent=PEER).json() == {"active": False}
    assert shop.post("/revoke", {"token": token}, as_agent=PEER).status_code == 200
    assert shop.post("/introspect", {"token": token}).json()["active"] is True
    assert shop.post("/revoke", {"token": token}).status_code == 200
    assert shop.post("/introspect", {"token": token}).json() == {"active": False}
    assert shop.post("/revoke", {"token": token}).status_code == 200


def test_requests_are_counted_and_leave_no_secret_behind(shop: Shop) -> None:
    """Neither log nor audit has a token or an assertion."""
    token = shop.issue(shop.permit(shop.start())).token
    form = shop.assertion()
    shop.post("/introspect", {**form, "token": token})
    shop.post("/introspect", {**form, "token": "eyJhbGciOiJub25lIn0.e30."})

    assert shop.server.metric("authz_http_requests_total", endpoint="introspect", status="200") >= 1
    written = shop.server.log.read_text() + shop.server.place.audit.read_text()
    for secret in (token, form["client_assertion"], shop.alice):
        assert secret not in written
        assert secret.split(".")[2] not in written


@pytest.mark.peers
@pytest.mark.parametrize("how", ["private_key_jwt", "tls_client_auth"])
@pytest.mark.parametrize("bound", ["dpop", "otherwise"])
def test_an_independent_client_goes_the_whole_way(
    shop: Shop, pki: Pki, how: str, bound: str
) -> None:
    """Discovery, exchange with DPoP, introspection, validation as a resource server, revocation."""
    node = shutil.which("node")
    if node is None or not (LIBRARY / "done").exists():
        pytest.skip("needs node, and the OAuth client of `make test-tools`")
    dpop = bound == "dpop"
    if how == "tls_client_auth":
        svid = pki.a.svid(ORCH)
        shown: dict[str, Any] = {"cert": svid.pem.decode(), "cert_key": svid.key_pem.decode()}
    else:
        shown = {"assertion_key": shop.assertion_key()}
    details = [{"type": "authz_task", "operation": "crm.read", "arguments": {"id": "acme"}}]

    parameters = {
        "subject_token": shop.alice,
        "subject_token_type": JWT,
        "template": "answer",
        "template_params": json.dumps({"customer": "acme", "most": 5}),
        "authorization_details": json.dumps(details),
    }
    done = shop.peer(node, LIBRARY, parameters=parameters, dpop=dpop, **shown)

    assert done["server"]["issuer"] == shop.issuer
    assert done["token"]["token_type"] == ("dpop" if dpop else "bearer")
    assert done["active"]["active"] is True
    assert done["active"].get("cnf", {}).keys() == (
        {"jkt"} if dpop else {"x5t#S256"} if how == "tls_client_auth" else set()
    )
    assert done["nonces"] in {0, 1}
    if "claims" in done:
        assert done["claims"]["act"] == {"sub": ORCH}
        assert done["claims"]["sub"] == "corp/alice"
    assert done["after"] == {"active": False}


# --- token exchange, by what the engine decides


def test_an_exchange_starts_a_task_and_is_for_what_was_asked(shop: Shop) -> None:
    """One task, one credential, one decision for each detail."""
    params = '{"customer": "acme", "most": 5}'
    answer = shop.exchange(template="answer", template_params=params)

    issued = answer.json()
    assert answer.status_code == 200, issued
    assert issued["token_type"] == "Bearer"
    claims = claims_of(shop, issued["access_token"])
    assert claims["task"] == issued["task"]
    assert "cnf" not in claims
    assert claims["act"] == {"sub": ORCH}
    assert issued["authorization_details"] == claims["authorization_details"]
    assert issued["expires_in"] == claims["exp"] - claims["iat"]


def test_an_exchange_of_a_task_is_of_that_task(shop: Shop) -> None:
    """And of no other agent's."""
    task = shop.start()

    assert shop.exchange(task=task).json()["task"] == task
    other = shop.exchange(task=task, as_agent=PEER)
    assert other.status_code == 400
    assert other.json()["error"] in {"invalid_request", "unauthorized_client"}


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"task": "unknown"}, "invalid_request"),
        ({"subject_token": "a.b.c"}, "invalid_request"),
        ({"actor_token": "a.b.c", "actor_token_type": JWT}, "invalid_request"),
        ({"audience": "https://mail.example"}, "invalid_target"),
    ],
)
def test_an_exchange_of_what_is_not_valid_is_refused(
    shop: Shop, form: dict[str, str], error: str
) -> None:
    """RFC 8693 §2.2.2."""
    said: dict[str, Any] = {"task": shop.start(), **form}
    answer = shop.exchange(**said)

    assert (answer.status_code, answer.json()["error"]) == (400, error)


def test_all_or_nothing(shop: Shop) -> None:
    """One detail that is not permitted refuses the whole exchange, and charges nothing."""
    task = shop.start()

    def refund(amount: int) -> dict[str, Any]:
        arguments = {"id": "acme", "amount": amount, "reason": "late"}
        return {"type": "authz_task", "operation": "crm.refund", "arguments": arguments}

    good, bad = refund(5), refund(500)

    both = shop.exchange([good, bad], task=task)
    assert (both.status_code, both.json()["error"]) == (400, "invalid_authorization_details")
    assert both.json()["authz"]["public_code"]
    # Two uses are in the template: both are still there.
    for _ in range(2):
        assert shop.exchange([good], task=task).status_code == 200
    assert shop.exchange([good], task=task).status_code == 400


def test_a_proof_is_taken_once(shop: Shop) -> None:
    """At the token endpoint too."""
    proof = {"dpop": shop.key.proof("POST", f"{shop.issuer}/token")}
    form = {
        "grant_type": GRANT,
        "subject_token": shop.alice,
        "subject_token_type": JWT,
        "task": shop.start(),
        "authorization_details": '[{"type": "authz_task", "operation": "crm.read", "arguments": {"id": "acme"}}]',
    }
    first = shop.post("/token", form, headers=proof)
    again = shop.post("/token", form, headers=proof)

    assert first.status_code == 200, first.text
    assert (again.status_code, again.json()["error"]) == (400, "invalid_dpop_proof")


@pytest.mark.parametrize(
    ("method", "url"), [("GET", "/token"), ("POST", "/introspect"), ("POST", "/token/")]
)
def test_a_proof_of_another_request_is_refused(shop: Shop, method: str, url: str) -> None:
    """RFC 9449 §4.3."""
    proof = {"dpop": shop.key.proof(method, f"{shop.issuer}{url}")}
    form = {
        "grant_type": GRANT,
        "subject_token": shop.alice,
        "subject_token_type": JWT,
        "task": shop.start(),
        "authorization_details": '[{"type": "authz_task", "operation": "crm.read", "arguments": {"id": "acme"}}]',
    }
    answer = shop.post("/token", form, headers=proof)

    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")


def test_a_credential_is_bound_to_the_key_that_is_proved(shop: Shop) -> None:
    """At the token endpoint, and at Issue."""
    exchanged = shop.exchange(task=shop.start(), proof=True).json()
    assert exchanged["token_type"] == "DPoP"
    proof = shop.key.proof("POST", f"{shop.issuer}/authz.v1.Credentials/Issue")
    issued = shop.issue(shop.permit(shop.start()), proof=proof)
    assert issued.token_type == "DPoP"
    for token in (exchanged["access_token"], issued.token):
        assert claims_of(shop, token)["cnf"] == {"jkt": shop.key.thumbprint}

    permit = shop.permit(shop.start())
    with pytest.raises(grpc.RpcError) as replayed:
        shop.issue(permit, proof=proof)
    assert refused(replayed.value) == "REPLAYED"
    with pytest.raises(grpc.RpcError) as other:
        shop.issue(permit, proof=shop.key.proof("POST", f"{shop.issuer}/token"))
    assert refused(other.value) == "BAD_PROOF"


def test_a_credential_of_tier_high_is_bound(shop: Shop) -> None:
    """Or not issued: not in an exchange, and whoever proves no key gets no permit to issue one of."""
    details = [{"type": "authz_task", "operation": "crm.delete", "arguments": {"id": "acme"}}]
    task = shop.start("clean", customer="acme")

    unbound = shop.exchange(details, task=task)
    assert (unbound.status_code, unbound.json()["error"]) == (400, "invalid_dpop_proof")
    assert list(shop.judged(task, "crm.delete").step_up_kinds) == ["bound_token"]

    bound = shop.exchange(details, task=task, proof=True)
    assert bound.status_code == 200, bound.text
    claims = claims_of(shop, bound.json()["access_token"])
    assert claims["exp"] - claims["iat"] <= 120


def test_a_nonce_is_asked_for_and_taken(authority: Authority, pki: Pki, tmp_path: Path) -> None:
    """Where each proof needs one: over HTTP as RFC 9449 §8 says, over gRPC with the error; the SDK follows by itself."""
    changes = {"credentials": {"dpop": {"require_nonce": True}}}
    with Server(issuing_layout(tmp_path, authority, pki, changes)) as running:
        shop = Shop(running, authority, pki)
        task = shop.start()
        asked = shop.exchange(task=task, proof=True)
        assert (asked.status_code, asked.json()["error"]) == (400, "use_dpop_nonce")
        nonce = asked.headers["dpop-nonce"]
        given = shop.exchange(task=task, proof=True, nonce=nonce)
        assert given.status_code == 200, given.text
        wrong = shop.exchange(task=task, proof=True, nonce="mine")
        assert wrong.json()["error"] in {"use_dpop_nonce", "invalid_dpop_proof"}

        address = running.place.config["listeners"]["main"]["address"]
        svid = authority.agent(ORCH)
        with Authz(address, credentials=svid, credential_issuer=shop.issuer, timeout=20) as authz:
            credential = authz.credentials.issue("crm.read", {"id": "acme"}, task=task)
            assert isinstance(credential, TaskCredential)
            assert credential.token_type == "DPoP"
            assert claims_of(shop, credential.token)["cnf"] == {
                "jkt": authz.credentials.key.thumbprint
            }


def test_agents_of_another_domain_are_no_clients(shop: Shop, authority: Authority) -> None:
    """Whatever they assert."""
    stranger = f"{AGENTS}/orch".replace("a.example", "x.example")
    form = {**shop.assertion(), "client_assertion": authority.agent(stranger, aud=shop.issuer)}
    answer = shop.post("/introspect", {**form, "token": "a"})

    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


@pytest.mark.timeout(120)
@pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed (Debian: postgresql)")
def test_two_servers_publish_and_believe_each_others_keys(
    authority: Authority, pki: Pki, tmp_path: Path
) -> None:
    """Each has its own; the later one waits, and is not ready; what one issues, the other verifies, and ends.

    A key that is revoked on one of them signs nothing from then on, and neither publishes it.
    """
    with Postgres() as database, ExitStack() as running:
        state = {
            "engine": "postgresql",
            "dsn": f"postgresql://postgres@127.0.0.1:{database.port}/authz",
        }
        sites = []
        for name in ("one", "other"):
            # One issuer, as behind one name.
            keys = {"jwks_max_age": "20s"}
            changes = {
                "state": state,
                "credentials": {"issuer": "https://authz.example", "keys": keys},
            }
            place = issuing_layout(tmp_path / name, authority, pki, changes)
            server = Server(place)
            running.callback(server.close)
            server.spawn()
            if name == "one":
                eventually(lambda: server.http("/readyz")[0] == 200, what="it is ready")  # noqa: B023 - asked at once
            else:
                eventually(lambda: "one will in" in server.http("/readyz")[1], what="it waits")  # noqa: B023 - as above
            shop = Shop(server, authority, pki)
            port = place.config["listeners"]["http"]["address"].rpartition(":")[2]
            shop.at = f"https://localhost:{port}"
            sites.append(shop)
        one, other = sites
        eventually(lambda: len(one.get("/jwks").json()["keys"]) == 2, what="both keys")
        assert one.get("/jwks").json() == other.get("/jwks").json()
        assert one.server.metric("authz_signing_keys", state="other_nodes") == 1

        permit = other.permit(one.start())
        raises(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", other.issue, permit)
        assert "one will in" in " ".join(other.server.readiness()["problems"])
        token = one.issue(permit).token
        assert claims_of(other, token)["iss"] == "https://authz.example"
        assert other.introspect(token).active
        other.revoke(token)

        assert not one.introspect(token).active
        assert not other.server.readiness()["ready"]
        eventually(lambda: other.server.http("/readyz")[0] == 200, what="its key signs")
        assert other.issue(other.permit(one.start())).token

        # Revoked on the other node: the node whose key it is signs nothing as soon as it is told.
        kid = jwt.get_unverified_header(token)["kid"]
        permits = [one.permit(one.start()) for _ in range(2)]
        # One key id in 64 begins with a dash.
        assert revoke(other.server, "--reason", "test", "--", "key", kid).returncode == 0
        raises(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", one.issue, permits[0])

        def unpublished() -> bool:
            pages = [shop.get("/jwks").json()["keys"] for shop in sites]
            return all(kid not in {key["kid"] for key in page} for page in pages)

        eventually(unpublished, within=5, what="no node publishes it")
        assert other.issue(permits[1]).token
        assert one.server.readiness()["ready"]
