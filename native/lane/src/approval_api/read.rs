//! Lists and shows approvals.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::task::approval::{
    APPROVE, APPROVE_ROLE, Approval, ApprovalStatus, CONFIRM, TWO_PERSON,
};
use authz_kernel::task::{Record, RecordKey, RecordKind};
use authz_state::store::{Page, Query};
use prost::Message as _;

use super::approver::policies_permit;
use super::person::Person;
use super::{check_generation, error_of, unknown, wire_form};
use crate::api_call::{ApiCaller, ApiGrant, ApiMessage, ApiOutcome, CallerEvidence};
use crate::approvals::confirm_tally;
use crate::engine::Engine;
use crate::keeper::Wait;
use crate::proto::authz::v1 as wire;
use crate::refusal::CallRefusal;
use crate::request::check_id;
use crate::transport::ApiError;
use crate::world::Loaded;

/// Default and maximum number of approvals on a page.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1_000;
/// Maximum number of records that one call reads at once, and in total.
const SCAN: usize = 1_000;
const MAX_SCANNED: usize = 20_000;

impl ApiMessage for wire::ApprovalsGetRequest {
    const OPERATION: &'static str = "";
    const UNREADABLE: &'static str = "the bytes are no ApprovalsGetRequest";

    fn evidence(&self) -> CallerEvidence<'_> {
        CallerEvidence::Message(&self.evidence)
    }
}

impl Engine {
    /// Lists the open approvals that a person may answer. The owner of the administration socket sees all approvals, of any status.
    ///
    /// `person` is JSON, and `request` an `authz.v1.ApprovalsListRequest`. The answer is an `authz.v1.ApprovalsListResponse`.
    ///
    /// # Errors
    /// The request or the person is not valid, no bundle is loaded, or the store failed.
    pub fn approvals_list(&self, person: &[u8], request: &[u8]) -> Result<Vec<u8>, ApiError> {
        let list = || self.list_approvals(person, request).map_err(error_of);
        catch_unwind(AssertUnwindSafe(list)).unwrap_or_else(|_| Err(self.failed_inside()))
    }

    fn list_approvals(&self, person: &[u8], request: &[u8]) -> Result<Vec<u8>, CallRefusal> {
        let person = Person::read(person)?;
        let message: wire::ApprovalsListRequest =
            self.decode(request, "the bytes are no ApprovalsListRequest")?;
        check_id("page_token", &message.page_token)?;
        check_id("queue", &message.queue)?;
        let status = wire::ApprovalStatus::try_from(message.status)
            .map_err(|_| CallRefusal::input("`status` has an unknown value"))?;
        let status = wire_form::filter_of(status);
        let size = match usize::try_from(message.page_size) {
            Ok(0) => PAGE,
            Ok(size) => size.min(MAX_PAGE),
            Err(_) => return Err(CallRefusal::input("`page_size` is below 0")),
        };
        let world = self.host_world()?;
        let (now, wait) = (Time(self.clock.now_ms()), self.host_wait());
        let reader =
            ApprovalReader { engine: self, world: &world, person: person.as_ref(), now, wait };
        let found = match (status, &person) {
            (ApprovalStatus::Open, _) => reader.open(&message.queue)?,
            (_, None) => reader.of_status(status, &message.page_token, size)?,
            // Approvals that the person has answered are not listed; the person can read each of them by its id.
            (_, Some(_)) => Vec::new(),
        };
        let after = message.page_token.as_str();
        let mut page: Vec<Arc<Approval>> =
            found.into_iter().filter(|one| one.id.as_str() > after).collect();
        page.sort_by(|a, b| a.id.cmp(&b.id));
        let has_more = page.len() > size;
        page.truncate(size);
        let next = page.last().filter(|_| has_more).map(|last| last.id.clone());
        let approvals = page.iter().map(|one| reader.shown(one)).collect();
        let next_page_token = next.unwrap_or_default();
        Ok(wire::ApprovalsListResponse { approvals, next_page_token }.encode_to_vec())
    }

    /// Shows an approval to a person. The first look starts its clock. The owner of the administration socket sees all approvals.
    ///
    /// `request` is an `authz.v1.ApprovalsGetRequest`. The answer is an `authz.v1.ApprovalsGetResponse`.
    ///
    /// # Errors
    /// The approval does not exist, the person may not answer it, or the store failed.
    pub fn approval_show(&self, person: &[u8], request: &[u8]) -> Result<Vec<u8>, ApiError> {
        let show = || self.show_approval(person, request).map_err(error_of);
        catch_unwind(AssertUnwindSafe(show)).unwrap_or_else(|_| Err(self.failed_inside()))
    }

