//! Destinations: where data goes.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::location::Location;

/// Written form of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DestinationKind {
    /// RFC 5321 mailbox; canonical: domain in lower case.
    Email,
    /// URL; canonical: the host in lower case.
    UrlHost,
    /// IBAN; canonical: upper case without spaces, checked.
    Iban,
    /// An opaque account name.
    Account,
    /// A `/`-separated path without dot segments.
    Path,
}

/// A class of destinations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationClass {
    /// `*`-patterns over canonical destinations. The most specific pattern wins; a bundle with ties does not load.
    pub patterns: Vec<String>,
    /// Recipient lists whose entries belong to the class.
    pub recipient_lists: BTreeSet<String>,
    /// Confidentiality labels that may go there.
    pub clearance: BTreeSet<String>,
    /// Place in the bundle.
    pub at: Location,
}

/// A recipient list: destinations that another party lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipientListRule {
    /// Source of the entries.
    pub from: RecipientListSource,
    /// The column of a CSV file. Default: each line is an entry.
    pub column: Option<String>,
    /// The column of the names by which people call the entries. Default: they have none.
    pub alias: Option<String>,
    /// Age at which the recipient list is stale. Default: it is never stale.
    pub max_age: Option<Duration>,
    /// Its entries are trusted destinations.
    pub trusted: bool,
    /// Place in the bundle.
    pub at: Location,
}

/// Source of a recipient list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecipientListSource {
    /// A file of the bundle, by path.
    File(String),
    /// A URL that the server fetches.
    Url(String),
}
