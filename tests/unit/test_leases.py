"""Leases: whatever happens between record and secret, nothing is left that somebody could use."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from authz.errors import ApiError, UnavailableError
from authz.leases import (
    BrokerError,
    Lease,
    LeaseManager,
    LeaseOrder,
    LeaseState,
    NothingMadeError,
    NotRemovedError,
    UnreachableError,
)
from tests.support.waiting import eventually


class Store:
    """Records in memory, as an engine keeps them."""

    def __init__(self) -> None:
        self.records: dict[str, Lease] = {}
        self.ended: set[str] = set()
        self.down = False
        self._lock = threading.Lock()

    def add(self, lease: Lease) -> Lease:
        """Commits a record."""
        self.records[lease.id] = lease
        return lease

    def leases(self, session: str | None = None) -> Iterable[Lease]:
        """Lists them."""
        if self.down:
            raise UnavailableError("the store is down")
        with self._lock:
            return [
                replace(lease, live=lease.session not in self.ended)
                for lease in self.records.values()
                if session in {None, lease.session}
            ]

    def put_lease(self, lease: Lease, before: Lease) -> bool:
        """Changes one, if it is as it was."""
        if self.down:
            raise UnavailableError("the store is down")
        with self._lock:
            known = self.records.get(lease.id)
            if known is None or (known.state, known.attempts) != (before.state, before.attempts):
                return False
            if lease.state is LeaseState.LIVE and lease.session in self.ended:
                return False
            if lease.state is LeaseState.ENDED:
                del self.records[lease.id]
            else:
                self.records[lease.id] = lease
            return True


class Broker:
    """Secrets in a set."""

    def __init__(self, name: str = "warehouse") -> None:
        self.name = name
        self.secrets: set[str] = set()
        self.open: set[str] = set()
        self.orders: list[LeaseOrder] = []
        self.findings: tuple[str, ...] = ()
        self.is_closed = False
        self.refuses: Callable[[str], BaseException | None] = lambda _: None
        self.before_making: Callable[[], None] = lambda: None
        self.ends = 0
        self.orphan_searches = 0

    def serves(self, operation: str) -> bool:
        """All but one."""
        return operation != "dwh.none"

    def name_of(self, lease: str) -> str:
        """Its id."""
        return f"role-{lease}"

    def make(self, order: LeaseOrder, within: float) -> Mapping[str, str]:
        """Makes one."""
        assert within > 0
        self.before_making()
        if (error := self.refuses("make")) is not None:
            raise error
        self.orders.append(order)
        self.secrets.add(order.lease)
        self.open.add(order.lease)
        if (error := self.refuses("made")) is not None:
            raise error
        return {"password": "s3cret"}

    def stop(self, lease: str, within: float) -> None:
        """Ends the access of one."""
        assert within > 0
        if (error := self.refuses(f"stop {lease}")) is not None:
            raise error
        self.open.discard(lease)

    def inspect(self, within: float) -> tuple[str, ...]:
        """Gives what is not set up well."""
        assert within > 0
        return self.findings

    def close(self) -> None:
        """Closes what is open."""
        self.is_closed = True

    def end(self, lease: str, within: float) -> None:
        """Takes one back."""
        assert within > 0
        self.ends += 1
        if (error := self.refuses("end")) is not None:
            raise error
        self.open.discard(lease)
        self.secrets.discard(lease)

    def end_orphans(self, known: Callable[[], frozenset[str]], within: float) -> int:
        """Takes back what nobody knows."""
        assert within > 0
        self.orphan_searches += 1
        if (error := self.refuses("orphans")) is not None:
            raise error
        found = set(self.secrets)
        orphans = found - known()
        self.secrets -= orphans
        return len(orphans)


class Log:
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def __getattr__(self, level: str) -> Callable[..., None]:
        """Any level."""
        return lambda event, **facts: self.lines.append((level, event, facts))

    def count(self, text: str) -> int:
        """Counts lines that hold a text."""
        return sum(text in event for _, event, _ in self.lines)


class Site:
    """Leases with their store and broker."""

    def __init__(self) -> None:
        self.store, self.broker, self.log = Store(), Broker(), Log()
        self.leases = self.again()

    def again(self) -> LeaseManager:
        """Another node, or this one after a crash."""
        logger: Any = self.log
        return LeaseManager({"warehouse": self.broker}, self.store, logger, staleness=0.1)

    def make(self, number: int = 1) -> Lease:
        """Makes a lease."""
        lease = self.store.add(wanted(number))
        self.leases.make(lease, 5)
        return lease


@pytest.fixture
def site() -> Iterator[Site]:
    """One node, whose side thread is not started."""
    made = Site()
    yield made
    made.leases.close()


def wanted(number: int = 1, *, broker: str = "warehouse", operation: str = "dwh.read") -> Lease:
    """A record as the engine commits it."""
    until = time.time() + 60
    return Lease(f"session-{number}/lease", broker, LeaseState.WANTED, until, operation)


def metric(leases: LeaseManager, name: str, **labels: str) -> float:
    """Reads one sample."""
    for family in leases.families():
        for sample, found, value in family.samples:
            if sample == name and labels.items() <= dict(found).items():
                return value
    raise AssertionError(name)


# --- making


def test_a_secret_that_is_made_has_a_live_record(site: Site) -> None:
    """With the name by which the system knows it."""
    lease = site.store.add(wanted())
    assert site.leases.make(lease, 5) == {"password": "s3cret"}
    kept = site.store.records[lease.id]
    assert (kept.state, kept.name) == (LeaseState.LIVE, "role-session-1/lease")
    assert "s3cret" not in repr(kept)
    assert metric(site.leases, "authz_leases_made_total", result="success") == 1


def test_a_broker_that_is_down_leaves_no_record(site: Site) -> None:
    """It is certain that nothing was made."""
    site.broker.refuses = lambda what: NothingMadeError("down") if what == "make" else None
    with pytest.raises(BrokerError):
        site.leases.make(site.store.add(wanted()), 5)
    assert site.store.records == {}
    assert metric(site.leases, "authz_leases_made_total", result="failure") == 1


def test_why_a_secret_cannot_be_made_is_told_to_operators_alone(site: Site) -> None:
    """Once for each reason; whoever asks for it learns nothing of how the system is set up."""
    reasons = ["database `payroll` is open", "database `payroll` is open", "table `pay` is missing"]
    told = iter(reasons)
    site.broker.refuses = lambda what: NothingMadeError(next(told)) if what == "make" else None
    for number in range(3):
        with pytest.raises(BrokerError) as refused:
            site.leases.make(site.store.add(wanted(number)), 5)
        assert "pay" not in str(refused.value)
    logged = [facts["error"] for _, event, facts in site.log.lines if "cannot be made" in event]
    assert logged == [reasons[0], reasons[2]]


def test_what_may_have_been_made_is_taken_back(site: Site) -> None:
    """The answer was lost, the secret was not."""
    site.leases.start()
    site.broker.refuses = lambda what: BrokerError("gone") if what == "made" else None
    with pytest.raises(BrokerError):
        site.leases.make(site.store.add(wanted()), 5)
    eventually(lambda: not site.store.records and not site.broker.secrets)


def test_what_is_granted_nothing_is_refused_and_leaves_no_record(site: Site) -> None:
    """A permit is no grant in another system."""
    with pytest.raises(ApiError) as refused:
        site.leases.make(site.store.add(wanted(operation="dwh.none")), 5)
    assert (refused.value.reason, site.store.records) == ("OUT_OF_SCOPE", {})


def test_a_broker_that_is_not_there_is_told(site: Site) -> None:
    """As while a configuration is rolled out."""
    with pytest.raises(BrokerError, match="no broker `other`"):
        site.leases.make(site.store.add(wanted(broker="other")), 5)
    assert site.store.records == {}


def test_a_task_that_ends_while_its_secret_is_made_gets_none(site: Site) -> None:
    """And the secret goes."""
    site.leases.start()
    site.broker.before_making = lambda: site.store.ended.add("session-1")
    with pytest.raises(ApiError) as refused:
        site.leases.make(site.store.add(wanted()), 5)
    assert refused.value.reason == "TASK_ENDED"
    eventually(lambda: not site.store.records and not site.broker.secrets)


def test_a_secret_that_comes_after_its_record_went_is_taken_back(site: Site) -> None:
    """Somebody ended the lease, and found nothing yet."""
    site.broker.before_making = site.store.records.clear
    with pytest.raises(ApiError):
        site.leases.make(site.store.add(wanted()), 5)
    eventually(lambda: not site.broker.secrets)


def test_a_store_that_fails_after_the_secret_was_made_leaves_what_can_be_found(site: Site) -> None:
    """The record stays wanted; the secret is not handed out."""
    lease = site.store.add(wanted())
    site.broker.before_making = lambda: setattr(site.store, "down", True)
    with pytest.raises(UnavailableError):
        site.leases.make(lease, 5)
    site.store.down = False
    assert site.store.records[lease.id].state is LeaseState.WANTED
    site.store.ended.add("session-1")
    assert site.leases.end_due(5)
    assert not site.store.records
    assert not site.broker.secrets


# --- taking back


def test_what_ends_on_this_node_is_taken_back_before_it_is_answered(site: Site) -> None:
    """Of that session alone."""
    site.make(1)
    kept = site.make(2)
    site.store.ended.update({"session-1", "session-2"})
    assert site.leases.end_due(5, "session-1")
    assert site.broker.secrets == {kept.id}
    assert list(site.store.records) == [kept.id]


def test_what_is_live_is_left_alone(site: Site) -> None:
    """However often one looks."""
    lease = site.make()
    site.leases.start()
    for _ in range(20):
        assert site.leases.end_due(1)
    assert site.broker.secrets == {lease.id}
    assert site.broker.ends == 0


def test_what_ends_elsewhere_is_taken_back_within_the_staleness(site: Site) -> None:
    """Nobody tells this node."""
    site.make()
    site.leases.start()
    site.store.ended.add("session-1")
    eventually(lambda: not site.broker.secrets)


def test_time_ends_a_lease_too(site: Site) -> None:
    """Its task lives on."""
    lease = site.store.add(wanted())
    site.leases.make(lease, 5)
    site.store.records[lease.id] = replace(site.store.records[lease.id], expires_at=time.time())
    assert site.leases.end_due(5)
    assert not site.broker.secrets


def test_a_broker_that_hangs_does_not_hold_up_who_ends_the_task(site: Site) -> None:
    """It goes on by itself."""
    site.make()
    site.store.ended.add("session-1")
    free = threading.Event()

    def hang(what: str) -> None:
        if what == "end":
            free.wait(10)

    site.broker.refuses = hang
    started = time.monotonic()
    assert not site.leases.end_due(0.2)
    assert time.monotonic() - started < 5
    free.set()
    eventually(lambda: not site.broker.secrets and not site.store.records)


def test_whoever_ends_another_task_does_not_wait_for_a_broker_that_hangs_or_fails(
    site: Site,
) -> None:
    """A thread that waits decides nothing."""
    site.make()
    site.store.ended.add("session-1")
    free = threading.Event()

    def hang(what: str) -> BaseException | None:
        if what == "end":
            free.wait(10)
            return BrokerError("down")
        return None

    site.broker.refuses = hang
    site.leases.ended(0.2)
    time.sleep(1.1)
    started = time.monotonic()
    site.leases.ended(9)
    assert time.monotonic() - started < 5, "the broker hangs for 10 s"
    free.set()
    eventually(lambda: site.broker.ends == 1 and not site.leases._removal._running)
    started = time.monotonic()
    free.clear()
    site.make(2)
    site.store.ended.add("session-2")
    site.leases.ended(9)
    assert time.monotonic() - started < 5, "the broker hangs for 10 s"
    free.set()


def test_what_cannot_be_taken_back_is_tried_again_counted_and_told(site: Site) -> None:
    """Until it can."""
    site.make()
    site.store.ended.add("session-1")
    site.broker.refuses = lambda what: BrokerError("refused: x") if what == "end" else None
    site.leases.start()
    eventually(lambda: site.broker.ends >= 3)
    kept = site.store.records["session-1/lease"]
    assert (kept.state, kept.last_error) == (LeaseState.ENDING, "refused: x")
    assert metric(site.leases, "authz_lease_ends_total", result="failure") >= 2
    assert metric(site.leases, "authz_leases_due", broker="warehouse") == 1
    assert metric(site.leases, "authz_lease_overdue_seconds", broker="warehouse") > 0
    assert site.leases.detail()[0]["error"] == "refused: x"
    assert site.log.count("cannot be removed") == 1
    site.broker.refuses = lambda _: None
    eventually(lambda: not site.store.records)
    assert not site.broker.secrets
    assert metric(site.leases, "authz_leases_due", broker="warehouse") == 0
    assert site.log.count("can be removed again") == 1


def test_an_overdue_lease_is_a_problem_of_the_node(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readiness says which broker, how long, and why."""
    monkeypatch.setattr("authz.leases.status._ALARM_SECONDS", 0.0)
    site.make()
    site.store.ended.add("session-1")
    site.broker.refuses = lambda what: BrokerError("refused: x") if what == "end" else None
    assert not site.leases.end_due(5)
    (problem,) = site.leases.problems()
    assert problem.startswith("1 leases of broker `warehouse` cannot be removed, for 0 s")
    assert "refused: x" in problem


