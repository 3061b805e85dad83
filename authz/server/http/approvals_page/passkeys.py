"""Passkeys: WebAuthn ceremonies with user verification (WebAuthn Level 3).

The challenge of an answer has a digest over card, call, approval and outcome, so the signature is not valid for another answer. It
also has a nonce and an end, so that the stored assertion can be verified later. Each challenge can be used once.
"""

import hashlib
import json
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import webauthn
from webauthn.helpers import base64url_to_bytes, bytes_to_base64url, options_to_json
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from authz.approvals import (
    AnswerStatement,
    ApprovalStore,
    PasskeyAssertion,
    StoredPasskey,
    answer_challenge,
    is_local_person,
)
from authz.server.http.approvals_page.sessions import Session

__all__ = [
    "MAX_PASSKEYS",
    "PasskeyError",
    "PasskeySettings",
    "Passkeys",
]

MAX_PASSKEYS: Final = 10
"""Maximum number of passkeys of one person."""
MAX_NAME: Final = 64
"""Largest number of characters of the name of a passkey."""
_CEREMONY_SECONDS: Final = 300.0
_MAX_CEREMONIES: Final = 8
_MAX_USED: Final = 10_000
_MAX_CREDENTIAL_ID: Final = 1023


class PasskeyError(Exception):
    """A ceremony is refused. The message is for the person."""


@dataclass(frozen=True, slots=True)
class PasskeySettings:
    """The relying party."""

    rp_id: str
    """Relying party id."""
    name: str
    """Name that the browser shows."""
    origin: str
    """Origin of the page."""


@dataclass(frozen=True, slots=True)
class _Ceremony:
    purpose: str
    expires_at: int
    nonce: bytes = b""


