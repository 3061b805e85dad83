"""`shared_signals`: identity providers whose security events end tasks (OpenID Shared Signals Framework, CAEP)."""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from authz.config.document import Path
from authz.config.findings import Finding
from authz.config.sections.listeners import Listeners
from authz.config.sections.sources import (
    TrustSource,
    fetched_findings,
    file_findings,
    several_sources,
)
from authz.config.sections.trust import Issuer, Trust, algorithm_findings
from authz.config.types import ENTRY_NAME, Duration, FilePath, Strict, Text

__all__ = [
    "SharedSignals",
    "SignalAction",
    "SignalActions",
    "Transmitter",
    "shared_signal_findings",
]

_YEAR: Final = 31_622_400.0


class SignalAction(StrEnum):
    """Reaction to a security event."""

    END = "end"
    RECORD = "record"


class SignalActions(Strict):
    """Reactions to events, by what they tell. `end` refuses the subject's tokens up to the event and ends its tasks; `record` writes an audit record."""

    session_revoked: SignalAction = SignalAction.END
    """`session-revoked`."""
    credential_revoked: SignalAction = SignalAction.END
    """`credential-change` whose `change_type` is `revoke` or `delete`."""
    credential_changed: SignalAction = SignalAction.RECORD
    """`credential-change` whose `change_type` is `create` or `update`."""
    token_claims_changed: SignalAction = SignalAction.END
    """`token-claims-change`, unless Authz reads none of the changed claims, which is always recorded only."""
    device_not_compliant: SignalAction = SignalAction.END
    """`device-compliance-change` to `not-compliant`. Back to `compliant` is always recorded only."""
    assurance_decreased: SignalAction = SignalAction.END
    """`assurance-level-change`, unless its `change_direction` is `increase`, which is always recorded only."""


