//! Surfaces and lanes: the closed sets of calls and of servers.

use serde::Deserialize;

/// Kind of call. Both lanes have the same kinds.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "snake_case")]
pub enum Surface {
    /// `authz.v1.Authorizer/Check`.
    Check,
    /// `authz.v1.Authorizer/BatchCheck`.
    BatchCheck,
    /// `authz.v1.Authorizer/Explain`.
    Explain,
    /// `envoy.service.auth.v3.Authorization/Check`.
    ExtAuthz,
    /// `authz.v1.Authorizer/List`.
    List,
    /// `authz.v1.Authorizer/Report`.
    Report,
    /// `envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs`, a message of it.
    AccessLog,
    /// `authz.v1.Tasks/Start`.
    TaskStart,
    /// `authz.v1.Tasks/Delegate`.
    TaskDelegate,
    /// `authz.v1.Tasks/Extend`.
    TaskExtend,
    /// `authz.v1.Tasks/Get`.
    TaskGet,
    /// `authz.v1.Tasks/List`.
    TaskList,
    /// `authz.v1.Tasks/End`.
    TaskEnd,
    /// `authz.v1.Admin/Revoke`.
    Revoke,
    /// `authz.v1.Admin/Forget`.
    Forget,
    /// `authz.v1.Credentials/Issue`.
    CredentialIssue,
    /// `authz.v1.Credentials/Introspect`, and token introspection over HTTP.
    CredentialIntrospect,
    /// `authz.v1.Credentials/Revoke`, and token revocation over HTTP.
    CredentialRevoke,
    /// Token exchange over HTTP.
    CredentialExchange,
}

impl Surface {
    /// Name in metrics and configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::BatchCheck => "batch_check",
            Self::Explain => "explain",
            Self::ExtAuthz => "ext_authz",
            Self::List => "list",
            Self::Report => "report",
            Self::AccessLog => "access_log",
            Self::TaskStart => "task_start",
            Self::TaskDelegate => "task_delegate",
            Self::TaskExtend => "task_extend",
            Self::TaskGet => "task_get",
            Self::TaskList => "task_list",
            Self::TaskEnd => "task_end",
            Self::Revoke => "revoke",
            Self::Forget => "forget",
            Self::CredentialIssue => "credential_issue",
            Self::CredentialIntrospect => "credential_introspect",
            Self::CredentialRevoke => "credential_revoke",
            Self::CredentialExchange => "credential_exchange",
        }
    }

    /// Surface with a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|surface| surface.as_str() == name)
    }

    /// `path` of an audit record.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Check => "authz.v1.Authorizer/Check",
            Self::BatchCheck => "authz.v1.Authorizer/BatchCheck",
            Self::Explain => "authz.v1.Authorizer/Explain",
            Self::ExtAuthz => "envoy.service.auth.v3.Authorization/Check",
            Self::List => "authz.v1.Authorizer/List",
            Self::Report => "authz.v1.Authorizer/Report",
            Self::AccessLog => "envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs",
            Self::TaskStart => "authz.v1.Tasks/Start",
            Self::TaskDelegate => "authz.v1.Tasks/Delegate",
            Self::TaskExtend => "authz.v1.Tasks/Extend",
            Self::TaskGet => "authz.v1.Tasks/Get",
            Self::TaskList => "authz.v1.Tasks/List",
            Self::TaskEnd => "authz.v1.Tasks/End",
            Self::Revoke => "authz.v1.Admin/Revoke",
            Self::Forget => "authz.v1.Admin/Forget",
            Self::CredentialIssue => "authz.v1.Credentials/Issue",
            Self::CredentialIntrospect => "authz.v1.Credentials/Introspect",
            Self::CredentialRevoke => "authz.v1.Credentials/Revoke",
            Self::CredentialExchange => "/oauth/token",
        }
    }

    /// All surfaces.
    pub const ALL: [Self; 19] = [
        Self::Check,
        Self::BatchCheck,
        Self::Explain,
        Self::ExtAuthz,
        Self::List,
        Self::Report,
        Self::AccessLog,
        Self::TaskStart,
        Self::TaskDelegate,
        Self::TaskExtend,
        Self::TaskGet,
        Self::TaskList,
        Self::TaskEnd,
        Self::Revoke,
        Self::Forget,
        Self::CredentialIssue,
        Self::CredentialIntrospect,
        Self::CredentialRevoke,
        Self::CredentialExchange,
    ];
}

/// Server that took a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// The Python server, on grpcio.
    Python,
    /// The native server, [`crate::FastLane`].
    Fast,
}

impl Lane {
    /// Name in metrics and configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Fast => "fast",
        }
    }

    /// All lanes.
    pub const ALL: [Self; 2] = [Self::Python, Self::Fast];
}
