"""Receipts that are made by the book, apart from the code that makes and verifies them, and forgeries of them."""

import copy
import hashlib
import hmac
import json
import random
import secrets
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from authz_client.jose import public_jwk
from tests.support.audit_log import HeadKey, LogWriter, erasable, reference_root, sign_head
from tests.support.minting import b64

POLICIES = {
    "send-mail": '@id("send-mail")\npermit (principal, action == Action::"mail.send", resource);',
    "unicode": '@id("unicode")\nforbid (principal, action, resource) when { "\u00e9\u2028\u2029\x7f\t\U0001f511" == "" };',
}
CALL, CARD = hashlib.sha256(b"call").hexdigest(), hashlib.sha256(b"card").hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()
APPROVAL = "0123456789abcdef0123456789abcdef-1"
DECISION = "0199aaaa-0000-7000-8000-000000000001"
ORIGIN, SITE = "https://approvals.authz.example", "authz.example"


@cache
def _rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@dataclass
class Passkey:
    """A passkey in software."""

    algorithm: str = "ES256"
    credential_id: bytes = field(default_factory=lambda: secrets.token_bytes(16))

    def __post_init__(self) -> None:
        self.ec = ec.generate_private_key(ec.SECP256R1())
        self.ed = ed25519.Ed25519PrivateKey.generate()

    def public_key(self) -> bytes:
        """Return the COSE key."""
        if self.algorithm == "ES256":
            point = self.ec.public_key().public_numbers()
            x, y = point.x.to_bytes(32, "big"), point.y.to_bytes(32, "big")
            return cbor2.dumps({1: 2, 3: -7, -1: 1, -2: x, -3: y})
        if self.algorithm == "EdDSA":
            return cbor2.dumps({1: 1, 3: -8, -1: 6, -2: self.ed.public_key().public_bytes_raw()})
        modulus = _rsa().public_key().public_numbers().n.to_bytes(256, "big")
        return cbor2.dumps({1: 3, 3: -257, -1: modulus, -2: b"\1\0\1"})

    def sign(
        self,
        challenge: bytes,
        *,
        kind: str = "webauthn.get",
        flags: int = 5,
        origin: str = ORIGIN,
    ) -> dict[str, str]:
        """Return the assertion of a challenge, as a record has it."""
        client = {"type": kind, "challenge": b64(challenge), "origin": origin, "crossOrigin": False}
        client_data = json.dumps(client, separators=(",", ":")).encode()
        data = hashlib.sha256(SITE.encode()).digest() + bytes([flags, 0, 0, 0, 7])
        message = data + hashlib.sha256(client_data).digest()
        if self.algorithm == "ES256":
            signature = self.ec.sign(message, ec.ECDSA(hashes.SHA256()))
        elif self.algorithm == "EdDSA":
            signature = self.ed.sign(message)
        else:
            signature = _rsa().sign(message, padding.PKCS1v15(), hashes.SHA256())
        parts = {"authenticator_data": data, "client_data": client_data, "signature": signature}
        return {
            name: b64(part) for name, part in {**parts, "public_key": self.public_key()}.items()
        }


def challenge_of(call: str, card: str, approval_id: str, outcome: str) -> bytes:
    """Return a challenge of the approvals page by its definition in docs/reference/receipts.md."""
    nonce, end = secrets.token_bytes(16), (1_800_000_000).to_bytes(8, "big")
    parts = (
        b"authz approval answer 1",
        bytes.fromhex(card),
        bytes.fromhex(call),
        approval_id.encode(),
        outcome.encode(),
        end,
        nonce,
    )
    text = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    return nonce + end + hashlib.sha256(text).digest()


