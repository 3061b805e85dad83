"""The ring of signing keys: which key signs, which are published, and which comes next.

A key has four times. It is *published*: every node's JWKS has it. `jwks_max_age` later, when no cache of an older JWKS is valid any
more, it *signs*. The next key replaces it after `rotation`. It stays published until the last token that it signed has ended; then
it *expires*: record and private half are removed. Each node has keys of its own, and all nodes publish all keys, through the store.
A *revoked* key signs nothing from the moment that its node knows of the revocation, and no node publishes it any more.
"""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from authz.config import Credentials, SigningKeys
from authz.errors import AuthzError
from authz.periodic import PeriodicThread
from authz.signing.keys import KeyPlace, SigningKey
from authz.telemetry import Logger

__all__ = ["KeyRecord", "KeyRecords", "KeyRing", "PublishedRing"]

_LEEWAY: Final = 60.0
_LONGEST_TICK: Final = 10.0
_SHORTEST_TICK: Final = 0.25
_CLOCKS: Final = 5.0


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A published key in the store; times are Unix times."""

    kid: str
    """RFC 7638 thumbprint."""
    node: str
    """Node of the key."""
    jwk: str
    """Public half, JSON."""
    published_at: float
    """Time of the publication."""
    active_from: float
    """Earliest time at which the key signs."""
    expires_at: float
    """Time at which no token that it signed is valid any more."""


class KeyRecords(Protocol):
    """The store of published keys."""

    def signing_keys(self) -> Sequence[KeyRecord]:
        """Return the keys of all nodes."""

    def put_signing_key(self, record: KeyRecord) -> None:
        """Write a key."""

    def remove_signing_key(self, kid: str) -> None:
        """Remove a key."""

    def is_key_revoked(self, kid: str) -> bool:
        """Return whether this node knows that a key is revoked. It is called for each token, so it must not wait."""


@dataclass(frozen=True, slots=True)
class _Signer:
    """A key of this node, and the time in which it may sign."""

    active_from: float
    ends: float
    key: SigningKey


@dataclass(frozen=True, slots=True)
class PublishedRing:
    """Immutable snapshot of all keys. It is replaced whole."""

    records: tuple[KeyRecord, ...] = ()
    """Every published key, the oldest first."""
    signers: tuple[_Signer, ...] = ()
    """Keys of this node, the preferred one first."""
    problems: tuple[str, ...] = ()
    """One line for each problem."""

    def active(self, now: float, is_revoked: Callable[[str], bool]) -> SigningKey | None:
        """Return the key that signs: the newest key of this node that may; `None` where there is none.

        Args:
            now: Unix time.
            is_revoked: Returns whether a key is revoked.
        """
        for signer in self.signers:
            if signer.active_from <= now < signer.ends and not is_revoked(signer.key.kid):
                return signer.key
        return None

    def jwks(self, is_revoked: Callable[[str], bool] = lambda _: False) -> str:
        """Return the JWKS by which credentials are verified (RFC 7517 §5). `is_revoked` selects keys to leave out."""
        kept = (record.jwk for record in self.records if not is_revoked(record.kid))
        return '{"keys":[' + ",".join(kept) + "]}"


class KeyRing:
    """Manages the keys of this node, and publishes those of all nodes.

    Args:
        settings: Settings of task credentials.
        place: Store of this node's keys.
        records: Store of all nodes' published keys.
        node: Name of this node.
        changed: Called with each new JWKS. Until it returns, no new key signs.
        log: Receives a line when a key is published, stops to sign, or expires.
        clock: Unix time.
    """

    def __init__(
        self,
        settings: Credentials,
        place: KeyPlace,
        records: KeyRecords,
        *,
        node: str,
        changed: Callable[[str], None],
        log: Logger,
        clock: Callable[[], float],
    ) -> None:
        keys: SigningKeys = settings.keys
        self._keys = keys
        self._place = place
        self._records = records
        self._node = node
        self._changed = changed
        self._log = log
        self._clock = clock
        self._longest: float = _LEEWAY + max(dict(settings.lifetime).values())
        self._pause = max(_SHORTEST_TICK, min(_LONGEST_TICK, keys.jwks_max_age / 4))
        self._ahead = keys.jwks_max_age + 2 * self._pause + _CLOCKS
        self._ring = PublishedRing()
        self._published = ""
        self._has_signed = False
        self._lock = threading.Lock()
        # A burst of tokens that name unknown keys wakes the thread four times in a pause at most.
        self._thread = PeriodicThread(
            "keys", self.tend, self._pause, self._failed, least_pause=self._pause / 4
        )

    # --- for others

    @property
    def ring(self) -> PublishedRing:
        """The current snapshot."""
        return self._ring

    @property
    def max_age(self) -> int:
        """Seconds for which others may cache the JWKS; zero while it has no key."""
        return int(self._keys.jwks_max_age) if self._ring.records else 0

    def jwks(self) -> str:
        """Return the JWKS by which others verify credentials (RFC 7517 §5), without revoked keys."""
        return self._ring.jwks(self._records.is_key_revoked)

    def active(self) -> SigningKey | None:
        """Return the key that signs now; `None` if this node has none. Call it for each token: a key may be revoked at any time."""
        return self._active(self._ring, self._clock())

    def _active(self, ring: PublishedRing, now: float) -> SigningKey | None:
        key = ring.active(now, self._records.is_key_revoked)
        self._has_signed = self._has_signed or key is not None
        return key

    @property
    def is_joining(self) -> bool:
        """Whether no key of this node has been able to sign since its start, while one of another node can.

        The key of a node that joins others is published first, and signs once nobody may hold an older JWKS. Until then
        the node would refuse to issue what the other nodes issue.
        """
        if self.active() is not None or self._has_signed:
            return False
        now = self._clock()
        return any(
            record.node != self._node
            and record.active_from <= now < self._ends(record)
            and not self._records.is_key_revoked(record.kid)
            for record in self._ring.records
        )

    def problems(self) -> tuple[str, ...]:
        """Return one line for each problem."""
        ring, now = self._ring, self._clock()
        if self._active(ring, now) is not None:
            return ring.problems
        waiting = [signer.active_from for signer in ring.signers if signer.active_from > now]
        when = f"; one will in {min(waiting) - now:.0f} s" if waiting else ""
        return (f"no key signs credentials{when}", *ring.problems)

    def detail(self) -> list[dict[str, Any]]:
        """Return every published key as JSON values, the oldest first."""
        ring, now = self._ring, self._clock()
        active = self._active(ring, now)
        own = {signer.key.kid for signer in ring.signers}
        return [
            {
                "kid": record.kid,
                "node": record.node,
                "algorithm": json.loads(record.jwk).get("alg"),
                "own": record.kid in own,
                "signs": active is not None and record.kid == active.kid,
                "revoked": self._records.is_key_revoked(record.kid),
                "published_at": record.published_at,
                "active_from": record.active_from,
                "expires_at": record.expires_at,
            }
            for record in ring.records
        ]

    def counts(self) -> Mapping[str, int]:
        """Return the number of keys by `signing`, `waiting`, `retired` (revoked ones included) and `other_nodes`."""
        ring, now = self._ring, self._clock()
        active = self._active(ring, now)
        own = {signer.key.kid for signer in ring.signers}
        counted = {"signing": 0, "waiting": 0, "retired": 0, "other_nodes": 0}
        for record in ring.records:
            if record.kid not in own:
                counted["other_nodes"] += 1
            elif active is not None and record.kid == active.kid:
                counted["signing"] += 1
            else:
                waits = record.active_from > now and not self._records.is_key_revoked(record.kid)
                counted["waiting" if waits else "retired"] += 1
        return counted

    # --- rounds

    def begin(self) -> None:
        """Do the first round.

        A store that cannot be reached is tried again later. Keys that others can read refuse the start.

        Raises:
            KeysError: The keys of this node are refused.
        """
        self._place.find()
        try:
            self.tend()
        except AuthzError as error:
            self._failed(error)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Do a round now: a credential named a key of Authz that is not known here."""
        self._thread.wake()

    def close(self) -> None:
        """Stop the thread, and close the store of keys."""
        self._thread.close(10)
        self._place.close()

    def tend(self) -> None:
        """Publish, rotate and retire keys that are due.

        Raises:
            AuthzError: The keys or the store failed; the snapshot stays as it was.
        """
        with self._lock:
            # Milliseconds, as in the store.
            self._tend(round(self._clock(), 3))

    def _failed(self, error: BaseException) -> None:
        problem = str(error) if isinstance(error, AuthzError) else repr(error)
        before = self._ring
        if problem not in before.problems:
            self._log.error("the round over signing keys failed; trying again", error=problem)
        self._ring = replace(before, problems=(problem,))

    def _tend(self, now: float) -> None:
        own = {key.kid: key for key in self._place.find()}
        records = {record.kid: record for record in self._records.signing_keys()}
        problems = self._forget(own, records, now)
        for kid in sorted(own.keys() - records.keys()):
            if self._records.is_key_revoked(kid):
                # Its record was removed, and it must not get a new one.
                del own[kid]
            else:
                self._publish(own[kid], records, now)
        for record in list(records.values()):
            if record.kid in own and record.node != self._node:
                # The node with the private half owns the key: the node was renamed.
                self._put(replace(record, node=self._node), records)
            elif record.node == self._node and record.kid not in own:
                # Its private half was removed: it cannot sign any more.
                self._end(record, records, now)
        usable = self._end_revoked(own, records, now)
        problems += self._succeed(usable, records, now)
        self._retire(usable, records, now)
        self._publish_ring(usable, records, problems)

    def _end_revoked(
        self, own: dict[str, SigningKey], known: dict[str, KeyRecord], now: float
    ) -> dict[str, SigningKey]:
        """End revoked keys and return the others. A revoked key must not keep its successor from being made."""
        revoked = {kid for kid in own if self._records.is_key_revoked(kid)}
        for kid in sorted(revoked):
            self._end(known[kid], known, now)
        return {kid: key for kid, key in own.items() if kid not in revoked}

    def _succeed(
        self, own: dict[str, SigningKey], known: dict[str, KeyRecord], now: float
    ) -> tuple[str, ...]:
        """Make the next key, if it is due."""
        mine = [known[kid] for kid in own]
        signing = [record for record in mine if record.active_from <= now < self._ends(record)]
        waiting = any(record.active_from > now for record in mine)
        newest = max(signing, key=_order, default=None)
        if not self._keys.generate:
            if newest is not None and self._ends(newest) - now < self._keys.rotation:
                self._put(replace(newest, expires_at=self._expiry(now)), known)
            return () if mine else ("no signing key is there, and none may be made",)
        due = newest is None or now >= newest.active_from + self._keys.rotation - self._ahead
        if waiting or not due:
            return ()
        try:
            next_key = self._place.generate(self._keys.algorithm)
            own[next_key.kid] = next_key
            self._publish(next_key, known, now)
        except AuthzError as error:
            if newest is None:
                raise
            # The current key signs for another `rotation`.
            return (f"the next signing key cannot be made: {error}",)
        return ()

    def _publish(self, key: SigningKey, known: dict[str, KeyRecord], now: float) -> None:
        # If no key was ever published, no cache holds a JWKS without this one.
        first = not known and self._published in {"", PublishedRing().jwks()}
        start = now if first else now + self._ahead
        jwk = json.dumps(key.jwk, sort_keys=True, separators=(",", ":"))
        record = KeyRecord(key.kid, self._node, jwk, now, start, self._expiry(start))
        self._put(record, known)
        if first:
            others = [other for other in self._records.signing_keys() if other.kid != key.kid]
            known.update((other.kid, other) for other in others)
            if any((other.published_at, other.kid) < (now, key.kid) for other in others):
                later = now + self._ahead
                self._put(replace(record, active_from=later, expires_at=self._expiry(later)), known)
        self._log.info(
            "a signing key is published",
            kid=key.kid,
            signs_in_seconds=round(known[key.kid].active_from - now),
        )

    def _retire(self, own: dict[str, SigningKey], known: dict[str, KeyRecord], now: float) -> None:
        """End the keys that another key has replaced."""
        mine = [known[kid] for kid in own]
        newest = max(
            (record for record in mine if record.active_from <= now < self._ends(record)),
            key=_order,
            default=None,
        )
        for record in mine:
            if newest is not None and _order(record) < _order(newest):
                self._end(record, known, now)

    def _end(self, record: KeyRecord, known: dict[str, KeyRecord], now: float) -> None:
        last = now + self._longest
        if record.expires_at > last:
            self._put(replace(record, expires_at=last), known)
            self._log.info("a signing key no longer signs", kid=record.kid)

    def _publish_ring(
        self, own: dict[str, SigningKey], known: dict[str, KeyRecord], problems: tuple[str, ...]
    ) -> None:
        signers = sorted(
            (
                _Signer(known[kid].active_from, self._ends(known[kid]), key)
                for kid, key in own.items()
            ),
            key=lambda signer: (signer.active_from, signer.key.kid),
            reverse=True,
        )
        ring = PublishedRing(tuple(sorted(known.values(), key=_order)), tuple(signers), problems)
        jwks = ring.jwks()
        if jwks != self._published:
            self._changed(jwks)
            self._published = jwks
        self._ring = ring

    def _forget(
        self, own: dict[str, SigningKey], known: dict[str, KeyRecord], now: float
    ) -> tuple[str, ...]:
        """Remove keys whose tokens have all ended: the private half first, then the record."""
        problems: list[str] = []
        for record in [record for record in known.values() if record.expires_at <= now]:
            mine = record.kid in own
            # While the private half exists, the record stays: without it, the key would count as new.
            gone = mine or record.node == self._node
            if mine:
                try:
                    self._place.destroy(record.kid)
                except AuthzError as error:
                    problems.append(f"signing key {record.kid} has expired, and stays: {error}")
                    gone = False
                del own[record.kid]
            elif not gone:
                gone = record.expires_at + self._keys.rotation <= now
            if gone:
                self._records.remove_signing_key(record.kid)
                self._log.info("a signing key has expired", kid=record.kid, node=record.node)
            del known[record.kid]
        return tuple(problems)

    def _put(self, record: KeyRecord, known: dict[str, KeyRecord]) -> None:
        self._records.put_signing_key(record)
        known[record.kid] = record

    def _expiry(self, start: float) -> float:
        """Return when the last token of a key that signs from `start` has ended, if no other key ever replaces it."""
        return start + 2 * self._keys.rotation + self._longest

    def _ends(self, record: KeyRecord) -> float:
        """Return when a key must stop signing, so that its tokens end before the key is removed."""
        return record.expires_at - self._longest


def _order(record: KeyRecord) -> tuple[float, str]:
    return record.active_from, record.kid
