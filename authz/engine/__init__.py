"""The engine: the only package that imports the extension `authz._native`.

`settings` turns the configuration into the engine's settings, `plan` is a compiled bundle, `trust` a compiled key set, and
`engine` decides with both. `fast_lane` is the Rust server over the same engine. `tables` are facts about the extension itself,
and `database` reads connection strings as the store does.

Values cross as bytes or scalars. Errors of the extension become errors of `authz.errors` (`native_errors`).
"""

from authz.engine.database import DatabaseAddress, DatabaseTls, ServerAddress
from authz.engine.description import (
    BundleDescription,
    OperationDescription,
    PolicyDescription,
    PolicyScope,
)
from authz.engine.engine import Engine
from authz.engine.fast_lane import FastLane
from authz.engine.head_key import head_jwk
from authz.engine.native_errors import with_sources
from authz.engine.plan import (
    Plan,
    PromptWord,
    RecipientListEntries,
    TestReport,
    bundle_digest,
    bundle_schema,
    bundle_variables,
    case_schema,
    format_policy,
    mcp_arguments,
    prompt_names,
    prompt_values,
    prompt_words,
    seal_catalog,
    spiffe_covers,
)
from authz.engine.settings import (
    EnforcerRules,
    ListenerRules,
    PeerRules,
    default_settings,
    engine_settings,
    listener_rules,
    node_name,
    peer_rules,
)
from authz.engine.tables import EffectTable, build_profile, effect_table, reason_table
from authz.engine.trust import (
    PrivateKey,
    Trust,
    TrustedDomain,
    TrustedIssuer,
    accepted_algorithms,
    is_usable_key,
)

__all__ = [
    "BundleDescription",
    "DatabaseAddress",
    "DatabaseTls",
    "EffectTable",
    "EnforcerRules",
    "Engine",
    "FastLane",
    "ListenerRules",
    "OperationDescription",
    "PeerRules",
    "Plan",
    "PolicyDescription",
    "PolicyScope",
    "PrivateKey",
    "PromptWord",
    "RecipientListEntries",
    "ServerAddress",
    "TestReport",
    "Trust",
    "TrustedDomain",
    "TrustedIssuer",
    "accepted_algorithms",
    "build_profile",
    "bundle_digest",
    "bundle_schema",
    "bundle_variables",
    "case_schema",
    "default_settings",
    "effect_table",
    "engine_settings",
    "format_policy",
    "head_jwk",
    "is_usable_key",
    "listener_rules",
    "mcp_arguments",
    "node_name",
    "peer_rules",
    "prompt_names",
    "prompt_values",
    "prompt_words",
    "reason_table",
    "seal_catalog",
    "spiffe_covers",
    "with_sources",
]
