//! Ends of exceptions at the time of loading.

use std::collections::BTreeMap;

use super::*;
use crate::source::BundleReader;

const FACTS: &str = "
agents: {nightly: {match: [spiffe://a.example/ns/erp/sa/job]}}
catalog: {erp: {kind: http, operations: {read: {}}}}
classify: [{match: erp.read, effects: [read]}]
";

/// 2026-12-01T10:00:00Z.
const NOW: Time = Time(1_796_119_200_000);

/// The messages about a bundle with these keys of `bundle.yaml`, and an exception that lasts until `expires`.
fn messages(settings: &str, expires: &str) -> String {
    let manifest = format!("{{name: a, tasks: optional{settings}}}");
    let facts = format!(
        "{FACTS}exceptions: {{old: {{who: nightly, operations: [erp.*], owner: erp-team, reason: no OAuth, ticket: ERP-7, \
         expires: {expires}}}}}"
    );
    let files = BTreeMap::from([
        ("bundle.yaml".to_owned(), manifest.into_bytes()),
        ("facts.yaml".to_owned(), facts.into_bytes()),
    ]);
    let vars = BTreeMap::new();
    let reader = BundleReader::new(&files, &vars, |_, _, _| Ok(())).at(NOW);
    match reader.read() {
        Ok(bundle) => bundle.model().warnings.iter().map(ToString::to_string).collect(),
        Err(found) => found.to_string(),
    }
}

#[test]
fn ends() {
    for (settings, expires, message) in [
        ("", "2026-12-16", ""),
        ("", "2027-12-01", ""),
        (
            "",
            "2027-12-02",
            "facts.yaml:5:14: exception `old` lasts until 2027-12-03T00:00:00Z, more than 365 days ahead. Say `expires: \
             2027-12-01`, or earlier.",
        ),
        (", max_exception_days: 30", "2026-12-31", ""),
        (
            ", max_exception_days: 30",
            "2027-01-01",
            "facts.yaml:5:14: exception `old` lasts until 2027-01-02T00:00:00Z, more than 30 days ahead. Say `expires: \
             2026-12-31`, or earlier.",
        ),
        (
            "",
            "2026-12-14",
            "facts.yaml:5:14: warning: exception `old` expires at 2026-12-15T00:00:00Z, 13 days from now. Tell erp-team: remove the need \
             for it, or renew ERP-7.",
        ),
        (
            "",
            "2026-12-01T12:00:00Z",
            "facts.yaml:5:14: warning: exception `old` expires at 2026-12-01T12:00:00Z, less than a day from now. Tell erp-team: remove \
             the need for it, or renew ERP-7.",
        ),
        (
            "",
            "2026-12-01T10:00:00Z",
            "facts.yaml:5:14: warning: exception `old` expired at 2026-12-01T10:00:00Z: it applies to no call. Remove it, or let \
             erp-team renew ERP-7 and set a new `expires`.",
        ),
        (
            ", max_exception_days: 366",
            "2027-01-01",
            "bundle.yaml:1:48: `max_exception_days` is 366, and may be 1 to 365. Write another number.",
        ),
    ] {
        let found = messages(settings, expires);
        let found = found.lines().filter(|line| !line.contains("no template")).collect::<String>();
        assert_eq!(message, found, "{settings} {expires}");
    }
}
