"""`trust` and `identity`: issuers and trust domains whose credentials are believed."""

import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from authz.config.addresses import socket_path
from authz.config.document import Path
from authz.config.findings import Finding
from authz.config.sections.sources import (
    Refresh,
    TrustSource,
    fetched_findings,
    file_findings,
    interval_findings,
    several_sources,
    web_findings,
)
from authz.config.types import TRUST_DOMAIN, Address, Duration, FilePath, Strict, Text

__all__ = [
    "ALGORITHMS",
    "BundleProfile",
    "BundleSource",
    "Identity",
    "Issuer",
    "KeySource",
    "SubjectKind",
    "SubjectProfile",
    "Trust",
    "TrustDomain",
    "algorithm_findings",
    "trust_findings",
]

ALGORITHMS: Final = (
    "RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA".split()  # noqa: SIM905 - read as a line
)
"""Accepted signature algorithms: asymmetric ones alone."""
_SPIFFE_ID: Final = re.compile(
    r"spiffe://([a-z0-9._-]{1,255})(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+)+"
)
_ALIAS: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class KeySource(TrustSource):
    """A source of the keys of an issuer. Default: OpenID Connect discovery."""

    discovery: bool | None = None
    """Find the keys by `<issuer>/.well-known/openid-configuration`, whose `issuer` must be exactly this one."""


class BundleProfile(StrEnum):
    """Way in which a bundle endpoint proves its identity."""

    HTTPS_WEB = "https_web"
    HTTPS_SPIFFE = "https_spiffe"


class BundleSource(TrustSource):
    """The source of a trust domain's bundle: one of `file`, `url`, `workload_api`."""

    profile: BundleProfile = BundleProfile.HTTPS_WEB
    """Way in which the endpoint at `url` proves its identity: a certificate of the web, or an X.509-SVID."""
    endpoint_spiffe_id: Text | None = None
    """SPIFFE ID of the endpoint, with `https_spiffe`. It is verified by the bundle of its own trust domain."""
    bootstrap_file: FilePath | None = None
    """Bundle by which the first fetch is verified, with `https_spiffe` and an endpoint of this very domain."""
    workload_api: Address | None = None
    """Socket of the SPIFFE Workload API, `unix:///path`; needs the extra `workload`."""
    sequence_epoch: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Raise it by one if the publisher started to count `spiffe_sequence` anew: lower numbers are then accepted once more."""


class TrustDomain(Strict):
    """One SPIFFE trust domain."""

    bundle: BundleSource
    """Its SPIFFE bundle (JWKS with `use`); an empty one makes the whole domain invalid."""


class SubjectKind(StrEnum):
    """Kind of the subjects of an issuer."""

    USER = "user"
    SERVICE = "service"


class SubjectProfile(StrEnum):
    """Kind of an issuer's tokens."""

    JWT = "jwt"
    ACCESS_TOKEN = "access_token"  # noqa: S105 (a name, no secret)


class Issuer(Strict):
    """An issuer of subject tokens: of the people and services on whose behalf agents act.

    A token with `may_act` is accepted only from the agent whose SPIFFE ID is its `sub`, its only member. A token with `act` is refused.
    """

    issuer: Text
    """The exact `iss` of its tokens."""
    audience: tuple[Text, ...] = Field(default=(), max_length=16)
    """Accepted audiences: a token must have one of them; required."""
    alone_audience: tuple[Text, ...] = Field(default=(), max_length=16)
    """Audiences of tokens that only the subject itself holds, never an agent or a tool server. A subject that shows such a token without
    an agent is alone: its prompt counts as the user's word, and it reads and ends its own tasks. Beside an agent the token is refused.
    No value may also be in `audience` or in `identity.audiences`.
    """
    alone_bound: bool = False
    """The issuer binds tokens (`cnf`) only to keys of the subjects themselves, and never to a key of an agent. A subject that
    shows such a token and proves its key, without an agent, is alone."""
    algorithms: tuple[Text, ...] = Field(default=(), max_length=16)
    """Accepted signature algorithms, such as ES256; required."""
    jwks: KeySource = KeySource()
    """Keys of the issuer. Default: OpenID Connect discovery."""
    subject: SubjectKind = SubjectKind.USER
    """Kind of its subjects."""
    claims: tuple[Text, ...] = Field(default=(), max_length=32)
    """Claims that the bundle may read."""
    profile: SubjectProfile = SubjectProfile.JWT
    """Kind of its tokens: OAuth access tokens (RFC 9068, `typ: at+jwt`), or other JWTs such as ID tokens. A token of one kind is not accepted
    as the other.
    """
    typ: tuple[Text, ...] | None = Field(default=None, max_length=8)
    """Accepted `typ` headers under the profile `jwt`. Default: JWT, or absent."""


