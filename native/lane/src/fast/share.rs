//! Bounds of one listener, shared so that no peer can use them up for the others.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use authz_base::poison::IgnorePoison as _;

/// Bytes of unfinished messages that one listener holds, besides their first frames.
const RECEIVING_BYTES: usize = 256 * 1024 * 1024;
/// Streams that any connection may have at once.
const MIN_STREAMS: u32 = 16;
/// Bits of an IPv6 address after its network: one host has all addresses of the network.
const HOST_BITS: u32 = 64;

/// A bound, and how much of it is used.
///
/// One peer may hold half of the room that the other peers leave. So each further peer finds room even if many peers are full,
/// and a peer that is alone has half of all.
#[derive(Debug)]
pub(super) struct Share {
    most: usize,
    used: AtomicUsize,
}

/// Bound that left no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// All peers together hold what the listener may hold.
    Listener,
    /// The peer holds what it may hold.
    Peer,
}

impl Share {
    pub(super) const fn new(most: usize) -> Self {
        Self { most, used: AtomicUsize::new(0) }
    }

    /// Takes so much for a peer that holds `own`. Near the bound two peers that take at once may both be refused; more
    /// than the bound is never taken.
    fn take(&self, own: &AtomicUsize, amount: usize) -> Result<(), Full> {
        let mine = own.fetch_add(amount, Ordering::AcqRel).saturating_add(amount);
        let all = self.used.fetch_add(amount, Ordering::AcqRel).saturating_add(amount);
        let left = self.most.saturating_sub(all.saturating_sub(mine));
        let refused = if all > self.most {
            Some(Full::Listener)
        } else if mine > (left / 2).max(1) {
            Some(Full::Peer)
        } else {
            None
        };
        match refused {
            None => Ok(()),
            Some(full) => {
                self.give_back(own, amount);
                Err(full)
            }
        }
    }

