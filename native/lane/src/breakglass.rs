//! Break-glass: an exception that no bundle lists, for the calls at one system. Two people put it in force over an administration
//! socket; the host of the engine has verified who they are.
//!
//! INVARIANT (two people): one person opens a request, and another one confirms it. Neither can be the subject of a call that
//! it covers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{
    AgentName, Breakglass, BreakglassConfirmation, BreakglassEnd, BreakglassPerson,
    BreakglassStatus, Record, RecordKey, RecordKind,
};
use authz_state::store::{Page, Query, Survives, Transaction};
use prost::Message as _;

use crate::api_call::{ApiCaller, ApiOutcome, GrantedChange, WithRecord as _};
use crate::approval_api::{Person, error_of};
use crate::engine::Engine;
use crate::judgement::{ApiNotes, ApiRecord, BreakglassNote, CallerIdentity};
use crate::keeper::ChangeError;
use crate::limits;
use crate::proto::authz::v1 as wire;
use crate::protobuf::timestamp;
use crate::refusal::{CallRefusal, Step};
use crate::request::{check_id, check_length};
use crate::revoke;
use crate::settings::Surface;
use crate::transport::{ApiError, Transport};

/// Operation of Authz that the record of each such call names.
const OPERATION: &str = "authz.breakglass";
/// Id that every change locks, so that live requests can be counted.
const LOCK: &str = "*";
/// Time for a second person to confirm a request, in milliseconds.
const CONFIRM_MS: i64 = 15 * 60 * 1_000;
/// Longest time for which break-glass is in force.
const MOST_SECONDS: u32 = 60 * 60;
/// Requests of a store that are open or in force.
const MOST_LIVE: usize = 16;
/// Requests that a store keeps, with ended ones. The ones that ended first make room for new ones.
const MOST_KEPT: usize = 128;
/// Operations that an answer names.
const MOST_OPERATIONS: usize = 100;
/// Name in records of a caller that is not a person of the configuration.
const OWNER: &str = "owner of the administration socket";

impl Engine {
    /// Opens a request for break-glass for a person.
    ///
    /// `person` is JSON, and `request` an `authz.v1.OpenBreakglassRequest`. The answer is an `authz.v1.OpenBreakglassResponse`.
    ///
    /// # Errors
    /// The caller is not a person of the configuration, or is revoked; the request is not valid; there are 16 live requests; or the
    /// store failed.
    pub fn breakglass_open(&self, person: &[u8], request: &[u8]) -> Result<Vec<u8>, ApiError> {
        self.guarded_breakglass(|| {
            let message: wire::OpenBreakglassRequest =
                self.decode(request, "the bytes are no OpenBreakglassRequest").map_err(error_of)?;
            let note = BreakglassNote::of_request(&message);
            let opened =
                self.breakglass_call(Surface::BreakglassOpen, person, note, |caller, person| {
                    self.open_breakglass(&message, caller, person)
                })?;
            let operations = self.operations_with_breakglass(&opened.system);
            let breakglass = Some(self.breakglass_to_wire(&opened));
            Ok(wire::OpenBreakglassResponse { breakglass, operations }.encode_to_vec())
        })
    }

    /// Confirms a request for break-glass for a person: it is in force from then on.
    ///
    /// `person` is JSON, and `request` an `authz.v1.ConfirmBreakglassRequest`. The answer is an
    /// `authz.v1.ConfirmBreakglassResponse`.
    ///
    /// # Errors
    /// The caller is not a person of the configuration, is revoked, or opened the request; the request is not open; or the store
    /// failed.
    pub fn breakglass_confirm(&self, person: &[u8], request: &[u8]) -> Result<Vec<u8>, ApiError> {
        self.guarded_breakglass(|| {
            let message: wire::ConfirmBreakglassRequest = self
                .decode(request, "the bytes are no ConfirmBreakglassRequest")
                .map_err(error_of)?;
            let note = BreakglassNote::of_id("confirm", &message.id);
            let confirmed = self.breakglass_call(
                Surface::BreakglassConfirm,
                person,
                note,
                |caller, person| self.confirm_breakglass(&message.id, caller, person),
            )?;
            let operations = self.operations_with_breakglass(&confirmed.system);
            let breakglass = Some(self.breakglass_to_wire(&confirmed));
            Ok(wire::ConfirmBreakglassResponse { breakglass, operations }.encode_to_vec())
        })
    }