class Trust(Strict):
    """Issuers and trust domains whose credentials are accepted."""

    domains: dict[str, TrustDomain] = Field(default_factory=dict, max_length=1000)
    """SPIFFE trust domains, by name."""
    issuers: dict[str, Issuer] = Field(default_factory=dict, max_length=1000)
    """Issuers of subject tokens, by the alias that bundles use."""
    leeway: Annotated[Duration, Field(ge=0, le=60)] = 5.0
    """Greatest accepted difference of clocks: those of issuers and, with `state.engine: postgresql`, the node's and the database's (at least
    1s). Beyond it, the node denies and is not ready.
    """
    max_lifetime: Annotated[Duration, Field(gt=0)] | None = None
    """Tokens with a longer lifetime are refused. Default: no limit."""
    refresh: Refresh = Refresh()
    """Intervals of the fetches of keys. A source may have its own."""


class Identity(Strict):
    """Names of this node in credentials that are sent to it."""

    audiences: tuple[Text, ...] = Field(default=(), max_length=16)
    """Accepted audiences of JWT-SVIDs: this node's own names."""


def trust_findings(trust: Trust, identity: Identity) -> Iterator[Finding]:
    """Yield errors of `trust` that the types cannot express."""
    for name in trust.domains:
        if not TRUST_DOMAIN.fullmatch(name):
            yield Finding(
                ("trust", "domains", name),
                f"`{name}` is not a SPIFFE trust domain.",
                "Use lower-case letters, digits, dots, dashes and underscores, without `spiffe://`.",
            )
    yield from interval_findings(("trust", "refresh"), "`trust.refresh`", trust.refresh)
    for name, domain in trust.domains.items():
        yield from _bundle(("trust", "domains", name, "bundle"), name, domain.bundle, trust)
    if trust.domains and not identity.audiences:
        yield Finding(
            ("trust", "domains"),
            "trust domains are configured, but `identity.audiences` is empty: every JWT-SVID would be refused.",
            "Add the audience that agents ask for: `identity: {audiences: [...]}`.",
        )
    seen: dict[str, str] = {}
    for alias, issuer in trust.issuers.items():
        if not _ALIAS.fullmatch(alias):
            yield Finding(
                ("trust", "issuers", alias),
                f"`{alias}` is not a valid alias of an issuer.",
                "Use letters, digits, dots, dashes and underscores.",
            )
        yield from _issuer(("trust", "issuers", alias), alias, issuer)
        yield from _alone(("trust", "issuers", alias), alias, issuer, identity)
        yield from _keys(("trust", "issuers", alias), alias, issuer, trust.refresh)
        if issuer.issuer in seen:
            yield Finding(
                ("trust", "issuers", alias, "issuer"),
                f"issuers `{seen[issuer.issuer]}` and `{alias}` have the same `iss`.",
                "Keep one: which profile counts would be chance.",
            )
        seen[issuer.issuer] = alias


def _issuer(path: Path, alias: str, issuer: Issuer) -> Iterator[Finding]:
    if not issuer.audience:
        yield Finding(
            path,
            f"issuer `{alias}` has no audience. A token for any service would be accepted.",
            "Add audience: [...].",
        )
    if not issuer.algorithms:
        yield Finding(
            path,
            f"issuer `{alias}` has no algorithms. The token itself would choose.",
            "Add algorithms: [ES256], or the algorithms that the issuer signs with.",
        )
    yield from algorithm_findings(path, issuer.algorithms)


def algorithm_findings(path: Path, algorithms: Sequence[str]) -> Iterator[Finding]:
    """Find names that are not of accepted signature algorithms.

    Args:
        path: Place of the section that has `algorithms`.
        algorithms: The names.
    """
    for index, algorithm in enumerate(algorithms):
        if algorithm not in ALGORITHMS:
            yield Finding(
                (*path, "algorithms", index),
                f"`{algorithm}` is not an accepted signature algorithm.",
                f"Use one of {', '.join(ALGORITHMS)}.",
            )


def _alone(path: Path, alias: str, issuer: Issuer, identity: Identity) -> Iterator[Finding]:
    """Yield audiences of subjects' own tokens for which agents get tokens, too."""
    shared = {*issuer.audience, *identity.audiences}
    for index, audience in enumerate(issuer.alone_audience):
        if audience in shared:
            yield Finding(
                (*path, "alone_audience", index),
                f"`{audience}` of issuer `{alias}` is an audience of tokens that agents hold too. An agent could show such a "
                "token as if it were the user.",
                "Give an audience that no agent and no tool server gets tokens for.",
            )


