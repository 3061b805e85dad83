//! Break-glass: emergency exceptions that two people put in force.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::principal::{Principal, Subject};
use crate::record::StoredValue;
use crate::time::Time;

/// Time for which a record is kept after its end, in milliseconds.
const KEPT_MS: i64 = 24 * 60 * 60 * 1_000;

/// Person who opened or confirmed break-glass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakglassPerson {
    /// Alias of the person's issuer.
    pub issuer: String,
    /// Subject of the person at the issuer.
    pub sub: String,
    /// `<issuer alias>/<sub>`, percent-encoded.
    pub name: String,
}

impl BreakglassPerson {
    /// Whether a subject is the person.
    #[must_use]
    pub fn is(&self, subject: &Subject) -> bool {
        self.issuer == subject.issuer && self.sub == subject.sub
    }
}

/// Confirmation by a second person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BreakglassConfirmation {
    /// The person, who must not be the person who opened the request.
    pub by: BreakglassPerson,
    /// Time of the confirmation.
    pub at: Time,
    /// Time from which the exception is no longer in force.
    pub ends_at: Time,
}

/// End before its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BreakglassEnd {
    /// Name of the person, or of the owner of the administration socket.
    pub by: String,
    /// Time of the end.
    pub at: Time,
}

/// Status of a request for break-glass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BreakglassStatus {
    /// It waits for a second person.
    Open,
    /// It is in force.
    InForce,
    /// Its time is over.
    Expired,
    /// Somebody ended it.
    Ended,
    /// Nobody confirmed it in time.
    Unconfirmed,
}

impl BreakglassStatus {
    /// The word in commands, records and readiness.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::InForce => "in_force",
            Self::Expired => "expired",
            Self::Ended => "ended",
            Self::Unconfirmed => "unconfirmed",
        }
    }

    /// Whether it counts against the number of live requests: it is open or in force.
    #[must_use]
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Open | Self::InForce)
    }
}

/// Request for break-glass: an exception for the calls of one system, in force from the confirmation by a second person until its
/// end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Breakglass {
    /// Id of the request.
    pub id: String,
    /// System that it is for.
    pub system: String,
    /// SPIFFE id of the only agent that it is for. Default: all callers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Time for which it is in force, in milliseconds from the confirmation.
    pub duration_ms: i64,
    /// Reason, in the words of the person who opened it.
    pub reason: String,
    /// Ticket in which the emergency is handled.
    pub ticket: String,
    /// Person who opened it.
    pub opened_by: BreakglassPerson,
    /// Time of the request.
    pub opened_at: Time,
    /// Time from which it can no longer be confirmed.
    pub confirm_before: Time,
    /// Confirmation. Default: nobody has confirmed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<BreakglassConfirmation>,
    /// End before its time. Default: nobody has ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<BreakglassEnd>,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl Breakglass {
    /// Status at a time.
    #[must_use]
    pub fn status(&self, now: Time) -> BreakglassStatus {
        match (&self.ended, &self.confirmed) {
            (Some(_), _) => BreakglassStatus::Ended,
            (None, Some(confirmed)) if now < confirmed.ends_at => BreakglassStatus::InForce,
            (None, Some(_)) => BreakglassStatus::Expired,
            (None, None) if now < self.confirm_before => BreakglassStatus::Open,
            (None, None) => BreakglassStatus::Unconfirmed,
        }
    }

    /// The confirmation, if the exception is in force at a time.
    #[must_use]
    pub fn in_force(&self, now: Time) -> Option<&BreakglassConfirmation> {
        let confirmed = self.confirmed.as_ref()?;
        (self.status(now) == BreakglassStatus::InForce).then_some(confirmed)
    }

    /// Latest time at which it is live, as far as it is known now.
    #[must_use]
    pub fn live_until(&self) -> Time {
        match (&self.ended, &self.confirmed) {
            (Some(ended), _) => ended.at,
            (None, Some(confirmed)) => confirmed.ends_at,
            (None, None) => self.confirm_before,
        }
    }

    /// Whether it is for a call of a chain at a system. It is for no call on behalf of a person who opened or confirmed it.
    ///
    /// `chain` has the subject first and the caller last.
    #[must_use]
    pub fn is_for(&self, system: &str, chain: &[Principal]) -> bool {
        let is_agent = match (&self.agent, chain.last()) {
            (None, Some(_)) => true,
            (Some(agent), Some(Principal::Agent { spiffe_id, .. })) => agent == spiffe_id,
            _ => false,
        };
        self.system == system && is_agent && !chain.iter().any(|one| self.is_of_person(one))
    }

    fn is_of_person(&self, principal: &Principal) -> bool {
        let (Principal::User(subject) | Principal::Service(subject)) = principal else {
            return false;
        };
        let confirmed_by = self.confirmed.as_ref().map(|confirmed| &confirmed.by);
        self.opened_by.is(subject) || confirmed_by.is_some_and(|person| person.is(subject))
    }

    /// Number of changes that led to this version. Of two versions the one with the greater number is newer.
    const fn version(&self) -> u8 {
        match (&self.ended, &self.confirmed) {
            (Some(_), _) => 2,
            (None, Some(_)) => 1,
            (None, None) => 0,
        }
    }
}

