//! Named sets of destinations that a bundle names and others keep: customers, colleagues, payees.
//!
//! Who is in one is read apart from the bundle, and is known for as long as it is fresh. A directory that is too old, or was
//! never read, trusts nothing: what may be in it is judged as if it were, and as if it were not.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use authz_base::time::Time;
use sha2::{Digest, Sha256};

use crate::destinations::canonical;
use crate::model::{DestinationKind, DirectoryRule, DirectorySource, Model};

/// Directories of a bundle.
pub const MAX_DIRECTORIES: usize = 32;
/// Entries of one directory.
pub const MAX_ENTRIES: usize = 1_000_000;
/// Bytes of one directory.
pub const MAX_BYTES: usize = 64 << 20;
/// Bytes of one entry.
const LONGEST: usize = 4_096;
/// Bytes of a digest that are kept.
const KEPT: usize = 16;

type Kept = [u8; KEPT];

/// Who is in a directory. Only digests are kept: nobody reads from memory who that is.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Entries {
    // INVARIANT (sorted): in ascending order, each once.
    digests: Box<[Kept]>,
    count: usize,
    odd: usize,
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entries").field("count", &self.count).finish_non_exhaustive()
    }
}

/// Why a directory is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defect {
    /// What is wrong; never holds an entry.
    pub what: String,
    /// The line, from 1; 0: the whole.
    pub line: usize,
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.what),
            line => write!(f, "line {line}: {}", self.what),
        }
    }
}

impl std::error::Error for Defect {}

impl Entries {
    /// Reads a directory.
    ///
    /// Args:
    /// * `column`: of a CSV file (RFC 4180, commas, with a header); none: each line is an entry.
    ///
    /// # Errors
    /// It cannot be read whole: then nothing of it is believed.
    pub fn read(bytes: &[u8], column: Option<&str>) -> Result<Self, Defect> {
        let whole = |what: String| Defect { what, line: 0 };
        if bytes.len() > MAX_BYTES {
            return Err(whole(format!("it is larger than {} MiB", MAX_BYTES >> 20)));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| whole("it is not UTF-8".to_owned()))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut found = Reading::default();
        match column {
            None => text
                .lines()
                .enumerate()
                .try_for_each(|(index, line)| found.take(line, index.saturating_add(1)))?,
            Some(column) => csv(text, column, &mut found)?,
        }
        let Reading { mut digests, count, odd } = found;
        digests.sort_unstable();
        digests.dedup();
        Ok(Self { digests: digests.into(), count, odd })
    }

    /// How many entries there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many entries no destination can be equal to, whatever its kind.
    #[must_use]
    pub const fn odd(&self) -> usize {
        self.odd
    }

    fn hold(&self, digest: &Kept) -> bool {
        self.digests.binary_search(digest).is_ok()
    }
}

#[derive(Default)]
struct Reading {
    digests: Vec<Kept>,
    count: usize,
    odd: usize,
}

impl Reading {
    fn take(&mut self, raw: &str, line: usize) -> Result<(), Defect> {
        let raw = raw.trim();
        if raw.is_empty() {
            return Ok(());
        }
        if self.count >= MAX_ENTRIES {
            return Err(Defect { what: format!("more than {MAX_ENTRIES} entries"), line });
        }
        self.count = self.count.saturating_add(1);
        let before = self.digests.len();
        if raw.len() <= LONGEST {
            let known =
                kinds(raw).filter_map(|(kind, text)| Some((kind, canonical(kind, &text).ok()?.0)));
            self.digests.extend(known.map(|(kind, text)| digest(kind, &text)));
        }
        self.odd = self.odd.saturating_add(usize::from(self.digests.len() == before));
        Ok(())
    }
}

/// The kinds that an entry can be meant as, and how it is written as one. A path may be written like a mailbox, so what
/// has an `@` is no path here.
fn kinds(raw: &str) -> impl Iterator<Item = (DestinationKind, std::borrow::Cow<'_, str>)> {
    let is_url = raw.contains("://");
    let (at, slash) = (raw.contains('@'), raw.contains('/'));
    let host = !is_url && !at && !slash;
    [
        (is_url, DestinationKind::UrlHost, raw.into()),
        (host, DestinationKind::UrlHost, format!("https://{raw}").into()),
        (at && !is_url, DestinationKind::Email, raw.into()),
        (host, DestinationKind::Iban, raw.into()),
        (!is_url, DestinationKind::Account, raw.into()),
        (slash && !at && !is_url, DestinationKind::Path, raw.into()),
    ]
    .into_iter()
    .filter_map(|(meant, kind, text)| meant.then_some((kind, text)))
}

