//! Recipient lists: destinations that another party lists, for example customers, colleagues or payees.
//!
//! The entries of a recipient list count while the recipient list is fresh. If a recipient list is stale or was never read, Authz stops
//! treating its entries as trusted. It evaluates each destination both as listed and as not listed, and the stricter result
//! wins.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use authz_base::time::Time;
use sha2::{Digest, Sha256};
use smallvec::SmallVec;

use crate::canonical::canonical;
use crate::model::{DestinationKind, Model, RecipientListRule, RecipientListSource};
use crate::prompt::{WordDigest, alias_words, is_frequent};

/// Recipient lists of a bundle.
pub const MAX_RECIPIENT_LISTS: usize = 32;
/// Entries of one recipient list.
pub const MAX_ENTRIES: usize = 1_000_000;
/// Bytes of one recipient list.
pub const MAX_BYTES: usize = 64 << 20;
/// Bytes of one entry.
const LONGEST: usize = 4_096;
/// Bytes of the digest of an entry.
const DIGEST_BYTES: usize = 16;

/// Words of one alias, and aliases of one entry.
const MOST_ALIAS_WORDS: usize = 4;
const MOST_ALIASES: usize = 8;
/// Aliases with the same first word that are compared. More of them name nobody.
const MOST_RIVALS: usize = 256;

type EntryDigest = [u8; DIGEST_BYTES];

/// Columns of a CSV file (RFC 4180, commas, with a header).
#[derive(Clone, Copy, Debug, Default)]
pub struct Columns<'a> {
    /// The column of the entries. Default: each line is an entry.
    pub entry: Option<&'a str>,
    /// The column of their aliases. Default: they have none.
    pub alias: Option<&'a str>,
}

/// Entries of a recipient list. Only their digests are kept, so the memory of the process does not show the entries.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RecipientListEntries {
    // INVARIANT (sorted): in ascending order, each once.
    digests: Box<[EntryDigest]>,
    // INVARIANT (sorted): by the first word, without case.
    aliases: Box<[Alias]>,
    // INVARIANT (sorted): the digests of entries with aliases, and the places of these in `aliases`.
    aliases_by_entry: Box<[(EntryDigest, u32)]>,
    count: usize,
    odd: usize,
}

/// A name by which people call an entry, such as `Mark Jones`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    entry: SmallVec<[EntryDigest; 2]>,
    words: SmallVec<[WordDigest; 2]>,
    is_frequent: bool,
}

impl Alias {
    /// Its words, at least one.
    #[must_use]
    pub fn words(&self) -> &[WordDigest] {
        &self.words
    }

    /// Whether its first word is a frequent one, such as `Will`, which names nobody alone.
    #[must_use]
    pub const fn is_frequent(&self) -> bool {
        self.is_frequent
    }

    /// Whether both are aliases of one entry.
    #[must_use]
    pub fn is_of_same_entry(&self, other: &Self) -> bool {
        self.entry.iter().any(|digest| other.entry.contains(digest))
    }

    fn first(&self) -> u128 {
        self.words.first().map_or(0, |word| word.folded)
    }
}

impl fmt::Debug for RecipientListEntries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecipientListEntries").field("count", &self.count).finish_non_exhaustive()
    }
}

/// A recipient list that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipientListError {
    /// The defect; never holds an entry.
    pub what: String,
    /// The line, from 1; 0: the whole file.
    pub line: usize,
}

impl fmt::Display for RecipientListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.what),
            line => write!(f, "line {line}: {}", self.what),
        }
    }
}

impl std::error::Error for RecipientListError {}

impl RecipientListEntries {
    /// Reads a recipient list.
    ///
    /// # Errors
    /// Some part of the recipient list cannot be read; then no entry counts.
    pub fn read(bytes: &[u8], columns: Columns<'_>) -> Result<Self, RecipientListError> {
        let mut found = EntryCollector::default();
        each_entry(bytes, columns, &mut |entry| {
            found.take(&entry).map(|()| ControlFlow::Continue(()))
        })?;
        let EntryCollector { mut digests, mut aliases, count, odd } = found;
        digests.sort_unstable();
        digests.dedup();
        aliases.sort_by_key(Alias::first);
        let mut aliases_by_entry: Vec<(EntryDigest, u32)> = (0_u32..)
            .zip(&aliases)
            .flat_map(|(place, alias)| alias.entry.iter().map(move |digest| (*digest, place)))
            .collect();
        aliases_by_entry.sort_unstable();
        Ok(Self {
            digests: digests.into(),
            aliases: aliases.into(),
            aliases_by_entry: aliases_by_entry.into(),
            count,
            odd,
        })
    }

