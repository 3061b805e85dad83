"""Configuration of one node: one YAML file, flags and variables, checked before anything starts.

`document` reads YAML with line numbers, and `load` merges file, variables and flags. `root` is the whole configuration, and
`sections` has a module for each part: its keys with types, defaults and bounds, its rules, and the names that the engine has
for them. `types` are types of values, among them the mark of a secret, which `redact` hides. `findings`, `urls` and
`addresses` serve the sections, and `descriptions` the published schema.
"""

from authz.config.load import (
    Loaded,
    environment_name,
    is_key_variable,
    load,
    load_with_origins,
    parse_assignment,
)
from authz.config.redact import redacted
from authz.config.root import Config, json_schema
from authz.config.sections.approvals import (
    ApprovalLogin,
    ApprovalPerson,
    Approvals,
    ApprovalWebhook,
    Ciba,
    CibaTier,
    Passkeys,
    WebhookFormat,
)
from authz.config.sections.audit import Audit
from authz.config.sections.audit_sinks import (
    TABLE_NAME,
    AuditHttp,
    AuditOtel,
    AuditPostgresql,
    AuditS3,
    AuditServer,
    AuditSink,
)
from authz.config.sections.brokers import (
    Broker,
    BrokeredSystem,
    BrokerKind,
    Grant,
    Privilege,
    StaticSecret,
)
from authz.config.sections.bundle import Bundle
from authz.config.sections.credentials import (
    Credentials,
    Dpop,
    Lifetimes,
    Pkcs11,
    SigningAlgorithm,
    SigningKeys,
)
from authz.config.sections.enforcers import Enforcer, Relay
from authz.config.sections.limits import Limits
from authz.config.sections.listeners import (
    ApprovalsListener,
    DecisionListener,
    HttpApiListener,
    Lane,
    Listener,
    Listeners,
    MetricsListener,
    Tls,
    WebListener,
)
from authz.config.sections.log import Log, LogFormat, LogLevel
from authz.config.sections.recipient_lists import RecipientListRefresh, RecipientLists
from authz.config.sections.shared_signals import (
    SharedSignals,
    SignalAction,
    SignalActions,
    Transmitter,
)
from authz.config.sections.sources import Refresh, TrustSource
from authz.config.sections.state import State, StateEngine
from authz.config.sections.trust import (
    BundleProfile,
    BundleSource,
    Identity,
    Issuer,
    KeySource,
    Trust,
    TrustDomain,
)

__all__ = [
    "TABLE_NAME",
    "ApprovalLogin",
    "ApprovalPerson",
    "ApprovalWebhook",
    "Approvals",
    "ApprovalsListener",
    "Audit",
    "AuditHttp",
    "AuditOtel",
    "AuditPostgresql",
    "AuditS3",
    "AuditServer",
    "AuditSink",
    "Broker",
    "BrokerKind",
    "BrokeredSystem",
    "Bundle",
    "BundleProfile",
    "BundleSource",
    "Ciba",
    "CibaTier",
    "Config",
    "Credentials",
    "DecisionListener",
    "Dpop",
    "Enforcer",
    "Grant",
    "HttpApiListener",
    "Identity",
    "Issuer",
    "KeySource",
    "Lane",
    "Lifetimes",
    "Limits",
    "Listener",
    "Listeners",
    "Loaded",
    "Log",
    "LogFormat",
    "LogLevel",
    "MetricsListener",
    "Passkeys",
    "Pkcs11",
    "Privilege",
    "RecipientListRefresh",
    "RecipientLists",
    "Refresh",
    "Relay",
    "SharedSignals",
    "SignalAction",
    "SignalActions",
    "SigningAlgorithm",
    "SigningKeys",
    "State",
    "StateEngine",
    "StaticSecret",
    "Tls",
    "Transmitter",
    "Trust",
    "TrustDomain",
    "TrustSource",
    "WebListener",
    "WebhookFormat",
    "environment_name",
    "is_key_variable",
    "json_schema",
    "load",
    "load_with_origins",
    "parse_assignment",
    "redacted",
]
