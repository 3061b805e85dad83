//! The credential of a token exchange, and the permits that it stands for.

use std::collections::BTreeMap;
use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::history::pair_digest;
use authz_kernel::task::{Credential, NewReservation, Record, Reservation, Task};
use authz_state::store::Transaction;

use super::Exchange;
use super::details::PermittedDetail;
use crate::credentials::claims::token_answer;
use crate::credentials::key::{CredentialLifetime, end_of_credential};
use crate::engine::Engine;
use crate::keeper::ChangeError;
use crate::locate::Located;
use crate::shown;

impl Engine {
    /// Writes the task, the permits and the credential. Returns the answer, and the time at which the credential ends.
    pub(super) fn write_credential(
        &self,
        transaction: &mut dyn Transaction,
        exchange: &Exchange<'_>,
        located: &Located,
        permitted: &[PermittedDetail],
    ) -> Result<(Vec<u8>, Time), ChangeError> {
        let (caller, now) = (exchange.caller, exchange.caller.now());
        let lifetimes = permitted.iter().map(|one| exchange.settings.lifetime.of(one.tier));
        let lifetime = CredentialLifetime {
            longest: lifetimes.min().unwrap_or_default(),
            wished: exchange.request.lifetime_seconds.unwrap_or_default(),
        };
        let end = end_of_credential(caller, located, None, lifetime)?;
        for task in located.path() {
            let task = Task { last_used: now, ..Task::clone(task) };
            transaction.put(Record::Task(Arc::new(task)));
        }
        let credential = Arc::new(exchange_credential(exchange, &located.task, permitted, end));
        for permit in permitted {
            let reservation = reservation_of(exchange, permit, &located.task, &credential);
            self.room_open(&reservation, now)?;
            self.metrics.reserved();
            self.open_permits.add(&reservation);
            transaction.put(Record::Reservation(Arc::new(reservation)));
        }
        let answer = token_answer(&credential, &located.task, exchange.settings)?;
        self.check_token_length(&answer)?;
        transaction.put(Record::Credential(credential));
        Ok((self.answer_with_nonce(answer, caller), end))
    }
}

fn exchange_credential(
    exchange: &Exchange<'_>,
    task: &Task,
    permitted: &[PermittedDetail],
    expires_at: Time,
) -> Credential {
    Credential {
        jti: exchange.jti.clone(),
        task: task.id.clone(),
        session: task.session.clone(),
        agent: exchange.agent.spiffe_id.clone(),
        audience: exchange.audience.clone(),
        details: permitted.iter().map(|one| one.detail.clone()).collect(),
        binding: exchange.binding.clone(),
        issued_at: exchange.caller.now(),
        expires_at,
        revoked_at: None,
        rest: BTreeMap::new(),
    }
}

/// The reservation of a permitted detail, whose outcome is open until the credential is redeemed or has ended.
fn reservation_of(
    exchange: &Exchange<'_>,
    permit: &PermittedDetail,
    task: &Task,
    credential: &Credential,
) -> Reservation {
    Reservation {
        charged: permit.charges.clone(),
        credential: Some(credential.jti.clone()),
        wants_credential: true,
        ..Reservation::new(NewReservation {
            detail: permit.detail.clone(),
            task,
            enforcer: String::new(),
            permitted_at: exchange.caller.now(),
            due: credential.due(),
            tier: permit.tier,
            agent: exchange.agent.spiffe_id.clone(),
            pair: pair_digest(&task.chain()),
            remembered_in: permit.remembered_in.clone(),
            subject_until: shown::ends(&exchange.caller.identity),
        })
    }
}
