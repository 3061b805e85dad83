"""Trust sources: their specification for the engine, and those that are files."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from authz.config import BundleSource, Config
from authz.config.urls import shown
from authz.errors import TrustError
from authz.files import read_trusted, reason_of
from authz.model import Diagnostic

__all__ = [
    "SourceKey",
    "place_of",
    "read_document",
    "read_trust",
    "trust_spec",
    "withdrawn",
]

_MAX_BYTES: Final = 1_048_576
_NO_KEYS: Final = '{"keys":[]}'
_NEVER: Final = (1 << 63) - 1


_NO_SEQUENCES: Final[Mapping[str, int]] = MappingProxyType({})


class SourceKey(NamedTuple):
    """Identity of a source."""

    kind: str
    """`domain`, `issuer` or `guard` for keys, or `recipient_list`."""
    name: str
    """Trust domain, alias of the issuer, or name of the guard or recipient list."""
    of: str = ""
    """Distinguishes recipient lists that had the name one after the other."""

    def __str__(self) -> str:
        """Return the source as it stands in messages."""
        return f"{'trust domain' if self.kind == 'domain' else self.kind} `{self.name}`"


def read_trust(config: Config) -> dict[SourceKey, str]:
    """Read every trust source that is a file, and return their contents.

    Raises:
        TrustError: Files cannot be read; it names each of them.
    """
    errors: list[Diagnostic] = []
    documents: dict[SourceKey, str] = {}
    files = {
        **{SourceKey("domain", n): d.bundle.file for n, d in config.trust.domains.items()},
        **{SourceKey("issuer", n): i.jwks.file for n, i in config.trust.issuers.items()},
        **{SourceKey("guard", n): guard.keys for n, guard in config.guards.items()},
    }
    paths = {key: file for key, file in files.items() if file is not None}
    for key, file in paths.items():
        try:
            documents[key] = read_document(file)
        except (OSError, ValueError) as error:
            what = f"the keys of {key} cannot be read: {reason_of(error)}."
            fix = "Without keys, every token of this source is refused; check the path."
            errors.append(Diagnostic(what, file, fix=fix))
    if errors:
        raise TrustError(tuple(errors))
    return documents


def trust_spec(
    config: Config,
    documents: Mapping[SourceKey, str],
    own: str | None = None,
    sequences: Mapping[str, int] | None = _NO_SEQUENCES,
) -> bytes:
    """Return the trust sources as the engine's JSON.

    Args:
        config: The configuration.
        documents: The keys of each source. A source that is missing has none.
        own: JWKS of this node's task credentials. `None`: none are issued.
        sequences: Least `spiffe_sequence` of the bundle of each trust domain. A missing domain may have any. `None`: not known yet, so
            that no bundle with a sequence is accepted.
    """
    trust = config.trust
    domains = {
        name: {
            "bundle": documents.get(SourceKey("domain", name), _NO_KEYS),
            "from": place_of(config, SourceKey("domain", name)),
            **_least(sequences, name, domain.bundle),
        }
        for name, domain in trust.domains.items()
    }
    issuers: dict[str, dict[str, Any]] = {
        alias: {
            "issuer": issuer.issuer,
            "audience": list(issuer.audience),
            "alone_audience": list(issuer.alone_audience),
            "alone_bound": issuer.alone_bound,
            "algorithms": list(issuer.algorithms),
            "jwks": documents.get(SourceKey("issuer", alias), _NO_KEYS),
            "from": place_of(config, SourceKey("issuer", alias)),
            "subject": issuer.subject.value,
            "profile": issuer.profile.value,
            "claims": list(issuer.claims),
            **({"typ": list(issuer.typ)} if issuer.typ is not None else {}),
        }
        for alias, issuer in trust.issuers.items()
    }
    spec: dict[str, Any] = {
        "audiences": list(config.identity.audiences),
        "leeway_seconds": math.ceil(trust.leeway),
        "max_token_bytes": config.limits.max_token_bytes,
        "max_lifetime_seconds": math.floor(trust.max_lifetime) if trust.max_lifetime else None,
        "domains": domains,
        "issuers": issuers,
    }
    if config.guards:
        spec["guards"] = {
            name: {
                "keys": documents.get(SourceKey("guard", name), _NO_KEYS),
                "from": str(guard.keys),
            }
            for name, guard in config.guards.items()
        }
    if config.credentials is not None and own is not None:
        spec["own"] = {"issuer": config.credentials.issuer, "keys": own}
    return json.dumps(spec, sort_keys=True).encode()


def _least(sequences: Mapping[str, int] | None, name: str, bundle: BundleSource) -> dict[str, int]:
    if sequences is None:
        return {} if bundle.workload_api is not None else {"min_sequence": _NEVER}
    return {"min_sequence": sequences[name]} if name in sequences else {}


def place_of(config: Config, key: SourceKey) -> str:
    """Return the file, socket or URL (without query) of a source, for messages."""
    if key.kind == "domain":
        bundle = config.trust.domains[key.name].bundle
        return bundle.file or bundle.workload_api or shown(bundle.url or "")
    issuer = config.trust.issuers[key.name]
    return issuer.jwks.file or shown(issuer.jwks.url or discovery_url(issuer.issuer))


def discovery_url(issuer: str) -> str:
    """Return the URL at which an issuer describes itself (OpenID Connect Discovery §4)."""
    return issuer.removesuffix("/") + "/.well-known/openid-configuration"


def withdrawn(document: str) -> str:
    """Return an empty key set that takes the place of keys that are too old.

    It has their `spiffe_sequence`, so that an earlier bundle cannot follow.
    """
    try:
        sequence = json.loads(document).get("spiffe_sequence")
    except (ValueError, RecursionError, AttributeError):
        sequence = None
    kept = {"spiffe_sequence": sequence} if isinstance(sequence, int) else {}
    return json.dumps({"keys": [], **kept})


def read_document(path: str | Path) -> str:
    """Read a trust source that is a file.

    Raises:
        OSError: The file cannot be read, or everybody could replace it.
        ValueError: The path is not a regular file, is larger than 1 MiB, or is not UTF-8.
    """
    content = read_trusted(path, _MAX_BYTES)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        message = "not UTF-8"
        raise ValueError(message) from error
