//! Nouns of things that have ids: `invoice 4711`, `PR 7`, `Zimmer 12`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

/// Nouns with one meaning; the first of them stands in readings. English and German, in the singular; plurals that no rule
/// makes stand there, too.
const GROUPS: &[&[&str]] = &[
    &["account", "konto", "konten"],
    &["booking", "reservation", "buchung", "reservierung"],
    &["branch"],
    &["card", "karte"],
    &["case", "vorgang", "vorgänge"],
    &["channel", "kanal", "kanäle"],
    &["claim", "schaden", "schäden"],
    &["commit"],
    &["contact", "kontakt"],
    &["contract", "vertrag", "verträge"],
    &["coupon", "voucher", "gutschein"],
    &["customer", "client", "kunde", "kundin", "kundinnen"],
    &["employee", "mitarbeiter", "mitarbeiterin"],
    &["event", "meeting", "appointment", "termin", "besprechung"],
    &["file", "document", "doc", "datei", "dokument"],
    &["flight", "flug", "flüge"],
    &["folder", "directory", "ordner", "verzeichnis", "verzeichnisse"],
    &["group", "gruppe"],
    &["invoice", "bill", "rechnung"],
    &["issue"],
    &["job"],
    &["list", "liste"],
    &["message", "mail", "email", "nachricht"],
    &["note", "notiz"],
    &["offer", "quote", "angebot"],
    &["order", "bestellung", "auftrag", "aufträge"],
    &["page", "seite"],
    &["payment", "transfer", "transaction", "zahlung", "überweisung", "transaktion"],
    &["product", "item", "article", "produkt", "artikel"],
    &["project", "projekt"],
    &["pull request", "pull", "pr", "mr", "merge request"],
    &["refund", "erstattung"],
    &["release", "version"],
    &["repository", "repo"],
    &["return", "rma", "retoure"],
    &["room", "zimmer", "raum", "räume"],
    &["run", "build"],
    &["seat", "sitz", "platz", "plätze"],
    &["shipment", "parcel", "package", "delivery", "sendung", "paket", "lieferung"],
    &["sku"],
    &["task", "todo", "aufgabe"],
    &["team"],
    &["ticket"],
    &["train", "zug", "züge"],
    &["user", "benutzer", "nutzer"],
];
/// Last words of an argument's name that do not tell its noun.
const ENDS: &[&str] =
    &["id", "ids", "key", "keys", "name", "names", "no", "number", "numbers", "ref", "uuid"];
/// Words between a noun and its number.
const FILLERS: &[&str] = &["number", "no", "nr", "nummer", "id", "#", "№"];
/// Nouns that are verbs, too: "order 5 chairs".
const VERBS: &[&str] = &[
    "book", "bill", "file", "issue", "list", "mail", "message", "note", "order", "page", "pull",
    "return", "run",
];

/// Whether a word of small letters stands between a noun and its number.
pub(super) fn is_filler(word: &str) -> bool {
    FILLERS.contains(&word)
}

/// Whether a noun is a verb, too.
pub(super) fn is_verb(noun: &str) -> bool {
    VERBS.contains(&noun)
}

/// Each noun and its plurals, with the noun of readings and whether it is a plural. Made once: prompts have many words.
static FORMS: LazyLock<BTreeMap<String, (&'static str, bool)>> = LazyLock::new(|| {
    let mut forms = BTreeMap::new();
    for group in GROUPS {
        let Some(first) = group.first() else { continue };
        for plural in group.iter().flat_map(|noun| plurals(noun)) {
            forms.entry(plural).or_insert((*first, true));
        }
    }
    // German nouns such as `zimmer` are their own plurals.
    for group in GROUPS {
        let Some(first) = group.first() else { continue };
        forms.extend(group.iter().map(|noun| ((*noun).to_owned(), (*first, false))));
    }
    forms
});

/// The noun of readings for a word or two in small letters, and whether it is a plural; none if no thing is called so.
pub(super) fn noun(word: &str) -> Option<(&'static str, bool)> {
    FORMS.get(word).copied()
}