def answer(
    signer: Passkey | None = None,
    *,
    by: str = "local/ann",
    event: str = "approved",
    signed: Mapping[str, str] | None = None,
    assertion: Mapping[str, Any] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Return the record of an answer.

    Args:
        signer: Passkey of the person. None: the person answered by login.
        by: The person.
        event: `answered`, `approved` or `rejected`.
        signed: Values that the passkey signs in place of those of the record: `call`, `card`, `approval_id`, `outcome`.
        assertion: Changes of the ceremony: `kind`, `flags`, `origin`.
        changes: Members of the note.
    """
    note: dict[str, Any] = {"id": APPROVAL, "event": event, "by": [by], "queues": ["approve"]}
    note |= {
        "method": "login",
        "digest": CALL,
        "card_digest": CARD,
        "decided_in_ms": 4000,
        **changes,
    }
    if signer is not None:
        outcome = "endorse" if note.get("endorses") else "approve"
        statement = {
            "call": note["digest"],
            "card": note["card_digest"],
            "approval_id": note["id"],
            "outcome": outcome,
            **(signed or {}),
        }
        note |= {"method": "passkey", "passkey": b64(signer.credential_id)}
        note["assertion"] = signer.sign(challenge_of(**statement), **(assertion or {}))
    return {
        "decision_id": f"0199aaaa-0000-7000-8000-{secrets.token_hex(6)}",
        "timestamp": "2026-12-01T00:00:01.000Z",
        "labels": {"id": "n1", "version": "0.1.0", "listener": "approvals", "surface": "resolve"},
        "result": {"outcome": "PERMIT", "reason_code": "PERMITTED", "approval": note},
    }


def decision(
    decision_id: str = DECISION,
    *,
    policies: Mapping[str, str] = POLICIES,
    digest: str = OTHER,
    approved_by: Sequence[str] = (),
    **changes: Any,
) -> dict[str, Any]:
    """Return the record of a permit.

    Args:
        decision_id: Id of the decision.
        policies: Texts of the policies that it names, by id.
        digest: Digest of the bundle.
        approved_by: People whose approval the call used up.
        changes: Members of the approval's note.
    """
    hashes_of = [hashlib.sha256(text.encode()).hexdigest() for text in policies.values()]
    result: dict[str, Any] = {
        "outcome": "PERMIT",
        "reason_code": "PERMITTED",
        "enforced": True,
        "policies": list(policies),
        "policies_sha256": hashes_of,
        "policies_at": ["policies/mail.cedar:1"] * len(policies),
    }
    if approved_by:
        note = {"id": APPROVAL, "event": "consumed", "by": list(approved_by)}
        note |= {"digest": CALL, "card_digests": [CARD] * len(approved_by), **changes}
        result["approval"] = note
    agent = {
        "kind": "Agent",
        "id": "spiffe://acme.example/desk",
        "proof": "jwt-svid",
        "issuer": "acme",
        "kid": "k",
        "token_sha256": OTHER,
        "claims": {"dept": f"sha256:{OTHER}"},
    }
    given = {
        "chain": [agent],
        "operation": "mail.send",
        "arguments": {"subject": f"sha256:{OTHER}", "copies": 1.5},
        "facts": {"tier": "high", "count": 3, "text": f"sha256:{OTHER}"},
        "replayable": True,
    }
    return {
        "decision_id": decision_id,
        "timestamp": "2026-12-01T00:00:02.000Z",
        "labels": {"id": "n1", "version": "0.1.0", "listener": "main", "surface": "check"},
        "bundles": {"desk": {"revision": "r1", "digest": digest}},
        "input": given,
        "result": result,
    }


def filler(number: int) -> dict[str, Any]:
    """Return the record of another decision."""
    return {"decision_id": f"d{number}", "timestamp": "2026-12-01T00:00:00.000Z"}


def reference_path(leaves: Sequence[bytes], index: int) -> list[str]:
    """Return an inclusion proof by the definition of RFC 9162 §2.1.3.1, in hex."""
    if len(leaves) == 1:
        return []
    half = 1 << ((len(leaves) - 1).bit_length() - 1)
    left, right = leaves[:half], leaves[half:]
    if index < half:
        return [*reference_path(left, index), reference_root(right).hex()]
    return [*reference_path(right, index - half), reference_root(left).hex()]


def proof(log: LogWriter, segment: int, index: int, head: str) -> dict[str, Any]:
    """Return the members that prove a line of a log."""
    stored = json.loads(head)
    payload = stored["payload"]
    count = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["count"]
    lines = log.lines[segment][:count]
    leaves = [hashlib.sha256(b"\0" + line.encode()).digest() for line in lines]
    path = reference_path(leaves, index)
    record = log.lines[segment][index]
    return {"record": record, "index": index, "count": count, "path": path, "head": stored}


def canonical(document: Mapping[str, Any]) -> bytes:
    """Write a receipt by RFC 8785, as far as names of members are ASCII."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


@dataclass
class Issued:
    """A log of one segment, and the receipt of one decision in it."""

    log: LogWriter
    document: dict[str, Any]

    @property
    def content(self) -> bytes:
        """The receipt."""
        return canonical(self.document)

    @property
    def jwks(self) -> str:
        """The trusted key, as a key set."""
        return self.log.jwks()


def with_text(record: Mapping[str, Any], text: str) -> tuple[dict[str, Any], str]:
    """Return a record with a recorded text in its arguments, and the digest that stands for the text."""
    entry, digest = erasable(text, "0" * 32)
    changed = copy.deepcopy(dict(record))
    changed["input"]["arguments"]["body"] = digest
    return {"texts": {"/input/arguments/body": entry}, **changed}, digest


def issue(
    folder: Path,
    key: HeadKey,
    permit: Mapping[str, Any],
    answers: Sequence[Mapping[str, Any]] = (),
    *,
    policies: Mapping[str, str] | None = POLICIES,
    change: Callable[[str], str] = lambda line: line,
) -> Issued:
    """Write a log with a permit and the answers before it, and make the receipt of the permit.

    Args:
        folder: Folder of the log; it is made.
        key: Key of heads.
        permit: Record of the decision.
        answers: Records of answers.
        policies: Texts in the receipt; None: none.
        change: Changes each line before it is hashed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = LogWriter(folder, key=key)
    records = [filler(1), *(dict(one) for one in answers), filler(2), dict(permit), filler(3)]
    log.write(records, change=change)
    at = len(records) - 2
    document = proof(log, 1, at, log.newest)
    document["policies"] = dict(policies or {})
    document["answers"] = [proof(log, 1, 1 + place, log.newest) for place in range(len(answers))]
    document["version"] = 1
    return Issued(log, document)


def thousand(folder: Path, key: HeadKey) -> list[bytes]:
    """Return receipts of a thousand decisions: 20 segments of 50 records, each with an approved call among others."""
    log, contents = LogWriter(folder, key=key), []
    passkeys = [Passkey(algorithm) for algorithm in ("ES256", "EdDSA", "RS256")]
    for segment in range(1, 21):
        approved = decision(f"a{segment}", approved_by=["local/ann"])
        plain = [decision(f"p{segment}-{number}", policies={}) for number in range(48)]
        log.write([answer(passkeys[segment % 3]), approved, *plain], sealed=True)
        head = log.heads.read_text().splitlines()[-1]
        first = proof(log, segment, 0, head)
        for index in range(50):
            document = proof(log, segment, index, head)
            document |= {"answers": [], "policies": {}, "version": 1}
            if index == 1:
                document |= {"answers": [first], "policies": POLICIES}
            contents.append(canonical(document))
    return contents


def flipped(content: bytes, seed: int) -> bytes:
    """Return content with one bit flipped, the same one for the same seed."""
    changed, bit = bytearray(content), random.Random(seed).randrange(len(content) * 8)
    changed[bit // 8] ^= 1 << (bit % 8)
    return bytes(changed)


@dataclass(frozen=True)
class Forgery:
    """Content that is no receipt, and the code of the reason."""

    content: bytes
    code: str
    foreign_code: str = ""
    """Code of the program in Go, if it reads the members in another order."""


def forgeries(folder: Path, key: HeadKey) -> dict[str, Forgery]:
    """Return forgeries by their names. Each differs from a receipt that verifies in one respect."""
    forger = _Forger(folder, key)
    forger.forge_forms()
    forger.forge_places()
    forger.forge_heads()
    forger.forge_policies()
    forger.forge_answers()
    forger.forge_assertions()
    return forger.forged


class _Forger:
    def __init__(self, folder: Path, key: HeadKey) -> None:
        self.folder, self.key = folder, key
        self.ann, self.eve = Passkey(), Passkey()
        self.logs = 0
        self.forged: dict[str, Forgery] = {}
        self.good = self.issue()

    def issue(
        self,
        permit: Mapping[str, Any] | None = None,
        answers: Sequence[Mapping[str, Any]] | None = None,
        *,
        key: HeadKey | None = None,
        change: Callable[[str], str] = lambda line: line,
    ) -> Issued:
        self.logs += 1
        return issue(
            self.folder / str(self.logs),
            key or self.key,
            permit or decision(approved_by=["local/ann"]),
            [answer(self.ann)] if answers is None else answers,
            change=change,
        )

    def add(self, name: str, code: str, issued: Issued) -> None:
        self.forged[name] = Forgery(issued.content, code)

    def edit(
        self, name: str, code: str, change: Callable[[dict[str, Any]], Any], foreign: str = ""
    ) -> None:
        document = copy.deepcopy(self.good.document)
        change(document)
        self.forged[name] = Forgery(canonical(document), code, foreign)

    def forge_forms(self) -> None:
        text = self.good.content.decode()
        for name, content in {
            "a line feed at the end": text + "\n",
            "a space": text.replace(":", ": ", 1),
            "members in another order": '{"version":1,' + text[1:].replace(',"version":1}', "}"),
            "an escape that is not needed": text.replace("send-mail", "send\\u002dmail", 1),
            "a member twice": text[:-1] + ',"version":1}',
            "a member in capitals": text.replace('"version"', '"VERSION"'),
            "no JSON": text[:-1],
            "another version": text.replace('"version":1', '"version":2'),
            "a fraction": text.replace('"version":1', '"version":1.0'),
        }.items():
            self.forged[name] = Forgery(content.encode(), "form")
        self.edit("an unknown member", "form", lambda it: it.update(note="paid"))
        self.edit("a member of an answer", "form", lambda it: it["answers"][0].update(note=""))
        self.edit("a path that is no list", "form", lambda it: it.update(path={}))
        self.edit("answers that are no list", "form", lambda it: it.update(answers={}))
        self.edit("capitals in the path", "form", lambda it: it.update(path=[OTHER.upper()]))
        self.edit("an index in quotes", "form", lambda it: it.update(index="3"), "index")

    def forge_places(self) -> None:
        self.edit("another position", "index", lambda it: it.update(index=it["index"] - 1))
        self.edit("another count", "count", lambda it: it.update(count=it["count"] + 1))
        self.edit("a truncated path", "path_length", lambda it: it["path"].pop())
        self.edit("an extended path", "path_length", lambda it: it["path"].append(OTHER))
        self.edit("another path", "path", lambda it: it["path"].__setitem__(0, OTHER))
        first = self.good.log.lines[1][0]
        self.edit("the record of another index", "index", lambda it: it.update(record=first))

        def change(old: str, new: str, **others: Any) -> Callable[[dict[str, Any]], Any]:
            return lambda it: it.update(record=it["record"].replace(old, new), **others)

        moved = change('"index":3', '"index":2', index=2)
        self.edit("a record that was moved", "path", moved)
        self.edit("a record that was changed", "path", change("PERMIT", "REFUSE"))
        self.edit("a record without a place", "record", lambda it: it.update(record='{"a":1}'))
        permit, _ = with_text(decision(approved_by=["local/ann"]), "Hello")
        # The line of the log as it is.
        self.add("a record with a text that the chain does not cover", "path", self.issue(permit))
        one = decision()
        others = {
            "a record of the node itself": {"loaded": {"bundle": "desk"}, "input": one["input"]},
            "a sum of refusals": {"sum": {"count": 3}, "result": one["result"]},
            "a record with another result": {"result": "PERMIT"},
        }
        for name, members in others.items():
            made = {"decision_id": DECISION, "timestamp": one["timestamp"], **members}
            self.add(name, "decision", self.issue(made, ()))
        leaves = [hashlib.sha256(b"\0" + line.encode()).digest() for line in self.good.log.lines[1]]
        short = json.loads(self.good.log.head(leaves[:3], sealed=False))
        self.edit("a head before the record", "beyond", lambda it: it.update(head=short, count=3))
        later = LogWriter(self.folder, key=self.key)
        later.segment = 2
        second = json.loads(later.head(leaves, sealed=False))
        self.edit("the head of another segment", "segment", lambda it: it.update(head=second))
        doubled = self.issue(
            change=lambda line: line.replace('"labels"', '"timestamp":"","labels"')
        )
        self.add("a member of the record twice", "record", doubled)

    def forge_heads(self) -> None:
        payload, kid = self.good.document["head"]["payload"], self.good.log.kid
        stranger = ed25519.Ed25519PrivateKey.generate()
        confused = sign_head(self.key, kid, payload, alg="HS256")
        public = json.dumps(public_jwk(self.key.public_key())).encode()
        message = f"{confused['protected']}.{payload}".encode()
        confused["signature"] = b64(hmac.digest(public, message, "sha256"))
        unsigned = sign_head(self.key, kid, payload, alg="none") | {"signature": ""}
        for name, code, head in (
            ("another key with a trusted kid", "head_signature", sign_head(stranger, kid, payload)),
            ("no signature", "head_unsigned", {"payload": payload}),
            ("another type", "head", sign_head(self.key, kid, payload, typ="JWT")),
            ("another header", "head", sign_head(self.key, kid, payload, jku="https://x.example")),
            ("another alg", "head_algorithm", sign_head(self.key, kid, payload, alg="RS256")),
            ("alg none", "head_algorithm", sign_head(self.key, kid, payload, alg="none")),
            ("alg none without a signature", "head_unsigned", unsigned),
            ("HS256 with the public key as its secret", "head_algorithm", confused),
        ):
            self.edit(name, code, lambda it, head=head: it.update(head=head))  # type: ignore[misc]
        self.add("another key", "head_key", self.issue(key=stranger))

    def forge_policies(self) -> None:
        wider = {"send-mail": "permit (principal, action, resource);"}
        self.edit("another text of a policy", "policy", lambda it: it["policies"].update(wider))
        self.edit("a policy less", "policies", lambda it: it["policies"].pop("unicode"))
        self.edit("a policy more", "policies", lambda it: it["policies"].update(other=""))
        permit = decision(approved_by=["local/ann"])
        permit["result"].pop("policies_sha256")
        self.add("no hashes of policies", "policy_hash", self.issue(permit))

    def forge_answers(self) -> None:
        ann, eve = self.ann, self.eve
        for name, code, answers in (
            ("an approval of another card", "card", [answer(ann, card_digest=OTHER)]),
            ("an approval of another call", "call", [answer(ann, digest=OTHER)]),
            ("another approval", "approval", [answer(ann, id=APPROVAL[:-1] + "2")]),
            ("no answer", "answers", []),
            ("an answer that was not the last", "answers", [answer(ann, event="answered")]),
            ("an answer of somebody else", "answers", [answer(eve, by="local/eve")]),
            ("a rejection", "answer", [answer(ann, event="rejected")]),
        ):
            self.add(name, code, self.issue(answers=answers))
        self.edit("an answer twice", "answers", lambda it: it["answers"].append(it["answers"][0]))
        self.add("an answer without an approval", "approval", self.issue(decision()))

    def forge_assertions(self) -> None:
        for name, signed in {
            "a signature for another card": {"card": OTHER},
            "a signature for another call": {"call": OTHER},
            "a signature for another approval": {"approval_id": APPROVAL[:-1] + "2"},
            "a signature of a rejection": {"outcome": "reject"},
            "a signature of an endorsement": {"outcome": "endorse"},
        }.items():
            self.add(name, "challenge", self.issue(answers=[answer(self.ann, signed=signed)]))
        ceremonies: dict[str, dict[str, Any]] = {
            "a registration in place of an assertion": {"kind": "webauthn.create"},
            "a user who was not verified": {"flags": 1},
            "a user who was not present": {"flags": 4},
        }
        for name, ceremony in ceremonies.items():
            self.add(name, "assertion", self.issue(answers=[answer(self.ann, assertion=ceremony)]))
        swapped, bare = answer(self.ann), answer(self.ann)
        swapped["result"]["approval"]["assertion"]["public_key"] = b64(self.eve.public_key())
        del bare["result"]["approval"]["assertion"]
        self.add("the signature of another passkey", "assertion", self.issue(answers=[swapped]))
        self.add("no assertion", "assertion", self.issue(answers=[bare]))