    fn show_approval(&self, person: &[u8], request: &[u8]) -> Result<Vec<u8>, CallRefusal> {
        let person = Person::read(person)?;
        let message: wire::ApprovalsGetRequest =
            self.decode(request, "the bytes are no ApprovalsGetRequest")?;
        check_id("approval_id", &message.approval_id)?;
        let world = self.host_world()?;
        let (now, wait) = (Time(self.clock.now_ms()), self.host_wait());
        let mut known = self.find_approval(&message.approval_id, wait)?;
        let reader =
            ApprovalReader { engine: self, world: &world, person: person.as_ref(), now, wait };
        if !reader.may_see(&known) {
            return Err(unknown());
        }
        if person.is_some() && known.shown_at.is_none() {
            known = self.note_shown(&known, now, wait)?;
        }
        let approval = Some(reader.shown(&known));
        Ok(wire::ApprovalsGetResponse { approval }.encode_to_vec())
    }

    /// Records that a person saw an approval.
    fn note_shown(
        &self,
        known: &Approval,
        now: Time,
        wait: Wait,
    ) -> Result<Arc<Approval>, CallRefusal> {
        let key = RecordKey::new(RecordKind::Approval, &known.id);
        let generation = known.generation;
        let mut shown = None;
        let mut stopped = None;
        let commit = self.keeper.transact(
            std::slice::from_ref(&key),
            authz_state::store::Survives::Crash,
            wait,
            &mut |transaction| {
                let Some(Record::Approval(known)) = transaction.get(&key)? else {
                    stopped = Some(unknown());
                    return Ok(false);
                };
                if let Err(refused) = check_generation(&known, generation) {
                    stopped = Some(refused);
                    return Ok(false);
                }
                let mut seen = Approval::clone(&known);
                seen.shown_at = seen.shown_at.or(Some(now));
                let seen = Arc::new(seen);
                transaction.put(Record::Approval(Arc::clone(&seen)));
                shown = Some(seen);
                Ok(true)
            },
        )?;
        if let Some(refused) = stopped {
            return Err(refused);
        }
        self.keeper.kept(commit, wait)?;
        shown.ok_or_else(unknown)
    }

    /// Returns the status of an approval to the agent of its call. The owner of the administration socket sees all approvals.
    pub(crate) fn get_approval(
        &self,
        message: &wire::ApprovalsGetRequest,
        caller: &ApiCaller<'_>,
    ) -> ApiOutcome<wire::ApprovalsGetResponse> {
        check_id("approval_id", &message.approval_id)?;
        let known = self.find_approval(&message.approval_id, caller.wait)?;
        let rules = &caller.plan().model().approvals;
        let is_its = known.agents.last().is_some_and(|agent| caller.is_agent(&agent.spiffe_id));
        let approval = match (caller.is_owner, is_its) {
            (true, _) => wire_form::whole(&known, rules, caller.now()),
            (false, true) => wire_form::for_agent(&known, caller.now()),
            (false, false) => return Err(unknown().into()),
        };
        let response = wire::ApprovalsGetResponse { approval: Some(approval) };
        Ok(ApiGrant::unchanged(response, "the status of an approval"))
    }

    /// The loaded snapshot, for a call of the host.
    pub(crate) fn host_world(&self) -> Result<Arc<Loaded>, CallRefusal> {
        self.world().ok_or_else(|| {
            CallRefusal::new(
                authz_kernel::reason::ReasonCode::Unavailable,
                crate::refusal::Step::Identify,
                "no bundle is loaded",
            )
        })
    }
}

/// Approvals as one person sees them.
struct ApprovalReader<'r> {
    engine: &'r Engine,
    world: &'r Loaded,
    /// The person. `None` for the owner of the administration socket.
    person: Option<&'r Person>,
    now: Time,
    wait: Wait,
}

