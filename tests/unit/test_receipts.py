"""Receipts: a receipt that is made verifies, and nothing that differs from it in one respect does."""

import json
import re
import shutil
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authz.approvals import AnswerStatement
from authz.audit import HeadError, Jwks
from authz.audit.erasable import erase_texts
from authz.audit.receipt import Receipt, ReceiptError
from authz.audit.receipt_verification import VerifiedReceipt, check_receipt
from authz.audit.receipt_writing import find_decision, make_receipt
from authz.bundle import read_folder
from authz.cli import main
from authz.engine import Plan
from authz.errors import UsageError
from authz.server.http.approvals_page.passkeys import Passkeys, PasskeySettings
from authz.server.http.approvals_page.sessions import Login, LoginMethod, Session
from authz_client.jose import public_jwk, thumbprint
from tests.support.audit_cases import loaded
from tests.support.audit_log import HeadKey, LogWriter
from tests.support.authenticator import Authenticator
from tests.support.receipts import (
    APPROVAL,
    CALL,
    CARD,
    DECISION,
    ORIGIN,
    OTHER,
    POLICIES,
    Issued,
    Passkey,
    answer,
    canonical,
    decision,
    filler,
    flipped,
    forgeries,
    issue,
    proof,
    thousand,
    with_text,
)

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart" / "bundle"


def _key() -> HeadKey:
    return ed25519.Ed25519PrivateKey.generate()


def _verify(content: bytes, *keys: HeadKey) -> VerifiedReceipt:
    jwks = [json.dumps(public_jwk(key.public_key())).encode() for key in keys]
    return check_receipt(Receipt.read(content), Jwks.trusted(jwks))


def _approved(folder: Path, key: HeadKey, algorithm: str = "ES256") -> Issued:
    permit = decision(approved_by=["local/ann"])
    return issue(folder, key, permit, [answer(Passkey(algorithm))])


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "RS256"])
def test_a_receipt_proves_the_record_the_policies_and_the_approval(
    tmp_path: Path, algorithm: str
) -> None:
    """A receipt proves the record, the texts of the policies, and the signature of the passkey."""
    key = _key()
    verified = _verify(_approved(tmp_path, key, algorithm).content, key)
    assert verified.decision.decision_id == DECISION
    assert (verified.place.head.segment, verified.place.index, verified.place.head.count) == (
        1,
        3,
        5,
    )
    assert verified.place.kid == thumbprint(public_jwk(key.public_key()))
    assert verified.has_texts
    assert verified.names_call
    (proved,) = verified.answers
    assert (proved.answer.by, proved.answer.digest, proved.answer.card_digest) == (
        "local/ann",
        CALL,
        CARD,
    )
    assert proved.signed is not None
    assert (proved.signed.origin, proved.signed.algorithm) == (ORIGIN, algorithm)


def test_heads_signed_with_p256_are_verified(tmp_path: Path) -> None:
    """Heads signed with P-256 are verified."""
    key = ec.generate_private_key(ec.SECP256R1())
    assert _verify(_approved(tmp_path, key).content, key).decision.outcome == "PERMIT"


def test_two_people_one_by_login(tmp_path: Path) -> None:
    """Only the answer by passkey has a signature."""
    key = _key()
    permit = decision(approved_by=["local/ann", "corp/bob"])
    answers = [answer(Passkey(), event="answered", endorses=True), answer(by="corp/bob")]
    verified = _verify(issue(tmp_path, key, permit, answers).content, key)
    assert [one.signed is not None for one in verified.answers] == [True, False]


def test_a_call_that_does_not_name_its_digest_is_told(tmp_path: Path) -> None:
    """A record that names the approval alone says less."""
    key, permit = _key(), decision(approved_by=["local/ann"])
    del permit["result"]["approval"]["digest"], permit["result"]["approval"]["card_digests"]
    verified = _verify(issue(tmp_path, key, permit, [answer(Passkey())]).content, key)
    assert not verified.names_call


def test_a_receipt_without_texts_and_without_an_approval(tmp_path: Path) -> None:
    """A receipt without texts and without an approval proves the record."""
    key = _key()
    verified = _verify(issue(tmp_path, key, decision(), policies=None).content, key)
    assert (verified.has_texts, verified.answers) == (False, ())