    /// The aliases of an entry.
    fn aliases_of(&self, digest: &EntryDigest) -> impl Iterator<Item = &Alias> {
        let from = self.aliases_by_entry.partition_point(|(entry, _)| entry < digest);
        let after = self.aliases_by_entry.get(from..).unwrap_or_default();
        let own = after.iter().take_while(move |(entry, _)| entry == digest);
        own.filter_map(|(_, place)| self.aliases.get(usize::try_from(*place).ok()?))
    }

    /// The aliases with the same first word as one, without case. None where they are too many to compare.
    #[must_use]
    pub fn rivals(&self, alias: &Alias) -> Option<&[Alias]> {
        let first = alias.first();
        let from = self.aliases.partition_point(|other| other.first() < first);
        let to = self.aliases.partition_point(|other| other.first() <= first);
        self.aliases.get(from..to).filter(|rivals| rivals.len() <= MOST_RIVALS)
    }

    /// Number of entries.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether the recipient list has no entries.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Number of entries that no destination of any kind can equal.
    #[must_use]
    pub const fn odd(&self) -> usize {
        self.odd
    }

    fn contains(&self, digest: &EntryDigest) -> bool {
        self.digests.binary_search(digest).is_ok()
    }
}

/// Returns the first entries of a recipient list that a destination of a kind can equal, each as a caller would write it.
///
/// Args: `most`: number of entries after which reading ends.
///
/// # Errors
/// A part of the recipient list that was read is not valid.
pub fn first_entries(
    bytes: &[u8],
    columns: Columns<'_>,
    kind: DestinationKind,
    most: usize,
) -> Result<Vec<String>, RecipientListError> {
    let mut entries: Vec<String> = Vec::new();
    each_entry(bytes, columns, &mut |entry| {
        if entries.len() >= most {
            return Ok(ControlFlow::Break(()));
        }
        let of_kind = destinations(entry.text).find(|one| one.kind == kind);
        if let Some(one) = of_kind
            && !entries.iter().any(|known| *known == one.written)
        {
            entries.push(one.written.into_owned());
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(entries)
}

/// An entry as the file has it.
struct RawEntry<'e> {
    /// Text of the entry, without white space around it; not empty.
    text: &'e str,
    /// Names of the entry, apart by semicolons.
    aliases: &'e str,
    /// Line of the file, from 1.
    line: usize,
}

/// Takes an entry, and tells whether reading goes on.
type EntryVisitor<'v> = dyn FnMut(RawEntry<'_>) -> Result<ControlFlow<()>, RecipientListError> + 'v;

/// Visits the entries of a recipient list in the order of the file.
fn each_entry(
    bytes: &[u8],
    columns: Columns<'_>,
    visit: &mut EntryVisitor<'_>,
) -> Result<(), RecipientListError> {
    let whole = |what: String| RecipientListError { what, line: 0 };
    if bytes.len() > MAX_BYTES {
        return Err(whole(format!("it is larger than {} MiB", MAX_BYTES >> 20)));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| whole("it is not UTF-8".to_owned()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut visit_raw = |text: &str, aliases: &str, line: usize| match text.trim() {
        "" => Ok(ControlFlow::Continue(())),
        text => visit(RawEntry { text, aliases, line }),
    };
    match columns.entry {
        None => {
            for (index, line) in text.lines().enumerate() {
                if visit_raw(line, "", index.saturating_add(1))?.is_break() {
                    return Ok(());
                }
            }
            Ok(())
        }
        Some(column) => csv(text, column, columns.alias, &mut visit_raw),
    }
}

#[derive(Default)]
struct EntryCollector {
    digests: Vec<EntryDigest>,
    aliases: Vec<Alias>,
    count: usize,
    odd: usize,
}

impl EntryCollector {
    fn take(&mut self, entry: &RawEntry<'_>) -> Result<(), RecipientListError> {
        if self.count >= MAX_ENTRIES {
            return Err(RecipientListError {
                what: format!("more than {MAX_ENTRIES} entries"),
                line: entry.line,
            });
        }
        self.count = self.count.saturating_add(1);
        let before = self.digests.len();
        let known = destinations(entry.text);
        self.digests.extend(known.map(|one| digest(one.kind, &one.canonical)));
        self.odd = self.odd.saturating_add(usize::from(self.digests.len() == before));
        let digests = self.digests.get(before..).unwrap_or_default();
        if !digests.is_empty() {
            let digests = SmallVec::from_slice(digests);
            let aliases = entry.aliases.split(';').filter_map(|alias| read_alias(alias, &digests));
            self.aliases.extend(aliases.take(MOST_ALIASES));
        }
        Ok(())
    }
}

/// An alias of 1 to 4 words, as a prompt has them; none for other texts.
fn read_alias(text: &str, entry: &SmallVec<[EntryDigest; 2]>) -> Option<Alias> {
    let words = alias_words(text)?;
    let first = words.first()?;
    let is_frequent = is_frequent(first);
    let fits = words.len() <= MOST_ALIAS_WORDS;
    let words = words.into_iter().map(WordDigest::of).collect();
    fits.then(|| Alias { entry: entry.clone(), words, is_frequent })
}

/// A destination that an entry can be.
struct EntryDestination<'e> {
    kind: DestinationKind,
    /// Form that a caller can write.
    written: Cow<'e, str>,
    canonical: String,
}

/// The destinations that an entry can be.
fn destinations(raw: &str) -> impl Iterator<Item = EntryDestination<'_>> {
    let meant = kinds(raw).filter(|_| raw.len() <= LONGEST);
    meant.filter_map(|(kind, written)| {
        let canonical = canonical(kind, &written).ok()?.text;
        Some(EntryDestination { kind, written, canonical })
    })
}

/// The kinds that an entry can be meant as, each with its written form. A path may be written like a mailbox, so an entry with
/// an `@` does not count as a path.
fn kinds(raw: &str) -> impl Iterator<Item = (DestinationKind, Cow<'_, str>)> {
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
fn digest(kind: DestinationKind, canonical: &str) -> EntryDigest {
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
    let mut digest = [0; DIGEST_BYTES];
    for (to, from) in digest.iter_mut().zip(hash.finalize()) {
        *to = from;
    }
    digest
}

/// Reads one row of a CSV file: text, aliases and line.
type RowVisitor<'v> =
    dyn FnMut(&str, &str, usize) -> Result<ControlFlow<()>, RecipientListError> + 'v;

/// Visits the entries of a CSV file: text, aliases and line.
fn csv(
    text: &str,
    column: &str,
    alias: Option<&str>,
    visit: &mut RowVisitor<'_>,
) -> Result<(), RecipientListError> {
    let mut rows = Rows { rest: text, line: 1 };
    let Some((_, header)) = rows.next_row()? else {
        return Err(RecipientListError {
            what: "it is empty, and has no header".to_owned(),
            line: 0,
        });
    };
    let place = place_of(&header, column)?;
    let alias = alias.map(|alias| place_of(&header, alias)).transpose()?;
    let width = header.len();
    while let Some((line, row)) = rows.next_row()? {
        if row.len() != width {
            let what = format!("{} fields, where the header has {width}", row.len());
            return Err(RecipientListError { what, line });
        }
        let field = |place: usize| row.get(place).map_or("", String::as_str);
        if visit(field(place), alias.map_or("", field), line)?.is_break() {
            break;
        }
    }
    Ok(())
}

/// The place of a column in a header.
fn place_of(header: &[String], column: &str) -> Result<usize, RecipientListError> {
    let mut places = header.iter().enumerate().filter(|(_, name)| name.trim() == column);
    match (places.next(), places.next()) {
        (Some((place, _)), None) => Ok(place),
        (Some(_), Some(_)) => {
            Err(RecipientListError { what: format!("it has two columns `{column}`"), line: 1 })
        }
        (None, _) => {
            Err(RecipientListError { what: format!("it has no column `{column}`"), line: 1 })
        }
    }
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
    fn next_row(&mut self) -> Result<Option<(usize, Vec<String>)>, RecipientListError> {
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
                return Err(RecipientListError { what, line: begin });
            }
            let (field, goes_on) = self.field()?;
            row.push(field);
            if !goes_on {
                return Ok(Some((begin, row)));
            }
        }
    }

    /// The next field, and whether another follows in the row.
    fn field(&mut self) -> Result<(String, bool), RecipientListError> {
        let mut field = String::new();
        if let Some(rest) = self.rest.strip_prefix('"') {
            self.rest = rest;
            let begin = self.line;
            loop {
                let Some((part, rest)) = self.rest.split_once('"') else {
                    let what = "a quotation mark that is never closed".to_owned();
                    return Err(RecipientListError { what, line: begin });
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
                return Err(RecipientListError { what, line: self.line });
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
                return Err(RecipientListError { what, line: self.line });
            }
        }
        Ok((field, false))
    }
}

/// State of one recipient list.
#[derive(Clone, Debug)]
pub struct RecipientListState {
    /// Its entries.
    pub entries: Arc<RecipientListEntries>,
    /// Time from which it is stale. `None`: never.
    pub fresh_until: Option<Time>,
}

/// The recipient lists whose state is known, by name.
#[derive(Clone, Debug, Default)]
pub struct RecipientLists(BTreeMap<String, RecipientListState>);

impl RecipientLists {
    /// Recipient lists in these states.
    #[must_use]
    pub const fn new(known: BTreeMap<String, RecipientListState>) -> Self {
        Self(known)
    }

    /// The recipient lists that are files of the bundle, all of them fresh. The state of the other recipient lists is unknown.
    #[must_use]
    pub fn of_files(files: &BTreeMap<String, Arc<RecipientListEntries>>) -> Self {
        let fresh = |(name, entries): (&String, &Arc<RecipientListEntries>)| {
            let state = RecipientListState { entries: Arc::clone(entries), fresh_until: None };
            (name.clone(), state)
        };
        Self(files.iter().map(fresh).collect())
    }

    /// The recipient lists of a bundle at their age.
    ///
    /// * `files`: entries of the recipient lists that are files of the bundle, by name.
    /// * `fetched`: entries of the recipient lists that were fetched, by name. The state of a recipient list in neither is unknown.
    /// * `as_of`: time of each recipient list that can become stale. A recipient list without a time is stale.
    #[must_use]
    pub fn aged(
        model: &Model,
        files: &BTreeMap<String, Arc<RecipientListEntries>>,
        fetched: &BTreeMap<String, Arc<RecipientListEntries>>,
        as_of: &BTreeMap<String, Time>,
    ) -> Self {
        let state = |(name, rule): (&String, &RecipientListRule)| {
            let entries = match &rule.from {
                RecipientListSource::File(_) => files.get(name)?,
                RecipientListSource::Url(_) => fetched.get(name)?,
            };
            let fresh_until = match rule.max_age {
                None => None,
                Some(age) => {
                    let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
                    Some(Time(as_of.get(name)?.0.saturating_add(age)))
                }
            };
            Some((name.clone(), RecipientListState { entries: Arc::clone(entries), fresh_until }))
        };
        Self(model.recipient_lists.iter().filter_map(state).collect())
    }

    /// Replaces the state of one recipient list. `None`: its state is unknown.
    pub fn set(&mut self, name: &str, state: Option<RecipientListState>) {
        match state {
            Some(state) => self.0.insert(name.to_owned(), state),
            None => self.0.remove(name),
        };
    }

    /// The last entries of a recipient list, also if they are too old. `None`: the entries are unknown.
    #[must_use]
    pub fn entries(&self, name: &str) -> Option<&RecipientListEntries> {
        self.0.get(name).map(|state| &*state.entries)
    }

    fn fresh(&self, name: &str, now: Time) -> Option<&RecipientListEntries> {
        let state = self.0.get(name)?;
        state.fresh_until.is_none_or(|until| now < until).then_some(&*state.entries)
    }
}

/// Answer of a recipient list about one destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecipientListAnswer {
    /// The recipient list lists the destination.
    Listed,
    /// The recipient list does not list it.
    NotListed,
    /// The entries of the recipient list are unknown, or too old.
    Stale,
}

