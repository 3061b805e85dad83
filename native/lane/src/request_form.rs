//! Form of a request that leads to no operation of the bundle, without the values in it.
//!
//! The author of the missing catalog entry needs names. A text that a machine made, or that may be a secret, is not a name.

use std::collections::BTreeSet;

use authz_kernel::routes::{Body, HttpRequest};

/// Most segments of a path that the form keeps.
const MAX_SEGMENTS: usize = 16;
/// Most names of query members that the form keeps.
const MAX_QUERY: usize = 16;
/// Most members of a query that are read.
const MAX_PAIRS: usize = 256;
/// Most bytes of a word.
const MAX_WORD: usize = 32;
/// Most digits in a word: `v2`, `oauth2`, `base64`.
const MAX_DIGITS: usize = 2;
/// Most capitals in a word that is not all capitals: `getCustomerById`.
const MAX_CAPITALS: usize = 4;
/// Most bytes of an operation id in a bundle.
const MAX_OPERATION: usize = 256;
/// Most bytes of a host and its port.
const MAX_HOST: usize = 261;
/// Placeholder for the segments or names that the form does not keep.
const MORE: &str = "{more}";
/// Placeholder for a text that is not a word.
const TEXT: &str = "{text}";

/// Form of a request that leads to no operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RequestForm {
    /// An operation that is not in the catalog.
    Operation(String),
    /// An HTTP request that no route matches.
    Http {
        /// Method as it was sent.
        method: String,
        /// Host in lower case.
        host: String,
        /// Path with its words, and the kind of each other segment: `/tickets/{digits}`.
        path: String,
        /// Names of the query's members, sorted, each once.
        query: Vec<String>,
        /// The request has a body.
        body: bool,
    },
}

impl RequestForm {
    /// The form of a request that names an operation.
    pub(crate) fn operation(id: &str) -> Self {
        let fits = !id.is_empty()
            && id.len() <= MAX_OPERATION
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte));
        Self::Operation(if fits { id.to_owned() } else { TEXT.to_owned() })
    }

    /// The form of an HTTP request.
    pub(crate) fn http(request: &HttpRequest<'_>) -> Self {
        let (path, query) = match request.path.split_once('?') {
            Some((path, query)) => (path, query),
            None => (request.path, ""),
        };
        let is_method = request.method.bytes().all(|byte| byte.is_ascii_alphabetic());
        let host = request.host.to_ascii_lowercase();
        let is_host = host.len() <= MAX_HOST
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte));
        Self::Http {
            method: if is_method { request.method.to_owned() } else { TEXT.to_owned() },
            host: if is_host { host } else { TEXT.to_owned() },
            path: form_of(path),
            query: names_of(query),
            body: !matches!(request.body, Body::Absent | Body::Whole(b"")),
        }
    }
}

/// A path with its words, and the kind of each other segment.
fn form_of(path: &str) -> String {
    let mut form = String::new();
    for (number, segment) in path.strip_prefix('/').unwrap_or(path).split('/').enumerate() {
        form.push('/');
        if number >= MAX_SEGMENTS {
            form.push_str(MORE);
            break;
        }
        form.push_str(word_or_kind(segment));
    }
    form
}

/// The names of a query's members.
fn names_of(query: &str) -> Vec<String> {
    let mut names: BTreeSet<String> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .take(MAX_PAIRS)
        .map(|pair| word_or_kind(pair.split_once('=').map_or(pair, |(name, _)| name)).to_owned())
        .collect();
    let more = names.len() > MAX_QUERY;
    while names.len() > MAX_QUERY {
        names.pop_last();
    }
    let mut names: Vec<String> = names.into_iter().collect();
    if more {
        names.push(MORE.to_owned());
    }
    names
}

/// A word, or the kind of a text that is not a word.
fn word_or_kind(text: &str) -> &str {
    let all = |is: fn(&u8) -> bool| text.as_bytes().iter().all(is);
    if text.is_empty() || is_word(text) {
        text
    } else if all(u8::is_ascii_digit) {
        "{digits}"
    } else if is_uuid(text) {
        "{uuid}"
    } else if text.len() >= 8 && all(u8::is_ascii_hexdigit) {
        "{hex}"
    } else {
        TEXT
    }
}

