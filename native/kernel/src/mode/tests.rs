//! Which entry counts, what is never softened, and when an entry ends.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

const NOW: Time = Time(1_767_225_600_000); // 2026-01-01T00:00:00Z
const BOT: &str = "spiffe://corp.example/ns/support/sa/bot";

fn entry(word: &str) -> Entry {
    Entry {
        mode: if word == "observe" { Mode::Observe } else { Mode::Enforce },
        owner: "sec".to_owned(),
        until: Some(Time(NOW.0 + 1)),
        at: Location::default(),
    }
}

fn modes(
    default: &str,
    systems: &[(&str, &str)],
    agents: &[(&str, &str)],
    tiers: &[(Tier, &str)],
) -> Modes {
    let named = |list: &[(&str, &str)]| {
        list.iter().map(|(name, word)| ((*name).to_owned(), entry(word))).collect()
    };
    Modes {
        default: (!default.is_empty()).then(|| entry(default)),
        systems: named(systems),
        agents: named(agents),
        tiers: tiers.iter().map(|(tier, word)| (*tier, entry(word))).collect(),
    }
}

fn agent(spiffe_id: &str) -> Principal {
    Principal::Agent { spiffe_id: spiffe_id.to_owned(), trust_domain: String::new() }
}

fn observes(modes: &Modes, who: &str, system: &str, tier: Option<Tier>) -> bool {
    let chain: Vec<Principal> = (!who.is_empty()).then(|| agent(who)).into_iter().collect();
    modes.softens(&Asked { chain: &chain, system, tier }, ReasonCode::NotPermitted, true, NOW)
}

/// Every reason code, and whether it may be softened: a new one has to be placed here too.
#[test]
fn what_is_softened() {
    use ReasonCode as R;
    let observed = [
        R::NoCredential,
        R::EnforcerRefused,
        R::NoRoute,
        R::UnknownOperation,
        R::UnreviewedOperation,
        R::CatalogDrift,
        R::BadInput,
        R::NoTask,
        R::PolicyError,
        R::Forbidden,
        R::OutOfScope,
        R::UsesExhausted,
        R::TooDeep,
        R::ChainNotPermitted,
        R::NotPermitted,
        R::TierRequirement,
        R::BudgetExceeded,
        R::WindowFull,
        R::ExceptionExpired,
        R::ConfirmRequired,
        R::ApprovalRequired,
        R::ReauthRequired,
        R::ProofRequired,
        R::ApproverBusy,
    ];
    let never = [
        R::Permitted,
        R::BadCredential,
        R::ExpiredCredential,
        R::WrongAudience,
        R::UntrustedIssuer,
        R::UnboundCredential,
        R::BadProof,
        R::Replayed,
        R::Revoked,
        R::AmbiguousRequest,
        R::HeaderMismatch,
        R::NeedsProvider,
        R::UnknownTask,
        R::TaskEnded,
        R::NotAssignee,
        R::TaskConflict,
        R::IdempotencyConflict,
        R::ApprovalMismatch,
        R::ApprovalExpired,
        R::ApprovalRejected,
        R::Unavailable,
        R::StateUnavailable,
        R::StoreSlow,
        R::Deadline,
        R::Overloaded,
        R::AuditFull,
    ];
    let all = modes("observe", &[], &[], &[]);
    let asked = Asked { chain: &[], system: "crm", tier: None };
    for (list, expected) in [(&observed[..], true), (&never[..], false)] {
        for reason in list {
            assert_eq!(expected, all.softens(&asked, *reason, true, NOW), "{reason:?}");
            assert!(!all.softens(&asked, *reason, false, NOW), "{reason:?}, not understood");
        }
    }
    let placed = observed.len() + never.len();
    assert_eq!(ReasonCode::ALL.len(), placed, "each code stands in one list");
}

/// A failure of ours is none of policy's, whatever code it has.
#[test]
fn no_failure_of_ours_is_softened() {
    for reason in ReasonCode::ALL {
        if reason.row().public_code == crate::reason::PublicCode::Unavailable {
            assert!(!may_soften(reason), "{reason:?}");
        }
    }
}