fn plurals(noun: &str) -> impl Iterator<Item = String> {
    let english = match (noun.strip_suffix('y'), noun.ends_with(['s', 'x', 'z'])) {
        (Some(stem), _) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
        (None, true) => format!("{noun}es"),
        _ if noun.ends_with("ch") || noun.ends_with("sh") => format!("{noun}es"),
        _ => format!("{noun}s"),
    };
    [english].into_iter().chain(["n", "en", "e"].into_iter().map(move |end| format!("{noun}{end}")))
}

fn singulars(noun: &str) -> impl Iterator<Item = String> {
    let english = noun.strip_suffix("ies").map(|stem| format!("{stem}y"));
    let cut = |end: &'static str| {
        let stem = noun.strip_suffix(end)?;
        (stem.chars().count() >= 2).then(|| stem.to_owned())
    };
    english.into_iter().chain(["s", "es", "n", "en", "e"].into_iter().filter_map(cut))
}

/// The words that a user says for a thing of a collection or an argument of this name: singular and plural, in English and
/// German, and other nouns of the same meaning. In small letters. For example, `order_id` gives `order`, `orders`,
/// `bestellung` and `aufträge`, among others.
#[must_use]
pub fn noun_forms(name: &str) -> BTreeSet<String> {
    let mut forms = BTreeSet::new();
    let mut parts = parts(name);
    while parts.last().is_some_and(|part| ENDS.contains(&part.as_str())) {
        parts.pop();
    }
    let Some(last) = parts.pop() else { return forms };
    let two = parts.last().map(|before| format!("{before} {last}"));
    for word in [Some(last), two].into_iter().flatten() {
        let mut all: BTreeSet<String> = singulars(&word).chain(plurals(&word)).collect();
        all.insert(word);
        let group = GROUPS.iter().find(|group| group.iter().any(|noun| all.contains(*noun)));
        for noun in group.copied().unwrap_or_default() {
            all.extend(plurals(noun));
            all.insert((*noun).to_owned());
        }
        // Of a noun of two words, the last stands before the number.
        forms.extend(all.into_iter().filter_map(|form| {
            form.rsplit(' ').next().filter(|form| form.chars().count() > 1).map(str::to_owned)
        }));
    }
    forms
}

/// The words of a name such as `order_id`, `orderId` or `pull-requests`, in small letters.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut was_small = false;
    for c in name.chars().take(64) {
        if !c.is_alphanumeric() || c.is_uppercase() && was_small {
            parts.push(String::new());
        }
        was_small = c.is_lowercase();
        if let Some(part) = parts.last_mut().filter(|_| c.is_alphanumeric()) {
            part.extend(c.to_lowercase());
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_noun_is_read_in_singular_and_plural() {
        for (word, expected) in [
            ("invoice", Some(("invoice", false))),
            ("invoices", Some(("invoice", true))),
            ("rechnungen", Some(("invoice", true))),
            ("aufträge", Some(("order", false))),
            ("deliveries", Some(("shipment", true))),
            ("branches", Some(("branch", true))),
            ("pr", Some(("pull request", false))),
            ("zimmer", Some(("room", false))),
            ("section", None),
            ("", None),
        ] {
            assert_eq!(expected, noun(word), "{word}");
        }
    }

    #[test]
    fn a_name_gives_the_words_that_users_say() {
        for (name, says) in [
            ("invoices", "invoice"),
            ("invoices", "rechnung"),
            ("invoiceId", "invoices"),
            ("order_number", "bestellung"),
            ("pull_requests", "pr"),
            ("pull_requests", "request"),
            ("pulls", "request"),
            ("calendar_events", "termine"),
            ("boxes", "box"),
            ("rechnungen", "rechnung"),
            ("widgets", "widget"),
            ("rooms", "zimmer"),
        ] {
            assert!(noun_forms(name).contains(says), "{name} {says}: {:?}", noun_forms(name));
        }
        for name in ["id", "", "ids", "_", "uuid"] {
            assert!(noun_forms(name).is_empty(), "{name}");
        }
        assert!(!noun_forms("invoices").contains("order"));
    }
}
