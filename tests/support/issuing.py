"""A server that issues task credentials, and those who ask it for them."""

import base64
import json
import subprocess
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import jwt
from google.protobuf.struct_pb2 import Struct

from authz_client import ProofKey
from authz_client.v1 import credentials_pb2, decision_pb2, tasks_pb2
from tests.support.minting import DOMAIN, Authority
from tests.support.mutual import Pki
from tests.support.server import Layout, Server, layout, merged
from tests.support.surfaces import CHECK, decision_of
from tests.support.waiting import free_port

AGENTS: Final = f"spiffe://{DOMAIN}/ns/support/sa"
ORCH, PEER, SUB = f"{AGENTS}/orch", f"{AGENTS}/peer", f"{AGENTS}/sub"
PEER_SCRIPT: Final = Path(__file__).with_name("oauth_peer.mjs")
GRANT: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
BEARER: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
CRM: Final = "https://crm.example"


def issuing_layout(
    folder: Path, authority: Authority, pki: Pki, changes: Mapping[str, Any] | None = None
) -> Layout:
    """Lays out a server of the bundle `tasks` that issues credentials, with HTTP over TLS.

    Args:
        folder: Where its files go.
        authority: Whose tokens are trusted.
        pki: Whose certificates are.
        changes: Merged into the configuration.

    Returns:
        The layout.
    """
    port = free_port()
    mutual = {**pki.tls, "client_ca_file": str(pki.clients)}
    base = {
        "credentials": {
            "issuer": f"https://localhost:{port}",
            "audiences": {"crm": CRM},
            "keys": {"folder": str(folder / "keys")},
        },
        "listeners": {
            "http": {"address": f"127.0.0.1:{port}", "tls": mutual},
            "mutual": {"address": f"127.0.0.1:{free_port()}", "tls": mutual},
        },
    }
    place = layout(folder, authority, "tasks", merged(base, changes or {}))
    pki.trust(place)
    return place


