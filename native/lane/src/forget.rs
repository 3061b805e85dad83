//! `authz.v1.Admin/Forget`: an administrator lets labels be forgotten that outlive their tasks.

use std::sync::Arc;

use authz_kernel::decision::Principal;
use authz_kernel::history::{Holder, pairs_of};
use authz_kernel::plan::Plan;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{
    AgentName, Party, Record, RecordKey, RecordKind, Session, Subject, taskless, taskless_of,
};
use authz_state::store::{Page, Query, Survives, Transaction};
use prost::Message;

use crate::ask::{Refused, Step};
use crate::engine::Engine;
use crate::judgement::{ForgetNote, Judgement};
use crate::keeper::Wait;
use crate::limits;
use crate::proto::authz::v1 as wire;
use crate::proto::authz::v1::forget_request::Target;
use crate::settings::Surface;
use crate::steps::record::{ChangeContext, GrantedChange, KeptRecord, RecordOrigin};
use crate::tasks::bounded;
use crate::transport::{ApiError, Transport};

/// Records that one transaction changes.
const PAGE: usize = 256;

/// Records to be forgotten: of these keys, and all whose ids begin so.
struct Forgetting {
    note: ForgetNote,
    keys: Vec<RecordKey>,
    prefixes: Vec<(RecordKind, String)>,
}

impl Engine {
    /// Forgets: an `authz.v1.ForgetRequest`, answered by an `authz.v1.ForgetResponse`.
    ///
    /// # Errors
    /// The listener is no administration listener, the request names nothing or no reason, or the store fails.
    pub(crate) fn forget_labels(
        &self,
        request: &[u8],
        transport: &Transport<'_>,
    ) -> Result<Vec<u8>, ApiError> {
        let decode = || Ok(());
        let (record, records) =
            self.api_call(Surface::Forget, transport, decode, |(), transport, record, _, line| {
                "authz.forget".clone_into(&mut record.resolved.operation);
                self.forgotten(record, request, transport, line)
            });
        record.granted()?;
        let records = records.unwrap_or_default();
        Ok(wire::ForgetResponse { records }.encode_to_vec())
    }

    fn forgotten(
        &self,
        judgement: &mut Judgement,
        request: &[u8],
        transport: &Transport<'_>,
        line: &RecordOrigin,
    ) -> Result<(u32, Option<KeptRecord>), Refused> {
        let world = self.admit(&judgement.arrival, transport)?;
        if !world.way(transport.listener).is_some_and(|way| way.admin) {
            return Err(Refused::new(
                ReasonCode::EnforcerRefused,
                Step::Identify,
                "only an administration listener forgets",
            ));
        }
        self.check_size(request)?;
        let message = wire::ForgetRequest::decode(request)
            .map_err(|_| Refused::input("the bytes are no ForgetRequest"))?;
        let forgetting = Forgetting::of(message, &world.plan)?;
        judgement.notes.forgotten = Some(forgetting.note.clone());
        let wait = self.wait_of(transport);
        let call = ChangeContext { evidence: &[], recorded: line, wait };
        let mut count = 0_u32;
        // Pages come first: the record of the whole is written with the last change.
        let of = (&*world.plan, forgetting.note.denials);
        for (kind, prefix) in &forgetting.prefixes {
            count = count.saturating_add(self.forget_all(*kind, prefix, of, wait)?);
        }
        let survives = Survives::PowerLoss;
        let kept = self.change_granted(
            judgement,
            &call,
            &forgetting.keys,
            survives,
            &mut |transaction, _| {
                for key in &forgetting.keys {
                    let is_forgotten = forget(transaction, key, of)?;
                    count = count.saturating_add(u32::from(is_forgotten));
                }
                Ok(GrantedChange::new(format!("{count} records forgotten")))
            },
        )?;
        Ok((count, kept))
    }

    /// Forgets all records of a kind whose ids begin so, page by page.
    fn forget_all(
        &self,
        kind: RecordKind,
        prefix: &str,
        of: (&Plan, bool),
        wait: Wait,
    ) -> Result<u32, Refused> {
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
                    let is_forgotten = forget(transaction, key, of)?;
                    count = count.saturating_add(u32::from(is_forgotten));
                }
                Ok(true)
            };
            let commit = self.keeper.transact(&keys, Survives::PowerLoss, wait, &mut work)?;
            self.keeper.kept(commit, wait)?;
        }
    }
}

/// Forgets what one record carries; true where it carried anything.
///
/// Args: `denials`: denials and completed rules, too.
fn forget(
    transaction: &mut dyn Transaction,
    key: &RecordKey,
    (plan, denials): (&Plan, bool),
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
    fn of(message: wire::ForgetRequest, plan: &Plan) -> Result<Self, Refused> {
        let wire::ForgetRequest { target, reason, denials } = message;
        if reason.is_empty() || reason.len() > limits::REASON {
            let most = limits::REASON;
            return Err(Refused::input(format!("`reason` is empty or longer than {most} bytes")));
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
                bounded("subject", &subject)?;
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
            None => Err(Refused::input("name what to forget")),
        }
    }
}

fn named(name: &str, text: &str) -> Result<(), Refused> {
    bounded(name, text)?;
    if text.is_empty() {
        return Err(Refused::input(format!("`{name}` is empty")));
    }
    Ok(())
}

fn agent(id: &str) -> Result<Principal, Refused> {
    bounded("agent", id)?;
    let name = AgentName::parse(id)
        .map_err(|why| Refused::input(format!("`agent` is no SPIFFE id of a workload: {why}")))?;
    Ok(name.principal())
}

/// The records of an agent and a subject, which may be a person or a service, and of what the agent does for it without a task.
fn pairs(agent: &Principal, subject: &str) -> Result<Vec<RecordKey>, Refused> {
    let records = |chain: &[Principal]| {
        let session =
            taskless(chain, "").map(|of| RecordKey::new(RecordKind::Session, &of.session));
        Holder::Pair.key(chain).into_iter().chain(session)
    };
    if subject.is_empty() {
        return Ok(records(std::slice::from_ref(agent)).collect());
    }
    let Some((issuer, sub)) = subject.split_once('/').filter(|(_, sub)| !sub.is_empty()) else {
        return Err(Refused::input("`subject` is not the alias of an issuer, `/`, and a `sub`"));
    };
    let subject = |is_service| Subject {
        is_service,
        issuer: issuer.to_owned(),
        sub: sub.to_owned(),
        ..Subject::default()
    };
    let chain = |is_service| [subject(is_service).principal(), agent.clone()];
    Ok([false, true].into_iter().flat_map(|kind| records(&chain(kind))).collect())
}