    /// Ends break-glass before its time, or withdraws a request for it.
    ///
    /// `person` is JSON, `null` for a caller that is not a person of the configuration. `request` is an
    /// `authz.v1.EndBreakglassRequest`, the answer an `authz.v1.EndBreakglassResponse`.
    ///
    /// # Errors
    /// There is no such request, it has ended already, or the store failed.
    pub fn breakglass_end(&self, person: &[u8], request: &[u8]) -> Result<Vec<u8>, ApiError> {
        self.guarded_breakglass(|| {
            let message: wire::EndBreakglassRequest =
                self.decode(request, "the bytes are no EndBreakglassRequest").map_err(error_of)?;
            let note = BreakglassNote::of_id("end", &message.id);
            let ended =
                self.breakglass_call(Surface::BreakglassEnd, person, note, |caller, person| {
                    self.end_breakglass(&message.id, caller, person)
                })?;
            let breakglass = Some(self.breakglass_to_wire(&ended));
            Ok(wire::EndBreakglassResponse { breakglass }.encode_to_vec())
        })
    }

    /// Lists the requests for break-glass of the store, the newest first. The answer is an `authz.v1.ListBreakglassResponse`.
    ///
    /// # Errors
    /// The bytes are not an `authz.v1.ListBreakglassRequest`, or the store failed.
    pub fn breakglass_list(&self, request: &[u8]) -> Result<Vec<u8>, ApiError> {
        self.guarded_breakglass(|| {
            let wire::ListBreakglassRequest {} =
                self.decode(request, "the bytes are no ListBreakglassRequest").map_err(error_of)?;
            let query = Query::Kind(RecordKind::Breakglass);
            let page = Page { after: String::new(), most: MOST_KEPT };
            let found = self.keeper.find(&query, &page, self.host_wait()).map_err(error_of)?;
            let mut records: Vec<_> = found.into_iter().filter_map(breakglass_of).collect();
            records.sort_by_key(|one| std::cmp::Reverse((one.opened_at, one.id.clone())));
            let breakglass = records.iter().map(|one| self.breakglass_to_wire(one)).collect();
            Ok(wire::ListBreakglassResponse { breakglass }.encode_to_vec())
        })
    }

