"""`credentials`: task credentials that this node issues."""

from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from authz.config.document import Path  # noqa: TC001 - beside models, annotations are read
from authz.config.findings import Finding
from authz.config.sections.brokers import Broker, StaticSecret, broker_findings
from authz.config.sections.trust import Identity, Trust
from authz.config.types import SYSTEM_ID, Duration, FilePath, Strict, Text
from authz.config.urls import url_defect

__all__ = [
    "Credentials",
    "Dpop",
    "Lifetimes",
    "Pkcs11",
    "SigningAlgorithm",
    "SigningKeys",
    "credential_findings",
]


class SigningAlgorithm(StrEnum):
    """Signature algorithm of task credentials."""

    ES256 = "ES256"
    EDDSA = "EdDSA"


class Lifetimes(Strict):
    """Longest lifetime of a task credential, by the tier of the permitted operation."""

    low: Annotated[Duration, Field(ge=1, le=86_400)] = 900.0
    """Tier low."""
    standard: Annotated[Duration, Field(ge=1, le=86_400)] = 300.0
    """Tier standard."""
    high: Annotated[Duration, Field(ge=1, le=86_400)] = 120.0
    """Tier high."""
    critical: Annotated[Duration, Field(ge=1, le=86_400)] = 60.0
    """Tier critical."""


class Pkcs11(Strict):
    """A PKCS#11 token, such as an HSM, that keeps the private keys; needs the extra `pkcs11`."""

    module: FilePath
    """The vendor's library."""
    token_label: Text
    """Label of the token."""
    pin_file: FilePath
    """File with the user's PIN; nobody but its owner may read it."""
    key_label: Text = "authz"
    """Label of this node's keys in the token; keys with other labels are left alone."""


class SigningKeys(Strict):
    """The keys of this node that sign task credentials."""

    folder: FilePath | None = None
    """Folder of private keys, one PEM file each (PKCS#8), mode 0700 with files of 0600. Default: `keys` beside the audit file. Each node
    has its own.
    """
    algorithm: SigningAlgorithm = SigningAlgorithm.ES256
    """Algorithm of new keys."""
    generate: bool = True
    """Make keys when there is none, and for rotation. False: only keys that the operator puts there are used."""
    rotation: Annotated[Duration, Field(ge=60, le=31_622_400)] = 86_400.0
    """Time for which a key signs before the next one does."""
    jwks_max_age: Annotated[Duration, Field(ge=1, le=86_400)] = 300.0
    """Time for which others may cache the JWKS. A new key is published so long before it signs."""
    pkcs11: Pkcs11 | None = None
    """Keep the keys in a PKCS#11 token instead of a folder."""


class Dpop(Strict):
    """Proofs of possession by DPoP (RFC 9449)."""

    window: Annotated[Duration, Field(ge=1, le=600)] = 60.0
    """Greatest difference between `iat` of a proof and the node's clock."""
    max_proofs_per_key: int = Field(default=4096, ge=1, le=10_000)
    """Most proofs of one key that are remembered, so that none is used twice. One more: OVERLOADED."""
    require_nonce: bool = False
    """Each proof must carry a nonce of Authz. Otherwise only proofs do that are older than the start of the node and, with
    `state.engine: memory`, those dated ahead of the node's clock.
    """


class Credentials(Strict):
    """Task credentials: short-lived tokens that exist because of one permit, and end with their task."""

    issuer: Text
    """`iss` of the credentials: an https URL without query or fragment, at which others find `listeners.http`."""
    audiences: dict[str, Text] = Field(default_factory=dict, max_length=10_000)
    """`aud` of a credential for each system. Default: the system's id."""
    lifetime: Lifetimes = Lifetimes()
    """Longest lifetime of a credential. The task's deadline may end it earlier."""
    keys: SigningKeys = SigningKeys()
    """Signing keys."""
    dpop: Dpop = Dpop()
    """Proofs of possession by DPoP."""
    brokers: dict[str, Broker] = Field(default_factory=dict, max_length=64)
    """Brokers that make secrets for systems that accept no tokens, one for each lease."""
    static_secrets: dict[str, StaticSecret] = Field(default_factory=dict, max_length=64)
    """Static secrets of systems that accept no tokens. Requests get them on permit, agents never."""

    def engine_settings(self) -> dict[str, Any]:
        """Return the engine's settings of task credentials, but for the static secrets."""
        lifetime, dpop = self.lifetime, self.dpop
        return {
            "issuer": self.issuer,
            "audiences": dict(self.audiences),
            "lifetime": {
                "low": round(lifetime.low),
                "standard": round(lifetime.standard),
                "high": round(lifetime.high),
                "critical": round(lifetime.critical),
            },
            "dpop": {
                "window": round(dpop.window),
                "max_proofs_per_key": dpop.max_proofs_per_key,
                "require_nonce": dpop.require_nonce,
            },
            "leases": {
                system: name for name, broker in self.brokers.items() for system in broker.systems
            },
        }


def credential_findings(
    credentials: Credentials, trust: Trust, identity: Identity
) -> Iterator[Finding]:
    """Yield errors of `credentials` that the types cannot express."""
    issuer, path = credentials.issuer, ("credentials", "issuer")
    defect = url_defect(issuer)
    if defect is None and "?" in issuer:
        defect = "has a query"
    if defect is None and issuer.endswith("/"):
        defect = "ends in a slash"
    if defect is not None:
        yield Finding(
            path, f"the issuer of task credentials {defect}.", "Use https://authz.example."
        )
    for alias, other in trust.issuers.items():
        if other.issuer == issuer:
            yield Finding(
                path,
                f"issuer `{alias}` has the same `iss` as our own credentials. Which profile counts would be chance.",
                "Give our own another URL.",
            )
    if not trust.domains:
        yield Finding(
            ("credentials",),
            "credentials are configured, but no trust domain: no agent could be given one.",
            "Add trust.domains.",
        )
    yield from _audiences(credentials.audiences, identity.audiences)
    yield from broker_findings(("credentials",), credentials.brokers, credentials.static_secrets)
    keys = credentials.keys
    if keys.pkcs11 is not None and keys.folder is not None:
        yield Finding(
            ("credentials", "keys", "folder"),
            "signing keys have `folder` and `pkcs11`: which of them sign would be chance.",
            "Keep one.",
        )
    if keys.rotation <= 2 * keys.jwks_max_age:
        yield Finding(
            ("credentials", "keys", "rotation"),
            "`rotation` is not longer than twice `jwks_max_age`: a key would have to be published before the one before it signs.",
            "Give a longer rotation, or a shorter jwks_max_age.",
        )


def _audiences(audiences: Mapping[str, str], own: Collection[str]) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for system, audience in audiences.items():
        path: Path = ("credentials", "audiences", system)
        if not SYSTEM_ID.fullmatch(system):
            yield Finding(
                path, f"`{system}` is not the id of a system.", "Write it as the catalog does."
            )
        elif audience in own:
            yield Finding(
                path,
                f"the audience of `{system}` is one of our own (`identity.audiences`). "
                "Its credentials would pass for evidence that is meant for us.",
                "Give the system another audience.",
            )
        elif audience in seen:
            yield Finding(
                path,
                f"systems `{seen[audience]}` and `{system}` have one audience. One would take the other's credentials.",
                "Give each its own.",
            )
        seen.setdefault(audience, system)
