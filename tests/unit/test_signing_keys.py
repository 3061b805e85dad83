"""Keys that sign task credentials: where they lie, what they sign, when they come and go."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from authz.config import Credentials, Log, Pkcs11, SigningAlgorithm, SigningKeys
from authz.errors import KeysError
from authz.signing import (
    FolderKeys,
    KeyPlace,
    KeyRecord,
    KeyRing,
    SigningKey,
    TokenKeys,
    mint,
)
from authz.telemetry import Logger, make_logger
from authz_client.jose import thumbprint

ALGORITHMS = tuple(SigningAlgorithm)
SOFTHSM = next((one for one in Path("/usr/lib").glob("**/softhsm/libsofthsm2.so")), None)
DAY, AGE, LONGEST = 86_400.0, 300.0, 960.0
T0 = 1_700_000_000.0


@pytest.fixture(params=["folder", "token"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> KeyPlace:
    """A folder, and a token of PKCS#11."""
    if request.param == "folder":
        return FolderKeys(tmp_path / "keys")
    return token(tmp_path, monkeypatch)


def token(folder: Path, monkeypatch: pytest.MonkeyPatch, pin: str = "5678") -> TokenKeys:
    """A new token of SoftHSM."""
    pytest.importorskip("pkcs11", reason="needs the extra `pkcs11`")
    if SOFTHSM is None or shutil.which("softhsm2-util") is None:
        pytest.skip("needs SoftHSM (Debian: softhsm2)")
    (folder / "tokens").mkdir()
    settings = folder / "softhsm2.conf"
    settings.write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(settings))
    label = folder.name[-32:]
    command = ["softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", "1234"]
    subprocess.run([*command, "--pin", "5678"], check=True, capture_output=True)
    file = folder / "pin"
    file.touch(mode=0o600)
    file.write_text(pin + "\n")
    import pkcs11  # noqa: PLC0415

    pkcs11.unload(str(SOFTHSM))  # it reads its settings once
    return TokenKeys(Pkcs11(module=str(SOFTHSM), token_label=label, pin_file=str(file)))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_pyjwt_verifies_what_a_key_signs_by_what_is_published_of_it(
    place: KeyPlace, algorithm: SigningAlgorithm
) -> None:
    """Header and claims are as given, and nothing of the private half is published."""
    key = place.generate(algorithm)
    claims = {
        "iss": "https://authz.example",
        "aud": "crm",
        "sub": "corp/älice",
        "exp": 2_000_000_000,
    }

    minted = mint(json.dumps(claims), key)

    verified = jwt.decode(
        minted,
        jwt.PyJWK(key.jwk),
        algorithms=[algorithm.value],
        audience="crm",
        issuer="https://authz.example",
    )
    assert verified == claims
    assert jwt.get_unverified_header(minted) == {
        "alg": algorithm.value,
        "kid": key.kid,
        "typ": "at+jwt",
    }
    assert key.jwk.keys() <= {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert key.kid == thumbprint(key.jwk)
    assert "sign" not in repr(key)


def test_a_thumbprint_is_that_of_the_rfc() -> None:
    """RFC 8037 appendix A.3 has one of an Ed25519 key."""
    jwk = {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        "use": "sig",
    }

    assert thumbprint(jwk) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_keys_are_found_again_and_gone_once_destroyed(
    place: KeyPlace, algorithm: SigningAlgorithm
) -> None:
    """Destroying one leaves the others."""
    kept, gone = place.generate(algorithm), place.generate(algorithm)

    found = {key.kid: key for key in place.find()}
    assert found.keys() == {kept.kid, gone.kid}
    assert found[kept.kid].jwk == kept.jwk
    place.destroy(gone.kid)
    place.destroy(gone.kid)

    assert [key.kid for key in place.find()] == [kept.kid]
    assert mint("{}", kept).count(".") == 2


def test_a_key_that_was_put_into_the_folder_is_found(tmp_path: Path) -> None:
    """Whatever its file is called."""
    folder = FolderKeys(tmp_path / "keys")
    write(tmp_path / "keys" / "mine.pem", ec.generate_private_key(ec.SECP256R1()))

    (found,) = folder.find()

    assert found.algorithm is SigningAlgorithm.ES256
    assert found.kid != "mine"


def write(
    file: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, mode: int = 0o600
) -> None:
    """Write a private key."""
    file.touch(mode=mode)
    file.chmod(mode)
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def test_what_is_generated_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    """Under any umask; and no partial file stays."""
    before = os.umask(0)
    try:
        key = FolderKeys(tmp_path / "keys").generate(SigningAlgorithm.ES256)
    finally:
        os.umask(before)

    assert (tmp_path / "keys").stat().st_mode & 0o7777 == 0o700
    (file,) = (tmp_path / "keys").iterdir()
    assert file.name == f"{key.kid}.pem"
    assert file.stat().st_mode & 0o7777 == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644])
