"""Signing keys of task credentials.

`keys` is the interface of a key store; `folder` and `pkcs11` are two of them. `ring` decides which key signs, is published, or is removed,
and `mint` signs the claims of a credential.
"""

from pathlib import Path

from authz.config import Config
from authz.signing.folder import FolderKeys
from authz.signing.keys import KeyPlace, SigningKey
from authz.signing.mint import mint
from authz.signing.pkcs11 import TokenKeys
from authz.signing.ring import KeyRecord, KeyRecords, KeyRing, PublishedRing

__all__ = [
    "FolderKeys",
    "KeyPlace",
    "KeyRecord",
    "KeyRecords",
    "KeyRing",
    "PublishedRing",
    "SigningKey",
    "TokenKeys",
    "key_place",
    "mint",
]


def key_place(config: Config) -> KeyPlace:
    """Open the configured store of this node's signing keys.

    Raises:
        KeysError: The store cannot be opened, or others could read it.
    """
    assert config.credentials is not None  # noqa: S101 - asked only where there are some
    keys = config.credentials.keys
    if keys.pkcs11 is not None:
        return TokenKeys(keys.pkcs11)
    beside = Path(config.audit.path or "audit.jsonl").parent / "keys"
    return FolderKeys(Path(keys.folder) if keys.folder is not None else beside)