/// Mail and host names are compared without case, as patterns of classes are.
fn digest(kind: DestinationKind, canonical: &str) -> Kept {
    let (name, folds) = match kind {
        DestinationKind::Email => ("email:", true),
        DestinationKind::UrlHost => ("url:", true),
        DestinationKind::Iban => ("iban:", false),
        DestinationKind::Account => ("account:", false),
        DestinationKind::Path => ("path:", false),
    };
    let hash = Sha256::new_with_prefix(name);
    let hash = match folds && canonical.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => hash.chain_update(canonical.to_ascii_lowercase()),
        false => hash.chain_update(canonical),
    };
    let mut kept = [0; KEPT];
    for (to, from) in kept.iter_mut().zip(hash.finalize()) {
        *to = from;
    }
    kept
}

/// Takes one column of a CSV file.
fn csv(text: &str, column: &str, found: &mut Reading) -> Result<(), Defect> {
    let mut rows = Rows { rest: text, line: 1 };
    let Some((_, header)) = rows.next_row()? else {
        return Err(Defect { what: "it is empty, and has no header".to_owned(), line: 0 });
    };
    let mut places = header.iter().enumerate().filter(|(_, name)| name.trim() == column);
    let (place, twice) = (places.next().map(|(place, _)| place), places.next().is_some());
    let place = match place {
        Some(place) if !twice => place,
        Some(_) => return Err(Defect { what: format!("it has two columns `{column}`"), line: 1 }),
        None => return Err(Defect { what: format!("it has no column `{column}`"), line: 1 }),
    };
    let width = header.len();
    while let Some((line, row)) = rows.next_row()? {
        if row.len() != width {
            let what = format!("{} fields, where the header has {width}", row.len());
            return Err(Defect { what, line });
        }
        found.take(row.get(place).map_or("", String::as_str), line)?;
    }
    Ok(())
}

/// Most fields of a row.
const WIDEST: usize = 1_024;

/// The rows of a CSV file, those without a character left out.
struct Rows<'a> {
    rest: &'a str,
    line: usize,
}

impl Rows<'_> {
    /// The next row, and the line that it begins at.
    fn next_row(&mut self) -> Result<Option<(usize, Vec<String>)>, Defect> {
        while let Some(rest) =
            self.rest.strip_prefix("\r\n").or_else(|| self.rest.strip_prefix('\n'))
        {
            self.rest = rest;
            self.line = self.line.saturating_add(1);
        }
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (begin, mut row) = (self.line, Vec::new());
        loop {
            if row.len() >= WIDEST {
                let what = format!("more than {WIDEST} fields");
                return Err(Defect { what, line: begin });
            }
            let (field, goes_on) = self.field()?;
            row.push(field);
            if !goes_on {
                return Ok(Some((begin, row)));
            }
        }
    }

    /// The next field, and whether another follows in the row.
    fn field(&mut self) -> Result<(String, bool), Defect> {
        let mut field = String::new();
        if let Some(rest) = self.rest.strip_prefix('"') {
            self.rest = rest;
            let begin = self.line;
            loop {
                let Some((part, rest)) = self.rest.split_once('"') else {
                    let what = "a quotation mark that is never closed".to_owned();
                    return Err(Defect { what, line: begin });
                };
                self.line = self.line.saturating_add(part.matches('\n').count());
                field.push_str(part);
                self.rest = rest;
                let Some(rest) = rest.strip_prefix('"') else { break };
                field.push('"');
                self.rest = rest;
            }
        } else {
            let end = self.rest.find([',', '\n']).unwrap_or(self.rest.len());
            let (part, rest) = self.rest.split_at_checked(end).unwrap_or_default();
            self.rest = rest;
            let part = part.strip_suffix('\r').unwrap_or(part);
            if part.contains('"') {
                let what =
                    "a quotation mark within a field that does not begin with one".to_owned();
                return Err(Defect { what, line: self.line });
            }
            field.push_str(part);
        }
        if let Some(rest) = self.rest.strip_prefix(',') {
            self.rest = rest;
            return Ok((field, true));
        }
        let ends = self.rest.strip_prefix("\r\n").or_else(|| self.rest.strip_prefix('\n'));
        match ends {
            Some(rest) => {
                self.rest = rest;
                self.line = self.line.saturating_add(1);
            }
            None if self.rest.is_empty() || self.rest == "\r" => self.rest = "",
            None => {
                let what = "something stands after a closed quotation mark".to_owned();
                return Err(Defect { what, line: self.line });
            }
        }
        Ok((field, false))
    }
}