def test_receipts_of_a_rotated_key_verify(tmp_path: Path) -> None:
    """The file of trusted keys has the old key and the new one; a receipt of either verifies, and not without its key."""
    old, new = _key(), ec.generate_private_key(ec.SECP256R1())
    receipts = {
        key: _approved(tmp_path / name, key).content for name, key in {"o": old, "n": new}.items()
    }
    for key, content in receipts.items():
        assert _verify(content, old, new).place.kid == thumbprint(public_jwk(key.public_key()))
        (other,) = {old, new} - {key}
        with pytest.raises(ReceiptError, match="no trusted key") as refused:
            _verify(content, other)
        assert refused.value.code == "head_key"


def test_a_key_set_a_key_and_pem_are_trusted(tmp_path: Path) -> None:
    """Keys are known by their thumbprints, not by the `kid` that a file states."""
    old, new = _key(), ec.generate_private_key(ec.SECP256R1())
    jwks = [{**public_jwk(key.public_key()), "kid": "anything"} for key in (old, new)]
    pem = b"".join(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        for key in (old, new)
    )
    receipt = Receipt.read(_approved(tmp_path, new).content)
    for files in ([json.dumps({"keys": jwks}).encode()], [json.dumps(jwks[1]).encode()], [pem]):
        assert check_receipt(receipt, Jwks.trusted(files)).place.kid


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"keys":5}',
        b'{"kty":"oct","k":"AA"}',
        b'{"kty":"OKP","crv":"Ed448","x":"AA"}',
        b'{"kty":"OKP","crv":"Ed25519","x":"AA"}',
        b"-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n",
    ],
)
def test_other_keys_are_not_trusted(content: bytes) -> None:
    """Other keys are not trusted."""
    with pytest.raises(HeadError):
        Jwks.trusted([content])


def test_a_private_key_is_not_trusted() -> None:
    """A private key is not trusted: it would have been given away."""
    jwk = {**public_jwk(_key().public_key()), "d": "AA"}
    with pytest.raises(HeadError, match="private"):
        Jwks.trusted([json.dumps(jwk).encode()])


def test_every_forgery_is_refused_with_its_reason(tmp_path: Path) -> None:
    """Every forgery is refused with its reason."""
    key = _key()
    accepted, others = [], {}
    for name, forgery in forgeries(tmp_path, key).items():
        try:
            _verify(forgery.content, key)
            accepted.append(name)
        except ReceiptError as error:
            if error.code != forgery.code:
                others[name] = (error.code, forgery.code, str(error))
    assert (accepted, others) == ([], {})


def test_the_page_lists_every_code(tmp_path: Path) -> None:
    """The page lists every code, and each has a forgery."""
    page = (QUICKSTART.parents[2] / "docs/reference/receipts.md").read_text()
    table = page.partition("| code | rule |")[2].partition("\n\n")[0]
    cells = [row.split("|")[1] for row in table.splitlines()[2:]]
    listed = {code for cell in cells for code in re.findall(r"`(\w+)`", cell)}
    assert listed == {forgery.code for forgery in forgeries(tmp_path, _key()).values()}


def test_a_passkey_of_another_site_is_refused(tmp_path: Path) -> None:
    """The authenticator signed for a site that the origin is not in."""
    key, permit = _key(), decision(approved_by=["local/ann"])
    foreign = answer(Passkey(), assertion={"origin": "https://approvals.example"})
    with pytest.raises(ReceiptError, match="another site"):
        _verify(issue(tmp_path, key, permit, [foreign]).content, key)


@pytest.mark.slow
def test_every_flipped_bit_is_refused(tmp_path: Path) -> None:
    """Every flipped bit is refused."""
    key = _key()
    content = _approved(tmp_path, key).content
    keys = Jwks.trusted([json.dumps(public_jwk(key.public_key())).encode()])
    accepted = []
    for bit in range(len(content) * 8):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << (bit % 8)
        try:
            check_receipt(Receipt.read(bytes(changed)), keys)
            accepted.append(bit)
        except ReceiptError:
            pass
    assert accepted == []


