//! A promise that a line reached the disk; waited for by threads and by tasks.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use authz_base::poison::IgnorePoison as _;
use thiserror::Error;

use crate::sync::{Condvar, Mutex, MutexGuard, now};

/// Failure of an audit line.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum AuditError {
    /// The queue is full.
    #[error("the audit queue is full")]
    Full,
    /// The disk refuses, or the writer is closed.
    #[error("the audit file cannot be written")]
    Failed,
    /// The deadline passed; the line may yet be written.
    #[error("the audit record was not synced in time")]
    Late,
}

#[derive(Debug, Default)]
struct TicketState {
    outcome: Option<Result<(), AuditError>>,
    waker: Option<Waker>,
    /// A thread waits: to wake nobody would be a system call, too.
    is_waited_for: bool,
}

#[derive(Debug, Default)]
struct TicketSlot {
    state: Mutex<TicketState>,
    done: Condvar,
}

impl TicketSlot {
    fn lock(&self) -> MutexGuard<'_, TicketState> {
        self.state.lock().ignore_poison()
    }
}

/// Settles once the line is synced, or cannot be. As a future it never times out by itself.
#[derive(Debug)]
#[must_use = "a durable line is acknowledged only by its ticket"]
pub struct Ticket {
    slot: Arc<TicketSlot>,
}

impl Ticket {
    /// The ticket of a write whose outcome is known.
    pub fn settled(outcome: Result<(), AuditError>) -> Self {
        let (settle, ticket) = pair();
        settle.settle(outcome);
        ticket
    }

    /// Blocks until the line is synced, fails, or `deadline` passes.
    ///
    /// # Errors
    /// [`AuditError::Failed`] where it was not synced, [`AuditError::Late`] where that is not known in time.
    pub fn wait(self, deadline: Instant) -> Result<(), AuditError> {
        let mut state = self.slot.lock();
        loop {
            if let Some(outcome) = state.outcome {
                return outcome;
            }
            let left = deadline.saturating_duration_since(now());
            if left.is_zero() {
                // From now on a line that waits for room is abandoned: it must not be written after this answer.
                state.outcome = Some(Err(AuditError::Late));
                return Err(AuditError::Late);
            }
            state.is_waited_for = true;
            state = match self.slot.done.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

impl Future for Ticket {
    type Output = Result<(), AuditError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.slot.lock();
        match state.outcome {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// The writer's end of a [`Ticket`]; dropped unsettled, it settles as failed.
#[derive(Debug)]
pub(crate) struct Settle {
    slot: Arc<TicketSlot>,
}

impl Settle {
    pub(crate) fn settle(self, outcome: Result<(), AuditError>) {
        self.set(outcome);
    }

    /// True if its caller no longer waits: the ticket was dropped, or its time is over.
    pub(crate) fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.slot) == 1 || self.slot.lock().outcome.is_some()
    }

    /// Settles unless its caller no longer waits. Returns whether the caller gets this outcome.
    pub(crate) fn settle_awaited(self, outcome: Result<(), AuditError>) -> bool {
        if Arc::strong_count(&self.slot) == 1 {
            return false;
        }
        self.set(outcome)
    }

    /// Returns whether no outcome was set before.
    fn set(&self, outcome: Result<(), AuditError>) -> bool {
        let mut state = self.slot.lock();
        let is_first = state.outcome.is_none();
        if is_first {
            state.outcome = Some(outcome);
        }
        let (waker, is_waited_for) = (state.waker.take(), state.is_waited_for);
        drop(state);
        if is_waited_for {
            self.slot.done.notify_all();
        }
        if let Some(waker) = waker {
            waker.wake();
        }
        is_first
    }
}

impl Drop for Settle {
    fn drop(&mut self) {
        self.set(Err(AuditError::Failed));
    }
}

/// Both ends of a promise.
pub(crate) fn pair() -> (Settle, Ticket) {
    let slot = Arc::new(TicketSlot::default());
    (Settle { slot: Arc::clone(&slot) }, Ticket { slot })
}
