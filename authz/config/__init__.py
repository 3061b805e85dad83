"""Settings of one node: one YAML file, flags and variables, checked before anything starts."""

from authz.config.load import environment_name, load, parse_assignment
from authz.config.redact import redacted
from authz.config.schema import (
    Audit,
    Bundle,
    Config,
    DecisionListener,
    Enforcer,
    Identity,
    Issuer,
    Lane,
    Limits,
    Listener,
    Listeners,
    Log,
    LogFormat,
    LogLevel,
    Tls,
    Trust,
    TrustDomain,
    json_schema,
)

__all__ = [
    "Audit",
    "Bundle",
    "Config",
    "DecisionListener",
    "Enforcer",
    "Identity",
    "Issuer",
    "Lane",
    "Limits",
    "Listener",
    "Listeners",
    "Log",
    "LogFormat",
    "LogLevel",
    "Tls",
    "Trust",
    "TrustDomain",
    "environment_name",
    "json_schema",
    "load",
    "parse_assignment",
    "redacted",
]