impl StoredValue for Breakglass {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.id)
    }

    fn record_due(&self) -> Option<Time> {
        Some(Time(self.live_until().0.saturating_add(KEPT_MS)))
    }
}

/// All records of break-glass that a node knows, by id.
#[derive(Clone, Debug, Default)]
pub struct Breakglasses {
    by_id: BTreeMap<String, Arc<Breakglass>>,
}

impl Breakglasses {
    /// Adds a record, unless a newer version of it is known: news of other nodes come in any order.
    pub fn insert(&mut self, record: Arc<Breakglass>) {
        let known = self.by_id.get(&record.id);
        if known.is_none_or(|known| known.version() <= record.version()) {
            self.by_id.insert(record.id.clone(), record);
        }
    }

    /// Removes a record. Returns whether it was known.
    pub fn remove(&mut self, id: &str) -> bool {
        self.by_id.remove(id).is_some()
    }

    /// Returns whether there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// All records, the earliest id first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Breakglass>> {
        self.by_id.values()
    }

    /// The first record that is in force for a call of a chain at a system, with its confirmation.
    #[must_use]
    pub fn find_in_force(
        &self,
        system: &str,
        chain: &[Principal],
        now: Time,
    ) -> Option<(&Breakglass, &BreakglassConfirmation)> {
        let of_call = self.by_id.values().filter(|one| one.is_for(system, chain));
        of_call.map(AsRef::as_ref).find_map(|one| Some((one, one.in_force(now)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(sub: &str) -> BreakglassPerson {
        let (issuer, sub) = ("corp".to_owned(), sub.to_owned());
        BreakglassPerson { name: format!("corp/{sub}"), issuer, sub }
    }

    fn opened() -> Breakglass {
        Breakglass {
            id: "one".to_owned(),
            system: "crm".to_owned(),
            agent: None,
            duration_ms: 1_000,
            reason: "r".to_owned(),
            ticket: "T-1".to_owned(),
            opened_by: person("ann"),
            opened_at: Time(0),
            confirm_before: Time(500),
            confirmed: None,
            ended: None,
            rest: BTreeMap::new(),
        }
    }

    fn confirmed() -> Breakglass {
        let confirmed =
            BreakglassConfirmation { by: person("bob"), at: Time(400), ends_at: Time(1_400) };
        Breakglass { confirmed: Some(confirmed), ..opened() }
    }

    fn ended() -> Breakglass {
        let ended = BreakglassEnd { by: "corp/ann".to_owned(), at: Time(700) };
        Breakglass { ended: Some(ended), ..confirmed() }
    }

    fn agent(path: &str) -> Principal {
        let spiffe_id = format!("spiffe://corp.example/{path}");
        Principal::Agent { spiffe_id, trust_domain: "corp.example".to_owned() }
    }

    fn user(sub: &str) -> Principal {
        let (issuer, sub) = ("corp".to_owned(), sub.to_owned());
        Principal::User(Arc::new(Subject { issuer, sub, ..Subject::default() }))
    }

    /// Each limit is the first time at which the status changes.
    #[test]
    fn the_status_follows_the_times() {
        use BreakglassStatus as S;
        let at = |record: &Breakglass, times: [i64; 2]| times.map(|now| record.status(Time(now)));
        assert_eq!([S::Open, S::Unconfirmed], at(&opened(), [499, 500]));
        assert_eq!([S::InForce, S::Expired], at(&confirmed(), [1_399, 1_400]));
        assert_eq!([S::Ended, S::Ended], at(&ended(), [0, 2_000]));
        assert!(opened().in_force(Time(1)).is_none() && ended().in_force(Time(1)).is_none());
    }

    /// A request is for one system, for one agent if it names one, and never for its own people.
    #[test]
    fn a_request_is_for_the_calls_that_it_names() {
        let one = confirmed();
        assert!(one.is_for("crm", &[user("eve"), agent("bot")]));
        assert!(!one.is_for("erp", &[agent("bot")]) && !one.is_for("crm", &[]));
        assert!(!one.is_for("crm", &[user("ann"), agent("bot")]));
        assert!(!one.is_for("crm", &[user("bob"), agent("bot")]));
        let named = Breakglass { agent: Some("spiffe://corp.example/bot".to_owned()), ..one };
        assert!(named.is_for("crm", &[agent("bot")]) && !named.is_for("crm", &[agent("other")]));
        assert!(!named.is_for("crm", &[agent("bot"), agent("other")]));
        assert!(!named.is_for("crm", &[user("eve")]));
    }

    /// News that come late bring no exception back into force.
    #[test]
    fn an_older_version_replaces_no_newer_one() {
        let mut all = Breakglasses::default();
        for version in [confirmed(), ended(), confirmed(), opened()] {
            all.insert(Arc::new(version));
        }
        assert!(all.find_in_force("crm", &[agent("bot")], Time(600)).is_none());
        assert_eq!(1, all.iter().count());
        assert!(all.remove("one") && all.is_empty());
    }

    /// Ended requests are listed for a day.
    #[test]
    fn a_record_is_kept_for_a_day_after_its_end() {
        let due = |record: Breakglass| record.record_due().map_or(0, |due| due.0 - KEPT_MS);
        assert_eq!([500, 1_400, 700], [due(opened()), due(confirmed()), due(ended())]);
    }
}
