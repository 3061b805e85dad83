//! Which entry counts, what is never softened, and when an entry ends.
#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::location::Location;

const NOW: Time = Time(1_767_225_600_000); // 2026-01-01T00:00:00Z
const BOT: &str = "spiffe://corp.example/ns/support/sa/bot";

fn entry(word: &str) -> ModeRule {
    ModeRule {
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
        ..Modes::default()
    }
}

fn agent(spiffe_id: &str) -> Principal {
    Principal::Agent { spiffe_id: spiffe_id.to_owned(), trust_domain: String::new() }
}

const ANY: [ModeTarget<'static>; 1] = [ModeTarget { system: "crm", tiers: TierSet::UNKNOWN }];

fn tiers_of(tier: Option<Tier>) -> TierSet {
    tier.map_or(TierSet::UNKNOWN, TierSet::of)
}

fn observes(modes: &Modes, who: &str, system: &str, tier: Option<Tier>) -> bool {
    let chain: Vec<Principal> = (!who.is_empty()).then(|| agent(who)).into_iter().collect();
    let targets = [ModeTarget { system, tiers: tiers_of(tier) }];
    let asked = ModeQuery { chain: &chain, has_all_agents: true, targets: &targets };
    modes.softens(&asked, ReasonCode::NotPermitted, true, NOW)
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
    let asked = ModeQuery { chain: &[], has_all_agents: true, targets: &ANY };
    for (list, expected) in [(&observed[..], true), (&never[..], false)] {
        for reason in list {
            assert_eq!(expected, all.softens(&asked, *reason, true, NOW), "{reason:?}");
            assert!(!all.softens(&asked, *reason, false, NOW), "{reason:?}, not understood");
        }
    }
    let placed = observed.len() + never.len();
    assert_eq!(ReasonCode::ALL.len(), placed, "each code stands in one list");
}

/// A failure of Authz is not a denial by policy, for every reason code.
#[test]
fn no_failure_of_ours_is_softened() {
    for reason in ReasonCode::ALL {
        if reason.row().public_code == authz_base::reason::PublicCode::Unavailable {
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

/// What it is not known to be counts as the strictest that it may be.
#[test]
fn what_stopped_early_is_observed_only_where_all_that_it_may_be_is() {
    let high = TierSet::of(Tier::High);
    let standard = TierSet::of(Tier::Standard);
    let both = standard.union(high);
    let target = |system, tiers| ModeTarget { system, tiers };
    let critical = modes("observe", &[], &[], &[(Tier::Critical, "enforce")]);
    let by_high = modes("observe", &[], &[], &[(Tier::High, "enforce")]);
    let crm = modes("observe", &[("crm", "enforce")], &[], &[]);
    let only_crm = modes("enforce", &[("crm", "observe")], &[], &[]);
    let bot = modes("observe", &[], &[(BOT, "enforce")], &[]);
    let only_bot = modes("enforce", &[], &[(BOT, "observe")], &[]);
    let both_agents = modes("observe", &[], &[(BOT, "observe")], &[]);
    let (wiki_one, crm_one) = (target("wiki", standard), target("crm", standard));
    let unknown = target("", TierSet::UNKNOWN);
    for (what, modes, targets, whole, part) in [
        ("no tier of it is enforced", &critical, vec![target("wiki", both)], true, true),
        ("one of its tiers is enforced", &by_high, vec![target("wiki", both)], false, false),
        ("its one tier is not", &by_high, vec![wiki_one], true, true),
        ("one of its systems is enforced", &crm, vec![wiki_one, crm_one], false, false),
        ("none of its systems is", &crm, vec![wiki_one, unknown], true, true),
        ("a system that is not known: the default", &only_crm, vec![unknown], false, false),
        ("it may be of no known system", &only_crm, vec![crm_one, unknown], false, false),
        ("it is of the one system", &only_crm, vec![crm_one], true, true),
        (
            "it may be of our own",
            &critical,
            vec![wiki_one, target("authz", standard)],
            false,
            false,
        ),
        ("it may be of nothing", &critical, vec![], false, false),
        // Nobody of the chain is an agent that an entry names.
        ("an agent is enforced", &bot, vec![wiki_one], true, false),
        ("only an agent is observed", &only_bot, vec![wiki_one], false, false),
        ("no agent is enforced", &both_agents, vec![wiki_one], true, true),
    ] {
        for (has_all_agents, expected) in [(true, whole), (false, part)] {
            let asked = ModeQuery { chain: &[], has_all_agents, targets: &targets };
            assert_eq!(
                expected,
                modes.observes(&asked, NOW),
                "{what}, all agents: {has_all_agents}"
            );
        }
    }
}

#[test]
fn tiers_that_a_call_may_have() {
    let list = |set: TierSet| set.iter().flatten().collect::<Vec<_>>();
    let low = TierSet::of(Tier::Low);
    assert_eq!(vec![Tier::Low], list(low));
    assert_eq!(vec![Tier::Low, Tier::High], list(low.raised_to(Tier::High)));
    assert_eq!(
        vec![Tier::Low, Tier::Standard, Tier::High, Tier::Critical],
        list(low.raised_to(Tier::High).raised_by_one())
    );
    let critical = TierSet::of(Tier::Critical);
    assert_eq!(critical, critical.raised_to(Tier::Low).raised_by_one());
    assert_eq!(vec![None], TierSet::UNKNOWN.iter().collect::<Vec<_>>());
    assert_eq!(TierSet::UNKNOWN, TierSet::UNKNOWN.raised_to(Tier::Critical).raised_by_one());
}

/// Past its end an entry enforces; one without an end never observes.
#[test]
fn ends() {
    let mut modes = modes("observe", &[], &[], &[]);
    let asked = ModeQuery { chain: &[], has_all_agents: true, targets: &ANY };
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
        assert_eq!(end, rfc3339::seconds(end_of(text).unwrap().0), "{text}");
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
        let default = Some(ModeRule { until: end_of(until), at, ..entry("observe") });
        let mut found = Diagnostics::new();
        check(&Modes { default, ..Modes::default() }, now, &mut found);
        let said = found.iter().map(|one| one.to_string().replace("warning: ", ""));
        assert_eq!(expected, said.collect::<Vec<_>>().join("\n"), "{until}");
        assert_eq!(until == "2026-04-02", found.has_errors(), "{until}");
    }
}

/// Ids of agents: each pattern below matches one that no other matches, and some match several.
const AGENTS: [&str; 6] = [
    BOT,
    "spiffe://corp.example/ns/support/sa/two",
    "spiffe://corp.example/ns/sales/sa/bot",
    "spiffe://corp.example/ns/sales/sa/two",
    "spiffe://corp.example/ns/ops/sa/root",
    "spiffe://other.example/x",
];
const PATTERNS: [&str; 5] = [
    BOT,
    "spiffe://corp.example/ns/support/sa/*",
    "spiffe://corp.example/ns/*/sa/bot",
    "spiffe://corp.example/ns/*/sa/*",
    "spiffe://corp.example/ns/ops/sa/root",
];
const SYSTEMS: [&str; 4] = ["crm", "wiki", "", OWN];

/// What one call comes to of which everything is known: in the slowest words.
fn slow(modes: &Modes, agents: &[&str], system: &str, tier: Option<Tier>) -> bool {
    let mut entries: Vec<&ModeRule> = Vec::new();
    entries.extend(modes.systems.get(system));
    entries.extend(tier.and_then(|tier| modes.tiers.get(&tier)));
    for agent in agents {
        let of = |pattern: &&String| covers(pattern, agent);
        let matching: Vec<&String> = modes.agents.keys().filter(of).collect();
        for pattern in &matching {
            if !matching.iter().any(|other| other != pattern && covers(pattern, other)) {
                entries.extend(modes.agents.get(*pattern));
            }
        }
    }
    if entries.is_empty() {
        entries.extend(&modes.default);
    }
    system != OWN && !entries.is_empty() && entries.iter().all(|entry| entry.observes(NOW))
}

fn any_entry() -> impl Strategy<Value = ModeRule> {
    prop_oneof![
        4 => Just(entry("observe")),
        2 => Just(entry("enforce")),
        1 => Just(ModeRule { until: Some(NOW), ..entry("observe") }),
    ]
}

fn any_modes() -> impl Strategy<Value = Modes> {
    let some = |names: &'static [&'static str]| {
        let name = prop::sample::select(names).prop_map(str::to_owned);
        prop::collection::btree_map(name, any_entry(), 0..3)
    };
    let tiers =
        prop::collection::btree_map(prop::sample::select(&Tier::ALL[..]), any_entry(), 0..3);
    let default = prop::option::weighted(0.8, any_entry());
    (default, some(&SYSTEMS[..2]), some(&PATTERNS), tiers).prop_map(
        |(default, systems, agents, tiers)| Modes {
            default,
            systems,
            agents,
            tiers,
            ..Modes::default()
        },
    )
}

fn any_targets() -> impl Strategy<Value = Vec<(&'static str, u8)>> {
    prop::collection::vec((prop::sample::select(&SYSTEMS[..]), 1_u8..32), 0..3)
}

proptest! {
    /// A request is let through exactly where every call that it could have become is: any of its systems, any of its
    /// tiers, and any more agents where not all are known.
    #[test]
    fn all_that_it_may_be_is_observed(
        modes in any_modes(),
        targets in any_targets(),
        known in prop::sample::subsequence(&AGENTS[..], 0..3),
        has_all_agents in any::<bool>(),
    ) {
        let targets: Vec<ModeTarget<'_>> =
            targets.iter().map(|(system, tiers)| ModeTarget { system, tiers: TierSet(*tiers) }).collect();
        let chain: Vec<Principal> = known.iter().map(|id| agent(id)).collect();
        let asked = ModeQuery { chain: &chain, has_all_agents, targets: &targets };
        let mut chains = vec![known.clone()];
        if !has_all_agents {
            chains.extend(AGENTS.iter().map(|one| [known.as_slice(), &[*one]].concat()));
        }
        let calls = targets.iter().flat_map(|target| {
            target.tiers.iter().map(|tier| (target.system, tier)).collect::<Vec<_>>()
        });
        let mut all = calls.flat_map(|call| chains.iter().map(move |chain| (call, chain)));
        let expected = !targets.is_empty()
            && all.all(|((system, tier), chain)| slow(&modes, chain, system, tier));
        prop_assert_eq!(expected, modes.observes(&asked, NOW));
    }
}

/// The entry that is named is one that let the call through: a wider pattern that a narrower one replaces did not.
#[test]
fn the_named_entry_is_the_one_that_counts() {
    let wide = "spiffe://corp.example/ns/*/sa/bot";
    let narrow = "spiffe://corp.example/ns/support/sa/*";
    let named = |agents: &[(&str, &str)]| {
        let modes = modes("observe", &[], agents, &[]);
        let (scope, _) = modes.rule_for("crm", None, &[agent(BOT)], NOW).unwrap();
        scope.name().to_owned()
    };
    assert_eq!(BOT, named(&[("spiffe://corp.example/ns/*/sa/*", "observe"), (BOT, "observe")]));
    assert_eq!(
        narrow,
        named(&[("spiffe://corp.example/ns/*/sa/*", "observe"), (narrow, "observe")])
    );
    assert_eq!(wide, named(&[("spiffe://corp.example/ns/*/sa/*", "observe"), (wide, "observe")]));
}