def test_a_key_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    """Read, written or executed, by group or all."""
    folder = FolderKeys(tmp_path / "keys")
    write(tmp_path / "keys" / "mine.pem", ec.generate_private_key(ec.SECP256R1()), mode)

    with pytest.raises(
        KeysError, match=rf"mine\.pem: the signing key has mode {mode:04o}.*chmod 0600"
    ):
        folder.find()


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o711, 0o770, 0o755])
def test_a_folder_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    """Even where its files are not readable: names tell, and files may be replaced."""
    folder = FolderKeys(tmp_path / "keys")
    folder.generate(SigningAlgorithm.ES256)
    (tmp_path / "keys").chmod(mode)

    with pytest.raises(KeysError, match=rf"folder of signing keys has mode {mode:04o}.*chmod 0700"):
        folder.find()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_key_of_another_user_is_refused(tmp_path: Path) -> None:
    """That user could read it."""
    folder = FolderKeys(tmp_path / "keys")
    key = folder.generate(SigningAlgorithm.ES256)
    os.chown(tmp_path / "keys" / f"{key.kid}.pem", 12_345, -1)

    with pytest.raises(KeysError, match="belongs to user 12345"):
        folder.find()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not hold a readable private key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "readable private key"),
        (b"x" * 20_000, "longer than"),
    ],
)
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """By its name."""
    folder = FolderKeys(tmp_path / "keys")
    file = tmp_path / "keys" / "bad.pem"
    file.touch(mode=0o600)
    file.write_bytes(content)

    with pytest.raises(KeysError, match=message):
        folder.find()


@pytest.mark.parametrize("kind", ["rsa", "p384"])
def test_a_key_of_another_kind_is_refused(tmp_path: Path, kind: str) -> None:
    """Only P-256 and Ed25519 sign."""
    folder = FolderKeys(tmp_path / "keys")
    key = (
        rsa.generate_private_key(65_537, 2048)
        if kind == "rsa"
        else ec.generate_private_key(ec.SECP384R1())
    )
    write(tmp_path / "keys" / "bad.pem", key)

    with pytest.raises(KeysError, match="a key of another kind"):
        folder.find()


def test_a_named_pipe_does_not_hold_the_start(tmp_path: Path) -> None:
    """Nothing waits for a writer."""
    folder = FolderKeys(tmp_path / "keys")
    os.mkfifo(tmp_path / "keys" / "pipe.pem", 0o600)

    with pytest.raises(KeysError, match="not a regular file"):
        folder.find()


# --- a token of PKCS#11


def test_a_private_key_does_not_leave_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made sensitive, and cannot be extracted."""
    keys = token(tmp_path, monkeypatch)
    keys.generate(SigningAlgorithm.ES256)
    import pkcs11  # noqa: PLC0415

    private = [
        one
        for one in keys._session.get_objects()
        if one.object_class == pkcs11.ObjectClass.PRIVATE_KEY
    ]

    assert [one[pkcs11.Attribute.EXTRACTABLE] for one in private] == [False]
    assert [one[pkcs11.Attribute.SENSITIVE] for one in private] == [True]
    with pytest.raises(pkcs11.AttributeSensitive):
        private[0][pkcs11.Attribute.VALUE]


def test_a_wrong_pin_is_refused_and_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has no PIN."""
    with pytest.raises(KeysError, match="PinIncorrect") as refused:
        token(tmp_path, monkeypatch, pin="0815")

    assert "0815" not in str(refused.value)


def test_a_pin_that_others_can_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a key would be."""
    keys = token(tmp_path, monkeypatch)
    keys.close()
    (tmp_path / "pin").chmod(0o640)

    with pytest.raises(KeysError, match="PIN of the token has mode 0640"):
        keys.find()


def test_a_session_that_broke_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call in which it broke fails; the next one does not."""
    keys = token(tmp_path, monkeypatch)
    key = keys.generate(SigningAlgorithm.ES256)
    keys._session.close()

    with pytest.raises(KeysError, match="the PKCS#11 token fails"):
        key.sign(b"x")

    assert len(key.sign(b"x")) == 64


def test_the_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(__import__("sys").modules, "pkcs11", None)

    with pytest.raises(KeysError, match=r"needs the extra `pkcs11`.*authz-runtime\[pkcs11\]"):
        TokenKeys(Pkcs11(module="/x.so", token_label="t", pin_file="/pin"))


