//! `authz.v1.Admin/Forget`: an administrator removes labels that outlive their tasks.

use std::sync::Arc;

use authz_kernel::decision::Principal;
use authz_kernel::history::{Holder, pairs_of};
use authz_kernel::plan::Plan;
use authz_kernel::task::{
    AgentName, Party, Record, RecordKey, RecordKind, Session, TaskSubject, taskless, taskless_of,
};
use authz_state::store::{Page, Query, Survives, Transaction};

use crate::api_call::{
    ApiCaller, ApiMessage, ApiOutcome, CallerEvidence, GrantedChange, WithRecord as _, check_admin,
};
use crate::engine::Engine;
use crate::judgement::{ApiNotes, ApiRecord, ForgetNote};
use crate::keeper::Wait;
use crate::limits;
use crate::proto::authz::v1 as wire;
use crate::proto::authz::v1::forget_request::Target;
use crate::refusal::CallRefusal;
use crate::request::check_id;
use crate::world::Way;

/// Records that one transaction changes.
const PAGE: usize = 256;

/// Records to be forgotten: of these keys, and all whose ids begin so.
struct Forgetting {
    note: ForgetNote,
    keys: Vec<RecordKey>,
    prefixes: Vec<(RecordKind, String)>,
}

impl ApiMessage for wire::ForgetRequest {
    const OPERATION: &'static str = "authz.forget";
    const UNREADABLE: &'static str = "the bytes are no ForgetRequest";

    fn evidence(&self) -> CallerEvidence<'_> {
        CallerEvidence::Socket
    }

    fn check_listener(way: Option<&Way>) -> Result<(), CallRefusal> {
        check_admin(way, "only an administration listener forgets")
    }
}

impl Engine {
    /// Forgets labels.
    ///
    /// # Errors
    /// The listener is not an administration listener, the request names no target or no reason, or the store fails.
    pub(crate) fn forget_labels(
        &self,
        message: &wire::ForgetRequest,
        caller: &ApiCaller<'_>,
    ) -> ApiOutcome<wire::ForgetResponse> {
        let forgetting = Forgetting::of(message, caller.plan())?;
        let notes = ApiNotes { forgotten: Some(forgetting.note.clone()), ..ApiNotes::default() };
        let record = ApiRecord { notes, ..ApiRecord::default() };
        let outcome = self.forget_records(&forgetting, caller, &record);
        outcome
            .map(|grant| grant.map(|records| wire::ForgetResponse { records }))
            .with_record(&record)
    }

    /// Forgets the labels of records. Returns the number of records that changed.
    fn forget_records(
        &self,
        forgetting: &Forgetting,
        caller: &ApiCaller<'_>,
        record: &ApiRecord,
    ) -> ApiOutcome<u32> {
        let (plan, denials) = (caller.plan(), forgetting.note.denials);
        // Pages come first: the audit line of the whole call is written with the last change.
        let mut in_pages = 0_u32;
        for (kind, prefix) in &forgetting.prefixes {
            in_pages = in_pages.saturating_add(self.forget_all(
                *kind,
                prefix,
                plan,
                denials,
                caller.wait,
            )?);
        }
        let (locks, survives) = (&forgetting.keys, Survives::PowerLoss);
        self.change_granted(caller, record, locks, survives, &mut |transaction| {
            let mut count = in_pages;
            for key in &forgetting.keys {
                let is_forgotten = forget(transaction, key, plan, denials)?;
                count = count.saturating_add(u32::from(is_forgotten));
            }
            Ok(GrantedChange::new(count, format!("{count} records forgotten")))
        })
    }

    /// Forgets all records of a kind whose ids begin so, page by page.
    fn forget_all(
        &self,
        kind: RecordKind,
        prefix: &str,
        plan: &Plan,
        denials: bool,
        wait: Wait,
    ) -> Result<u32, CallRefusal> {
        let query = Query::Prefix(kind, prefix.to_owned());
        let mut count = 0_u32;
        let mut after = String::new();
        loop {
            let found = self.keeper.find(&query, &Page { after, most: PAGE }, wait)?;
            let Some(last) = found.last() else { return Ok(count) };
            after = last.key().id.to_string();
            let keys: Vec<RecordKey> = found.iter().map(Record::key).collect();
            let mut work = |transaction: &mut dyn Transaction| {
                for key in &keys {
                    let is_forgotten = forget(transaction, key, plan, denials)?;
                    count = count.saturating_add(u32::from(is_forgotten));
                }
                Ok(true)
            };
            let commit = self.keeper.transact(&keys, Survives::PowerLoss, wait, &mut work)?;
            self.keeper.kept(commit, wait)?;
        }
    }
}