/// A question about one destination.
#[derive(Clone, Copy)]
pub struct RecipientListQuery<'a> {
    recipient_lists: Option<&'a RecipientLists>,
    digest: EntryDigest,
    now: Time,
}

impl<'a> RecipientListQuery<'a> {
    /// The aliases of the destination in a recipient list that is fresh.
    pub fn aliases(&self, name: &str) -> impl Iterator<Item = &'a Alias> {
        let entries = self.recipient_lists.and_then(|lists| lists.fresh(name, self.now));
        let digest = self.digest;
        entries.into_iter().flat_map(move |entries| {
            let own: SmallVec<[&'a Alias; 4]> = entries.aliases_of(&digest).collect();
            own
        })
    }

    /// A question about a destination in the canonical form of its kind.
    ///
    /// `recipient_lists`: `None` if the state of no recipient list is known.
    #[must_use]
    pub fn new(
        recipient_lists: Option<&'a RecipientLists>,
        kind: DestinationKind,
        canonical: &str,
        now: Time,
    ) -> Self {
        Self { recipient_lists, digest: digest(kind, canonical), now }
    }

    /// Asks one recipient list, by name.
    #[must_use]
    pub fn ask(&self, name: &str) -> RecipientListAnswer {
        match self.recipient_lists.and_then(|recipient_lists| recipient_lists.fresh(name, self.now))
        {
            None => RecipientListAnswer::Stale,
            Some(entries) if entries.contains(&self.digest) => RecipientListAnswer::Listed,
            Some(_) => RecipientListAnswer::NotListed,
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn holds(entries: &RecipientListEntries, kind: DestinationKind, raw: &str) -> bool {
        entries.contains(&digest(kind, &canonical(kind, raw).unwrap().text))
    }

    #[test]
    fn an_entry_is_known_by_the_canonical_form_of_each_kind_that_it_can_be_meant_as() {
        let text = "\u{feff} Bob@ACME.example \r\n\nhttps://Pay.acme.example/in?x\nshop.example\n\
                    gb82 west 1234 5698 7654 32\nacct-7\n/exports/a\n@channel\n\
                    Bob <bob@evil.example>\n";
        let entries = RecipientListEntries::read(text.as_bytes(), Columns::default()).unwrap();
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
    fn the_first_entries_of_a_kind_are_read_as_a_caller_writes_them() {
        let lines =
            "shop.example\n\n ann@a.example \nann@a.example\nbob@b.example\ncid@c.example\n";
        let first = |text: &str, columns, kind, most| {
            first_entries(text.as_bytes(), columns, kind, most).unwrap()
        };
        let plain = Columns::default();
        let mail = first(lines, plain, DestinationKind::Email, 2);
        assert_eq!(vec!["ann@a.example", "bob@b.example"], mail);
        let hosts = first(lines, plain, DestinationKind::UrlHost, 2);
        assert_eq!(vec!["https://shop.example"], hosts);
        let columns = Columns { entry: Some("mail"), alias: Some("name") };
        let csv = "name,mail\nAnn,ann@a.example\nBob,\"bob@b.example\"\n";
        assert_eq!(
            vec!["ann@a.example", "bob@b.example"],
            first(csv, columns, DestinationKind::Email, 9)
        );
        assert!(first_entries(b"mail", columns, DestinationKind::Email, 1).is_err());
        // Reading ends at the bound: the defect behind it is not reached.
        let broken = format!("{csv}a,b,c\n");
        assert!(first_entries(broken.as_bytes(), columns, DestinationKind::Email, 9).is_err());
        assert_eq!(1, first(&broken, columns, DestinationKind::Email, 1).len());
    }

    #[test]
    fn a_column_is_read_as_rfc_4180_says() {
        let text = "name,\"email\",note\r\n\"A, \"\"B\"\"\nC\",a@x.example,\"\"\n\n,\"b@x.example\",x\r\n,,\nz,c@x.example,\r";
        let entries = RecipientListEntries::read(
            text.as_bytes(),
            Columns { entry: Some("email"), alias: None },
        )
        .unwrap();
        assert_eq!((3, 0), (entries.len(), entries.odd()));
        for raw in ["a@x.example", "b@x.example", "c@x.example"] {
            assert!(holds(&entries, DestinationKind::Email, raw), "{raw}");
        }
        assert_eq!(
            0,
            RecipientListEntries::read(b"email", Columns { entry: Some("email"), alias: None })
                .unwrap()
                .len()
        );
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
            let columns = Columns { entry: column, alias: None };
            let defect = RecipientListEntries::read(text.as_bytes(), columns).unwrap_err();
            assert_eq!(line, defect.line, "{defect}");
            assert!(defect.what.contains(what), "{defect}");
        }
        assert!(
            RecipientListEntries::read(b"a\xff", Columns::default())
                .unwrap_err()
                .what
                .contains("UTF-8")
        );
    }

    #[test]
    fn what_is_too_old_or_unknown_says_nothing() {
        let entries =
            Arc::new(RecipientListEntries::read(b"a@x.example", Columns::default()).unwrap());
        let known = |fresh_until| RecipientListState { entries: Arc::clone(&entries), fresh_until };
        let all = BTreeMap::from([
            ("old".to_owned(), known(Some(Time(10)))),
            ("kept".to_owned(), known(None)),
        ]);
        let all = RecipientLists::new(all);
        let ask = |raw: &str, name: &str, now| {
            RecipientListQuery::new(Some(&all), DestinationKind::Email, raw, Time(now)).ask(name)
        };
        assert_eq!(RecipientListAnswer::Listed, ask("a@x.example", "old", 9));
        assert_eq!(RecipientListAnswer::Stale, ask("a@x.example", "old", 10));
        assert_eq!(RecipientListAnswer::Listed, ask("a@x.example", "kept", i64::MAX));
        assert_eq!(RecipientListAnswer::NotListed, ask("b@x.example", "kept", 0));
        assert_eq!(RecipientListAnswer::Stale, ask("a@x.example", "other", 0));
        let nothing = RecipientListQuery::new(None, DestinationKind::Email, "a@x.example", Time(0));
        assert_eq!(RecipientListAnswer::Stale, nothing.ask("kept"));
    }

    #[test]
    fn aliases_are_read_by_entry_and_by_first_word() {
        let text = "mail,name\nmark@x.example,Mark Jones;MJ\nmia@x.example,\"Mia, PhD\"\n\
                    Mark@X.example,Mark\nwill@x.example,Will\nmarc@x.example,mark Smith\n\
                    a@x.example,one two three four five\n,Mark\n";
        let columns = Columns { entry: Some("mail"), alias: Some("name") };
        let entries = RecipientListEntries::read(text.as_bytes(), columns).unwrap();
        let of = |raw: &str| {
            let canonical = canonical(DestinationKind::Email, raw).unwrap().text;
            let digest = digest(DestinationKind::Email, &canonical);
            let aliases = entries.aliases_of(&digest);
            aliases.map(|alias| alias.words().len()).collect::<Vec<_>>()
        };
        let mut lengths = of("mark@x.example");
        lengths.sort_unstable();
        assert_eq!(vec![1, 1, 2], lengths);
        assert_eq!(Vec::<usize>::new(), of("mia@x.example"), "a comma in an alias");
        assert_eq!(Vec::<usize>::new(), of("a@x.example"), "more than four words");
        let marks: Vec<&Alias> = entries
            .aliases
            .iter()
            .filter(|alias| entries.rivals(alias).unwrap().len() == 3)
            .collect();
        assert_eq!(3, marks.len(), "Mark Jones, Mark and mark Smith");
        assert_eq!(
            2,
            marks.iter().filter(|alias| alias.is_of_same_entry(marks.first().unwrap())).count()
        );
        assert_eq!(1, entries.aliases.iter().filter(|alias| alias.is_frequent()).count());
        for (text, what) in
            [("mail\na@x.example", "no column `name`"), ("mail,name,name\na,b,c", "two columns")]
        {
            let defect = RecipientListEntries::read(text.as_bytes(), columns).unwrap_err();
            assert!(defect.what.contains(what), "{defect}");
        }
        let many: String =
            (0..=MOST_RIVALS).map(|n| format!("u{n}@x.example,Mark {n}a\n")).collect();
        let entries =
            RecipientListEntries::read(format!("mail,name\n{many}").as_bytes(), columns).unwrap();
        assert_eq!(None, entries.rivals(entries.aliases.first().unwrap()));
    }
}
