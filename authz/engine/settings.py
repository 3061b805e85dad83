"""The engine's settings, made from the configuration.

Names, defaults and bounds of limits are the configuration's; the engine requires each of its settings and has no default.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from socket import gethostname
from typing import Any, Final

from authz import __version__
from authz.config import Audit, Bundle, Config, Limits, State, StateEngine
from authz.engine.head_key import chain_settings
from authz.errors import ConfigError
from authz.model import Diagnostic

__all__ = [
    "EnforcerRules",
    "ListenerRules",
    "PeerRules",
    "default_settings",
    "engine_settings",
    "listener_rules",
    "node_name",
    "peer_rules",
]

# Synchronized clocks differ by as much as this, even where `trust.leeway` is shorter.
_LEAST_TOLERANCE: Final = 1.0
# Callers whose rate of PROBE requests is counted.
_PROBE_CALLERS: Final = 10_000


@dataclass(frozen=True, slots=True)
class EnforcerRules:
    """An enforcer that is known by its listener."""

    name: str
    """Name of the enforcer."""
    asks: tuple[str, ...] = ()
    """Systems that it may ask about: `system:crm`, `system:*`."""
    relays: tuple[str, ...] = ()
    """Facts about agents that are believed on its word."""
    reports: str | None = None
    """How it reports outcomes: `sdk` or `access_log`. `None`: it does not."""
    uids: tuple[int, ...] = ()
    """Users that its processes run as. Empty: every user that can open the socket."""


@dataclass(frozen=True, slots=True)
class ListenerRules:
    """Rules of one listener."""

    name: str
    """Name of the listener."""
    enforcer: EnforcerRules | None = None
    """The enforcer that every caller is. `None`: callers ask about themselves."""
    mutual: bool = False
    """Callers show a certificate, which says who they are."""
    insecure_dev: bool = False
    """Plain TCP for development: every caller may ask about every system, and may relay nothing."""
    admin: bool = False
    """The administration listener."""
    http: bool = False
    """The listener of credentials over HTTP, which has authenticated the client itself."""
    surfaces: tuple[str, ...] | None = field(kw_only=True)
    """Surfaces that are answered here. `None`: all that the other fields allow. It has no default, so that no listener answers
    more surfaces than its author meant."""


@dataclass(frozen=True, slots=True)
class PeerRules:
    """An enforcer that is known by its certificate."""

    name: str
    """Name of the enforcer."""
    match: str
    """Its SPIFFE ID, or a pattern of SPIFFE IDs."""
    asks: tuple[str, ...]
    """Systems that it may ask about."""
    relays: tuple[str, ...] = ()
    """Facts about agents that are believed on its word."""
    reports: str | None = None
    """How it reports outcomes: `sdk` or `access_log`. `None`: it does not."""


def engine_settings(config: Config, *, trace: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the settings of an engine, as its JSON.

    Args:
        config: The configuration.
        trace: Settings of traces. `None`: no traces.

    Raises:
        ConfigError: `audit.path` is missing.
    """
    if config.audit.path is None:
        what = "`audit.path` is missing. Decisions would leave no record."
        raise ConfigError((Diagnostic(what, fix="Add audit: {path: ...}, or --audit-path."),))
    return {
        "audit_path": config.audit.path,
        **config.audit.engine_settings(),
        "audit_chain": chain_settings(config.audit),
        **config.limits.engine_settings(),
        "probe_callers": _PROBE_CALLERS,
        "envoy_error_response": config.envoy.error_response,
        "node_id": config.node,
        "approvals": config.approvals.engine_settings(),
        "state": _state_settings(config, Path(config.audit.path)),
        "trace": dict(trace) if trace is not None else None,
        "version": __version__,
    }


def default_settings(
    audit_path: str, *, state: State | None = None, limits: Limits | None = None
) -> dict[str, Any]:
    """Return the settings of an engine that has no configuration file, for tests and benchmarks.

    Args:
        audit_path: The audit file.
        state: Settings of the store. Default: in memory.
        limits: Limits. Default: those of the configuration.
    """
    config = Config(
        bundle=Bundle(path="."),
        audit=Audit(path=audit_path),
        state=state or State(engine=StateEngine.MEMORY),
        limits=limits or Limits(),
    )
    return engine_settings(config)


def _state_settings(config: Config, audit: Path) -> dict[str, Any]:
    settings = config.state.engine_settings()
    if config.state.engine is StateEngine.EMBEDDED and settings["path"] is None:
        settings["path"] = str(audit.parent / "state")
    tolerance = max(config.trust.leeway, _LEAST_TOLERANCE)
    return {
        **settings,
        "node": node_name(config),
        "clock_tolerance_ms": round(tolerance * 1000),
    }


def node_name(config: Config) -> str:
    """Return this node's name among the nodes of a store: `node`, or host and audit file, which no two nodes share."""
    return config.node or f"{gethostname()}:{Path(config.audit.path or '').resolve()}"


def listener_rules(config: Config) -> list[ListenerRules]:
    """Return the rules of each listener over which a caller can ask."""
    enforcers = {
        enforcer.listener: EnforcerRules(
            enforcer.name, enforcer.asks, enforcer.relays, enforcer.reports, enforcer.uids
        )
        for enforcer in config.enforcers
        if enforcer.listener is not None
    }
    rules = [
        ListenerRules(
            name,
            enforcer=enforcers.get(name),
            mutual=listener.is_mutual,
            insecure_dev=listener.insecure_dev,
            surfaces=None,
        )
        for name, listener in config.listeners.decisions.items()
    ]
    if config.listeners.admin is not None:
        rules.append(ListenerRules("admin", admin=True, surfaces=None))
    if config.listeners.http is not None:
        rules.append(ListenerRules("http", http=True, surfaces=None))
    return rules


def peer_rules(config: Config) -> list[PeerRules]:
    """Return the rules of each enforcer that is known by its certificate (`match`)."""
    return [
        PeerRules(enforcer.name, enforcer.match, enforcer.asks, enforcer.relays, enforcer.reports)
        for enforcer in config.enforcers
        if enforcer.match is not None
    ]