/// Forgets the labels of one record, and if `denials`, also denials and completed rules. Returns true if the record changed.
fn forget(
    transaction: &mut dyn Transaction,
    key: &RecordKey,
    plan: &Plan,
    denials: bool,
) -> Result<bool, authz_state::store::StoreError> {
    let forget = |party: &Arc<Party>| {
        let mut party = Party::clone(party);
        party.forget(key.kind, denials).then_some(party)
    };
    let changed = match transaction.get(key)? {
        Some(Record::Agent(party)) => forget(&party).map(|one| Record::Agent(Arc::new(one))),
        Some(Record::Pair(party)) => forget(&party).map(|one| Record::Pair(Arc::new(one))),
        Some(Record::Session(session)) => {
            let mut session = Session::clone(&session);
            let is_changed = plan.forget_restrictions(&mut session, denials);
            is_changed.then(|| Record::Session(Arc::new(session)))
        }
        Some(Record::Object(_)) => {
            transaction.delete(key.clone());
            return Ok(true);
        }
        _ => None,
    };
    let is_forgotten = changed.is_some();
    if let Some(record) = changed {
        transaction.put(record);
    }
    Ok(is_forgotten)
}

impl Forgetting {
    fn of(message: &wire::ForgetRequest, plan: &Plan) -> Result<Self, CallRefusal> {
        let wire::ForgetRequest { target, reason, denials } = message.clone();
        if reason.is_empty() || reason.len() > limits::REASON {
            let most = limits::REASON;
            return Err(CallRefusal::input(format!(
                "`reason` is empty or longer than {most} bytes"
            )));
        }
        let note = |target, value| ForgetNote { target, value, denials, reason: reason.clone() };
        match target {
            Some(Target::Agent(id)) => {
                let agent = agent(&id)?;
                let keys = Holder::Agent.key(std::slice::from_ref(&agent)).into_iter().collect();
                let prefixes = vec![
                    (RecordKind::Pair, pairs_of(&agent)),
                    (RecordKind::Session, taskless_of(&agent)),
                ];
                Ok(Self { note: note("agent", id), keys, prefixes })
            }
            Some(Target::Pair(wire::Pair { agent: id, subject })) => {
                check_id("subject", &subject)?;
                let keys = pairs(&agent(&id)?, &subject)?;
                let value = format!("{id} {subject}");
                let note = note("pair", value.trim_end().to_owned());
                Ok(Self { note, keys, prefixes: Vec::new() })
            }
            Some(Target::Collection(name)) => {
                named("collection", &name)?;
                let prefixes = vec![(RecordKind::Object, format!("{name}/"))];
                let keys = vec![RecordKey::new(RecordKind::Object, &name)];
                Ok(Self { note: note("collection", name), keys, prefixes })
            }
            Some(Target::Object(wire::WrittenObject { collection, id })) => {
                named("collection", &collection)?;
                named("id", &id)?;
                let keys = plan.object_keys(&collection, &id).object.into_iter().collect();
                let note = note("object", format!("{collection}/{id}"));
                Ok(Self { note, keys, prefixes: Vec::new() })
            }
            None => Err(CallRefusal::input("name what to forget")),
        }
    }
}

fn named(name: &str, text: &str) -> Result<(), CallRefusal> {
    check_id(name, text)?;
    if text.is_empty() {
        return Err(CallRefusal::input(format!("`{name}` is empty")));
    }
    Ok(())
}

fn agent(id: &str) -> Result<Principal, CallRefusal> {
    check_id("agent", id)?;
    let name = AgentName::parse(id).map_err(|why| {
        CallRefusal::input(format!("`agent` is no SPIFFE id of a workload: {why}"))
    })?;
    Ok(name.principal())
}

/// The records of an agent and a subject (a person or a service), and of the agent's calls for it without a task.
fn pairs(agent: &Principal, subject: &str) -> Result<Vec<RecordKey>, CallRefusal> {
    let records = |chain: &[Principal]| {
        let session =
            taskless(chain, "").map(|of| RecordKey::new(RecordKind::Session, &of.session));
        Holder::Pair.key(chain).into_iter().chain(session)
    };
    if subject.is_empty() {
        return Ok(records(std::slice::from_ref(agent)).collect());
    }
    let Some((issuer, sub)) = subject.split_once('/').filter(|(_, sub)| !sub.is_empty()) else {
        return Err(CallRefusal::input(
            "`subject` is not the alias of an issuer, `/`, and a `sub`",
        ));
    };
    let subject = |is_service| TaskSubject {
        is_service,
        issuer: issuer.to_owned(),
        sub: sub.to_owned(),
        ..TaskSubject::default()
    };
    let chain = |is_service| [subject(is_service).principal(), agent.clone()];
    Ok([false, true].into_iter().flat_map(|kind| records(&chain(kind))).collect())
}
