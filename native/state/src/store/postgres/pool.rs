//! A bounded number of connections.
//!
//! `deadpool-postgres` (0.14) has bounded waits and TLS, but not the rule that this pool rests on: a connection comes back
//! only by [`PooledConnection::give_back`]. Its objects return to the pool when they are dropped, so a panic or an
//! abandoned call would lend a connection with an open transaction to the next caller, unless every lease were wrapped as
//! here. Its connections are `tokio_postgres` clients; ours have prepared statements, the server's identity and a
//! generation, after a fail-over of which no older connection comes back. With a manager and a wrapper of our own for
//! these, little of this file would go.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use authz_base::poison::IgnorePoison as _;

use super::dsn::Address;
use super::run::Runner;
use super::sql::Connection;
use crate::store::StoreError;
use crate::time::now;

/// Time for the end of a transaction that was given up.
const ROLL_BACK: Duration = Duration::from_secs(1);

#[derive(Default)]
struct PoolState {
    idle: Vec<Arc<Connection>>,
    /// Number of idle and lent connections.
    open: usize,
    /// Connections of an earlier generation are not taken back.
    generation: u64,
}

/// Pool of connections.
pub(super) struct Pool {
    state: Mutex<PoolState>,
    freed: Condvar,
    most: usize,
    address: Address,
    runner: Runner,
}

impl Pool {
    pub(super) fn new(address: Address, most: usize, runner: Runner) -> Self {
        Self { state: Mutex::default(), freed: Condvar::new(), most, address, runner }
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().ignore_poison()
    }

    /// Lends a connection that is not known to be closed.
    pub(super) fn acquire(
        self: &Arc<Self>,
        deadline: Instant,
    ) -> Result<PooledConnection, StoreError> {
        let mut state = self.lock();
        let generation = loop {
            while let Some(connection) = state.idle.pop() {
                if connection.is_closed() {
                    state.open = state.open.saturating_sub(1);
                    continue;
                }
                let generation = state.generation;
                let pool = Arc::clone(self);
                return Ok(PooledConnection {
                    pool,
                    connection: Some(connection),
                    generation,
                    is_back: false,
                });
            }
            if state.open < self.most {
                state.open = state.open.saturating_add(1);
                break state.generation;
            }
            let left = deadline.saturating_duration_since(now());
            if left.is_zero() {
                return Err(StoreError::Slow);
            }
            state = match self.freed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        };
        drop(state);
        // From here on the drop of the lease gives the place back, also after an error.
        let pool = Arc::clone(self);
        let mut lease = PooledConnection { pool, connection: None, generation, is_back: false };
        let address = self.address.clone();
        let opened =
            self.runner.wait(deadline, async move { Connection::open(&address).await })??;
        lease.connection = Some(Arc::new(opened));
        Ok(lease)
    }

    /// Closes idle connections, and takes back no connection that is lent now.
    pub(super) fn renew(&self) {
        let mut state = self.lock();
        state.generation = state.generation.wrapping_add(1);
        let closed = state.idle.len();
        state.idle.clear();
        state.open = state.open.saturating_sub(closed);
        drop(state);
        self.freed.notify_all();
    }

    fn give_back(&self, connection: Option<Arc<Connection>>, generation: u64) {
        let mut state = self.lock();
        match connection {
            Some(connection) if state.generation == generation && !connection.is_closed() => {
                state.idle.push(connection);
            }
            _ => state.open = state.open.saturating_sub(1),
        }
        drop(state);
        self.freed.notify_one();
    }
}

/// Lent connection. Its drop closes it, so that the server rolls its transaction back.
pub(super) struct PooledConnection {
    pool: Arc<Pool>,
    connection: Option<Arc<Connection>>,
    generation: u64,
    is_back: bool,
}

impl PooledConnection {
    pub(super) fn connection(&self) -> Result<Arc<Connection>, StoreError> {
        let connection = self.connection.as_ref().map(Arc::clone);
        connection.ok_or_else(|| StoreError::unavailable("it has no connection"))
    }

    /// Returns a connection without a transaction.
    pub(super) fn give_back(mut self) {
        self.is_back = true;
        self.pool.give_back(self.connection.take(), self.generation);
    }

    /// Rolls back and returns the connection, without waiting for it.
    pub(super) fn roll_back(self) {
        let Some(connection) = self.connection.as_ref().map(Arc::clone) else { return };
        self.pool.runner.clone().spawn(async move {
            let ended = tokio::time::timeout(ROLL_BACK, connection.roll_back()).await;
            drop(connection);
            if matches!(ended, Ok(Ok(()))) {
                self.give_back();
            }
        });
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        if !self.is_back {
            drop(self.connection.take());
            self.pool.give_back(None, self.generation);
        }
    }
}