fn is_word(text: &str) -> bool {
    let count = |is: fn(&u8) -> bool| text.as_bytes().iter().filter(|byte| is(byte)).count();
    let capitals = count(u8::is_ascii_uppercase);
    let letters = count(u8::is_ascii_alphabetic);
    text.len() <= MAX_WORD
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte))
        && letters > 0
        && count(u8::is_ascii_digit) <= MAX_DIGITS.min(letters)
        && (capitals <= MAX_CAPITALS || capitals == letters)
        // Eight hexadecimal digits with a digit among them are more likely an id than a word.
        && !(text.len() >= 8
            && count(u8::is_ascii_digit) > 0
            && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// RFC 9562 §4: groups of 8, 4, 4, 4 and 12 hexadecimal digits.
fn is_uuid(text: &str) -> bool {
    let mut groups = text.split('-');
    [8, 4, 4, 4, 12].into_iter().all(|length| {
        groups.next().is_some_and(|group| {
            group.len() == length && group.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
    }) && groups.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(path: &str) -> String {
        let body = Body::Absent;
        let request = HttpRequest { method: "GET", host: "a.example", path, headers: &[], body };
        match RequestForm::http(&request) {
            RequestForm::Http { path, .. } => path,
            RequestForm::Operation(_) => String::new(),
        }
    }

    /// The form keeps words that a person wrote, and the kinds of texts that a machine made.
    #[test]
    fn words_stay_and_ids_do_not() {
        for (sent, form) in [
            ("/", "/"),
            ("/tickets", "/tickets"),
            ("/tickets/", "/tickets/"),
            ("/v2/getCustomerById", "/v2/getCustomerById"),
            ("/.well-known/openid-configuration", "/.well-known/openid-configuration"),
            ("/tickets/12345/notes", "/tickets/{digits}/notes"),
            ("/t/8f14e45f-ceea-467f-a8d2-9f0e2f9a1b3c", "/t/{uuid}"),
            ("/t/8f14e45fceea467f", "/t/{hex}"),
            ("/t/8f14e45f-ceea-467f-a8d2-9f0e2f9a1b3c-1", "/t/{text}"),
            ("/t/T-1029", "/t/{text}"),
            ("/mail/bob@corp.example", "/mail/{text}"),
            ("/reset/eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9", "/reset/{text}"),
            ("/reset/qXwZpLmNbVcTyRe", "/reset/{text}"),
            ("/a%20b", "/{text}"),
            ("/{digits}", "/{text}"),
            ("/STATUS", "/STATUS"),
        ] {
            assert_eq!(form, path(sent), "{sent}");
        }
    }

    /// The form of a long request is short.
    #[test]
    fn the_form_is_bounded() {
        let long = "/word".repeat(64);
        assert_eq!(format!("{}/{{more}}", "/word".repeat(MAX_SEGMENTS)), path(&long));
        let alphabet = "abcdefghijklmnopqrstuvwxyz";
        let query: Vec<String> =
            alphabet.chars().flat_map(|c| [format!("{c}=1"), format!("{c}=2")]).collect();
        let request = HttpRequest {
            method: "POST",
            host: "Api.Example:8443",
            path: &format!("/?{}", query.join("&")),
            headers: &[],
            body: Body::Whole(b"{}"),
        };
        let mut names: Vec<String> = alphabet.chars().take(MAX_QUERY).map(String::from).collect();
        names.push(MORE.to_owned());
        let form = RequestForm::Http {
            method: "POST".to_owned(),
            host: "api.example:8443".to_owned(),
            path: "/".to_owned(),
            query: names,
            body: true,
        };
        assert_eq!(form, RequestForm::http(&request));
    }

    /// An id that no bundle could have is replaced.
    #[test]
    fn an_operation_has_the_form_of_one() {
        assert_eq!(
            RequestForm::Operation("crm.get/x".to_owned()),
            RequestForm::operation("crm.get/x")
        );
        for id in ["", "crm.get customer", "crm.\u{202e}", &"x".repeat(MAX_OPERATION + 1)] {
            assert_eq!(RequestForm::Operation(TEXT.to_owned()), RequestForm::operation(id));
        }
    }
}
