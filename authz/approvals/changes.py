"""Tells watchers of changes of approvals: one thread for the whole node, however many watch.

While nobody watches, the thread asks for nothing.
"""

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
# Also how long the end of a node with watchers waits.
_WAIT_MS: Final = 250
_PAUSE_AFTER_ERROR: Final = 1.0
_UNTIL_WOKEN: Final = 86_400.0


@dataclass(frozen=True, slots=True, eq=False)
class Subscription:
    """One watcher."""

    told: Callable[[ApprovalChange | None], object]
    """Called on the hub's thread with each change; `None`: changes were lost, so read again. It must not wait."""
    approval_id: str = ""
    """Only this approval. Empty: all."""
    task: str = ""
    """Task of the watcher, whose watchers are bounded; where `approval_id` is empty, also only approvals of this task. Empty: all."""


class ApprovalHub:
    """Tells each watcher of the changes that it asked for.

    Args:
        store: Gives the changes.
        failed: Receives every unexpected exception.
        most: Most watchers of the node.
        most_of_task: Most watchers of one task.
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
                # Changes from here on: what came before, the watcher reads. The thread may still give an older number, and then
                # some changes twice.
                self._after = self._store.approval_changes(0, 0).after
            self._place(subscription)[subscription] = None
            self._count += 1
            if task:
                self._of_task[task] += 1
        self._thread.wake()

    def unsubscribe(self, subscription: Subscription) -> None:
        """Remove a watcher; a second time does nothing."""
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
        """Return the watchers among which a watcher stands, under the lock."""
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
            subscription.told(change)
        except Exception as error:  # noqa: BLE001 - one watcher keeps no other from its news
            self._failed(error)


def _overloaded(what: str) -> ApiError:
    return ApiError("OVERLOADED", GrpcCode.RESOURCE_EXHAUSTED, what)