def test_a_flipped_bit_in_each_of_a_thousand_receipts_is_refused(tmp_path: Path) -> None:
    """A flipped bit in each of a thousand receipts is refused; each verifies without it."""
    key = _key()
    keys = Jwks.trusted([json.dumps(public_jwk(key.public_key())).encode()])
    accepted = []
    for number, content in enumerate(thousand(tmp_path, key)):
        check_receipt(Receipt.read(content), keys)
        changed = flipped(content, number)
        try:
            check_receipt(Receipt.read(changed), keys)
            accepted.append(number)
        except ReceiptError:
            pass
    assert accepted == []


# --- making


def _files(log: LogWriter) -> list[Path]:
    return [one for one in log.path.parent.iterdir() if one.name != log.heads.name]


def _log(folder: Path, key: HeadKey) -> LogWriter:
    """Write a log in which the answer and its call are in different segments, and a duplicate of the call after it."""
    log = LogWriter(folder, key=key)
    log.write([filler(1), answer(Passkey()), filler(2)], sealed=True)
    log.write([filler(3), decision(approved_by=["local/ann"])], sealed=True)
    log.write([filler(4), filler(5), filler(6)])
    return log


def _heads(log: LogWriter) -> list[str]:
    return [*log.heads.read_text().splitlines(), log.newest]


def test_a_made_receipt_verifies_and_is_that_of_the_book(tmp_path: Path) -> None:
    """A made receipt verifies and is that of the book."""
    key = _key()
    log = _log(tmp_path, key)
    heads = _heads(log)
    line = find_decision(_files(log), DECISION)
    content = make_receipt(_files(log), heads, line, {**POLICIES, "unused": "x"}).content()
    assert _verify(content, key).answers[0].place.head.segment == 1
    document = proof(log, 2, 1, heads[1])
    document |= {"answers": [proof(log, 1, 1, heads[0])], "policies": POLICIES, "version": 1}
    assert content == canonical(document)


def test_a_receipt_has_no_texts_that_can_be_erased(tmp_path: Path) -> None:
    """The receipt is the same before and after an erasure, and proves the digest of the text."""
    receipts = set()
    for is_erased in (False, True):
        folder = tmp_path / str(is_erased)
        folder.mkdir()
        log = LogWriter(folder, key=ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)))
        record, digest = with_text(decision(), "Hello")
        file = log.write([record])
        if is_erased:
            line = erase_texts(file.read_bytes()[:-1], lambda _: True).line
            assert b"Hello" not in line
            file.write_bytes(line + b"\n")
        found = find_decision([file], DECISION)
        receipts.add(make_receipt([file], [log.newest], found, {}).content())
        keys = Jwks.trusted([log.jwks().encode()])
        (content,) = receipts
        assert check_receipt(Receipt.read(content), keys).decision.arguments["body"] == digest


def test_the_record_that_was_answered_is_taken(tmp_path: Path) -> None:
    """A record that replaces one of the same id is the record of the answer."""
    log = LogWriter(tmp_path, key=_key())
    replaced = decision()
    replaced["result"] |= {"outcome": "DENY", "instead_of": "PERMIT"}
    log.write([decision(), replaced, filler(1)])
    assert find_decision(_files(log), DECISION).index == 1
    log.write([decision(), decision(), filler(1)])
    assert find_decision(_files(log), DECISION).index == 0


def _made(log: LogWriter, heads: list[str], policies: dict[str, str] | None = None) -> Receipt:
    line = find_decision(_files(log), DECISION)
    return make_receipt(_files(log), heads, line, policies or {})


def test_no_receipt_is_made_without_a_signed_head_above_the_record(tmp_path: Path) -> None:
    """No receipt is made without a signed head above the record."""
    (tmp_path / "a").mkdir()
    log = _log(tmp_path / "a", _key())
    with pytest.raises(UsageError, match="no head stands above"):
        _made(log, _heads(log)[:1])
    (tmp_path / "b").mkdir()
    unsigned = LogWriter(tmp_path / "b", signed=False)
    unsigned.write([decision(), filler(1)])
    with pytest.raises(UsageError, match="not signed"):
        _made(unsigned, [unsigned.newest])
    unsigned.path.write_text(json.dumps(decision()) + "\n")
    with pytest.raises(UsageError, match="not in a chain"):
        _made(unsigned, [unsigned.newest])


