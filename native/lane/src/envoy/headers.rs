//! Headers of the HTTP request that a proxy asks about.

use std::borrow::Cow;

use authz_kernel::routes::{Treatment, treatment};
use smallvec::SmallVec;

use super::request::{EnvoyHttp, HeaderEntry};
use crate::header_name::is_name_byte;
use crate::limits;
use crate::refusal::CallRefusal;

/// Headers that bring credentials and names; each may stand once.
pub(super) const AUTHORIZATION: &str = "authorization";
pub(super) const DPOP: &str = "dpop";
pub(super) const SUBJECT: &str = "authz-subject";
pub(super) const CREDENTIAL: &str = "authz-credential";
const TASK: &str = "authz-task";
/// Header that a proxy adds if it cut the body off.
const PARTIAL: &str = "x-envoy-auth-partial-body";
/// Pseudo headers (RFC 9113 §8.3.1), and `host`, the older form of `:authority`.
pub(super) const AUTHORITY: &str = ":authority";
pub(super) const METHOD: &str = ":method";
pub(super) const PATH: &str = ":path";
pub(super) const HOST: &str = "host";
/// Inbound headers of Authz. They never reach the upstream, also if the proxy did not show them.
pub(super) const OURS_INBOUND: [&str; 3] = [CREDENTIAL, SUBJECT, TASK];
/// Headers by which the upstream knows who acts; each has spellings that a CGI or WSGI server takes for it.
pub(super) const IDENTITY: [&str; 3] = ["x-authz-agent", "x-authz-subject", "x-authz-decision-id"];

/// A header that is looked for here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sought {
    Authority,
    Authorization,
    Baggage,
    Credential,
    Dpop,
    Host,
    Length,
    Method,
    Partial,
    Path,
    Subject,
    Task,
    TraceParent,
    TraceState,
    Transfer,
}

impl Sought {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            AUTHORITY => Self::Authority,
            AUTHORIZATION => Self::Authorization,
            "baggage" => Self::Baggage,
            CREDENTIAL => Self::Credential,
            DPOP => Self::Dpop,
            HOST => Self::Host,
            "content-length" => Self::Length,
            METHOD => Self::Method,
            PARTIAL => Self::Partial,
            PATH => Self::Path,
            SUBJECT => Self::Subject,
            TASK => Self::Task,
            "traceparent" => Self::TraceParent,
            "tracestate" => Self::TraceState,
            "transfer-encoding" => Self::Transfer,
            _ => return None,
        })
    }

    /// True if the header is read as text, so that a value that is not UTF-8 is refused.
    const fn is_text(self) -> bool {
        matches!(
            self,
            Self::Authorization | Self::Dpop | Self::Baggage | Self::Partial | Self::Host
        )
    }
}

