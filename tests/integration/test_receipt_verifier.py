"""A program in Go, which shares no code with Authz, agrees about receipts and forgeries of them."""

import base64
import json
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from authz_client.jose import public_jwk
from tests.support.audit_log import HeadKey
from tests.support.receipts import (
    POLICIES,
    Passkey,
    answer,
    decision,
    flipped,
    forgeries,
    issue,
    thousand,
)

pytestmark = [pytest.mark.peers, pytest.mark.timeout(600)]

SOURCE = Path(__file__).parents[2] / "examples" / "verify-receipt"
ACCEPTED = "<nil>"


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built once. It is never left out: the other programs of this stage need Go, too."""
    program = tmp_path_factory.mktemp("verifier") / "verify-receipt"
    go = shutil.which("go")
    assert go is not None, "Go is not there; its package has it (Debian: golang)"
    subprocess.run([go, "vet", "./..."], cwd=SOURCE, check=True)
    subprocess.run([go, "build", "-o", str(program), "."], cwd=SOURCE, check=True)
    return program


def _trusted(folder: Path, *keys: HeadKey) -> Path:
    file = folder / "keys.json"
    file.write_text(json.dumps({"keys": [public_jwk(key.public_key()) for key in keys]}))
    return file


def _verdicts(verifier: Path, keys: Path, receipts: Iterable[bytes], folder: Path) -> list[str]:
    """Return the verdict of the program on each receipt, in one process."""
    given = folder / "receipts"
    with given.open("wb") as stream:
        for receipt in receipts:
            stream.write(base64.b64encode(receipt) + b"\n")
    with given.open("rb") as stream:
        ended = subprocess.run(
            [verifier, keys, "-"], stdin=stream, capture_output=True, text=True, check=True
        )
    given.unlink()
    return ended.stdout.splitlines()


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "RS256"])
def test_a_receipt_is_proved(verifier: Path, tmp_path: Path, algorithm: str) -> None:
    """A receipt is proved with one of several trusted keys, and the account names its facts."""
    keys: list[HeadKey] = [
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP256R1()),
    ]
    for number, key in enumerate(keys):
        permit = decision(approved_by=["local/ann"])
        issued = issue(tmp_path / str(number), key, permit, [answer(Passkey(algorithm))])
        file = tmp_path / "receipt.json"
        file.write_bytes(issued.content)
        trusted = _trusted(tmp_path, *keys)
        words = [str(verifier), str(trusted), str(file)]
        ended = subprocess.run(words, capture_output=True, text=True, check=True)
        for fact in ("PERMIT", ", ".join(POLICIES), "local/ann approved", algorithm, "not proved"):
            assert fact in ended.stdout
        _trusted(tmp_path, keys[1 - number])
        refused = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (refused.returncode, "head_key" in refused.stdout) == (2, True)


def test_every_forgery_is_refused_with_its_reason(verifier: Path, tmp_path: Path) -> None:
    """The program gives the same reason as Authz."""
    key = ed25519.Ed25519PrivateKey.generate()
    forged = forgeries(tmp_path, key)
    contents = [forgery.content for forgery in forged.values()]
    verdicts = _verdicts(verifier, _trusted(tmp_path, key), contents, tmp_path)
    codes = [verdict.partition(":")[0] for verdict in verdicts]
    expected = [forgery.foreign_code or forgery.code for forgery in forged.values()]
    assert dict(zip(forged, codes, strict=True)) == dict(zip(forged, expected, strict=True))


def test_every_flipped_bit_is_refused(verifier: Path, tmp_path: Path) -> None:
    """Every flipped bit is refused; the receipt itself is accepted."""
    key = ed25519.Ed25519PrivateKey.generate()
    permit = decision(approved_by=["local/ann"])
    content = issue(tmp_path / "log", key, permit, [answer(Passkey())]).content

    def flip(bit: int) -> bytes:
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << (bit % 8)
        return bytes(changed)

    bits = len(content) * 8
    receipts = (content, *(flip(bit) for bit in range(bits)))
    verdicts = _verdicts(verifier, _trusted(tmp_path, key), receipts, tmp_path)
    assert (verdicts[0], len(verdicts)) == (ACCEPTED, bits + 1)
    assert [bit for bit, verdict in enumerate(verdicts[1:]) if verdict == ACCEPTED] == []


def test_a_flipped_bit_in_each_of_a_thousand_receipts_is_refused(
    verifier: Path, tmp_path: Path
) -> None:
    """A flipped bit in each of a thousand receipts is refused; each is accepted without it."""
    key = ed25519.Ed25519PrivateKey.generate()
    receipts = thousand(tmp_path, key)
    keys = _trusted(tmp_path, key)
    assert set(_verdicts(verifier, keys, receipts, tmp_path)) == {ACCEPTED}
    changed = [flipped(receipt, seed) for seed, receipt in enumerate(receipts)]
    verdicts = _verdicts(verifier, keys, changed, tmp_path)
    assert (len(verdicts), ACCEPTED in verdicts) == (len(receipts), False)


def test_keys_that_cannot_sign_heads_are_refused(verifier: Path, tmp_path: Path) -> None:
    """A private key, a key of another kind, and no key."""
    receipt = issue(tmp_path / "log", ed25519.Ed25519PrivateKey.generate(), decision()).content
    public = public_jwk(ed25519.Ed25519PrivateKey.generate().public_key())
    files: list[Any] = [{**public, "d": "AA"}, {"kty": "oct", "k": "AA"}, {"keys": []}, []]
    for keys in files:
        file = tmp_path / "keys.json"
        file.write_text(json.dumps(keys))
        (verdict,) = _verdicts(verifier, file, [receipt], tmp_path)
        assert verdict.startswith("head_key: ")
