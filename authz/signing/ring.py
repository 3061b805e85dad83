"""Which key signs now, which are published, and which comes next.

A key has four times. It is *published*: every node's JWKS has it. `jwks_max_age` later, once whoever keeps an older JWKS
has asked again, it *signs*. The next key takes its place after `rotation`. It stays published until the last token that it
signed has ended; then it *expires*: record and private half go. Each node has keys of its own, and all nodes publish all
keys, through the store. A *revoked* key signs nothing from the moment that its node knows of the revocation, and no node
publishes it any more.
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
    """A published key, as the store has it; times are Unix times."""

    kid: str
    """RFC 7638 thumbprint."""
    node: str
    """Whose it is."""
    jwk: str
    """Its public half, JSON."""
    published_at: float
    """Since when it is published."""
    active_from: float
    """When it signs at the earliest."""
    expires_at: float
    """When no token that it signed is alive."""


class KeyRecords(Protocol):
    """The store, as far as keys need it."""

    def signing_keys(self) -> Sequence[KeyRecord]:
        """Read the keys of all nodes."""

    def put_signing_key(self, record: KeyRecord) -> None:
        """Write one."""

    def remove_signing_key(self, kid: str) -> None:
        """Remove one."""

    def is_key_revoked(self, kid: str) -> bool:
        """Tell whether a key is revoked, as this node knows it now; asked for each token, so it must not wait."""


@dataclass(frozen=True, slots=True)
class _Signer:
    """A key of this node, and from when until when it may sign."""

    active_from: float
    ends: float
    key: SigningKey


@dataclass(frozen=True, slots=True)
class PublishedRing:
    """How the keys stand: a value, replaced whole."""

    records: tuple[KeyRecord, ...] = ()
    """Every published key, the oldest first."""
    signers: tuple[_Signer, ...] = ()
    """Keys of this node, the one to prefer first."""
    problems: tuple[str, ...] = ()
    """What keeps keys from being what they should."""

    def active(self, now: float, is_revoked: Callable[[str], bool]) -> SigningKey | None:
        """Find the key that signs.

        Args:
            now: Unix time.
            is_revoked: Tells of a key whether it is revoked.

        Returns:
            The newest of this node that may; none where there is none.
        """
        for signer in self.signers:
            if signer.active_from <= now < signer.ends and not is_revoked(signer.key.kid):
                return signer.key
        return None

    def jwks(self, is_revoked: Callable[[str], bool] = lambda _: False) -> str:
        """Write the keys by which credentials are verified (RFC 7517 §5).

        Args:
            is_revoked: Tells which keys are left out. Default: none.

        Returns:
            JSON.
        """
        kept = (record.jwk for record in self.records if not is_revoked(record.kid))
        return '{"keys":[' + ",".join(kept) + "]}"


class KeyRing:
    """Keeps the keys of this node, and looks after those of all.

    Args:
        settings: What is configured.
        place: Where this node's keys are kept.
        records: Where all nodes' are published.
        node: This node.
        changed: Told the JWKS when it is another; until it returns, no new key signs.
        log: Says what happens to keys.
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
        self._told = ""
        self._has_signed = False
        self._lock = threading.Lock()
        # A burst of tokens that name unknown keys wakes the thread four times in a pause at most.
        self._thread = PeriodicThread(
            "keys", self.tend, self._pause, self._failed, least_pause=self._pause / 4
        )

    # --- what is asked

    @property
    def ring(self) -> PublishedRing:
        """How the keys stand."""
        return self._ring

    @property
    def max_age(self) -> int:
        """Seconds that others may keep the JWKS; none while no key is in it."""
        return int(self._keys.jwks_max_age) if self._ring.records else 0

    def jwks(self) -> str:
        """Write the keys by which others verify credentials (RFC 7517 §5); without those that are revoked.

        Returns:
            JSON.
        """
        return self._ring.jwks(self._records.is_key_revoked)

    def active(self) -> SigningKey | None:
        """Find the key that signs now. Ask for each token: a key may be revoked at any time.

        Returns:
            The key; none where this node has none that may.
        """
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
        """Tell what is wrong with the keys.

        Returns:
            One sentence each; none where all is well.
        """
        ring, now = self._ring, self._clock()
        if self._active(ring, now) is not None:
            return ring.problems
        waiting = [signer.active_from for signer in ring.signers if signer.active_from > now]
        when = f"; one will in {min(waiting) - now:.0f} s" if waiting else ""
        return (f"no key signs credentials{when}", *ring.problems)

    def detail(self) -> list[dict[str, Any]]:
        """Tell of every published key.

        Returns:
            JSON values, the oldest first.
        """
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
        """Count the keys that have a record.

        Returns:
            By `signing`, `waiting`, `retired` (revoked ones among them), `other_nodes`.
        """
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

    # --- its life

    def begin(self) -> None:
        """Look after the keys for the first time.

        A store that cannot be reached is tried again later; keys that others can read refuse the start.

        Raises:
            KeysError: The keys of this node are refused.
        """
        self._place.find()
        try:
            self.tend()
        except AuthzError as error:
            self._failed(error)

    def start(self) -> None:
        """Look after the keys from time to time."""
        self._thread.start()

    def wake(self) -> None:
        """Look after them now: a credential named a key of ours that is not known here."""
        self._thread.wake()

    def close(self) -> None:
        """End, wait for the thread, and let go of the keys."""
        self._thread.close(10)
        self._place.close()

    def tend(self) -> None:
        """Publish, rotate and retire keys, as it is time.

        Raises:
            AuthzError: Keys or store fail; what stood before stands.
        """
        with self._lock:
            # As the store keeps it.
            self._tend(round(self._clock(), 3))

    def _failed(self, error: BaseException) -> None:
        said = str(error) if isinstance(error, AuthzError) else repr(error)
        before = self._ring
        if said not in before.problems:
            self._log.error("signing keys are not looked after; trying again", error=said)
        self._ring = replace(before, problems=(said,))

    def _tend(self, now: float) -> None:
        own = {key.kid: key for key in self._place.find()}
        known = {record.kid: record for record in self._records.signing_keys()}
        problems = self._forget(own, known, now)
        for kid in sorted(own.keys() - known.keys()):
            if self._records.is_key_revoked(kid):
                # It has no record any more, and must not get a new one.
                del own[kid]
            else:
                self._publish(own[kid], known, now)
        for record in list(known.values()):
            if record.kid in own and record.node != self._node:
                # Whoever has the private half has the key: its node was renamed.
                self._put(replace(record, node=self._node), known)
            elif record.node == self._node and record.kid not in own:
                # Its private half was taken away: it signs nothing any more.
                self._end(record, known, now)
        usable = self._end_revoked(own, known, now)
        problems += self._succeed(usable, known, now)
        self._retire(usable, known, now)
        self._tell(usable, known, problems)

    def _end_revoked(
        self, own: dict[str, SigningKey], known: dict[str, KeyRecord], now: float
    ) -> dict[str, SigningKey]:
        """Let revoked keys end, and give the others: a revoked one must not keep its successor from being made."""
        revoked = {kid for kid in own if self._records.is_key_revoked(kid)}
        for kid in sorted(revoked):
            self._end(known[kid], known, now)
        return {kid: key for kid, key in own.items() if kid not in revoked}

    def _succeed(
        self, own: dict[str, SigningKey], known: dict[str, KeyRecord], now: float
    ) -> tuple[str, ...]:
        """Make the key that signs next, when it is time."""
        mine = [known[kid] for kid in own]
        signing = [one for one in mine if one.active_from <= now < self._ends(one)]
        waiting = any(one.active_from > now for one in mine)
        newest = max(signing, key=_order, default=None)
        if not self._keys.generate:
            if newest is not None and self._ends(newest) - now < self._keys.rotation:
                self._put(replace(newest, expires_at=self._expiry(now)), known)
            return () if mine else ("no signing key is there, and none may be made",)
        due = newest is None or now >= newest.active_from + self._keys.rotation - self._ahead
        if waiting or not due:
            return ()
        try:
            made = self._place.generate(self._keys.algorithm)
            own[made.kid] = made
            self._publish(made, known, now)
        except AuthzError as error:
            if newest is None:
                raise
            # The one that signs goes on for another `rotation`.
            return (f"the next signing key cannot be made: {error}",)
        return ()

    def _publish(self, key: SigningKey, known: dict[str, KeyRecord], now: float) -> None:
        # Where none was ever published, nobody can hold a JWKS without it.
        first = not known and self._told in {"", PublishedRing().jwks()}
        start = now if first else now + self._ahead
        jwk = json.dumps(key.jwk, sort_keys=True, separators=(",", ":"))
        made = KeyRecord(key.kid, self._node, jwk, now, start, self._expiry(start))
        self._put(made, known)
        if first:
            others = [one for one in self._records.signing_keys() if one.kid != key.kid]
            known.update((one.kid, one) for one in others)
            if any((one.published_at, one.kid) < (now, key.kid) for one in others):
                later = now + self._ahead
                self._put(replace(made, active_from=later, expires_at=self._expiry(later)), known)
        self._log.info(
            "a signing key is published",
            kid=key.kid,
            signs_in_seconds=round(known[key.kid].active_from - now),
        )

    def _retire(self, own: dict[str, SigningKey], known: dict[str, KeyRecord], now: float) -> None:
        """Let the keys end whose place another one has taken."""
        mine = [known[kid] for kid in own]
        newest = max(
            (one for one in mine if one.active_from <= now < self._ends(one)),
            key=_order,
            default=None,
        )
        for one in mine:
            if newest is not None and _order(one) < _order(newest):
                self._end(one, known, now)

    def _end(self, record: KeyRecord, known: dict[str, KeyRecord], now: float) -> None:
        last = now + self._longest
        if record.expires_at > last:
            self._put(replace(record, expires_at=last), known)
            self._log.info("a signing key signs no longer", kid=record.kid)

    def _tell(
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
        if jwks != self._told:
            self._changed(jwks)
            self._told = jwks
        self._ring = ring

    def _forget(
        self, own: dict[str, SigningKey], known: dict[str, KeyRecord], now: float
    ) -> tuple[str, ...]:
        """Let go of keys none of whose tokens is alive: the private half first, then the record."""
        problems: list[str] = []
        for record in [one for one in known.values() if one.expires_at <= now]:
            mine = record.kid in own
            # Of a key whose private half is still there the record stays, or it would be taken for a new one.
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
        """When the last token of a key that signs from `start` has ended, should no other ever follow it."""
        return start + 2 * self._keys.rotation + self._longest

    def _ends(self, record: KeyRecord) -> float:
        """When a key must have stopped signing, so that its tokens end before it is forgotten."""
        return record.expires_at - self._longest


def _order(record: KeyRecord) -> tuple[float, str]:
    return record.active_from, record.kid