/// A directory as it is known.
#[derive(Clone, Debug)]
pub struct Known {
    /// Who is in it.
    pub entries: Arc<Entries>,
    /// From when on it is too old; none: it never is.
    pub fresh_until: Option<Time>,
}

/// The directories as they are known, by name.
#[derive(Clone, Debug, Default)]
pub struct Directories(BTreeMap<String, Known>);

impl Directories {
    /// Of what is known of each.
    #[must_use]
    pub const fn new(known: BTreeMap<String, Known>) -> Self {
        Self(known)
    }

    /// Of what the bundle's files say, as if they had just been changed; of others nothing is known.
    #[must_use]
    pub fn of(model: &Model) -> Self {
        let known = |(name, rule): (&String, &DirectoryRule)| {
            let DirectorySource::File(_, entries) = &rule.from else { return None };
            let known = Known { entries: Arc::clone(entries), fresh_until: None };
            Some((name.clone(), known))
        };
        Self(model.directories.iter().filter_map(known).collect())
    }

    /// Of what the bundle's files say and when they were changed, and of what was fetched when.
    ///
    /// Args:
    /// * `as_of`: of each directory that may grow too old; one that is not told is.
    /// * `fetched`: of each directory that is; of one that is not told nothing is known.
    #[must_use]
    pub fn aged(
        model: &Model,
        as_of: &BTreeMap<String, Time>,
        fetched: &BTreeMap<String, Arc<Entries>>,
    ) -> Self {
        let known = |(name, rule): (&String, &DirectoryRule)| {
            let entries = match &rule.from {
                DirectorySource::File(_, entries) => entries,
                DirectorySource::Url(_) => fetched.get(name)?,
            };
            let fresh_until = match rule.max_age {
                None => None,
                Some(age) => {
                    let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
                    Some(Time(as_of.get(name)?.0.saturating_add(age)))
                }
            };
            Some((name.clone(), Known { entries: Arc::clone(entries), fresh_until }))
        };
        Self(model.directories.iter().filter_map(known).collect())
    }

    /// Says otherwise of one.
    ///
    /// Args: `known`: none: nothing is known of it.
    pub fn set(&mut self, name: &str, known: Option<Known>) {
        match known {
            Some(known) => self.0.insert(name.to_owned(), known),
            None => self.0.remove(name),
        };
    }

    fn fresh(&self, name: &str, now: Time) -> Option<&Entries> {
        let known = self.0.get(name)?;
        known.fresh_until.is_none_or(|until| now < until).then_some(&*known.entries)
    }
}

/// A directory, asked about one destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// It is in there.
    Holds,
    /// It is not.
    Lacks,
    /// Who is in there is not known.
    Stale,
}

/// Asks about one destination.
#[derive(Clone, Copy)]
pub struct Query<'a> {
    known: Option<&'a Directories>,
    digest: Kept,
    now: Time,
}

impl<'a> Query<'a> {
    /// A question about a destination.
    ///
    /// Args: `canonical`: the destination in the one form of its kind.
    #[must_use]
    pub fn new(
        known: Option<&'a Directories>,
        kind: DestinationKind,
        canonical: &str,
        now: Time,
    ) -> Self {
        Self { known, digest: digest(kind, canonical), now }
    }

