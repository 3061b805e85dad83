"""Makes the token of a credential: a JWT that PyJWT writes, signed where the key is kept."""

from typing import Any, Final, cast

from jwt import PyJWS
from jwt.algorithms import Algorithm

from authz.config import SigningAlgorithm
from authz.signing.keys import SigningKey

__all__ = ["TYPE", "mint"]

TYPE: Final = "at+jwt"
"""`typ` of a task credential (RFC 9068 §2.1)."""


class _Kept(Algorithm):
    """Signs by a key that is asked to, and not handed over."""

    def prepare_key(self, key: SigningKey) -> SigningKey:
        return key

    def sign(self, msg: bytes, key: SigningKey) -> bytes:
        return key.sign(msg)

    def verify(self, msg: bytes, key: SigningKey, sig: bytes) -> bool:
        raise NotImplementedError

    @staticmethod
    def to_jwk(key_obj: SigningKey, as_dict: bool = False) -> Any:  # noqa: FBT001, FBT002 - PyJWT's
        raise NotImplementedError

    @staticmethod
    def from_jwk(jwk: str | dict[str, Any]) -> Any:
        raise NotImplementedError


def _writer() -> PyJWS:
    writer = PyJWS(algorithms=[])
    for algorithm in SigningAlgorithm:
        writer.register_algorithm(algorithm.value, _Kept())
    return writer


_WRITER: Final = _writer()


def mint(claims: str, key: SigningKey) -> str:
    """Sign the claims of a task credential.

    Args:
        claims: All of them, as JSON; nothing is added.
        key: What signs.

    Returns:
        The token.

    Raises:
        KeysError: The key cannot be used now.
    """
    return _WRITER.encode(
        claims.encode(),
        cast("Any", key),  # what `_Kept` takes
        algorithm=key.algorithm.value,
        headers={"kid": key.kid, "typ": TYPE},
    )
