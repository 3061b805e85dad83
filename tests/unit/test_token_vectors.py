"""What the verifier's own tests take for PyJWT's work is: PyJWT verifies each token and proof of it."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import jwt
import pytest

_FILE = Path(__file__).parents[2] / "native/token/tests/suite/pyjwt.json"
_ALL: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
_KEYS = {key["kid"]: jwt.PyJWK(key) for key in _ALL["keys"]["keys"]}


def _thumbprint(jwk: dict[str, Any]) -> str:
    """RFC 7638 §3, written anew."""
    names = {"EC": "crv kty x y", "OKP": "crv kty x", "RSA": "e kty n"}[jwk["kty"]].split()
    text = json.dumps({name: jwk[name] for name in names}, separators=(",", ":"))
    return _digest(text)


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


@pytest.mark.parametrize("vector", _ALL["vectors"], ids=lambda vector: vector["name"])
def test_pyjwt_verifies(vector: dict[str, Any]) -> None:
    """By the key that its header names, with the claims that the verifier's tests expect."""
    header = jwt.get_unverified_header(vector["token"])
    key = _KEYS[header["kid"]]
    options: Any = {"verify_exp": False, "verify_iat": False}
    claims = jwt.decode(
        vector["token"],
        key,
        algorithms=["ES256", "EdDSA"],
        audience="https://crm.example",
        issuer=_ALL["issuer"],
        options=options,
    )
    assert (header["typ"], claims["client_id"]) == ("at+jwt", _ALL["agent"])
    assert claims.get("cnf", {}).keys() == ({vector["binding"]} if vector["binding"] else set())
    if vector["proof"] is None:
        return
    header = jwt.get_unverified_header(vector["proof"])
    proof = jwt.decode(
        vector["proof"],
        jwt.PyJWK(header["jwk"], header["alg"]),
        algorithms=[header["alg"]],
        options=options,
    )
    assert (header["typ"], proof["htm"], proof["htu"]) == (
        "dpop+jwt",
        _ALL["method"],
        _ALL["uri"],
    )
    assert (proof["ath"], proof["iat"]) == (_digest(vector["token"]), _ALL["now"])
    assert claims["cnf"]["jkt"] == vector["jkt"] == _thumbprint(header["jwk"])


def test_our_keys_are_known_by_their_thumbprints() -> None:
    """As keys that sign task credentials are."""
    assert {_thumbprint(key) for key in _ALL["keys"]["keys"]} == _KEYS.keys()