    /// Whether a directory holds the destination.
    #[must_use]
    pub fn ask(&self, name: &str) -> Says {
        match self.known.and_then(|known| known.fresh(name, self.now)) {
            None => Says::Stale,
            Some(entries) if entries.hold(&self.digest) => Says::Holds,
            Some(_) => Says::Lacks,
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn holds(entries: &Entries, kind: DestinationKind, raw: &str) -> bool {
        entries.hold(&digest(kind, &canonical(kind, raw).unwrap().0))
    }

    #[test]
    fn an_entry_is_known_by_the_canonical_form_of_each_kind_that_it_can_be_meant_as() {
        let text = "\u{feff} Bob@ACME.example \r\n\nhttps://Pay.acme.example/in?x\nshop.example\n\
                    gb82 west 1234 5698 7654 32\nacct-7\n/exports/a\n@channel\n\
                    Bob <bob@evil.example>\n";
        let entries = Entries::read(text.as_bytes(), None).unwrap();
        assert_eq!((8, 1), (entries.len(), entries.odd()));
        for (kind, raw) in [
            (DestinationKind::Email, "bob@acme.example"),
            (DestinationKind::UrlHost, "http://pay.acme.example:81/elsewhere"),
            (DestinationKind::UrlHost, "https://SHOP.example"),
            (DestinationKind::Iban, "GB82WEST12345698765432"),
            (DestinationKind::Account, "acct-7"),
            (DestinationKind::Account, "@channel"),
            (DestinationKind::Path, "/exports/a"),
        ] {
            assert!(holds(&entries, kind, raw), "{raw}");
        }
        for (kind, raw) in [
            (DestinationKind::Email, "bob@evil.example"),
            (DestinationKind::Email, "bob@acme.example.evil.example"),
            (DestinationKind::UrlHost, "https://acme.example"),
            (DestinationKind::UrlHost, "https://x.shop.example"),
            (DestinationKind::Account, "Acct-7"),
            (DestinationKind::Path, "/exports/A"),
            // Written like a mailbox that is known, and no mailbox.
            (DestinationKind::Path, "Bob@ACME.example"),
        ] {
            assert!(!holds(&entries, kind, raw), "{raw}");
        }
    }

    #[test]
    fn a_column_is_read_as_rfc_4180_says() {
        let text = "name,\"email\",note\r\n\"A, \"\"B\"\"\nC\",a@x.example,\"\"\n\n,\"b@x.example\",x\r\n,,\nz,c@x.example,\r";
        let entries = Entries::read(text.as_bytes(), Some("email")).unwrap();
        assert_eq!((3, 0), (entries.len(), entries.odd()));
        for raw in ["a@x.example", "b@x.example", "c@x.example"] {
            assert!(holds(&entries, DestinationKind::Email, raw), "{raw}");
        }
        assert_eq!(0, Entries::read(b"email", Some("email")).unwrap().len());
    }

    #[test]
    fn what_cannot_be_read_whole_is_refused_with_its_line() {
        let many = "a@x.example\n".repeat(MAX_ENTRIES + 1);
        for (text, column, line, what) in [
            ("", Some("email"), 0, "no header"),
            ("mail\na@x.example", Some("email"), 1, "no column `email`"),
            ("email,email\na,b", Some("email"), 1, "two columns"),
            ("email,note\na@x.example,1\nb@x.example", Some("email"), 3, "1 fields"),
            ("email\na@x.example,b@x.example", Some("email"), 2, "2 fields"),
            ("note,email\n\"x\ny\",a\n\"z", Some("email"), 4, "never closed"),
            ("email\n\"a\"b", Some("email"), 2, "after a closed"),
            ("email\na\"b\"", Some("email"), 2, "within a field"),
            (&many, None, MAX_ENTRIES + 1, "more than 1000000 entries"),
        ] {
            let defect = Entries::read(text.as_bytes(), column).unwrap_err();
            assert_eq!(line, defect.line, "{defect}");
            assert!(defect.what.contains(what), "{defect}");
        }
        assert!(Entries::read(b"a\xff", None).unwrap_err().what.contains("UTF-8"));
    }

    #[test]
    fn what_is_too_old_or_unknown_says_nothing() {
        let entries = Arc::new(Entries::read(b"a@x.example", None).unwrap());
        let known = |fresh_until| Known { entries: Arc::clone(&entries), fresh_until };
        let all = BTreeMap::from([
            ("old".to_owned(), known(Some(Time(10)))),
            ("kept".to_owned(), known(None)),
        ]);
        let all = Directories::new(all);
        let ask = |raw: &str, name: &str, now| {
            Query::new(Some(&all), DestinationKind::Email, raw, Time(now)).ask(name)
        };
        assert_eq!(Says::Holds, ask("a@x.example", "old", 9));
        assert_eq!(Says::Stale, ask("a@x.example", "old", 10));
        assert_eq!(Says::Holds, ask("a@x.example", "kept", i64::MAX));
        assert_eq!(Says::Lacks, ask("b@x.example", "kept", 0));
        assert_eq!(Says::Stale, ask("a@x.example", "other", 0));
        let nothing = Query::new(None, DestinationKind::Email, "a@x.example", Time(0));
        assert_eq!(Says::Stale, nothing.ask("kept"));
    }
}
