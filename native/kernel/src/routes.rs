//! Which operation an HTTP request asks for, and with which arguments.

use crate::reason::ReasonCode;

/// An HTTP request as the proxy saw it, before any normalisation.
#[derive(Clone, Copy, Debug)]
pub struct HttpRequest<'a> {
    /// The method, upper case.
    pub method: &'a str,
    /// `host[:port]`; empty where the caller does not say.
    pub host: &'a str,
    /// The raw target, query included, not decoded.
    pub path: &'a str,
    /// Names in lower case, duplicates kept.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body, as far as it was sent along.
    pub body: Body<'a>,
}

/// The body of a request, as far as it was sent along.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// Not sent along.
    Absent,
    /// Cut off.
    Partial,
    /// All of it; empty where the request has none.
    Whole(&'a [u8]),
}

/// The operation that a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed {
    /// Operation id.
    pub operation: String,
    /// Arguments as one JSON object.
    pub arguments: Vec<u8>,
    /// Index of the route in the order of files and lines.
    pub route: usize,
}

/// Why a request asks for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteError {
    /// `NoRoute`, `AmbiguousRequest` or `BadInput`.
    pub reason: ReasonCode,
    /// What happened: no values of the request.
    pub message: String,
}

/// The compiled routes of a bundle.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {}

impl RouteTable {
    /// The operation and arguments of a request.
    ///
    /// # Errors
    /// `AmbiguousRequest` where two readers could read the request differently, `NoRoute` where no
    /// route matches it, `BadInput` where it carries more or other than its route maps.
    pub fn resolve(&self, request: &HttpRequest<'_>) -> Result<Routed, RouteError> {
        let _ = request;
        Err(RouteError {
            reason: ReasonCode::NoRoute,
            message: "no route matches".into(),
        })
    }
}