    fn give_back(&self, own: &AtomicUsize, amount: usize) {
        own.fetch_sub(amount, Ordering::AcqRel);
        self.used.fetch_sub(amount, Ordering::AcqRel);
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// Peer that a connection counts for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum PeerKey {
    /// An IPv4 address, or the /64 network of an IPv6 address.
    Address(IpAddr),
    /// The user of the process at the other end of a unix socket.
    User(u32),
    /// SPIFFE id of its certificate, or the digest of one without.
    Identity(Box<str>),
}

impl PeerKey {
    pub(super) fn of(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(v6) => {
                let network = u128::from(v6).checked_shr(HOST_BITS).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(network.checked_shl(HOST_BITS).unwrap_or(0)))
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// Share of one peer in one listener.
#[derive(Debug, Default)]
struct Holdings {
    connections: AtomicUsize,
    calls: AtomicUsize,
    receiving: AtomicUsize,
    waiting: AtomicUsize,
}

/// The peers of one listener. Each has a connection, so there are never more than connections.
#[derive(Debug)]
pub(super) struct PeerTable {
    table: Mutex<HashMap<PeerKey, Arc<Holdings>>>,
    pub(super) connections: Share,
    pub(super) calls: Share,
    receiving: Share,
    /// Calls that hold a thread until a change is durable; of all listeners together.
    waiting: Arc<Share>,
}

impl PeerTable {
    pub(super) fn new(connections: usize, calls: usize, waiting: Arc<Share>) -> Self {
        Self {
            table: Mutex::default(),
            connections: Share::new(connections),
            calls: Share::new(calls),
            receiving: Share::new(RECEIVING_BYTES),
            waiting,
        }
    }

    /// Counts a connection of a peer.
    pub(super) fn admit(self: &Arc<Self>, key: PeerKey) -> Result<Arc<CountedConnection>, Full> {
        let mut table = self.table.lock().ignore_poison();
        let holdings = table.get(&key).map(Arc::clone).unwrap_or_default();
        self.connections.take(&holdings.connections, 1)?;
        table.entry(key.clone()).or_insert_with(|| Arc::clone(&holdings));
        drop(table);
        Ok(Arc::new(CountedConnection { peers: Arc::clone(self), key, holdings }))
    }
}

/// A connection among those of its peer.
#[derive(Debug)]
pub(super) struct CountedConnection {
    peers: Arc<PeerTable>,
    key: PeerKey,
    holdings: Arc<Holdings>,
}

impl CountedConnection {
    /// Streams that this connection may have at once: `most`, or its part of the listener's calls, where its peer has many
    /// connections. So a peer with hundreds of connections has no tens of thousands of calls that only wait for their refusal.
    pub(super) fn streams(&self, most: u32) -> u32 {
        let connections = self.holdings.connections.load(Ordering::Acquire);
        let part = self.peers.calls.most.checked_div(connections).unwrap_or(usize::MAX);
        u32::try_from(part).unwrap_or(u32::MAX).max(MIN_STREAMS).min(most)
    }

    /// Counts a call, its message received or not.
    pub(super) fn begin(self: &Arc<Self>) -> Result<CountedCall, Full> {
        self.peers.calls.take(&self.holdings.calls, 1)?;
        Ok(CountedCall { place: Arc::clone(self), receiving: 0 })
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        let mut table = self.peers.table.lock().ignore_poison();
        self.peers.connections.give_back(&self.holdings.connections, 1);
        if self.holdings.connections.load(Ordering::Acquire) == 0 {
            table.remove(&self.key);
        }
    }
}

/// A call among those of its peer, until its answer is on its way.
#[derive(Debug)]
pub(super) struct CountedCall {
    place: Arc<CountedConnection>,
    receiving: usize,
}

impl CountedCall {
    /// Counts bytes of the message that had to be put aside.
    pub(super) fn receive(&mut self, bytes: usize) -> Result<(), Full> {
        self.place.peers.receiving.take(&self.place.holdings.receiving, bytes)?;
        self.receiving = self.receiving.saturating_add(bytes);
        Ok(())
    }

    /// Counts a call that holds its thread.
    pub(super) fn wait(&self) -> Result<Waiting, Full> {
        self.place.peers.waiting.take(&self.place.holdings.waiting, 1)?;
        Ok(Waiting(Arc::clone(&self.place)))
    }
}

impl Drop for CountedCall {
    fn drop(&mut self) {
        let CountedConnection { peers, holdings, .. } = &*self.place;
        peers.receiving.give_back(&holdings.receiving, self.receiving);
        peers.calls.give_back(&holdings.calls, 1);
    }
}

/// A call that holds its thread.
#[derive(Debug)]
pub(super) struct Waiting(Arc<CountedConnection>);

impl Drop for Waiting {
    fn drop(&mut self) {
        let CountedConnection { peers, holdings, .. } = &*self.0;
        peers.waiting.give_back(&holdings.waiting, 1);
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn peers(connections: usize, calls: usize) -> Arc<PeerTable> {
        Arc::new(PeerTable::new(connections, calls, Arc::new(Share::new(4))))
    }

    fn user(uid: u32) -> PeerKey {
        PeerKey::User(uid)
    }

    /// The next peer finds room even if many peers are full.
    #[test]
    fn a_full_peer_leaves_room() {
        let peers = peers(64, 64);
        let mut held = Vec::new();
        for uid in 0..6 {
            let before = held.len();
            let full = loop {
                match peers.admit(user(uid)) {
                    Ok(place) => held.push(place),
                    Err(full) => break full,
                }
            };
            assert_eq!(Full::Peer, full, "peer {uid}");
            assert!(held.len() > before, "peer {uid} got nothing");
        }
        assert!(held.len() <= 64);
        held.clear();
        assert_eq!(0, peers.connections.used());
        assert!(peers.table.lock().unwrap().is_empty());
    }

    /// Calls are counted for the peer, over all of its connections; and are given back.
    #[test]
    fn calls_count_for_the_peer() {
        let peers = peers(64, 8);
        let (one, two) = (peers.admit(user(1)).unwrap(), peers.admit(user(1)).unwrap());
        let calls: Vec<_> = [&one, &two, &one, &two].map(|place| place.begin().unwrap()).into();
        assert_eq!(Full::Peer, one.begin().unwrap_err());
        let other = peers.admit(user(2)).unwrap();
        let theirs = [other.begin().unwrap(), other.begin().unwrap()];
        assert_eq!(Full::Peer, other.begin().unwrap_err());
        drop(calls);
        assert!(one.begin().is_ok());
        drop(theirs);
        assert_eq!(0, peers.calls.used());
    }

    /// Bytes that are put aside, and threads that wait, are given back with the call.
    #[test]
    fn bytes_and_threads() {
        let peers = peers(4, 8);
        let place = peers.admit(user(1)).unwrap();
        let mut call = place.begin().unwrap();
        call.receive(RECEIVING_BYTES / 2).unwrap();
        assert_eq!(Full::Peer, call.receive(1).unwrap_err());
        let waits = [call.wait().unwrap(), call.wait().unwrap()];
        assert_eq!(Full::Peer, call.wait().unwrap_err());
        drop(waits);
        assert!(call.wait().is_ok());
        drop(call);
        assert_eq!((0, 0), (peers.receiving.used(), peers.waiting.used()));
    }

    /// The streams of a connection become fewer with the connections of its peer, and are always some.
    #[test]
    fn streams_of_a_connection() {
        let peers = peers(1_024, 2_048);
        let held: Vec<_> = (0..300).map(|_| peers.admit(user(1)).unwrap()).collect();
        assert_eq!((16, 8), (held[0].streams(256), held[0].streams(8)));
        let other = peers.admit(user(2)).unwrap();
        assert_eq!(256, other.streams(256));
        drop(held);
        let few: Vec<_> = (0..16).map(|_| peers.admit(user(1)).unwrap()).collect();
        assert_eq!(128, few[0].streams(256));
    }

    /// A host has a whole IPv6 network; an IPv4 address is the same however it is written.
    #[test]
    fn hosts() {
        let of = |text: &str| PeerKey::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:ffff:ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