def test_a_head_to_which_the_log_does_not_fit_is_passed_over(tmp_path: Path) -> None:
    """A node keeps the head of a segment that was damaged; an older head may still be above the record."""
    key = _key()
    log = LogWriter(tmp_path, key=key)
    log.write([decision(), filler(1), filler(2)])
    older = log.newest
    lost = log.head([b"lost" * 8] * 9, sealed=False)
    content = _made(log, [older, lost], POLICIES).content()
    assert _verify(content, key).place.head.count == 3


def test_no_receipt_is_made_of_a_changed_log(tmp_path: Path) -> None:
    """No receipt is made of a changed log."""
    log = _log(tmp_path, _key())
    heads = _heads(log)
    second = tmp_path / "audit.jsonl.00000002"
    second.write_text(second.read_text().replace('"d3"', '"d4"'))
    with pytest.raises(UsageError, match="are not those of its head"):
        _made(log, heads)
    (tmp_path / "audit.jsonl.00000001").unlink()
    with pytest.raises(UsageError, match="no answer of approval"):
        _made(log, heads)


def test_no_receipt_is_made_with_other_policies(tmp_path: Path) -> None:
    """No receipt is made with other policies."""
    log = _log(tmp_path, _key())
    with pytest.raises(UsageError, match="has no policy `unicode`"):
        _made(log, _heads(log), {"send-mail": POLICIES["send-mail"]})
    with pytest.raises(UsageError, match="not that of the record"):
        _made(log, _heads(log), {**POLICIES, "unicode": "other"})


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, OTHER, "sum", "load"])
def test_other_ids_have_no_receipt(tmp_path: Path, given: str) -> None:
    """Other ids have no receipt."""
    log = LogWriter(tmp_path, key=_key())
    log.write([{**filler(1), "decision_id": "sum", "sum": {"count": 3}}, loaded("load", 1)])
    with pytest.raises(UsageError):
        find_decision(_files(log), given)


# --- the command


def _run(capfdbinary: pytest.CaptureFixture[bytes], *words: object) -> tuple[int, bytes]:
    with pytest.raises(SystemExit) as ended:
        main(["audit", "receipt", *map(str, words)])
    return int(str(ended.value.code)), capfdbinary.readouterr().out


@pytest.fixture
def node(tmp_path: Path) -> tuple[Path, Path]:
    """A log whose permit names two policies of a bundle, and the file of the trusted key."""
    key = _key()
    plan = Plan.compile(read_folder(QUICKSTART), {"trust_domain": "acme.example"})
    texts = {id_: one.text for id_, one in plan.describe().policies.items()}
    named = dict(list(texts.items())[:2])
    log = LogWriter(tmp_path, key=key)
    permit = decision(policies=named, digest=plan.digest, approved_by=["local/ann"])
    log.write([answer(Passkey()), filler(1)], sealed=True)
    log.write([permit, filler(2)])
    (tmp_path / "audit.jsonl.head").write_text(log.newest + "\n")
    keys = tmp_path / "keys.json"
    keys.write_text(log.jwks())
    return log.path, keys


def _made_by(log: Path) -> list[object]:
    return ["--log", log, "--log", log.with_name(f"{log.name}.00000001"), DECISION]


