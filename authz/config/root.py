"""The whole configuration: its sections, its published schema, and the rules of all sections."""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from authz.config.descriptions import describe
from authz.config.findings import Finding
from authz.config.sections.approvals import Approvals, approval_findings
from authz.config.sections.audit import Audit, audit_findings
from authz.config.sections.bundle import Bundle
from authz.config.sections.credentials import Credentials, credential_findings
from authz.config.sections.enforcers import Enforcer, enforcer_findings
from authz.config.sections.guards import Guard, guard_findings
from authz.config.sections.limits import Envoy, Limits, limit_findings
from authz.config.sections.listeners import Listeners, listener_findings
from authz.config.sections.log import Log
from authz.config.sections.recipient_lists import RecipientLists, recipient_list_findings
from authz.config.sections.shadow import Shadow, shadow_findings
from authz.config.sections.shared_signals import SharedSignals, shared_signal_findings
from authz.config.sections.state import State, state_findings
from authz.config.sections.trust import Identity, Trust, trust_findings
from authz.config.types import Duration, SecretEntries, Strict, later

__all__ = ["Config", "findings", "json_schema"]


class Config(Strict):
    """Configuration of one Authz node."""

    node: Annotated[str, StringConstraints(max_length=255)] = ""
    """Name of this node in records."""
    bundle: Bundle
    """The folder of policy and facts."""
    trust: Trust = Trust()
    """Issuers and trust domains whose credentials are accepted."""
    identity: Identity = Identity()
    """Names of this node in credentials that are sent to it."""
    enforcers: tuple[Enforcer, ...] = Field(default=(), max_length=1000)
    """Callers that may ask about other agents. All others may ask only about themselves."""
    listeners: Listeners = Listeners()
    """Addresses that are served."""
    vars: Annotated[dict[str, str], SecretEntries()] = Field(default_factory=dict, max_length=1000)
    """Values of `${…}` in the bundle."""
    recipient_lists: RecipientLists = RecipientLists()
    """Fetches of the recipient lists that a bundle names by URL."""
    audit: Audit = Audit()
    """The record of every decision."""
    limits: Limits = Limits()
    """Limits of one node."""
    state: State = State()
    """The store of tasks and revocations."""
    envoy: Envoy = Envoy()
    """Answers to Envoy's `Authorization`."""
    log: Log = Log()
    """The log of the node."""
    shutdown_grace_period: Annotated[Duration, Field(ge=0, le=600)] = 10.0
    """Time for calls in flight to end when the node stops."""
    topology: Any = later("Whether one server decides all calls of a session.")
    providers: Any = later("Coroutines that fetch facts which cannot be a snapshot.")
    mode: Any = later("Softening by deployment.")
    credentials: Credentials | None = None
    """Task credentials. Default: none are issued."""
    approvals: Approvals = Approvals()
    """People who decide about step-ups, and the ways in which they are asked."""
    guards: dict[str, Guard] = Field(default_factory=dict, max_length=100)
    """Programs whose signed confidence in a call is believed."""
    shared_signals: SharedSignals = SharedSignals()
    """Identity providers whose security events end tasks."""
    shadow: Shadow | None = None
    """A second bundle, which judges the same calls and changes no answer. Default: there is none."""


def json_schema(*, is_described: bool = True) -> dict[str, Any]:
    """Return the published JSON Schema (draft 2020-12).

    Args:
        is_described: Whether keys have their descriptions, which are read from the source files.
    """
    schema = Config.model_json_schema()
    if is_described:
        describe(schema, Config)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    for model, keys in (("Issuer", ("audience", "algorithms")), ("Enforcer", ("asks",))):
        required = schema["$defs"][model].setdefault("required", [])
        required.extend(key for key in keys if key not in required)
    return schema


def findings(config: Config) -> Iterator[Finding]:
    """Yield every error of a configuration that the types cannot express."""
    trust, identity, listeners = config.trust, config.identity, config.listeners
    yield from trust_findings(trust, identity)
    yield from recipient_list_findings(config.recipient_lists)
    yield from listener_findings(
        listeners,
        has_domains=bool(trust.domains),
        has_credentials=config.credentials is not None,
        has_transmitters=bool(config.shared_signals.transmitters),
    )
    yield from limit_findings(config.limits, listeners)
    yield from enforcer_findings(config.enforcers, listeners.decisions, trust.domains)
    yield from audit_findings(config.audit)
    yield from state_findings(config.state)
    if config.credentials is not None:
        yield from credential_findings(config.credentials, trust, identity)
    yield from guard_findings(config.guards, identity)
    yield from shadow_findings(config.shadow, config.bundle.path)
    yield from shared_signal_findings(config.shared_signals, trust, listeners)
    yield from approval_findings(config.approvals, listeners, trust.issuers, config.enforcers)