class Shop:
    """Whoever asks a running server for credentials."""

    def __init__(self, server: Server, authority: Authority, pki: Pki) -> None:
        self.server = server
        self.authority = authority
        self.pki = pki
        self.issuer: str = server.place.config["credentials"]["issuer"]
        self.at = self.issuer
        self.alice = authority.subject("alice", groups=["employees"])
        self.key = ProofKey()

    # --- over gRPC

    def evidence(self, *tokens: str) -> list[decision_pb2.Evidence]:
        """Makes evidence of agents (by SPIFFE id) and subjects (by token)."""
        return [
            decision_pb2.Evidence(
                role=decision_pb2.EVIDENCE_ROLE_AGENT
                if token.startswith("spiffe:")
                else decision_pb2.EVIDENCE_ROLE_SUBJECT,
                scheme=decision_pb2.EVIDENCE_SCHEME_BEARER,
                token=self.authority.agent(token) if token.startswith("spiffe:") else token,
            )
            for token in tokens
        ]

    def start(self, template: str = "answer", **params: Any) -> str:
        """Starts Alice's task of the orchestrator."""
        given = Struct()
        given.update(params or {"customer": "acme", "most": 5})
        request = tasks_pb2.StartRequest(
            evidence=self.evidence(ORCH, self.alice), template=template, params=given
        )
        data = self.server.call("main", "authz.v1.Tasks/Start", request.SerializeToString())
        return tasks_pb2.StartResponse.FromString(data).task.id

    def end(self, task: str) -> None:
        """Ends a task."""
        request = tasks_pb2.EndRequest(evidence=self.evidence(ORCH), task=task)
        request.status = tasks_pb2.TASK_STATUS_COMPLETED
        self.server.call("main", "authz.v1.Tasks/End", request.SerializeToString())

    def judged(
        self, task: str, operation: str = "crm.read", agent: str = ORCH, **arguments: Any
    ) -> decision_pb2.Decision:
        """Asks for a permit that is kept for a credential."""
        request = decision_pb2.CheckRequest(
            evidence=self.evidence(agent),
            task=task,
            operation=operation,
            arguments_json=json.dumps(arguments or {"id": "acme"}).encode(),
            wants_credential=True,
        )
        return decision_of(self.server.call("main", CHECK, request.SerializeToString()))

    def permit(
        self, task: str, operation: str = "crm.read", agent: str = ORCH, **arguments: Any
    ) -> str:
        """Gets a permit that is kept for a credential; its decision id."""
        decision = self.judged(task, operation, agent, **arguments)
        assert decision.outcome == decision_pb2.OUTCOME_PERMIT, decision
        return decision.decision_id

    def issue(
        self, decision_id: str, agent: str = ORCH, **more: Any
    ) -> credentials_pb2.IssueResponse:
        """Issues."""
        request = credentials_pb2.IssueRequest(
            evidence=self.evidence(agent), decision_id=decision_id, **more
        )
        data = self.server.call("main", "authz.v1.Credentials/Issue", request.SerializeToString())
        return credentials_pb2.IssueResponse.FromString(data)

    def introspect(
        self, token: str, agent: str | None = ORCH, listener: str = "main"
    ) -> credentials_pb2.IntrospectResponse:
        """Introspects."""
        evidence = self.evidence(agent) if agent is not None else []
        request = credentials_pb2.IntrospectRequest(evidence=evidence, token=token)
        data = self.server.call(
            listener, "authz.v1.Credentials/Introspect", request.SerializeToString()
        )
        return credentials_pb2.IntrospectResponse.FromString(data)

    def revoke(self, token: str, agent: str | None = ORCH, listener: str = "main") -> None:
        """Revokes."""
        evidence = self.evidence(agent) if agent is not None else []
        request = credentials_pb2.CredentialsRevokeRequest(evidence=evidence, token=token)
        self.server.call(listener, "authz.v1.Credentials/Revoke", request.SerializeToString())

    # --- over HTTP

    def get(self, path: str) -> httpx.Response:
        """Reads what anyone may."""
        with httpx.Client(verify=self._anyone(), trust_env=False) as client:
            return client.get(f"{self.at}{path}")

    def assertion(self, agent: str = ORCH, **claims: Any) -> dict[str, str]:
        """The parameters by which an agent authenticates."""
        good = {"iss": agent, "aud": self.issuer, "jti": uuid.uuid4().hex}
        asserted = self.authority.agent(agent, exp=int(time.time()) + 60, **{**good, **claims})
        return {"client_assertion_type": BEARER, "client_assertion": asserted}

    def post(
        self, path: str, form: Mapping[str, str], *, as_agent: str = ORCH, **more: Any
    ) -> httpx.Response:
        """Sends a form as an agent, by assertion."""
        body = {**self.assertion(as_agent), **form}
        with httpx.Client(verify=self._anyone(), trust_env=False) as client:
            return client.post(f"{self.at}{path}", data=body, **more)

    def exchange(
        self,
        details: list[dict[str, Any]] | None = None,
        *,
        as_agent: str = ORCH,
        proof: bool = False,
        nonce: str = "",
        **form: Any,
    ) -> httpx.Response:
        """Exchanges Alice's token."""
        asked = details or [
            {"type": "authz_task", "operation": "crm.read", "arguments": {"id": "acme"}}
        ]
        body = {
            "grant_type": GRANT,
            "subject_token": self.alice,
            "subject_token_type": JWT,
            "authorization_details": json.dumps(asked),
            **form,
        }
        url = f"{self.issuer}/token"
        headers = {"dpop": self.key.proof("POST", url, nonce=nonce)} if proof else {}
        return self.post("/token", body, as_agent=as_agent, headers=headers)

    def _anyone(self) -> Any:
        import ssl  # noqa: PLC0415

        return ssl.create_default_context(cafile=str(self.pki.folder / "root.pem"))

    # --- the client that is not ours

    def peer(self, node: str, library: Path, **told: Any) -> dict[str, Any]:
        """Runs the independent OAuth client through the life of a credential."""
        task = {
            "issuer": self.issuer,
            "client_id": ORCH,
            "ca": (self.pki.folder / "root.pem").read_text(),
            "audience": CRM,
            "resource": f"{CRM}/customers",
            "dpop": True,
            **told,
        }
        done = subprocess.run(
            [node, str(PEER_SCRIPT)],
            input=json.dumps(task),
            capture_output=True,
            text=True,
            timeout=50,
            env={"PEER": str(library), "PATH": "/usr/bin:/bin"},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        read: dict[str, Any] = json.loads(done.stdout)
        return read

    def assertion_key(self) -> dict[str, Any]:
        """The key of the trust domain, private half and all: the client signs its assertions as SPIRE would."""
        key = self.authority.svid[DOMAIN]
        private: Any = key.private
        value = private.private_numbers().private_value.to_bytes(32)
        public = {name: key.jwk("sig")[name] for name in ("kty", "crv", "x", "y")}
        secret = base64.urlsafe_b64encode(value).rstrip(b"=").decode()
        return {**public, "d": secret, "kid": key.kid}


def verified(token: str, jwks: Mapping[str, Any], issuer: str, audience: str) -> dict[str, Any]:
    """Verifies a credential by PyJWT, as a resource server would."""
    header = jwt.get_unverified_header(token)
    key = next(key for key in jwks["keys"] if key["kid"] == header["kid"])
    assert header["typ"] == "at+jwt"
    claims: dict[str, Any] = jwt.decode(
        token, jwt.PyJWK(key), algorithms=[key["alg"]], issuer=issuer, audience=audience
    )
    return claims
