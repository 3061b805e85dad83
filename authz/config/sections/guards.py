"""`guards`: programs whose signed confidence in a call is believed."""

from collections.abc import Iterator, Mapping

from authz.config.findings import Finding
from authz.config.sections.trust import Identity
from authz.config.types import FilePath, Strict

__all__ = ["Guard", "guard_findings"]


class Guard(Strict):
    """A guard: a program that looks at calls, and signs how confident it is that a call is meant."""

    keys: FilePath
    """File with its public keys: a JWK set (RFC 7517). They sign with ES256 or EdDSA. Read at the start and at each reload."""


def guard_findings(guards: Mapping[str, Guard], identity: Identity) -> Iterator[Finding]:
    """Yield an error if no statement of a guard could name this node."""
    if guards and not identity.audiences:
        yield Finding(
            ("guards",),
            "`guards` needs `identity.audiences`: without it no statement of a guard is meant for this node.",
            "Add the `aud` values that name this node: a statement of a guard has one of them.",
        )
