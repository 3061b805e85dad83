"""Reads JWKS and SPIFFE bundle files into one specification, which the engine compiles."""

import json
import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from authz.config import Config
from authz.errors import TrustError
from authz.model import Diagnostic

__all__ = ["TrustFiles", "read_trust"]

_MAX_BYTES: Final = 1_048_576


@dataclass(frozen=True, slots=True)
class TrustFiles:
    """Trust sources as they stood when they were read."""

    spec: bytes
    """What the engine compiles."""
    paths: tuple[Path, ...]
    """Every file that was read, to be watched."""


def read_trust(config: Config) -> TrustFiles:
    """Read every trust source.

    Args:
        config: Where they are.

    Returns:
        The specification.

    Raises:
        TrustError: A file cannot be read; with every such file.
    """
    defects: list[Diagnostic] = []
    paths: list[Path] = []

    def read(file: str, of: str) -> str:
        path = Path(file)
        paths.append(path)
        try:
            return _read(path)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            mend = "Without keys every token of it is refused; check the path."
            defects.append(
                Diagnostic(f"the keys of {of} cannot be read: {reason}.", file, mend=mend)
            )
            return ""

    trust = config.trust
    domains = {
        name: {
            "bundle": read(domain.bundle.file, f"trust domain `{name}`"),
            "from": domain.bundle.file,
        }
        for name, domain in trust.domains.items()
    }
    issuers: dict[str, dict[str, Any]] = {
        alias: {
            "issuer": issuer.issuer,
            "audience": list(issuer.audience),
            "algorithms": list(issuer.algorithms),
            "jwks": read(issuer.jwks.file, f"issuer `{alias}`"),
            "from": issuer.jwks.file,
            "subject": issuer.subject.value,
            "profile": issuer.profile.value,
            "claims": list(issuer.claims),
            **({"typ": list(issuer.typ)} if issuer.typ is not None else {}),
        }
        for alias, issuer in trust.issuers.items()
    }
    if defects:
        raise TrustError(tuple(defects))
    spec = {
        "audiences": list(config.identity.audiences),
        "leeway_seconds": math.ceil(trust.leeway),
        "max_token_bytes": config.limits.max_token_bytes,
        "max_lifetime_seconds": math.floor(trust.max_lifetime) if trust.max_lifetime else None,
        "domains": domains,
        "issuers": issuers,
    }
    return TrustFiles(json.dumps(spec, sort_keys=True).encode(), tuple(paths))


def _read(path: Path) -> str:
    # Opened without waiting, so that a named pipe cannot hold the start.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            message = "not a regular file"
            raise ValueError(message)
        content = stream.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        message = "larger than 1 MiB"
        raise ValueError(message)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        message = "not UTF-8"
        raise ValueError(message) from error