# --- their life


class Store:
    """Records of all nodes."""

    def __init__(self) -> None:
        self.records: dict[str, KeyRecord] = {}
        self.revoked: set[str] = set()
        self.broken = False

    def signing_keys(self) -> list[KeyRecord]:
        """Read all."""
        if self.broken:
            raise KeysError("the store is down")
        return list(self.records.values())

    def put_signing_key(self, record: KeyRecord) -> None:
        """Write one."""
        self.records[record.kid] = record

    def remove_signing_key(self, kid: str) -> None:
        """Remove one."""
        self.records.pop(kid, None)

    def is_key_revoked(self, kid: str) -> bool:
        """Tell whether one is revoked."""
        return kid in self.revoked


class Life:
    """A node's ring at a clock that the test moves."""

    def __init__(
        self, folder: Path, store: Store, node: str = "a", *, generate: bool = True
    ) -> None:
        self.now = T0
        self.told: list[list[str]] = []
        self.place = FolderKeys(folder)
        self.refuse = False
        settings = Credentials(issuer="https://authz.example", keys=SigningKeys(generate=generate))
        self.ring = KeyRing(
            settings,
            self.place,
            store,
            node=node,
            changed=self.changed,
            log=quiet(),
            clock=lambda: self.now,
        )

    def changed(self, jwks: str) -> None:
        """Hear of another JWKS."""
        if self.refuse:
            raise KeysError("not now")
        self.told.append([key["kid"] for key in json.loads(jwks)["keys"]])

    def at(self, after: float) -> str | None:
        """Look after the keys `after` seconds from the start, and tell what signs."""
        self.now = T0 + after
        self.ring.tend()
        return self.signs

    @property
    def signs(self) -> str | None:
        """The key that signs."""
        active = self.ring.active()
        return active.kid if active is not None else None


def quiet() -> Logger:
    """A log that nobody reads."""
    return make_logger(Log(), io.StringIO())


def test_the_first_key_of_all_signs_at_once(tmp_path: Path) -> None:
    """Nobody can hold a JWKS without it."""
    life = Life(tmp_path / "a", Store())

    kid = life.at(0)

    assert life.told == [[kid]]
    assert life.ring.problems() == ()
    assert life.ring.max_age == AGE


def test_a_store_that_keeps_whole_milliseconds_makes_no_other_key_of_it(tmp_path: Path) -> None:
    """What was written is not taken for another node's that was earlier."""

    class Rounded(Store):
        def put_signing_key(self, record: KeyRecord) -> None:
            super().put_signing_key(
                replace(record, published_at=int(record.published_at * 1000) / 1000)
            )

    life = Life(tmp_path / "a", Rounded())

    assert life.at(0.123_456_7) is not None


def test_a_key_of_a_second_node_is_published_first(tmp_path: Path) -> None:
    """For as long as a JWKS without it may be kept; and each node publishes both."""
    store = Store()
    first, second = Life(tmp_path / "a", store), Life(tmp_path / "b", store, "b")
    old = first.at(0)

    assert second.at(0) is None
    assert second.ring.problems()[0].startswith("no key signs credentials; one will in 3")
    assert second.at(AGE) is None
    new = second.at(AGE + 30)
    first.at(AGE + 30)

    assert new not in {None, old}
    assert first.signs == old
    assert first.told[-1] == second.told[-1] == [old, new]


def test_of_two_nodes_that_begin_together_one_waits(tmp_path: Path) -> None:
    """Each wrote before it read: the later one, or by name, gives way."""

    class Raced(Store):
        def put_signing_key(self, record: KeyRecord) -> None:
            super().put_signing_key(record)
            super().put_signing_key(earlier)

    earlier = replace(record("earlier"), node="b", published_at=T0 - 1)
    life = Life(tmp_path / "a", Raced())

    assert life.at(0) is None


def record(kid: str) -> KeyRecord:
    """Some key's record."""
    return KeyRecord(kid, "b", json.dumps({"kid": kid}), T0, T0, T0 + DAY)


def test_the_next_key_is_published_before_it_signs_and_the_last_one_after(tmp_path: Path) -> None:
    """The whole life of a key."""
    life = Life(tmp_path / "a", Store())
    old = life.at(0)

    assert life.at(DAY - AGE - 30) == old
    assert life.told == [[old]]
    assert life.at(DAY - AGE - 25) == old
    (new,) = set(life.told[-1]) - {old}
    assert life.at(DAY - 1) == old
    assert life.at(DAY + 1) == new
    assert life.told[-1] == [old, new]
    assert {key.kid for key in life.place.find()} == {old, new}
    assert life.at(DAY + 1 + LONGEST - 1) == new
    assert life.told[-1] == [old, new]
    assert life.at(DAY + 1 + LONGEST) == new
    assert life.told[-1] == [new]
    assert {key.kid for key in life.place.find()} == {new}


