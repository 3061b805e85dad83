"""Probes: threads that hang make the node unready, and those that answer make it ready again."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack

from authz.server.grpc.executor import BoundedExecutor
from authz.server.grpc.probes import Probes
from tests.support.waiting import eventually


def test_threads_that_hang_are_told_within_three_seconds_and_when_they_answer() -> None:
    """The other listener is not: each has threads of its own."""
    with ExitStack() as stack:
        hanging, other = BoundedExecutor(2, 8), BoundedExecutor(2, 8)
        gate = threading.Event()
        for executor in (hanging, other):
            stack.callback(executor.shutdown, wait=False)
        stack.callback(gate.set)
        probes = Probes({"main": hanging, "side": other}, 1.0)
        stack.callback(probes.close)
        ready: list[bool] = []
        probes.start(lambda: ready.append(not probes.late()))
        eventually(lambda: ready)
        for _ in range(2):
            hanging.submit(gate.wait, 30)
        begun = time.monotonic()

        eventually(probes.late)

        assert probes.late() == ("main",)
        assert 0.9 < time.monotonic() - begun < 3
        assert probes.problems() == (
            "listener `main`: calls wait longer than 1 s for a thread (`limits.ready_after`)",
        )
        eventually(lambda: not ready[-1])
        gate.set()
        eventually(lambda: not probes.late() and ready[-1])


def test_a_full_queue_alone_is_not_late() -> None:
    """Overload is answered by refusals; the node stays ready."""
    executor = BoundedExecutor(1, 16)
    probes = Probes({"main": executor}, 0.5)
    stop = threading.Event()

    def flood() -> None:
        while not stop.is_set():
            executor.submit(time.sleep, 0.001)
            time.sleep(0.0002)

    flooding = threading.Thread(target=flood)
    late: list[tuple[str, ...]] = []
    flooding.start()
    probes.start(lambda: late.append(probes.late()))
    try:
        eventually(lambda: executor.shed > 100)
        eventually(lambda: len(late) > 4)
        assert set(late) == {()}
    finally:
        stop.set()
        flooding.join(10)
        probes.close()
        executor.shutdown()


def test_what_follows_may_fail() -> None:
    """Probes go on."""
    errors: list[BaseException] = []
    probes = Probes({}, 1.0, errors.append)

    def fail() -> None:
        raise RuntimeError

    probes.start(fail)
    try:
        eventually(lambda: len(errors) > 1)
    finally:
        probes.close()