    fn guarded_breakglass(
        &self,
        run: impl FnOnce() -> Result<Vec<u8>, ApiError>,
    ) -> Result<Vec<u8>, ApiError> {
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err(self.failed_inside()))
    }

    /// Runs a call of the host for a person, and records it. A refused call has a record, too.
    fn breakglass_call(
        &self,
        surface: Surface,
        person: &[u8],
        note: BreakglassNote,
        run: impl FnOnce(&ApiCaller<'_>, Option<&Person>) -> ApiOutcome<Arc<Breakglass>>,
    ) -> Result<Arc<Breakglass>, ApiError> {
        let person = Person::read(person).map_err(error_of)?;
        let world = self.host_world().map_err(error_of)?;
        let transport = Transport::at("", self.clock.monotonic());
        let chain = person.iter().map(|person| person.principal.clone()).collect();
        let caller = ApiCaller {
            arrival: self.arrival(surface, Some(Arc::clone(&world)), &transport),
            world,
            identity: CallerIdentity { chain, ..CallerIdentity::default() },
            evidence: Vec::new(),
            is_owner: person.is_none(),
            transport: &transport,
            line: self.recorded(&transport),
            wait: self.host_wait(),
            operation: OPERATION,
        };
        let record = record_of(note);
        let outcome = run(&caller, person.as_ref()).with_record(&record);
        let (record, answer) = self.conclude_call(caller, outcome);
        self.answer_of(&record, answer)
    }

    fn open_breakglass(
        &self,
        message: &wire::OpenBreakglassRequest,
        caller: &ApiCaller<'_>,
        person: Option<&Person>,
    ) -> ApiOutcome<Arc<Breakglass>> {
        let opened_by = self.acting_person(person)?;
        let now = caller.now();
        let request = Arc::new(read_request(message, caller, opened_by, self.clock.new_id())?);
        self.change_breakglass(caller, "open", &mut |transaction| {
            let known = all_of(transaction)?;
            let live = known.iter().filter(|one| one.status(now).is_live()).count();
            if live >= MOST_LIVE {
                let message = format!(
                    "{MOST_LIVE} requests for break-glass are open or in force already; end one"
                );
                return Err(CallRefusal::new(ReasonCode::Overloaded, Step::Record, message).into());
            }
            make_room(transaction, known, now);
            Ok((Arc::clone(&request), "the request for break-glass waits for a second person"))
        })
    }

    fn confirm_breakglass(
        &self,
        id: &str,
        caller: &ApiCaller<'_>,
        person: Option<&Person>,
    ) -> ApiOutcome<Arc<Breakglass>> {
        let by = self.acting_person(person)?;
        let now = caller.now();
        self.change_breakglass(caller, "confirm", &mut |transaction| {
            let known = find(transaction, id)?;
            check_open(known.status(now))?;
            if person.is_some_and(|person| known.opened_by.is(&person.subject)) {
                return Err(not_permitted(
                    "the person who opened a request for break-glass does not confirm it",
                )
                .into());
            }
            let ends_at = Time(now.0.saturating_add(known.duration_ms));
            let confirmed = BreakglassConfirmation { by: by.clone(), at: now, ends_at };
            let changed = Breakglass { confirmed: Some(confirmed), ..(*known).clone() };
            Ok((Arc::new(changed), "break-glass is in force"))
        })
    }

    fn end_breakglass(
        &self,
        id: &str,
        caller: &ApiCaller<'_>,
        person: Option<&Person>,
    ) -> ApiOutcome<Arc<Breakglass>> {
        let now = caller.now();
        let by = person.map_or(OWNER, |person| &person.name);
        self.change_breakglass(caller, "end", &mut |transaction| {
            let known = find(transaction, id)?;
            let status = known.status(now);
            if !status.is_live() {
                return Err(CallRefusal::input(format!(
                    "the request for break-glass is not live: it is {}",
                    status.as_str()
                ))
                .into());
            }
            let ended = Some(BreakglassEnd { by: by.to_owned(), at: now });
            Ok((Arc::new(Breakglass { ended, ..(*known).clone() }), "break-glass has ended"))
        })
    }

    /// Writes one request in a transaction with the audit record of the call.
    fn change_breakglass(
        &self,
        caller: &ApiCaller<'_>,
        action: &'static str,
        change: &mut BreakglassChange<'_>,
    ) -> ApiOutcome<Arc<Breakglass>> {
        let locks = [RecordKey::new(RecordKind::Breakglass, LOCK)];
        let (record, survives) = (ApiRecord::default(), Survives::PowerLoss);
        self.change_granted(caller, &record, &locks, survives, &mut |transaction| {
            let (changed, message) = change(transaction)?;
            transaction.put(Record::Breakglass(Arc::clone(&changed)));
            let record = record_of(BreakglassNote::of_record(action, &changed));
            Ok(GrantedChange::new(changed, message).with_record(record))
        })
    }

    /// The person who opens or confirms a request.
    ///
    /// # Errors
    /// The caller is not a person of the configuration, or is revoked.
    fn acting_person(&self, person: Option<&Person>) -> Result<BreakglassPerson, CallRefusal> {
        let Some(person) = person else {
            return Err(CallRefusal::new(
                ReasonCode::NotPermitted,
                Step::Identify,
                "the user of the administration socket is no person of `approvals.people`, and only people open and confirm break-glass",
            ));
        };
        let (issuer, sub) = (&person.subject.issuer, &person.subject.sub);
        let revoked = self.keeper.revocations()?;
        revoke::of_person(&revoked, issuer, sub, person.authenticated_at)?;
        Ok(BreakglassPerson { issuer: issuer.clone(), sub: sub.clone(), name: person.name.clone() })
    }

    fn operations_with_breakglass(&self, system: &str) -> Vec<String> {
        let Some(world) = self.world() else { return Vec::new() };
        let operations = world.plan.operations_with_breakglass(system);
        operations.take(MOST_OPERATIONS).map(str::to_owned).collect()
    }

    fn breakglass_to_wire(&self, record: &Breakglass) -> wire::Breakglass {
        to_wire(record, Time(self.clock.now_ms()))
    }
}