pub(super) struct Headers<'a> {
    pub(super) usable: Cow<'a, [(&'a str, &'a str)]>,
    pub(super) unusable: Vec<&'a str>,
    /// Values of the usable ones that are looked for here, in their order; of `transfer-encoding` also an unusable one, empty.
    sought: SmallVec<[(Sought, &'a str); 8]>,
    /// Names that are ours, also as written by servers that take `_` for `-`, and those by which proxies say how a request
    /// came.
    pub(super) ours: SmallVec<[&'a str; 8]>,
}

impl<'a> Headers<'a> {
    /// Reads either encoding. Names come in lower case from HTTP/2 and Envoy alike; others were made by hand.
    pub(super) fn read(http: &'a EnvoyHttp<'a>) -> Result<Self, CallRefusal> {
        let (map, list) = (&http.headers, &http.list);
        if !list.is_empty() && !map.is_empty() {
            return Err(CallRefusal::ambiguous("headers came in both encodings"));
        }
        if list.len().max(map.len()) > limits::HEADERS {
            return Err(CallRefusal::input(format!(
                "there are more than {} headers",
                limits::HEADERS
            )));
        }
        let mut before = map.as_slice();
        while let Some(((name, _), rest)) = before.split_last() {
            if rest.iter().any(|(known, _)| known == name) {
                return Err(CallRefusal::ambiguous("the map of headers has a name twice"));
            }
            before = rest;
        }
        let mut unusable = Vec::new();
        let usable = match list.as_slice() {
            [] => Cow::Borrowed(map.as_slice()),
            list => Cow::Owned(texts(list, &mut unusable)?),
        };
        let mut headers = Self { usable, unusable, sought: SmallVec::new(), ours: SmallVec::new() };
        for &(name, value) in headers.usable.iter() {
            headers.ours.extend(own(name)?);
            headers.sought.extend(Sought::of(name).map(|sought| (sought, value)));
        }
        for name in &headers.unusable {
            headers.ours.extend(own(name)?);
            let transfer = Sought::of(name).filter(|sought| *sought == Sought::Transfer);
            headers.sought.extend(transfer.map(|sought| (sought, "")));
        }
        Ok(headers)
    }

    pub(super) fn all(&self, sought: Sought) -> impl Iterator<Item = &'a str> + '_ {
        self.sought.iter().filter(move |(known, _)| *known == sought).map(|(_, value)| *value)
    }

    /// Value of a credential header, which may stand once.
    pub(super) fn single(
        &self,
        sought: Sought,
        name: &str,
    ) -> Result<Option<&'a str>, CallRefusal> {
        let mut values = self.all(sought);
        let value = values.next();
        if values.next().is_some() || value.is_some_and(|value| value.contains(',')) {
            return Err(CallRefusal::credential(format!("`{name}` came more than once")));
        }
        Ok(value)
    }

    /// Value of a header that counts only if it stands once.
    pub(super) fn only(&self, sought: Sought) -> Option<&'a str> {
        let mut values = self.all(sought);
        let value = values.next();
        value.filter(|_| values.next().is_none())
    }

    /// Refuses a pseudo header that differs from the field of the request.
    pub(super) fn pseudo(
        &self,
        sought: Sought,
        name: &str,
        field: &str,
    ) -> Result<(), CallRefusal> {
        if self.all(sought).any(|value| value != field) {
            return Err(CallRefusal::ambiguous(format!(
                "`{name}` differs from the request's own field"
            )));
        }
        Ok(())
    }
}

/// Names and values of a list of headers. `unusable` gets the names of headers whose value is not a text.
pub(super) fn texts<'a>(
    list: &[HeaderEntry<'a>],
    unusable: &mut Vec<&'a str>,
) -> Result<Vec<(&'a str, &'a str)>, CallRefusal> {
    let mut usable = Vec::with_capacity(list.len());
    for header in list {
        let name = header.key;
        let value = match (header.value.is_empty(), header.raw_value.is_empty()) {
            (false, false) => {
                return Err(CallRefusal::ambiguous("a header has two values in one entry"));
            }
            (_, true) => Ok(header.value),
            (true, false) => std::str::from_utf8(header.raw_value),
        };
        match value {
            Ok(value) => usable.push((name, value)),
            Err(_) if is_read_here(name) => {
                return Err(CallRefusal::ambiguous(format!("`{name}` is no text")));
            }
            Err(_) => unusable.push(name),
        }
    }
    Ok(usable)
}

/// Name of a header that is removed. Refuses a name that is not valid.
pub(super) fn own(name: &str) -> Result<Option<&str>, CallRefusal> {
    let is_name = name.strip_prefix(':').unwrap_or(name).bytes().all(is_name_byte);
    if name.is_empty() || name.len() > limits::HEADER_NAME || !is_name {
        return Err(CallRefusal::ambiguous("a header's name is no lower-case token"));
    }
    let may_be_partial = name.len() == PARTIAL.len() && name != PARTIAL;
    if may_be_partial && name.replace('_', "-") == PARTIAL {
        return Err(CallRefusal::ambiguous(format!("`{PARTIAL}` has a twin with `_`")));
    }
    Ok(Some(name).filter(|name| is_ours(name) || treatment(name) == Some(Treatment::Removed)))
}

/// True if a server that takes `_` for `-` reads a name as one of Authz.
pub(super) fn is_ours(name: &str) -> bool {
    let starts = |start: &str| {
        name.len() >= start.len()
            && name.bytes().zip(start.bytes()).all(|(a, b)| a == b || (a == b'_' && b == b'-'))
    };
    starts("authz-") || starts("x-authz-")
}

fn is_read_here(name: &str) -> bool {
    Sought::of(name).is_some_and(Sought::is_text) || name.starts_with(':') || is_ours(name)
}
