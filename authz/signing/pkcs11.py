"""Signing keys in a PKCS#11 token, such as an HSM: they are made there, and never leave it."""

import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from authz.config import Pkcs11, SigningAlgorithm
from authz.errors import KeysError
from authz.files import PrivateFileError, read_private
from authz.signing.keys import SigningKey, signing_jwk
from authz_client.jose import PublicKey

__all__ = ["TokenKeys"]

_ED25519: Final = "1.3.101.112"
_MAX_KEYS: Final = 64
_MAX_PIN: Final = 1024
_TRIAL: Final = b"authz: does the private key belong to the public one?"
_OCTETS: Final = 0x04


@dataclass(frozen=True, slots=True)
class _TokenKey:
    """A key in the token."""

    kid: str
    algorithm: SigningAlgorithm
    jwk: dict[str, str]
    _sign: Callable[[str, bytes], bytes] = field(repr=False)

    def sign(self, message: bytes) -> bytes:
        return self._sign(self.kid, message)


class TokenKeys:
    """The keys of a PKCS#11 token that have our label.

    One session is kept, and used by one thread at a time; after an error it is opened anew.

    Args:
        settings: Library, token, PIN and label.

    Raises:
        KeysError: The library cannot be loaded, or the token not be opened.
    """

    def __init__(self, settings: Pkcs11) -> None:
        try:
            import pkcs11  # noqa: PLC0415 - an extra
        except ImportError as error:
            what = "`credentials.keys.pkcs11` needs the extra `pkcs11`."
            raise KeysError(f"{what} Run: pip install 'authz-runtime[pkcs11]'") from error
        self._pkcs11: Any = pkcs11
        self._settings = settings
        self._lock = threading.Lock()
        self._session: Any = None
        self._private: dict[str, tuple[SigningAlgorithm, Any]] = {}
        with self._open():
            pass

    def find(self) -> Sequence[SigningKey]:
        """Return the keys of our label; raises KeysError if the token cannot be read, or holds only half of a key."""
        with self._open() as session:
            return self._find(session)

    def generate(self, algorithm: SigningAlgorithm) -> SigningKey:
        """Make a key in the token; nothing can take its private half out.

        Args:
            algorithm: Signature algorithm of the key.

        Returns:
            The key.

        Raises:
            KeysError: The token cannot make one.
        """
        from pkcs11.util.ec import encode_named_curve_parameters  # noqa: PLC0415 - an extra

        kinds, of = self._pkcs11.KeyType, self._pkcs11.Attribute
        eddsa = algorithm is SigningAlgorithm.EDDSA
        with self._open() as session:
            if len(self._find(session)) >= _MAX_KEYS:
                raise KeysError(f"the token has {_MAX_KEYS} keys labelled {self._label!r} already.")
            parameters = session.create_domain_parameters(
                kinds.EC_EDWARDS if eddsa else kinds.EC,
                {of.EC_PARAMS: encode_named_curve_parameters(_ED25519 if eddsa else "secp256r1")},
                local=True,
            )
            flags = self._pkcs11.MechanismFlag
            public, private = parameters.generate_keypair(
                id=secrets.token_bytes(16),
                label=self._label,
                store=True,
                capabilities=flags.SIGN | flags.VERIFY,
                mechanism=self._pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN if eddsa else None,
                private_template={of.SENSITIVE: True, of.EXTRACTABLE: False},
            )
            return self._key(public, private)

    def destroy(self, kid: str) -> None:
        """Remove both halves of a key.

        Args:
            kid: RFC 7638 thumbprint of the key.

        Raises:
            KeysError: The token refuses.
        """
        with self._open() as session:
            for public, private in self._pairs(session):
                if signing_jwk(self._public(public))["kid"] == kid:
                    private.destroy()
                    public.destroy()
            self._private.pop(kid, None)

    def close(self) -> None:
        """Close the session."""
        with self._lock:
            self._drop()

    # --- inside

    @property
    def _label(self) -> str:
        return self._settings.key_label

    @contextmanager
    def _open(self) -> Iterator[Any]:
        """Hold the session; errors of the library become ours, and end it."""
        with self._lock:
            try:
                if self._session is None:
                    self._session = self._login()
                yield self._session
            except KeysError:
                raise
            except Exception as error:
                self._drop()
                # A message of the library has no PIN in it; its own text may be empty.
                said = f"{type(error).__name__} {error}".strip()
                raise KeysError(f"the PKCS#11 token fails: {said}.") from error

    def _login(self) -> Any:
        try:
            pin, _ = read_private(self._settings.pin_file, "PIN of the token", _MAX_PIN)
        except PrivateFileError as error:
            raise KeysError(str(error)) from error
        library = self._pkcs11.lib(self._settings.module)
        token = library.get_token(token_label=self._settings.token_label)
        return token.open(rw=True, user_pin=pin.decode().strip())

    def _drop(self) -> None:
        self._private = {}
        session, self._session = self._session, None
        if session is not None:
            with suppress(Exception):
                session.close()

    def _find(self, session: Any) -> tuple[SigningKey, ...]:
        return tuple(self._key(public, private) for public, private in self._pairs(session))

    def _pairs(self, session: Any) -> list[tuple[Any, Any]]:
        classes, of = self._pkcs11.ObjectClass, self._pkcs11.Attribute
        halves = [
            {one.id: one for one in session.get_objects({of.CLASS: kind, of.LABEL: self._label})}
            for kind in (classes.PUBLIC_KEY, classes.PRIVATE_KEY)
        ]
        publics, privates = halves
        alone = publics.keys() ^ privates.keys()
        if alone:
            shown = ", ".join(sorted(one.hex() for one in alone))
            what = f"keys labelled {self._label!r} have one half only: {shown}."
            raise KeysError(f"{what} Import the other half under the same id, or remove them.")
        return [(publics[one], privates[one]) for one in publics]

    def _key(self, public: Any, private: Any) -> SigningKey:
        half = self._public(public)
        jwk = signing_jwk(half)
        kid, algorithm = jwk["kid"], SigningAlgorithm(jwk["alg"])
        if kid not in self._private:
            self._try(half, self._signed(algorithm, private, _TRIAL), kid)
        self._private[kid] = (algorithm, private)
        return _TokenKey(kid, algorithm, jwk, self._sign)

    def _public(self, public: Any) -> PublicKey:
        point = bytes(public[self._pkcs11.Attribute.EC_POINT])
        # The point stands in an OCTET STRING of DER; some tokens leave that out.
        wrapped = point[:1] == bytes([_OCTETS]) and point[1:2] == bytes([len(point) - 2])
        raw = point[2:] if wrapped else point
        try:
            if public.key_type == self._pkcs11.KeyType.EC_EDWARDS:
                return ed25519.Ed25519PublicKey.from_public_bytes(raw)
            return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw)
        except ValueError as error:
            what = f"a key labelled {self._label!r} is of another kind."
            raise KeysError(f"{what} Only P-256 and Ed25519 keys may sign.") from error

    @staticmethod
    def _try(public: PublicKey, signature: bytes, kid: str) -> None:
        """Refuse a pair whose halves do not belong together: no verifier would accept its signatures."""
        try:
            if isinstance(public, ed25519.Ed25519PublicKey):
                public.verify(signature, _TRIAL)
            else:
                r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
                public.verify(encode_dss_signature(r, s), _TRIAL, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature as error:
            raise KeysError(f"the halves of key {kid} do not belong together.") from error

    def _sign(self, kid: str, message: bytes) -> bytes:
        with self._open() as session:
            if kid not in self._private:
                self._find(session)
            if kid not in self._private:
                raise KeysError(f"key {kid} is no longer in the token.")
            return self._signed(*self._private[kid], message)

    def _signed(self, algorithm: SigningAlgorithm, private: Any, message: bytes) -> bytes:
        mechanisms = self._pkcs11.Mechanism
        if algorithm is SigningAlgorithm.EDDSA:
            return bytes(private.sign(message, mechanism=mechanisms.EDDSA))
        return bytes(private.sign(sha256(message).digest(), mechanism=mechanisms.ECDSA))
