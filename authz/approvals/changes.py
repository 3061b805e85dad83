"""Passes changes of approvals to watchers. One thread serves all watchers of a node, and sleeps while there are none."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from authz.approvals.store import ApprovalChange, ApprovalStore
from authz.errors import ApiError, GrpcCode
from authz.periodic import PeriodicThread

__all__ = ["ApprovalHub", "Subscription"]

_MOST_WATCHERS: Final = 4096
_MOST_OF_TASK: Final = 64
# Longest wait of the thread for a change, so also the longest time that the shutdown of a node with watchers takes.
_WAIT_MS: Final = 250
_PAUSE_AFTER_ERROR: Final = 1.0
_UNTIL_WOKEN: Final = 86_400.0


@dataclass(frozen=True, slots=True, eq=False)
class Subscription:
    """One watcher."""

    on_change: Callable[[ApprovalChange | None], object]
    """Called on the hub's thread with each change, or with `None` if changes were lost, so that the watcher must read again. It must
    not wait."""
    approval_id: str = ""
    """Id of the approval to watch. Default: all approvals."""
    task: str = ""
    """Task of the watcher, whose number of watchers is bounded. Without `approval_id`, the watcher gets only changes of this task.
    Default: any task."""


class ApprovalHub:
    """Passes each change to the watchers that subscribed to it.

    Args:
        store: Source of the changes.
        failed: Receives every unexpected exception.
        most: Maximum number of watchers of the node.
        most_of_task: Maximum number of watchers of one task.
    """

    def __init__(
        self,
        store: ApprovalStore,
        failed: Callable[[BaseException], object],
        *,
        most: int = _MOST_WATCHERS,
        most_of_task: int = _MOST_OF_TASK,
    ) -> None:
        self._store = store
        self._failed = failed
        self._most = most
        self._most_of_task = most_of_task
        self._after = 0
        self._lock = threading.Lock()
        self._by_approval: dict[str, dict[Subscription, None]] = {}
        self._others: dict[Subscription, None] = {}
        self._count = 0
        self._of_task: Counter[str] = Counter()
        self._thread = PeriodicThread(
            "approvals", self._look, _PAUSE_AFTER_ERROR, failed, starts_at_once=True
        )

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        self._thread.close()

    def __len__(self) -> int:
        """Return the number of watchers."""
        return self._count

    def subscribe(self, subscription: Subscription) -> None:
        """Add a watcher. Read the state after this call, so that no change is missed.

        Raises:
            ApiError: The node, or the watcher's task, has too many watchers.
            EngineError: The store failed.
        """
        with self._lock:
            task = subscription.task
            if self._count >= self._most:
                raise _overloaded("too many watchers of approvals on this node")
            if task and self._of_task[task] >= self._most_of_task:
                raise _overloaded("too many watchers of approvals of this task")
            if not self._count:
                # The watcher reads earlier state itself, so the hub begins with the changes from now on. The thread may still
                # store an older number, and then passes some changes twice.
                self._after = self._store.approval_changes(0, 0).after
            self._place(subscription)[subscription] = None
            self._count += 1
            if task:
                self._of_task[task] += 1
        self._thread.wake()

    def unsubscribe(self, subscription: Subscription) -> None:
        """Remove a watcher. Do nothing if it was removed before."""
        with self._lock:
            approval = subscription.approval_id
            place = self._by_approval.get(approval, {}) if approval else self._others
            if subscription not in place:
                return
            del place[subscription]
            if approval and not place:
                del self._by_approval[approval]
            self._count -= 1
            task = subscription.task
            if task:
                self._of_task[task] -= 1
                if not self._of_task[task]:
                    del self._of_task[task]

    def _place(self, subscription: Subscription) -> dict[Subscription, None]:
        """Return the collection that holds a watcher. The caller has the lock."""
        if not subscription.approval_id:
            return self._others
        return self._by_approval.setdefault(subscription.approval_id, {})

    def _look(self) -> float:
        if not self._count:
            return _UNTIL_WOKEN
        answer = self._store.approval_changes(self._after, _WAIT_MS)
        self._after = answer.after
        if answer.has_gap:
            for subscription in self._all():
                self._tell(subscription, None)
        for change in answer.changes:
            for subscription in self._watchers_of(change):
                self._tell(subscription, change)
        return 0.0

    def _all(self) -> list[Subscription]:
        with self._lock:
            return [*self._others, *(one for few in self._by_approval.values() for one in few)]

    def _watchers_of(self, change: ApprovalChange) -> Iterator[Subscription]:
        with self._lock:
            others = [one for one in self._others if one.task in {"", change.task}]
            return iter([*self._by_approval.get(change.approval_id, ()), *others])

    def _tell(self, subscription: Subscription, change: ApprovalChange | None) -> None:
        try:
            subscription.on_change(change)
        except Exception as error:  # noqa: BLE001 - a watcher that fails must not stop the others
            self._failed(error)


def _overloaded(what: str) -> ApiError:
    return ApiError("OVERLOADED", GrpcCode.RESOURCE_EXHAUSTED, what)