def _keys(path: Path, alias: str, issuer: Issuer, refresh: Refresh) -> Iterator[Finding]:
    source = issuer.jwks
    path, of = (*path, "jwks"), f"issuer `{alias}`"
    given = [key for key in ("file", "url") if getattr(source, key) is not None]
    if source.discovery:
        given.append("discovery")
    if len(given) > 1:
        yield several_sources(path, of, given)
    elif not given and source.discovery is False:
        yield Finding(
            path,
            f"{of} has no keys: every token of this issuer would be refused.",
            "Give file, url or discovery: true.",
        )
    elif given == ["file"]:
        yield from file_findings(path, of, source)
    elif given == ["url"]:
        yield from fetched_findings(path, of, source, refresh)
    else:
        yield from fetched_findings(path, of, source, refresh, issuer.issuer)


def _bundle(path: Path, name: str, source: BundleSource, trust: Trust) -> Iterator[Finding]:
    of = f"trust domain `{name}`"
    ways = ("file", "url", "workload_api")
    given = [key for key in ways if getattr(source, key) is not None]
    if len(given) > 1:
        yield several_sources(path, of, given)
        return
    if not given:
        yield Finding(
            path,
            f"{of} has no bundle: every credential of this domain would be refused.",
            "Give one of file, url, workload_api.",
        )
        return
    if given != ["url"]:
        spiffe = source.profile is not BundleProfile.HTTPS_WEB
        for key in ("endpoint_spiffe_id", "bootstrap_file", *(("profile",) if spiffe else ())):
            if getattr(source, key) is not None:
                yield Finding(
                    (*path, key),
                    f"{of} has `{key}`, and no endpoint at a url.",
                    f"Remove {key}, or give url.",
                )
    if given == ["file"]:
        yield from file_findings(path, of, source)
    elif given == ["workload_api"]:
        yield from web_findings(path, of, source, "the Workload API")
        yield from interval_findings((*path, "refresh"), of, source.refresh.over(trust.refresh))
        if socket_path(source.workload_api or "") is None:
            yield Finding(
                (*path, "workload_api"),
                f"the Workload API of {of} is not a unix socket: nothing proves who answers.",
                "Use `unix:///path`.",
            )
    else:
        yield from fetched_findings(path, of, source, trust.refresh)
        yield from _endpoint(path, name, source, trust)


def _endpoint(path: Path, name: str, source: BundleSource, trust: Trust) -> Iterator[Finding]:
    of = f"trust domain `{name}`"
    if source.profile is BundleProfile.HTTPS_WEB:
        for key in ("endpoint_spiffe_id", "bootstrap_file"):
            if getattr(source, key) is not None:
                yield Finding(
                    (*path, key),
                    f"{of} has `{key}`, which the profile `https_web` does not look at.",
                    f"Write profile: https_spiffe, or remove {key}.",
                )
        return
    for key in ("ca_file", "insecure_dev"):
        if getattr(source, key):
            yield Finding(
                (*path, key),
                f"{of} has `{key}`, which the profile `https_spiffe` does not look at.",
                f"Remove {key}: the endpoint shows an X.509-SVID.",
            )
    if source.endpoint_spiffe_id is not None:
        yield from _endpoint_id(path, name, source, source.endpoint_spiffe_id, trust)
        return
    yield Finding(
        path,
        f"{of} has the profile `https_spiffe` without `endpoint_spiffe_id`. "
        "Any workload could give the bundle.",
        "Add endpoint_spiffe_id, for example spiffe://example.org/spire/server.",
    )


def _endpoint_id(
    path: Path, name: str, source: BundleSource, endpoint: str, trust: Trust
) -> Iterator[Finding]:
    of = f"trust domain `{name}`"
    spiffe_id = _SPIFFE_ID.fullmatch(endpoint)
    if spiffe_id is None:
        yield Finding(
            (*path, "endpoint_spiffe_id"),
            f"`{endpoint}` is not the SPIFFE ID of a workload.",
            "Write spiffe://<trust domain>/<path>.",
        )
    elif spiffe_id[1] == name:
        if source.bootstrap_file is None:
            yield Finding(
                path,
                f"{of} gives its bundle itself, and has no `bootstrap_file`. Nothing would verify the first fetch.",
                "Add bootstrap_file: a copy of its bundle that came another way.",
            )
    elif spiffe_id[1] not in trust.domains:
        yield Finding(
            (*path, "endpoint_spiffe_id"),
            f"the endpoint of {of} is of the trust domain `{spiffe_id[1]}`, which is not trusted.",
            f"Add it under trust.domains, or name an endpoint of `{name}`.",
        )
    elif source.bootstrap_file is not None:
        yield Finding(
            (*path, "bootstrap_file"),
            f"the endpoint of {of} is verified by the bundle of `{spiffe_id[1]}`, not by `bootstrap_file`.",
            "Remove bootstrap_file.",
        )
