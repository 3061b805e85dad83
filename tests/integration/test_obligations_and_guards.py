"""A real server: an exception that counts, arguments that no record shows, uses that run out, and a guard that is rotated."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from authz.cli import main
from authz.tools.remote import Remote
from tests.support.people import People, check
from tests.support.server import Server, layout
from tests.support.surfaces import decision_of, lanes, reason_name
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from authz_client.v1 import decision_pb2
    from tests.support.minting import Authority

FACTS = """
exceptions:
  nightly: {{who: "spiffe://a.example/ns/idle/sa/bot", operations: [pay.run], owner: pay-team, reason: no login, ticket: PAY-1, expires: {until}}}
catalog:
  pay:
    kind: http
    operations:
      run: {{effects: [write], tier: standard, input: {{type: object, properties: {{amount: {{type: integer}}, note: {{type: string}}}}}}}}
      wire: {{effects: [write], tier: low, input: {{type: object, properties: {{amount: {{type: integer}}}}}}}}
tiers: {{low: {{confidence: 80}}}}
"""
POLICY = """
@id("nightly-pays") @obligation("mask_arguments:/amount,log_full,max_uses:2")
permit(principal, action == Action::"pay.run", resource) when { context.exception.contains(Exception::"nightly") };
@id("wires") permit(principal, action == Action::"pay.wire", resource);
"""


def ask(server: Server, request: decision_pb2.CheckRequest) -> str:
    """The reason code, by the first lane."""
    return reason_name(decision_of(lanes(server)[0].ask("main", request.SerializeToString())))


def jwks(key: ec.EllipticCurvePrivateKey) -> str:
    """The public key of a guard."""
    numbers = key.public_key().public_numbers()

    def encoded(number: int) -> str:
        return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()

    jwk = {
        "kty": "EC",
        "crv": "P-256",
        "kid": "g",
        "x": encoded(numbers.x),
        "y": encoded(numbers.y),
    }
    return json.dumps({"keys": [jwk]})


def statement(key: ec.EllipticCurvePrivateKey, arguments: bytes) -> str:
    """A guard's statement, made by a library that Authz does not use."""
    claims: dict[str, Any] = {
        "iss": "scanner",
        "aud": "spiffe://a.example/authz",
        "iat": int(time.time()),
        "operation": "pay.wire",
        "arguments_digest": hashlib.sha256(arguments).hexdigest(),
        "confidence": 90,
    }
    headers = {"typ": "authz-confidence+jwt", "kid": "g"}
    return jwt.encode(claims, key, algorithm="ES256", headers=headers)


def test_exceptions_obligations_and_guards(
    tmp_path: Path, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    """One server, as an administrator sees it."""
    first, second = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    keys = tmp_path / "scanner.jwks"
    keys.write_text(jwks(first))
    place = layout(tmp_path, authority, "desk", {"guards": {"scanner": {"keys": str(keys)}}})
    until = (datetime.now(UTC) + timedelta(days=90)).date()
    (tmp_path / "bundle" / "pay.yaml").write_text(FACTS.format(until=until))
    (tmp_path / "bundle" / "policies" / "pay.cedar").write_text(POLICY)
    people = People.of(authority)
    with Server(place) as server:
        admin = place.config["listeners"]["admin"]["address"]
        pay = check("pay.run", b'{"amount":4711,"note":"for June"}', agent=people.idle)
        assert [ask(server, pay) for _ in range(3)] == ["PERMITTED", "PERMITTED", "USES_EXHAUSTED"]
        assert ask(server, check("pay.run", b'{"amount":1}', agent=people.bot)) == "NOT_PERMITTED"

        def records() -> list[dict[str, Any]]:
            lines = [json.loads(line) for line in place.audit.read_text().splitlines()]
            return [one for one in lines if one["input"].get("operation") == "pay.run"]

        eventually(lambda: len(records()) >= 3)
        paid = next(one for one in records() if one["result"]["outcome"] == "PERMIT")
        assert paid["input"]["arguments"] == {"amount": None, "note": "for June"}
        assert paid["result"]["exceptions"] == ["nightly"]
        assert "4711" not in json.dumps(records())
        with pytest.raises(SystemExit):
            main(["exception", "list", "--admin", admin])
        shown = " ".join(capsys.readouterr().out.split())
        assert "pay-team │ PAY-1 │ 90 days │ 2 │" in shown or "│ 89 days │ 2 │" in shown

        wire = check("pay.wire", b'{"amount":5}', agent=people.bot)
        assert ask(server, wire) == "PROOF_REQUIRED"
        wire.confidence_jws = statement(first, b'{"amount":5}')
        assert ask(server, wire) == "PERMITTED"
        wire.confidence_jws = statement(second, b'{"amount":5}')
        assert ask(server, wire) == "PROOF_REQUIRED"
        keys.write_text(jwks(second))
        assert Remote(admin).reload().reloaded
        assert ask(server, wire) == "PERMITTED"