def test_a_restart_goes_on_with_the_same_key(tmp_path: Path) -> None:
    """Also where the node is called otherwise now."""
    store = Store()
    old = Life(tmp_path / "a", store).at(0)

    again = Life(tmp_path / "a", store, "renamed")

    assert again.at(10) == old
    assert store.records[str(old)].node == "renamed"


def test_a_key_that_cannot_be_followed_signs_for_one_more_rotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And readiness says why, long before it ends."""
    life = Life(tmp_path / "a", Store())
    old = life.at(0)

    def full(_: SigningAlgorithm) -> SigningKey:
        raise KeysError("the disk is full")

    monkeypatch.setattr(life.place, "generate", full)

    assert life.at(DAY) == old
    assert life.ring.problems() == ("the next signing key cannot be made: the disk is full",)
    assert life.at(2 * DAY - 1) == old
    life.now = T0 + 2 * DAY
    assert life.signs is None
    with pytest.raises(KeysError):
        life.ring.tend()


def test_a_key_that_was_put_there_is_rotated_to(tmp_path: Path) -> None:
    """It is published, then signs, and the one before ends."""
    life = Life(tmp_path / "a", Store(), generate=False)
    assert life.at(0) is None
    assert "none may be made" in life.ring.problems()[1]
    old = life.place.generate(SigningAlgorithm.ES256).kid
    assert life.at(10) == old
    new = life.place.generate(SigningAlgorithm.EDDSA).kid

    assert life.at(20) == old
    assert life.told[-1] == [old, new]
    assert life.at(20 + AGE + 30) == new
    assert life.at(20 + AGE + 30 + LONGEST) == new
    assert life.told[-1] == [new]


def test_a_key_that_nobody_replaces_goes_on_signing_where_none_is_made(tmp_path: Path) -> None:
    """Rotation is then the operator's."""
    life = Life(tmp_path / "a", Store(), generate=False)
    kid = life.place.generate(SigningAlgorithm.ES256).kid

    assert [life.at(days * DAY / 2) for days in range(20)] == [kid] * 20