class Transmitter(Strict):
    """An identity provider that pushes security events (RFC 8935) to `/shared-signals/NAME` of the listener `http`."""

    issuer: Text
    """The exact `iss` of its event tokens."""
    audience: tuple[Text, ...] = Field(default=(), max_length=16)
    """Accepted audiences: an event token must have one of them; required."""
    algorithms: tuple[Text, ...] = Field(default=(), max_length=16)
    """Accepted signature algorithms, such as RS256; required."""
    jwks: TrustSource = TrustSource()
    """Keys of its event tokens: `file` or `url`; required."""
    authorization_file: FilePath | None = None
    """File with the value of the `authorization` header that it sends, for example `Bearer …`. Only its owner may read it, or root's
    group; required."""
    subjects: tuple[Text, ...] = Field(default=(), max_length=64)
    """Aliases of the issuers of `trust.issuers` about whose subjects it may speak; required."""
    email_claim: Text | None = None
    """Claim of the subjects' tokens that holds their email address, for events that name a subject by email. It must be in `claims` of
    each issuer. Default: such events are ignored."""
    on: SignalActions = SignalActions()
    """Reactions to events."""
    max_age: Annotated[Duration, Field(ge=60, le=_YEAR)] = 604_800.0
    """Greatest age of an event token, by its `iat`. An older one is refused."""
    verification_within: Annotated[Duration, Field(ge=60, le=_YEAR)] | None = None
    """Time within which the transmitter sends a verification event. Later, `authz_security_verification_overdue` is 1. Default: none is
    expected."""
    rate: Annotated[float, Field(ge=0.1, le=1_000)] = 10.0
    """Event tokens a second, on average. More: 429."""
    burst: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Event tokens at once."""


class SharedSignals(Strict):
    """Identity providers whose security events end tasks."""

    transmitters: dict[str, Transmitter] = Field(default_factory=dict, max_length=32)
    """Transmitters of events, by name."""
    token_lifetime: Annotated[Duration, Field(ge=60, le=_YEAR)] | None = None
    """Longest lifetime of a subject's token. For so long after an event, earlier tokens are refused. Default: `trust.max_lifetime`, or
    366 days if there is none."""

    def kept(self, trust: Trust) -> float:
        """Return the seconds for which tokens from before an event are refused."""
        return self.token_lifetime or trust.max_lifetime or _YEAR


def shared_signal_findings(
    signals: SharedSignals, trust: Trust, listeners: Listeners
) -> Iterator[Finding]:
    """Yield errors of `shared_signals` that the types cannot express."""
    if signals.transmitters and listeners.http is None:
        yield Finding(
            ("shared_signals",),
            "`shared_signals` needs the listener `http`: no transmitter could reach this node.",
            "Add listeners: {http: {address: ..., tls: ...}}.",
        )
    longest = trust.max_lifetime
    if signals.token_lifetime is not None and longest and signals.token_lifetime < longest:
        yield Finding(
            ("shared_signals", "token_lifetime"),
            f"`shared_signals.token_lifetime` is {signals.token_lifetime:g} s, shorter than `trust.max_lifetime` ({longest:g} s): "
            "tokens from before an event would count again.",
            "Remove token_lifetime, or lengthen it.",
        )
    for name, transmitter in signals.transmitters.items():
        path: Path = ("shared_signals", "transmitters", name)
        if ENTRY_NAME.fullmatch(name) is None:
            yield Finding(
                path,
                f"`{name}` is not a name of a transmitter.",
                "Use lower-case letters, digits, `-` and `_`.",
            )
        yield from _transmitter(path, name, transmitter, trust)


def _transmitter(
    path: Path, name: str, transmitter: Transmitter, trust: Trust
) -> Iterator[Finding]:
    of = f"transmitter `{name}`"
    if not transmitter.audience:
        yield Finding(
            path,
            f"{of} has no audience: an event for another receiver would count here.",
            "Add audience: [...], the `aud` of this receiver at the transmitter.",
        )
    if transmitter.authorization_file is None:
        yield Finding(
            path,
            f"{of} has no `authorization_file`: anybody could send event tokens to be verified.",
            "Add authorization_file: a file with the value of the `authorization` header that the transmitter sends.",
        )
    if not transmitter.algorithms:
        yield Finding(
            path,
            f"{of} has no algorithms. The token itself would choose.",
            "Add algorithms: [RS256], or the algorithms that the transmitter signs with.",
        )
    yield from algorithm_findings(path, transmitter.algorithms)
    yield from _keys(path, of, transmitter, trust)
    yield from _subjects(path, of, transmitter, trust.issuers)


def _keys(path: Path, of: str, transmitter: Transmitter, trust: Trust) -> Iterator[Finding]:
    source, path = transmitter.jwks, (*path, "jwks")
    given = [key for key in ("file", "url") if getattr(source, key) is not None]
    if len(given) > 1:
        yield several_sources(path, of, given)
    elif not given:
        yield Finding(path, f"{of} has no keys: every event would be refused.", "Give file or url.")
    elif given == ["file"]:
        yield from file_findings(path, of, source)
    else:
        yield from fetched_findings(path, of, source, trust.refresh)


def _subjects(
    path: Path, of: str, transmitter: Transmitter, issuers: Mapping[str, Issuer]
) -> Iterator[Finding]:
    if not transmitter.subjects:
        yield Finding(
            path,
            f"{of} has no subjects: its events would concern nobody.",
            "Add subjects: [...], aliases of the issuers about whose subjects it may speak.",
        )
    for index, alias in enumerate(transmitter.subjects):
        issuer = issuers.get(alias)
        if issuer is None:
            yield Finding(
                (*path, "subjects", index),
                f"`{alias}` is not an issuer of `trust.issuers`.",
                f"Name one of {', '.join(sorted(issuers)) or 'them, after adding it there'}.",
            )
        elif transmitter.email_claim is not None and transmitter.email_claim not in issuer.claims:
            yield Finding(
                (*path, "email_claim"),
                f"`{transmitter.email_claim}` is not one of the `claims` of issuer `{alias}`: no token would match an event.",
                f"Add it to trust.issuers.{alias}.claims.",
            )
