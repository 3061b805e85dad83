"""Threads that decide, with a bounded queue before them: a call that does not fit is answered at once, by threads of its own.

A call reaches a thread only once its message is here (`authz.server.grpc.receiving`). `submit` and `enter` run on grpcio's polling
thread, so they never block and never raise. A call that finds the queue full still runs, on a *shed* thread, where `begin()`
gives nothing: its handler then answers a ready refusal. An RPC error instead would be a permit to an Envoy with
`failure_mode_allow`.
"""

import threading
import time
from collections.abc import Callable
from concurrent import futures
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Protocol, cast

__all__ = ["BoundedExecutor", "Job", "Turn"]

_SHED_THREADS = 2


class Turn(Protocol):
    """Answers a handler's question about the call that runs on its thread."""

    def begin(self) -> float | None:
        """Return the seconds that the call has waited since it arrived; `None`: the queue was full, so refuse it."""


class Job:
    """One call, with the part of a future that grpcio uses."""

    __slots__ = ("_callbacks", "_done", "_lock", "args", "at", "fn", "kwargs")

    def __init__(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.fn = fn
        self.args = args
        self.kwargs = kwargs or {}
        self.at = time.monotonic()
        self._lock = threading.Lock()
        self._done = False
        self._callbacks: list[Callable[[Any], object]] = []

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Call `fn` once the job is done; at once if it is."""
        with self._lock:
            if not self._done:
                self._callbacks.append(fn)
                return
        fn(self)

    def finish(self) -> None:
        """Mark the job as done; a second time does nothing."""
        with self._lock:
            self._done = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)


class _Place(threading.local):
    """The slot of the current thread."""

    slot: "_Slot | None" = None


class _Slot:
    """State of one thread, as the handler on it sees it."""

    __slots__ = ("running", "since", "waited")

    def __init__(self) -> None:
        self.running = False
        self.since = 0.0
        self.waited: float | None = 0.0


class BoundedExecutor(futures.Executor):
    """Runs calls on a fixed number of threads, with a bounded queue before them.

    Args:
        threads: Calls that run at once.
        queue: Calls that may wait; one more is shed.
        failed: Receives each exception of a call.
        name: Name of the listener, for the names of the threads.
    """

    def __init__(
        self,
        threads: int,
        queue: int,
        *,
        failed: Callable[[BaseException], None] = lambda _: None,
        name: str = "",
    ) -> None:
        self._limit = queue
        self._failed = failed
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._shed_queue: SimpleQueue[Job | None] = SimpleQueue()
        self._place = _Place()
        self._closed = False
        self._shed = 0
        self._slots = [_Slot() for _ in range(threads + _SHED_THREADS)]
        suffix = f"-{name}" if name else ""
        self._threads = [
            threading.Thread(
                target=self._work,
                args=(self._queue if index < threads else self._shed_queue, slot, index >= threads),
                name=f"authz-call-{index}{suffix}"
                if index < threads
                else f"authz-shed-{index - threads}{suffix}",
                daemon=True,
            )
            for index, slot in enumerate(self._slots)
        ]
        for thread in self._threads:
            thread.start()

    # --- for grpcio

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> futures.Future[Any]:
        """Queue a call, or shed it; return the part of a future that grpcio uses.

        Args:
            fn: The call.
            args: Positional arguments.
            kwargs: Keyword arguments.
        """
        job = Job(fn, args, kwargs)
        self.enter(job)
        return cast("futures.Future[Any]", job)

    def enter(self, job: Job) -> None:
        """Queue a call, or shed it. The call waits since it was made."""
        if self._queue.qsize() >= self._limit:
            self._shed += 1
            self._shed_queue.put(job)
        else:
            self._queue.put(job)

    def aside(self, job: Job) -> None:
        """Run a refusal on a shed thread, so that the thread on which calls arrive makes none."""
        self._shed_queue.put(job)

    def probe(self, answered: Callable[[], object]) -> None:
        """Queue a call that takes no time, behind all that wait, to measure how long they wait."""
        self._queue.put(Job(answered))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        """End the threads once the queued calls are done.

        Args:
            wait: Wait for them.
            cancel_futures: Ignored: a queued call is an answer that somebody waits for.
        """
        del cancel_futures
        if not self._closed:
            self._closed = True
            for thread in self._threads:
                (self._shed_queue if thread.name.startswith("authz-shed") else self._queue).put(
                    None
                )
        if wait:
            for thread in self._threads:
                thread.join()

    # --- for handlers

    def begin(self) -> float | None:
        """Return the seconds that the call on this thread has waited; `None` on a shed thread: the queue was full."""
        slot = self._place.slot
        return 0.0 if slot is None else slot.waited

    # --- for metrics

    @property
    def depth(self) -> int:
        """Number of calls that wait."""
        return self._queue.qsize()

    @property
    def busy(self) -> tuple[float, ...]:
        """Seconds that each running call has taken so far."""
        now = time.monotonic()
        return tuple(now - slot.since for slot in self._slots if slot.running)

    @property
    def shed(self) -> int:
        """Number of calls that were shed since the start."""
        return self._shed

    # --- the threads

    def _work(self, queue: "SimpleQueue[Job | None]", slot: _Slot, shed: bool) -> None:  # noqa: FBT001
        self._place.slot = slot
        while True:
            job = queue.get()
            if job is None:
                return
            slot.since = time.monotonic()
            slot.running = True
            slot.waited = None if shed else slot.since - job.at
            try:
                job.fn(*job.args, **job.kwargs)
            except BaseException as error:  # noqa: BLE001 - a thread of the pool must outlive any call
                with suppress(BaseException):
                    self._failed(error)
            slot.running = False
            try:  # noqa: SIM105 - a context manager takes longer
                job.finish()
            except BaseException:  # noqa: BLE001, S110 - a thread of the pool must outlive any call
                pass