def test_an_expired_key_that_cannot_be_removed_does_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record stays, so that it is not taken for a new one; it is not published."""
    life = Life(tmp_path / "a", Store())
    old = life.at(0)
    life.at(DAY - AGE - 25)
    new = life.at(DAY + 1)

    def refuse(_: str) -> None:
        raise KeysError("read-only")

    monkeypatch.setattr(life.place, "destroy", refuse)

    for after in (LONGEST, LONGEST + 100):
        assert life.at(DAY + 1 + after) == new
        assert life.told[-1] == [new]
        assert life.ring.problems() == (f"signing key {old} has expired, and stays: read-only",)


def test_a_key_that_is_taken_away_signs_no_more_and_ends(tmp_path: Path) -> None:
    """At the next look; what it signed can be verified until it ends."""
    store = Store()
    life = Life(tmp_path / "a", store)
    old = life.at(0)
    (tmp_path / "a" / f"{old}.pem").unlink()

    assert life.at(10) is None
    assert store.records[str(old)].expires_at == T0 + 10 + LONGEST
    assert life.at(10 + AGE + 30) not in {None, old}
    life.at(10 + LONGEST)
    assert old not in life.told[-1]


def published(life: Life) -> list[str]:
    """The keys that a node shows to others."""
    return [key["kid"] for key in json.loads(life.ring.jwks())["keys"]]


def test_a_revoked_key_signs_nothing_from_then_on(tmp_path: Path) -> None:
    """Not until the next look either; no node publishes it any more, and another key follows it."""
    store = Store()
    life, other = Life(tmp_path / "a", store), Life(tmp_path / "b", store, "b")
    old = str(life.at(0))
    other.at(1)
    assert old in published(life)
    assert old in published(other)

    store.revoked.add(old)

    assert life.signs is None
    assert life.ring.problems()[0].startswith("no key signs credentials")
    assert old not in published(life)
    assert old not in published(other)
    # Its tokens are refused as revoked, and not as of an unknown key: the node itself still knows it.
    assert old in life.told[-1]
    (shown,) = [one for one in life.ring.detail() if one["kid"] == old]
    assert (shown["signs"], shown["revoked"]) == (False, True)

    assert life.at(10) is None
    new = life.at(10 + AGE + 30)
    assert new not in {None, old}
    assert life.at(10 + LONGEST) == new
    assert old not in {key.kid for key in life.place.find()}
    assert old not in store.records


def test_a_revoked_key_that_has_no_record_gets_none(tmp_path: Path) -> None:
    """Whoever puts it there again does not bring it back."""
    store = Store()
    life = Life(tmp_path / "a", store, generate=False)
    kid = life.place.generate(SigningAlgorithm.ES256).kid
    store.revoked.add(kid)

    assert life.at(0) is None
    assert store.records == {}
    assert published(life) == []


def test_a_node_joins_until_its_first_key_signs(tmp_path: Path) -> None:
    """A node that begins alone does not; nor does one that lost its key later."""
    store = Store()
    first, second = Life(tmp_path / "a", store), Life(tmp_path / "b", store, "b")
    assert not first.ring.is_joining
    first.at(0)
    assert not first.ring.is_joining

    second.at(0)
    assert second.ring.is_joining
    second.at(AGE + 24)
    assert second.ring.is_joining
    kid = second.at(AGE + 30)
    states = [second.ring.is_joining]
    store.revoked.add(str(kid))
    assert second.signs is None
    states.append(second.ring.is_joining)
    assert states == [False, False]


def test_a_node_that_nobody_can_stand_in_for_does_not_join(tmp_path: Path) -> None:
    """Without a key, or with a revoked one after a restart, it decides all the same."""
    store = Store()
    keyless = Life(tmp_path / "a", store, generate=False)
    assert keyless.at(0) is None
    assert not keyless.ring.is_joining
    life = Life(tmp_path / "b", store, "b")
    store.revoked.add(str(life.at(0)))
    again = Life(tmp_path / "b", store, "b")
    assert again.at(10) is None
    assert not again.ring.is_joining
    keyless.at(10)
    assert not keyless.ring.is_joining


def test_keys_of_a_node_that_is_gone_end_by_themselves(tmp_path: Path) -> None:
    """Nobody has to tidy up after it."""
    store = Store()
    life = Life(tmp_path / "a", store)
    gone = Life(tmp_path / "b", store, "b").at(0)
    life.at(0)
    assert gone in life.told[-1]

    life.at(2 * DAY + LONGEST)
    assert gone not in life.told[-1]
    assert gone in store.records
    life.at(3 * DAY + LONGEST)

    assert gone not in store.records


def test_a_key_signs_only_once_this_node_believes_it_itself(tmp_path: Path) -> None:
    """Else it would refuse its own credentials."""
    life = Life(tmp_path / "a", Store())
    life.refuse = True

    with pytest.raises(KeysError):
        life.at(0)
    assert life.signs is None
    life.refuse = False

    assert life.at(1) is not None


def test_keys_go_on_signing_while_the_store_is_down(tmp_path: Path) -> None:
    """What stood stands; readiness says why nothing moves."""
    store = Store()
    life = Life(tmp_path / "a", store)
    kid = life.at(0)
    store.broken = True

    with pytest.raises(KeysError, match="the store is down"):
        life.at(10)
    assert life.signs == kid


def test_the_thread_says_what_fails_and_recovers(tmp_path: Path) -> None:
    """A failure is a problem of readiness, not the end of the thread."""
    store = Store()
    life = Life(tmp_path / "a", store)
    life.ring.tend()

    life.ring._failed(KeysError("the store is down"))
    assert life.ring.problems() == ("the store is down",)
    life.ring.tend()

    assert life.ring.problems() == ()


def test_the_detail_names_each_key_and_no_private_one(tmp_path: Path) -> None:
    """As `authz keys list` shows it."""
    store = Store()
    other = Life(tmp_path / "b", store, "b")
    other.at(0)
    life = Life(tmp_path / "a", store)
    life.at(0)

    shown = life.ring.detail()

    assert [(one["node"], one["own"], one["signs"]) for one in shown] == [
        ("b", False, False),
        ("a", True, False),
    ]
    assert life.ring.counts() == {"signing": 0, "waiting": 1, "retired": 0, "other_nodes": 1}
    assert '"d"' not in json.dumps(shown)


def test_a_jwks_is_as_the_rfc_says(tmp_path: Path) -> None:
    """Public members only, and each key says what it is for."""
    life = Life(tmp_path / "a", Store())
    life.at(0)

    (key,) = json.loads(life.ring.ring.jwks())["keys"]

    assert key.keys() == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert (key["use"], key["alg"]) == ("sig", "ES256")
    assert len(base64.urlsafe_b64decode(key["x"] + "=")) == 32
