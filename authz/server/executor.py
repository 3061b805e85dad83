"""Threads with a bounded queue: what does not fit is answered at once, by threads of its own.

grpcio calls `submit` on its polling thread, so `submit` never blocks and never raises. A call that finds the
queue full still runs, on a *shed* thread, where `begin()` gives nothing: its handler then answers a ready
refusal. An RPC error instead would be a permit to an Envoy with `failure_mode_allow`.
"""

import threading
import time
from collections.abc import Callable
from concurrent import futures
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Protocol, cast

from authz.server.processor import keep_to

__all__ = ["BoundedExecutor", "Turn"]

_SHED_THREADS = 2
_LONGEST_LOOK = 1.0
_SHORTEST_LOOK = 0.05


class Turn(Protocol):
    """What a handler may ask about the thread that it runs on."""

    def begin(self) -> float | None:
        """Say that the request has come, so that the call is not cancelled as stalled.

        Returns:
            Seconds that the call waited for its thread; none: it found the queue full, and is to be refused.
        """


class _Job:
    """One call; all that grpcio needs of a future."""

    __slots__ = ("_callbacks", "_done", "_lock", "args", "at", "fn", "kwargs")

    def __init__(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
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
        """Mark the job as done."""
        with self._lock:
            self._done = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)


class _Place(threading.local):
    """What one thread is doing."""

    slot: "_Slot | None" = None


class _Slot:
    """What the watch, and the handler that runs there, see of one thread."""

    __slots__ = ("job", "running", "since", "waited")

    def __init__(self) -> None:
        self.job: _Job | None = None
        self.running = False
        self.since = 0.0
        self.waited: float | None = 0.0


class BoundedExecutor(futures.Executor):
    """Runs calls on a fixed number of threads, with a bounded queue before them.

    Args:
        threads: How many calls are worked on at once.
        queue: How many may wait; the next one is shed.
        receive_timeout: A call whose request has not come after so many seconds is cancelled, so that slow
            senders cannot hold every thread.
        failed: Told of each exception that a call let out.
        processor: The processor that the threads which decide keep to; none: any.
    """

    def __init__(
        self,
        threads: int,
        queue: int,
        *,
        receive_timeout: float = 5.0,
        failed: Callable[[BaseException], None] = lambda _: None,
        processor: int | None = None,
    ) -> None:
        self._limit = queue
        self._receive_timeout = receive_timeout
        self._failed = failed
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._shed_queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._place = _Place()
        self._closed = threading.Event()
        self._shed = 0
        self._stalled = 0
        self._slots = [_Slot() for _ in range(threads + _SHED_THREADS)]
        self._threads = [
            threading.Thread(
                target=self._work,
                args=(self._queue if index < threads else self._shed_queue, slot, index >= threads),
                name=f"authz-call-{index}" if index < threads else f"authz-shed-{index - threads}",
                daemon=True,
            )
            for index, slot in enumerate(self._slots)
        ]
        watch = threading.Thread(target=self._watch, name="authz-stalled", daemon=True)
        self._threads.append(watch)
        for thread in self._threads:
            thread.start()
        if processor is not None:
            for thread in self._threads[:threads]:
                keep_to(processor, thread)

    # --- grpcio's side

    def submit(  # grpcio needs only `add_done_callback` of what comes back
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> futures.Future[Any]:
        """Queue a call, or shed it.

        Args:
            fn: What to run.
            args: Its arguments.
            kwargs: Its arguments.

        Returns:
            Something with `add_done_callback`.
        """
        job = _Job(fn, args, kwargs)
        if self._queue.qsize() >= self._limit:
            self._shed += 1
            self._shed_queue.put(job)
        else:
            self._queue.put(job)
        return cast("futures.Future[Any]", job)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        """End the threads once the queued calls are done.

        Args:
            wait: Wait for them.
            cancel_futures: Ignored: a queued call is an answer that somebody waits for.
        """
        del cancel_futures
        if not self._closed.is_set():
            self._closed.set()
            for thread in self._threads[:-1]:
                (self._shed_queue if thread.name.startswith("authz-shed") else self._queue).put(
                    None
                )
        if wait:
            for thread in self._threads:
                thread.join()

    # --- the handlers' side

    def begin(self) -> float | None:
        """Say that the request of the call on this thread has come.

        Returns:
            Seconds that the call waited for its thread; none on a shed thread: it found the queue full.
        """
        slot = self._place.slot
        if slot is None:
            return 0.0
        slot.job = None
        return slot.waited

    # --- for metrics

    @property
    def depth(self) -> int:
        """Calls that wait now."""
        return self._queue.qsize()

    @property
    def busy(self) -> tuple[float, ...]:
        """Seconds that each running call has taken so far."""
        now = time.monotonic()
        return tuple(now - slot.since for slot in self._slots if slot.running)

    @property
    def shed(self) -> int:
        """Calls that were shed, since the start."""
        return self._shed

    @property
    def stalled(self) -> int:
        """Calls that were cancelled because their request did not come."""
        return self._stalled

    # --- the threads

    def _work(self, queue: "SimpleQueue[_Job | None]", slot: _Slot, shed: bool) -> None:  # noqa: FBT001
        self._place.slot = slot
        while True:
            job = queue.get()
            if job is None:
                return
            slot.since = time.monotonic()
            slot.job = job
            slot.running = True
            slot.waited = None if shed else slot.since - job.at
            try:
                job.fn(*job.args, **job.kwargs)
            except BaseException as error:  # noqa: BLE001 - a thread of the pool must outlive any call
                with suppress(BaseException):
                    self._failed(error)
            slot.job = None
            slot.running = False
            try:  # noqa: SIM105 - a context manager takes longer
                job.finish()
            except BaseException:  # noqa: BLE001, S110 - a thread of the pool must outlive any call
                pass

    def _watch(self) -> None:
        pause = min(_LONGEST_LOOK, max(_SHORTEST_LOOK, self._receive_timeout / 4))
        while not self._closed.wait(pause):
            now = time.monotonic()
            for slot in self._slots:
                job = slot.job
                if job is not None and now - slot.since > self._receive_timeout:
                    slot.job = None
                    self._cancel(job)

    def _cancel(self, job: _Job) -> None:
        # The call is among grpcio's own arguments to `submit`; a test fails should that change.
        for argument in job.args:
            cancel = getattr(getattr(argument, "call", None), "cancel", None)
            if callable(cancel):
                self._stalled += 1
                try:
                    cancel()
                except Exception as error:  # noqa: BLE001 - the call may just have ended
                    self._failed(error)
                return