/// Change of a request: the request after it, and the message of the audit record.
type BreakglassChange<'a> =
    dyn FnMut(&mut dyn Transaction) -> Result<(Arc<Breakglass>, &'static str), ChangeError> + 'a;

/// The request of a message.
///
/// # Errors
/// A field is missing or too long, the bundle lacks the system, the agent is not a SPIFFE id, or the duration is not allowed.
fn read_request(
    message: &wire::OpenBreakglassRequest,
    caller: &ApiCaller<'_>,
    opened_by: BreakglassPerson,
    id: String,
) -> Result<Breakglass, CallRefusal> {
    let wire::OpenBreakglassRequest { system, agent, duration_seconds, reason, ticket } = message;
    check_id("system", system)?;
    check_id("agent", agent)?;
    check_length("reason", reason, limits::REASON)?;
    check_length("ticket", ticket, limits::REVOKED_BY)?;
    for (name, text) in [("reason", reason), ("ticket", ticket)] {
        if text.trim().is_empty() {
            return Err(CallRefusal::input(format!("`{name}` is missing")));
        }
        if text.contains(char::is_control) {
            return Err(CallRefusal::input(format!("`{name}` has a control character")));
        }
    }
    if !caller.plan().systems().contains_key(system) {
        return Err(CallRefusal::input(format!("the bundle has no system `{system}`")));
    }
    if !agent.is_empty() {
        AgentName::parse(agent).map_err(|why| {
            CallRefusal::input(format!("`agent` is no SPIFFE id of a workload: {why}"))
        })?;
    }
    if *duration_seconds == 0 || *duration_seconds > MOST_SECONDS {
        let most = MOST_SECONDS / 60;
        return Err(CallRefusal::input(format!(
            "break-glass is in force for at most {most} minutes, and at least one second"
        )));
    }
    let now = caller.now();
    Ok(Breakglass {
        id,
        system: system.clone(),
        agent: (!agent.is_empty()).then(|| agent.clone()),
        duration_ms: i64::from(*duration_seconds).saturating_mul(1_000),
        reason: reason.clone(),
        ticket: ticket.clone(),
        opened_by,
        opened_at: now,
        confirm_before: Time(now.0.saturating_add(CONFIRM_MS)),
        confirmed: None,
        ended: None,
        rest: Default::default(),
    })
}

/// Refuses to confirm a request that is not open.
fn check_open(status: BreakglassStatus) -> Result<(), CallRefusal> {
    let message = match status {
        BreakglassStatus::Open => return Ok(()),
        BreakglassStatus::InForce => "break-glass is in force already",
        BreakglassStatus::Expired => "break-glass was in force, and its time is over",
        BreakglassStatus::Ended => "the request for break-glass was ended",
        BreakglassStatus::Unconfirmed => {
            "nobody confirmed the request for break-glass within 15 minutes; open a new one"
        }
    };
    Err(CallRefusal::input(message))
}

/// The requests of a store, as a transaction reads them.
fn all_of(transaction: &mut dyn Transaction) -> Result<Vec<Arc<Breakglass>>, ChangeError> {
    let query = Query::Kind(RecordKind::Breakglass);
    let page = Page { after: String::new(), most: MOST_KEPT.saturating_add(1) };
    Ok(transaction.find(&query, &page)?.into_iter().filter_map(breakglass_of).collect())
}

/// Removes the requests that ended first, so that the store has room for a further one.
fn make_room(transaction: &mut dyn Transaction, known: Vec<Arc<Breakglass>>, now: Time) {
    let over = known.len().saturating_add(1).saturating_sub(MOST_KEPT);
    let mut ended: Vec<_> = known.into_iter().filter(|one| !one.status(now).is_live()).collect();
    ended.sort_by_key(|one| one.live_until());
    for one in ended.iter().take(over) {
        transaction.delete(RecordKey::new(RecordKind::Breakglass, &one.id));
    }
}

fn find(transaction: &mut dyn Transaction, id: &str) -> Result<Arc<Breakglass>, ChangeError> {
    check_id("id", id)?;
    let found = transaction.get(&RecordKey::new(RecordKind::Breakglass, id))?;
    let unknown = || CallRefusal::input("there is no such request for break-glass");
    Ok(found.and_then(breakglass_of).ok_or_else(unknown)?)
}

fn breakglass_of(record: Record) -> Option<Arc<Breakglass>> {
    match record {
        Record::Breakglass(one) => Some(one),
        _ => None,
    }
}

fn record_of(note: BreakglassNote) -> ApiRecord {
    let notes = ApiNotes { breakglass: Some(note), ..ApiNotes::default() };
    ApiRecord { notes, ..ApiRecord::default() }
}

fn not_permitted(message: &str) -> CallRefusal {
    CallRefusal::new(ReasonCode::NotPermitted, Step::Judge, message)
}

/// The request as a message.
fn to_wire(record: &Breakglass, now: Time) -> wire::Breakglass {
    use wire::BreakglassStatus as S;
    let status = match record.status(now) {
        BreakglassStatus::Open => S::Open,
        BreakglassStatus::InForce => S::InForce,
        BreakglassStatus::Expired => S::Expired,
        BreakglassStatus::Ended => S::Ended,
        BreakglassStatus::Unconfirmed => S::Unconfirmed,
    };
    let (confirmed, ended) = (record.confirmed.as_ref(), record.ended.as_ref());
    wire::Breakglass {
        id: record.id.clone(),
        status: status as i32,
        system: record.system.clone(),
        agent: record.agent.clone().unwrap_or_default(),
        duration_seconds: u32::try_from(record.duration_ms.div_euclid(1_000)).unwrap_or(0),
        reason: record.reason.clone(),
        ticket: record.ticket.clone(),
        opened_by: record.opened_by.name.clone(),
        opened_at: Some(timestamp(record.opened_at)),
        confirm_before: Some(timestamp(record.confirm_before)),
        confirmed_by: confirmed.map(|one| one.by.name.clone()).unwrap_or_default(),
        confirmed_at: confirmed.map(|one| timestamp(one.at)),
        ends_at: confirmed.map(|one| timestamp(one.ends_at)),
        ended_by: ended.map(|one| one.by.clone()).unwrap_or_default(),
        ended_at: ended.map(|one| timestamp(one.at)),
    }
}