def test_leases_of_a_broker_that_was_removed_are_a_problem(site: Site) -> None:
    """Nobody else would tell."""
    site.store.add(wanted(broker="other"))
    site.store.ended.add("session-1")
    assert not site.leases.end_due(1)
    assert site.leases.problems() == (
        "1 leases are of broker `other`, which is not configured here",
    )
    assert metric(site.leases, "authz_leases_due", broker="") == 1


def test_failures_wait_longer_each_time_and_not_together(site: Site) -> None:
    """A broker that is down is not asked without pause."""
    for number in range(20):
        site.make(number)
        site.store.ended.add(f"session-{number}")
    stops: list[str] = []

    def be_down(what: str) -> BaseException | None:
        if what.startswith("stop"):
            stops.append(what)
            return UnreachableError("down")
        return None

    site.broker.refuses = be_down
    for _ in range(50):
        site.leases.end_due(1)
    # All at once until it is seen to be down; without a pause it were a thousand.
    assert len(stops) < 60


def test_what_cannot_be_removed_holds_up_no_other_lease(site: Site) -> None:
    """However many secrets have much left to remove, or fail: the access of every other one ends at once."""
    for number in range(40):
        site.make(number)
    site.store.ended.update(f"session-{number}" for number in range(20))
    free = threading.Event()

    def hold_up(what: str) -> BaseException | None:
        if what == "end":
            free.wait(20)
            return NotRemovedError("others depend on it")
        return BrokerError("it fights") if what == "stop session-7/lease" else None

    site.broker.refuses = hold_up
    assert not site.leases.end_due(0.2)
    site.store.ended.update(f"session-{number}" for number in range(20, 40))
    try:
        assert not site.leases.end_due(0.2)
        eventually(lambda: site.broker.open == {"session-7/lease"}, within=10)
        assert len(site.broker.secrets) == 40
    finally:
        free.set()