impl ApprovalReader<'_> {
    /// Returns the approval as the person sees it.
    fn shown(&self, approval: &Approval) -> wire::Approval {
        let mut shown = wire_form::whole(approval, &self.world.plan.model().approvals, self.now);
        shown.answerable = self.person.is_some_and(|person| {
            approval.status_at(self.now) == ApprovalStatus::Open
                && !person.has_answered(approval)
                && self.is_of_a_queue(person, approval)
        });
        shown
    }

    fn is_of_a_queue(&self, person: &Person, approval: &Approval) -> bool {
        let roles = person.roles(self.world);
        let waits = approval.waits_for();
        waits.iter().any(|queue| self.may_decide(person, approval, queue, &roles))
    }

    /// Returns whether the person may see an approval: the person may answer one of its queues, or has answered it.
    fn may_see(&self, approval: &Approval) -> bool {
        let Some(person) = self.person else { return true };
        let roles = person.roles(self.world);
        person.has_answered(approval)
            || approval.queues.iter().any(|queue| self.may_decide(person, approval, queue, &roles))
    }

    /// Returns whether the person belongs to a queue and the policies permit the answer.
    fn may_decide(
        &self,
        person: &Person,
        approval: &Approval,
        queue: &str,
        roles: &[String],
    ) -> bool {
        person.is_of_queue(approval, queue, roles, self.world, self.now)
            && policies_permit(person, approval, queue, self.world, self.now)
    }

    /// Returns the open approvals of a queue, or of all queues if `queue` is empty.
    fn open(&self, queue: &str) -> Result<Vec<Arc<Approval>>, CallRefusal> {
        let mut ids = BTreeSet::new();
        for prefix in self.tallies(queue) {
            let mut after = String::new();
            loop {
                let query = Query::Prefix(RecordKind::ApprovalQueue, prefix.clone());
                let records =
                    self.engine.keeper.find(&query, &Page { after, most: SCAN }, self.wait)?;
                let Some(last) = records.last() else { break };
                after = last.key().id.to_string();
                for record in records {
                    let Record::ApprovalQueue(tally) = record else { continue };
                    ids.extend(tally.open_at(self.now).map(|(id, _)| id.clone()));
                }
                if ids.len() > MAX_SCANNED {
                    break;
                }
            }
        }
        let mut open = Vec::new();
        for id in ids.into_iter().take(MAX_SCANNED) {
            let Ok(approval) = self.engine.find_approval(&id, self.wait) else { continue };
            let is_open = approval.status_at(self.now) == ApprovalStatus::Open;
            let is_wanted = queue.is_empty() || approval.queues.iter().any(|one| one == queue);
            let is_visible = match self.person {
                None => true,
                Some(person) => {
                    !person.has_answered(&approval) && self.is_of_a_queue(person, &approval)
                }
            };
            if is_open && is_wanted && is_visible {
                open.push(approval);
            }
        }
        Ok(open)
    }

    /// Returns prefixes of the ids of tallies that may have approvals for the person.
    fn tallies(&self, queue: &str) -> Vec<String> {
        let all = |queue: &str| format!("queue/{queue}");
        let Some(person) = self.person else { return vec![all(queue)] };
        let model = self.world.plan.model();
        let roles = person.roles(self.world);
        let mut queues = vec![APPROVE.to_owned(), TWO_PERSON.to_owned()];
        queues.extend(roles.iter().map(|role| format!("{APPROVE_ROLE}{role}")));
        let escalated = model.approvals.queues.iter().filter(|(_, rule)| {
            rule.deputies.as_ref().is_some_and(|deputies| roles.contains(deputies))
        });
        queues.extend(escalated.map(|(queue, _)| queue.clone()));
        let mut tallies: Vec<String> = queues
            .iter()
            .filter(|one| queue.is_empty() || *one == queue)
            .map(|queue| all(queue))
            .collect();
        if queue.is_empty() || queue == CONFIRM {
            tallies.push(confirm_tally(&person.subject.issuer, &person.subject.sub));
        }
        tallies
    }

    /// Returns the approvals of a status after an id, at most one more than a page.
    fn of_status(
        &self,
        status: ApprovalStatus,
        after: &str,
        size: usize,
    ) -> Result<Vec<Arc<Approval>>, CallRefusal> {
        let (mut found, mut after, mut scanned) = (Vec::new(), after.to_owned(), 0_usize);
        let query = Query::Kind(RecordKind::Approval);
        while found.len() <= size && scanned < MAX_SCANNED {
            let page = Page { after, most: SCAN };
            let records = self.engine.keeper.find(&query, &page, self.wait)?;
            let Some(last) = records.last() else { break };
            after = last.key().id.to_string();
            scanned = scanned.saturating_add(records.len());
            found.extend(records.into_iter().filter_map(|record| match record {
                Record::Approval(one) if one.status_at(self.now) == status => Some(one),
                _ => None,
            }));
        }
        Ok(found)
    }
}
