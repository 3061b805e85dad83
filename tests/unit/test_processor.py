"""Threads of the Python lane keep to the processor that the configuration names, and others do not."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from authz.config import Limits, Listener
from authz.errors import ConfigError
from authz.server.executor import BoundedExecutor
from authz.server.grpc_listener import GrpcListener
from authz.server.processor import require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ALLOWED = sorted(os.sched_getaffinity(0))
LAST = ALLOWED[-1]


def kept(named: Callable[[str], bool]) -> list[set[int]]:
    """Where the threads of that name may run."""
    return [
        os.sched_getaffinity(thread.native_id)
        for thread in threading.enumerate()
        if thread.native_id is not None and named(thread.name)
    ]


@pytest.fixture
def executor() -> Iterator[BoundedExecutor]:
    """Three threads on the last processor."""
    made = BoundedExecutor(3, 8, processor=LAST)
    yield made
    made.shutdown()


def test_the_threads_that_decide_keep_to_it(executor: BoundedExecutor) -> None:
    """All of them; those that shed and do all else run anywhere."""
    done = threading.Event()
    executor.submit(done.set)

    assert done.wait(10)
    assert kept(lambda name: name.startswith("authz-call")) == [{LAST}] * 3
    others = kept(lambda name: name.startswith(("authz-shed", "MainThread")))
    assert others == [set(ALLOWED)] * 3


def test_grpcio_s_polling_thread_keeps_to_it(executor: BoundedExecutor) -> None:
    """The thread that grpcio starts, and only where a processor is named."""

    def polling(processor: int | None) -> list[set[int]]:
        listener = GrpcListener.bind(
            "main",
            Listener(address="127.0.0.1:0"),
            services={},
            generic=(),
            executor=executor,
            limits=Limits(processor=processor),
            shared=False,
        )
        before = set(threading.enumerate())
        listener.start()
        made = {thread.name for thread in set(threading.enumerate()) - before}
        found = kept(made.__contains__)
        listener.server.stop(None).wait(5)
        return found

    assert polling(LAST) == [{LAST}]
    assert polling(None) == [set(ALLOWED)]


def test_a_processor_that_may_not_be_used_is_refused() -> None:
    """With the numbers of those that may."""
    require(LAST)

    with pytest.raises(ConfigError) as caught:
        require(60_000)

    (defect,) = caught.value.diagnostics
    assert "60000" in defect.what
    assert str(LAST) in defect.what


def test_many_processors_are_named_as_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """As taskset(1) does."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 4, 7, 8})

    with pytest.raises(ConfigError, match="0-2, 4, 7-8"):
        require(3)


def test_a_system_that_binds_no_threads_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than that the setting is passed over."""
    monkeypatch.delattr(os, "sched_setaffinity")

    with pytest.raises(ConfigError, match="binds no thread"):
        require(LAST)