def test_the_command_makes_and_verifies_a_receipt(
    node: tuple[Path, Path], tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The command makes a receipt with the texts of a bundle, and verifies it."""
    log, keys = node
    bundle = ["--bundle", QUICKSTART, "--var", "trust_domain=acme.example"]
    file = tmp_path / "receipt.json"
    assert _run(capfdbinary, *_made_by(log), *bundle, "--output", file) == (0, b"")
    assert _run(capfdbinary, *_made_by(log), *bundle) == (0, file.read_bytes())
    code, text = _run(capfdbinary, "--verify", file, "--head-key", keys)
    assert code == 0
    assert b"not proved:\n  that the record is true" in text
    assert b"local/ann approved the call" in text
    code, text = _run(capfdbinary, "--verify", file, "--head-key", keys, "--format", "json")
    account = json.loads(text)
    assert (account["verified"], account["policy_texts"], account["outcome"]) == (
        True,
        True,
        "PERMIT",
    )
    assert account["answers"][0]["signed_at_origin"] == ORIGIN


def test_the_command_refuses_a_forgery(
    node: tuple[Path, Path], tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """A refused receipt has exit code 2, and a code for programs."""
    log, keys = node
    file = tmp_path / "receipt.json"
    assert _run(capfdbinary, *_made_by(log), "--output", file)[0] == 0
    file.write_bytes(file.read_bytes().replace(b"PERMIT", b"REFUSE", 1))
    code, text = _run(capfdbinary, "--verify", file, "--head-key", keys)
    assert (code, text.startswith(b"refused: path: ")) == (2, True)
    code, text = _run(capfdbinary, "--verify", file, "--head-key", keys, "--format", "json")
    assert (code, json.loads(text)["code"]) == (2, "path")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], b"give the id of a decision, or --verify"),
        ([DECISION, "--verify", "x"], b"give the id of a decision, or --verify"),
        (["--verify", "x"], b"needs --head-key"),
        ([DECISION, "--head-key", "x"], b"--head-key is for --verify"),
        (["--verify", "x", "--head-key", "nowhere"], b"nowhere"),
        ([DECISION, "--format", "yaml"], b"is not one of"),
    ],
)
def test_the_command_explains_wrong_use(
    words: list[str], message: bytes, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The command explains wrong use."""
    with pytest.raises(SystemExit) as ended:
        main(["audit", "receipt", *words])
    assert ended.value.code == 1
    assert message in capfdbinary.readouterr().err


def test_the_command_takes_no_other_bundle(
    node: tuple[Path, Path], tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Another bundle, or another value of a variable, gives no receipt."""
    log, _ = node
    other = tmp_path / "other"
    shutil.copytree(QUICKSTART, other)
    file = other / "policies" / "authz.cedar"
    file.write_text(file.read_text() + "// a comment\n")
    with pytest.raises(SystemExit) as ended:
        main(["audit", "receipt", *map(str, _made_by(log)), "--bundle", str(other)])
    assert ended.value.code == 1
    assert b"and the bundle that judged" in capfdbinary.readouterr().err


# --- the approvals page


def test_an_assertion_of_the_page_is_proved(tmp_path: Path) -> None:
    """The page makes the challenge that a receipt is verified with, and each outcome has its own."""
    authenticator = Authenticator()
    store = MagicMock()
    store.passkeys.return_value = []
    page = Passkeys(
        PasskeySettings("authz.example", "Authz", "https://authz.example"), store, frozenset()
    )
    login = Login("local", "ann", LoginMethod.PASSKEY, 0)
    session = Session(login, "", 0.0, 0.0)
    page.finish_registration(session, authenticator.create(page.begin_registration(session)), "")
    stored = store.put_passkey.call_args.args[2]
    store.passkeys.return_value = [stored]
    key, permit = _key(), decision(approved_by=["local/ann"])
    for outcome, endorses in (("approve", False), ("endorse", True), ("reject", False)):
        statement = AnswerStatement(APPROVAL, outcome, bytes.fromhex(CALL), bytes.fromhex(CARD))
        signed = page.finish_answer(
            session, statement, authenticator.get(page.begin_answer(session, statement))
        )
        assertion = {
            "authenticator_data": signed.authenticator_data,
            "client_data": signed.client_data_json,
            "signature": signed.signature,
            "public_key": stored["public_key"],
        }
        record = answer(method="passkey", passkey=signed.credential_id, endorses=endorses)
        record["result"]["approval"]["assertion"] = assertion
        content = issue(tmp_path / outcome, key, permit, [record]).content
        if outcome == "reject":
            with pytest.raises(ReceiptError, match="signed another answer"):
                _verify(content, key)
        else:
            assert _verify(content, key).answers[0].signed is not None