class Passkeys:
    """Ceremonies of the page. Its methods block until the store responds: call them on a thread.

    Args:
        settings: The relying party.
        store: Keeps passkeys.
        issuers: Aliases of the configured issuers. Their people log in at the issuer, not by passkey.
        clock: Unix time.
    """

    def __init__(
        self,
        settings: PasskeySettings,
        store: ApprovalStore,
        issuers: frozenset[str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._store = store
        self._issuers = issuers
        self._clock = clock
        self._used_logins: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()

    def is_local(self, issuer: str) -> bool:
        """Return whether the people of an issuer log in by passkey, because the issuer is not configured."""
        return issuer not in self._issuers

    def of(self, issuer: str, sub: str) -> list[StoredPasskey]:
        """Return the passkeys of a person, oldest first."""
        return sorted(self._store.passkeys(issuer, sub), key=lambda one: int(one["created_at"]))

    # --- a new passkey

    def begin_registration(self, session: Session) -> str:
        """Begin a new passkey of a logged-in person; return the browser's options as JSON."""
        challenge = secrets.token_bytes(32)
        self._note(session, challenge, _Ceremony("register", self._expiry()))
        login = session.login
        return self.registration_options(login.issuer, login.sub, login.shown_name, challenge)

    def registration_options(self, issuer: str, sub: str, shown: str, challenge: bytes) -> str:
        """Return the browser's options of a registration as JSON.

        Raises:
            PasskeyError: The person has too many passkeys.
        """
        existing = self.of(issuer, sub)
        if len(existing) >= MAX_PASSKEYS:
            raise PasskeyError(f"You have {MAX_PASSKEYS} passkeys. Remove one first.")
        options = webauthn.generate_registration_options(
            rp_id=self._settings.rp_id,
            rp_name=self._settings.name,
            user_id=self._handle(issuer, sub),
            user_name=sub,
            user_display_name=shown,
            challenge=challenge,
            timeout=int(_CEREMONY_SECONDS * 1000),
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.REQUIRED
                if self.is_local(issuer)
                else ResidentKeyRequirement.PREFERRED,
                user_verification=UserVerificationRequirement.REQUIRED,
            ),
            exclude_credentials=_descriptors(existing),
        )
        return options_to_json(options)

    def finish_registration(self, session: Session, credential: str, name: str) -> None:
        """Write a new passkey of a logged-in person. Raise PasskeyError if the ceremony is refused."""
        challenge = self._take(session, credential, "register")[0]
        self.register(session.login.issuer, session.login.sub, credential, name, challenge)

    def register(self, issuer: str, sub: str, credential: str, name: str, challenge: bytes) -> None:
        """Verify a registration and write the passkey. Raise PasskeyError if it is refused."""
        try:
            verified = webauthn.verify_registration_response(
                credential=credential,
                expected_challenge=challenge,
                expected_rp_id=self._settings.rp_id,
                expected_origin=self._settings.origin,
                require_user_verification=True,
            )
        except WebAuthnException as error:
            raise PasskeyError(f"The passkey is refused: {error}.") from error
        if len(verified.credential_id) > _MAX_CREDENTIAL_ID:
            raise PasskeyError("The passkey is refused: its id is too long.")
        existing = self.of(issuer, sub)
        credential_id = bytes_to_base64url(verified.credential_id)
        if len(existing) >= MAX_PASSKEYS or any(
            one["credential_id"] == credential_id for one in existing
        ):
            raise PasskeyError("This passkey is registered already, or you have too many.")
        self._store.put_passkey(
            issuer,
            sub,
            {
                "credential_id": credential_id,
                "public_key": bytes_to_base64url(verified.credential_public_key),
                "sign_count": verified.sign_count,
                "name": name.strip()[:MAX_NAME] or f"Passkey {len(existing) + 1}",
                "created_at": int(self._clock() * 1000),
            },
        )

    def rename(self, issuer: str, sub: str, credential_id: str, name: str) -> None:
        """Rename a passkey. Raise PasskeyError if the person has no such passkey, or the name is empty."""
        name = name.strip()[:MAX_NAME]
        if not name:
            raise PasskeyError("Give the passkey a name.")
        passkey = self._find(issuer, sub, credential_id)
        self._store.put_passkey(issuer, sub, {**passkey, "name": name})

    def remove(self, issuer: str, sub: str, credential_id: str) -> None:
        """Remove a passkey. Raise PasskeyError if the person has no such passkey."""
        self._find(issuer, sub, credential_id)
        self._store.remove_passkey(issuer, sub, credential_id)

    # --- an answer

    def begin_answer(self, session: Session, statement: AnswerStatement) -> str:
        """Begin an answer; return the browser's options as JSON.

        Raises:
            PasskeyError: The person has no passkey.
        """
        passkeys = self.of(session.login.issuer, session.login.sub)
        if not passkeys:
            raise PasskeyError("You have no passkey. Add one under Passkeys.")
        ceremony = _Ceremony("answer", self._expiry(), secrets.token_bytes(16))
        challenge = answer_challenge(statement, ceremony.expires_at, ceremony.nonce)
        self._note(session, challenge, ceremony)
        return self._request_options(challenge, passkeys)

    def finish_answer(
        self, session: Session, statement: AnswerStatement, credential: str
    ) -> PasskeyAssertion:
        """Verify the assertion of an answer. Raise PasskeyError if it is refused."""
        challenge, ceremony = self._take(session, credential, "answer")
        expected = answer_challenge(statement, ceremony.expires_at, ceremony.nonce)
        if expected != challenge:
            raise PasskeyError("The passkey signed a different answer. Answer again.")
        login = session.login
        return self._assert(login.issuer, login.sub, credential, challenge)

    # --- a login by passkey alone

    def begin_login(self) -> tuple[str, bytes]:
        """Begin a login by passkey. Return the options for the browser as JSON, and the challenge."""
        challenge = secrets.token_bytes(32)
        return self._request_options(challenge, ()), challenge

    def finish_login(self, challenge: bytes, credential: str) -> tuple[str, str]:
        """Verify a login by passkey. Return issuer and subject.

        Raises:
            PasskeyError: The login is refused.
        """
        issuer, sub = self._person_of(credential)
        self._assert(issuer, sub, credential, challenge)
        now = self._clock()
        with self._lock:
            while self._used_logins and next(iter(self._used_logins.values())) < now:
                self._used_logins.popitem(last=False)
            if challenge in self._used_logins or len(self._used_logins) >= _MAX_USED:
                raise PasskeyError("This login was used. Log in again.")
            self._used_logins[challenge] = now + 2 * _CEREMONY_SECONDS
        return issuer, sub

    def _person_of(self, credential: str) -> tuple[str, str]:
        """Return the local person in the user handle of an assertion. The assertion is not verified yet."""
        try:
            handle = base64url_to_bytes(json.loads(credential)["response"]["userHandle"])
            issuer, _, sub = handle.decode().partition("/")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise PasskeyError(
                "This passkey cannot log in alone. Log in at your issuer; the passkey then answers."
            ) from error
        if not is_local_person(issuer, sub) or not self.is_local(issuer):
            raise PasskeyError(
                "This passkey cannot log in alone. Log in at your issuer; the passkey then answers."
            )
        return issuer, sub

    # ---

    def _request_options(self, challenge: bytes, passkeys: Sequence[StoredPasskey]) -> str:
        options = webauthn.generate_authentication_options(
            rp_id=self._settings.rp_id,
            challenge=challenge,
            timeout=int(_CEREMONY_SECONDS * 1000),
            allow_credentials=_descriptors(passkeys),
            user_verification=UserVerificationRequirement.REQUIRED,
        )
        return options_to_json(options)

    def _assert(self, issuer: str, sub: str, credential: str, challenge: bytes) -> PasskeyAssertion:
        given: dict[str, Any] = json.loads(credential)
        passkey = self._find(issuer, sub, str(given.get("id")))
        try:
            verified = webauthn.verify_authentication_response(
                credential=credential,
                expected_challenge=challenge,
                expected_rp_id=self._settings.rp_id,
                expected_origin=self._settings.origin,
                credential_public_key=base64url_to_bytes(str(passkey["public_key"])),
                credential_current_sign_count=int(passkey["sign_count"]),
                require_user_verification=True,
            )
        except WebAuthnException as error:
            raise PasskeyError(f"The passkey is refused: {error}.") from error
        changed = {"sign_count": verified.new_sign_count, "used_at": int(self._clock() * 1000)}
        self._store.put_passkey(issuer, sub, {**passkey, **changed})
        response = given["response"]
        return PasskeyAssertion(
            credential_id=given["id"],
            signature=response["signature"],
            authenticator_data=response["authenticatorData"],
            client_data_json=response["clientDataJSON"],
        )

    def _find(self, issuer: str, sub: str, credential_id: str) -> StoredPasskey:
        for passkey in self._store.passkeys(issuer, sub):
            if passkey["credential_id"] == credential_id:
                return passkey
        raise PasskeyError("This passkey is not yours or was removed.")

    def _handle(self, issuer: str, sub: str) -> bytes:
        """Return the user handle. The handle of a local person holds the name, so that the passkey alone can log in."""
        if self.is_local(issuer):
            return f"{issuer}/{sub}".encode()
        return hashlib.sha256(f"{issuer}/{sub}".encode()).digest()

    def _expiry(self) -> int:
        return int(self._clock() + _CEREMONY_SECONDS)

    @staticmethod
    def _note(session: Session, challenge: bytes, ceremony: _Ceremony) -> None:
        session.ceremonies[challenge] = ceremony
        while len(session.ceremonies) > _MAX_CEREMONIES:
            session.ceremonies.popitem(last=False)

    def _take(self, session: Session, credential: str, purpose: str) -> tuple[bytes, _Ceremony]:
        """Remove and return the ceremony that a response of the browser belongs to."""
        challenge = _challenge_of(credential)
        ceremony = session.ceremonies.pop(challenge, None)
        if ceremony is None or ceremony.purpose != purpose or ceremony.expires_at <= self._clock():
            raise PasskeyError("This request was used, or took too long. Try again.")
        return challenge, ceremony


def _challenge_of(credential: str) -> bytes:
    try:
        client_data = json.loads(
            base64url_to_bytes(json.loads(credential)["response"]["clientDataJSON"])
        )
        return base64url_to_bytes(client_data["challenge"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PasskeyError("The browser sent no valid answer of the passkey.") from error


def _descriptors(passkeys: Sequence[StoredPasskey]) -> list[PublicKeyCredentialDescriptor]:
    return [
        PublicKeyCredentialDescriptor(id=base64url_to_bytes(str(one["credential_id"])))
        for one in passkeys
    ]