def test_a_lease_that_gives_no_access_any_more_is_told_apart(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is on call sees whether somebody may still get in."""
    monkeypatch.setattr("authz.leases.status._ALARM_SECONDS", 0.0)
    for number in (1, 2):
        site.make(number)
        site.store.ended.add(f"session-{number}")
    refusals = {
        "end": NotRemovedError("a table is in use"),
        "stop session-2/lease": BrokerError("x"),
    }
    site.broker.refuses = refusals.get
    assert not site.leases.end_due(5)
    (problem,) = site.leases.problems()
    assert "2 leases of broker `warehouse` cannot be removed" in problem
    assert "1 of them may still give access" in problem


def test_a_broker_is_told_who_gets_the_secret(site: Site) -> None:
    """So that one agent's secrets cannot use up what the system can take."""
    record = {"agent": "spiffe://corp.example/bot"}
    site.leases.make(site.store.add(replace(wanted(), record=record)), 5)
    assert site.broker.orders[0].holder == "spiffe://corp.example/bot"


def test_what_is_wrong_with_the_system_is_a_problem_of_the_node(site: Site) -> None:
    """With its remedy, until it is put right; the log tells it once."""
    remedy = "broker `warehouse`: leased roles may create objects: REVOKE …"
    site.broker.findings = (remedy,)
    site.leases.start()
    eventually(lambda: remedy in site.leases.problems())
    assert site.log.count("is not set up well") == 1
    site.leases.close()
    assert site.broker.is_closed


def test_two_nodes_do_not_both_take_back_one_lease(site: Site) -> None:
    """Whoever comes first has it."""
    site.make()
    site.store.ended.add("session-1")
    other = site.again()
    threads = [threading.Thread(target=one.end_due, args=(5,)) for one in (site.leases, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    eventually(lambda: not site.broker.secrets)
    assert site.broker.ends == 1


def test_a_node_that_died_while_it_took_one_back_leaves_it_to_others(site: Site) -> None:
    """After the pause that its claim said."""
    lease = site.make()
    site.store.ended.add("session-1")
    site.store.records[lease.id] = replace(
        site.store.records[lease.id],
        state=LeaseState.ENDING,
        attempts=1,
        next_try=time.time() + 0.3,
    )
    assert not site.leases.end_due(0.1)
    assert site.broker.ends == 0
    site.leases.start()
    eventually(lambda: not site.broker.secrets)


def test_a_lease_that_nobody_can_be_making_any_more_is_taken_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a crash between record and answer: its task may live for days."""
    site.store.add(wanted())
    site.broker.secrets.add("session-1/lease")
    assert site.leases.end_due(1)
    assert site.broker.secrets
    monkeypatch.setattr("authz.leases.due._WANTED_SECONDS", 0.0)
    time.sleep(0.01)
    assert site.leases.end_due(1)
    assert not site.broker.secrets
    assert not site.store.records


def test_a_store_that_is_down_is_told_once_and_tried_again(site: Site) -> None:
    """And is a problem of the node meanwhile."""
    site.store.down = True
    site.leases.start()
    eventually(site.leases.problems)
    assert "leases cannot be looked up (the store is down)" in site.leases.problems()
    time.sleep(0.2)
    site.store.down = False
    eventually(lambda: not site.leases.problems())
    assert site.log.count("leases cannot be read") == 1
    assert site.log.count("leases can be read again") == 1


def test_a_panic_is_counted_and_stops_nothing(site: Site) -> None:
    """A panic of the engine is no Exception."""
    site.make()
    site.store.ended.add("session-1")
    panics = iter([KeyboardInterrupt("panic")])
    site.broker.refuses = lambda what: next(panics, None) if what == "end" else None
    site.leases.start()
    eventually(lambda: not site.broker.secrets)
    assert metric(site.leases, "authz_lease_ends_total", result="failure") == 1


# --- orphans


def test_what_nobody_knows_is_taken_back_at_the_start(site: Site) -> None:
    """And what somebody knows is not."""
    lease = site.make()
    site.broker.secrets.add("nobody/knows")
    site.leases.start()
    eventually(lambda: site.broker.secrets == {lease.id})
    eventually(lambda: metric(site.leases, "authz_lease_orphans_total", broker="warehouse") == 1)
    assert site.log.count("without a lease were removed") == 1


def test_a_search_that_fails_is_tried_again(site: Site) -> None:
    """And is a problem meanwhile."""
    site.broker.secrets.add("nobody/knows")
    site.broker.refuses = lambda what: BrokerError("down") if what == "orphans" else None
    site.leases.start()
    eventually(lambda: site.broker.orphan_searches >= 2)
    assert site.leases.problems() == (
        "secrets without a lease cannot be looked for at broker `warehouse`",
    )
    site.broker.refuses = lambda _: None
    eventually(lambda: not site.broker.secrets)
    eventually(lambda: not site.leases.problems())


def test_no_secret_goes_while_the_store_is_down(site: Site) -> None:
    """Who is known cannot be told."""
    lease = site.make()
    site.store.down = True
    site.leases.start()
    eventually(lambda: site.broker.orphan_searches >= 1)
    time.sleep(0.2)
    assert site.broker.secrets == {lease.id}