/// The most specific entry counts, of several the stricter.
#[test]
fn which_entry_counts() {
    let all = ("spiffe://corp.example/ns/*/sa/*", "observe");
    let critical = (Tier::Critical, "enforce");
    for (what, modes, expected) in [
        ("nothing is said", modes("", &[], &[], &[]), false),
        ("default", modes("observe", &[], &[], &[]), true),
        ("default", modes("enforce", &[], &[], &[]), false),
        ("system over default", modes("observe", &[("crm", "enforce")], &[], &[]), false),
        ("system over default", modes("enforce", &[("crm", "observe")], &[], &[]), true),
        ("another system", modes("observe", &[("mail", "enforce")], &[], &[]), true),
        ("agent over default", modes("enforce", &[], &[(BOT, "observe")], &[]), true),
        ("exact over pattern", modes("", &[], &[all, (BOT, "enforce")], &[]), false),
        (
            "narrower pattern",
            modes("", &[], &[all, ("spiffe://corp.example/ns/support/sa/*", "enforce")], &[]),
            false,
        ),
        (
            "narrower pattern",
            modes(
                "",
                &[],
                &[
                    ("spiffe://corp.example/ns/*/sa/*", "enforce"),
                    ("spiffe://corp.example/ns/support/sa/*", "observe"),
                ],
                &[],
            ),
            true,
        ),
        (
            "patterns neither of which is narrower",
            modes(
                "observe",
                &[],
                &[
                    ("spiffe://corp.example/ns/*/sa/bot", "observe"),
                    ("spiffe://corp.example/ns/support/sa/*", "enforce"),
                ],
                &[],
            ),
            false,
        ),
        (
            "a longer pattern",
            modes("", &[], &[("spiffe://corp.example/ns/*", "observe")], &[]),
            false,
        ),
        ("system and agent", modes("", &[("crm", "enforce")], &[(BOT, "observe")], &[]), false),
        ("system and agent", modes("", &[("crm", "observe")], &[(BOT, "observe")], &[]), true),
        ("tier and system", modes("", &[("crm", "observe")], &[], &[critical]), false),
        ("tier over default", modes("observe", &[], &[], &[critical]), false),
    ] {
        assert_eq!(expected, observes(&modes, BOT, "crm", Some(Tier::Critical)), "{what}");
    }
    let tiers = modes("observe", &[], &[], &[critical]);
    assert!(observes(&tiers, "", "", None), "what is not known falls under the default");
    assert!(!observes(&tiers, BOT, "authz", None), "our own operations are enforced");
}

/// Past its end an entry enforces; one without an end never observes.
#[test]
fn ends() {
    let mut modes = modes("observe", &[], &[], &[]);
    let asked = Asked { chain: &[], system: "crm", tier: None };
    let softens = |modes: &Modes, at: i64| {
        modes.softens(&asked, ReasonCode::NotPermitted, true, Time(NOW.0 + at))
    };
    assert_eq!([true, false, false], [0, 1, 2].map(|at| softens(&modes, at)));
    assert!(modes.any_observes(NOW) && !modes.any_observes(Time(NOW.0 + 1)));
    modes.default.as_mut().unwrap().until = None;
    assert!(!softens(&modes, 0));
}

/// An ended entry is stricter than one that observes.
#[test]
fn an_ended_entry_is_an_enforcing_one() {
    let mut modes = modes("", &[("crm", "observe")], &[(BOT, "observe")], &[]);
    assert!(observes(&modes, BOT, "crm", None));
    modes.systems.get_mut("crm").unwrap().until = Some(NOW);
    assert!(!observes(&modes, BOT, "crm", None));
}

/// A day ends at its midnight in UTC; only one spelling is a day.
#[test]
fn how_an_end_is_written() {
    for (text, end) in [
        ("2026-01-31", "2026-02-01T00:00:00Z"),
        ("2026-12-31", "2027-01-01T00:00:00Z"),
        ("2026-01-31T18:00:00Z", "2026-01-31T18:00:00Z"),
        ("2026-01-31T18:00:00+02:00", "2026-01-31T16:00:00Z"),
    ] {
        assert_eq!(end, rfc3339(end_of(text).unwrap()), "{text}");
    }
    for text in
        ["", "2026-1-31", " 2026-01-31", "2026-02-30", "30d", "2026-01-31T18:00:00", "tomorrow"]
    {
        assert_eq!(None, end_of(text), "{text}");
    }
}

/// An end lies at most 90 days ahead, counted in days; one that is near or past is warned of.
#[test]
fn what_is_said_of_ends_when_loading() {
    let now = Time(NOW.0 + 15 * 3_600_000);
    for (until, expected) in [
        ("2026-04-01", ""),
        (
            "2026-04-02",
            "x.yaml:3:5: the default observes until 2026-04-03T00:00:00Z, more than 90 days ahead. \
             Say `until: 2026-04-01`, or earlier.",
        ),
        ("2026-01-08T15:00:01Z", ""),
        (
            "2026-01-08T15:00:00Z",
            "x.yaml:3:5: the default observes until 2026-01-08T15:00:00Z, 7 days from now; from then on it is \
             enforced. Look through `authz why --observed` first, and tell sec.",
        ),
        (
            "2026-01-01",
            "x.yaml:3:5: the default observes until 2026-01-02T00:00:00Z, 9 hours from now; from then on it is \
             enforced. Look through `authz why --observed` first, and tell sec.",
        ),
        (
            "2025-12-31",
            "x.yaml:3:5: the default observed until 2026-01-01T00:00:00Z; it is enforced now. Say `enforce`, or name a \
             new end.",
        ),
    ] {
        let at = Location { file: "x.yaml".to_owned(), line: 3, column: 5 };
        let default = Some(Entry { until: end_of(until), at, ..entry("observe") });
        let mut found = Diagnostics::new();
        check(&Modes { default, ..Modes::default() }, now, &mut found);
        let said = found.iter().map(|one| one.to_string().replace("warning: ", ""));
        assert_eq!(expected, said.collect::<Vec<_>>().join("\n"), "{until}");
        assert_eq!(until == "2026-04-02", found.has_errors(), "{until}");
    }
}
