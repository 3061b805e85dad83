"""Signs task credentials: JWTs that PyJWT writes, and that are signed where the key is kept."""

from typing import Any, Final, cast

from jwt import PyJWS
from jwt.algorithms import Algorithm

from authz.config import SigningAlgorithm
from authz.signing.keys import SigningKey

__all__ = ["TYPE", "mint"]

TYPE: Final = "at+jwt"
"""`typ` of a task credential (RFC 9068 §2.1)."""


class _Kept(Algorithm):
    """A signature algorithm of PyJWT that calls the key instead of reading it."""

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
        claims: All claims, as JSON; none is added.
        key: The signing key.

    Returns:
        The token.

    Raises:
        KeysError: The key cannot be used now.
    """
    return _WRITER.encode(
        claims.encode(),
        cast("Any", key),  # `_Kept` takes it
        algorithm=key.algorithm.value,
        headers={"kid": key.kid, "typ": TYPE},
    )
